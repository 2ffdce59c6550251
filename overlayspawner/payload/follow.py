"""A running server follows what was repaired in a terminal: its view is a file of the runtime dir."""

from __future__ import annotations

import os

from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import SERVER_JSON, OverlayError

ABOUT_THE_ENV = frozenset({"env-broken", "damaged-file"})
"""Codes of notices that are no longer true once an env works again."""


class Follower:
    """Keeps a context up to date with ``server.json``.

    Parameters
    ----------
    context:
        Changed in place: others hold it too.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seen = self._stamp()

    def look(self) -> bool:
        """Read the file again if it has changed: one ``stat`` while it has not. Never raises.

        Returns
        -------
        bool
            Whether something is other than before.
        """
        stamp = self._stamp()
        if stamp in (self._seen, (0, 0)):
            return False
        self._seen = stamp
        context = self._context
        try:
            found = Context.load(context.runtime)
        except (OSError, ValueError, KeyError, TypeError, OverlayError):
            return False
        before = (context.mode, context.env and context.env.path)
        context.mode, context.overlay, context.env = found.mode, found.overlay, found.env
        if found.env is not None:
            # what this server has noticed since its start stays
            context.notices = [n for n in context.notices if n.get("code") not in ABOUT_THE_ENV]
        return before != (context.mode, context.env and context.env.path)

    def _stamp(self) -> tuple[int, int]:
        try:
            info = os.stat(os.path.join(self._context.runtime, SERVER_JSON))
        except OSError:
            return 0, 0
        return info.st_ino, info.st_mtime_ns
