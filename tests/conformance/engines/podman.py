"""OverlayDockerSpawner on a rootful Podman, over its socket in Docker's language."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from tests.conformance.adapter import Base
from tests.conformance.engines import docker

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "podman.sh"


@contextmanager
def podman(*images: str) -> Iterator[str]:
    """Have Docker's clients talk to Podman, which has some of the test images; give its address."""
    environ = {**os.environ, "PODMAN_IMAGES": " ".join(images)}
    up = subprocess.run([SCRIPT], env=environ, stdout=subprocess.PIPE, text=True, check=True)
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = up.stdout.split()[-1]
    try:
        yield os.environ["DOCKER_HOST"]
    finally:
        del os.environ["DOCKER_HOST"]
        if before is not None:
            os.environ["DOCKER_HOST"] = before


class Podman(docker.Docker):
    """Podman."""

    name = "podman"

    @cached_property
    def bases(self) -> tuple[Base, Base]:  # type: ignore[override]
        """The usual ones, built by Docker, under the names that Podman gives them."""
        first, second = super().bases
        return replace(first, image=f"localhost/{first.image}"), replace(
            second, image=f"localhost/{second.image}"
        )

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Take the images over from Docker, and speak to Podman from then on."""
        assert self.bases
        with podman("venv", "py313"):
            yield
