"""Commit, undo and repair, stopped at every write: all is as before or as after, and nothing is left over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overlayspawner.payload import revisions
from tests.payload.faults import trees
from tests.support.doctor import assert_clean, leftovers
from tests.support.faults import Operation, in_child, left_over, quick_directory, sweep

Act = Callable[[str], None]

# made-up packages come from no index, have no lock, and their compiled copies are none
UNFIT = ("requirements", "lock", "bytecode")


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Path]:
    with quick_directory(tmp_path) as path:
        yield path


def left(root: str) -> list[str]:
    overlay, env = trees.places(root)
    return left_over(overlay, env) + leftovers(overlay)


def after(*acts: Act) -> Act:
    def prepare(root: str) -> None:
        trees.prepare(root)
        for act in acts:
            act(root)

    return prepare


CASES: dict[str, tuple[Act, Act]] = {
    "install": (after(), trees.install),
    "uninstall": (after(), trees.uninstall),
    "every kind of move": (after(), trees.replace_all),
    "undo an installation": (after(trees.install), trees.take_back),
    "undo an uninstallation": (after(trees.uninstall), trees.take_back),
    "undo every kind of move": (after(trees.replace_all), trees.take_back),
    "undo the undoing": (after(trees.replace_all, trees.take_back), trees.bring_back),
    "undo again": (after(trees.replace_all, trees.take_back, trees.bring_back), trees.take_back),
}


def operation(name: str) -> Operation:
    prepare, act = CASES[name]
    return Operation(name, prepare, act, trees.mend, trees.look, left)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_stopped_at_every_write(name: str, where: Path) -> None:
    tally = sweep(operation(name), where)
    print(f"{name}: {dict(tally)}")
    assert tally["old"] > 10
    assert tally["new"] > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["every kind of move", "undo every kind of move"])
@pytest.mark.parametrize("written", [False, True])
def test_a_repair_stopped_at_every_write(name: str, written: bool, where: Path) -> None:
    """Undoing and finishing what a killed change left: themselves stopped, and done by the next one."""
    prepare, act = CASES[name]
    root = str(where / "count")
    prepare(root)
    total = in_child(act, root, "commit@1000000:kill").steps
    # killed where all is half done; and right after the revision was written
    number = len(revisions.ids(trees.places(root)[0]))
    at = total // 3
    for n in range(total, 0, -1) if written else ():
        trial = str(where / f"trial{n}")
        prepare(trial)
        assert in_child(act, trial, f"commit@{n}:kill").state == "killed"
        if len(revisions.ids(trees.places(trial)[0])) < number:
            break
        at = n

    def halfway(root: str) -> None:
        prepare(root)
        assert in_child(act, root, f"commit@{at}:kill").state == "killed"

    def full_look(root: str) -> object:
        return {**trees.look(root), "left over": str(left(root))}

    repair = Operation(f"repair of {name}", halfway, trees.mend, trees.mend, full_look, left)
    tally = sweep(repair, where, repairs=True)
    assert tally["runs"] > 10


def test_undoing_brings_back_every_file(where: Path) -> None:
    root = str(where / "one")
    trees.prepare(root)
    before = trees.look(root, history=False)
    trees.replace_all(root)
    changed = trees.look(root, history=False)
    assert changed != before
    trees.take_back(root)
    found = trees.look(root, history=False)
    assert sorted(found.pop("requirements").split("\n")) == sorted(before.pop("requirements").split("\n"))
    assert found == before
    trees.bring_back(root)
    again = trees.look(root, history=False)
    assert sorted(again.pop("requirements").split("\n")) == sorted(changed.pop("requirements").split("\n"))
    assert again == changed
    overlay, _ = trees.places(root)
    told = [revisions.read(overlay, n) for n in revisions.ids(overlay)]
    assert [(r["action"], r.get("undoes"), r["undo"]) for r in told if r] == [
        ("install", None, "offline"),
        ("undo", 1, "offline"),
        ("undo", 2, "offline"),
    ]


def test_the_doctor_finds_nothing(where: Path) -> None:
    root = str(where / "one")
    trees.prepare(root)
    for act in (trees.replace_all, trees.take_back, trees.bring_back, trees.uninstall, trees.take_back):
        act(root)
        assert_clean(trees.context(root), without=UNFIT)
        assert os.path.isdir(trees.places(root)[1].state)
