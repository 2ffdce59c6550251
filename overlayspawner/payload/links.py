"""Links in the places of our own files and folders: nothing is written or deleted at their other end.

Users move large folders to other disks and leave a link: an overlay, its ``envs``, an env may be links. What
is cleared up, written in place or counted on to lie on the env's file system may not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.overlay import Env, Overlay

_SHARED = ("revisions", "locks", ".lock")
_STATE = ("set-aside", "kept", "spare", "stubs", "journal", "journal.json", "lock")


def of_overlay(overlay: Overlay) -> list[str]:
    """Return the links among what all envs of an overlay share."""
    return _links(os.path.join(overlay.path, name) for name in _SHARED)


def of_env(env: Env) -> list[str]:
    """Return the links in an env's state, or the state itself where it is one."""
    if os.path.islink(env.state):
        return [env.state]
    return _links(os.path.join(env.state, name) for name in _STATE)


def refuse(found: list[str]) -> None:
    """Refuse to change anything through links.

    Raises
    ------
    OverlayError
        ``damaged-file``, when there are any.
    """
    if found:
        raise OverlayError(
            "damaged-file",
            f"{found[0]} is a link: the overlay is not changed through it; nothing was changed.",
            "Put what it leads to in its place, or run `overlay doctor --fix`, which moves the link aside.",
            status=409,
        )


def _links(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if os.path.islink(path)]
