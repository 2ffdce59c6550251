"""Where the overlay lives: on what the administrator keeps for the user, else on a volume of our own."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.docker.conftest import HOMES
from tests.support.client import Server
from tests.support.hub import RunningHub
from tests.support.images import image
from tests.support.index import LocalIndex

pytestmark = [pytest.mark.engine, pytest.mark.beside]

HOME = HOMES["stacks"]


def mounts(hub: RunningHub, user: str) -> dict[str, str]:
    """Return what a user's container has mounted: path → volume; without our own payload."""
    found: list[dict[str, Any]] = hub.engine.container(user).attrs["Mounts"]
    return {m["Destination"]: m.get("Name", "") for m in found if m["Destination"].startswith("/home")}


def survives(hub: RunningHub, user: str, overlay: str) -> Server:
    """Install, replace the container, and check that the package is at the same place."""
    server = hub.server(user)
    assert server.overlay("status")["path"] == overlay
    server.install("tinyleaf")
    hub.stop_server(user)
    hub.start_server(user)
    cell = server.run_cell("import tinyleaf; print(tinyleaf.__file__)")
    assert cell.text.startswith(overlay + "/envs/"), cell
    return server


@pytest.mark.parametrize("kind", ["stacks", "venv"])
def test_nothing_mounted(hub: RunningHub, kind: str) -> None:
    user = f"nothing{kind}"
    hub.configure(user, image=image(kind))
    hub.start_server(user)
    assert mounts(hub, user) == {HOMES[kind]: f"{hub.prefix}-home-{user}"}
    server = survives(hub, user, f"{HOMES[kind]}/.overlay/default")
    assert "not-persistent" not in server.notices()
    # the image's own files in the home are there too, and are the user's
    owner = hub.engine.container(user).exec_run(["stat", "-c", "%u", HOMES[kind], f"{HOMES[kind]}/.bashrc"])
    assert owner.output == b"1000\n1000\n"


def test_only_a_folder_mounted(hub: RunningHub) -> None:
    volume = hub.engine.make_volume("work")
    hub.configure("folder", volumes={volume: f"{HOME}/work"})
    # dockerd makes the mount point as root where the image has no such directory; administrators chown it
    hub.engine.run_in(volume, "/v", image("stacks"), "chown 1000:100 /v")
    hub.start_server("folder")
    assert mounts(hub, "folder") == {f"{HOME}/work": volume}
    survives(hub, "folder", f"{HOME}/work/.overlay/default")


def test_home_mounted(hub: RunningHub) -> None:
    volume = hub.engine.make_volume("whole")
    hub.configure("whole", volumes={volume: HOME})
    hub.start_server("whole")
    assert mounts(hub, "whole") == {HOME: volume}
    survives(hub, "whole", f"{HOME}/.overlay/default")


def test_mounted_above_the_home(hub: RunningHub) -> None:
    volume = hub.engine.make_volume("above")
    hub.engine.run_in(volume, "/v", image("stacks"), "mkdir /v/jovyan; chown 1000:100 /v/jovyan")
    hub.configure("above", volumes={volume: "/home"})
    hub.start_server("above")
    assert mounts(hub, "above") == {"/home": volume}
    survives(hub, "above", f"{HOME}/.overlay/default")


@pytest.mark.parametrize("where", [HOME, f"{HOME}/work"])
def test_documented_volume(hub: RunningHub, where: str) -> None:
    """DockerSpawner's documentation has ``jupyterhub-user-{username}`` at the notebook directory."""
    user = f"u{uuid.uuid4().hex[:10]}"
    volume = f"jupyterhub-user-{user}"
    hub.engine.forget_volume(volume)
    hub.engine.client.volumes.create(volume)
    # what the user has from the time before our spawner
    hub.engine.put(volume, image("stacks"), "/mnt", {"mine.txt": "kept\n"})
    hub.engine.run_in(volume, "/v", image("stacks"), "chown -R 1000:100 /v")
    hub.configure(user, volumes={"jupyterhub-user-{username}": where}, notebook_dir=where)
    hub.start_server(user)
    assert mounts(hub, user) == {where: volume}
    server = survives(hub, user, f"{where}/.overlay/default")
    assert server.get("api/contents/mine.txt").json()["content"] == "kept\n"


def test_no_volume_is_told(hub: RunningHub) -> None:
    hub.configure("lost", home_volume="")
    server = hub.start_server("lost")
    assert mounts(hub, "lost") == {}
    assert "not-persistent" in server.notices()
    server.install("tinyleaf")
    assert server.run_cell("import tinyleaf; print(1)").text == "1\n"


def test_the_home_stays_when_the_overlay_is_switched_off(hub: RunningHub) -> None:
    volume = f"{hub.prefix}-home-switched"
    hub.start_server("switched").install("tinyleaf")
    hub.stop_server("switched")
    hub.configure("switched", overlay_enabled=False)
    server = hub.start_server("switched")
    assert mounts(hub, "switched") == {HOME: volume}
    assert server.get("overlay/v1/status").status_code == 404
    assert server.run_cell("import sys; print(sys.prefix)").text == "/opt/conda\n"
    hub.stop_server("switched")
    # who never had one does not get one
    hub.configure("never", overlay_enabled=False)
    hub.start_server("never")
    assert mounts(hub, "never") == {}
    hub.stop_server("never")
    hub.configure("switched", overlay_enabled=True)
    assert "tinyleaf" in hub.start_server("switched").packages()


def test_our_volume_goes_with_the_user(hub: RunningHub) -> None:
    hub.start_server("gone")
    volume = f"{hub.prefix}-home-gone"
    hub.stop_server("gone")
    assert volume in hub.engine.volumes()
    assert hub.call("DELETE", "users/gone").status_code == 204
    assert volume not in hub.engine.volumes()


def test_our_volume_stays_where_told_so(index: LocalIndex) -> None:
    config = "c.OverlayDockerSpawner.delete_home_volume = False"
    with RunningHub(config, image=image("stacks"), index=index) as own:
        own.start_server("stays")
        own.stop_server("stays")
        assert own.call("DELETE", "users/stays").status_code == 204
        assert f"{own.prefix}-home-stays" in own.engine.volumes()


def test_the_administrators_volume_always_stays(hub: RunningHub) -> None:
    volume = hub.engine.make_volume("theirs")
    hub.configure("theirs", volumes={volume: HOME})
    hub.start_server("theirs")
    hub.stop_server("theirs")
    assert hub.call("DELETE", "users/theirs").status_code == 204
    assert volume in hub.engine.volumes()
