"""Undoing, restoring, starting over and the next start, over REST in a real server."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.server.conftest import RunningServer, Start
from tests.server.test_openapi import fits

pytestmark = pytest.mark.slow


def done(job: dict[str, Any]) -> dict[str, Any]:
    assert (job["state"], job["error"]) == ("done", None), job
    fits(job, "/jobs/{id}")
    return job


def test_a_change_is_undone_and_done_again(server: RunningServer) -> None:
    first = server.install("tinytree==1.0")["revision"]
    second = server.install("tinytree==2.0")["revision"]
    status = server.overlay("status")
    fits(status, "/status")
    assert status["undoable"] == {"revision": second, "offline": True}
    job = done(server.job("undo"))
    assert server.packages()["tinytree"]["version"] == "1.0" and job["plan"]["needs_restart"]
    newest = server.overlay("revisions")["revisions"][0]
    assert (newest["id"], newest["action"], newest["undoes"], newest["undo"]) == (
        job["revision"],
        "undo",
        second,
        "offline",
    )
    done(server.job("undo", revision=newest["id"]))  # and the undo is undone
    assert server.packages()["tinytree"]["version"] == "2.0"
    done(server.job("restore", revision=first))
    assert server.packages()["tinytree"]["version"] == "1.0"
    done(server.job("restore", revision=0))
    assert not server.packages()
    fits(server.overlay("revisions"), "/revisions")


def test_who_and_what_is_in_the_history(server: RunningServer) -> None:
    server.install("tinyleaf")
    newest = server.overlay("revisions")["revisions"][0]
    assert newest["argv"] == ["install", "tinyleaf"] and newest["when"].endswith("Z")
    job = server.overlay("jobs")["jobs"][0]
    assert newest["who"] == job["who"] != ""


def test_what_can_t_be_undone(server: RunningServer) -> None:
    for action, fields in (("undo", {"revision": 9999}), ("restore", {"revision": 9999})):
        before = server.snapshot()
        job = server.job(action, **fields)
        assert job["state"] == "failed" and job["error"]["code"] in ("cannot-undo", "not-found"), job
        assert server.snapshot() == before


def test_starting_over_and_back(server: RunningServer) -> None:
    server.install("tinyscript")
    job = done(server.job("reset"))
    assert job["plan"]["needs_restart"] and "tinyscript" in {p["name"] for p in job["plan"]["removes"]}
    assert not server.packages()
    (revision,) = server.overlay("revisions")["revisions"]
    assert revision["action"] == "reset" and os.path.isdir(revision["folder"])
    assert "ModuleNotFoundError" in server.run_cell("import tinyscript").error
    server.install("tinyleaf==1.0")
    done(server.job("undo"))  # the installation
    done(server.job("undo"))  # the reset
    assert "tinyscript" in server.packages()
    assert not server.run_cell("import tinyscript").error


def test_hand_edits_are_told_and_followed(server: RunningServer) -> None:
    done(server.job("restore", revision=0))
    assert server.overlay("status")["pending"] is None
    before = server.snapshot()
    path = server.overlay_path / "requirements.txt"
    old = path.read_text()
    path.write_text(old + "tinydata  # mine\n")
    status = server.overlay("status")
    fits(status, "/status")
    assert [line.split()[0] for line in status["pending"]["added"]] == ["tinydata"]
    path.write_text(old)
    assert server.snapshot() == before  # looking changed nothing
    path.write_text(old + "tinydata  # mine\n")
    done(server.job("sync"))
    assert "tinydata" in server.packages() and server.overlay("status")["pending"] is None
    assert "# mine" in path.read_text()


def test_safe_mode_is_asked_for_and_repaired_in(start: Start) -> None:
    server = start()
    server.install("tinytree==1.0")
    answer = server.post("overlay/v1/next-start", json={"mode": "safe"})
    fits(answer.json(), "/next-start", "post")
    assert server.overlay("status")["next_start"] == "safe"
    server.stop()

    safe = start(home=server.home)
    status = safe.overlay("status")
    fits(status, "/status")
    assert (status["mode"], status["env"], status["next_start"]) == ("safe", None, "normal")
    assert "safe-mode" in {n["code"] for n in status["notices"]}
    assert "ModuleNotFoundError" in safe.run_cell("import tinytree").error
    job = done(safe.job("install", install=["tinytree==2.0"]))
    assert job["revision"] == 2
    assert "ModuleNotFoundError" in safe.run_cell("import tinytree").error  # not before the next start
    done(safe.job("undo"))
    done(safe.job("reset"))
    assert len(list((server.home / ".overlay").glob("default.reset-*"))) == 1
    safe.stop()

    again = start(home=server.home)
    assert again.overlay("status")["mode"] == "normal" and not again.packages()
    done(again.job("undo"))
    assert again.packages()["tinytree"]["version"] == "1.0"
    assert not again.run_cell("import tinytree").error


def test_a_broken_overlay_can_be_reset_over_rest(start: Start) -> None:
    server = start()
    server.install("tinyleaf")
    server.stop()
    overlay = server.overlay_path
    overlay.rename(overlay.with_name("mine"))
    overlay.write_text("a file in the overlay's place\n")
    broken = start(home=server.home)
    assert broken.overlay("status")["mode"] == "degraded"
    done(broken.job("reset"))
    broken.stop()
    again = start(home=server.home)
    assert again.overlay("status")["mode"] == "normal"
    again.install("tinyleaf")


def test_the_mark_of_the_next_start_needs_the_storage(start: Start) -> None:
    server = start()
    answer = server.post("overlay/v1/next-start", json={"mode": "safe"})
    assert answer.ok
    assert json.loads((server.overlay_path / "next-start.json").read_text()) == {"mode": "safe"}
    assert server.post("overlay/v1/next-start", json={"mode": "normal"}).json() == {"mode": "normal"}
    assert not (server.overlay_path / "next-start.json").exists()
