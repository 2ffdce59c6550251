"""What other tools changed in an env: how it differs from its last snapshot. Only reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from overlayspawner.payload import revisions, snapshot
from overlayspawner.payload.dists import Dist, listing
from overlayspawner.payload.leftovers import leftovers
from overlayspawner.payload.overlay import Env, Overlay

_LOOK_BACK = 20
"""Revisions that are looked at to tell our own changes, where the snapshot was lost."""


class Foreign(NamedTuple):
    """What is different.

    Parameters
    ----------
    arrived:
        What came, by name.
    old:
        The versions that were there before, of those that came.
    gone:
        Names of what was removed.
    lost:
        Names of what is missing: its files, or some of them, are still there.
    """

    arrived: dict[str, Dist]
    old: dict[str, str]
    gone: list[str]
    lost: list[str]


def compare(
    overlay: Overlay,
    env: Env,
    known: snapshot.Snapshot,
    found: Mapping[str, Dist],
    now: snapshot.Snapshot,
) -> Foreign:
    """Return what others changed.

    Parameters
    ----------
    known, now:
        The env's last snapshot, and one of this moment.
    found:
        The distributions that are there and whole.
    """
    arrived: dict[str, Dist] = {}
    old: dict[str, str] = {}
    gone: list[str] = []
    lost: list[str] = []
    for name, dist in found.items():
        item = known.get(name)
        whole = item is not None and not item.get("partial")
        if item is None or item["version"] != dist.version or not whole:
            arrived[name] = dist
            if item is not None and whole:
                old[name] = item["version"]
    renamed = any(i["kind"] == "renamed" and not i["original"] for i in leftovers(env))
    for name, item in known.items():
        if name in now or item.get("partial"):
            continue  # what was never whole has not been removed
        left = not (item["files"] and snapshot.gone(env, item))
        if item.get("missing"):
            if left:
                lost.append(name)
        elif snapshot.gone(env, item) and not renamed:
            gone.append(name)
        else:
            # also where pip, killed in the middle of its work, has renamed the files: they are not gone
            lost.append(name)
    mine = _ours(overlay, env, set(arrived), set(gone))
    return Foreign(
        {name: dist for name, dist in arrived.items() if name not in mine},
        old,
        sorted(name for name in gone if name not in mine),
        sorted(lost),
    )


def _ours(overlay: Overlay, env: Env, arrived: set[str], gone: set[str]) -> set[str]:
    """Return those names whose state is what a change of ours left: its snapshot was lost."""
    out: set[str] = set()
    left = arrived | gone
    here = os.path.relpath(env.path, overlay.path)
    for number in reversed(revisions.ids(overlay)[-_LOOK_BACK:]):
        if not left:
            break
        revision = revisions.read(overlay, number) or {}
        if revision.get("env") != here or not isinstance(revision.get("plan"), dict):
            continue
        new = {str(item["name"]): str(item["version"]) for item in revision["plan"].get("new", ())}
        removed = {str(item["name"]) for item in revision["plan"].get("removes", ())}
        placed = {str(path): (inode, size) for path, inode, size in revision.get("files", ())}
        for name in left & (set(new) | removed):
            # what we removed and is there again was brought by somebody else
            if name in gone if name in removed else _placed(env, name, new[name], placed):
                out.add(name)
        left -= set(new) | removed
    return out


def _placed(env: Env, name: str, version: str, placed: Mapping[str, tuple[int, int]]) -> bool:
    for dist in listing(env.site_packages):
        if dist.name == name and dist.version == version:
            path = os.path.join(dist.path, "RECORD")
            try:
                info = os.stat(path)
            except OSError:
                return False
            return placed.get(os.path.relpath(path, env.path)) == (info.st_ino, info.st_size)
    return False
