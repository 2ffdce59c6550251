"""OverlayLocalSpawner: local processes on the machine's own Python, in a real hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from overlayspawner.hub import local
from overlayspawner.hub.config import Settings
from overlayspawner.payload.contract import SPEC_ENV
from tests.support.hub import RunningHub, SpawnFailed

CONFIG = """
c.OverlayLocalSpawner.overlay_local_simple = True
c.OverlayLocalSpawner.overlay_payload_dir = harness["directory"] + "/payload"
c.OverlayLocalSpawner.overlay_path = "packages/{name}"
c.OverlayLocalSpawner.args = ["--allow-root"]
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    with RunningHub(CONFIG, spawner="overlay-local", docker=False) as running:
        yield running


@pytest.mark.slow
def test_a_server_has_an_overlay(hub: RunningHub) -> None:
    server = hub.start_server("odd.name_")
    status = server.overlay("status")
    assert status["mode"] == "normal", status
    assert status["path"].startswith(f"{hub.directory}/homes/odd-2ename_/packages/default")
    cell = server.run_cell("import sys, os; print(sys.prefix, 'OVERLAYSPAWNER_SPEC' in os.environ)")
    assert cell.text == f"{status['env']} False\n"


@pytest.mark.slow
def test_a_death_is_told(hub: RunningHub) -> None:
    for number in range(5):
        user = f"dies{number}"
        hub.configure(user, cmd=["no-such-command"])
        with pytest.raises(SpawnFailed, match="exit code 127"):
            hub.start_server(user)
    assert hub.running


@pytest.mark.slow
def test_without_an_overlay_it_is_its_parent(hub: RunningHub) -> None:
    hub.configure("plain", overlay_enabled=False)
    server = hub.start_server("plain")
    assert server.get("lab").status_code == 200
    # our package is installed in this Python, and then works without any hub: with settings of its own
    assert "packages/default" not in server.get("overlay/v1/status").text
    assert not (hub.directory / "homes" / "plain" / "packages").exists()


@pytest.mark.parametrize("name", ["..", "a/../../b", "A b", ""])
def test_names_are_escaped_in_the_overlay_s_path(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    class Bare(local.OverlayLocalSpawner):
        pass

    spawner = Bare()
    spawner.user = SimpleNamespace(name=name, settings={}, url="/user/x/")
    spawner.orm_spawner = SimpleNamespace(name=name, server=None, user=None)
    spawner._overlay_settings = Settings(path=".overlay/{name}/u{username}/s{servername}")
    monkeypatch.setattr(local.LocalProcessSpawner, "get_env", lambda self: {})
    path = json.loads(spawner.get_env()[SPEC_ENV])["path"]
    _, overlay, user, server = path.split("/")
    assert overlay == "default" and user[1:] == server[1:]
    assert re.fullmatch(r"[a-z0-9_-]*", user[1:]) and bool(name) is bool(user[1:])


@pytest.mark.slow
def test_safe_mode_and_a_reset_are_for_one_start(hub: RunningHub) -> None:
    server = hub.start_server("chooser")
    marker = Path(server.overlay("status")["path"]) / "requirements.txt"
    marker.write_text("# mine\n")
    hub.stop_server("chooser")
    for choice, mode in (("safe", "safe"), ("", "normal"), ("reset", "normal"), ("", "normal")):
        hub.start_server("chooser", options={"overlay": choice} if choice else None)
        assert server.overlay("status")["mode"] == mode, choice
        if choice == "reset":
            assert marker.read_text() == "" and "reset-done" in server.notices()
        hub.stop_server("chooser")
    assert len(list(marker.parent.parent.glob("default.reset-*"))) == 1
