"""Storage that fails for real: too small, full, out of inodes, over quota, suddenly read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.storms.test_writers import assert_unbroken, assert_whole, go_on, halted
from tests.support.boxes import Boxes

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems: needs root"),
]

SPACE = {"storage"}
"""The check of the doctor that a full storage can't pass."""


class Disk:
    """A small file system of its own, mounted on this machine.

    Parameters
    ----------
    root:
        A directory for its image and mount point.
    size:
        Bytes.
    kind:
        ``ext4``, or ``btrfs`` with a quota of ``quota`` bytes.
    inodes:
        How many files it holds at most; 0 for the usual number.
    """

    def __init__(self, root: Path, size: int, *, kind: str = "ext4", inodes: int = 0, quota: int = 0) -> None:
        root.mkdir()
        self.image = image = root / "image"
        with image.open("wb") as f:
            f.truncate(size)
        self.mount = root / "mount"
        self.mount.mkdir()
        if kind == "ext4":
            limit = ["-N", str(inodes)] if inodes else []
            _run("mkfs.ext4", "-q", "-m", "0", *limit, str(image))
        else:
            _run("mkfs.btrfs", "-q", str(image))
        _run("mount", "-o", "loop", str(image), str(self.mount))
        self.home = self.mount / "home"
        try:
            if kind == "btrfs":
                _run("btrfs", "subvolume", "create", str(self.home))
                _run("btrfs", "quota", "enable", str(self.mount))
                _run("btrfs", "qgroup", "limit", str(quota), str(self.home))
            else:
                self.home.mkdir()
            os.chown(self.home, 1000, 100)
        except BaseException:
            self.close()
            raise

    def fill(self, *, leave: int = 0) -> None:
        """Use up the free space, all but ``leave`` bytes."""
        with (self.home / "filler").open("ab", buffering=0) as f:
            for size in (1 << 20, 1 << 12, 512):
                try:
                    while True:
                        f.write(os.urandom(size))
                except OSError:
                    pass
            if leave:
                f.truncate(f.tell() - leave)
            os.fsync(f.fileno())
        # what was reserved for delayed writes comes back a moment later
        os.sync()
        try:
            with (self.home / "filler2").open("ab", buffering=0) as f:
                while not leave:
                    f.write(b"x" * 512)
        except OSError:
            pass

    def fill_inodes(self) -> None:
        """Use up the inodes."""
        folder = self.home / "fillers"
        folder.mkdir(exist_ok=True)
        number = 0
        try:
            while True:
                (folder / str(number)).touch()
                number += 1
        except OSError:
            pass

    def fail(self) -> None:
        """Turn it read-only as the kernel does when it finds an error: what was not flushed yet is lost."""
        subprocess.run(["mount", "-o", "remount,abort", str(self.mount)], capture_output=True, check=False)

    def mend(self) -> None:
        """Check and mount it again."""
        _run("umount", str(self.mount))
        done = subprocess.run(["fsck.ext4", "-y", "-f", str(self.image)], capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        _run("mount", "-o", "loop", str(self.image), str(self.mount))

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "-l", str(self.mount)], check=False)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Any]:
    """Return what makes disks; they are unmounted at the end."""
    made: list[Disk] = []

    def make(size: int, **options: Any) -> Disk:
        made.append(Disk(tmp_path / f"disk{len(made)}", size, **options))
        return made[-1]

    yield make
    for disk in made:
        disk.close()


def state(seen: dict[str, Any]) -> tuple[Any, ...]:
    """What a failed change must leave as it was."""
    return seen["packages"], seen["requirements"], seen["revisions"], seen["imports"]


def test_a_home_of_64_kb(boxes: Boxes) -> None:
    """It is full before anything begins; the container starts, and is told why there is no more."""
    home = boxes.home(
        "tiny", driver="local", driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=64k"}
    )
    box = boxes.start(home, "start")
    try:
        box.until("up")
        answers = boxes.session(box, ["overlay install many", "overlay list", "overlay status"])
    finally:
        box.remove()
    assert answers[0]["rc"] == 1
    assert answers[0]["code"] in ("disk-full", "no-overlay"), answers[0]
    assert "space" in answers[0]["message"], answers[0]
    assert answers[1].get("packages", []) == []
    assert answers[2]["rc"] == 0


def test_a_full_volume(boxes: Boxes, disks: Any) -> None:
    disk = disks(40_000_000)
    home = str(disk.home)
    assert boxes.overlay(home, "install", "pkg0", "pkg1", "shared0==1.0")["rc"] == 0
    modules = ("pkg0", "pkg1", "pkg2", "shared0", "leaf")
    before = boxes.look(home, *modules)
    disk.fill()
    for words in (["install", "pkg2"], ["install", "many"], ["upgrade", "shared0"]):
        answer = boxes.overlay(home, *words)
        assert (answer["rc"], answer["code"]) == (1, "disk-full"), answer
        assert "nothing was changed" in answer["message"].lower()
        seen = boxes.look(home, *modules)
        assert state(seen) == state(before)
        assert seen["leftovers"] == []
        assert set(seen["complaints"]) <= SPACE
    assert boxes.overlay(home, "uninstall", "pkg1")["rc"] == 0
    after = boxes.look(home, *modules)
    assert set(after["packages"]) == {"pkg0", "shared0", "leaf"}
    assert set(after["complaints"]) <= SPACE
    assert after["leftovers"] == []
    assert_unbroken(after)
    for name in ("filler", "filler2"):
        (disk.home / name).unlink()
    assert boxes.overlay(home, "install", "pkg2")["rc"] == 0
    seen = boxes.look(home, *modules)
    assert set(seen["complaints"]) <= SPACE
    assert_unbroken(seen)


def test_no_inodes_left(boxes: Boxes, disks: Any) -> None:
    disk = disks(80_000_000, inodes=2000)
    home = str(disk.home)
    assert boxes.overlay(home, "install", "pkg0", "pkg1", "shared0==1.0")["rc"] == 0
    modules = ("pkg0", "pkg1", "pkg2", "shared0", "leaf")
    before = boxes.look(home, *modules)
    disk.fill_inodes()
    for words in (["install", "pkg2"], ["upgrade", "shared0"]):
        answer = boxes.overlay(home, *words)
        assert (answer["rc"], answer["code"]) == (1, "disk-full"), answer
        assert state(boxes.look(home, *modules)) == state(before)
    assert boxes.overlay(home, "uninstall", "pkg1")["rc"] == 0
    after = boxes.look(home, *modules)
    assert set(after["packages"]) == {"pkg0", "shared0", "leaf"}
    assert after["leftovers"] == []
    assert_unbroken(after)
    shutil.rmtree(disk.home / "fillers")
    assert boxes.overlay(home, "install", "pkg2")["rc"] == 0
    assert set(boxes.look(home, *modules)["complaints"]) <= SPACE


@pytest.mark.parametrize("step", [3, 6, 9, 12])
def test_read_only_in_the_middle(boxes: Boxes, disks: Any, step: int) -> None:
    """The disk turns read-only under a change; when it is mended the next one finds all old or new."""
    disk = disks(200_000_000)
    home = str(disk.home)
    assert boxes.overlay(home, "install", "pkg0", "shared0==1.0")["rc"] == 0
    modules = ("pkg0", "pkg1", "pkg2", "shared0", "leaf")
    before = boxes.look(home, *modules)
    box = halted(boxes, home, "install", "pkg1", "shared0==2.0", step=step)
    disk.fail()
    answer = go_on(box)
    box.remove()
    new = {**before["packages"], "pkg1": "1.0", "shared0": "2.0"}
    if answer["rc"] == 0:  # past the point of no return: what is left to do is the next one's
        assert step > 3
    else:
        assert answer["code"] == "read-only", answer
    # a start on a read-only home works, and says what can't be done
    seen = boxes.look(home)
    assert seen["doctor_answered"]
    assert "storage" in seen["complaints"]
    assert boxes.overlay(home, "install", "pkg2")["rc"] == 1
    disk.mend()
    answer2 = boxes.overlay(home, "install", "pkg2")
    assert answer2["rc"] == 0, answer2
    seen = boxes.look(home, *modules)
    assert_whole(seen)
    assert_unbroken(seen)
    expected = new if answer["rc"] == 0 else before["packages"]
    assert seen["packages"] == {**expected, "pkg2": "1.0"}


def test_over_quota(boxes: Boxes, disks: Any) -> None:
    """EDQUOT rather than ENOSPC: the disk has room, the user does not.

    btrfs wants quota even for a rename, and gives back what was deleted a moment later. So there an uninstall
    may be refused until the user has deleted something; half done it is never.
    """
    disk = disks(300_000_000, kind="btrfs", quota=12_000_000)
    home = str(disk.home)
    assert boxes.overlay(home, "install", "pkg0", "pkg1")["rc"] == 0
    modules = ("pkg0", "pkg1", "pkg2")
    before = boxes.look(home, *modules)
    disk.fill()
    answer = boxes.overlay(home, "install", "many")
    assert (answer["rc"], answer["code"]) == (1, "disk-full"), answer
    assert state(boxes.look(home, *modules)) == state(before)
    answer = boxes.overlay(home, "uninstall", "pkg1")
    if answer["rc"] != 0:
        assert answer["code"] == "disk-full"
        assert state(boxes.look(home, *modules)) == state(before)
        os.truncate(disk.home / "filler", 8_000_000)
        os.sync()
        assert boxes.overlay(home, "uninstall", "pkg1")["rc"] == 0
    after = boxes.look(home, *modules)
    assert set(after["packages"]) == {"pkg0"}
    assert after["leftovers"] == []
    assert set(after["complaints"]) <= SPACE
    assert_unbroken(after)
