"""A home that has another path than before, and a server that has to hear of a repair."""

from __future__ import annotations

import os

from overlayspawner.payload import files, kernelspec
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import SERVER_JSON, OverlayError
from overlayspawner.payload.doctor.common import FIX, Check, check
from overlayspawner.payload.follow import ABOUT_THE_ENV
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.relocate import moved_from, relocate


def home(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """Whether the env's scripts know where it is."""
    old = moved_from(env)
    if old:
        return check("place", False, f"The environment was made at {old}; its commands name that path.", FIX)
    return check("place", True, "The environment is where it was made.")


def mend(ctx: Context, overlay: Overlay, env: Env) -> list[str]:
    """Rewrite what names the old path.

    Raises
    ------
    OverlayError
        ``busy``, or what the storage says.
    """
    if relocate(ctx, who="doctor", argv=["doctor", "--fix"]) is None:
        return []
    return ["What named the old path of the environment was rewritten."]


def tell_server(ctx: Context) -> list[str]:
    """Let the running server see an env that it started without.

    Its view is a file of the runtime dir, which it reads again when that has changed.
    """
    if not ctx.runtime or ctx.mode == "safe":
        return []
    try:
        known = Context.load(ctx.runtime)
    except (OSError, ValueError, KeyError, TypeError, OverlayError):
        return []
    if known.env is not None and known.mode == ctx.mode == "normal":
        return []
    ctx.mode = "normal"
    ctx.notices = [item for item in known.notices if item.get("code") not in ABOUT_THE_ENV]
    try:
        files.write_atomic(os.path.join(ctx.runtime, SERVER_JSON), ctx.to_json(), 0o600, sync=False)
    except OSError as e:
        raise OverlayError(
            "no-runtime-dir", f"The running server could not be told: {e.strerror}.", "Restart your server."
        ) from e
    kernelspec.refresh(ctx)
    return ["The running server sees the overlay again; new kernels use it."]
