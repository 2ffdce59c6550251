"""Our own files of an overlay: damaged ones are moved aside and made again from what is left."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Optional

from overlayspawner.payload import dists, files, lease, links, merge, procs, revisions, snapshot
from overlayspawner.payload.context import Context
from overlayspawner.payload.doctor.common import FIX, Check, aside, check, some
from overlayspawner.payload.overlay import SCHEMA_VERSION, Env, Overlay
from overlayspawner.payload.requirements import Requirement, Requirements, packaging

_FILES = ("overlay.json", "README.md", ".lock", "starts.json", "next-start.json")
_FOLDERS = ("revisions", "envs", "locks")
_STATE_FILES = (
    "lock",
    "lease.json",
    "journal",
    "journal.json",
    "snapshot.json",
    "restore.json",
    "base.json",
    "sizes.json",
)
_STATE_FOLDERS = ("set-aside", "kept", "reserve", "spare", "stubs")
_STATE_JSON = ("lease.json", "snapshot.json", "restore.json", "base.json", "sizes.json")
_MAX_TEXT = 4_000_000


def own_files(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """Whether our own files can be read."""
    bad = [_shown(overlay, path) for path in damaged(overlay, env)]
    if bad:
        return check("records", False, f"Damaged: {some(bad)}.", f"{FIX} (they are moved aside)")
    return check("records", True, "The overlay's own files can be read.")


def _shown(overlay: Overlay, path: str) -> str:
    inside = os.path.relpath(path, overlay.path)
    return path if inside.startswith("..") else inside


def damaged(overlay: Overlay, env: Env) -> list[str]:
    """Return the paths of our own files that are not what they should be."""
    linked = [*links.of_overlay(overlay), *links.of_env(env)]
    if linked:
        return linked  # the rest is looked at when they are out of the way
    out = []
    for folder, plain, folders in (
        (overlay.path, _FILES, _FOLDERS),
        (env.state, _STATE_FILES, _STATE_FOLDERS),
    ):
        for name in plain:
            path = os.path.join(folder, name)
            if os.path.lexists(path) and not os.path.isfile(path):
                out.append(path)
        for name in folders:
            path = os.path.join(folder, name)
            if os.path.lexists(path) and not os.path.isdir(path):
                out.append(path)
    about = [overlay.metadata] + [os.path.join(env.state, name) for name in _STATE_JSON]
    about += [os.path.join(overlay.path, name) for name in ("starts.json", "next-start.json")]
    out += [path for path in about if os.path.isfile(path) and not isinstance(_json(path), (dict, list))]
    if os.path.isfile(snapshot.path(env)) and snapshot.read(env) is None:
        out.append(snapshot.path(env))
    data = _json(overlay.metadata)
    if isinstance(data, dict) and not isinstance(data.get("schema"), int):
        out.append(overlay.metadata)
    with contextlib.suppress(OSError):
        for number in revisions.ids(overlay):
            path = revisions.path(overlay, number)
            found = _json(path)
            if not isinstance(found, dict) or not isinstance(found.get("schema"), int):
                out.append(path)
    if os.path.lexists(merge.path(overlay)) and _text(merge.path(overlay)) is None:
        out.append(merge.path(overlay))
    return list(dict.fromkeys(out))


def _json(path: str) -> object:
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except (OSError, ValueError, RecursionError):
        return None


def _text(path: str) -> Optional[str]:
    """Return a text file's content; ``None`` for what can't be one (or is no file, or is gone)."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            text = f.read(_MAX_TEXT + 1)
    except OSError:
        return None
    odd = any(c < " " and c not in "\t\n\r\f" for c in text)
    return None if odd or len(text) > _MAX_TEXT else text


def mend_overlay(ctx: Context, overlay: Overlay) -> list[str]:
    """Mend the files that all envs share.

    Raises
    ------
    OverlayError
        What the storage says.
    """
    env = overlay.env(ctx.base)
    done: list[str] = []
    try:
        # before the lock: it is one of the files that may be damaged
        for path in damaged(overlay, env):
            if not path.startswith(env.path + os.sep):
                done.append(
                    f"{_shown(overlay, path)} was damaged and is now {os.path.basename(aside(path))}."
                )
        files.mkdir(overlay.revisions)
        with lease.overlay_lock(overlay):
            if not os.path.lexists(overlay.metadata):
                data = {
                    "schema": SCHEMA_VERSION,
                    "name": overlay.name,
                    "kind": overlay.kind,
                    "lifetime": overlay.lifetime,
                }
                files.write_atomic(overlay.metadata, json.dumps(data) + "\n")
            done += _mend_requirements(overlay)
    except OSError as e:
        raise lease.storage_error(e) from e
    return done


def _mend_requirements(overlay: Overlay) -> list[str]:
    path = overlay.requirements
    if not os.path.lexists(path):
        lines = merge.last(overlay).to_text()
        files.write_atomic(path, lines)
        return ["requirements.txt was missing; it holds what the last change left."] if lines else []
    if _text(path) is not None:
        return []
    moved = os.path.basename(aside(path))
    files.write_atomic(path, merge.last(overlay).to_text())
    return [f"requirements.txt was damaged and is now {moved}; the new one holds what the last change left."]


def mend_state(ctx: Context, overlay: Overlay, env: Env) -> list[str]:
    """Move damaged files of the env's state aside. To be called before a lease is taken.

    Raises
    ------
    OverlayError
        What the storage says.
    """
    done = []
    try:
        for path in damaged(overlay, env):
            if path.startswith(env.path + os.sep):
                done.append(
                    f"{_shown(overlay, path)} was damaged and is now {os.path.basename(aside(path))}."
                )
    except OSError as e:
        raise lease.storage_error(e) from e
    return done


def requirements(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """Whether ``requirements.txt`` can be read, and what it asks for is there."""
    path = overlay.requirements
    if not os.path.lexists(path):
        if not merge.last(overlay).entries():
            return check("requirements", True, "Nothing is asked for.")
        return check("requirements", False, "requirements.txt is missing.", FIX)
    if _text(path) is None:
        return check(
            "requirements", False, "requirements.txt is not a text file.", f"{FIX} (it is moved aside)"
        )
    wanted = Requirements.read(path)
    odd = wanted.ignored()
    if odd:
        shown = some([procs.redact(line) for line in odd])
        return check(
            "requirements",
            False,
            f"Lines of requirements.txt that are no requirements: {shown}.",
            "Correct the file.",
        )
    missing = unmet(ctx, env, wanted)
    if missing:
        return check(
            "requirements",
            False,
            f"In requirements.txt but not installed: {some(missing)}.",
            "Run: overlay sync",
        )
    return check("requirements", True, "What requirements.txt asks for is there.")


def unmet(ctx: Context, env: Env, wanted: Requirements) -> list[str]:
    """Return the names of requirements that nothing meets."""
    there = {**dists.base_dists(ctx), **dists.overlay_dists(env)}
    library = packaging()
    missing = []
    for entry in wanted.entries():
        dist = there.get(entry.name)
        if entry.name and not _satisfied(library, entry, dist.version if dist else None):
            missing.append(entry.name)
    return missing


def _satisfied(library: Any, entry: Requirement, version: Optional[str]) -> bool:
    """Whether a requirement is met; by name alone where ``packaging`` is missing."""
    if library is None or entry.url:
        return version is not None
    try:
        requirement = library.requirements.Requirement(entry.text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            return True
        return version is not None and requirement.specifier.contains(version, prereleases=True)
    except Exception:
        return version is not None


def lost(ctx: Context, overlay: Overlay, env: Env) -> list[str]:
    """Return what the last change had installed and is gone; what was only edited by hand is no loss."""
    now = Requirements.read(overlay.requirements)
    realised = {entry.text for entry in merge.last(overlay).entries()}
    kept = Requirements("".join(f"{e.text}\n" for e in now.entries() if e.text in realised))
    return unmet(ctx, env, kept)
