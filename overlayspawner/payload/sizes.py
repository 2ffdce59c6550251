"""How much is where: measured when nobody waits for it, told from a small file.

What is freed by deleting a tree are the files of which no other link is left, in the blocks that they take:
uv's cache and an env share files, and a link that remains keeps all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from overlayspawner.payload import files
from overlayspawner.payload.contract import OverlayError

if TYPE_CHECKING:
    from overlayspawner.payload.context import Context
    from overlayspawner.payload.procs import Cancel

FILE = "sizes.json"
BLOCK = 512
"""Bytes of the unit in which ``st_blocks`` counts, whatever the file system's own is (POSIX)."""


class Frees:
    """Counts what deleting some trees would free.

    Parameters
    ----------
    cancel:
        Asked whether to stop.
    """

    def __init__(self, cancel: Optional[Cancel] = None) -> None:
        self.bytes = 0
        self._seen = 0
        self._links: dict[tuple[int, int], int] = {}
        self._cancel = cancel

    def add(self, path: str) -> None:
        """Count a file or a tree; links are not followed.

        Raises
        ------
        OverlayError
            ``cancelled``.
        """
        todo = [path]
        while todo:
            self._seen += 1
            if self._cancel is not None and self._seen % 500 == 0:
                time.sleep(0.005)  # a server has other things to do: it gets a turn now and then
            if self._cancel is not None and self._cancel.is_set():
                raise OverlayError("cancelled", "It was cancelled. Nothing was changed.", status=409)
            here = todo.pop()
            try:
                info = os.lstat(here)
            except OSError:
                continue
            if os.path.isdir(here) and not os.path.islink(here):
                self.bytes += info.st_blocks * BLOCK
                with contextlib.suppress(OSError):
                    todo += [entry.path for entry in os.scandir(here)]
                continue
            key = (info.st_dev, info.st_ino)
            if info.st_nlink > 1:
                self._links[key] = self._links.get(key, 0) + 1
                if self._links[key] < info.st_nlink:
                    continue
            self.bytes += info.st_blocks * BLOCK


def tree(path: str) -> int:
    """Return the bytes that deleting one tree would free."""
    frees = Frees()
    frees.add(path)
    return frees.bytes


def _path(ctx: Context) -> str:
    _, env = ctx.require()
    return os.path.join(env.state, FILE)


def save(ctx: Context, items: Sequence[dict[str, Any]]) -> None:
    """Keep what was measured. Never fails: on a full disk there is none."""
    data = {"measured": int(time.time()), "items": list(items)}
    with contextlib.suppress(OSError, OverlayError):
        files.write_atomic(_path(ctx), json.dumps(data) + "\n", sync=False)


def forget(ctx: Context) -> None:
    """What was measured holds no more."""
    with contextlib.suppress(OverlayError):
        files.discard(_path(ctx))


def last(ctx: Context) -> dict[str, Any]:
    """Return what was measured last: ``{measured, items}``; ``measured`` is ``None`` where nothing was."""
    try:
        with open(_path(ctx), encoding="utf-8") as f:
            data = json.load(f)
        items = [
            {
                "what": str(item["what"]),
                "name": str(item["name"]),
                "bytes": int(item["bytes"]),
                "later": int(item["later"]),
                "why": str(item["why"]),
            }
            for item in data["items"]
        ]
        return {"measured": int(data["measured"]), "items": items}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverlayError):
        return {"measured": None, "items": []}


def by_kind(ctx: Context) -> dict[str, Optional[int]]:
    """Return the sum of what was measured last for each kind that takes space; ``None`` where nothing was."""
    known = last(ctx)
    out: dict[str, Optional[int]] = {}
    for field, kind in (("cache", "cache"), ("undo", "undo"), ("other_envs", "envs"), ("kept", "kept")):
        sizes = [item["bytes"] for item in known["items"] if item["what"] == kind]
        out[field] = sum(sizes) if known["measured"] is not None else None
    return out
