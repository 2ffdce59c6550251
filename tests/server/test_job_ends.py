"""Jobs that don't come to their end: cancelled, hung, or with their server gone. Nothing is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import RunningServer, Start
from tests.server.test_job_progress import begin, follow, stream
from tests.server.test_openapi import fits
from tests.support.index import LocalIndex

pytestmark = pytest.mark.slow

SLEEPS = """
import os, signal, subprocess, sys, time
def get_requires_for_build_wheel(c=None): return []
def build_wheel(d, c=None, m=None):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(300)"
    child = [sys.executable, "-c", code]
    pids = [subprocess.Popen(child, start_new_session=away).pid for away in (False, True)]
    with open({pids!r} + ".new", "w") as f:
        print(os.getpid(), *pids, file=f)
    os.rename({pids!r} + ".new", {pids!r})
    time.sleep(300)
"""


@pytest.fixture
def sleeper(tmp_path: Path) -> tuple[str, Path]:
    """A project whose build starts children, ignores SIGTERM and sleeps; and where their numbers are."""
    project, pids = tmp_path / "sleeper", tmp_path / "pids"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "back"\nbackend-path = ["."]\n'
        '[project]\nname = "sleeper"\nversion = "1.0"\n'
    )
    (project / "back.py").write_text(SLEEPS.format(pids=str(pids)))
    return f"sleeper @ file://{project}", pids


def until(what: Any, seconds: float = 60) -> Any:
    """Wait until a function returns something; return it."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def temporaries(server: RunningServer) -> list[str]:
    """What was left of what an installer had begun: in its cache, in its place for temporary files."""
    places = [server.overlay_path.parent / ".cache", server.home / ".cache", server.overlay_path]
    paths = [path for place in places for path in place.rglob("*")]
    found = [str(path) for path in paths if ".tmp" in path.name or "stage-" in path.name]
    return found + [str(p) for p in server.tmp.iterdir()]


def alive(pids: list[int]) -> list[int]:
    """Those that still run."""
    found = []
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(pid)
        except OSError:
            pass
    return found


def at(start: Start, tmp_path: Path, **spec: Any) -> RunningServer:
    """A server with a place for temporary files of its own."""
    place = tmp_path / f"tmp-{len(list(tmp_path.iterdir()))}"
    place.mkdir()
    server = start(environ={"TMPDIR": str(place)}, spec=spec)
    server.tmp = place  # type: ignore[attr-defined]
    return server


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_cancelling_leaves_nothing_whatever_was_going_on(
    start: Start, index: LocalIndex, tmp_path: Path, sleeper: tuple[str, Path], installer: str
) -> None:
    server = at(start, tmp_path, installer=installer, index_url=index.prefixed("slow-files"))
    server.install("tinydata")
    before = server.snapshot()

    def cancelled(job: dict[str, Any]) -> None:
        ended = server.finished(server.delete(f"overlay/v1/jobs/{job['id']}").json())
        assert (ended["state"], ended["error"]["code"]) == ("cancelled", "cancelled"), ended
        assert temporaries(server) == []
        assert server.snapshot() == before

    # while versions are looked for, while a file comes, and while something is built
    job = begin(server, "tinytree")
    until(lambda: server.overlay(f"jobs/{job['id']}")["phase"] == "resolving")
    cancelled(job)
    job = begin(server, "tinybig")
    with stream(server, job) as answer:
        next(data for _, _, data in follow(answer) if "tinybig-1.0" in data["message"] or data.get("bytes"))
    cancelled(job)
    requirement, pids = sleeper
    job = begin(server, requirement)
    numbers = [int(pid) for pid in until(lambda: pids.exists() and pids.read_text().split())]
    assert len(alive(numbers)) == 3
    cancelled(job)
    assert alive(numbers) == []
    # the same server goes on
    server.install("tinyscript")


def test_a_cancel_at_any_moment_is_all_or_nothing(start: Start) -> None:
    server = start()
    server.install("tinymany")
    there = server.snapshot()
    server.job("uninstall", uninstall=["tinymany"])
    outcomes = set()
    for n in range(12):
        job = begin(server, "tinymany")
        time.sleep(n * 0.02)
        ended = server.finished(server.delete(f"overlay/v1/jobs/{job['id']}").json())
        outcomes.add(ended["state"])
        files = list(server.overlay_path.rglob("tinymany/**/*.py"))
        assert len(files) == (501 if ended["state"] == "done" else 0)
        assert ("tinymany" in server.packages()) == (ended["state"] == "done")
        if ended["state"] == "done":
            assert server.job("uninstall", uninstall=["tinymany"])["state"] == "done"
    assert "cancelled" in outcomes and there
    assert server.install("tinymany")["state"] == "done"


def test_an_index_that_hangs_ends_the_job_and_is_named(
    start: Start, index: LocalIndex, tmp_path: Path
) -> None:
    server = at(start, tmp_path, index_url=index.prefixed("hang"), job_silence=2.0)
    before = server.snapshot()
    job = server.job("install", install=["tinyleaf"])
    assert (job["state"], job["error"]["code"]) == ("failed", "timeout")
    assert "no sign of life for 2 seconds while looking for versions" in job["error"]["message"]
    assert "index" in job["error"]["message"] and "Nothing was changed." in job["error"]["message"]
    assert job["error"]["hint"]
    assert server.snapshot() == before and temporaries(server) == []


def test_a_build_that_sleeps_ends_the_job_and_is_named(
    start: Start, tmp_path: Path, sleeper: tuple[str, Path]
) -> None:
    server = at(start, tmp_path, job_silence=2.0)
    requirement, pids = sleeper
    job = server.job("install", install=[requirement])
    assert (job["state"], job["error"]["code"]) == ("failed", "timeout")
    assert "while building sleeper" in job["error"]["message"], job
    assert alive([int(pid) for pid in pids.read_text().split()]) == []


def test_a_job_may_not_take_for_ever(start: Start, index: LocalIndex, tmp_path: Path) -> None:
    server = at(start, tmp_path, index_url=index.prefixed("slow-files"), job_timeout=1.5)
    job = server.job("install", install=["tinybig", "tinyforest"])
    assert (job["state"], job["error"]["code"]) == ("failed", "timeout")
    assert "longer than 1.5 seconds" in job["error"]["message"]
    assert temporaries(server) == []
    assert server.job("uninstall", uninstall=["tinyleaf"])["error"]["code"] == "not-installed"


def interrupted(server: RunningServer) -> list[dict[str, Any]]:
    """The notices about interrupted jobs, once there is one."""
    return list(
        until(lambda: [item for item in server.overlay("status")["notices"] if item["code"] == "interrupted"])
    )


def listed(server: RunningServer) -> list[dict[str, Any]]:
    """The jobs of an earlier server."""
    return list(until(lambda: [job for job in server.overlay("jobs")["jobs"] if job["error"]]))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_says_what_the_last_one_was_doing(
    start: Start, index: LocalIndex, tmp_path: Path, how: signal.Signals
) -> None:
    server = at(start, tmp_path, index_url=index.prefixed("hang"))
    before = server.snapshot()
    job = begin(server, "tinyleaf", "tinydata")
    second = begin(server, "tinytree")
    until(lambda: server.overlay(f"jobs/{job['id']}")["phase"] == "resolving")
    children = until(lambda: _children(server))
    server.process.send_signal(how)
    server.process.wait(20)
    if how == signal.SIGTERM:
        assert server.snapshot() == before and temporaries(server) == []
        assert alive(children) == []
    else:
        for pid in alive(children):  # nobody could end them
            os.kill(pid, signal.SIGKILL)

    again = start(home=server.home)
    notices = interrupted(again)
    assert notices[0]["message"] == (
        "Installing tinyleaf, tinydata was interrupted when the server stopped; nothing was changed."
    )
    assert notices[0]["hint"] == "Ask for it again."
    fits(again.overlay("status"), "/status")
    jobs = {item["id"]: item for item in listed(again)}
    # one that had only waited is told of where there was time for it
    assert set(jobs) == {job["id"]} | ({second["id"]} if how == signal.SIGTERM else set())
    assert (jobs[job["id"]]["state"], jobs[job["id"]]["error"]["code"]) == ("cancelled", "interrupted")
    assert jobs[job["id"]]["request"]["install"] == ["tinyleaf", "tinydata"]
    fits(again.overlay("jobs"), "/jobs")
    fits(again.overlay(f"jobs/{job['id']}"), "/jobs/{id}")
    assert "Installing tinyleaf, tinydata was interrupted" in _command(again, "status")

    if how == signal.SIGTERM:  # it may be dismissed, one by one
        assert again.delete(f"overlay/v1/jobs/{job['id']}").status_code == 200
        assert [item["message"].split()[1] for item in interrupted(again)] == ["tinytree"]
    again.install("tinyleaf")
    assert "interrupted" not in again.notices()
    assert not list(server.overlay_path.rglob("job-*.json"))


def test_a_change_that_was_made_all_the_same_is_told_so(start: Start, tmp_path: Path) -> None:
    """Killed after the revision was written, before the job was told to be done."""
    server = start(environ={"OVERLAYSPAWNER_FAULT": "commit@40:kill"})
    begin(server, "tinydata")
    server.process.wait(60)
    again = start(home=server.home)
    (item,) = interrupted(again)
    assert item["message"].startswith("Installing tinydata was interrupted when the server stopped")
    made = "completed" in item["message"]
    assert made == ("tinydata" in again.packages())
    (job,) = listed(again)
    assert job["state"] == ("done" if made else "cancelled")


def test_a_full_or_read_only_state_is_no_reason_to_fail(start: Start) -> None:
    server = start()
    server.install("tinyleaf")
    state = next(server.overlay_path.rglob("lease.json")).parent
    (state / "job-0123.json").write_text("{ torn")
    (state / "job-4567.json").mkdir()
    os.symlink("/etc/passwd", state / "job-89ab.json")
    assert server.install("tinyscript")["state"] == "done"
    assert "interrupted" not in server.notices()
    assert server.overlay("jobs")["jobs"]


def test_a_job_in_another_server_is_not_interrupted(start: Start, index: LocalIndex) -> None:
    one = start(spec={"index_url": index.prefixed("hang")})
    job = begin(one, "tinyleaf")
    until(lambda: one.overlay(f"jobs/{job['id']}")["phase"] == "resolving")
    two = start(home=one.home)
    waits = begin(two, "tinydata")
    until(lambda: two.overlay(f"jobs/{waits['id']}")["phase"] == "waiting")
    assert len(list(one.overlay_path.rglob("job-*.json"))) == 2
    assert "interrupted" not in two.notices() | one.notices()
    assert [item["id"] for item in two.overlay("jobs")["jobs"]] == [waits["id"]]
    one.finished(one.delete(f"overlay/v1/jobs/{job['id']}").json())
    assert two.finished(two.delete(f"overlay/v1/jobs/{waits['id']}").json())["state"] in ("cancelled", "done")
    assert not list(one.overlay_path.rglob("job-*.json"))


def _children(server: RunningServer) -> list[int]:
    """The installer and all that it has started."""
    from overlayspawner.payload.proctable import RUN_ENV

    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            raw = path.read_bytes()
        except OSError:
            continue
        if f"{RUN_ENV}=".encode() in raw and str(server.home).encode() in raw:
            found.append(int(path.parent.name))
    return found


def _command(server: RunningServer, *arguments: str) -> str:
    """What the command line prints in a terminal of this server."""
    return server.terminal(" ".join(["overlay", *arguments]))[0]


def test_the_sleeping_build_sleeps(tmp_path: Path, sleeper: tuple[str, Path]) -> None:
    """What the tests above build would go on for minutes if nothing ended it."""
    _, pids = sleeper
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'sleeper')!r}); import back; back.build_wheel('x')"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        numbers = [int(pid) for pid in until(lambda: pids.exists() and pids.read_text().split())]
        process.terminate()
        time.sleep(0.3)
        assert process.poll() is None and len(alive(numbers)) == 3
    finally:
        process.kill()
        process.wait()
        for pid in alive(numbers):
            os.kill(pid, signal.SIGKILL)
