"""Starting over: the overlay's content is moved aside, and a fresh one takes its place. It can be undone."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional

from overlayspawner.payload import dists, files, plan, revisions, swap
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.lease import storage_error
from overlayspawner.payload.overlay import Env, Overlay, make_env, makedirs
from overlayspawner.payload.procs import Cancel, redact
from overlayspawner.payload.requirements import Requirements

OnEvent = Callable[[dict[str, Any]], None]


def reset(
    ctx: Context,
    *,
    on_event: Optional[OnEvent] = None,
    cancel: Optional[Cancel] = None,
    who: str = "",
    argv: Sequence[str] = (),
) -> dict[str, Any]:
    """Move all that the overlay holds into a folder of its own, and begin anew.

    It works on damaged overlays too: nothing of what is moved is read but the lists for the history.

    Parameters
    ----------
    ctx:
        The server's view of its overlay; its env need not be usable.
    on_event, cancel, who, argv:
        See :func:`actions.run`.

    Returns
    -------
    dict
        ``{"revision", "plan"}``; ``revision["folder"]`` is where everything is now.

    Raises
    ------
    OverlayError
        ``busy``, ``no-overlay``, ``cancelled``, or what the storage says: all is as it was.
    """
    overlay = _overlay(ctx)
    with _errors():
        _set_aside_a_non_directory(overlay)
        swap.mend(overlay)
        env = overlay.env(ctx.base)
        with swap.leases_of([overlay.path], who or "reset", [env]) as leases:
            if cancel is not None and cancel.is_set():
                raise OverlayError("cancelled")
            away = aside(overlay)
            _tell(on_event, f"Moving everything to {away}")
            stage = os.path.join(overlay.path, swap.STAGE + os.urandom(4).hex())
            fresh = Overlay(stage, name=overlay.name, kind=overlay.kind, lifetime=overlay.lifetime)
            new = f"{env.path}.new-{os.urandom(4).hex()}"
            local = []
            if overlay.ephemeral:
                local.append((env.path, f"{env.path}.reset-{os.path.basename(away)}", new))
            swap.begin(overlay, [stage, new])
            try:
                files.mkdir(stage)
                fresh.describe()
                if overlay.ephemeral:
                    make_env(new, env.path, ctx.base, kind=overlay.kind)
                elif overlay.lifetime == "persistent":
                    files.mkdir(fresh.envs)
                    make_env(fresh.env(ctx.base).path, env.path, ctx.base, kind=overlay.kind)
                before = _requirements(overlay)
                change = _plan(gone=_installed(env))
                data = _record(ctx, env, "reset", who, argv or ["reset"], change, away, before, [])
                revision = revisions.write(fresh, data)
                swap.Moves(overlay, away, stage, local).run(leases)
            except BaseException:
                swap.abandon(overlay, [stage, new])
                raise
    _tell(on_event, f"Everything you had is in {away}.", phase="done")
    return {"revision": {**revisions.summary(revision), "changed": True}, "plan": change}


def undo_reset(
    ctx: Context,
    *,
    on_event: Optional[OnEvent] = None,
    cancel: Optional[Cancel] = None,
    who: str = "",
    argv: Sequence[str] = (),
) -> dict[str, Any]:
    """Bring back what a reset moved aside; what was made since is moved aside in turn.

    Only where the reset is the newest revision that is not undone: the caller has looked.

    Parameters
    ----------
    ctx, on_event, cancel, who, argv:
        See :func:`reset`.

    Raises
    ------
    OverlayError
        ``cannot-undo`` when nothing was reset or the folder is gone, and as :func:`reset`.
    """
    overlay = _overlay(ctx)
    with _errors():
        swap.mend(overlay)
        folder = folder_of(overlay)
        env = overlay.env(ctx.base)
        with swap.leases_of([overlay.path, folder], who or "undo", [env]) as leases:
            if cancel is not None and cancel.is_set():
                raise OverlayError("cancelled")
            away = aside(overlay)
            _tell(on_event, f"Bringing back what is in {folder}")
            old = Overlay(folder, name=overlay.name, kind=overlay.kind, lifetime=overlay.lifetime)
            local = []
            if overlay.ephemeral:
                there = f"{env.path}.reset-{os.path.basename(folder)}"
                if os.path.isdir(there):
                    local.append((env.path, f"{env.path}.reset-{os.path.basename(away)}", there))
            old_env = Env(local[0][2], env.version) if local else old.env(ctx.base)
            made = False
            if not overlay.ephemeral and not os.path.lexists(old_env.path):
                # the reset was made on another image
                files.mkdir(old.envs)
                make_env(old_env.path, env.path, ctx.base, kind=overlay.kind)
                made = True
            change = _plan(gone=_installed(env), come=_installed(old_env))
            before, after = _requirements(overlay), _requirements(old)
            data = _record(ctx, env, "undo", who, argv or ["undo"], change, away, before, after)
            # 0: what was undone is in another history
            revision = revisions.write(old, {**data, "undoes": 0, "undo": "offline"})
            try:
                swap.begin(overlay, [])
                swap.Moves(overlay, away, folder, local).run(leases)
            except BaseException:
                swap.abandon(overlay, [])
                if not swap.pending(overlay.path):
                    files.unlink(revisions.path(old, revision["id"]))
                    if made:
                        files.remove_tree(old_env.path)
                raise
    _tell(on_event, f"Your packages are back. What was there is in {away}.", phase="done")
    return {"revision": {**revisions.summary(revision), "changed": True}, "plan": change}


def folder_of(overlay: Overlay) -> str:
    """Return the folder that the latest reset moved everything to.

    Raises
    ------
    OverlayError
        ``cannot-undo``.
    """
    for number in reversed(revisions.ids(overlay)):
        data = revisions.read(overlay, number)
        if data is None or data.get("action") != "reset":
            continue
        named = str(data.get("folder") or "")
        name = os.path.basename(named)
        parent = os.path.dirname(overlay.path)
        # another image may mount the storage elsewhere
        for path in (named, os.path.join(parent, name), os.path.join(overlay.path, ".reset", name)):
            if name and os.path.isdir(path):
                return path
        raise OverlayError(
            "cannot-undo",
            f"{named or 'The folder that the reset made'} is gone: what was in it can't be brought back.",
            "Look for another copy of that folder, for example in a backup.",
        )
    raise OverlayError("cannot-undo", "Nothing was reset.")


def aside(overlay: Overlay) -> str:
    """Return a new folder's path for what is moved aside, on the overlay's own file system."""
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")
    parent, name = os.path.split(overlay.path)
    start = os.path.join(parent, f"{name}.reset-{stamp}")
    beside = (
        not os.path.islink(overlay.path)
        and not os.path.ismount(overlay.path)
        and os.access(parent, os.W_OK)
        and os.stat(parent).st_dev == os.stat(overlay.path).st_dev
    )
    if not beside:
        start = os.path.join(overlay.path, ".reset", stamp)
    number, path = 1, start
    while os.path.lexists(path):
        number += 1
        path = f"{start}-{number}"
    return path


def _overlay(ctx: Context) -> Overlay:
    if ctx.overlay is not None:
        return ctx.overlay
    # A server that runs without its overlay, perhaps because of the very thing that a reset cures.
    from overlayspawner.payload.storage import overlay_path

    if not ctx.home:
        ctx.require()
    spec = ctx.spec
    return Overlay(overlay_path(spec, ctx.home), name=spec.name, kind=spec.kind, lifetime=spec.lifetime)


def _set_aside_a_non_directory(overlay: Overlay) -> None:
    """Make room where a file or a dangling link stands in the overlay's place, and make the directory."""
    if not os.path.isdir(overlay.path):
        if os.path.lexists(overlay.path):
            stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")
            files.rename(overlay.path, f"{overlay.path}.reset-{stamp}-{os.urandom(2).hex()}")
        makedirs(overlay.path)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turn the storage's errors into ones that a user may see."""
    try:
        yield
    except OSError as e:
        raise storage_error(e) from e


def _tell(on_event: Optional[OnEvent], message: str, phase: str = "committing") -> None:
    if on_event is not None:
        on_event({"phase": phase, "message": message})


def _requirements(overlay: Overlay) -> list[str]:
    try:
        return [redact(entry.text) for entry in Requirements.read(overlay.requirements).entries()]
    except (OSError, ValueError, OverlayError):
        return []  # damaged: it is moved aside as it is


def _installed(env: Env) -> dict[str, plan.Item]:
    try:
        return {name: plan.Item(dist.version) for name, dist in dists.overlay_dists(env).items()}
    except (OSError, ValueError):
        return {}


def _plan(gone: Mapping[str, plan.Item], come: Optional[Mapping[str, plan.Item]] = None) -> dict[str, Any]:
    come = come or {}
    out = plan.build(
        new={name: item for name, item in come.items() if gone.get(name) != item},
        overlay=gone,
        base={},
        uninstalled=[name for name in gone if name not in come],
    )
    return {**out, "needs_restart": True}


def _record(
    ctx: Context,
    env: Env,
    action: str,
    who: str,
    argv: Sequence[str],
    change: dict[str, Any],
    folder: str,
    before: list[str],
    after: list[str],
) -> dict[str, Any]:
    overlay = _overlay(ctx)
    return {
        "when": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "who": who,
        "action": action,
        "argv": [redact(word) for word in argv],
        "base": {"key": ctx.base.key, "lock": ctx.base_lock or ctx.base.lock()},
        "env": os.path.relpath(env.path, overlay.path),
        "plan": change,
        "requirements": {"before": before, "after": after},
        "folder": folder,
    }
