"""Room to work in on a full disk: a reserve that is given up when it is needed, and what is cleaned up.

On a full disk nothing new can be written, while renames into directories that are there still work. So each
env keeps what a change can't do without: a few kilobytes and inodes in ``reserve-*``, an empty directory
``spare`` that becomes the next change's place in ``set-aside``, and the journal, which is written in place.
"""

from __future__ import annotations

import contextlib
import errno
import os

from overlayspawner.payload import files, journal, revisions
from overlayspawner.payload.moves import SET_ASIDE
from overlayspawner.payload.overlay import BASE_PTH, Env, Overlay

KEEP = 10
"""How many changes' replaced files are kept for undoing."""

LIMIT = 1_000_000_000
"""Bytes of replaced files that are kept for undoing, all changes together."""

LITTLE = 16_000_000
"""Free bytes below which space counts as short, or a twentieth of a small volume."""

_PIECES = 4
_PIECE = 16 * 1024
_FEW_INODES = 50


def prepare(env: Env) -> None:
    """Make what is kept ready where it is missing, as far as there is room. Never fails."""
    with contextlib.suppress(OSError):
        if not os.path.lexists(journal.path(env)):
            _settle(env)
        journal.make_room(env)
        files.mkdir(os.path.join(env.state, SET_ASIDE))
        files.mkdir(_spare(env))
        for piece in _pieces(env):
            if not os.path.lexists(piece):
                # random: file systems that compress would not keep room for zeros
                files.write_atomic(piece, os.urandom(_PIECE), 0o600, sync=False)


def _settle(env: Env) -> None:
    """Flush what a start wrote without waiting for the disk, once, before the first change relies on it."""
    own = ("pyvenv.cfg", "pip.conf", "bin/pip", "bin/pip3", os.path.relpath(env.site_packages, env.path))
    files.sync_tree(env.path, [*own, os.path.join(own[-1], BASE_PTH)])
    overlay = os.path.dirname(os.path.dirname(env.path))
    if os.path.lexists(os.path.join(overlay, "overlay.json")):
        files.sync_tree(overlay, ["overlay.json", "README.md", "requirements.txt"])


def spend(env: Env) -> bool:
    """Give up the reserve; return whether there was any."""
    there = [piece for piece in _pieces(env) if os.path.lexists(piece)]
    for piece in there:
        files.discard(piece)
    shelf = stubs(env)
    kept = os.path.lexists(shelf)
    if kept:
        files.remove_tree(shelf)
    return bool(there) or kept


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that there is no space or quota left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_short(env: Env) -> bool:
    """Whether space is so short that what leaves is better deleted than kept.

    A reserve that could not be made tells of a quota, which the file system's numbers don't.
    """
    if not all(os.path.lexists(piece) for piece in _pieces(env)):
        return True
    try:
        info = os.statvfs(env.path)
    except OSError:
        return False
    if info.f_files and info.f_favail < _FEW_INODES:
        return True
    return info.f_bavail * info.f_frsize < min(LITTLE, info.f_blocks * info.f_frsize // 20)


def free(env: Env) -> int | None:
    """Return the bytes that a change may use, ``None`` where nothing tells; of a quota nothing ever does."""
    try:
        info = os.statvfs(env.path)
    except OSError:
        return None
    return max(0, info.f_bavail * info.f_frsize - LITTLE) if info.f_blocks else None


def make_place(env: Env, place: str) -> None:
    """Make a directory in ``Env.state``, two levels deep at most, if need be out of the spare one.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    path = os.path.join(env.state, place)
    if os.path.isdir(path):
        return
    files.mkdir(os.path.dirname(path))
    try:
        files.mkdir(path)
    except OSError as e:
        if not is_full(e) or not os.path.isdir(_spare(env)):
            raise
        files.rename(_spare(env), path)
    files.fsync_dir(os.path.dirname(path))


def empty_place(env: Env, place: str) -> None:
    """Delete what a change set aside; its directory is the spare one again.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    path = os.path.join(env.state, place)
    if not os.path.isdir(path):
        return
    for name in os.listdir(path):
        files.remove_tree(os.path.join(path, name))
    if not os.path.lexists(_spare(env)):
        files.rename(path, _spare(env))


def prune(overlay: Overlay, env: Env, *, keep: int = KEEP, limit: int | None = None) -> None:
    """Delete the oldest replaced files: all but the latest ``keep`` changes', and what is above the limit.

    What a change keeps is counted as its revision tells; nothing is walked.

    Parameters
    ----------
    limit:
        In bytes; :data:`LIMIT`, but never more than what is free, when left out.
    """
    root = os.path.join(env.state, SET_ASIDE)
    try:
        names = sorted(os.listdir(root), reverse=True)
    except OSError:
        return
    if limit is None:
        limit = LIMIT
        with contextlib.suppress(OSError):
            info = os.statvfs(env.path)
            if info.f_blocks:  # some file systems don't tell
                limit = min(limit, info.f_bavail * info.f_frsize)
    total = 0
    for n, name in enumerate(names):
        if n < keep:
            total += _kept_bytes(overlay, name)
        if n >= keep or total > limit:
            files.remove_tree(os.path.join(root, name))


def _kept_bytes(overlay: Overlay, name: str) -> int:
    number = name.partition("-")[0]
    if not number.isdigit():
        return 0
    # the number in the name was the most likely one when the change began
    for n in range(int(number), int(number) + 3):
        data = revisions.read(overlay, n)
        if data is not None and data.get("change") == name:
            size = data.get("aside_bytes")
            return size if isinstance(size, int) else 0
    return 0


def stubs(env: Env) -> str:
    """Return the directory of stubs that wait for the next stage; they can be made again."""
    return os.path.join(env.state, "stubs")


def reserved(env: Env) -> int:
    """Return the bytes of the reserve that is there."""
    return sum(_PIECE for piece in _pieces(env) if os.path.lexists(piece))


def _spare(env: Env) -> str:
    return os.path.join(env.state, "spare")


def _pieces(env: Env) -> list[str]:
    return [os.path.join(env.state, f"reserve-{n}") for n in range(_PIECES)]
