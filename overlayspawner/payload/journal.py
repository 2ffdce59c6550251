"""The journal of a change: what is going to be done, for whoever comes after a crash.

One file for each env, ``ENV/.overlay/journal``, written in place, so that a change can be started on a disk
without a free byte or inode. What is written shows by itself whether it is whole::

    overlayspawner journal 2 open 1234 <SHA-256>      a line, padded with blanks to 128 bytes
    {"change": …}                                     1234 bytes of JSON
    …                                                 whatever was there

A journal that is torn was never followed: nothing is moved before it has been flushed. Version 1 was a file
``journal.json`` that came and went; one that is found is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from overlayspawner.payload import files
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.overlay import Env

ROOM = 32 * 1024
"""Bytes that are kept for it. A longer one takes space while it is needed."""

SCHEMA = 2

_NAME = "journal"
_OLD = "journal.json"
_HEAD = 128
_MAGIC = b"overlayspawner journal "


class Damaged(Exception):
    """What stands in the journal's place is none."""


def path(env: Env) -> str:
    """Return the journal's file."""
    return os.path.join(env.state, _NAME)


def make_room(env: Env) -> None:
    """Write an empty journal where there is none.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    if not os.path.lexists(path(env)):
        # random: file systems that compress would not keep room for zeros
        files.write_atomic(path(env), _head(b"none") + os.urandom(ROOM - _HEAD), 0o600)
        files.fsync_dir(env.state)


def write(env: Env, data: dict[str, Any]) -> None:
    """Say what is going to be done; durable on return.

    Raises
    ------
    OSError
        The storage can't be written to; there is no journal then.
    """
    raw = json.dumps({"schema": SCHEMA, **data}).encode("utf-8", "surrogateescape")
    make_room(env)
    state = b"open %d %s" % (len(raw), hashlib.sha256(raw).hexdigest().encode())
    files.overwrite(path(env), _head(state) + raw)


def read(env: Env) -> dict[str, Any] | None:
    """Return the journal of a change that is not finished, or ``None``.

    Raises
    ------
    Damaged
        Something that is no journal stands in its place.
    OverlayError
        ``busy``: a newer version wrote it.
    OSError
        It can't be read.
    """
    try:
        with open(path(env), "rb") as f:
            raw = f.read()
    except FileNotFoundError:
        raw = _head(b"none")
    except IsADirectoryError:
        raise Damaged from None
    head, body = raw[:_HEAD], raw[_HEAD:]
    if not head.startswith(_MAGIC):
        raise Damaged
    words = head[len(_MAGIC) :].split()
    if not words or not words[0].isdigit():
        raise Damaged
    if int(words[0]) > SCHEMA and words[1:2] != [b"none"]:
        raise _newer()
    if len(words) == 4 and words[1] == b"open" and words[2].isdigit():
        text = body[: int(words[2])]
        if hashlib.sha256(text).hexdigest().encode() == words[3]:
            return _checked(text)
    return _read_old(env)


def _read_old(env: Env) -> dict[str, Any] | None:
    try:
        with open(_old(env), "rb") as f:
            text = f.read()
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise Damaged from None
    return _checked(text)


def _checked(text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text.decode("utf-8", "surrogateescape"))
        newer = data["schema"] > SCHEMA
        whole = newer or (isinstance(data["steps"], list) and isinstance(data["change"], str))
    except (ValueError, KeyError, TypeError):
        raise Damaged from None
    if newer:
        raise _newer()
    if not whole:
        raise Damaged
    return dict(data)


def since(env: Env) -> int | None:
    """Return when the journal was written, in nanoseconds by the storage's clock; ``None`` without one."""
    for name in (_old(env), path(env)):
        try:
            return os.stat(name).st_mtime_ns
        except FileNotFoundError:
            continue
    return None


def clear(env: Env) -> None:
    """Say that there is nothing left to do; durable on return.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    if os.path.lexists(_old(env)):
        files.unlink(_old(env))
        files.fsync_dir(env.state)
    if os.path.lexists(path(env)):
        files.overwrite(path(env), _head(b"none"), size=ROOM)


def set_aside(env: Env) -> None:
    """Move what is no journal out of the way; it is kept.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    for name in (_old(env), path(env)):
        if os.path.lexists(name):
            files.rename(name, f"{name}.damaged-{os.urandom(4).hex()}")
    files.fsync_dir(env.state)


def _old(env: Env) -> str:
    return os.path.join(env.state, _OLD)


def _head(state: bytes) -> bytes:
    return (_MAGIC + b"%d " % SCHEMA + state).ljust(_HEAD - 1) + b"\n"


def _newer() -> OverlayError:
    return OverlayError(
        "busy",
        "A newer version of overlayspawner left a change unfinished here.",
        "Start a server with that version once.",
        status=409,
    )
