"""A real hub on a real swarm: config objects, what stays after failures, and a start right after a stop."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from overlayspawner.hub import payload_zip, swarm_configs
from overlayspawner.hub.delivery import PAYLOAD_LABEL
from tests.support.hub import RunningHub, SpawnFailed
from tests.support.images import image
from tests.support.swarm import HUB_CONFIG, clean, is_manager

pytestmark = [pytest.mark.engine, pytest.mark.swarm]

# What an administrator may have set: a config object of their own, a home volume for one user.
CONFIG = (
    HUB_CONFIG
    + """
import docker
from docker.types import ConfigReference

theirs = docker.from_env().api.configs(filters={"name": harness["prefix"]})[0]
c.SwarmSpawner.extra_container_spec = {
    "configs": [ConfigReference(theirs["ID"], theirs["Spec"]["Name"], filename="/etc/theirs")],
    "read_only": False,
}
# the hub asks for it again when the user is deleted
c.OverlaySwarmSpawner.home_volume = lambda s: "{prefix}-home-{username}" if s.user.name == "carl" else ""
"""
)


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    """A hub with a config object of its administrator's in all services."""
    if not is_manager():
        pytest.skip("this Docker is no manager of a swarm: make engine-up ENGINE=swarm")
    client = docker.from_env().api
    running = RunningHub(CONFIG, spawner="overlay-swarm", image=image("venv"))
    theirs = client.create_config(f"{running.prefix}-theirs", b"theirs")
    try:
        with running:
            try:
                yield running
            finally:
                clean(running)
    finally:
        client.remove_config(theirs["ID"])


def ours() -> dict[str, Any]:
    """Return our config objects by name."""
    found = docker.from_env().api.configs(filters={"label": PAYLOAD_LABEL})
    return {c["Spec"]["Name"]: c for c in found if c["Spec"]["Name"].startswith(swarm_configs.prefix())}


def left(hub: RunningHub) -> list[str]:
    """Return what is left of a hub's servers."""
    services = docker.from_env().services.list(filters={"name": hub.prefix})
    return [s.name for s in services] + [c.name for c in hub.engine.containers()] + hub.engine.volumes()


def test_the_payload_comes_in_config_objects_beside_an_administrators(hub: RunningHub) -> None:
    """And a start right after a stop finds name and port free; what another hub removed is made again."""
    server = hub.start_server("anna")
    assert server.get("overlay/v1/status").json()["mode"] == "normal"
    (container,) = hub.engine.containers("anna")
    assert container.exec_run(["cat", "/etc/theirs"]).output == b"theirs"
    files = payload_zip.build().contents()
    stored = {name.removeprefix(swarm_configs.prefix()): c["Spec"]["Data"] for name, c in ours().items()}
    assert {name: base64.b64decode(stored[name]) for name in files} == files
    # in use: the engine itself keeps them
    swarm_configs.remove_unused(docker.from_env().api, youngest=0, own=True)
    assert len(ours()) == len(files) + 1

    hub.stop_server("anna")
    assert left(hub) == []
    swarm_configs.remove_unused(docker.from_env().api, youngest=0, own=True)
    assert not ours()
    server = hub.start_server("anna")  # the hub believes that they are there
    assert server.get("overlay/v1/status").json()["mode"] == "normal"
    hub.stop_server("anna")
    assert left(hub) == []


@pytest.mark.parametrize(
    ("traits", "told"),
    [
        (
            {"cmd": ["sh", "-c", "echo last words; exit 3"]},
            r"exit code 3(.|\n)*overlay=safe(.|\n)*last words",
        ),
        ({"image": "overlayspawner.invalid/nosuch:1"}, r"No such image|pull access|no such host"),
        ({"image": "overlayspawner.invalid/nosuch:1", "args": ["--x"]}, r"set Spawner\.cmd"),
        ({"network_name": "overlayspawner-nosuch"}, r"network overlayspawner-nosuch not found"),
        ({"volumes": {"named": "/data"}}, r"absolute path(.|\n)*mounts of extra_container_spec"),
        ({"home_volume": "{prefix}-lost", "volume_driver": "nosuch", "start_timeout": 20}, r"missing plugin"),
        (
            {"extra_placement_spec": {"constraints": ["node.labels.no==such"]}, "start_timeout": 20},
            r"constraints not satisfied",
        ),
    ],
    ids=["command", "image", "unknown-command", "network", "volume", "driver", "constraint"],
)
def test_why_a_service_does_not_start_is_told_and_nothing_stays(
    hub: RunningHub, traits: dict[str, Any], told: str
) -> None:
    hub.configure("bert", **traits)
    with pytest.raises(SpawnFailed) as failed:
        hub.start_server("bert")
    assert re.search(told, str(failed.value)), str(failed.value)
    assert "Traceback" not in str(failed.value)
    assert left(hub) == []


def test_a_home_volume_is_made_by_the_node_and_deleted_with_its_user(hub: RunningHub) -> None:
    server = hub.start_server("carl")
    status = server.get("overlay/v1/status").json()
    assert "not-persistent" not in {n["code"] for n in status["notices"]}
    hub.stop_server("carl")
    assert left(hub) == [f"{hub.prefix}-home-carl"]
    assert hub.call("DELETE", "users/carl").ok
    assert left(hub) == []
