"""Clean-up over REST, and what a server does when a job has ended."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.server.conftest import RunningServer
from tests.server.test_openapi import fits

pytestmark = pytest.mark.slow


def measured(server: RunningServer) -> dict[str, Any]:
    """What ``GET cleanup`` says once something was measured."""
    until = time.monotonic() + 60
    while True:
        found: dict[str, Any] = server.overlay("cleanup")
        if found["measured"] is not None or time.monotonic() > until:
            return found
        time.sleep(0.2)


def test_clean_up(server: RunningServer) -> None:
    server.install("tinybig")
    assert server.job("uninstall", uninstall=["tinybig"])["state"] == "done"
    found = measured(server)  # without being asked, a moment after the job
    fits(found, "/cleanup")
    assert {"cache", "undo"} <= {item["what"] for item in found["items"]}
    status = server.overlay("status")
    assert status["sizes"]["undo"] is not None and status["sizes"]["reserve"] > 0
    job = server.job("clean", what=["cache", "undo"], dry_run=True)
    assert job["state"] == "done" and "could be freed" in job["message"] and job["revision"] is None
    assert server.overlay("cleanup")["items"]
    job = server.job("clean", what=["cache", "undo"])
    assert job["state"] == "done" and " MB freed: " in job["message"], job
    assert server.overlay("status")["undoable"]["offline"] is False
    refused = server.post("overlay/v1/jobs", json={"action": "clean", "what": ["home"]})
    assert (refused.status_code, refused.json()["code"]) == (400, "bad-request")
    refused = server.post("overlay/v1/jobs", json={"action": "clean", "dry_run": "yes"})
    assert refused.json()["code"] == "bad-request"
