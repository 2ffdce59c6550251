"""A disk without a free byte or inode: what frees space works, everything else leaves all as it was."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayspawner.payload import change, revisions, space
from overlayspawner.payload.lease import acquire
from tests.payload.faults import trees
from tests.support.faults import in_child, left_over


@pytest.fixture(params=["bytes", "inodes"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A small file system of its own in memory, where the system lets us mount one."""
    mount = tmp_path / "disk"
    mount.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=300", "tmpfs", str(mount)]
    try:
        done = subprocess.run(argv, capture_output=True, check=False)
    except OSError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield mount, request.param
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def fill(mount: Path, what: str) -> None:
    """Take every byte, or every inode."""
    try:
        if what == "inodes":
            for n in range(100_000):
                (mount / f"fill{n}").write_bytes(b"")
        else:
            with open(mount / "fill", "wb", buffering=0) as f:
                while f.write(b"\0" * 4096):
                    pass
    except OSError:
        pass
    info = os.statvfs(mount)
    assert info.f_bavail == 0 if what == "bytes" else info.f_favail == 0


def test_uninstalling_works(disk: tuple[Path, str]) -> None:
    mount, what = disk
    root = str(mount / "home")
    trees.prepare(root)
    trees.change(root, {"extra": {"extra/a.py": "x" * 1000}}, add=("extra",))
    overlay, env = trees.places(root)
    fill(mount, what)
    assert in_child(trees.uninstall, root).state == "ok"
    found = trees.look(root)
    assert not [path for path in found if "leaves" in path or "ns/a" in path]
    assert "leaves" not in found["requirements"]
    revision = revisions.latest(overlay)
    assert revision is not None
    assert revision["id"] == 2
    assert revision["undo"] is None
    assert revision["aside"] == []
    assert left_over(overlay, env) == []
    kept = os.path.join(env.state, "set-aside")
    assert not [name for name in os.listdir(kept) if os.listdir(os.path.join(kept, name))]
    # and once more, with what is left of the reserve
    assert in_child(lambda root: trees.change(root, {}, ("extra",), remove=("extra",)), root).state == "ok"
    assert "extra" not in trees.look(root)["requirements"]


def test_installing_leaves_all_as_it_was(disk: tuple[Path, str]) -> None:
    mount, what = disk
    root = str(mount / "home")
    trees.prepare(root)
    trees.change(root, {"extra": {"extra/a.py": "x"}}, add=("extra",))
    before = trees.look(root)
    overlay, env = trees.places(root)
    stage = os.path.join(env.state, "stage-1", "prefix")
    trees.write(stage, {"lib/x": "x"})
    fill(mount, what)
    # the reserve is for finishing and repairing; a change that brings much fails when it is used up
    space.spend(env)
    fill(mount, what)
    done = in_child(lambda root: trees.change(root, trees.NEW, ("leaves",)), root)
    assert done.state in ("crashed", "disk-full"), done  # the test's own stage does not fit either
    for path in mount.glob("fill*"):
        path.unlink()
    trees.mend(root)
    assert trees.look(root) == before
    assert left_over(overlay, env) == []
    assert not space.is_short(env)


def test_repair_works(disk: tuple[Path, str]) -> None:
    mount, what = disk
    root = str(mount / "home")
    trees.prepare(root)
    trees.change(root, {"extra": {"extra/a.py": "x"}}, add=("extra",))
    before = trees.look(root)
    overlay, env = trees.places(root)
    assert in_child(trees.replace_all, root, "commit@20:kill").state == "killed"
    assert change.pending(env)
    fill(mount, what)
    assert in_child(trees.mend, root).state == "ok"
    assert not change.pending(env)
    assert trees.look(root) == before
    with acquire(env) as lease:
        assert change.repair(overlay, env, lease) == "clean"


def test_space_that_runs_out_is_noticed_early(tmp_path: Path) -> None:
    root = str(tmp_path / "home")
    trees.prepare(root)
    trees.install(root)
    overlay, env = trees.places(root)
    assert not space.is_short(env)
    assert space.spend(env)
    assert space.is_short(env)  # as under a quota, where no more of it could be made
    assert not space.spend(env)
    trees.uninstall(root)
    revision = revisions.latest(overlay)
    assert revision is not None
    assert revision["undo"] == "offline"  # there was room to make it again
    assert not space.is_short(env)


def test_only_so_much_is_kept_for_undoing(tmp_path: Path) -> None:
    root = str(tmp_path / "home")
    trees.prepare(root)
    for n in range(4):
        trees.change(root, {"extra": {"extra/a.py": str(n) * 1000}}, version=str(n))
    overlay, env = trees.places(root)
    kept = os.path.join(env.state, "set-aside")
    assert sorted(os.listdir(kept)) == ["000002-x", "000003-x", "000004-x"]
    sizes = {}
    for number in (2, 3, 4):
        revision = revisions.read(overlay, number)
        assert revision is not None
        sizes[number] = revision["aside_bytes"]
    assert min(sizes.values()) > 1000
    space.prune(overlay, env, limit=sizes[4] + sizes[3])
    assert sorted(os.listdir(kept)) == ["000003-x", "000004-x"]
    space.prune(overlay, env, limit=sizes[4] - 1)
    assert os.listdir(kept) == []
