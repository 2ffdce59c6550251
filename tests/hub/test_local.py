"""OverlayLocalSpawner: local processes on the machine's own Python, in a real hub."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from overlayspawner.hub import local, payload_zip
from overlayspawner.hub.config import Settings
from overlayspawner.payload.contract import SPEC_ENV, OverlayError
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


def test_the_payload_is_put_there_once(tmp_path: Path) -> None:
    parent = tmp_path / "a" / "b"
    directory = Path(local.deliver(str(parent)))
    payload = payload_zip.build()
    assert directory.name == payload.short_id
    assert (directory / "overlay.pyz").read_bytes() == payload.zip
    for path in (parent, directory, directory / "launcher.sh"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o022 == 0 and mode & 0o044 == 0o044, (path, oct(mode))
    before = (directory / "overlay.pyz").stat()
    assert local.deliver(str(parent)) == str(directory)
    assert (directory / "overlay.pyz").stat().st_ino == before.st_ino
    assert os.listdir(parent) == [directory.name]


@pytest.mark.parametrize("damage", ["COMPLETE", "launcher.sh COMPLETE"])
def test_a_half_delivered_payload_is_completed(tmp_path: Path, damage: str) -> None:
    directory = Path(local.deliver(str(tmp_path)))
    for name in damage.split():
        (directory / name).unlink()
    assert local.deliver(str(tmp_path)) == str(directory)
    assert sorted(os.listdir(directory)) == ["COMPLETE", "launcher.sh", "overlay.pyz", "start.bin"]
    assert os.listdir(tmp_path) == [directory.name]


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(OverlayError, match="Others than the hub's user may write"):
        local.deliver(str(tmp_path))
    tmp_path.chmod(0o755)
    directory = Path(local.deliver(str(tmp_path)))
    directory.chmod(0o775)
    with pytest.raises(OverlayError, match="Others than the hub's user may write"):
        local.deliver(str(tmp_path))


def test_a_directory_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OverlayError, match="can't be used") as caught:
        local.deliver(str(tmp_path / "file" / "x"))
    assert "overlay_payload_dir" in caught.value.hint


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
