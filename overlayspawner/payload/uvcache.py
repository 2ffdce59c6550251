"""uv's cache in the user's storage: ours to empty, unless the image or the user chose the place."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from overlayspawner.payload import files
from overlayspawner.payload.context import Context
from overlayspawner.payload.sizes import Frees

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
