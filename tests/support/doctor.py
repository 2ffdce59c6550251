"""What must be true of an overlay after every ordinary operation, whatever happened in the middle of it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from overlayspawner.payload import doctor
from overlayspawner.payload.context import Context
from overlayspawner.payload.overlay import Overlay


def complaints(ctx: Context, *, without: Iterable[str] = ()) -> dict[str, str]:
    """Return what the doctor finds wrong: name of the check → its message.

    Parameters
    ----------
    without:
        Names of checks that the scenario can't pass (a made-up env has no interpreter, for example).
    """
    left_out = set(without)
    return {c["name"]: c["message"] for c in doctor.examine(ctx) if not c["ok"] and c["name"] not in left_out}


def leftovers(overlay: Overlay) -> list[str]:
    """Return what no finished operation leaves in an overlay: stages, temporary files, half-made envs."""
    found: list[str] = []
    for folder, folders, names in os.walk(overlay.path):
        inside = os.path.relpath(folder, overlay.path)
        for name in [*folders, *names]:
            ours = inside in (".", "revisions", "envs") or os.path.basename(folder) == ".overlay"
            if ours and (name.endswith(".tmp") or name.startswith(("stage-", ".new-", ".doctor-"))):
                found.append(os.path.normpath(os.path.join(inside, name)))
        folders[:] = [name for name in folders if name not in ("lib", "bin", "set-aside", "kept")]
    return sorted(found)


def assert_clean(ctx: Context, *, without: Iterable[str] = ()) -> None:
    """Fail unless the doctor is content and nothing was left behind.

    Parameters
    ----------
    without:
        See :func:`complaints`.
    """
    found = complaints(ctx, without=without)
    assert not found, found
    assert ctx.overlay is not None
    left = leftovers(ctx.overlay)
    assert not left, left
