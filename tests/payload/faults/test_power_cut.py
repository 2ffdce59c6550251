"""Power cuts: whatever of the unflushed writes is lost, all is as before or as after."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import change, files, journal
from tests.payload.faults import trees
from tests.support.faults import differences, left_over, quick_directory
from tests.support.powercut import Disk, Recorder, record

Act = Callable[[str], Any]


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Path]:
    with quick_directory(tmp_path) as path:
        yield path


CASES: dict[str, tuple[list[Act], Act]] = {
    "install": ([], trees.install),
    "uninstall": ([], trees.uninstall),
    "every kind of move": ([], trees.replace_all),
    "undo every kind of move": ([trees.replace_all], trees.take_back),
    "undo the undoing": ([trees.replace_all, trees.take_back], trees.bring_back),
}


def recorded(root: str, act: Act, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Run a change; its stage counts as written by a tool that flushes nothing."""
    with record(root) as recorder:
        collect = trees._collect

        def collected(folder: str, rel: str = "") -> Any:
            if not rel:
                stage = os.path.dirname(folder)
                recorder.adopt(stage)
            return collect(folder, rel)

        monkeypatch.setattr(trees, "_collect", collected)
        act(root)
    monkeypatch.undo()
    return recorder


def give_inodes(root: str, inodes: dict[int, int]) -> None:
    """Let an open journal name the files as the copy has them."""
    _, env = trees.places(root)
    try:
        entry = journal.read(env)
    except journal.Damaged:
        return
    if entry is not None:
        entry["stage_inode"] = inodes.get(entry["stage_inode"], 0)
        entry["files"] = [[path, inodes.get(inode, 0), size] for path, inode, size in entry["files"]]
        journal.write(env, entry)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "at_once"), [*((name, False) for name in CASES), ("every kind of move", True)]
)
def test_power_cut(name: str, at_once: bool, where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are flushed one by one, or all at once where little else waits to be written."""
    before_acts, act = CASES[name]
    root = str(where / "run")
    trees.prepare(root)
    trees.mend(root)  # what is made once and for all
    for earlier in before_acts:
        earlier(root)
    before = trees.look(root)
    monkeypatch.setattr(files, "FEW", 0 if at_once else 1 << 30)
    monkeypatch.setattr(files, "LITTLE", 1 << 60)
    recorder = recorded(root, act, monkeypatch)
    after = trees.look(root)
    assert before != after
    disk = Disk(recorder)
    shutil.rmtree(root)
    overlay, env = trees.places(root)
    tally: Counter[str] = Counter()
    for at in range(1, disk.length + 1):
        for seed in (None, *range(4)):
            label = f"{name}: cut after {at} of {disk.length}, selection {seed}"
            chance = None if seed is None else random.Random(at * 100 + seed)
            inodes = disk.cut(at, root, chance, keep=1.0 if seed == 0 else 0.5)
            if seed is None or seed % 2:
                give_inodes(root, inodes)
            trees.mend(root)
            found = trees.look(root)
            assert found in (before, after), f"{label}\n{differences(found, before, after)}"
            assert left_over(overlay, env) == [], label
            if at == disk.length:
                assert found == after, f"{label}: what was done got lost"
            tally["new" if found == after else "old"] += 1
            shutil.rmtree(root)
    print(f"{name}: {dict(tally)}")
    assert tally["old"] > 20
    assert tally["new"] > 20


def test_the_model_loses_what_was_not_flushed(where: Path) -> None:
    """The check itself must be able to fail."""
    root = str(where / "run")
    os.mkdir(root)
    (where / "run" / "old").write_text("old")
    with record(root) as recorder:
        files.write_atomic(os.path.join(root, "lazy"), "lazy", sync=False)
        files.write_atomic(os.path.join(root, "old"), "new")
        files.mkdir(os.path.join(root, "folder"))
    disk = Disk(recorder)
    shutil.rmtree(root)
    disk.cut(disk.length, root, None)
    assert sorted(os.listdir(root)) == ["old"]
    assert (where / "run" / "old").read_text() == "old"
    shutil.rmtree(root)
    os.mkdir(root)
    with record(root) as recorder:
        files.write_atomic(os.path.join(root, "lazy"), "lazy", sync=False)
        files.write_atomic(os.path.join(root, "safe"), "safe")
        files.fsync_dir(root)  # makes names durable, not what a file holds
    disk = Disk(recorder)
    shutil.rmtree(root)
    disk.cut(disk.length, root, None)
    assert (where / "run" / "lazy").read_text() == ""
    assert (where / "run" / "safe").read_text() == "safe"


def test_packages_that_are_not_flushed_get_lost(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what this suite is about, it finds what it looks for."""
    root = str(where / "run")
    trees.prepare(root)
    trees.mend(root)
    monkeypatch.setattr(files, "sync_tree", lambda *args: None)
    recorder = recorded(root, trees.install, monkeypatch)
    after = trees.look(root)
    disk = Disk(recorder)
    shutil.rmtree(root)
    disk.cut(disk.length, root, None)
    found = trees.look(root)
    assert found["history"] == after["history"]
    assert found != after


def test_a_torn_journal_is_none(tmp_path: Path) -> None:
    root = str(tmp_path / "run")
    trees.prepare(root)
    trees.install(root)
    _, env = trees.places(root)
    place = Path(journal.path(env))
    entry = {"change": "x", "steps": [["in", "a", ""]] * 40, "stage": "", "first": 1}
    empty = place.read_bytes()
    journal.write(env, entry)
    whole = place.read_bytes()
    assert journal.read(env) is not None
    for n in range(0, len(whole), 37):
        place.write_bytes(whole[:n] + empty[n:])
        try:
            assert journal.read(env) is None or whole[:n] + empty[n:] == whole, n
        except journal.Damaged:
            pytest.fail(f"torn at {n}: taken for damaged")
    place.write_bytes(b"garbage" * 100)
    with pytest.raises(journal.Damaged):
        journal.read(env)
    trees.mend(root)
    assert journal.read(env) is None
    assert not change.pending(env)
    (kept,) = Path(env.state).glob("journal.damaged-*")
    assert kept.read_bytes() == b"garbage" * 100
