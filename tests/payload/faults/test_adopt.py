"""Adoption stopped at every write: the next one finishes it, and nothing is recorded twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayspawner.payload import adopt, lockfile, merge, revisions, snapshot
from tests.payload.faults import trees
from tests.support.changes import write
from tests.support.faults import HOWS, Operation, left_over, quick_directory, sweep


@pytest.fixture(autouse=True)
def _without_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is written afterwards and best effort; made-up packages would have uv asked each time."""
    monkeypatch.setattr(lockfile, "write", lambda *args, **options: True)


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Path]:
    with quick_directory(tmp_path) as path:
        yield path


def prepare(root: str) -> None:
    """An overlay in which another tool has added, replaced and removed something, and lost something."""
    trees.prepare(root)
    overlay, env = trees.places(root)
    merge.save(overlay, "whole==1\nleaves\n")
    snapshot.save(env)
    site = Path(env.site_packages)
    write(str(site), trees.package("brought", "1", {"brought/__init__.py": "new"}))
    shutil.rmtree(site / "whole-1.dist-info")
    write(str(site), trees.package("whole", "2", {"whole/__init__.py": "new"}))
    shutil.rmtree(site / "leaves-1.dist-info")
    shutil.rmtree(site / "leaves")
    shutil.rmtree(site.parents[2] / "share" / "leaves")
    shutil.rmtree(site / "ns_b-1.dist-info")


def act(root: str) -> None:
    adopt.adopt(trees.context(root), argv=["pip", "install", "whole==2", "brought>=1"])


def again(root: str) -> None:
    """What the next writer does: it knows nothing of the command."""
    adopt.adopt(trees.context(root))


def look(root: str) -> dict[str, str]:
    overlay, env = trees.places(root)
    context = trees.context(root)
    out = {
        "requirements": Path(overlay.requirements).read_text(),
        "pending": str(merge.pending(overlay)),
        "needed": str(adopt.needed(context)),
        "missing": str(adopt.missing(context)),
    }
    for revision in revisions.list_revisions(overlay):
        plan = revision["plan"]
        new = [f"{p['name']} {p['version']}" for p in plan["new"]]
        gone = [p["name"] for p in plan["removes"]]
        out[f"revision {revision['id']}"] = f"{revision['action']} {new} {gone} {revision['requirements']}"
    assert env.usable()
    return out


def left(root: str) -> list[str]:
    return left_over(*trees.places(root))


def test_what_an_adoption_records(where: Path) -> None:
    root = str(where / "one")
    prepare(root)
    act(root)
    assert look(root) == {
        "requirements": "# mine\nwhole==2\nhand  # by hand\nbrought>=1\n",
        "pending": str({"added": ["hand"], "removed": [], "changed": []}),
        "needed": "False",
        "missing": "['ns-b']",
        "revision 1": "adopt ['brought 1', 'whole 2'] ['leaves'] "
        "{'before': ['whole==1', 'leaves', 'hand'], 'after': ['whole==2', 'hand', 'brought>=1']}",
    }
    assert left(root) == []


@pytest.mark.parametrize("how", HOWS)
def test_stopped_at_every_write(how: str, where: Path) -> None:
    """By the same command again: after it all is as if nothing had happened."""
    tally = sweep(Operation("adoption", prepare, act, act, look, left), where, hows=[how], repairs=True)
    print(f"adoption, {how}: {dict(tally)}")
    assert tally["runs"] > 10
    assert tally["old"] == 0


def test_a_killed_one_is_finished_by_who_knows_nothing_of_the_command(where: Path) -> None:
    """Before the revision is written its words are lost; from there on they are kept."""
    from tests.support.faults import in_child

    root = str(where / "run")
    prepare(root)
    total = in_child(act, root, "adopt@1000000:kill").steps
    expected = look(root)
    shutil.rmtree(root)
    kept = lost = 0
    for n in range(1, total + 1):
        prepare(root)
        assert in_child(act, root, f"adopt@{n}:kill").state == "killed"
        written = bool(revisions.ids(trees.places(root)[0]))
        again(root)
        found = look(root)
        if written:
            assert found == expected, n
            kept += 1
        else:
            assert found["requirements"] == "# mine\nwhole==1\nhand  # by hand\nbrought\n", n
            lost += 1
        assert sum(key.startswith("revision") for key in found) == 1, n
        assert left(root) == [], n
        shutil.rmtree(root)
    assert kept > 3
    assert lost > 1
