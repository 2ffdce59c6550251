"""Stubs: the metadata of what is visible, without its files, in the stage where an installer looks.

An installer that is told to install into the stage takes them for installed packages. To make them takes six
writes for each package that there is, so that they are kept from one change to the next:
``ENV/.overlay/stubs`` is renamed into the stage and out of it again, and only those are made or removed that
differ.

None is taken on trust. A stub is used again if it is the same directory as when it was made, unchanged since,
and so is the metadata directory that it stands for. After a crash of the machine none is: they are not
flushed. Without ``stubs.json``, which tells all this, they are made anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Optional

from overlayspawner.payload import files, space
from overlayspawner.payload.dists import Dist
from overlayspawner.payload.overlay import Env

SCHEMA = 1
"""Version of ``stubs.json``."""

_MARK = "overlayspawner-stub"
_WHEEL = "Wheel-Version: 1.0\nGenerator: overlayspawner\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

TICK = 2_000_000_000
"""Nanoseconds within which a second change may leave a modification time as it is: the coarsest clock's."""

Mark = list[object]
"""Of a stub: inode, modification time (ns), number of files; of what it stands for: path, inode, time."""


class Stubs:
    """The stubs in one stage.

    Parameters
    ----------
    env:
        The env whose stage it is. The caller holds its lease.
    site:
        The stage's site-packages. It is empty.
    scratch:
        Where the stubs are kept, if not in the env. The caller sees to it that nobody else is there.
    """

    def __init__(self, env: Env, site: str, scratch: str = "") -> None:
        self.names: dict[str, str] = {}
        """Directory names to names of distributions, also of those that the installer took away."""
        self._env = env
        self._scratch = scratch
        self._shelf = os.path.join(scratch, "stubs") if scratch else space.stubs(env)
        self._site = site
        self._marks: dict[str, Mark] = {}
        self._told: dict[str, Mark] = {}
        self._taken = False

    def add(self, dists: Iterable[Dist]) -> None:
        """See :meth:`Stage.add_stubs <overlayspawner.payload.stage.Stage.add_stubs>`."""
        there = {} if self._taken else self._take()
        self._taken = True
        todo = []
        for dist in dists:
            folder = f"{dist.name.replace('-', '_')}-{dist.version}.dist-info"
            if folder in self.names:
                continue
            self.names[folder] = dist.name
            mark = there.get(folder)
            if mark is not None and mark[3:] == list(_source(dist) or ()):
                self._marks[folder] = there.pop(folder)
            else:
                todo.append((folder, dist))
        for folder in there:
            files.remove_tree(os.path.join(self._site, folder))
        for folder, dist in todo:
            self._make(folder, dist)

    def present(self) -> set[str]:
        """Return the directory names of the stubs that the installer left alone."""
        return {folder for folder in self.names if os.path.lexists(f"{self._site}/{folder}/{_MARK}")}

    def keep(self, *, thorough: bool = False) -> None:
        """Put what is left of them where the next stage finds it; best effort.

        The stage has no site-packages then.

        Parameters
        ----------
        thorough:
            The installer failed: it may have begun to take one away.
        """
        try:
            if not self._marks or not boot() or (not self._scratch and space.is_short(self._env)):
                return
            good, other = {}, []
            with os.scandir(self._site) as entries:
                for entry in entries:
                    mark = self._marks.get(entry.name)
                    if mark is not None and _same(entry, mark, thorough):
                        good[entry.name] = mark
                    else:
                        other.append(entry.path)
            for path in other:
                files.remove_tree(path)
            if good != self._told:
                data = {"schema": SCHEMA, "boot": boot(), "stubs": good}
                text = json.dumps(data, separators=(",", ":")) + "\n"
                files.write_atomic(self._list(), text, sync=False)
            if os.path.lexists(self._shelf):
                files.remove_tree(self._shelf)
            files.rename(self._site, self._shelf)
        except OSError:
            pass  # the next ones are made anew; what is in the stage goes with it

    def _list(self) -> str:
        return os.path.join(self._scratch or self._env.state, "stubs.json")

    def _take(self) -> dict[str, Mark]:
        """Rename the kept ones into the stage; return the marks of those that are as they were."""
        told = _read(self._list())
        try:
            if not told:
                raise FileNotFoundError
            files.rename(self._shelf, self._site)
        except OSError:
            files.remove_tree(self._shelf)
            return {}
        out, other = {}, []
        with os.scandir(self._site) as entries:
            for entry in entries:
                if entry.name in told and _same(entry, told[entry.name]):
                    out[entry.name] = told[entry.name]
                else:
                    other.append(entry.path)
        for path in other:
            files.remove_tree(path)
        self._told = told
        return out

    def _make(self, folder: str, dist: Dist) -> None:
        path = os.path.join(self._site, folder)
        files.remove_tree(path)  # one that is out of date
        source = _source(dist)
        if not files.mkdir(path):
            raise FileExistsError(17, "can't be removed", path)
        names = ["METADATA", _MARK, "RECORD"]
        files.link(dist.metadata_file(), f"{path}/METADATA")
        try:
            there = set(os.listdir(dist.path))
        except OSError:
            there = set()
        for name in ("INSTALLER", "WHEEL", "direct_url.json", "uv_cache.json"):
            if name in there:
                files.link(f"{dist.path}/{name}", f"{path}/{name}")
                names.append(name)
        if "WHEEL" not in names:
            files.write_plain(f"{path}/WHEEL", _WHEEL)
            names.append("WHEEL")
        files.link(dist.metadata_file(), f"{path}/{_MARK}")
        files.write_plain(f"{path}/RECORD", "".join(f"{folder}/{name},,\n" for name in names))
        info = os.stat(path)
        # what was changed a moment ago may change again without showing it
        if source is not None and source[2] < info.st_mtime_ns - TICK:
            self._marks[folder] = [info.st_ino, info.st_mtime_ns, len(names), *source]


def boot() -> str:
    """Return what tells this run of the machine from others; ``""`` where nothing does."""
    global _boot
    if _boot is None:
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
                _boot = f.read().strip()
        except (OSError, UnicodeDecodeError):
            _boot = ""
    return _boot


_boot: Optional[str] = None


def _source(dist: Dist) -> Optional[tuple[str, int, int]]:
    """Return the identity of a metadata directory: it changes with the names in it."""
    try:
        info = os.stat(dist.path)
    except OSError:
        return None
    return dist.path, info.st_ino, info.st_mtime_ns


def _same(entry: os.DirEntry[str], mark: Mark, thorough: bool = False) -> bool:
    """Whether a stub is the directory that was made, with the same names in it."""
    info = entry.stat(follow_symlinks=False)
    if not entry.is_dir(follow_symlinks=False) or [info.st_ino, info.st_mtime_ns] != mark[:2]:
        return False
    return not thorough or len(os.listdir(entry.path)) == mark[2]


def _read(path: str) -> dict[str, Mark]:
    """Return the marks of the stubs that are kept; none after the machine was started anew."""
    try:
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
        if data["schema"] != SCHEMA or not boot() or data["boot"] != boot():
            return {}
        return {name: mark for name, mark in data["stubs"].items() if len(mark) == 6}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
