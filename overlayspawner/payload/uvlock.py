"""Reads ``uv.lock``: what a project needs on this Python, in the versions that uv has chosen for it.

A lock holds what the project needs anywhere, on every system and with every extra. Beginning with the project
itself, what applies here is followed from package to package.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.requirements import normalise, packaging
from overlayspawner.payload.tables import items, table

VERSION = 1
"""Of the format; newer ones mean something that is not known here."""

Package = dict[str, Any]
Edge = dict[str, Any]


class UvLock:
    """A lock.

    Parameters
    ----------
    data:
        The document.
    path:
        Where it lies: the project's own paths are relative to it.

    Raises
    ------
    OverlayError
        ``bad-request`` for what is no such lock.
    """

    def __init__(self, data: dict[str, Any], path: str) -> None:
        found = data.get("package")
        if data.get("version") != VERSION or not isinstance(found, list):
            raise OverlayError(
                "bad-request",
                f"{path} is no lock of uv that is known here (version {VERSION}).",
                "Write one that others read: uv export --format requirements-txt > requirements.txt",
            )
        self.folder = os.path.dirname(path)
        self.packages: dict[str, list[Package]] = {}
        for item in found:
            if isinstance(item, dict) and isinstance(item.get("name"), str):
                self.packages.setdefault(normalise(item["name"]), []).append(item)

    def projects(self) -> list[Package]:
        """Return the packages whose sources lie where the lock lies."""
        return [
            item
            for items in self.packages.values()
            for item in items
            if {"editable", "virtual"} & source(item).keys()
        ]

    def groups(self) -> set[str]:
        """Return the names of the projects' extras and dependency groups."""
        return {
            normalise(name)
            for item in self.projects()
            for key in ("optional-dependencies", "dev-dependencies")
            for name in table(item, key)
        }

    def needed(self, groups: Sequence[str] = ()) -> list[Package]:
        """Return what the projects need here, without themselves, sorted by name.

        Parameters
        ----------
        groups:
            Extras and dependency groups of theirs that are wanted, normalised.
        """
        mine = {id(item) for item in self.projects()}
        todo: list[Edge] = []
        for item in self.projects():
            todo += _edges(item, groups)
        seen: set[tuple[int, str]] = set()
        out: dict[str, Package] = {}
        while todo:
            edge = todo.pop()
            found = self._find(edge)
            if found is None or not _applies(edge):
                continue
            if id(found) not in mine:
                out[normalise(found["name"])] = found
            extras = [normalise(extra) for extra in items(edge.get("extra")) if isinstance(extra, str)]
            for extra in ("", *extras):
                if (id(found), extra) not in seen:
                    seen.add((id(found), extra))
                    todo += _edges(found, [extra] if extra else ())
        return [out[name] for name in sorted(out)]

    def _find(self, edge: Edge) -> Optional[Package]:
        """Return the package that an edge leads to; it tells the version where there are several."""
        name = edge.get("name")
        items = self.packages.get(normalise(name), []) if isinstance(name, str) else []
        for item in items:
            if edge.get("version") in (None, item.get("version")) and edge.get("source") in (
                None,
                item.get("source"),
            ):
                return item
        return None


def source(package: Package) -> dict[str, Any]:
    """Return where a package comes from: ``{"registry": URL}``, ``{"git": URL}``, ``{"editable": "."}`` …"""
    return table(package, "source")


def _edges(package: Package, groups: Sequence[str]) -> Iterator[Edge]:
    lists = [package.get("dependencies")]
    for key in ("optional-dependencies", "dev-dependencies"):
        lists += [value for name, value in table(package, key).items() if normalise(name) in groups]
    for found in lists:
        yield from (edge for edge in items(found) if isinstance(edge, dict))


def _applies(edge: Edge) -> bool:
    """Whether an edge's marker is true here. One that can't be understood is followed."""
    text, library = edge.get("marker"), packaging()
    if not isinstance(text, str) or library is None:
        return True
    try:
        return bool(library.markers.Marker(text).evaluate({"extra": ""}))
    except Exception:
        return True
