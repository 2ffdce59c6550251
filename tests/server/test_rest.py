"""The REST interface with the real change engine: what a page does in the course of a day."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload.contract import SPEC_ENV, Spec
from tests.server.conftest import RunningServer, Start
from tests.server.test_openapi import fits
from tests.support.index import LocalIndex

pytestmark = pytest.mark.slow


def events(server: RunningServer, job: str, last: int | None = 0) -> list[tuple[int, str, dict[str, Any]]]:
    """Read a job's stream to its end; with ``None`` as one that connects for the first time."""
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    answer = server.get(f"overlay/v1/jobs/{job}/events", headers=headers)
    if answer.status_code == 204:
        return []
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/event-stream"
    out = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            out.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return out


def test_a_package_comes_and_goes(server: RunningServer) -> None:
    job = server.install("tinytree")
    assert {p["name"]: p["version"] for p in job["plan"]["new"]} == {"tinyleaf": "2.0", "tinytree": "2.0"}
    packages = server.packages()
    assert packages["tinytree"]["requested"] and not packages["tinyleaf"]["requested"]
    assert packages["tinytree"]["where"] == "overlay"
    cell = server.run_cell("import tinytree, sys; print(tinytree.__version__, sys.prefix)")
    assert cell.text.split() == ["2.0", server.overlay("status")["env"]], cell
    revisions = server.overlay("revisions")["revisions"]
    assert revisions[0]["id"] == job["revision"]
    assert revisions[0]["requirements"]["after"] == ["tinytree"]

    job = server.job("uninstall", uninstall=["TinyTree"])
    assert job["state"] == "done", job
    assert not server.packages()
    assert server.run_cell("import tinytree").error.startswith("ModuleNotFoundError")


def test_the_answer_to_a_new_job_says_where_it_is(server: RunningServer) -> None:
    answer = server.post("overlay/v1/jobs", json={"action": "install", "install": ["tinyscript"]})
    assert answer.status_code == 202
    assert answer.headers["Location"].endswith("overlay/v1/jobs/" + answer.json()["id"])
    job = server.session.get(server.url.split("/user/")[0] + answer.headers["Location"]).json()
    assert server.finished(job)["state"] == "done"


def test_upgrade_without_names_upgrades_everything_of_the_overlay(server: RunningServer) -> None:
    server.install("tinyleaf==1.0")
    requirements = server.overlay_path / "requirements.txt"
    requirements.write_text(requirements.read_text().replace("tinyleaf==1.0", "tinyleaf"))
    job = server.job("upgrade")
    assert job["state"] == "done", job
    assert server.packages()["tinyleaf"]["version"] == "2.0"


def test_a_second_look_changes_nothing_and_makes_no_revision(server: RunningServer) -> None:
    server.install("tinyleaf")
    before = server.snapshot()
    job = server.job("sync")
    assert (job["state"], job["revision"]) == ("done", None)
    assert server.snapshot() == before


def test_a_failed_job_changes_nothing_and_says_why(server: RunningServer) -> None:
    before = server.snapshot()
    for requirement, code in (
        ("tinynowhere", "no-such-package"),
        ("tinyleaf>=99", "no-matching-version"),
        ("tinyrefuse", "build-failed"),
    ):
        job = server.job("install", install=[requirement])
        assert (job["state"], job["error"]["code"]) == ("failed", code), job
        assert job["error"]["message"] and job["finished"]
    assert server.snapshot() == before


def test_jobs_run_one_after_the_other_and_are_listed_newest_first(server: RunningServer) -> None:
    posted = [
        server.post("overlay/v1/jobs", json={"action": "install", "install": [name]}).json()["id"]
        for name in ("tinydata", "tinypre", "tinypast")
    ]
    listed = [job["id"] for job in server.overlay("jobs")["jobs"]]
    assert listed[:3] == posted[::-1]
    done = [server.finished(server.overlay(f"jobs/{ident}")) for ident in posted]
    assert [job["state"] for job in done] == ["done"] * 3
    assert done[0]["finished"] <= done[1]["started"] and done[1]["finished"] <= done[2]["started"]
    assert {"tinydata", "tinypre", "tinypast"} <= set(server.packages())


def test_the_stream_tells_all_and_ends_with_the_job(server: RunningServer) -> None:
    job = server.post("overlay/v1/jobs", json={"action": "install", "install": ["tinyextra[leaf]"]}).json()
    told = events(server, job["id"])
    assert [number for number, _, _ in told] == list(range(1, len(told) + 1))
    states = [data["state"] for _, kind, data in told if kind == "state"]
    assert states == ["queued", "running", "done"]
    shares = [data["progress"] for _, kind, data in told if kind == "progress"]
    assert shares == sorted(shares) and shares[-1] < 1
    assert told[-1][2]["plan"]["new"]

    middle = told[len(told) // 2][0]
    assert events(server, job["id"], middle) == told[len(told) // 2 + 1 :]
    answer = server.get(f"overlay/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": str(told[-1][0])})
    assert (answer.status_code, answer.text) == (204, "")
    log = server.overlay(f"jobs/{job['id']}")["log"]
    assert log and "tinyextra" in log[-1]


def test_a_stream_says_that_it_is_alive_and_outlives_no_client(start: Start, index: LocalIndex) -> None:
    server = start(spec={"index_url": index.prefixed("hang")})
    job = server.post("overlay/v1/jobs", json={"action": "install", "install": ["tinyleaf"]}).json()
    with server.get(f"overlay/v1/jobs/{job['id']}/events", stream=True) as answer:
        for line in answer.iter_lines(chunk_size=1):
            if line.startswith(b":"):
                break
        else:
            pytest.fail("the stream ended without a sign of life")
    # The client is gone in mid-stream: the job goes on, and the server with it.
    assert server.overlay(f"jobs/{job['id']}")["state"] == "running"
    assert server.finished(server.delete(f"overlay/v1/jobs/{job['id']}").json())["state"] == "cancelled"
    assert "Traceback" not in server.log


def test_jobs_can_be_cancelled_while_they_run_and_while_they_wait(start: Start, index: LocalIndex) -> None:
    server = start(spec={"index_url": index.prefixed("hang")})
    before = server.snapshot()
    first = server.post("overlay/v1/jobs", json={"action": "install", "install": ["tinyleaf"]}).json()
    second = server.post("overlay/v1/jobs", json={"action": "install", "install": ["tinytree"]}).json()
    _until_running(server, first["id"])
    assert server.overlay("status")["job"]["id"] == first["id"]

    answer = server.delete(f"overlay/v1/jobs/{second['id']}")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    answer = server.delete(f"overlay/v1/jobs/{first['id']}")
    assert answer.status_code == 202
    job = server.finished(answer.json())
    assert (job["state"], job["error"]["code"]) == ("cancelled", "cancelled")
    answer = server.delete(f"overlay/v1/jobs/{first['id']}")
    assert (answer.status_code, answer.json()["finished"]) == (200, job["finished"])
    assert server.overlay("status")["job"] is None
    assert server.snapshot() == before


def test_a_server_that_is_stopped_ends_its_job_cleanly(start: Start, index: LocalIndex) -> None:
    server = start(spec={"index_url": index.prefixed("hang")})
    before = server.snapshot()
    job = server.post("overlay/v1/jobs", json={"action": "install", "install": ["tinyleaf"]}).json()
    _until_running(server, job["id"])
    assert server.stop() == 0
    # No stage, no journal: there is nothing to repair.
    assert server.snapshot() == before
    lease = next(server.overlay_path.rglob("lease.json"))
    assert json.loads(lease.read_text())["released"]

    again = start(home=server.home)
    again.install("tinyleaf")


def test_polls_are_no_activity_but_a_job_is(start: Start, index: LocalIndex) -> None:
    server = start(spec={"index_url": index.prefixed("hang")})

    def last() -> str:
        return str(server.get("api/status", params={"no_track_activity": 1}).json()["last_activity"])

    server.overlay("status")
    before = last()
    for path in ("status", "packages", "jobs", "revisions"):
        assert server.get(f"overlay/v1/{path}", params={"no_track_activity": 1}).ok
    assert last() == before
    posted = server.post(
        "overlay/v1/jobs",
        params={"no_track_activity": 1},
        json={"action": "install", "install": ["tinyleaf"]},
    )
    _until_running(server, posted.json()["id"])
    assert last() > before


def test_a_hidden_credential_is_shown_nowhere(start: Start, index: LocalIndex) -> None:
    server = start(spec={"index_url": index.prefixed("auth", credentials=True)})
    job = server.install("tinyleaf")
    failed = server.job("install", install=["tinynowhere"])
    assert failed["state"] == "failed"
    shown = json.dumps([server.overlay("status"), server.overlay("revisions"), server.overlay("jobs")])
    shown += json.dumps([server.overlay(f"jobs/{j['id']}") for j in (job, failed)])
    secret = index.prefixed("auth", credentials=True).split("@")[0].split(":")[-1]
    for text in (shown, server.log):
        assert secret not in text and index.password not in text
    written = b"".join(p.read_bytes() for p in Path(server.overlay_path).rglob("*") if p.is_file())
    assert secret.encode() not in written and index.password.encode() not in written


def test_what_the_hub_s_rules_refuse(start: Start) -> None:
    server = start(spec={"deny": ["tinydata", "tinyleaf>=2"], "max_size": 3_000_000})
    before = server.snapshot()
    for request in (
        {"action": "install", "install": ["tinyscript", "TinyData"]},
        {"action": "install", "install": ["tinyleaf==2.0"]},
    ):
        answer = server.post("overlay/v1/jobs", json=request)
        assert answer.status_code == 403
        assert set(answer.json()) == {"code", "message", "hint"}
        assert answer.json()["code"] == "policy"
        assert "is refused by the rule tiny" in answer.json()["message"]
        assert answer.json()["hint"]
    assert server.overlay("jobs") == {"jobs": []}

    job = server.job("install", install=["tinyforest"])
    assert (job["state"], job["error"]["code"]) == ("failed", "policy")
    assert "tinyleaf 2.0, which tinytree needs," in job["error"]["message"]
    assert job["plan"]["blocked"] == [{"name": "tinyleaf", "version": "2.0", "rule": "tinyleaf>=2"}]
    fits(job, "/jobs/{id}")
    job = server.job("install", install=["tinybig"])
    assert (job["state"], job["error"]["code"]) == ("failed", "size-limit")
    assert server.snapshot() == before

    server.install("tinyscript")
    (revision,) = server.overlay("revisions")["revisions"]
    assert revision["plan"]["blocked"] == []


def test_a_notice_names_what_came_past_the_rules(start: Start) -> None:
    server = start(spec={"deny": ["tinydata"]})
    env = Path(server.overlay("status")["env"])
    index = Spec.from_json(server.environ[SPEC_ENV]).index_url
    command = [env / "bin" / "python", "-m", "pip", "install", "-q", "--index-url", index, "tinydata"]
    subprocess.run(command, check=True, env={**server.environ, "PIP_CONFIG_FILE": os.devnull})
    server.install("tinyscript")  # wakes the background, as the use of a kernel would
    told = _notices(server, "against-policy", 1)
    assert [item["message"] for item in told] == ["tinydata 1.0 is refused by the rule tinydata of this hub."]
    fits(server.overlay("status"), "/status")
    assert set(server.packages()) == {"tinydata", "tinyscript"}
    assert server.job("uninstall", uninstall=["tinydata"])["state"] == "done"
    _notices(server, "against-policy", 0)


def _notices(server: RunningServer, code: str, number: int) -> list[dict[str, Any]]:
    """Wait until there are as many notices of a code."""
    end = time.monotonic() + 60
    while True:
        told = [item for item in server.overlay("status")["notices"] if item["code"] == code]
        if len(told) == number:
            return told
        assert time.monotonic() < end, told
        time.sleep(0.2)


def _until_running(server: RunningServer, job: str) -> None:
    end = time.monotonic() + 30
    while True:
        found = server.get(f"overlay/v1/jobs/{job}", params={"no_track_activity": 1}).json()
        if found["state"] == "running" and found["phase"]:
            return
        assert time.monotonic() < end, found
        time.sleep(0.05)
