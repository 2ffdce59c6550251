"""Fixtures that several suites use. None of them needs an engine unless a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.index import LocalIndex


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalIndex]:
    """The local package index with all packages of :mod:`tests.index.recipes`."""
    directory: Path = tmp_path_factory.mktemp("index")
    with LocalIndex(directory) as running:
        yield running
