"""Fixtures of the tests on a real cluster; a failed test shows the hub's log and what the pods print."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.support.hub import RunningHub
from tests.support.kube import Cluster, start_cluster, stop_cluster


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, None]:
    """Add the logs to the report of a failed test."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        report.sections.extend((f"hub {hub.prefix}", hub.report()) for hub in RunningHub.alive)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster that KUBECONFIG names; else one that is started, and stopped afterwards."""
    running, ours = start_cluster()
    yield running
    if ours:
        stop_cluster()
