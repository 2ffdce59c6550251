"""What can be said about an overlay without changing it: for the server extension and the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from overlayspawner.payload import dists, revisions
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError


def status(context: Context) -> dict[str, Any]:
    """Return the JSON shape of ``status``, without the job."""
    overlay, env = context.overlay, context.env
    return {
        "overlay": context.spec.name,
        "kind": context.spec.kind,
        "lifetime": context.spec.lifetime,
        "path": overlay.path if overlay else None,
        "env": env.path if env else None,
        "base": {
            "python": context.base.full_version,
            "key": context.base.key,
            "changed": base_changed(context),
        },
        "mode": context.mode,
        "notices": all_notices(context),
        "sizes": sizes(context),
        "next_start": next_start(context),
        **state(context),
    }


def state(context: Context) -> dict[str, Any]:
    """Return what could be done: ``{restore, undoable, pending}``; cheap, and changes nothing.

    ``restore`` is a restore's state, ``undoable`` what the next undo would undo, ``pending`` what was edited
    in requirements.txt by hand; each ``None`` where there is nothing, or where it can't be read.
    """
    from overlayspawner.payload import merge, restore, undo

    def pending() -> dict[str, list[str]] | None:
        found = merge.pending(overlay) if (overlay := context.overlay) is not None else {}
        return found if any(found.values()) else None

    out: dict[str, Any] = {"restore": None, "undoable": None, "pending": None}
    if context.overlay is None or context.env is None:
        return out
    parts: dict[str, Callable[[], Any]] = {
        "restore": lambda: restore.state(context),
        "undoable": lambda: undo.undoable(context),
        "pending": pending,
    }
    for name, part in parts.items():
        try:
            out[name] = part()
        except (OSError, ValueError, KeyError, TypeError, OverlayError):
            continue  # damaged: `overlay doctor` says what
    return out


def next_start(context: Context) -> str:
    """Return how the server starts next time: ``normal`` or ``safe``."""
    from overlayspawner.payload import oneshot

    path = _path(context)
    return oneshot.asked(path) if path else "normal"


def ask_next(context: Context, mode: str) -> None:
    """Ask for ``safe`` at the next start, or with ``normal`` take that back.

    Raises
    ------
    OverlayError
        ``no-overlay`` where no place for one is known, or what the storage says.
    """
    from overlayspawner.payload import oneshot
    from overlayspawner.payload.lease import storage_error

    path = _path(context)
    if not path:
        context.require()
    try:
        oneshot.ask(path, mode)
    except OSError as e:
        raise storage_error(e) from e


def _path(context: Context) -> str:
    """Return where the overlay lives, also in safe mode; ``""`` when that is not known."""
    from overlayspawner.payload.storage import overlay_path

    if context.overlay is not None:
        return context.overlay.path
    return overlay_path(context.spec, context.home) if context.home else ""


def all_notices(context: Context) -> list[dict[str, str]]:
    """Return the notices of the start, those about interrupted jobs, and those that kernels have left."""
    from overlayspawner.payload import interrupted

    found = [*context.notices, *interrupted.notices(context)]
    directory = os.path.join(context.runtime, "notices")
    try:
        names = sorted(os.listdir(directory)) if context.runtime else []
    except OSError:
        names = []
    for name in names:
        try:
            with open(os.path.join(directory, name), encoding="utf-8") as f:
                data = json.load(f)
            found.append({key: str(data[key]) for key in ("code", "message", "hint")})
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def base_changed(context: Context) -> bool:
    """Return whether the image's packages differ from those of the last change."""
    last = last_revision(context)
    lock = last["base"].get("lock") if last else None
    return bool(lock and context.base_lock and lock != context.base_lock)


def last_revision(context: Context) -> dict[str, Any] | None:
    """Return the newest revision that was made on this base key, or ``None``."""
    if context.overlay is None:
        return None
    for revision in revisions.list_revisions(context.overlay, limit=10):
        base = revision.get("base")
        if isinstance(base, dict) and base.get("key") == context.base.key:
            return revision
    return None


def history(context: Context) -> list[dict[str, Any]]:
    """Return the latest revisions, newest first, without the lists of files.

    ``kept`` says whether what a change replaced is still there: else undoing it needs a download.
    """
    if context.overlay is None:
        return []
    return [{**item, "kept": kept} for item, kept in revisions.list_kept(context.overlay)]


def sizes(context: Context) -> dict[str, int | None]:
    """Return bytes: what the packages take (by RECORD), what the storage has left, and what else takes space.

    That is known from the last time it was measured (:mod:`~overlayspawner.payload.sizes`); ``None`` where it
    never was. Nothing is walked.
    """
    from overlayspawner.payload import sizes as measured
    from overlayspawner.payload import space

    out: dict[str, int | None] = {"overlay": None, "free": None, "reserve": None}
    out.update(measured.by_kind(context))
    if context.overlay is None:
        return out
    if context.env is not None:
        out["reserve"] = space.reserved(context.env)
    try:
        stat = os.statvfs(context.env.path if context.env else context.overlay.path)
        out["free"] = stat.f_bavail * stat.f_frsize
    except OSError:
        pass
    if context.env is not None:
        out["overlay"] = sum(int(str(p.get("size") or 0)) for p in dists.packages(context, "overlay"))
    return out


def upgradable(context: Context) -> list[str]:
    """Return the names that "upgrade everything" means: what the overlay holds, nothing of the image's.

    Raises
    ------
    OverlayError
        ``no-overlay``; ``not-installed`` where the overlay is empty; ``policy`` where the hub's rules let in
        no other version of anything.
    """
    _, env = context.require()
    names = sorted(dists.overlay_dists(env))
    if not names:
        raise OverlayError("not-installed", "The overlay holds no packages: there is nothing to upgrade.")
    from overlayspawner.payload import gate

    return gate.upgradable(context, names)
