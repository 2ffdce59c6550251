"""What a power cut leaves: a model of a file system in which only what was flushed is sure to survive.

:func:`record` notes every call that writes; :class:`Disk` replays them. A cut after any of them leaves

- of a file that was not flushed since it was written: its content, nothing, or a part;
- of names (made, renamed, removed) in directories that were not flushed since: any selection that keeps the
  order within each directory, and with a name the directories it is in.

Renames are one step, as on every file system with a journal.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Union

from overlayspawner.payload import files


@dataclass
class File:
    """A file: what it held after which call, and when it was flushed."""

    inode: int
    mode: int
    versions: list[tuple[int, bytes]] = field(default_factory=list)
    flushed: list[int] = field(default_factory=list)

    def content(self, until: int) -> bytes:
        return next((raw for at, raw in reversed(self.versions) if at <= until), b"")

    def safe(self, until: int) -> bytes:
        last = max((at for at in self.flushed if at <= until), default=-1)
        return self.content(last) if last >= 0 else b""


@dataclass
class Link:
    """A symbolic link."""

    target: str


class Folder(dict[str, "Node"]):
    """A directory."""

    inode = 0


Node = Union[File, Link, Folder]


@dataclass
class Step:
    """A call that changed names."""

    at: int
    kind: str
    paths: tuple[str, ...]
    node: Node | None = None
    flushed: int | None = None
    """The call that made it durable."""

    def folders(self) -> set[str]:
        """Return the directories whose names it changed."""
        return {os.path.dirname(path) for path in self.paths}


class Recorder:
    """Stands in for :mod:`os` in :mod:`files`: does what it is told, and notes it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.now = 0
        self.steps: list[Step] = []
        self.start = _scan(root)
        self.live = _scan(root, self.start)
        self._fds: dict[int, tuple[str, File | None, int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    # -- names

    def _note(self, kind: str, *paths: str, node: Node | None = None) -> None:
        self.now += 1
        if all(path.startswith(self.root + os.sep) for path in paths):
            rel = tuple(path[len(self.root) + 1 :] for path in paths)
            step = Step(self.now, kind, rel, node)
            self.steps.append(step)
            assert _apply(self.live, step), step

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        os.mkdir(path, mode)
        folder = Folder()
        folder.inode = os.stat(path).st_ino
        self._note("mkdir", path, node=folder)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)
        self._note("remove", path)

    def unlink(self, path: str) -> None:
        os.unlink(path)
        self._note("remove", path)

    def rename(self, src: str, dst: str) -> None:
        os.rename(src, dst)
        self._note("rename", src, dst)

    def link(self, src: str, dst: str) -> None:
        os.link(src, dst)
        self._note("link", src, dst)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, path)
        self._note("make", path, node=Link(target))

    def adopt(self, path: str) -> None:
        """Take up a tree that others have written, and not flushed."""
        found = _scan(path)
        self._take(path, found)

    def _take(self, path: str, node: Node) -> None:
        if isinstance(node, Folder):
            fresh = Folder()
            fresh.inode = node.inode
            self._note("mkdir", path, node=fresh)
            for name, below in node.items():
                self._take(os.path.join(path, name), below)
        else:
            if isinstance(node, File):
                raw = node.versions[0][1]
                node.versions, node.flushed = [(self.now + 1, raw)], []
            self._note("make", path, node=node)

    # -- contents

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        there = os.path.lexists(path)
        fd = os.open(path, flags, mode)
        inside = path.startswith(self.root + os.sep) or path == self.root
        if inside:
            node = None
            if os.path.isfile(path):
                if not there:
                    node = File(os.fstat(fd).st_ino, os.fstat(fd).st_mode)
                    self._note("make", path, node=node)
                found = _find(self.live, path[len(self.root) + 1 :])
                node = found if isinstance(found, File) else None
            self._fds[fd] = (path, node, 0)
        return fd

    def close(self, fd: int) -> None:
        self._fds.pop(fd, None)
        os.close(fd)

    def write(self, fd: int, raw: bytes) -> int:
        path, node, at = self._fds.get(fd, ("", None, 0))
        done = os.write(fd, raw)
        if node is not None:
            self._put(node, at, bytes(raw[:done]))
            self._fds[fd] = (path, node, at + done)
        return done

    def pwrite(self, fd: int, raw: bytes, at: int) -> int:
        done = os.pwrite(fd, raw, at)
        node = self._fds[fd][1]
        assert node is not None
        self._put(node, at, bytes(raw[:done]))
        return done

    def _put(self, node: File, at: int, raw: bytes) -> None:
        self.now += 1
        old = node.content(self.now)
        node.versions.append((self.now, old[:at].ljust(at, b"\0") + raw + old[at + len(raw) :]))

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)
        node = self._fds[fd][1]
        assert node is not None
        self.now += 1
        node.versions.append((self.now, node.content(self.now)[:size]))

    def fsync(self, fd: int) -> None:
        os.fsync(fd)
        path, node, _ = self._fds.get(fd, ("", None, 0))
        self.now += 1
        if node is not None:
            node.flushed.append(self.now)
        elif path:
            rel = path[len(self.root) + 1 :]
            for step in self.steps:
                if step.flushed is None and rel in step.folders():
                    step.flushed = self.now

    def sync_all(self, path: str) -> bool:
        """Take all that was written until now as flushed (``syncfs``)."""
        self.now += 1
        for node in _files(self.live):
            node.flushed.append(self.now)
        for step in self.steps:
            step.flushed = step.flushed or self.now
        return True


def _files(tree: Folder) -> Iterator[File]:
    for node in tree.values():
        if isinstance(node, File):
            yield node
        elif isinstance(node, Folder):
            yield from _files(node)


def _scan(path: str, like: Node | None = None) -> Folder:
    """Read a tree; files are shared with ``like``, so that both know the same objects."""
    out = Folder()
    out.inode = os.stat(path).st_ino
    for name in sorted(os.listdir(path)):
        full = os.path.join(path, name)
        known = like.get(name) if isinstance(like, Folder) else None
        if os.path.islink(full):
            out[name] = Link(os.readlink(full))
        elif os.path.isdir(full):
            out[name] = _scan(full, known)
        elif isinstance(known, File):
            out[name] = known
        else:
            with open(full, "rb") as f:
                info = os.stat(full)
                out[name] = File(info.st_ino, info.st_mode, [(0, f.read())], [0])
    return out


def _find(tree: Folder, path: str) -> Node | None:
    node: Node | None = tree
    for part in path.split("/") if path else []:
        node = node.get(part) if isinstance(node, Folder) else None
    return node


def _apply(tree: Folder, step: Step) -> bool:
    """Do a step in a tree; return whether what it needs is there."""
    parents = [_find(tree, os.path.dirname(path)) for path in step.paths]
    if not all(isinstance(parent, Folder) for parent in parents):
        return False
    names = [os.path.basename(path) for path in step.paths]
    first = parents[0]
    assert isinstance(first, Folder)
    if step.kind == "mkdir":
        assert isinstance(step.node, Folder)
        fresh = Folder()
        fresh.inode = step.node.inode
        first.setdefault(names[0], fresh)
        return True
    if step.kind == "make":
        assert step.node is not None
        first[names[0]] = step.node
        return True
    if names[0] not in first:
        return False
    if step.kind == "remove":
        del first[names[0]]
        return True
    last = parents[1]
    assert isinstance(last, Folder)
    node = first[names[0]]
    if step.kind == "rename":
        del first[names[0]]
    last[names[1]] = node
    return True


class Disk:
    """The states in which a power cut may leave what was recorded."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    @property
    def length(self) -> int:
        """How many calls there were."""
        return self.recorder.now

    def cut(self, at: int, where: str, chance: random.Random | None, keep: float = 0.5) -> dict[int, int]:
        """Write what is there after a cut into a directory; return the new inodes of the old ones.

        Parameters
        ----------
        at:
            After which call.
        chance:
            Decides about what was not flushed; all of it is lost when ``None``.
        keep:
            How likely each survives.
        """
        tree = _copy(self.recorder.start)
        done = [step for step in self.recorder.steps if step.at <= at]
        needed: set[str] = set()
        survives = []
        for step in reversed(done):
            safe = step.flushed is not None and step.flushed <= at
            makes = step.kind in ("mkdir", "rename") and _holds(step.paths[-1], needed)
            if safe or makes or step.folders() & needed or (chance is not None and chance.random() < keep):
                survives.append(step)
                needed |= step.folders()
        for step in reversed(survives):
            assert _apply(tree, step), step
        inodes: dict[int, int] = {}
        _build(tree, where, at, chance, keep, inodes, {})
        return inodes


def _holds(path: str, folders: set[str]) -> bool:
    """Whether a directory is one of some, or above one."""
    return any(folder == path or folder.startswith(path + "/") for folder in folders)


def _copy(tree: Folder) -> Folder:
    out = Folder()
    out.inode = tree.inode
    for name, node in tree.items():
        out[name] = _copy(node) if isinstance(node, Folder) else node
    return out


def _build(
    tree: Folder,
    where: str,
    at: int,
    chance: random.Random | None,
    keep: float,
    inodes: dict[int, int],
    made: dict[int, str],
) -> None:
    os.mkdir(where)
    inodes[tree.inode] = os.stat(where).st_ino
    for name, node in tree.items():
        path = os.path.join(where, name)
        if isinstance(node, Folder):
            _build(node, path, at, chance, keep, inodes, made)
        elif isinstance(node, Link):
            os.symlink(node.target, path)
        elif id(node) in made:
            os.link(made[id(node)], path)
        else:
            raw, safe = node.content(at), node.safe(at)
            if raw != safe and (chance is None or chance.random() >= keep):
                torn = chance is not None and chance.random() < 0.5
                n = chance.randrange(len(raw) + 1) if torn and chance else 0
                raw = raw[:n] + safe[n:]
            with open(path, "wb") as f:
                f.write(raw)
            os.chmod(path, node.mode & 0o777)
            inodes[node.inode] = os.stat(path).st_ino
            made[id(node)] = path


@contextmanager
def record(root: str) -> Iterator[Recorder]:
    """Note what is written below a directory, through the one door."""
    recorder = Recorder(root)
    real, sync_all = files.os, files._sync_all
    files.os = recorder  # type: ignore[assignment]
    files._sync_all = recorder.sync_all
    try:
        yield recorder
    finally:
        files.os = real
        files._sync_all = sync_all
