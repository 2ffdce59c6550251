"""What an installer that is stopped would leave behind: temporary files, half of a download."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator

from overlayspawner.payload import files

_FORGOTTEN = 86_400
"""Seconds after which what an earlier one left counts as forgotten."""


@contextlib.contextmanager
def temporary(env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Give a tool a place for temporary files, outside the user's storage, that goes with it.

    pip and compilers keep theirs in ``TMPDIR`` and don't tidy up when they are stopped.

    Parameters
    ----------
    env:
        The tool's environment; yielded with ``TMPDIR``.
    """
    folder = ""
    # a full or missing /tmp: the tool says what it can't do without it
    with contextlib.suppress(OSError):
        folder = tempfile.mkdtemp(prefix="overlayspawner-", dir=env.get("TMPDIR"))
    try:
        yield {**env, "TMPDIR": folder} if folder else env
    finally:
        if folder:
            with contextlib.suppress(OSError):
                files.remove_tree(folder)


def sweep(cache: str, since: int) -> None:
    """Remove what a uv that was stopped left in its cache. Never raises.

    uv unpacks into ``.tmp…`` directories, in the cache itself and in its parts, and moves them when they are
    whole. While any other uv works with the cache it holds a lock there, and nothing is removed.

    Parameters
    ----------
    cache:
        Its cache.
    since:
        When it began, by the clock of that storage, in nanoseconds.
    """
    with contextlib.suppress(OSError):
        fd = files.open_lock(os.path.join(cache, ".lock"))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in list(_temporaries(cache)):
                changed = os.lstat(path).st_ctime_ns
                if changed >= since or changed < since - _FORGOTTEN * 1_000_000_000:
                    files.remove_tree(path)
        finally:
            os.close(fd)


def _temporaries(cache: str) -> Iterator[str]:
    with os.scandir(cache) as entries:
        parts = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    for part in parts:
        if part.name.startswith(".tmp"):
            yield part.path
        elif part.name.startswith(("builds-", "sdists-", "wheels-", "archive-", "git-")):
            with os.scandir(part.path) as entries:
                yield from (entry.path for entry in entries if entry.name.startswith(".tmp"))
