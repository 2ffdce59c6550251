"""A restore that found no index is tried again by the server itself, until there is one."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.probe import Base
from overlayspawner.payload.restore import state
from overlayspawner.payload.server import background
from overlayspawner.payload.server.service import Service
from tests.support.envs import base, make_context  # noqa: F401  (a fixture)
from tests.support.index import LocalIndex
from tests.support.wheels import make_wheel

pytestmark = pytest.mark.slow


class Application(SimpleNamespace):
    """A server that nobody uses."""

    def __init__(self) -> None:
        super().__init__(
            kernel_manager=SimpleNamespace(list_kernel_ids=list), web_app=SimpleNamespace(settings={})
        )


async def eventually(look: Callable[[], Any], timeout: float = 60) -> None:
    """Wait until ``look`` returns something true, with the loop running."""
    end = asyncio.get_running_loop().time() + timeout
    while not look():
        assert asyncio.get_running_loop().time() < end, "it never came true"
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_packages_come_back_when_the_index_does(
    tmp_path: Path,
    base: Base,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    installer: str,
) -> None:
    monkeypatch.setattr(background, "PAUSES", (1.0,))
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
    for name, value in (("UV_HTTP_RETRIES", "0"), ("PIP_RETRIES", "0"), ("PIP_CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(name, value)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    folder = tmp_path / "index"
    folder.mkdir()
    index = LocalIndex(folder, recipes=False)
    index.add(make_wheel(folder, "awaited", "1.0"))
    ctx = make_context(
        tmp_path / "home", base, index_url=f"http://127.0.0.1:{port}/simple/", installer=installer
    )
    overlay, env = ctx.require()
    Path(overlay.requirements).write_text("awaited\n")
    service = Service(ctx, logging.getLogger("test"))

    def told() -> dict[str, dict[str, str]]:
        return {n["code"]: n for n in ctx.notices}

    def waiting() -> bool:
        """Whether it is between two attempts, and the user is told why."""
        now = state(ctx) or {}
        error = now.get("error") or {"code": ""}
        if now.get("state") != "waiting" or error["code"] != "index-unreachable":
            return False
        return error["message"] in told().get("restore-waiting", {"message": ""})["message"]

    async def run() -> None:
        work = background.Background(service, Application(), quiet=0.01, quiet_busy=0.01)
        work.start()
        try:
            await eventually(waiting)
            # more than once, by itself
            await eventually(lambda: len(service.jobs.jobs()) > 2)
            assert overlay_dists(env) == {}
            index._listen("127.0.0.1", port)
            await eventually(lambda: "awaited" in overlay_dists(env))
            await eventually(lambda: "restore-waiting" not in told() and "restoring" not in told())
            assert (state(ctx) or {})["state"] == "done"
            assert {job.who for job in service.jobs.jobs()} == {"server"}
            last, *earlier = service.jobs.jobs()
            assert last.state == "done"
            assert {(job.error or {})["code"] for job in earlier} == {"index-unreachable"}
            # and then there is nothing left to do
            count = len(service.jobs.jobs())
            await asyncio.sleep(2)
            assert len(service.jobs.jobs()) == count
        finally:
            service.jobs.stop()
            assert work.stop(timeout=20)

    with index:
        asyncio.run(run())
    assert Path(overlay.requirements).read_text() == "awaited\n"
