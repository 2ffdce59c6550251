"""What a change tells while it runs: its phases, the installer's lines as events, the closing sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Optional

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.procs import Cancel

OnEvent = Callable[[dict[str, Any]], None]

_FETCHED = re.compile(
    r"^\s*(?:Downloading|Downloaded|Building|Built|Collecting|Using cached)\s+([A-Za-z0-9._-]+)"
)
_STAGED = re.compile(r"^\s*(?:Prepared|Installed|Uninstalled|Installing|Successfully|[+-] )")


class Events:
    """Who listens to a change, and may stop it.

    Parameters
    ----------
    on_event:
        Called with ``{"phase", "message"}`` and ``"package"`` where one is meant. Phases: ``resolving``,
        ``downloading``, ``staging``, ``committing``, ``done``.
    cancel:
        Asked whether to stop.
    """

    def __init__(self, on_event: Optional[OnEvent] = None, cancel: Optional[Cancel] = None) -> None:
        self.cancel = cancel
        self._on_event = on_event

    def say(
        self, phase: str, message: str, *, package: str = "", plan: Optional[dict[str, Any]] = None
    ) -> None:
        """Hand on one event; with a ``plan`` where that tells more."""
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
        match = _FETCHED.match(line)
        phase = "resolving"
        if match:
            phase = "downloading"
        elif _STAGED.match(line):
            phase = "staging"
        self.say(phase, line.strip(), package=match[1] if match else "")

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
