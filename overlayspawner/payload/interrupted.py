"""What a server was doing when it stopped: noted while a job runs, told at the next start.

While a job runs there is a small file in the env's state that this server holds locked. One that nobody holds
belongs to a server that is gone. Whether its change was made is seen in the revisions, once whoever comes
next has repaired. Nothing here ever makes a job fail: without a file less is told.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from overlayspawner.payload import files, links, revisions
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError, notice
from overlayspawner.payload.overlay import Env
from overlayspawner.payload.procs import redact

_NAME = re.compile(r"job-([0-9a-f]{1,64})\.json")

_FIELDS = ("id", "action", "who", "created", "started")

MAX_FILES = 20
"""Files that are looked at."""

AGAIN = "Ask for it again."

_DOING = {
    "install": "Installing",
    "uninstall": "Removing",
    "upgrade": "Upgrading",
    "sync": "Bringing the packages to what requirements.txt says",
    "restore": "Installing your packages again",
    "undo": "Undoing a change",
    "reset": "Starting over",
    "import": "Importing packages",
}


class Record:
    """The file about one running job.

    Use :func:`begin`.
    """

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd

    def end(self, *, keep: bool = False) -> None:
        """Remove it, or leave it to be told of at the next start. Never raises."""
        if not keep:
            with contextlib.suppress(OSError):
                files.unlink(self._path)
        with contextlib.suppress(OSError):
            os.close(self._fd)


def begin(ctx: Context, job: Mapping[str, Any]) -> Optional[Record]:
    """Note that a job begins; ``None`` where that can't be noted (a full disk, for example). Never raises.

    Parameters
    ----------
    job:
        ``id``, ``action``, ``who``, ``created``, ``started`` and ``request``; credentials are left out.
    """
    if ctx.overlay is None or ctx.env is None:
        return None
    temporary = ""
    fd = -1
    try:
        links.refuse(links.of_env(ctx.env))
        files.mkdir(ctx.env.state)
        data = {key: job.get(key) for key in _FIELDS}
        data["request"] = _shown(job.get("request") or {})
        data["first"] = revisions.next_id(ctx.overlay)
        path = os.path.join(ctx.env.state, f"job-{job['id']}.json")
        temporary = files.write_temp(path, json.dumps(data) + "\n", sync=False)
        fd = files.open_lock(temporary)
        # held before it has its name; where files can't be locked the lease tells who is at work
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        files.rename(temporary, path)
        return Record(path, fd)
    except (OSError, OverlayError, ValueError, TypeError):
        if fd >= 0:
            os.close(fd)
        if temporary:
            with contextlib.suppress(OSError):
                files.unlink(temporary)
        return None


def _shown(request: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in request.items():
        if isinstance(value, list):
            out[key] = [redact(str(item)) for item in value]
        else:
            out[key] = redact(value) if isinstance(value, str) else value
    return out


def found(ctx: Context) -> list[dict[str, Any]]:
    """Return the jobs that were interrupted, oldest first: what :func:`begin` noted, and ``outcome``.

    The outcome is ``unchanged``, ``completed``, or ``open`` while nobody has repaired what it left. Changes
    nothing and never raises.
    """
    out = []
    if ctx.overlay is None or ctx.env is None:
        return []
    for path in _paths(ctx.env):
        data = _left(path, ctx.env)
        if data is not None:
            data["outcome"] = _outcome(ctx, data)
            out.append(data)
    return sorted(out, key=lambda data: str(data.get("started") or data.get("created")))


def _paths(env: Env) -> Iterator[str]:
    try:
        names = [name for name in os.listdir(env.state) if _NAME.fullmatch(name)]
    except OSError:
        return
    for name in sorted(names)[:MAX_FILES]:
        yield os.path.join(env.state, name)


def _left(path: str, env: Env) -> Optional[dict[str, Any]]:
    """Return what a file says if whoever wrote it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError:  # this storage can't lock
            from overlayspawner.payload.lease import holder

            if holder(env) is not None:
                return None
        data = json.loads(os.read(fd, 1_000_000))
    except (OSError, ValueError):
        data = {}
    finally:
        os.close(fd)
    if not isinstance(data, dict) or not isinstance(data.get("action"), str):
        return None
    data["id"] = _NAME.fullmatch(os.path.basename(path))[1]  # type: ignore[index]
    data["request"] = data["request"] if isinstance(data.get("request"), dict) else {}
    return data


def _outcome(ctx: Context, data: Mapping[str, Any]) -> str:
    from overlayspawner.payload.change import pending
    from overlayspawner.payload.mark import is_of

    assert ctx.overlay is not None and ctx.env is not None
    first = data.get("first")
    for revision in revisions.list_revisions(ctx.overlay, limit=50):
        if not isinstance(first, int) or revision.get("id", 0) < first:
            break
        same = (revision.get("action"), revision.get("who")) == (data["action"], data.get("who"))
        if same and is_of(revision, ctx.env):
            return "completed"
    return "open" if pending(ctx.env) else "unchanged"


def sentence(data: Mapping[str, Any]) -> str:
    """Return what happened to an interrupted job, for people."""
    doing = _DOING.get(data["action"], "A change")
    request = data["request"]
    words = [
        *(request.get("install") or ()),
        *(request.get("uninstall") or ()),
        *(request.get("upgrade") or ()),
    ]
    some = ", ".join(str(word)[:100] for word in words[:5]) + (
        f" and {len(words) - 5} more" if words[5:] else ""
    )
    what = f"{doing} {some}" if some and data["action"] in ("install", "uninstall", "upgrade") else doing
    end = {
        "completed": ", but it had been completed",
        "open": ", and what was begun is still to be cleared up",
    }.get(data["outcome"], "; nothing was changed")
    return f"{what} was interrupted when the server stopped{end}."


def hint(data: Mapping[str, Any]) -> str:
    """Return what to do about it."""
    return "There is nothing to do." if data["outcome"] == "completed" else AGAIN


def notices(ctx: Context) -> list[dict[str, str]]:
    """Return the notices about interrupted jobs. Changes nothing."""
    return [notice("interrupted", sentence(data), hint(data)) for data in found(ctx)]


def forget(ctx: Context, ident: str = "") -> None:
    """Tell no more of an interrupted job, or of all of them. Never raises.

    Parameters
    ----------
    ident:
        Its id; all when empty.
    """
    if ctx.env is None:
        return
    for path in _paths(ctx.env):
        if (not ident or path.endswith(f"job-{ident}.json")) and _left(path, ctx.env) is not None:
            with contextlib.suppress(OSError):
                files.unlink(path)
