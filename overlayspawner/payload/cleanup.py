"""What could be deleted without losing anything that was asked for, and deleting it.

Each kind is asked for by name. What is deleted can be made again, all but ``kept``: that holds files that
were nobody's and were moved aside. Without ``undo``, taking back a change needs a download.

A tree is renamed before it is deleted, so that whoever is killed in between leaves a tree that nobody uses,
which the next clean-up finds. Nothing new has to be written for it: it works on a full disk.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any, Optional

from overlayspawner.payload import cleanup_copies, envs, files, lease, revisions, space, uvcache
from overlayspawner.payload.change import pending, repair
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.events import Events, OnEvent
from overlayspawner.payload.moves import KEPT, SET_ASIDE
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.procs import Cancel
from overlayspawner.payload.sentences import amount
from overlayspawner.payload.sizes import Frees, forget, save, tree

KINDS = {
    "cache": "uv's cache: what is installed next is downloaded again",
    "leftovers": "what interrupted work has left",
    "copies": "packages of which the image has the same version",
    "envs": "environments for other images: they are installed again when one is used",
    "undo": "what changes have replaced: undoing one needs a download then",
    "kept": "files that were nobody's and were moved aside; they can't be had back",
}
"""Kind to what it is, in the order in which it is done."""

EXPLICIT = ("kept",)
"""Kinds that ``all`` does not mean."""


def chosen(what: Sequence[str]) -> list[str]:
    """Return the kinds that a request names, in order.

    Raises
    ------
    OverlayError
        ``bad-request`` for anything else.
    """
    for word in what:
        if word != "all" and word not in KINDS:
            known = ", ".join(KINDS)
            raise OverlayError(
                "bad-request",
                f"There is nothing called {word[:40]!r} to clean up.",
                f"It is one of {known}, all.",
            )
    wanted = {kind for kind in KINDS if kind not in EXPLICIT} if "all" in what else set()
    return [kind for kind in KINDS if kind in wanted or kind in what]


def found(ctx: Context, what: Sequence[str] = (), cancel: Optional[Cancel] = None) -> list[dict[str, Any]]:
    """Return what could be deleted; walks trees, so that it is no request's work. Changes nothing.

    Parameters
    ----------
    what:
        Kinds; all that there are when empty. Links between the trees of different kinds count: a file of
        which the cache has a link is freed only when both go.

    Returns
    -------
    list
        ``{what, name, bytes, later, why}`` each: ``bytes`` are those that are free afterwards, ``later``
        those that are once nothing is kept for undoing; ``why`` says what keeps it from being deleted now.
    """
    overlay, env = ctx.require()
    kinds = chosen(what) if what else list(KINDS)
    out = []
    frees = Frees(cancel)
    for kind in kinds:
        for name, paths, why in _places(ctx, overlay, env, kind):
            before = frees.bytes
            for path in [] if why else paths:
                frees.add(path)
            size = frees.bytes - before
            item = {"what": kind, "name": name, "bytes": size, "later": 0, "why": why}
            if kind == "copies":
                item = {**item, "bytes": 0, "later": size}
                frees.bytes = before
            out.append(item)
    return out


def _places(ctx: Context, overlay: Overlay, env: Env, kind: str) -> list[tuple[str, list[str], str]]:
    """Return name, trees and obstacle of everything of a kind."""
    if kind == "cache":
        return [(path, uvcache.contents(path), why) for path, why in uvcache.own(ctx)]
    if kind == "copies":
        try:
            copies = cleanup_copies.copies(ctx)
        except OSError:
            return []
        return [(d.name, [os.path.join(d.site, p) for p in cleanup_copies.paths(d)], "") for d in copies]
    if kind == "envs":
        return [(os.path.basename(e.path), [e.path], envs.obstacle(e)) for e in envs.others(overlay, env)]
    roots = {
        "undo": [os.path.join(env.state, SET_ASIDE)],
        "kept": [os.path.join(env.state, KEPT), os.path.join(overlay.path, KEPT)],
    }
    if kind == "leftovers":
        return [(os.path.basename(path), [path], "") for path in envs.leftovers(overlay)]
    out = []
    for root in roots[kind]:
        with contextlib.suppress(OSError):
            out += [(name, [os.path.join(root, name)], "") for name in sorted(os.listdir(root))]
    return out


def clean(
    ctx: Context,
    what: Sequence[str] = (),
    *,
    dry_run: bool = False,
    on_event: Optional[OnEvent] = None,
    cancel: Optional[Cancel] = None,
    who: str = "",
    argv: Sequence[str] = (),
) -> dict[str, Any]:
    """Delete what a request names.

    Parameters
    ----------
    what:
        Of :data:`KINDS`, or ``all``. Empty: nothing is deleted, as with ``dry_run``.
    dry_run:
        Only tell.
    on_event, cancel, who, argv:
        As for :func:`overlayspawner.payload.actions.run`. It can be cancelled between two trees.

    Returns
    -------
    dict
        ``{"revision", "plan", "cleanup", "frees", "left_out"}``: what was deleted (see :func:`found`), the
        bytes that became free, and what could not be deleted. ``revision`` is that of ``copies``: only
        these are a change.

    Raises
    ------
    OverlayError
        ``busy`` where another server changes the overlay; ``bad-request``.
    """
    overlay, env = ctx.require()
    events = Events(on_event, cancel)
    kinds = chosen(what)
    last = revisions.summary(revisions.latest(overlay) or {"id": 0})
    result: dict[str, Any] = {"revision": {**last, "changed": False}, "plan": None, "left_out": []}
    events.say("resolving", "Looking at what could be deleted.")
    try:
        if dry_run or not kinds:
            items = found(ctx, kinds, cancel)
            events.check_cancel()
            events.say("done", _told(items, "could be freed"))
            save(ctx, items)
            return {**result, "cleanup": items, "frees": sum(item["bytes"] for item in items)}
        if "copies" in kinds:
            result = {**result, **cleanup_copies.drop(ctx, events, who, argv)}
        with lease.acquire(env, who=who, wait=lease.PATIENCE) as held:
            events.repaired(repair(overlay, env, held))
            events.check_cancel()
            items = _delete(ctx, overlay, env, [kind for kind in kinds if kind != "copies"], held, events)
    except OSError as e:
        raise lease.storage_error(e) from e
    for item in items:
        if item["why"]:
            place = {"requirement": f"{item['what']} {item['name']}", "reason": item["why"], "hint": ""}
            result["left_out"].append(place)
    forget(ctx)
    if "copies" in kinds:
        items += [
            {"what": "copies", "name": p["name"], "bytes": 0, "later": 0, "why": ""}
            for p in (result["plan"] or {}).get("removes", ())
        ]
    events.say("done", _told(items, "freed"))
    return {**result, "cleanup": items, "frees": sum(item["bytes"] for item in items)}


def _delete(
    ctx: Context, overlay: Overlay, env: Env, kinds: Sequence[str], held: lease.Lease, events: Events
) -> list[dict[str, Any]]:
    out = []
    for kind in kinds:
        for name, paths, why in _places(ctx, overlay, env, kind):
            events.check_cancel()
            held.check()
            events.say("staging", f"Deleting: {kind} {name}")
            freed = 0
            if not why:
                freed, why = _one(overlay, env, kind, name, paths)
            out.append({"what": kind, "name": name, "bytes": freed, "later": 0, "why": why})
    if "undo" in kinds:
        from overlayspawner.payload import undo

        undo.forget()
        space.prepare(env)
    return out


def _one(overlay: Overlay, env: Env, kind: str, name: str, paths: list[str]) -> tuple[int, str]:
    """Delete one thing; return the bytes that are free now, and what was in the way."""
    if kind == "envs":
        return envs.remove(overlay, paths[0])
    if kind == "cache":
        return uvcache.empty(name)
    if kind == "leftovers":
        return envs.remove_old(overlay, paths[0])
    if kind == "undo" and pending(env):
        return 0, "a change is unfinished"
    freed = tree(paths[0])
    if kind == "undo":
        # in place: its directory may be the only one that a full disk has for the next change
        files.step("clean " + paths[0])
        space.empty_place(env, os.path.join(SET_ASIDE, name))
    files.step("clean " + paths[0])
    files.remove_tree(paths[0])
    return freed, ""


def _told(items: Sequence[dict[str, Any]], verb: str) -> str:
    sums: dict[str, int] = {}
    for item in items:
        if not item["why"]:
            sums[item["what"]] = sums.get(item["what"], 0) + item["bytes"]
    parts = [f"{kind} {amount(size)}" for kind, size in sums.items() if size]
    total = amount(sum(sums.values()))
    return f"{total} {verb}: {', '.join(parts)}." if parts else f"Nothing {verb}."
