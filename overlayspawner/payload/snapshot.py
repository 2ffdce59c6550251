"""What an env held after its last finished change, so that what others changed since can be told.

``ENV/.overlay/snapshot.json`` names each distribution with its version, the identity of its RECORD (inode,
modification time, size), and a few of its files: what is needed to tell a package that was uninstalled from
one whose metadata got lost. Comparing costs one directory listing and one ``stat`` for each distribution.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterable
from typing import Any, Optional

from overlayspawner.payload import files
from overlayspawner.payload.dists import Dist, listing, record
from overlayspawner.payload.once import Once, identity
from overlayspawner.payload.overlay import Env
from overlayspawner.payload.requirements import normalise

SCHEMA = 1
"""Version of the file's JSON."""

SAMPLES = 8
"""Files remembered of each distribution, spread over its RECORD."""

Snapshot = dict[str, dict[str, Any]]
"""Normalised name to ``{"version", "entry", "record", "files"}``: the name of the metadata directory,
``[inode, mtime in ns, size]`` of RECORD, and paths relative to site-packages. With ``"missing": True`` it was
there once and only some of its files are left; with ``"partial": True`` it is not completely installed."""


def path(env: Env) -> str:
    """Return the snapshot's file."""
    return os.path.join(env.state, "snapshot.json")


def take(env: Env, known: Optional[Snapshot] = None, *, only: Optional[Collection[str]] = None) -> Snapshot:
    """Return what the env holds now.

    Parameters
    ----------
    known:
        An earlier snapshot: RECORDs that are as they were are not opened again.
    only:
        Names; other distributions are not looked at.
    """
    out: Snapshot = {}
    for dist in listing(env.site_packages):
        if only is not None and dist.name not in only:
            continue
        mark = stamp(dist)
        old = (known or {}).get(dist.name)
        if old is not None and _same(old, dist, mark):
            out[dist.name] = old
        else:
            out[dist.name] = {
                "version": dist.version,
                "entry": dist.entry,
                "record": mark,
                "files": _samples(dist),
            }
    return out


def save(env: Env, *, moved: Optional[Iterable[str]] = None) -> Snapshot:
    """Write what the env holds now; return it.

    Parameters
    ----------
    moved:
        Paths (relative to the env) that a change of ours moved. Given, only the distributions whose metadata
        is among them are looked at anew; what another tool did meanwhile can still be told afterwards. Left
        out: everything.

    Raises
    ------
    OSError
        The storage can't be written to. The earlier snapshot stays.
    """
    data = _load(env)
    known = _content(data)
    old = known or {}
    if moved is not None:
        names = _names(moved)
        now = {name: item for name, item in old.items() if name not in names}
        now.update(take(env, known, only=names))
    else:
        now = take(env, known)
        now = {**{name: item for name, item in old.items() if item.get("missing")}, **now}
    write(env, now, adopted=_adopted(data))
    return now


def write(env: Env, content: Snapshot, *, adopted: Optional[str] = None) -> None:
    """Write a snapshot, whole or not at all; nothing is written when the file says the same already.

    Parameters
    ----------
    adopted:
        Name of the adoption that this snapshot ends; the last one when left out.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    mark = last_adoption(env) if adopted is None else adopted
    data = {"schema": SCHEMA, "adopted": mark, "dists": content}
    if _load(env) == data:
        return
    file = path(env)
    files.write_atomic(file, _text(data))
    _known.put(file, data)


def read(env: Env) -> Optional[Snapshot]:
    """Return the last snapshot; ``None`` when there is none, or none that can be read."""
    return _content(_load(env))


def last_adoption(env: Env) -> str:
    """Return the name of the last adoption that was finished, or ``""``."""
    return _adopted(_load(env))


def _text(data: dict[str, Any]) -> str:
    """Return a snapshot's JSON; what is the same object as last time is not turned into text again."""
    global _texts
    texts = {}
    for name, item in sorted(data["dists"].items()):
        told = _texts.get(name)
        texts[name] = told if told is not None and told[0] is item else (item, _json(item))
    _texts = texts
    dists = ",".join([f"{_json(name)}:{text}" for name, (_, text) in texts.items()])
    return f'{{"adopted":{_json(data["adopted"])},"dists":{{{dists}}},"schema":{data["schema"]}}}\n'


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


_texts: dict[str, tuple[dict[str, Any], str]] = {}
"""The entries of the snapshot that was written last, with their JSON."""

_known: Once[Any] = Once()


def _load(env: Env) -> Any:
    file = path(env)
    try:
        with open(file, encoding="utf-8") as f:
            return _known.get(file, identity(f.fileno()), lambda: json.load(f))
    except (OSError, ValueError, RecursionError):
        return None


def _content(data: Any) -> Optional[Snapshot]:
    try:
        if data["schema"] != SCHEMA:
            return None
        found = data["dists"]
        for item in found.values():
            ok = isinstance(item["version"], str) and isinstance(item["entry"], str)
            if not (ok and isinstance(item["record"], list) and isinstance(item["files"], list)):
                return None
        return dict(found)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _adopted(data: Any) -> str:
    return str(data.get("adopted") or "") if isinstance(data, dict) else ""


def differs(env: Env, known: Optional[Snapshot]) -> bool:
    """Whether the env holds something else than a snapshot says. Opens no file.

    Parameters
    ----------
    known:
        The snapshot; ``None`` stands for an empty one.
    """
    expected = {name: item for name, item in (known or {}).items() if not item.get("missing")}
    found = listing(env.site_packages)
    if len(found) != len(expected):
        return True
    # relative to the directory: a path from the root takes twice as long to look up
    folder = -1
    with contextlib.suppress(OSError):
        folder = os.open(env.site_packages, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for dist in found:
            old = expected.get(dist.name)
            if old is None or not _same(old, dist, stamp(dist, folder)):
                return True
        return False
    finally:
        if folder >= 0:
            os.close(folder)


def fingerprint(env: Env) -> tuple[object, ...]:
    """Return something that changes with what the env holds. Opens no file."""
    try:
        names = sorted(os.listdir(env.site_packages))
    except OSError:
        names = []
    return (*names, *((dist.name, *stamp(dist)) for dist in listing(env.site_packages)))


def stamp(dist: Dist, folder: int = -1) -> list[int]:
    """Return inode, modification time (ns) and size of a distribution's list of files; zeros without one.

    Parameters
    ----------
    folder:
        A descriptor of the directory that holds it; -1 where there is none.
    """
    if folder >= 0 and not dist.is_egg:
        try:
            info = os.stat(f"{dist.entry}/RECORD", dir_fd=folder)
            return [info.st_ino, info.st_mtime_ns, info.st_size]
        except OSError:
            pass
    for name in ("RECORD", "installed-files.txt", "PKG-INFO", ""):
        try:
            info = os.stat(f"{dist.path}/{name}" if name else dist.path)
        except OSError:
            if name == "RECORD" and not dist.is_egg:
                return [0, 0, 0]
            continue
        return [info.st_ino, info.st_mtime_ns, info.st_size]
    return [0, 0, 0]


def gone(env: Env, item: dict[str, Any]) -> bool:
    """Whether the files of a distribution have left with its metadata.

    Parameters
    ----------
    item:
        Its entry in a snapshot. One without files (it had nothing but metadata) counts as gone.
    """
    known = item["files"]
    there = sum(1 for rel in known if os.path.lexists(os.path.join(env.site_packages, str(rel))))
    # most, not all: two distributions may share a file
    return there * 4 <= len(known)


def _same(old: dict[str, Any], dist: Dist, mark: list[int]) -> bool:
    return old["entry"] == dist.entry and old["record"] == mark


def _samples(dist: Dist) -> list[str]:
    """A few of the files outside the metadata directory."""
    inside = os.path.basename(dist.path) + "/"
    found = [p for p, _ in record(dist) if not p.startswith(inside) and "__pycache__/" not in p]
    found = [p for p in found if not os.path.isabs(p) and "\0" not in p]
    if len(found) <= SAMPLES:
        return found
    step = (len(found) - 1) / (SAMPLES - 1)
    return [found[round(n * step)] for n in range(SAMPLES)]


def _names(moved: Iterable[str]) -> set[str]:
    """The distributions whose metadata is among paths."""
    out = set()
    for text in moved:
        for part in text.split("/"):
            stem, dot, end = part.rpartition(".")
            if dot and end in ("dist-info", "egg-info", "egg-link"):
                out.add(normalise(stem if end == "egg-link" else stem.split("-")[0]))
    return out
