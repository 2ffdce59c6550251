"""Removes the runtime dirs of ended servers on a machine that is no container: they would gather in ``/tmp``.

A running server holds a lock on a file in its runtime dir. One that died while it started has none; such a
directory is in nobody's environment, and nobody of that user is starting.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress

from overlayspawner.hub import processes
from overlayspawner.payload.contract import RUNTIME_LOCK, RUNTIME_PREFIX, SPEC_ENV

_PLACES = ("/tmp", "/dev/shm", "/var/tmp")  # noqa: S108
_PATIENCE = 20.0  # seconds that removing may take: they may hold whatever the user has put there
_AT_ONCE = 100


def places(environ: Mapping[str, object]) -> list[str]:
    """Return where servers with this environment make their runtime dirs."""
    named = [str(environ.get(name) or "") for name in ("XDG_RUNTIME_DIR", "TMPDIR")]
    return list(dict.fromkeys(p for p in (*named, *_PLACES) if os.path.isabs(p)))


def dead(uid: int, parents: Iterable[str]) -> list[str]:
    """Return the runtime dirs of a user that no server uses. Blocks."""
    unlocked, unknown = [], []
    for path in _of(uid, parents):
        state = _lock_state(path)
        if state == "free":
            unlocked.append(path)
        elif state == "none":
            unknown.append(path)
    if unknown and os.path.isdir("/proc/self"):
        # looked at after the directories: whoever makes one has the spec in its environment before that
        environments = processes.environments(uid)
        if not any(f"{SPEC_ENV}=".encode() in text for text in environments):
            unlocked += [p for p in unknown if not any(os.fsencode(p) in text for text in environments)]
    return unlocked[:_AT_ONCE]


def _of(uid: int, parents: Iterable[str]) -> list[str]:
    found = []
    for parent in parents:
        with suppress(OSError), os.scandir(parent) as entries:
            for entry in entries:
                if not entry.name.startswith(RUNTIME_PREFIX):
                    continue
                with suppress(OSError):
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode) and info.st_uid == uid:
                        found.append(entry.path)
    return found


def _lock_state(path: str) -> str:
    """Return ``free``, ``held``, or ``none`` where nothing can be locked."""
    # it may be anything that a user can make: never wait for it, never follow it
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(os.path.join(path, RUNTIME_LOCK), flags)
    except FileNotFoundError:
        return "none"
    except OSError:
        return "held"
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return "held"
    finally:
        os.close(fd)
    return "free"


async def remove_dead(uid: int, groups: list[int], parents: Iterable[str]) -> list[str]:
    """Remove a user's runtime dirs that no server uses, with that user's rights; return them. Never raises.

    Parameters
    ----------
    uid, groups:
        Whose; the first group is the user's own.
    parents:
        Where to look, see :func:`places`.
    """
    found = await asyncio.to_thread(dead, uid, list(parents))
    rm = shutil.which("rm", path="/bin:/usr/bin")
    if not found or not rm:
        return []
    as_user = {} if uid == os.geteuid() else {"user": uid, "group": groups[0], "extra_groups": groups}
    try:
        # Not by the hub itself, which would be root: the content is the user's, and so may change meanwhile.
        process = await asyncio.create_subprocess_exec(
            rm,
            "-rf",
            "--",
            *found,
            cwd="/",
            env={},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            **as_user,  # type: ignore[arg-type]
        )
    except (OSError, ValueError):
        return []
    try:
        await asyncio.wait_for(process.wait(), _PATIENCE)
    except asyncio.TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
    return found
