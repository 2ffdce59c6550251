"""DockerSpawner on the Docker that answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conformance.adapter import ContainerAdapter


class Docker(ContainerAdapter):
    """Docker."""

    name = "docker"

    def hub_options(self) -> dict[str, Any]:
        """Our spawner, on the usual image."""
        return {**super().hub_options(), "spawner": "overlay-docker"}

    def use_home(self, user: str) -> Path:
        """Bind a directory."""
        directory = self.directory / user
        self.configure(user, volumes={str(directory): self.bases[0].home})
        return directory

    def instance(self, user: str) -> str:
        """Return the container's identity."""
        found = [c for c in self.hub.engine.containers(f"-{user}") if c.name == f"{self.hub.prefix}-{user}"]
        return str(found[0].id) if found else ""

    def runs_on(self, user: str) -> str:
        """Return the image's tag, if it is still the image that is called so."""
        container = self.hub.engine.container(user)
        tag = str(container.attrs["Config"]["Image"])
        return tag if self.hub.engine.client.images.get(tag).id == container.image.id else container.image.id

    def is_home(self, volume: str) -> bool:
        """Whether a volume of the hub is a user's home."""
        return volume.startswith(f"{self.hub.prefix}-home-")

    def left_over(self) -> list[str]:
        """Containers, and volumes that are no home."""
        engine = self.hub.engine
        return [
            *(f"container {c.name}" for c in engine.containers()),
            *(f"volume {name}" for name in engine.volumes() if not self.is_home(name)),
        ]
