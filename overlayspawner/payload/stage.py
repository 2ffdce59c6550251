"""Where a change is prepared: a prefix beside the env, filled with stubs of what is visible already.

A *stub* is the metadata of a distribution without its files. An installer that is told to install into the
stage sees the stubs and takes them for installed packages: what the base satisfies is not fetched again. What
is new afterwards is the change; a stub that the installer removed stands for a distribution that is replaced
or hidden.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import stat as stat_module
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from overlayspawner.payload import files
from overlayspawner.payload.change import STAGES
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, listing, record, record_rows
from overlayspawner.payload.moves import Tree
from overlayspawner.payload.overlay import BASE_PTH, Env
from overlayspawner.payload.probe import Base
from overlayspawner.payload.stubs import TICK, Stubs

# What belongs to the env itself; a package that brings one of these does not get its way.
_OWN_TOP = frozenset(
    {".lock", ".gitignore", ".overlay", "CACHEDIR.TAG", "lib64", "pip.conf", "pylock.toml", "pyvenv.cfg"}
)
_OWN_BIN = frozenset({"pip", "pip3", "python", "python3"})


@dataclass
class Staged:
    """What an installer left in a stage.

    Parameters
    ----------
    dists:
        The new distributions by name; their ``path`` is in the stage.
    removed:
        Names whose stubs are gone.
    tree:
        The files that go into the env.
    dropped:
        Paths that do not, because they belong to the env itself.
    """

    dists: dict[str, Dist] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    tree: Tree = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)

    def apart_from(self, base: Mapping[str, Dist]) -> dict[str, Dist]:
        """Return what is new without copies of the image's own: these are taken back by the change."""
        return {
            name: dist
            for name, dist in self.dists.items()
            if name not in base or base[name].version != dist.version
        }

    def files(self) -> list[tuple[str, int, int]]:
        """Return path, inode and size of each file."""
        out: list[tuple[str, int, int]] = []

        def collect(rel: str, tree: Tree) -> None:
            for name, node in tree.items():
                path = os.path.join(rel, name)
                if isinstance(node, dict):
                    collect(path, node)
                else:
                    out.append((path, *node))

        collect("", self.tree)
        return out


class Stage:
    """A stage of an env; a context manager that leaves nothing behind.

    Once its files have been committed the rest is removed as well.

    Parameters
    ----------
    env:
        The env that is to be changed. The caller holds its lease.
    make:
        Whether anything may come in. Where not, no directory is made: a full disk has no room for one.
    scratch:
        Directory outside the user's storage for a stage from which nothing is taken; no lease is needed then.
    """

    def __init__(self, env: Env, *, make: bool = True, scratch: str = "") -> None:
        self.env = env
        self.make = make
        self.name = STAGES + os.urandom(6).hex()
        self._scratch = scratch
        self.path = os.path.join(scratch or env.state, self.name)
        self.prefix = os.path.join(self.path, "prefix")
        self.site = Env(self.prefix, env.version).site_packages
        self.origins: dict[str, dict[str, Any]] = {}
        """Where new distributions came from, as far as the installer told: tables of PEP 751 by name."""
        self._stubs = Stubs(env, self.site, scratch)
        self._taken_back: set[str] = set()

    def __enter__(self) -> Stage:
        if not self.make:
            return self
        try:
            files.mkdir(self.path, 0o700)
            self._make_prefix()
        except BaseException:
            files.remove_tree(self.path)
            raise
        return self

    def _make_prefix(self) -> None:
        for path in (self.prefix, os.path.join(self.prefix, "lib"), os.path.dirname(self.site), self.site):
            files.mkdir(path)
        # Where platform packages go to lib64, they shall come to the same place.
        files.symlink("lib", os.path.join(self.prefix, "lib64"))

    def clear(self) -> None:
        """Make the prefix empty again, for another attempt."""
        self._stubs.keep(thorough=True)
        files.remove_tree(self.prefix)
        self._stubs = Stubs(self.env, self.site, self._scratch)
        self._taken_back.clear()
        self.origins.clear()
        self._make_prefix()

    def __exit__(self, kind: object, *exc: object) -> None:
        self._stubs.keep(thorough=kind is not None)
        files.remove_tree(self.path)

    @property
    def prefix_name(self) -> str:
        """The prefix relative to ``Env.state``; ``""`` where nothing comes in."""
        return f"{self.name}/prefix" if self.make else ""

    def write(self, name: str, text: str) -> str:
        """Write a file beside the prefix, readable by its owner only; return its path."""
        path = os.path.join(self.path, name)
        files.write_atomic(path, text, 0o600, sync=False)
        return path

    def add_stubs(self, dists: Iterable[Dist]) -> None:
        """Make a stub of each distribution.

        The directory is a real one (uv overlooks links to directories), its files are links: hard ones where
        that is possible, because they cost neither inode nor block. RECORD lists the stub's own files, so
        that an installer can "uninstall" it.
        """
        self._stubs.add(dists)

    def result(self) -> Staged:
        """Look at what the installer did.

        Raises
        ------
        OverlayError
            ``bad-package`` when a distribution is incomplete.
        """
        out = Staged()
        stubs = self._stubs.present()
        for dist in listing(self.site, without=stubs):
            if dist.path.endswith(".dist-info"):
                for name in ("METADATA", "RECORD"):
                    if not os.path.isfile(os.path.join(dist.path, name)):
                        raise OverlayError(
                            "bad-package",
                            f"{dist.name} {dist.version} came without its {name}; nothing was changed.",
                            "Try again; if it happens again, tell the package's authors.",
                        )
                if record_rows(dist) is None:
                    raise OverlayError(
                        "bad-package",
                        f"{dist.name} {dist.version} came with a damaged RECORD; nothing was changed.",
                        "Try again; if it happens again, tell the package's authors.",
                    )
            out.dists[dist.name] = dist
        out.removed = {name for folder, name in self._stubs.names.items() if folder not in stubs}
        lost = out.removed - set(out.dists) - self._taken_back
        if lost:
            raise OverlayError(
                "installer-failed",
                f"The installer took away {', '.join(sorted(lost))} and put nothing in its place.",
                status=500,
            )
        out.tree = self._tree("", out, stubs, os.path.relpath(self.site, self.prefix))
        return out

    def take_back(self, dist: Dist) -> None:
        """Remove a new distribution from the stage again, with its files."""
        self._taken_back.add(dist.name)
        for path, _ in record(dist):
            full = os.path.normpath(os.path.join(self.site, path))
            if full.startswith(self.prefix + os.sep):
                files.remove_tree(full)
        files.remove_tree(dist.path)

    def _tree(self, rel: str, out: Staged, stubs: set[str], site: str) -> Tree:
        tree: Tree = {}
        with os.scandir(os.path.join(self.prefix, rel) if rel else self.prefix) as entries:
            for entry in entries:
                path = f"{rel}/{entry.name}" if rel else entry.name
                if entry.name == "__pycache__" and entry.is_dir(follow_symlinks=False):
                    # Made again where it is needed; compiled from paths in the stage it would be wrong.
                    files.remove_tree(entry.path)
                elif self._is_own(rel, entry.name, site):
                    if entry.name not in _OWN_TOP:
                        out.dropped.append(path)
                elif rel == site and entry.name in stubs:
                    continue
                elif entry.is_dir(follow_symlinks=False):
                    below = self._tree(path, out, stubs, site)
                    if below:
                        tree[entry.name] = below
                else:
                    info = entry.stat(follow_symlinks=False)
                    tree[entry.name] = (info.st_ino, info.st_size)
        return tree

    def _is_own(self, rel: str, name: str, site: str) -> bool:
        if not rel:
            return name in _OWN_TOP
        if rel == "bin":
            return name in _OWN_BIN or name == "python" + self.env.version
        return rel == site and name == BASE_PTH

    def fix_scripts(self, base: Base) -> list[str]:
        """Make every script in the stage start with the env's Python; return the names of those changed.

        Tools name the interpreter that ran them, the stage's or the base's. RECORD follows.
        """
        folder = os.path.join(self.prefix, "bin")
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            return []
        changed: dict[str, bytes] = {}
        for name in names:
            path = os.path.join(folder, name)
            try:
                info = os.lstat(path)
                if not stat_module.S_ISREG(info.st_mode):
                    continue
                with open(path, "rb") as f:
                    head = f.read(2048)
                    if not head.startswith(b"#!"):
                        continue
                    fixed = fix_shebang(head + f.read(), self.env, base, self.prefix)
            except OSError:
                continue
            if fixed is not None:
                # a new file, not a change in place: the old one may be a hard link into a cache
                files.write_atomic(path, fixed, stat_module.S_IMODE(info.st_mode), sync=False)
                changed[name] = fixed
        if changed:
            self._update_records(changed)
        return list(changed)

    def _update_records(self, changed: dict[str, bytes]) -> None:
        back = os.path.relpath(os.path.join(self.prefix, "bin"), self.site)
        lines = {f"{back}/{name}": raw for name, raw in changed.items()}
        stubs = self._stubs.present()
        for dist in listing(self.site, without=stubs):
            known = record_rows(dist)
            if known is None or not any(row and row[0] in lines for row in known):
                continue
            rows = [record_row(row[0], lines[row[0]]) if row and row[0] in lines else row for row in known]
            out = io.StringIO()
            csv.writer(out, lineterminator="\n").writerows(rows)
            files.write_atomic(os.path.join(dist.path, "RECORD"), out.getvalue(), sync=False)


def record_row(path: str, raw: bytes) -> list[str]:
    """Return the row of RECORD for a file's content."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).rstrip(b"=").decode()
    return [path, f"sha256={digest}", str(len(raw))]


def shebang(python: str) -> bytes:
    """Return the first line(s) of a script for an interpreter.

    Linux cuts a ``#!`` line at 127 bytes (255 since 5.1) and at its first space; sh does not.
    """
    if len(python) + 3 <= 127 and " " not in python:
        return b"#!" + os.fsencode(python) + b"\n"
    quoted = python.replace('"', '\\"')
    return b"#!/bin/sh\n'''exec' \"" + os.fsencode(quoted) + b'" "$0" "$@"\n\' \'\'\'\n'


def fix_shebang(raw: bytes, env: Env, base: Base, prefix: str) -> bytes | None:
    """Return a script with the right interpreter, or ``None`` when it has it or is none of ours."""
    first, _, rest = raw.partition(b"\n")
    tail = b""
    if first.rstrip() == b"#!/bin/sh" and rest.startswith(b"'''exec' "):
        line, _, rest = rest.partition(b"\n")
        found = line[len(b"'''exec' ") :].split(b' "$0"')[0].strip().strip(b"\"'")
        rest = rest.partition(b"\n")[2]  # the line that closes the string
    else:
        found, _, tail = first[2:].strip().partition(b" ")
        if not os.path.isabs(found) and found:
            return None
        if b" " in tail or os.path.basename(found) == b"env":
            return None
    interpreter = os.fsdecode(found)
    folder = os.path.dirname(interpreter)
    if folder == env.bin or not os.path.basename(interpreter).startswith(("python", "pypy")):
        return None
    ours = {
        os.path.dirname(p) for p in (base.executable, base.interpreter, os.path.realpath(base.interpreter))
    }
    if folder not in ours and not interpreter.startswith(prefix + os.sep):
        return None
    if tail:
        return b"#!" + os.fsencode(env.python) + b" " + tail + b"\n" + rest
    return shebang(env.python) + rest


def name_of_url(url: str, dists: Iterable[Dist]) -> str:
    """Return the name of the distribution that came from a URL, as its ``direct_url.json`` tells."""
    bare = re.sub(r"^(?:git|hg|svn|bzr)\+", "", url).partition("#")[0]
    for dist in dists:
        try:
            data = json.loads(dist.read("direct_url.json") or "{}")
        except ValueError:
            continue
        told = str(data.get("url") or "")
        if told and (bare == told or bare.partition("@")[0] == told or bare.startswith(told + "@")):
            return dist.name
    return ""


def incomplete(dists: Iterable[Dist], *, thorough: bool = False) -> set[str]:
    """Return the names of distributions that no installer may take for installed.

    A tool that was interrupted leaves metadata without RECORD, or (uv, which writes it last) without
    INSTALLER; a stub of such a one would be called satisfied.

    Parameters
    ----------
    thorough:
        Look for each file that RECORD lists as well: takes longer the more there is.
    """
    out = set()
    for dist in dists:
        if dist.is_egg:
            continue
        if not _has_all(dist.path):
            out.add(dist.name)
        elif thorough:
            rows = record_rows(dist)
            if rows is None or not all(_there(dist, row[0]) for row in rows if row):
                out.add(dist.name)
    return out


_complete: dict[str, tuple[int, int]] = {}
"""Metadata directories that had all, by path: inode and modification time, which changes with the names."""


def _has_all(path: str) -> bool:
    try:
        info = os.stat(path)
    except OSError:
        return False
    mark = (info.st_ino, info.st_mtime_ns)
    if _complete.get(path) == mark:
        return True
    found = all(os.path.isfile(f"{path}/{name}") for name in ("METADATA", "RECORD", "INSTALLER"))
    # what was changed a moment ago may change again without showing it
    if found and info.st_mtime_ns < time.time_ns() - TICK:
        _complete[path] = mark
    return found


def _there(dist: Dist, path: str) -> bool:
    # compiled copies come and go
    return path.endswith(".pyc") or "\0" in path or os.path.lexists(os.path.join(dist.site, path))
