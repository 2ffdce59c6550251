"""Fixtures: containers on shared homes, and an index with packages whose names are easy to make."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.boxes import Boxes
from tests.support.index import LocalIndex, make_wheel


@pytest.fixture(scope="package")
def storm_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalIndex]:
    """``pkg0`` to ``pkg39``, ``shared0`` to ``shared3`` (1.0 and 2.0), which need ``leaf``, and ``many``."""
    directory = tmp_path_factory.mktemp("storm-index")
    with LocalIndex(directory, recipes=False) as index:
        for number in range(40):
            # modules enough for a commit of several renames
            files = {f"pkg{number}/__init__.py": "__version__ = '1.0'\n", f"pkg{number}/data/a.txt": "a"}
            index.add(
                make_wheel(directory, f"pkg{number}", "1.0", files=files, scripts={f"run{number}": "pkg:x"})
            )
        index.add(make_wheel(directory, "leaf", "1.0"))
        for number in range(4):
            for version in ("1.0", "2.0"):
                index.add(make_wheel(directory, f"shared{number}", version, requires=["leaf"]))
        many = {f"many/m{n}.py": "" for n in range(400)} | {"many/__init__.py": "__version__ = '1.0'\n"}
        index.add(make_wheel(directory, "many", "1.0", files=many))
        yield index


@pytest.fixture(scope="package")
def boxes(storm_index: LocalIndex) -> Iterator[Boxes]:
    """Containers that install from that index."""
    with Boxes(index_url=storm_index.container_url) as made:
        yield made
