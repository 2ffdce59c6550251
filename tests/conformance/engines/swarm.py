"""SwarmSpawner on a swarm of one node (``make engine-up ENGINE=swarm``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conformance.adapter import ContainerAdapter
from tests.support.swarm import HUB_CONFIG, clean


class Swarm(ContainerAdapter):
    """Docker Swarm."""

    name = "swarm"

    def hub_options(self) -> dict[str, Any]:
        """Our spawner, which publishes each server on a port of the node; homes are volumes of the node."""
        config = HUB_CONFIG + '\nc.OverlaySwarmSpawner.home_volume = "{prefix}-home-{username}"\n'
        return {**super().hub_options(), "spawner": "overlay-swarm", "config": config}

    @contextmanager
    def running(self) -> Iterator[Any]:
        """Remove the services of the hub at the end."""
        with super().running() as running:
            try:
                yield running
            finally:
                clean(self.hub)

    def use_home(self, user: str) -> Path:
        """Bind a directory of the node."""
        directory = self.directory / user
        self.configure(user, volumes={str(directory): self.bases[0].home})
        return directory

    def instance(self, user: str) -> str:
        """Return the identity of the service's container."""
        name = f"{self.hub.prefix}-{user}.1."
        found = [c for c in self.hub.engine.containers(f"-{user}") if c.name.startswith(name)]
        return str(found[0].id) if found else ""

    def runs_on(self, user: str) -> str:
        """Return the image's tag, if it is still the image that is called so."""
        client = self.hub.engine.client
        container = client.containers.get(self.instance(user))
        tag = str(container.attrs["Config"]["Image"])
        return tag if client.images.get(tag).id == container.image.id else str(container.image.id)

    def left_over(self) -> list[str]:
        """Services, containers, and volumes that are no home."""
        engine = self.hub.engine
        homes = f"{self.hub.prefix}-home-"
        return [
            *(f"service {s.name}" for s in engine.client.services.list(filters={"name": self.hub.prefix})),
            *(f"container {c.name}" for c in engine.containers()),
            *(f"volume {name}" for name in engine.volumes() if not name.startswith(homes)),
        ]
