"""The actions of an overlay by name: what the REST interface and the command line both offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from overlayspawner.payload import swap
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.procs import Cancel

FIELDS: dict[str, tuple[str, ...]] = {
    "install": ("install", "force", "expect"),
    "uninstall": ("uninstall", "expect"),
    "upgrade": ("upgrade", "force", "expect"),
    "sync": ("force", "expect"),
    "restore": ("revision",),
    "undo": ("revision",),
    "reset": (),
    "import": ("source",),
    "clean": ("what", "dry_run"),
}
"""Action to the fields that its request may have. ``install``, ``uninstall`` and ``upgrade`` are lists of
texts, ``revision`` is a number (missing: the latest that makes sense), ``source`` a text. ``force`` is true
where something may stop working, ``expect`` is the one of the plan that was agreed to. ``what`` is a list of
kinds (:data:`~overlayspawner.payload.cleanup.KINDS`), ``dry_run`` true or false."""

_GIVEN = {"force": False, "expect": None}

OnEvent = Callable[[dict[str, Any]], None]


def run(
    ctx: Context,
    action: str,
    request: Mapping[str, Any],
    *,
    on_event: Optional[OnEvent] = None,
    cancel: Optional[Cancel] = None,
    who: str = "",
    argv: Sequence[str] = (),
) -> dict[str, Any]:
    """Do one action, all or nothing.

    Parameters
    ----------
    ctx:
        The server's view of its overlay.
    action, request:
        One of :data:`FIELDS`, and its fields.
    on_event:
        Called with ``{"phase", "message"}`` and ``"package"`` where one is meant.
    cancel:
        Asked until the commit starts.
    who:
        Who changes it: shown to others that wait, and kept in the history.
    argv:
        The command as the user typed it, for the history; made from the request when empty.

    Returns
    -------
    dict
        ``{"revision": {…, "changed": bool}, "plan": …}``.

    Raises
    ------
    OverlayError
        Nothing was changed, and the message says why.
    """
    if action not in FIELDS:
        raise OverlayError(
            "unknown-action", f"There is no action {action!r}.", f"The actions are {', '.join(FIELDS)}."
        )
    if ctx.overlay is not None:
        swap.mend(ctx.overlay)  # one stat, as good as always
    common: dict[str, Any] = {"on_event": on_event, "cancel": cancel, "who": who, "argv": argv}
    # imported late: each brings its own part of the engine along
    if action in ("install", "uninstall", "upgrade", "sync"):
        from overlayspawner.payload.apply import apply

        out = apply(
            ctx, action, **{key: request.get(key, _GIVEN.get(key, ())) for key in FIELDS[action]}, **common
        )
    elif action == "undo":
        from overlayspawner.payload.undo import undo

        out = undo(ctx, request.get("revision"), **common)
    elif action == "restore":
        from overlayspawner.payload.restore import restore

        out = restore(ctx, request.get("revision"), **common)
    elif action == "reset":
        from overlayspawner.payload.reset import reset

        out = reset(ctx, **common)
    elif action == "clean":
        from overlayspawner.payload.cleanup import clean

        out = clean(ctx, request.get("what") or (), dry_run=bool(request.get("dry_run")), **common)
    else:
        from overlayspawner.payload.importing import import_packages

        out = import_packages(ctx, request.get("source", ""), **common)
    _after(ctx)
    return out


def _after(ctx: Context) -> None:
    """Bring the runtime dir up to date with what the overlay holds now; what was interrupted is past."""
    from overlayspawner.payload import interrupted, kernelspec

    interrupted.forget(ctx)
    if ctx.runtime:
        kernelspec.refresh(ctx)
