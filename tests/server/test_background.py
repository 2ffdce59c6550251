"""What a server does for its overlay unasked: real servers, real kernels, real pip."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import RunningServer, Start
from tests.support.envs import run_child
from tests.support.index import LocalIndex

pytestmark = pytest.mark.slow


def eventually(look: Callable[[], Any], timeout: float = 90) -> Any:
    """Return what ``look`` returns once it is true."""
    end = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.3)


def actions(server: RunningServer) -> list[str]:
    return [r["action"] for r in server.overlay("revisions")["revisions"]]


def codes(server: RunningServer) -> dict[str, str]:
    return {n["code"]: n["message"] for n in server.overlay("status")["notices"]}


def lines(server: RunningServer) -> list[str]:
    return (server.overlay_path / "requirements.txt").read_text().splitlines()


def pip(server: RunningServer, index: LocalIndex, *arguments: str) -> None:
    """Run pip in the env as a tool that knows nothing of us."""
    env = server.overlay("status")["env"]
    argv = [f"{env}/bin/python", "-I", "-m", "pip", *arguments]
    environ = {**server.environ, "PIP_INDEX_URL": index.url, "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_was_installed_while_no_server_ran_is_adopted_at_the_start(
    start: Start, index: LocalIndex
) -> None:
    first = start()
    pip(first, index, "install", "tinytree")
    first.stop()
    second = start(home=first.home)
    eventually(lambda: actions(second) == ["adopt"])
    assert lines(second) == ["tinytree"]
    assert "tinytree 2.0" in eventually(lambda: codes(second).get("adopted"))
    eventually(lambda: not second.overlay("status")["job"])
    time.sleep(1)
    # looking changes nothing
    before = second.snapshot()
    for path in ("status", "packages", "revisions", "jobs"):
        assert second.get(f"overlay/v1/{path}").ok
    assert second.snapshot() == before


def test_pip_in_a_notebook_behind_our_back_is_found(server: RunningServer, index: LocalIndex) -> None:
    url = index.url
    cell = server.run_cell(
        f"import sys\n!{{sys.executable}} -m pip install -q -i {url} tinydata\nprint('ran')"
    )
    assert "ran" in cell.text, cell
    eventually(lambda: "adopt" in actions(server))
    assert "tinydata" in lines(server)


def test_a_change_that_was_killed_is_repaired_without_being_asked(start: Start, index: LocalIndex) -> None:
    first = start()
    first.stop()
    env = next((first.overlay_path / "envs").iterdir())
    runtime = next(first.run.iterdir())
    done = run_child(
        "import sys\n"
        "from overlayspawner.payload.apply import apply\n"
        "from overlayspawner.payload.context import Context\n"
        "apply(Context.load(sys.argv[1]), 'install', install=['tinydata'])\n",
        str(runtime),
        fault="commit@8:kill",
    )
    assert done.returncode == -9, done.stderr
    from overlayspawner.payload.change import pending
    from overlayspawner.payload.overlay import Env

    where = Env(str(env), env.name.split("-")[1])
    assert pending(where)
    second = start(home=first.home)
    eventually(lambda: not pending(where))
    assert second.packages() == {}
    assert lines(second) == []


def test_packages_come_back_as_a_job_that_can_be_seen(start: Start) -> None:
    first = start()
    first.install("tinytree")
    first.stop()
    import shutil

    shutil.rmtree(first.overlay_path / "envs")
    second = start(home=first.home)
    eventually(lambda: "tinytree" in second.packages())
    eventually(lambda: not second.overlay("status")["job"])
    jobs = second.overlay("jobs")["jobs"]
    assert [(job["action"], job["state"]) for job in jobs] == [("restore", "done")]
    assert lines(second) == ["tinytree"]


def test_nothing_is_restored_where_that_is_for_the_user_to_say(start: Start) -> None:
    first = start()
    first.install("tinytree")
    first.stop()
    import shutil

    shutil.rmtree(first.overlay_path / "envs")
    second = start(home=first.home, spec={"restore": "manual"})
    eventually(lambda: codes(second).get("restore-waiting"))
    assert second.overlay("jobs")["jobs"] == []
    assert second.packages() == {}


def test_a_hand_edit_shows_as_pending_after_the_next_use(start: Start) -> None:
    server = start()
    server.install("tinydata")
    path = Path(server.overlay_path, "requirements.txt")
    path.write_text("# mine\ntinydata<2\ntinymany\n")
    server.run_cell("1")
    message = eventually(lambda: codes(server).get("requirements-pending"))
    assert "tinymany" in message and "tinydata<2" in message
    assert set(server.packages()) == {"tinydata"}
    job = server.job("sync")
    assert job["state"] == "done", job
    assert set(server.packages()) == {"tinydata", "tinymany"}
    eventually(lambda: "requirements-pending" not in codes(server))
    assert lines(server) == ["# mine", "tinydata<2", "tinymany"]


def test_the_installer_is_found_before_anybody_asks(start: Start, tmp_path: Path) -> None:
    """The first change shall not wait for what every change needs."""
    log, tool = tmp_path / "calls", tmp_path / "bin" / "uv"
    tool.parent.mkdir()
    real = Path(sys.executable).parent / "uv"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {real} "$@"\n')
    tool.chmod(0o755)
    server = start(environ={"PATH": f"{tool.parent}:{Path(sys.executable).parent}:/usr/bin:/bin"})
    eventually(log.exists)
    server.install("tinyleaf")
    assert log.read_text().splitlines().count("--version") == 1
