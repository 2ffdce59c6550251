"""OverlaySystemUserSpawner where no engine and no users are needed."""

from __future__ import annotations

import os
import pwd
from types import SimpleNamespace
from typing import Any

import pytest
from dockerspawner import DockerSpawner

from overlayspawner.hub.system_user import OverlaySystemUserSpawner, names_directory
from tests.support.spawner import bare_spawner

ME = pwd.getpwuid(os.getuid())


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("bind source path does not exist: /home/al", True),
        ("bind source path does not exist: /home/al.", True),
        ("error while creating mount source path '/home/al': permission denied", True),
        ("statfs /home/al/: no such file or directory", True),
        ("statfs /home/alice: no such file or directory", False),
        ("statfs /home/al.old: no such file or directory", False),
        ("exec: /home/al/bin/serve: no such file or directory", False),
    ],
)
def test_what_is_said_about_a_home(text: str, about: bool) -> None:
    assert names_directory(text, "/home/al") == about


def test_the_id_that_was_set_is_kept_where_the_other_is_not_known() -> None:
    """An authenticator's id would be gone after one failed start."""
    spawner = bare_spawner("nobody-of-this-name", base=OverlaySystemUserSpawner, user_id=4711)
    state = spawner.get_state()
    assert state["user_id"] == 4711 and "group_id" not in state


@pytest.mark.parametrize("enabled", [True, False])
async def test_without_an_overlay_it_is_systemuserspawner(
    enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids are kept, and the arguments of containers get the user, as there."""
    seen: list[dict[str, Any]] = []

    async def start(self: Any) -> None:
        seen.append(dict(self.extra_create_kwargs))
        raise RuntimeError("far enough")

    monkeypatch.setattr(DockerSpawner, "start", start)
    spawner = bare_spawner(ME.pw_name, base=OverlaySystemUserSpawner, image="image:1")
    spawner.hub = SimpleNamespace(base_url="/hub/")
    spawner.overlay_enabled = enabled
    with pytest.raises(RuntimeError, match="far enough"):
        await spawner.start()
    assert seen[0]["user"] == f"{ME.pw_uid}:{ME.pw_gid}"
    assert ("user" in spawner.extra_create_kwargs) != enabled
    assert ("user_id" in spawner.get_state()) != enabled
