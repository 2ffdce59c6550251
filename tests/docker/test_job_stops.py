"""A container that is stopped or killed in the middle of a job: nothing is left, and the next one says so."""

from __future__ import annotations

import time

import pytest

from tests.support.hub import RunningHub
from tests.support.index import LocalIndex

pytestmark = [pytest.mark.engine, pytest.mark.beside]

GRACE = 10
"""Seconds that an engine gives a container to stop, unless it is told otherwise."""


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_next_container_tells_what_was_interrupted(hub: RunningHub, index: LocalIndex, how: str) -> None:
    user = f"{how}midjob"
    hub.configure(user, overlay_index_url=index.prefixed("hang", container=True), overlay_job_silence=0)
    server = hub.start_server(user)
    job = server.post("overlay/v1/jobs", json={"action": "install", "install": ["tinyleaf"]}).json()
    end = time.monotonic() + 60
    while server.overlay(f"jobs/{job['id']}")["phase"] != "resolving":
        assert time.monotonic() < end
        time.sleep(0.1)
    # a kernel as well, which the server ends first
    assert server.post("api/kernels", json={"name": "python3"}).status_code == 201
    container = hub.engine.container(user)
    if how == "stop":
        container.stop(timeout=GRACE)
    else:
        container.kill()
    hub.stop_server(user)

    hub.configure(user, overlay_index_url=index.container_url)
    server = hub.start_server(user)
    end = time.monotonic() + 60
    while "interrupted" not in server.notices():
        assert time.monotonic() < end, server.overlay("status")["notices"]
        time.sleep(0.2)
    (told,) = [item for item in server.overlay("status")["notices"] if item["code"] == "interrupted"]
    assert (
        told["message"] == "Installing tinyleaf was interrupted when the server stopped; nothing was changed."
    )
    left = hub.engine.container(user).exec_run(
        ["find", "/home/jovyan/.overlay", "-name", "stage-*", "-o", "-name", ".tmp*"], user="0"
    )
    if how == "stop":
        assert left.output == b"", left.output
    server.install("tinyleaf")
    assert "interrupted" not in server.notices()
    assert set(server.packages()) == {"tinyleaf"}
