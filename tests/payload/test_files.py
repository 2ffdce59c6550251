"""The primitives of writing: whole or not at all, and the faults that other tests rely on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from overlayspawner.payload import files
from tests.support.envs import run_child


def test_a_file_appears_whole_or_not(tmp_path: Path) -> None:
    code = "import sys; from overlayspawner.payload import files; files.write_atomic(sys.argv[1], 'new')"
    target = tmp_path / "file"
    target.write_text("old")
    for fault in ("1:kill", "2:kill", "1:ENOSPC", "2:ENOSPC"):
        assert run_child(code, str(target), fault=fault).returncode != 0
        assert target.read_text() == "old"
    assert run_child(code, str(target), fault="3:kill").returncode == 0
    assert target.read_text() == "new"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    code = "import sys; from overlayspawner.payload import files; files.write_atomic(sys.argv[1], 'new')"
    assert run_child(code, str(tmp_path / "file"), fault="2:ENOSPC").returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_faults_can_be_counted_from_a_phase(tmp_path: Path) -> None:
    code = """
import sys
from overlayspawner.payload import files
files.mkdir(sys.argv[1] + "/a")
files.mark("phase")
files.mkdir(sys.argv[1] + "/b")
files.mkdir(sys.argv[1] + "/c")
"""
    assert run_child(code, str(tmp_path), fault="phase@2:kill").returncode == -9
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_write_new_never_replaces(tmp_path: Path) -> None:
    target = tmp_path / "1.json"
    assert files.write_new(str(target), "one")
    assert not files.write_new(str(target), "two")
    assert target.read_text() == "one"
    assert os.listdir(tmp_path) == ["1.json"]


def test_write_new_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*args: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", link)
    target = tmp_path / "1.json"
    assert files.write_new(str(target), "one")
    assert not files.write_new(str(target), "two")
    assert target.read_text() == "one"
    assert os.listdir(tmp_path) == ["1.json"]


def test_remove_tree_does_not_follow_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "link").symlink_to(outside)
    (tree / "deep").chmod(0o500)
    files.remove_tree(str(tree))
    assert not tree.exists()
    assert (outside / "precious").exists()


@pytest.mark.parametrize(
    ("singly", "few", "waiting", "one_by_one"),
    [
        (100, 100, 0, True),
        (0, 100, 1 << 40, False),
        (100, 0, 1_000_000, False),
        (100, 0, 1 << 40, True),
        (100, 0, None, True),
    ],
)
def test_trees_are_flushed_one_by_one_or_at_once(
    singly: int,
    few: int,
    waiting: int | None,
    one_by_one: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "new").write_text("new")
    (tmp_path / "deep" / "old").write_text("old")
    os.utime(tmp_path / "deep" / "old", (1_600_000_000, 1_600_000_000))
    (tmp_path / "link").symlink_to("deep")
    flushed = []
    real = os.fsync

    def fsync(fd: int) -> None:
        flushed.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), tmp_path))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(files, "SINGLY", singly)
    monkeypatch.setattr(files, "FEW", few)
    assert 0 < files._dirty() < 1 << 40
    monkeypatch.setattr(files, "MEMINFO", str(tmp_path.parent / f"meminfo-{tmp_path.name}"))
    if waiting is not None:
        Path(files.MEMINFO).write_text(f"MemFree: 1 kB\nDirty: {waiting // 1024} kB\nWriteback: 4 kB\n")
    files.sync_tree(str(tmp_path), ["deep/new", "deep/old", "link", "missing"])
    assert sorted(flushed) == ([".", "deep", "deep/new"] if one_by_one else [])
    # where that can't be done for the whole file system
    monkeypatch.setattr(files, "_sync_all", lambda path: False)
    flushed.clear()
    files.sync_tree(str(tmp_path), ["deep/new"])
    assert sorted(flushed) == [".", "deep", "deep/new"]


def test_write_new_knows_its_own_file_where_a_storage_answers_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def twice(source: str, target: str) -> None:
        link(source, target)
        raise FileExistsError(17, "exists")

    monkeypatch.setattr(os, "link", twice)
    target = tmp_path / "1.json"
    assert files.write_new(str(target), "one")
    assert not files.write_new(str(target), "two")
    assert target.read_text() == "one"
    assert os.listdir(tmp_path) == ["1.json"]
