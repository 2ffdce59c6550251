"""Building an env again, or bringing it to what an earlier change left.

An env is fresh when the image is another one, when the container is (an ephemeral overlay), or when the old
env was damaged. Then everything that ``requirements.txt`` and the administrator ask for is installed again,
in the versions of a lock where there is one that fits. What cannot be had is listed, the rest is installed.

How far an env has come is written into it (``restore.json`` in ``Env.state``), so that a start can tell from
two small files whether there is anything to do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Optional

from overlayspawner.payload import revisions
from overlayspawner.payload.apply import ACTIONS
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError, notice
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.events import Events, OnEvent
from overlayspawner.payload.mark import Mark, Since, asked, is_of
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.procs import Cancel
from overlayspawner.payload.rebuild import Restore, ToRevision
from overlayspawner.payload.requirements import parse


def restore(
    ctx: Context,
    revision: Optional[int] = None,
    *,
    on_event: Optional[OnEvent] = None,
    cancel: Optional[Cancel] = None,
    who: str = "",
    argv: Sequence[str] = (),
    labels: Optional[dict[str, Any]] = None,
) -> dict[str, Any]:
    """Bring the env to what lock and requirements say, or to what an earlier change left.

    Parameters
    ----------
    ctx:
        The server's view of its overlay.
    revision:
        Number of a change: requirements and versions become what they were after it; 0 means nothing at
        all. Versions are downloaded where they are not there any more.
    on_event, cancel, who, argv:
        As for every change.
    labels:
        What else the revision records.

    Returns
    -------
    dict
        ``{"revision": …, "plan": …}``; the plan's ``failed`` lists ``{requirement, reason, hint, code}`` of
        what could not be installed.

    Raises
    ------
    OverlayError
        Nothing was changed, and the message says why: ``not-found`` for an unknown revision,
        ``index-unreachable`` when it is to be tried again later, ``not-restored`` when nothing at all could
        be installed.
    """
    if revision is not None:
        return ToRevision(ctx, revision, Events(on_event, cancel), who, argv, labels).start()
    _, env = ctx.require()
    job = Restore(ctx, Events(on_event, cancel), who, argv, labels)
    try:
        result = job.start()
    except OverlayError as e:
        if e.code == "not-restored":
            job.mark.reached(env, Since(job.overlay, ctx), job.failed)
        elif e.code not in ("busy", "damaged-file"):
            job.mark.stopped(env, e)
        raise
    return result


def wanted(ctx: Context) -> Optional[str]:
    """Return why a restore is due, in a sentence, or ``None``. Reads a few small files; never raises."""
    try:
        overlay, env = ctx.require()
        mark = Mark.read(env)
        have, want = (mark.asked, mark.admin), asked(overlay, ctx, fresh=mark.fresh)
        if mark.fresh:
            if not any(want) or (have[1] == want[1] and _changed_here(overlay, env)):
                return None
            return "Your packages are not installed for this image yet."
        if mark.state in ("waiting", "running", "pending"):
            return "Installing your packages was not finished."
        if have == want:
            return None
        new = [line for line in (*want[0], *want[1]) if line not in (*have[0], *have[1])]
        if new:
            here = mark.added_since(overlay, env)
            new = [line for line in new if line not in here]
        gone = [name for name in mark.removed_since(overlay, env) if name in overlay_dists(env)]
        gone = [name for name in gone if name not in {parse(line, trusted=True).name for line in want[0]}]
    except (OSError, OverlayError, ValueError, TypeError, AttributeError, KeyError):
        return None
    if new:
        return f"Not installed here yet: {_some(new)}."
    return f"Removed elsewhere: {_some(gone)}." if gone else None


def _changed_here(overlay: Overlay, env: Env) -> bool:
    """Whether an env without a mark is one that an earlier version of this program kept up to date."""
    last = revisions.latest(overlay) or {}
    return is_of(last, env) and last.get("action") in ACTIONS and bool(overlay_dists(env))


def state(ctx: Context) -> Optional[dict[str, Any]]:
    """Return how the last restore of this env went; ``None`` when there was none and none is due.

    Returns
    -------
    dict
        ``state`` (``pending``, ``running``, ``waiting``, ``partial`` or ``done``), ``failed``, ``why`` (a
        sentence or ``None``) and ``error`` (its ``{code, message, hint}`` or ``None``).
    """
    try:
        _, env = ctx.require()
    except OverlayError:
        return None
    mark = Mark.read(env)
    why = wanted(ctx)
    if mark.fresh and why is None:
        return None
    found = mark.state
    if why is not None and found in ("done", "partial", ""):
        found = "pending"
    return {"state": found, "failed": mark.failed, "why": why, "error": mark.told}


def restore_notice(ctx: Context) -> Optional[dict[str, str]]:
    """Return what the user should know about it: one notice, or ``None``."""
    now = state(ctx)
    if now is None:
        return None
    if now["state"] == "running":
        return notice("restoring")
    if now["state"] in ("waiting", "pending"):
        error = now["error"] or {}
        text = " ".join(part for part in (now["why"], error.get("message")) if part)
        return notice("restore-waiting", text, error.get("hint") or "Run `overlay restore` to do it now.")
    if now["failed"]:
        names = _some([f"{item['requirement']} ({item['reason']})" for item in now["failed"]])
        return notice(
            "restore-partial",
            f"Could not be installed again for this image: {names}",
            now["failed"][0]["hint"] or "Change the line in requirements.txt, then run `overlay sync`.",
        )
    return None


def before_start(
    ctx: Context, limit: float, *, on_event: Optional[OnEvent] = None
) -> Optional[dict[str, Any]]:
    """Restore within a time limit, for a start that waits for it. Never raises.

    What is not done in time is left as it was, and due as before.

    Parameters
    ----------
    limit:
        Seconds.

    Returns
    -------
    dict or None
        The notice about what is left to do.
    """
    until = _Until(time.monotonic() + limit)
    try:
        while wanted(ctx) is not None and not until.is_set():
            try:
                restore(ctx, on_event=on_event, cancel=until, who="the start of a server")
                break
            except OverlayError as e:
                # another server that changes this env will be done soon
                if e.code != "busy":
                    break
                time.sleep(min(1.0, max(0.0, until.left())))
        return restore_notice(ctx)
    except Exception:
        return notice("restore-waiting")


class _Until:
    """A :class:`Cancel` that says when time is up."""

    def __init__(self, when: float) -> None:
        self.when = when

    def left(self) -> float:
        return self.when - time.monotonic()

    def is_set(self) -> bool:
        return self.left() <= 0


def _some(items: Sequence[str], shown: int = 5) -> str:
    more = len(items) - shown
    return ", ".join(items[:shown]) + (f" and {more} more" if more > 0 else "")
