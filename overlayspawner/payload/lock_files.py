"""What locks name: the versions in ``pylock.toml`` and ``uv.lock``, and which files they are. Only reads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.requirements import normalise
from overlayspawner.payload.tables import items, table
from overlayspawner.payload.uvlock import UvLock
from overlayspawner.payload.uvlock import source as origin

if TYPE_CHECKING:
    from overlayspawner.payload.source_files import Source

ITSELF = "It is the project itself."
"""Why a lock's own project is left out: nobody asked for it."""


def pylock(source: Source, data: dict[str, Any]) -> None:
    """Take the versions of a ``pylock.toml`` (PEP 751)."""
    for item in items(data.get("packages")):
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            continue
        version, marker = item.get("version"), item.get("marker")
        if not isinstance(version, str):
            source.leave_out(item["name"], "The lock names no version: it came from a directory or a URL.")
            continue
        source.versions[normalise(item["name"])] = version
        source.want(f"{item['name']}=={version}" + (f" ; {marker}" if isinstance(marker, str) else ""))
        files = [*items(item.get("wheels")), item.get("sdist")]
        found = [str(table(file, "hashes").get("sha256")) for file in files if isinstance(file, dict)]
        source.hash(item["name"], version, found)


def uv_lock(source: Source, lock: UvLock, groups: list[str]) -> None:
    """Take the versions of a lock; the project itself is a matter of its own."""
    known = lock.groups()
    source.groups = sorted(known)
    for group in groups:
        if group not in known:
            raise OverlayError(
                "bad-request", f"There is no group {group!r}; there is {', '.join(sorted(known)) or 'none'}."
            )
    for item in lock.needed(groups):
        name, version, where = normalise(item["name"]), item.get("version"), origin(item)
        if isinstance(where.get("git"), str):
            url, _, commit = where["git"].partition("#")
            url = url.partition("?")[0]
            source.want(f"{name} @ git+{url}@{commit}" if commit else f"{name} @ git+{url}")
        elif isinstance(where.get("url"), str):
            source.want(f"{name} @ {where['url']}")
        elif isinstance(where.get("path"), str):
            path = os.path.normpath(os.path.join(lock.folder, where["path"]))
            source.want(f"{name} @ file://{quote(path)}")
        elif "registry" in where and isinstance(version, str):
            source.versions[name] = version
            source.want(f"{name}=={version}")
            files = [*items(item.get("wheels")), item.get("sdist")]
            found = [str(f.get("hash") or "").partition("sha256:")[2] for f in files if isinstance(f, dict)]
            source.hash(name, version, found)
        else:
            source.leave_out(
                name, "It lies in a directory of its own.", "Install it with: overlay install -e PATH"
            )
    for item in lock.projects():
        if "editable" in origin(item):
            source.leave_out(
                normalise(item["name"]),
                ITSELF,
                "Install it with: overlay install -e PATH",
            )
    for group in sorted(known - set(groups)):
        source.leave_out(f"group {group}", "Groups are taken along when they are named: uv.lock[NAME].")
