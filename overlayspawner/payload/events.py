"""What a change tells while it runs: its phases, the installer's lines as events, the closing sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Optional

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.procs import Cancel

OnEvent = Callable[[dict[str, Any]], None]

_FETCHED = re.compile(r"^\s*(?:Downloading|Downloaded|Using cached)\b")
_BUILT = re.compile(r"^\s*(?:Building|Built)\b")
_STAGED = re.compile(r"^\s*(?:Prepared|Installed|Uninstalled|Installing|Successfully|[+-] )")


class Events:
    """Who listens to a change, and may stop it.

    Parameters
    ----------
    on_event:
        Called with ``{"phase", "message"}`` and ``"package"`` where one is meant. Phases: ``resolving``,
        ``downloading``, ``building``, ``staging``, ``committing``, ``done``. Events about how far packages
        have come hold them as ``packages``, and are ``quiet`` where only a number of bytes is new.
    cancel:
        Asked whether to stop.
    """

    def __init__(self, on_event: Optional[OnEvent] = None, cancel: Optional[Cancel] = None) -> None:
        self.cancel = cancel
        self._on_event = on_event
        self._phase = "resolving"

    def say(
        self, phase: str, message: str, *, package: str = "", plan: Optional[dict[str, Any]] = None
    ) -> None:
        """Hand on one event; with a ``plan`` where that tells more."""
        self._phase = phase
        if self._on_event is not None:
            event: dict[str, Any] = {"phase": phase, "message": message}
            if package:
                event["package"] = package
            if plan is not None:
                event["plan"] = plan
            self._on_event(event)

    def repaired(self, state: str) -> None:
        """Tell of a change that had been interrupted; ``state`` is what ``change.repair`` returned."""
        if state != "clean":
            self.say("resolving", f"An earlier change had been interrupted; it was {state}.")

    def line(self, line: str) -> None:
        """Turn a line of uv's or pip's output into an event."""
        if _FETCHED.match(line):
            phase = "downloading"
        elif _BUILT.match(line):
            phase = "building"
        elif _STAGED.match(line):
            phase = "staging"
        else:
            phase = self._phase  # most lines say nothing about it
        self.say(phase, line.strip())

    def packages(self, changed: list[dict[str, Any]], message: str, quiet: bool, expected: int) -> None:
        """Hand on how far packages have come.

        Parameters
        ----------
        changed, message, quiet, expected:
            See :data:`~overlayspawner.payload.installer.progress.OnPackages`.
        """
        states = {entry["state"] for entry in changed}
        for state in ("building", "downloading"):
            if state in states:
                self._phase = state
                break
        if self._on_event is not None:
            event: dict[str, Any] = {"phase": self._phase, "message": message, "packages": changed}
            event.update(quiet=quiet, expected=expected)
            if changed:
                event["package"] = changed[-1]["name"]
            self._on_event(event)

    def check_cancel(self) -> None:
        """Stop here when that was asked for.

        Raises
        ------
        OverlayError
            ``cancelled``.
        """
        if self.cancel is not None and self.cancel.is_set():
            raise OverlayError("cancelled", "It was cancelled. Nothing was changed.", status=409)


def done(plan: dict[str, Any]) -> str:
    """Return the sentence that says what a plan has done."""
    parts = []
    if plan["new"]:
        parts.append("Installed " + ", ".join(f"{p['name']} {p['version']}" for p in plan["new"]) + ".")
    if plan["removes"]:
        parts.append("Removed " + ", ".join(p["name"] for p in plan["removes"]) + ".")
    asked = [f"{p['name']} {p['version']}" for p in plan["satisfied_by_base"] if p["requested"]]
    if asked:
        parts.append("The image has " + ", ".join(asked) + " already.")
    return " ".join(parts) or "The requirements were updated."
