"""What the checks share: their answer's shape, one look at all files, moving aside what is damaged."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any, Callable, Optional

from overlayspawner.payload import files
from overlayspawner.payload.moves import KEPT, SET_ASIDE
from overlayspawner.payload.overlay import Env, Overlay

Check = dict[str, Any]
"""``{name, ok, message, hint}``."""

Say = Callable[[str], None]
"""Told what is being done, where it takes long."""

FIX = "Run: overlay doctor --fix"

SHOWN = 5
"""Items named in one message."""


def check(name: str, ok: bool, message: str, hint: str = "") -> Check:
    """Return a check's answer; a hint is for what is wrong only."""
    return {"name": name, "ok": ok, "message": message, "hint": "" if ok else hint}


def some(items: list[str]) -> str:
    """Return the first items as text, and how many more there are."""
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")


def aside(path: str) -> str:
    """Rename something that is damaged, beside itself; return its new path.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    new = f"{path}.damaged-{os.urandom(4).hex()}"
    files.rename(path, new)
    files.fsync_dir(os.path.dirname(path))
    return new


class Walk:
    """One look at everything in an overlay and its env, shared by the checks that need it.

    Parameters
    ----------
    overlay, env:
        What is looked at. What is set aside is left out: it is old by intention.
    say:
        Told every few thousand files how far it is.
    """

    def __init__(self, overlay: Overlay, env: Env, say: Optional[Say] = None) -> None:
        self.foreign: list[str] = []
        """Paths that belong to another user."""
        self.dangling: list[str] = []
        """Links in the env's packages that lead nowhere."""
        self.compiled: list[str] = []
        """Compiled modules."""
        self.newest = 0.0
        """The latest modification time of all."""
        self.count = 0
        me = os.geteuid()
        packages = env.site_packages + os.sep
        for path, info in _all(overlay, env):
            self.count += 1
            if say is not None and self.count % 20_000 == 0:
                say(f"{self.count:,} files looked at.")
            if info.st_uid != me:
                self.foreign.append(path)
            self.newest = max(self.newest, info.st_mtime)
            if path.endswith(".pyc"):
                self.compiled.append(path)
            elif stat.S_ISLNK(info.st_mode) and path.startswith(packages) and not os.path.exists(path):
                self.dangling.append(path)


def _all(overlay: Overlay, env: Env) -> Iterator[tuple[str, os.stat_result]]:
    """Every path of an overlay but other bases' envs, with its ``lstat``."""
    for path in (overlay.path, overlay.envs):
        try:
            yield path, os.lstat(path)
        except OSError:
            pass
    own = (
        os.path.join(overlay.path, name) for name in _names(overlay.path) if name not in ("envs", ".cache")
    )
    for top in [*own, env.path]:
        yield from _below(top, env)


def _below(top: str, env: Env) -> Iterator[tuple[str, os.stat_result]]:
    skip = {os.path.join(env.state, name) for name in (SET_ASIDE, KEPT)}
    todo = [top]
    while todo:
        path = todo.pop()
        try:
            info = os.lstat(path)
        except OSError:
            continue
        yield path, info
        if stat.S_ISDIR(info.st_mode) and path not in skip:
            todo.extend(os.path.join(path, name) for name in _names(path))


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
