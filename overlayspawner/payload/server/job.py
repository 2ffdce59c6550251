"""One long-running action: what it is, how far it is, and what it has said so far."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.procs import redact

MAX_EVENTS = 400
"""Events kept of one job, and lines of its log; older ones are dropped."""

MAX_LINE = 2000
"""Characters kept of one line of a log."""

MAX_PACKAGES = 1000
"""Packages that a job tells of."""

UNKNOWN_SIZE = 200_000
"""Bytes that a package counts for while its size is not known."""

FINISHED = ("done", "failed", "cancelled")

# What share of the work lies behind when a phase begins: an estimate for a progress bar, nothing more.
_PROGRESS = {
    "resolving": 0.1,
    "downloading": 0.2,
    "building": 0.2,
    "staging": 0.7,
    "committing": 0.9,
    "done": 1.0,
}

Event = dict[str, Any]


def now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean(text: object) -> str:
    """Return one line that may be shown: bounded, without credentials and control characters."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[: MAX_LINE * 4])
    line = redact(line)
    return line if len(line) <= MAX_LINE else line[:MAX_LINE] + " …"


class Job:
    """One action of the server extension.

    Parameters
    ----------
    action:
        Name of the action.
    request:
        The action's fields: see :data:`actions.FIELDS`; what is left out has its default.
    who:
        The user that asked (``server`` for what it does by itself), for the revision.
    """

    def __init__(self, action: str, request: Mapping[str, Any] | None = None, who: str = "") -> None:
        # Not a counter: a page that outlived a restart must not be shown another job under its number.
        self.id = secrets.token_hex(8)
        self.action = action
        self.request: dict[str, Any] = {"install": [], "uninstall": [], "upgrade": [], **(request or {})}
        self.who = who
        self.state = "queued"
        self.phase = ""
        self.message = ""
        self.progress = 0.0
        self.plan: dict[str, Any] | None = None
        self.revision: int | None = None
        self.failed: list[dict[str, str]] = []
        self.reload = False
        self.error: dict[str, str] | None = None
        self.created = now()
        self.started: str | None = None
        self.finished: str | None = None
        self.outcome: tuple[str, OverlayError | None] = ("", None)
        """State and error that it ends with, before it is shown as ended."""
        self.cancel = threading.Event()
        self.packages: dict[str, dict[str, Any]] = {}
        self._expected = 0
        self.position: int | None = None
        self.log: deque[str] = deque(maxlen=MAX_EVENTS)
        self.events: deque[tuple[int, str, dict[str, Any]]] = deque(maxlen=MAX_EVENTS)
        self.sequence = 0

    def to_dict(self, *, log: bool = False) -> dict[str, Any]:
        """Return the JSON shape.

        Parameters
        ----------
        log:
            With ``log``: the messages so far.
        """
        out: dict[str, Any] = {
            "id": self.id,
            "action": self.action,
            "who": self.who,
            "request": self.request,
            "state": self.state,
            "position": self.position,
            "phase": self.phase,
            "message": self.message,
            "progress": self.progress,
            # the worker may be adding to them meanwhile
            "packages": [dict(entry) for entry in list(self.packages.values())],
            "plan": self.plan,
            "revision": self.revision,
            "failed": self.failed,
            "reload": self.reload,
            "error": self.error,
            "created": self.created,
            "started": self.started,
            "finished": self.finished,
        }
        if log:
            out["log"] = list(self.log)
        return out

    def take(self, event: Event) -> dict[str, Any]:
        """Take in what the work tells; return what is told to those that follow the job."""
        self.phase = str(event.get("phase") or self.phase)
        self.message = clean(event.get("message") or "")
        if self.message and not event.get("quiet"):
            self.log.append(self.message)
        changed = self._packages(event.get("packages") or ())
        self._expected = max(self._expected, int(event.get("expected") or 0))
        given = event.get("progress")
        share = float(given) if isinstance(given, (int, float)) else self._share()
        # a bar never runs backwards, and is full only when the job is done
        self.progress = max(self.progress, min(share, 0.99))
        plan = event.get("plan")
        if isinstance(plan, dict):
            self.plan = plan
        data: dict[str, Any] = {"phase": self.phase, "message": self.message, "progress": self.progress}
        if event.get("package"):
            data["package"] = clean(event["package"])
        if changed:
            data["packages"] = changed
            last = changed[-1]
            data.update({key: last[key] for key in ("bytes", "total") if last[key] is not None})
        return data

    def _packages(self, entries: Any) -> list[dict[str, Any]]:
        changed = []
        for entry in entries:
            name = clean(entry.get("name") or "")
            if name not in self.packages and len(self.packages) >= MAX_PACKAGES:
                continue
            told = {
                "name": name,
                "version": clean(entry.get("version") or ""),
                "state": str(entry.get("state")),
                "bytes": entry.get("bytes"),
                "total": entry.get("total"),
            }
            self.packages[name] = told
            changed.append(dict(told))
        return changed

    def _share(self) -> float:
        share = _PROGRESS.get(self.phase, self.progress)
        if self.phase not in ("downloading", "building"):
            return share
        come, all_of_it = 0, max(0, self._expected - len(self.packages)) * UNKNOWN_SIZE
        for entry in self.packages.values():
            weight = entry["total"] or UNKNOWN_SIZE
            all_of_it += weight
            come += weight if entry["state"] in ("ready", "installed") else entry["bytes"] or 0
        if not self._expected and not any(entry["total"] for entry in self.packages.values()):
            return share  # what is built while versions are looked for says nothing about the rest
        return share + (_PROGRESS["staging"] - share) * min(1.0, come / max(1, all_of_it))

    @property
    def was_interrupted(self) -> bool:
        """Whether the end of the server is what ended it."""
        _, error = self.outcome
        return error is not None and error.code == "interrupted"

    def end(self) -> None:
        """Show how it ended: its :attr:`outcome`."""
        state, error = self.outcome
        self.state = state
        self.finished = now()
        self.phase = ""
        self.position = None
        if state == "done":
            self.progress = 1.0
            for entry in self.packages.values():
                entry["state"] = "installed"
        if error is not None:
            self.error = {
                key: "\n".join(clean(line) for line in value.splitlines()[-200:])
                for key, value in error.to_dict().items()
            }
            self.message = self.error["message"]
