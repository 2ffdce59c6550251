"""uv's cache in the user's storage: ours to empty, unless the image or the user chose the place."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import glob
import os
import time
from collections.abc import Iterator
from typing import Optional

from overlayspawner.payload import files
from overlayspawner.payload.context import Context
from overlayspawner.payload.procs import Cancel
from overlayspawner.payload.requirements import normalise
from overlayspawner.payload.sizes import Frees, tree

LOCK = ".lock"
TRASH = ".trash-"


def own(ctx: Context) -> list[tuple[str, str]]:
    """Return the caches that we have made for this overlay, each with what keeps it from being emptied."""
    overlay, _ = ctx.require()
    places = [os.path.join(os.path.dirname(overlay.path), ".cache", "uv")]
    places.append(os.path.join(overlay.path, ".cache", "uv"))
    out = []
    for path in places:
        if not os.path.isdir(path) or os.path.islink(path):
            continue
        with locked(path) as free:
            out.append((path, "" if free else "an installation is using it"))
    return out


def contents(path: str) -> list[str]:
    """Return what is in a cache, but for its lock."""
    try:
        return [os.path.join(path, name) for name in sorted(os.listdir(path)) if name != LOCK]
    except OSError:
        return []


@contextlib.contextmanager
def locked(path: str) -> Iterator[bool]:
    """Hold a cache's lock, which uv holds while it works; give whether it was free."""
    try:
        fd = files.open_lock(os.path.join(path, LOCK))
    except OSError:
        fd = -1  # a full disk, and no uv has been here: nobody could have it
    free = True
    try:
        if fd >= 0:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
            except OSError:
                pass  # no locks here: the lease is held
        yield free
    finally:
        if fd >= 0:
            os.close(fd)


def empty(path: str) -> tuple[int, str]:
    """Delete what is in a cache; return the bytes that are free now, and what was in the way.

    What goes is renamed first: a part of a cache would be taken for a whole one.
    """
    with locked(path) as free:
        if not free:
            return 0, "an installation is using it"
        frees = Frees()
        for item in contents(path):
            frees.add(item)
        for item in contents(path):
            name = os.path.basename(item)
            if not name.startswith(TRASH):
                trash = os.path.join(path, f"{TRASH}{os.urandom(4).hex()}")
                files.rename(item, trash)
                item = trash
            files.step("clean " + item)
            files.remove_tree(item)
    return frees.bytes, ""


KEEP = 1_000_000_000
"""Bytes of packages that only the cache has which are kept for the next installation."""

AGE = 30 * 86_400
"""Seconds after which such a package is no longer kept."""


def prune(ctx: Context, *, keep: int | None = None, age: float = AGE, cancel: Optional[Cancel] = None) -> int:
    """Delete the oldest packages that only a cache has; return the bytes that are free now.

    A package that an env has costs nothing: both share its files. It is looked at by one file, its largest as
    its RECORD tells, so that the time follows the number of packages. uv downloads what it misses.

    Parameters
    ----------
    keep:
        Bytes to keep; :data:`KEEP`, but never more than what is free, when left out.
    age:
        Seconds for which an unused package is kept.
    cancel:
        Asked before each package.
    """
    total = 0
    for path, why in own(ctx):
        if why:
            continue
        with locked(path) as free:
            total += _prune(path, keep, age, cancel) if free else 0
    return total


def _prune(path: str, keep: int | None, age: float, cancel: Optional[Cancel]) -> int:
    if keep is None:
        info = os.statvfs(path)
        keep = min(KEEP, info.f_bavail * info.f_frsize) if info.f_blocks else KEEP
    alone: list[tuple[float, int, str]] = []
    for bucket in contents(path):
        if not os.path.basename(bucket).startswith("archive-"):
            continue
        for name in os.listdir(bucket):
            if cancel is not None and cancel.is_set():
                return 0
            found = _alone(os.path.join(bucket, name))
            if found is not None:
                alone.append((*found, os.path.join(bucket, name)))
    kept = freed = 0
    oldest = time.time() - age
    for when, size, archive in sorted(alone, reverse=True):
        if when >= oldest and kept + size <= keep:
            kept += size
            continue
        _forget(path, archive)
        trash = os.path.join(path, f"{TRASH}{os.urandom(4).hex()}")
        files.rename(archive, trash)
        freed += tree(trash)
        files.step("clean " + trash)
        files.remove_tree(trash)
    for name in os.listdir(path):
        if name.startswith(TRASH):
            files.remove_tree(os.path.join(path, name))
    return freed


def _forget(path: str, archive: str) -> None:
    """Delete what leads to an unpacked package: an early uv fails where that leads nowhere.

    uv keeps a link to it (``wheels-*/…/NAME/STEM``), and beside that pointers of the same stem.
    """
    info = next((name for name in os.listdir(archive) if name.endswith(".dist-info")), "-")
    name = normalise(info.split("-")[0])
    for bucket in contents(path):
        if not os.path.basename(bucket).startswith(("wheels-", "sdists-", "built-wheels-")):
            continue
        for depth in ("*", "*/*"):
            for folder in glob.glob(os.path.join(glob.escape(bucket), depth, name)):
                for here, folders, names in os.walk(folder):
                    for stem in [*folders, *names]:
                        link = os.path.join(here, stem)
                        target = os.readlink(link) if os.path.islink(link) else ""
                        if os.path.basename(target) == os.path.basename(archive):
                            for end in (".http", ".rev", ""):
                                files.unlink(link + end)


def _alone(archive: str) -> Optional[tuple[float, int]]:
    """Return since when an unpacked package is there, and its bytes; ``None`` where an env shares it."""
    try:
        info = next(name for name in os.listdir(archive) if name.endswith(".dist-info"))
        with open(os.path.join(archive, info, "RECORD"), encoding="utf-8", newline="") as f:
            rows = [(int(row[2]), row[0]) for row in csv.reader(f) if len(row) == 3 and row[2].isdigit()]
        # metadata has links among our stubs as well
        _, name = max((row for row in rows if not row[1].startswith(info)), default=max(rows))
        there = os.lstat(os.path.join(archive, name))
        if there.st_nlink > 1:
            return None
        return os.lstat(archive).st_mtime, sum(size for size, _ in rows)
    except (OSError, ValueError, StopIteration):
        return None  # not a package that is unpacked; `overlay clean cache` deletes it all
