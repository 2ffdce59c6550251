"""What would break something of the image: refused, agreed to and remembered, over REST and in a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload.contract import SPEC_ENV, Spec
from overlayspawner.payload.server import body
from tests.server.conftest import RunningServer
from tests.server.test_bad_requests import refused
from tests.server.test_openapi import fits
from tests.support.index import LocalIndex
from tests.support.tty import on_a_terminal
from tests.support.wheels import make_wheel

pytestmark = pytest.mark.slow

LINE = "sortedcontainers<2"
"""What the image of these tests, which has hypothesis, would miss."""


@pytest.fixture(scope="module", autouse=True)
def older(index: LocalIndex, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("older")
    index.add(make_wheel(folder, "sortedcontainers", "1.0"))
    index.add(make_wheel(folder, "sortedcontainers", "1.1"))


def plan(server: RunningServer, **request: Any) -> dict[str, Any]:
    found = server.post("overlay/v1/plan", json=request).json()
    fits(found, "/plan", "post")
    return dict(found)


def test_refused_agreed_to_and_remembered(server: RunningServer) -> None:
    before = server.snapshot()
    found = plan(server, install=[LINE])
    assert [item["choice"] for item in found["choices"]] == ["cancel", "force", "change"]
    assert found["choices"][2]["install"] == ["sortedcontainers"]
    assert [item["name"] for item in found["breaks"]] == ["hypothesis"]

    job = server.job("install", install=[LINE])
    fits(job, "/jobs/{id}")
    assert (job["state"], job["error"]["code"], job["revision"]) == ("failed", "would-break", None)
    assert job["error"]["message"].startswith("hypothesis ")
    assert job["plan"]["breaks"] == found["breaks"] and len(job["plan"]["choices"]) == 2
    assert server.snapshot() == before

    # agreed to something else
    wrong = {**found["expect"], "new": {"sortedcontainers": "1.0"}}
    job = server.job("install", install=[LINE], force=True, expect=wrong)
    fits(job, "/jobs/{id}")
    assert (job["state"], job["error"]["code"]) == ("failed", "plan-changed")
    assert job["plan"]["expect"]["new"] == {"sortedcontainers": "1.1"}
    assert server.snapshot() == before
    job = server.job("install", install=[LINE], force=True, expect={**found["expect"], "bytes": 1 << 60})
    assert (job["state"], job["error"]["code"]) == ("failed", "disk-full")
    assert server.snapshot() == before

    job = server.job("install", install=[LINE], force=True, expect=job["request"]["expect"] | found["expect"])
    fits(job, "/jobs/{id}")
    assert job["state"] == "done" and job["plan"]["breaks"] == found["breaks"]
    assert server.packages()["sortedcontainers"]["version"] == "1.1"
    told = json.loads((server.overlay_path / "revisions" / "forced.json").read_text())
    assert told["forced"] == [{"line": LINE, "for": ["sortedcontainers"]}]
    newest = server.overlay("revisions")
    fits(newest, "/revisions")
    assert not {"choices", "expect", "free"} & set(newest["revisions"][0]["plan"])
    # from here on nobody is asked
    assert plan(server, install=["tinydata"])["choices"] == []
    assert server.job("sync")["state"] == "done"
    assert server.job("undo")["state"] == "done" and "sortedcontainers" not in server.packages()
    assert server.job("undo", revision=job["revision"] + 1)["state"] == "done"
    expect = plan(server, uninstall=["sortedcontainers"])["expect"]
    job = server.job("uninstall", uninstall=["sortedcontainers"], expect={**expect, "removes": {}})
    assert job["error"]["code"] == "plan-changed"
    assert server.job("uninstall", uninstall=["sortedcontainers"], expect=expect)["state"] == "done"


GOOD = {"new": {"a": "1"}, "removes": {}, "breaks": [["a", "b"]], "bytes": None, "open": False}
BAD: list[dict[str, Any]] = [
    {"force": 1},
    {"force": "yes"},
    {"force": None},
    {"expect": []},
    {"expect": {}},
    {"expect": {**GOOD, "more": 1}},
    {"expect": {**GOOD, "new": []}},
    {"expect": {**GOOD, "new": {"a": 1}}},
    {"expect": {**GOOD, "removes": None}},
    {"expect": {**GOOD, "breaks": {}}},
    {"expect": {**GOOD, "breaks": ["ab"]}},
    {"expect": {**GOOD, "breaks": [["a"]]}},
    {"expect": {**GOOD, "bytes": True}},
    {"expect": {**GOOD, "bytes": -1}},
    {"expect": {**GOOD, "bytes": 1 << 63}},
    {"expect": {**GOOD, "open": 0}},
]


def test_bodies(server: RunningServer) -> None:
    before = server.overlay("jobs")
    for fields in BAD:
        answer = server.post("overlay/v1/jobs", json={"action": "install", "install": ["tinydata"], **fields})
        refused(answer, 400, "bad-request")
    for action in ("undo", "restore", "reset"):
        refused(server.post("overlay/v1/jobs", json={"action": action, "force": True}), 400, "bad-request")
    assert server.overlay("jobs") == before
    action, fields = body.job({"action": "sync", "force": True, "expect": GOOD})
    assert (action, fields) == ("sync", {"force": True, "expect": GOOD})
    assert body.job({"action": "sync", "expect": None})[1] == {"force": False, "expect": None}


# -- in a terminal ----------------------------------------------------------------------------------------


@pytest.fixture
def cli(tmp_path: Path, index: LocalIndex) -> Any:
    """Run ``overlay``; with answers in a terminal, else in a pipe."""
    environ = {
        "PATH": os.path.dirname(sys.executable) + ":/usr/bin:/bin",
        "HOME": str(tmp_path),
        SPEC_ENV: Spec(index_url=index.url).to_json(),
    }

    def run(*argv: str, answers: str = "") -> tuple[int, str]:
        command = [sys.executable, "-m", "overlayspawner.payload", "cli", *argv]
        if not answers:
            done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr
        return on_a_terminal(command, environ, answers=answers)

    return run


def test_the_command_line(cli: Any, tmp_path: Path) -> None:
    lines = tmp_path / ".overlay" / "default" / "requirements.txt"
    code, text = cli("install", LINE)
    assert code == 1 and "[would-break]" in text and "overlay install --anyway" in text
    code, text = cli("plan", LINE)
    assert code == 0 and "of the image fits." in text and "--anyway" in text
    code, text = cli("install", LINE, answers="n\n")
    assert code == 1 and "Install anyway? [y/N]" in text and "[cancelled]" in text
    assert "may stop working." in text and lines.read_text() == ""
    code, text = cli("install", LINE, answers="y\n")
    assert code == 0 and "Installed sortedcontainers 1.1." in text
    assert lines.read_text() == LINE + "\n"
    assert cli("undo")[0] == 0
    code, text = cli("install", "--json", LINE)
    assert code == 1 and json.loads(text)["code"] == "would-break"
    code, text = cli("install", "--anyway", LINE)
    assert code == 0 and "Installed sortedcontainers 1.1." in text
    # a line that was edited by hand
    lines.write_text("sortedcontainers<1.1\n")
    assert cli("sync", "--anyway")[0] == 0
