"""What was asked for one start only: safe mode or a reset, by the hub or for the next start.

The hub's wish comes with the container's environment, which outlives it: a container that is started again
has the same. So each wish has a nonce, and the nonces that were used are kept in the user's storage. On the
start path.
"""

from __future__ import annotations

import os

from overlayspawner.payload import files
from overlayspawner.payload.contract import OverlayError, Spec, notice
from overlayspawner.payload.overlay import Overlay, makedirs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from overlayspawner.payload.context import Context
    from overlayspawner.payload.probe import Base

STARTS = "starts.json"
NEXT = "next-start.json"
SWAP = "swap.json"  # swap.JOURNAL, without importing what a start does not need

KEEP = 500
"""Nonces that are remembered. One that was forgotten would be followed again by a container that is kept,
while other servers of the same home use up new ones."""


def wanted(spec: Spec, overlay_path: str) -> bool:
    """Whether there is anything for :func:`take` to do: two ``stat`` calls where the hub wants nothing."""
    return (
        bool(spec.nonce)
        or spec.safe
        or os.path.lexists(os.path.join(overlay_path, NEXT))
        or os.path.lexists(os.path.join(overlay_path, SWAP))
    )


def take(
    spec: Spec,
    overlay_path: str,
    base: Base | None = None,
    notices: list[dict[str, str]] | None = None,
) -> str:
    """Follow what was asked for this start, once; return ``"safe"`` for one without the overlay, else ``""``.

    Parameters
    ----------
    spec:
        The hub's instructions.
    overlay_path:
        Where the overlay lives, whether or not it exists.
    base:
        The image's Python; probed when it is left out and needed.
    notices:
        Takes what the user should know.

    Raises
    ------
    OverlayError
        A reset was asked for and failed: all is as it was.
    """
    safe = _take_next(overlay_path) == "safe" or (spec.safe and not spec.nonce)
    if spec.nonce and spec.nonce not in _used(overlay_path):
        recorded = _record(overlay_path, spec.nonce)
        # What can't be recorded would be followed at each start of this container. Safe mode may be.
        safe = safe or spec.safe
        if spec.reset and recorded is not None:
            raise recorded
        if spec.reset:
            _reset(spec, overlay_path, base, [] if notices is None else notices)
    if not safe and os.path.lexists(os.path.join(overlay_path, SWAP)):
        _mend(spec, overlay_path)
    return "safe" if safe else ""


def ask(overlay_path: str, mode: str) -> None:
    """Ask for a mode of the next start, or take that back.

    Parameters
    ----------
    mode:
        ``safe`` or ``normal``.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    path = os.path.join(overlay_path, NEXT)
    if mode == "normal":
        files.unlink(path)
        return
    import json

    makedirs(overlay_path)
    files.write_atomic(path, json.dumps({"mode": mode}) + "\n")


def asked(overlay_path: str) -> str:
    """Return what is asked for the next start: ``safe`` or ``normal``. Changes nothing."""
    return _read_mode(os.path.join(overlay_path, NEXT)) or "normal"


def _read_mode(path: str) -> str:
    if not os.path.lexists(path):
        return ""
    import json

    try:
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
        return "safe" if data["mode"] == "safe" else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _take_next(overlay_path: str) -> str:
    """Return the mode that was asked for, and forget it."""
    path = os.path.join(overlay_path, NEXT)
    if not os.path.lexists(path):
        return ""
    taken = f"{path}.{os.urandom(4).hex()}.tmp"
    try:
        files.rename(path, taken)  # of two servers that start at the same time one gets it
    except FileNotFoundError:
        return ""
    except OSError:
        return _read_mode(path)  # it stays until the storage can be written to
    mode = _read_mode(taken)
    files.remove_tree(taken)
    return mode


def _places(overlay_path: str) -> list[str]:
    """Return where nonces are kept: in the overlay, or beside what stands in its place."""
    parent, name = os.path.split(overlay_path)
    return [os.path.join(overlay_path, STARTS), os.path.join(parent, f".{name}.{STARTS}")]


def _used(overlay_path: str) -> list[str]:
    import json

    used = []
    for path in _places(overlay_path):
        try:
            with open(path, encoding="utf-8") as f:
                used += [str(nonce) for nonce in json.load(f)["used"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # none yet, or damaged: it holds nothing else, and is written anew
    return used


def _record(overlay_path: str, nonce: str) -> OverlayError | None:
    """Remember a nonce; return why that can't be done."""
    import json

    inside, beside = _places(overlay_path)
    text = json.dumps({"used": [*_used(overlay_path), nonce][-KEEP:]}) + "\n"
    try:
        if not os.path.lexists(overlay_path):
            makedirs(overlay_path)
        path = inside if os.path.isdir(overlay_path) else beside
        files.write_atomic(path, text)
        files.fsync_dir(os.path.dirname(path))
    except OSError as e:
        from overlayspawner.payload.lease import storage_error

        return storage_error(e)
    return None


def _context(spec: Spec, overlay_path: str, base: Base | None) -> Context:
    from overlayspawner.payload.context import Context
    from overlayspawner.payload.probe import probe

    overlay = Overlay(overlay_path, name=spec.name, kind=spec.kind, lifetime=spec.lifetime)
    return Context(spec=spec, base=base or probe(), home="", runtime="", payload="", overlay=overlay)


def _reset(spec: Spec, overlay_path: str, base: Base | None, notices: list[dict[str, str]]) -> None:
    if os.path.isdir(overlay_path) and os.listdir(overlay_path) == [STARTS]:
        return  # there was no overlay before we recorded the nonce
    from overlayspawner.payload.reset import reset

    done = reset(_context(spec, overlay_path, base), who="spawn page")
    folder = done["revision"]["folder"]
    notices.append(
        notice(
            "reset-done",
            f"Your overlay was moved to {folder}, and a new one was started.",
            "`overlay undo` brings it back.",
        )
    )


def _mend(spec: Spec, overlay_path: str) -> None:
    from overlayspawner.payload import swap

    try:
        swap.mend(Overlay(overlay_path, name=spec.name, kind=spec.kind, lifetime=spec.lifetime))
    except OverlayError:
        pass  # whoever began is still at work, or the storage can't be written to
