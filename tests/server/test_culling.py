"""Servers that are stopped when nobody uses them: not in the middle of a job, and no later because of us."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.conftest import Start
from tests.server.test_job_ends import until
from tests.server.test_job_progress import begin, stream
from tests.support.hub import RunningHub
from tests.support.index import LocalIndex

pytestmark = pytest.mark.slow

IDLE = 4
"""Seconds after which an unused server is stopped; a job of these tests takes longer."""

# Jupyter Server looks once a minute; here its own method is called more often.
OFTEN = """
def _load_jupyter_server_extension(serverapp):
    from tornado.ioloop import PeriodicCallback
    PeriodicCallback(serverapp.shutdown_no_activity, 200).start()
"""


def test_jupyter_server_waits_for_a_job_and_for_nothing_else(
    start: Start, index: LocalIndex, tmp_path: Path
) -> None:
    (tmp_path / "looks_often.py").write_text(OFTEN)
    (tmp_path / "home").mkdir()
    server = start(
        environ={"PYTHONPATH": str(tmp_path), "JUPYTER_PREFER_ENV_PATH": "1"},
        settings={
            "ServerApp.shutdown_no_activity_timeout": IDLE,
            "ServerApp.jpserver_extensions": {
                "overlayspawner": True,
                "looks_often": True,
                "jupyter_server_terminals": True,
                "jupyterlab": False,
                "jupyter_lsp": False,
            },
        },
        spec={"index_url": index.prefixed("hang")},
    )
    job = begin(server, "tinyleaf")
    began = time.monotonic()
    with stream(server, job):
        while time.monotonic() < began + 2.5 * IDLE:
            assert server.process.poll() is None, server.log
            time.sleep(0.1)
    # no request at all meanwhile: the job alone kept it
    assert server.delete(f"overlay/v1/jobs/{job['id']}", params={"no_track_activity": 1}).ok
    until(lambda: server.process.poll() is not None or not _poll(server))
    assert server.process.wait(60) == 0


def _poll(server: object) -> bool:
    """What a page that is open does; whether the server still answers."""
    import requests

    try:
        server.get("overlay/v1/status", params={"no_track_activity": 1})  # type: ignore[attr-defined]
        server.get("overlay/v1/jobs", params={"no_track_activity": 1})  # type: ignore[attr-defined]
    except requests.ConnectionError:
        return False
    time.sleep(0.3)
    return True


CONFIG = """
c.OverlayLocalSpawner.overlay_local_simple = True
c.OverlayLocalSpawner.overlay_payload_dir = harness["directory"] + "/payload"
c.OverlayLocalSpawner.args = ["--allow-root"]
c.JupyterHub.services.append({"name": "culler", "api_token": "a-token-of-the-culler"})
c.JupyterHub.load_roles.append({
    "name": "culler",
    "services": ["culler"],
    "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
})
"""


@pytest.fixture
def hub(index: LocalIndex) -> Iterator[RunningHub]:
    """A hub whose servers report every second what they do."""
    environment = {"JUPYTERHUB_ACTIVITY_INTERVAL": "1"}
    config = CONFIG + f'c.OverlayLocalSpawner.overlay_index_url = "{index.prefixed("hang")}"\n'
    with RunningHub(config, spawner="overlay-local", docker=False, environment=environment) as running:
        yield running


def test_the_hub_s_culler_waits_for_a_job_and_for_nothing_else(hub: RunningHub, tmp_path: Path) -> None:
    server = hub.start_server("busy")
    hub.start_server("idle")
    job = begin(server, "tinyleaf")
    log = (tmp_path / "culler.log").open("wb")
    culler = subprocess.Popen(
        [sys.executable, "-m", "jupyterhub_idle_culler", f"--timeout={2 * IDLE}", "--cull-every=1"],
        env={
            "PATH": os.environ["PATH"],
            "JUPYTERHUB_API_TOKEN": "a-token-of-the-culler",
            "JUPYTERHUB_API_URL": f"{hub.host}/hub/api",
        },
        stdout=log,
        stderr=log,
    )
    try:
        # the other one shows that the culler does its work; this one is asked nothing meanwhile
        until(lambda: not hub.model("idle")["servers"], 90)
        began = time.monotonic()
        while time.monotonic() < began + 3 * IDLE:
            assert hub.model("busy")["servers"], (tmp_path / "culler.log").read_text()
            time.sleep(0.5)
        assert server.delete(f"overlay/v1/jobs/{job['id']}", params={"no_track_activity": 1}).ok
        until(lambda: not hub.model("busy")["servers"], 90)
    finally:
        culler.terminate()
        culler.wait()
        log.close()
