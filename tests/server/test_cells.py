"""Isolated and ephemeral overlays in real servers: safe mode, starting over, and the way back."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.server.conftest import RunningServer, Start

pytestmark = pytest.mark.slow

CELLS = [
    ("isolated", "persistent"),
    ("overlay", "ephemeral"),
    pytest.param("isolated", "ephemeral", marks=pytest.mark.long),  # each by itself is above
]


def done(job: dict[str, Any]) -> dict[str, Any]:
    assert job["state"] == "done", job
    return job


def lines(server: RunningServer) -> list[str]:
    return (server.overlay_path / "requirements.txt").read_text().splitlines()


@pytest.mark.parametrize(("kind", "lifetime"), CELLS)
def test_starting_over_and_back(start: Start, kind: str, lifetime: str) -> None:
    spec = {"kind": kind, "lifetime": lifetime}
    server = start(spec=spec)
    server.install("tinydata")
    env = server.overlay("status")["env"]
    job = done(server.job("reset"))
    assert job["revision"] is not None
    assert not server.packages()
    assert lines(server) == []
    status = server.overlay("status")
    assert (status["mode"], status["env"], status["kind"], status["lifetime"]) == (
        "normal",
        env,
        kind,
        lifetime,
    )
    (aside,) = (server.home / ".overlay").glob("default.reset-*")
    assert (aside / "requirements.txt").read_text().split() == ["tinydata"]
    server.install("tinymany")
    assert set(server.packages()) == {"tinymany"}
    done(server.job("undo"))
    done(server.job("undo"))
    assert set(server.packages()) == {"tinydata"}
    assert lines(server) == ["tinydata"]
    server.stop()
    again = start(spec=spec, home=server.home)
    end = time.monotonic() + 60
    while "tinydata" not in again.packages():
        assert time.monotonic() < end, again.log
        time.sleep(0.2)


@pytest.mark.parametrize(("kind", "lifetime"), CELLS)
def test_safe_mode_for_one_start(start: Start, kind: str, lifetime: str) -> None:
    spec = {"kind": kind, "lifetime": lifetime}
    server = start(spec=spec)
    server.install("tinydata")
    assert server.post("overlay/v1/next-start", json={"mode": "safe"}).ok
    server.stop()
    safe = start(spec=spec, home=server.home)
    status = safe.overlay("status")
    assert (status["mode"], status["env"]) == ("safe", None)
    assert not safe.run_cell("6 * 7").error
    assert "ModuleNotFoundError" in safe.run_cell("import tinydata").error
    assert lines(safe) == ["tinydata"]
    safe.stop()
    again = start(spec=spec, home=server.home)
    assert again.overlay("status")["mode"] == "normal"
    end = time.monotonic() + 60
    while "tinydata" not in again.packages():
        assert time.monotonic() < end, again.log
        time.sleep(0.2)
