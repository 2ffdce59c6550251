"""Finds the overlay that a command is about: that of the running server, else by looking."""

from __future__ import annotations

import os
import sys

from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import RUNTIME_ENV, OverlayError


def find(runtime: str = "", *, create: bool = False, missing: bool = False) -> Context:
    """Return the context to look at, or to change, the overlay with.

    Parameters
    ----------
    runtime:
        The runtime dir, when it is not the one that the environment names.
    create:
        Make an overlay where there is none (to install into it).
    missing:
        A context without an overlay is fine too.

    Raises
    ------
    OverlayError
        ``no-overlay``, ``home-unknown``, ``read-only`` and others that say why there is none.
    """
    directory = runtime or os.environ.get(RUNTIME_ENV, "")
    context: Context | None = None
    if directory:
        try:
            context = Context.load(directory)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # the server that made it is gone
    if context is None:
        context = _look(create)
    if not missing:
        context.for_changes().require()
    return context


def _look(create: bool) -> Context:
    """Find the overlay of this user without a server: in a hand-started container, on a plain machine."""
    from overlayspawner.payload import bootstrap
    from overlayspawner.payload.contract import Spec
    from overlayspawner.payload.lease import storage_error
    from overlayspawner.payload.overlay import Overlay
    from overlayspawner.payload.probe import probe
    from overlayspawner.payload.storage import overlay_path

    if os.path.isdir(os.path.join(sys.prefix, ".overlay")):
        raise OverlayError(
            "bad-request",
            "This is the overlay's own Python, which can't tell what its image holds.",
            "Run the command with the image's Python.",
        )
    spec = bootstrap.read_spec(os.environ) or Spec()
    base = probe()
    home = bootstrap.find_home(os.environ)
    if not home:
        raise OverlayError("home-unknown", hint="Set the variable HOME.")
    if not os.path.isdir(home):
        raise OverlayError(
            "home-unknown", f"The home directory {home} does not exist.", "Set the variable HOME."
        )
    if os.geteuid() == 0 and os.stat(home).st_uid != 0:
        raise OverlayError(
            "root-start",
            f"This is root, but {home} belongs to another user, who could not change what root makes there.",
            "Run the command as that user.",
        )
    context = Context(
        spec=spec, base=base, home=home, runtime="", payload="", mode="normal", base_lock=base.lock()
    )
    overlay = Overlay(overlay_path(spec, home), name=spec.name, kind=spec.kind, lifetime=spec.lifetime)
    if spec.lifetime == "ephemeral":
        # its env lives and dies with a server; without one there is nothing to change
        context.overlay = overlay if os.path.isdir(overlay.path) else None
        return context
    if create:
        try:
            overlay.create(base)
        except OSError as e:
            raise storage_error(e) from e
    if os.path.isdir(overlay.path):
        context.overlay = overlay
        env = overlay.env(base)
        context.env = env if env.usable() else None
    return context
