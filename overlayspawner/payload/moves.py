"""Which renames take an env from what it is to what it should be, and back. Only reads.

New directories go in whole and old ones go out whole where nothing else is in them, so that the number of
renames follows the number of packages rather than of files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Union

from overlayspawner.payload.dists import Dist, record
from overlayspawner.payload.overlay import Env

SET_ASIDE = "set-aside"
"""In ``Env.state``: files that changes replaced or removed, until they are too old to be undone."""

KEPT = "kept"
"""In ``Env.state``: files in the way of a change that no package owned. Never deleted by us."""

Tree = dict[str, Union["Tree", tuple[int, int]]]
"""Files below a directory: name → tree of a directory, or (inode, size) of a file."""


@dataclass
class Ops:
    """The renames of a change, in order.

    Parameters
    ----------
    steps:
        ``("out", path, place)`` moves a path of the env to a place in ``Env.state``;
        ``("in", path, place)`` moves a place in ``Env.state`` into the env, or the same path of the stage
        when it is ``""``; ``("dir", path, "")`` makes a directory.
    in_the_way:
        Paths that were there and belonged to no package that the change replaces.
    modules:
        ``.py`` files moved one by one, whose compiled copies must go.
    bytes_out:
        Bytes of the files that are set aside.
    """

    steps: list[tuple[str, str, str]] = field(default_factory=list)
    in_the_way: list[str] = field(default_factory=list)
    modules: set[str] = field(default_factory=set)
    bytes_out: int = 0


def tree_of(paths: Iterable[str]) -> Tree:
    """Arrange relative file paths as a tree, without ``__pycache__``: that can be made again."""
    root: Tree = {}
    for path in paths:
        parts = path.split("/")
        if "__pycache__" in parts:
            continue
        node = root
        for part in parts[:-1]:
            below = node.setdefault(part, {})
            if not isinstance(below, dict):
                break
            node = below
        else:
            node.setdefault(parts[-1], (0, 0))
    return root


def plan_ops(
    env: Env, staged: Tree, removed: Tree, place: str, sources: Mapping[str, str] | None = None
) -> Ops:
    """Work out the renames that take an env from what it is to what it should be. Changes nothing.

    Parameters
    ----------
    staged:
        What comes in.
    removed:
        The files of distributions that are replaced or removed.
    place:
        Name of this change's directory in ``set-aside`` and ``kept``.
    sources:
        Where that what comes in is, when it is not in a stage: path in the env → place in ``Env.state``.
    """
    site = os.path.relpath(env.site_packages, env.path)
    fixed = {"", "bin", "lib", os.path.dirname(site), site}
    outs: list[str] = []
    ops = Ops()
    _outs(env.path, "", removed, fixed, outs, ops)
    gone = dict.fromkeys(outs)
    numbers = iter(range(1, 1 << 31))

    def out(path: str, folder: str = SET_ASIDE) -> None:
        gone.pop(path, None)
        ops.steps.append(("out", path, f"{folder}/{place}/{next(numbers)}"))

    def enter(rel: str, tree: Tree, taken: set[str], above: str, fresh: bool) -> None:
        for name, node in sorted(tree.items()):
            path = os.path.join(rel, name)
            full = os.path.join(env.path, path)
            source = f"{above}/{name}" if above else ""
            if sources is not None:
                source = sources.get(path, source)
            if fresh:
                pass
            elif path in taken:
                out(path)
            elif os.path.lexists(full):
                if isinstance(node, dict) and os.path.isdir(full) and not os.path.islink(full):
                    enter(path, node, taken, source, False)
                    continue
                for below in [p for p in gone if p.startswith(path + "/")]:
                    out(below)
                ops.in_the_way.append(path)
                out(path, KEPT)
            if sources is None or source:
                ops.steps.append(("in", path, source))
                # what was taken out of a directory before it was itself
                inside = sorted(p for p in sources or () if p.startswith(path + "/"))
                ops.steps += [("in", p, sources[p]) for p in inside if sources]
            elif isinstance(node, dict):
                # what comes in was set aside piece by piece, and the directory has gone since
                ops.steps.append(("dir", path, ""))
                enter(path, node, taken, "", True)

    enter("", staged, set(outs), "", False)
    for path in list(gone):
        out(path)
    ops.modules = {path for _, path, _ in ops.steps if path.endswith(".py")}
    return ops


def _outs(root: str, rel: str, tree: Tree, fixed: set[str], outs: list[str], ops: Ops) -> bool:
    """Collect the paths to move out below ``rel``; return whether the directory can go as a whole."""
    try:
        present = set(os.listdir(os.path.join(root, rel)))
    except OSError:
        return False
    whole = rel not in fixed
    mine: list[str] = []
    for name in sorted(present):
        node = tree.get(name)
        if node is None and not whole and name != "__pycache__":
            continue
        path = os.path.join(rel, name)
        full = os.path.join(root, path)
        try:
            info = os.lstat(full)
        except FileNotFoundError:
            continue
        is_dir = stat.S_ISDIR(info.st_mode)
        if node is None:
            if name == "__pycache__" and is_dir:
                stays = {n for n in present if n.endswith(".py") and not isinstance(tree.get(n), tuple)}
                whole = _stale(full, stays) and whole
            else:
                whole = False
        elif isinstance(node, dict):
            whole = is_dir and _outs(root, path, node, fixed, mine, ops) and whole
        elif is_dir:
            whole = False
        else:
            ops.bytes_out += info.st_size
            mine.append(path)
    if whole and mine:
        outs.append(rel)
        return True
    outs.extend(mine)
    return False


class Brought:
    """Tells the files that a change brought from those that someone else wrote at their paths since.

    Inodes alone don't: tools write into directories that are there, file systems give a freed inode away
    again, and two installations out of uv's cache are links to one file. So what a distribution lists that
    came after the journal is its own.

    Parameters
    ----------
    placed:
        Relative path, inode and size of each file of the change.
    since:
        When its journal was written, in nanoseconds by the storage's clock.
    """

    def __init__(self, env: Env, placed: Iterable[tuple[str, int, int]], since: int) -> None:
        self._root = env.path
        self._known = {path: (inode, size) for path, inode, size in placed}
        site = os.path.relpath(env.site_packages, env.path)
        self._theirs: set[str] = set()
        # not listing(): the old version's metadata may stand there too, and it gives one of a name
        for name in os.listdir(env.site_packages):
            path = os.path.join(site, name, "RECORD")
            try:
                info = os.lstat(os.path.join(env.path, path))
            except OSError:
                continue
            if info.st_ctime_ns > since and (info.st_ino, info.st_size) != self._known.get(path):
                dist = Dist(name, "", os.path.join(env.site_packages, name), env.site_packages)
                self._theirs.update(os.path.normpath(os.path.join(site, row)) for row, _ in record(dist))

    def has(self, path: str) -> bool:
        """Whether a path of the env is a file of the change."""
        try:
            info = os.lstat(os.path.join(self._root, path))
        except OSError:
            return False
        return path not in self._theirs and self._known.get(path) == (info.st_ino, info.st_size)

    def parts(self, path: str) -> tuple[list[str], bool]:
        """Return the files of the change at or below a path, and whether nothing else is there.

        Compiled copies count as nothing.
        """
        full = os.path.join(self._root, path)
        if os.path.islink(full) or not os.path.isdir(full):
            return ([path], True) if self.has(path) else ([], False)
        mine: list[str] = []
        whole = True
        for name in sorted(os.listdir(full)):
            if name == "__pycache__":
                whole = _stale(os.path.join(full, name), set()) and whole
                continue
            below, all_of_it = self.parts(os.path.join(path, name))
            mine += below
            whole = whole and all_of_it
        return mine, whole


def _stale(pycache: str, modules: set[str]) -> bool:
    """Whether a ``__pycache__`` holds nothing but compiled copies of modules other than ``modules``."""
    try:
        names = os.listdir(pycache)
    except OSError:
        return False
    return all(n.endswith(".pyc") and n.split(".")[0] + ".py" not in modules for n in names)
