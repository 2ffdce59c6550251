"""OverlayDockerSpawner where no engine is needed."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from overlayspawner.hub import docker as ours
from overlayspawner.hub.compose import Plan
from overlayspawner.hub.config import Mount
from overlayspawner.hub.image_facts import ImageFacts
from overlayspawner.hub.resume import reason_to_keep
from overlayspawner.payload.contract import Spec
from tests.support.spawner import bare_spawner


@pytest.mark.parametrize(
    ("known", "url"),
    [
        # where start() said it is: another port than the configuration of now would give
        (SimpleNamespace(url="http://10.1.2.3:8787/user/x/", base_url="/", ip="10.1.2.3", port=8787), None),
        # start() has not returned: nothing is known
        (SimpleNamespace(url="http://:0/", base_url="/", ip="", port=0), "http://10.9.9.9:8888/"),
    ],
)
async def test_a_known_address_is_not_made_up_anew(known: Any, url: str | None) -> None:
    spawner = bare_spawner("somebody")

    async def now() -> tuple[str, int]:
        return "10.9.9.9", 8888

    spawner.get_ip_and_port = now
    spawner.orm_server = known
    assert await spawner.get_url() == (url or known.url)


async def test_a_fill_that_takes_long_holds_up_no_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a killed hub left its filling container; the fill itself goes on."""
    spawner = bare_spawner("somebody")
    go_on, filled = asyncio.Event(), asyncio.Event()

    class Slow:
        async def ensure(self, bundle: Any, image: str) -> bool:
            await go_on.wait()
            filled.set()
            return True

    async def connect() -> Slow:
        return Slow()

    spawner._overlay_connect = connect
    monkeypatch.setattr(ours, "_DELIVERY_PATIENCE", 0.1, raising=False)
    with caplog.at_level(logging.WARNING):
        delivered = await asyncio.wait_for(spawner._overlay_deliver(ImageFacts("sha256:x")), 10)
    assert delivered == []
    assert "without" in caplog.text
    assert not filled.is_set()
    go_on.set()
    await asyncio.wait_for(filled.wait(), 10)


def test_files_that_a_new_mount_would_replace_are_not_lost() -> None:
    """A container that had no home volume has the user's files in itself."""
    home = Mount("/home/jovyan", False, "home-of-a")
    plan = Plan({}, Spec(), "", {}, [home], "/home/jovyan", "home-of-a")
    diff = [{"Path": "/home/jovyan/mine.txt", "Kind": 1}]
    assert "/home/jovyan/mine.txt" in reason_to_keep({"HostConfig": {}}, plan, diff)
    mounted = {"HostConfig": {"Binds": ["home-of-a:/home/jovyan:rw"]}}
    assert reason_to_keep(mounted, plan, diff) == ""
