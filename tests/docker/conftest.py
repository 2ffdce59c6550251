"""Fixtures of the tests against a real engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import RunningHub
from tests.support.images import image
from tests.support.index import LocalIndex

HOMES = {"stacks": "/home/jovyan", "venv": "/home/user"}
PREFIXES = {"stacks": "/opt/conda", "venv": "/opt/venv"}


@pytest.fixture(scope="module")
def hub(index: LocalIndex) -> Iterator[RunningHub]:
    """A hub whose only setting of ours is the spawner class, on the docker-stacks-like image."""
    with RunningHub(image=image("stacks"), index=index) as running:
        yield running


@pytest.fixture
def listing() -> Callable[[Any, str], str]:
    """Return everything below a directory of a container: names, kinds, sizes, times and links."""

    def list_tree(container: Any, path: str) -> str:
        result = container.exec_run(["find", path, "-printf", "%p %y %s %T@ %l\\n"], user="0")
        assert result.exit_code == 0, result.output
        return "\n".join(sorted(result.output.decode().splitlines()))

    return list_tree


def unpacked(wheel: Path, into: str) -> dict[str, bytes]:
    """Return a wheel's files as :meth:`tests.support.engine.Engine.put` takes them."""
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        return {f"{into}/{name}": archive.read(name) for name in archive.namelist()}
