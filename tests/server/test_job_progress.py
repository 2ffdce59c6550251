"""How far a job is, package by package, and who may follow it: real installers, real streams."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from overlayspawner.payload.contract import Spec
from overlayspawner.payload.server.jobs import MAX_EVENTS
from tests.server.conftest import RunningServer, Start
from tests.server.test_openapi import fits
from tests.server.test_rest import events
from tests.support.index import LocalIndex

pytestmark = pytest.mark.slow


def begin(server: RunningServer, *names: str, **arguments: Any) -> dict[str, Any]:
    """Post a job that installs."""
    answer = server.post("overlay/v1/jobs", json={"action": "install", "install": list(names), **arguments})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def follow(answer: requests.Response) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Read an open stream event by event."""
    block: dict[str, str] = {}
    for raw in answer.iter_lines(chunk_size=1):
        line = raw.decode()
        if line and not line.startswith(":"):
            key, _, value = line.partition(": ")
            block[key] = value
        elif block:
            yield int(block["id"]), block["event"], json.loads(block["data"])
            block = {}


def stream(server: RunningServer, job: dict[str, Any], last: int | None = None) -> requests.Response:
    """Open a stream."""
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    answer = server.get(f"overlay/v1/jobs/{job['id']}/events", headers=headers, stream=True)
    assert answer.status_code == 200
    return answer


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_stream_tells_how_far_each_package_is(start: Start, index: LocalIndex, installer: str) -> None:
    server = start(spec={"installer": installer, "index_url": index.prefixed("slow-files")})
    job = begin(server, "tinybig", "tinytree")
    told = events(server, job["id"])
    done = server.overlay(f"jobs/{job['id']}")
    fits(done, "/jobs/{id}")
    assert done["state"] == "done", done
    packages = {item["name"]: item for item in done["packages"]}
    versions = {name: item["version"] for name, item in packages.items()}
    assert versions == {"tinybig": "1.0", "tinytree": "2.0", "tinyleaf": "2.0"}
    assert {item["state"] for item in packages.values()} == {"installed"}

    progress = [data for _, kind, data in told if kind == "progress"]
    shares = [data["progress"] for data in progress]
    assert shares == sorted(shares) and shares[-1] < 1
    # the same list comes about from the events alone, and nothing in it goes back
    seen: dict[str, dict[str, Any]] = {}
    for data in progress:
        for entry in data.get("packages", ()):
            before = seen.get(entry["name"])
            assert before is None or (before["bytes"] or 0) <= (entry["bytes"] or 0)
            seen[entry["name"]] = entry
    assert set(seen) == set(packages)
    wheel = index.files["tinybig-1.0-py3-none-any.whl"].path.stat().st_size
    assert 0.95 * wheel < packages["tinybig"]["total"] < 1.05 * wheel
    if installer == "uv":  # and pip from 24.1 on: see test_pip_s_figures
        on_its_way = {
            entry["bytes"]
            for data in progress
            for entry in data.get("packages", ())
            if entry["name"] == "tinybig" and 0 < (entry["bytes"] or 0) < entry["total"]
        }
        assert len(on_its_way) > 2, progress
        assert [s for s in shares if 0.25 < s < 0.65]
    # lines about bytes are no part of the log
    assert not [line for line in done["log"] if " of " in line]


def test_where_there_are_no_terminals_sizes_are_told_still(start: Start, index: LocalIndex) -> None:
    """uv has a terminal to draw on where the container has any; here opening one fails."""
    code = "import os\ndef openpty(): raise OSError(2, 'no terminals')\nos.openpty = openpty\n"
    server = start(wait=False)
    server.stop()
    place = server.home / "site"
    place.mkdir()
    (place / "sitecustomize.py").write_text(code)
    server = start(environ={"PYTHONPATH": str(place)}, spec={"installer": "uv"})
    job = server.install("tinybig", "tinysdist")
    packages = {item["name"]: item for item in job["packages"]}
    assert packages["tinybig"]["total"] > 3_000_000 and packages["tinybig"]["version"] == "1.0"
    assert packages["tinysdist"]["state"] == "installed"


def test_two_tabs_and_a_reload_see_the_same(start: Start, index: LocalIndex) -> None:
    server = start(spec={"index_url": index.prefixed("slow-files")})
    job = begin(server, "tinybig")
    with stream(server, job) as one:
        first = follow(one)
        number, _, data = next(event for event in first if event[2].get("bytes"))
        with stream(server, job) as two:
            second = follow(two)
            # what comes first is the whole of it, with what the page has missed
            sent, kind, state = next(second)
            assert (kind, state["state"]) == ("state", "running") and sent >= number
            assert state["log"] and state["packages"]
            assert state["progress"] >= data["progress"]
            rest_of_second = list(second)
        rest_of_first = list(first)
    assert [e for e in rest_of_first if e[0] > sent] == rest_of_second
    assert rest_of_second[-1][2]["state"] == "done"
    # a reload after the end: one event, and the stream is over
    ((_, kind, state),) = events(server, job["id"], None)
    assert (kind, state["state"]) == ("state", "done")
    # a browser that connects again by itself
    assert events(server, job["id"], sent) == rest_of_second
    assert events(server, job["id"], rest_of_second[-1][0]) == []
    # one whose number is from another server's time gets the state as well
    assert [kind for _, kind, _ in events(server, job["id"], 99_999)] == ["state"]


def test_events_that_are_gone_are_made_up_for(start: Start, index: LocalIndex, tmp_path: Any) -> None:
    """A build that prints more than is kept; one stream that reads nothing all the while."""
    project = tmp_path / "chatty"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "back"\nbackend-path = ["."]\n'
    )
    (project / "back.py").write_text(
        "def get_requires_for_build_wheel(c=None): return []\n"
        "def build_wheel(d, c=None, m=None):\n"
        "    for n in range(2000): print('x' * 1500, n, flush=True)\n"
        "    raise SystemExit('no wheel today')\n"
    )
    server = start(spec={"installer": "pip"})
    job = begin(server, f"chatty @ file://{project}")
    with stream(server, job) as slow:
        memory = _memory(server)
        done = server.finished(job)
        assert (done["state"], done["error"]["code"]) == ("failed", "build-failed")
        assert _memory(server) - memory < 60_000_000
        told = list(follow(slow))
    assert told[-1][2]["state"] == "failed"
    numbers = [number for number, _, _ in told]
    assert numbers == sorted(set(numbers))
    told = events(server, job["id"], 0)
    assert told[0][1] == "state" if len(told) < MAX_EVENTS else told[0][0] == 1


def _memory(server: RunningServer) -> int:
    with open(f"/proc/{server.process.pid}/statm") as f:
        return int(f.read().split()[1]) * 4096


def test_where_a_job_is_in_the_queue(start: Start, index: LocalIndex) -> None:
    server = start(spec={"index_url": index.prefixed("hang")})
    jobs = [begin(server, "tinyleaf") for _ in range(4)]
    assert [job["position"] for job in jobs][1:] == [1, 2, 3]
    listed = server.overlay("jobs")
    fits(listed, "/jobs")
    by_id = {job["id"]: job for job in listed["jobs"]}
    assert [job["id"] for job in listed["jobs"]] == [job["id"] for job in reversed(jobs)]
    assert [by_id[job["id"]]["position"] for job in jobs] == [None, 1, 2, 3]
    with stream(server, jobs[3]) as answer:
        following = follow(answer)
        assert next(following)[2]["position"] == 3
        assert server.delete(f"overlay/v1/jobs/{jobs[1]['id']}").json()["state"] == "cancelled"
        assert next(following)[2]["position"] == 2
        server.delete(f"overlay/v1/jobs/{jobs[0]['id']}")
        assert next(following)[2]["position"] == 1
        server.delete(f"overlay/v1/jobs/{jobs[2]['id']}")
        while next(following)[2].get("state") != "running":
            pass
        server.delete(f"overlay/v1/jobs/{jobs[3]['id']}")
        assert list(following)[-1][2]["state"] == "cancelled"
    assert server.overlay("status")["job"] is None


def test_a_job_waits_for_another_server_and_says_so(start: Start, index: LocalIndex) -> None:
    """Two containers with one home: two servers, whose leases keep each other out."""
    holder = start(spec={"index_url": index.prefixed("hang")})
    held = begin(holder, "tinyleaf")
    while not server_phase(holder, held):
        time.sleep(0.05)
    waiter = start(home=holder.home, spec={"index_url": index.url})
    job = begin(waiter, "tinyscript")
    with stream(waiter, job) as answer:
        following = follow(answer)
        waiting = next(data for _, _, data in following if data["phase"] == "waiting")
        assert "is changing this overlay" in waiting["message"]
        assert waiter.overlay(f"jobs/{job['id']}")["state"] == "running"
        holder.delete(f"overlay/v1/jobs/{held['id']}")
        assert list(following)[-1][2]["state"] == "done"
    # and one that waits can be cancelled
    held = begin(holder, "tinyleaf")
    while not server_phase(holder, held):
        time.sleep(0.05)
    job = begin(waiter, "tinyleaf")
    with stream(waiter, job) as answer:
        next(data for _, _, data in follow(answer) if data["phase"] == "waiting")
    job = waiter.finished(waiter.delete(f"overlay/v1/jobs/{job['id']}").json())
    assert (job["state"], job["error"]["code"]) == ("cancelled", "cancelled")
    assert set(waiter.packages()) == {"tinyscript"}


def server_phase(server: RunningServer, job: dict[str, Any]) -> str:
    """Where a job is by now."""
    return str(server.overlay(f"jobs/{job['id']}")["phase"])


def test_the_limits_have_generous_defaults() -> None:
    assert (Spec().job_timeout, Spec().job_silence) == (3600.0, 300.0)
