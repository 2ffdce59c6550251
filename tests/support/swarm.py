"""What tests need of a swarm of one node, on a kernel that may lack virtual addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import docker

from overlayspawner.hub import swarm_configs

if TYPE_CHECKING:
    from tests.support.hub import RunningHub

# Each server gets a port of the node. Where the kernel has no ip_vs, a swarm's own addresses lead nowhere.
HUB_CONFIG = """
import socket

from overlayspawner import OverlaySwarmSpawner


class OneNode(OverlaySwarmSpawner):
    async def start(self, *args, **kwargs):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.extra_endpoint_spec = {"ports": {port: (8888, "tcp", "host")}}
        return await super().start(*args, **kwargs)


c.JupyterHub.spawner_class = OneNode
c.SwarmSpawner.use_internal_ip = False
c.SwarmSpawner.use_internal_hostname = False
c.SwarmSpawner.host_ip = "127.0.0.1"
c.Spawner.start_timeout = c.Spawner.http_timeout = 180
"""


def is_manager() -> bool:
    """Whether the Docker that answers is a manager of a swarm."""
    return bool(docker.from_env().info()["Swarm"].get("ControlAvailable"))


def clean(hub: RunningHub) -> None:
    """Remove the services of a hub, and our config objects that no service uses."""
    client = docker.from_env()
    for service in client.services.list(filters={"name": hub.prefix}):
        service.remove()
    swarm_configs.remove_unused(client.api, youngest=0, own=True)
