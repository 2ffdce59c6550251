"""Several containers change one overlay at the same time: all that succeeded is there, and nothing else."""

from __future__ import annotations

import errno
import itertools
import json
import re
import time
from typing import Any

import pytest

from overlayspawner.payload import lease
from tests.support.boxes import Box, Boxes
from tests.support.index import LocalIndex

pytestmark = pytest.mark.engine

SHARED = ["shared0", "shared1", "shared2"]
NO_LOCKS = "seccomp=" + json.dumps(
    {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["flock"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOLCK}],
    }
)
"""A storage that knows no locks, as a container sees it."""
MAY_FAIL = {"busy", "not-installed"}
"""What a command may answer here besides success: others were quicker."""


def line_name(line: str) -> str:
    """Return the project that a requirement line is about."""
    match = re.match(r"[A-Za-z0-9._-]+", line)
    assert match, line
    return match[0].lower()


def assert_unbroken(seen: dict[str, Any]) -> None:
    """Fail unless each revision begins where the one before it ended, and the file is as the last left it."""
    revisions = seen["revisions"]
    assert [r.get("id") for r in revisions] == list(range(1, len(revisions) + 1))
    for old, new in itertools.pairwise(revisions):
        assert new["requirements"]["before"] == old["requirements"]["after"], new["id"]
    assert seen["requirements"] == revisions[-1]["requirements"]["after"]


def assert_whole(seen: dict[str, Any]) -> None:
    """Fail unless the doctor is content, nothing is left over, and all that is listed can be imported."""
    assert seen["doctor_answered"]
    assert seen["complaints"] == {}
    assert seen["leftovers"] == []
    failed = {name: said for name, said in seen["imports"].items() if said.startswith("failed")}
    assert {name for name in failed if name in seen["packages"]} == set(), failed


def run_storm(
    boxes: Boxes, home: str, writers: int, rounds: int, *, pips: bool, **rest: Any
) -> dict[str, Any]:
    """Let containers loose on a home; check what they told against what is there, and return that."""
    started = []
    for who in range(writers):
        started.append(
            boxes.start(
                home,
                "storm",
                name=f"writer{who}",
                who=who,
                rounds=rounds,
                own=[f"pkg{who * 5 + n}" for n in range(3)],
                shared=SHARED,
                pips=[f"pkg{who * 5 + n}" for n in (3, 4)] if pips else [],
                **rest,
            )
        )
    told = [box.wait(timeout=400) for box in started]
    acts = [line for lines in told for line in lines if "action" in line]
    assert len(acts) == writers * rounds
    wrong = [a for a in acts if a["rc"] != 0 and a["code"] not in MAY_FAIL]
    assert wrong == [], wrong
    done = [a for a in acts if a["rc"] == 0]
    assert len(done) > len(acts) // 2, [(a["code"], a["message"]) for a in acts]

    mine = [f"pkg{n}" for n in range(writers * 5)]
    seen = boxes.look(home, *mine, *SHARED, "leaf")
    assert_whole(seen)
    assert_unbroken(seen)
    there = {name for lines in told for line in lines if "there" in line for name in line["there"]}
    lines = {line_name(line) for line in seen["requirements"]}
    assert {name for name in lines if name.startswith("pkg")} == there
    # what the shared ones came to, the history tells: one after the other
    shared: set[str] = set()
    for revision in seen["revisions"]:
        action, *names = [word for word in revision["argv"] if word not in ("pip", "-y")]
        names = [name for name in names if name in SHARED]
        if action == "uninstall":
            shared -= set(names)
        elif action == "install":
            shared |= set(names)
    assert {name for name in lines if name.startswith("shared")} == shared
    needed = there | shared | ({"leaf"} if shared else set())
    assert set(seen["packages"]) == needed
    # they did get into each other's way
    owners = [int(n[3:]) // 5 for r in seen["revisions"] for n in r["argv"] if n.startswith("pkg")]
    assert sum(a != b for a, b in itertools.pairwise(owners)) >= writers, owners
    # each success that made a revision is one, and the history knows no others
    made = {a["revision"] for a in done if a["kind"] != "pips" and a["revision"]}
    assert made <= {r["id"] for r in seen["revisions"]}
    for box in started:
        box.remove()
    return seen


@pytest.mark.parametrize(("writers", "rounds"), [(2, 6), (4, 4), (8, 3)])
def test_writers_in_containers(boxes: Boxes, writers: int, rounds: int) -> None:
    home = boxes.home(f"writers{writers}")
    run_storm(boxes, home, writers, rounds, pips=False)


def test_pip_in_between(boxes: Boxes, storm_index: LocalIndex) -> None:
    """Half of what is done is done with the terminals' pip, in the same env at the same time."""
    settings = {
        "PIP_INDEX_URL": storm_index.container_url,
        "PIP_TRUSTED_HOST": storm_index.container_host,
    }
    run_storm(boxes, boxes.home("mixed"), 3, 5, pips=True, environment=settings)


def halted(boxes: Boxes, home: str, *words: str, step: int, **rest: Any) -> Box:
    """Start a change that halts at a step of its commit; return when it has."""
    box = boxes.start(home, "halting", words=list(words), fault=f"commit@{step}:stop", **rest)
    box.until("halted")
    return box


def go_on(box: Box) -> dict[str, Any]:
    """Let a halted change go on; return its answer."""
    box.container.exec_run(["kill", "-CONT", str(box.until("halted")["halted"])], user="0")
    return box.wait()[-1]


@pytest.mark.parametrize("step", [4, 8, 12])
def test_a_killed_container_is_repaired_by_one_that_waits(boxes: Boxes, step: int) -> None:
    home = boxes.home(f"killed{step}")
    assert boxes.overlay(home, "install", "pkg0", "shared0==1.0")["rc"] == 0
    holder = halted(boxes, home, "install", "pkg1", "shared0==2.0", step=step)
    others = [boxes.start(home, "patiently", words=["install", f"pkg{n}"]) for n in (2, 3)]
    for box in others:
        box.until("up")
    assert boxes.overlay(home, "install", "pkg4")["code"] == "busy"
    holder.kill()
    assert [box.wait()[-1]["rc"] for box in others] == [0, 0]
    seen = boxes.look(home, "pkg0", "pkg1", "pkg2", "pkg3", "shared0", "leaf")
    assert_whole(seen)
    assert_unbroken(seen)
    versions = {k: v for k, v in seen["packages"].items() if k in ("pkg1", "shared0")}
    assert versions in ({"shared0": "1.0"}, {"pkg1": "1.0", "shared0": "2.0"})
    assert {"pkg0", "pkg2", "pkg3", "leaf"} <= set(seen["packages"])


def test_a_paused_container_keeps_others_out_and_finishes(boxes: Boxes) -> None:
    """On one kernel the lock stays with it, however long it is held up: nobody may take over."""
    home = boxes.home("paused")
    assert boxes.overlay(home, "install", "pkg0")["rc"] == 0
    holder = halted(boxes, home, "install", "pkg1", step=6)
    holder.container.pause()
    time.sleep(lease.TTL + 3)
    answer = boxes.overlay(home, "install", "pkg2")
    assert (answer["rc"], answer["code"]) == (1, "busy"), answer
    assert "is changing this overlay" in answer["message"]
    seen = boxes.look(home, "pkg0")
    assert seen["packages"]["pkg0"] == "1.0"
    assert "pkg2" not in seen["packages"]
    holder.container.unpause()
    assert go_on(holder)["rc"] == 0
    assert boxes.overlay(home, "install", "pkg2")["rc"] == 0
    seen = boxes.look(home, "pkg0", "pkg1", "pkg2")
    assert_whole(seen)
    assert_unbroken(seen)
    assert set(seen["packages"]) == {"pkg0", "pkg1", "pkg2"}


@pytest.mark.parametrize("step", [5, 9])
def test_who_was_taken_over_writes_no_more(boxes: Boxes, storm_index: LocalIndex, step: int) -> None:
    """Where locks don't work a holder that is silent for long is taken over; then it must not go on."""
    home = boxes.home(f"fenced{step}")
    # pip, because uv's own cache needs locks, and here there are none at all
    rest: dict[str, Any] = {
        "security_opt": [NO_LOCKS],
        "spec": {"installer": "pip"},
        "environment": {"PIP_TRUSTED_HOST": storm_index.container_host},
    }
    assert boxes.overlay(home, "install", "pkg0", "shared0==1.0", **rest)["rc"] == 0
    holder = halted(boxes, home, "install", "pkg1", "shared0==2.0", step=step, **rest)
    assert boxes.overlay(home, "install", "pkg2", **rest)["code"] == "busy"
    time.sleep(lease.TTL + 1)
    answer = boxes.overlay(home, "install", "pkg2", **rest)
    assert answer["rc"] == 0, answer
    after = boxes.look(home, "pkg0", "pkg2", "shared0", "leaf", **rest)
    answer = go_on(holder)
    assert (answer["rc"], answer["code"]) == (1, "busy"), answer
    seen = boxes.look(home, "pkg0", "pkg2", "shared0", "leaf", **rest)
    # it looks at its lease, then writes: a journal may still come in between, which moves nothing
    assert set(seen.pop("complaints")) <= {"unfinished"}
    after.pop("complaints")
    assert seen == after
    assert_unbroken(seen)
    assert seen["packages"] == {"pkg0": "1.0", "pkg2": "1.0", "shared0": "1.0", "leaf": "1.0"}
    assert boxes.overlay(home, "install", "pkg1", **rest)["rc"] == 0
    assert_whole(boxes.look(home, "pkg0", "pkg1", **rest))
