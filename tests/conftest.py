"""Fixtures that several suites use. None of them needs an engine unless a test asks for it."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.index import LocalIndex

INSTALLING = {"base", "image", "index", "installer", "server", "shop", "start", "uv_on_path"}
"""Fixtures of tests that make environments and install into them, with the real tools: seconds each."""

STARTING = {
    "faults",
    "damage",
    "test_bootstrap",
    "test_hung_home",
    "test_launcher",
    "test_reset",
    "test_start_bin",
}
"""Directories and modules of tests that start a Python many times."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `tests/conformance`, which pytest would see too late in a folder below this one."""
    parser.addoption("--engine", action="append", help="an engine for tests/conformance; again for more")


def _for_test_all(item: pytest.Item) -> bool:
    """Whether a test with pip is one more of a module that names those that say something new with it.

    ``PIP_TOO`` holds names of tests, or of one with its parameters, as in ``test_it[with this]``.
    """
    chosen = getattr(getattr(item, "module", None), "PIP_TOO", None)
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if chosen is None or parameters.get("installer") != "pip":
        return False
    return not {item.originalname, item.name.replace("[pip-", "[")} & chosen  # type: ignore[attr-defined]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark such tests as slow, so that the quick ones stay quick without anybody's thinking of it."""
    for item in items:
        if _for_test_all(item):
            item.add_marker(pytest.mark.long)
        places = {item.path.stem, item.path.parent.name}
        if INSTALLING & set(getattr(item, "fixturenames", ())) or STARTING & places:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, None]:
    """Add the logs of the hubs that run, and of their servers, to the report of a failed test."""
    outcome = yield
    report = outcome.get_result()
    harness = sys.modules.get("tests.support.hub")  # not imported for tests that have no hub
    if report.failed and harness is not None:
        report.sections.extend((f"hub {hub.prefix}", hub.report()) for hub in harness.RunningHub.alive)


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalIndex]:
    """The local package index with all packages of :mod:`tests.index.recipes`."""
    directory: Path = tmp_path_factory.mktemp("index")
    with LocalIndex(directory) as running:
        yield running
