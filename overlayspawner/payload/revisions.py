"""The history of an overlay: one JSON file for each applied plan, ``revisions/000001.json`` and on."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from overlayspawner.payload import files
from overlayspawner.payload.overlay import Overlay

SCHEMA = 1
"""Version of a revision's JSON."""

_NAME = re.compile(r"^(\d{6,})\.json$")


def ids(overlay: Overlay) -> list[int]:
    """Return the numbers of all revisions, oldest first."""
    try:
        names = os.listdir(overlay.revisions)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(match[1]) for match in map(_NAME.match, names) if match)


def path(overlay: Overlay, number: int) -> str:
    """Return the file of a revision."""
    return os.path.join(overlay.revisions, f"{number:06d}.json")


def next_id(overlay: Overlay) -> int:
    """Return the number that the next revision will most likely get."""
    known = ids(overlay)
    return known[-1] + 1 if known else 1


def read(overlay: Overlay, number: int) -> dict[str, Any] | None:
    """Return a revision, or ``None`` when it is missing, damaged or of a later schema."""
    try:
        with open(path(overlay, number), encoding="utf-8") as f:
            data = json.load(f)
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int) or data["schema"] > SCHEMA:
        return None
    return data


def write(overlay: Overlay, data: dict[str, Any]) -> dict[str, Any]:
    """Write a revision under the next free number; return it with its ``id``.

    The file appears whole and at once: with it a change is done, without it the change is undone.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    files.mkdir(overlay.revisions)
    number = next_id(overlay)
    while True:
        full = {"schema": SCHEMA, "id": number, **data}
        # a line for each field: indented throughout, 10,000 files would take a tenth of a second
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in full.items()]
        if files.write_new(path(overlay, number), "{\n" + ",\n".join(lines) + "\n}\n"):
            files.fsync_dir(overlay.revisions)
            return full
        number += 1


def summary(data: dict[str, Any]) -> dict[str, Any]:
    """Return a revision without the long list of its files, as interfaces show it."""
    return {
        key: value
        for key, value in data.items()
        if key not in ("files", "aside", "aside_bytes", "change", "kept", "realised", "settled")
    }


def list_revisions(overlay: Overlay, limit: int = 50) -> list[dict[str, Any]]:
    """Return summaries of the latest revisions, newest first; damaged ones are left out.

    Parameters
    ----------
    limit:
        How many at most; opening each takes time.
    """
    found = (read(overlay, number) for number in reversed(ids(overlay)[-limit:]))
    return [summary(data) for data in found if data is not None]


def list_kept(overlay: Overlay, limit: int = 50) -> list[tuple[dict[str, Any], bool]]:
    """Return what :func:`list_revisions` does, each with whether what it replaced is still kept."""
    found = (read(overlay, number) for number in reversed(ids(overlay)[-limit:]))
    return [(summary(data), _is_kept(overlay, data)) for data in found if data is not None]


def _is_kept(overlay: Overlay, data: dict[str, Any]) -> bool:
    if "kept" not in data:
        return data.get("action") != "adopt"  # a reset keeps all it moves, in a folder of its own
    if not data["kept"] or not data.get("aside"):
        return bool(data["kept"])
    env, change = str(data.get("env") or ""), str(data.get("change") or "")
    return os.path.isdir(os.path.join(overlay.path, env, ".overlay", "set-aside", change))


def latest(overlay: Overlay) -> dict[str, Any] | None:
    """Return the newest revision that can be read, in full."""
    for number in reversed(ids(overlay)):
        data = read(overlay, number)
        if data is not None:
            return data
    return None


def find_change(overlay: Overlay, change: str, first: int) -> dict[str, Any] | None:
    """Return the revision that records a change, looking from number ``first`` on."""
    for number in ids(overlay):
        if number >= first:
            data = read(overlay, number)
            if data is not None and data.get("change") == change:
                return data
    return None
