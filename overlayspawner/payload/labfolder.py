"""The extensions for JupyterLab that lie in an env: found without walking it, and copied.

Copies, not links: no page waits for the user's storage then, nothing that changes there meanwhile can break
one, and no link of a package leads a page, whose files anybody may ask for, out of the overlay.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Optional

from overlayspawner.payload import files
from overlayspawner.payload.dists import Dist, overlay_dists
from overlayspawner.payload.labextensions import MAX_PACKAGE_JSON
from overlayspawner.payload.overlay import Env
from overlayspawner.payload.requirements import normalise

FOLDER = ("share", "jupyter", "labextensions")

MAX_FOUND = 400
"""Extensions that are looked at."""

MAX_BYTES = 128 << 20
"""Bytes that one extension may have."""

MAX_FILES = 5000
"""Files that one extension may have."""

MAX_SCHEMA = 1 << 20
"""Bytes of a schema of settings."""

_DEEP = 12
_SERVER_CONFIG = "etc/jupyter/jupyter_server_config.d/"

Mark = Optional[tuple[int, ...]]


class TooLarge(Exception):
    """An extension has more than may be copied."""


@dataclass(frozen=True)
class Found:
    """What stands where an extension would be.

    Parameters
    ----------
    name:
        Its folder below ``labextensions``: ``NAME`` or ``@SCOPE/NAME``.
    path:
        The whole path.
    mark:
        Changes with its ``package.json``; ``None`` for a link, which is not followed.
    """

    name: str
    path: str
    mark: Mark


def scan(env: Env) -> list[Found]:
    """Return what is there; looks at two levels of folders."""
    top = os.path.join(env.path, *FOLDER)
    if os.path.realpath(top) != os.path.join(os.path.realpath(env.path), *FOLDER):
        return [Found("labextensions", top, None)]
    out: list[Found] = []
    for name, path, is_link in _folders(top):
        inner = _folders(path) if name.startswith("@") and not is_link else [(name, path, is_link)]
        for last, place, linked in inner:
            full = last if place == path else f"{name}/{last}"
            try:
                info = os.lstat(place if linked else os.path.join(place, "package.json"))
            except OSError:
                continue
            mark = (info.st_ino, info.st_mtime_ns, info.st_ctime_ns, info.st_size)
            out.append(Found(full, place, None if linked else mark))
    return sorted(out, key=lambda found: found.name)[:MAX_FOUND]


def _folders(path: str) -> list[tuple[str, str, bool]]:
    try:
        with os.scandir(path) as entries:
            return [
                (entry.name, entry.path, entry.is_symlink())
                for entry in entries
                if not entry.name.startswith((".", "~")) and (entry.is_symlink() or entry.is_dir())
            ]
    except OSError:
        return []


def read_text(path: str, limit: int = MAX_PACKAGE_JSON) -> str:
    """Return the text of a regular file.

    Raises
    ------
    OSError, ValueError
        There is none, it is a link, larger than the limit, or no text.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as f:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > limit:
            raise ValueError("no file of that kind")
        return f.read(limit + 1).decode("utf-8")


def owners(env: Env, found: list[Found]) -> dict[str, Dist]:
    """Return extension → the Python package that brought it, where that is known.

    The package of the same name is asked first, then what its ``install.json`` names, then all.
    """
    dists = overlay_dists(env)
    records: dict[str, str] = {}

    def has(dist: Dist, name: str) -> bool:
        if dist.name not in records:
            records[dist.name] = dist.read("RECORD") or ""
        return f"{'/'.join(FOLDER)}/{name}/package.json" in records[dist.name]

    out: dict[str, Dist] = {}
    for item in found:
        guesses = [normalise(item.name), normalise(item.name.rpartition("/")[2]), _installer(item.path)]
        first = [dists[guess] for guess in guesses if guess in dists]
        for dist in [*first, *dists.values()]:
            if has(dist, item.name):
                out[item.name] = dist
                break
    return out


def _installer(path: str) -> str:
    try:
        data = json.loads(read_text(os.path.join(path, "install.json")))
        return normalise(str(data.get("packageName") or ""))
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""


def server_extensions(env: Env, dist: Dist) -> list[str]:
    """Return the modules that a Python package has a server load."""
    out: set[str] = set()
    for line in (dist.read("RECORD") or "").splitlines():
        path, _, last = line.partition(",")[0].rpartition("/")
        if not last.endswith(".json") or not (path + "/").endswith(_SERVER_CONFIG):
            continue
        try:
            data: Any = json.loads(read_text(os.path.join(env.path, *_SERVER_CONFIG.split("/"), last)))
            switched = data["ServerApp"]["jpserver_extensions"]
            out.update(str(name) for name, on in switched.items() if on)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            out.add(last[: -len(".json")])
    return sorted(out)


def copy(
    source: str, target: str, package: dict[str, Any], good_schema: Callable[[dict[str, Any]], bool]
) -> int:
    """Copy an extension; return how many bytes.

    Parameters
    ----------
    source:
        Its folder in the env.
    target:
        A folder that does not exist.
    package:
        What its ``package.json`` has to say.
    good_schema:
        Whether JupyterLab takes a schema of settings: it refuses all settings because of one.

    Source maps stay away: they are for those who write extensions, and are most of some.

    Raises
    ------
    TooLarge
        Nothing of use was copied.
    OSError
        There is no space, or the source can't be read.
    """
    files.mkdir(target, 0o700)
    files.write_atomic(os.path.join(target, "package.json"), json.dumps(package), sync=False)
    total = count = 0
    made = {""}
    for inner, path in _content(source):
        parts = inner.split("/")
        if inner in ("package.json", "install.json") or inner.endswith(".map"):
            continue
        if "schemas" in parts[:-1] and not _schema(parts, path, package["name"], good_schema):
            continue
        count += 1
        if count > MAX_FILES:
            raise TooLarge
        for i in range(1, len(parts)):
            folder = "/".join(parts[:i])
            if folder not in made:
                made.add(folder)
                files.mkdir(os.path.join(target, folder), 0o700)
        size = files.copy(path, os.path.join(target, inner), MAX_BYTES - total)
        if size is None:
            raise TooLarge
        total += size
    return total


def _content(top: str) -> Iterator[tuple[str, str]]:
    """Yield the regular files of a folder: path below it, and the whole path. No link is followed."""
    waiting = [("", top, 0)]
    while waiting:
        prefix, path, depth = waiting.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if depth < _DEEP:
                        waiting.append((f"{prefix}{entry.name}/", entry.path, depth + 1))
                elif entry.is_file(follow_symlinks=False):
                    yield prefix + entry.name, entry.path


def _schema(parts: list[str], path: str, name: str, good: Callable[[dict[str, Any]], bool]) -> bool:
    """Whether a file in a folder ``schemas`` can be given to JupyterLab, which looks into all of them."""
    if "schemas/" in f"{name}/" or parts[:-1] != ["schemas", *name.split("/")]:
        return False  # it would ask for a schema of another name, and answer nothing when that is not there
    if not parts[-1].endswith(".json"):
        return True
    try:
        schema = json.loads(read_text(path, MAX_SCHEMA))
        json.dumps(schema, allow_nan=False)  # no browser reads an answer with NaN in it
        return isinstance(schema, dict) and isinstance(schema.get("properties", {}), dict) and good(schema)
    except (OSError, ValueError, RecursionError):
        return False
