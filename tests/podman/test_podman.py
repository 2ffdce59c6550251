"""What differs on Podman from Docker: names, ends of containers, starts that fail."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from overlayspawner.hub import engine_reasons as reasons
from tests.conformance.engines.podman import podman
from tests.support.hub import RunningHub, SpawnFailed
from tests.support.images import image

pytestmark = [pytest.mark.engine, pytest.mark.podman, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    name = f"localhost/{image('nopython')}"
    with podman("nopython"), RunningHub(image=name) as running:
        yield running


def test_a_home_has_the_image_s_content_and_owner(hub: RunningHub) -> None:
    hub.start_server("settler")
    container = hub.engine.container("settler")
    (home,) = [m for m in container.attrs["Mounts"] if m["Destination"] == "/home/user"]
    assert home["Name"] == f"{hub.prefix}-home-settler"
    result = container.exec_run(["sh", "-c", "stat -c %u:%g /home/user; ls -A /home/user"])
    assert result.output.decode().split()[:2] == ["1000:1000", ".bash_logout"], result
    hub.stop_server("settler")
    assert hub.engine.containers() == []


def test_out_of_memory(hub: RunningHub) -> None:
    """Podman does not say why the kernel ended it. Its exit code is told, although it is removed at once."""
    hub.configure("starved", mem_limit="16M", cmd=["/bin/sh", "-c", "sleep 1; exec tail /dev/zero"])
    with pytest.raises(SpawnFailed) as failed:
        hub.start_server("starved")
    assert "a kill signal, perhaps for want of memory" in str(failed.value)
    assert hub.engine.containers("-starved") == []


def taken() -> dict[str, Any]:
    listener = socket.socket()
    listener.bind(("0.0.0.0", 0))
    listener.listen(1)
    LISTENERS.append(listener)
    return {"port_bindings": {"8888/tcp": listener.getsockname()[1]}}


LISTENERS: list[socket.socket] = []


@pytest.mark.parametrize(
    ("user", "traits", "code"),
    [
        ("network", {"network_name": "no-such-network"}, "network"),
        ("port", {}, "port"),
        ("named", {"image": "Upper/Case:1"}, "image-name"),
        ("absent", {"image": "localhost/nobody/has", "pull_policy": "never"}, "image-absent"),
        ("registry", {"image": "127.0.0.1:9/no/registry:1"}, "registry"),
        ("bind", {"volumes": {"/proc/no/such": "/data"}}, "mount"),
        ("tiny", {"mem_limit": "1M"}, "settings"),
        ("command", {"cmd": ["no-such-command"]}, "command"),
    ],
)
def test_a_start_that_fails(hub: RunningHub, user: str, traits: dict[str, Any], code: str) -> None:
    """It has the same reason as with Docker, and leaves no container: Podman itself removes none then."""
    hub.configure(user, **(traits or {"extra_host_config": taken()}))
    with pytest.raises(SpawnFailed) as failed:
        hub.start_server(user)
    assert reasons.HINTS[code] in str(failed.value), hub.log(20)
    assert "Traceback" not in hub.log(40)
    assert hub.engine.containers(f"-{user}") == []
