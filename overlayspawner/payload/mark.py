"""How far an env has come: which requirement lines it was brought to, and what could not be had.

``restore.json`` in ``Env.state``. A file that is missing or damaged means a fresh env: looking again costs a
resolution and breaks nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Optional

from overlayspawner.payload import files, merge, revisions
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.overlay import LOCAL_PREFIX, Env, Overlay
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import Requirements, parse

SCHEMA = 1
STATES = ("pending", "running", "waiting", "partial", "done")

WAITING = frozenset({"index-unreachable", "index-auth", "timeout"})
"""Errors that go away by themselves: it is tried again."""


class Mark:
    """What ``restore.json`` says.

    Attributes
    ----------
    state:
        One of :data:`STATES`; ``""`` for a fresh env.
    asked, admin:
        The lines, of the user and of the administrator, that the env was brought to; without credentials.
    revision:
        The overlay's latest change at that time.
    failed:
        ``{requirement, reason, hint, code}`` of lines that could not be had.
    told:
        The error that stopped the last attempt, ``{code, message, hint}``, or ``None``.
    settled:
        The change of this env after which it was known to hold all that was asked for; 0 for none.
    under:
        What that was resolved under, see :func:`under`.
    """

    def __init__(self) -> None:
        self.state = ""
        self.asked: list[str] = []
        self.admin: list[str] = []
        self.revision = 0
        self.failed: list[dict[str, str]] = []
        self.told: Optional[dict[str, str]] = None
        self.settled = 0
        self.under: list[str] = []

    @property
    def fresh(self) -> bool:
        """Whether nothing was ever finished here."""
        return (
            not self.revision and not self.asked and not self.admin and self.state not in ("done", "partial")
        )

    @classmethod
    def read(cls, env: Env) -> Mark:
        """Read it; what can't be understood counts as missing."""
        out = cls()
        try:
            with open(path(env), encoding="utf-8") as f:
                data = json.load(f)
            if data["schema"] != SCHEMA or data["state"] not in STATES:
                return out
            got = cls()
            got.state = data["state"]
            got.asked, got.admin = _texts(data["asked"]), _texts(data["admin"])
            got.revision = int(data["revision"])
            got.failed = [{str(k): str(v) for k, v in item.items()} for item in data["failed"]]
            # an earlier version did not write these
            got.settled, got.under = int(data.get("settled") or 0), _texts(data.get("under") or [])
            told = data.get("told")
            got.told = {str(k): str(v) for k, v in told.items()} if told else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return out
        return got

    def write(self, env: Env) -> None:
        """Write it, best effort: without it the next start looks again."""
        data = {"schema": SCHEMA, **self.__dict__}
        try:
            # beside the env's other state, where the next writer sweeps temporary files
            files.write_atomic(path(env), json.dumps(data, indent=1) + "\n", 0o600, sync=False)
        except OSError:
            pass

    def begin(self, env: Env) -> None:
        """A restore starts."""
        self.state = "running"
        self.write(env)

    def stopped(self, env: Env, error: OverlayError) -> None:
        """A restore ended with nothing changed."""
        self.state = "waiting" if error.code in WAITING else "pending"
        self.told = {"code": error.code, "message": error.message, "hint": error.hint}
        if error.code == "cancelled":
            self.told = None  # who did that knows
        self.write(env)

    def reached(self, env: Env, since: Since, failed: Sequence[dict[str, str]] = ()) -> None:
        """The env holds all of ``since``, but for what ``failed``."""
        self.asked, self.admin, self.revision = since.asked, since.admin, since.revision
        self.settled, self.under = (0 if failed else since.settled), since.under
        self.failed = list(failed)
        self.told = None
        codes = {item.get("code", "") for item in failed}
        self.state = "waiting" if codes & WAITING else "partial" if failed else "done"
        self.write(env)

    def is_settled(self, overlay: Overlay, env: Env, since: Since, file: Requirements) -> bool:
        """Whether the env is known to hold all that is asked for: nothing has changed since all was resolved.

        Parameters
        ----------
        since, file:
            What is asked for now, and the user's file, which may have been edited.
        """
        same = (self.asked, self.admin, self.under) == (since.asked, since.admin, since.under)
        edited = sorted(redact(entry.text) for entry in file.entries()) != since.asked
        if self.state != "done" or not same or edited or not self.settled:
            return False
        return latest(overlay, env) == self.settled

    def undone(self, overlay: Overlay, ctx: Context, root: dict[str, Any], revision: int) -> None:
        """A change was undone offline: an env that was settled before it is so again."""
        _, env = ctx.require()
        before = (root.get("requirements") or {}).get("before")
        lines, admin = asked(overlay, ctx)
        if self.state != "done" or root.get("settled") != under(ctx) or before is None:
            return
        if sorted(_texts(before)) == lines and admin == self.admin and self.settled == root.get("id"):
            self.asked, self.settled = lines, revision
            self.write(env)

    def added_since(self, overlay: Overlay, env: Env) -> set[str]:
        """Return lines that changes of this env added without writing a mark: an undo, an adoption."""
        out: set[str] = set()
        for data in self._later(overlay):
            if is_of(data, env):
                lines = data.get("realised") or data.get("requirements") or {}
                out |= set(_texts(lines.get("after"))) - set(_texts(lines.get("before")))
        return out

    def removed_since(self, overlay: Overlay, env: Env) -> list[str]:
        """Return names whose lines changes of other envs took out since this one was up to date."""
        if self.fresh:
            return []
        out: dict[str, None] = {}
        for data in self._later(overlay):
            if is_of(data, env):
                continue
            lines = data.get("realised") or data.get("requirements") or {}
            after = _names(lines.get("after"))
            out.update((name, None) for name in _names(lines.get("before")) if name not in after)
        return list(out)

    def _later(self, overlay: Overlay) -> Iterator[dict[str, Any]]:
        for number in revisions.ids(overlay):
            data = revisions.read(overlay, number) if number > self.revision else None
            if data is not None:
                yield data


class Since:
    """What is asked for when a change begins: later lines, of a server on another image, are not in it.

    Parameters
    ----------
    overlay, ctx:
        Read at once.
    """

    def __init__(self, overlay: Overlay, ctx: Context) -> None:
        numbers = revisions.ids(overlay)
        self.revision = numbers[-1] if numbers else 0
        self.asked, self.admin = asked(overlay, ctx)
        self.under = under(ctx)
        self.settled = 0

    def edit(self, after: Requirements, removed: Iterable[str]) -> None:
        """Set the lines to those of a change that resolved them all.

        Lines that the user took out by hand stay until a ``sync``, as they stay installed.
        """
        going = set(removed)
        lines = {entry.key: redact(entry.text) for entry in after.entries()}
        for line in self.asked:
            lines.setdefault(_key(line), line)
        self.asked = sorted(line for key, line in lines.items() if key not in going)

    def without(self, mark: Mark, removed: Iterable[str]) -> None:
        """Set the lines to those of a mark, after a change that only removed some."""
        going = set(removed)
        self.asked = [line for line in mark.asked if _key(line) not in going]
        self.admin, self.under = mark.admin, mark.under


def path(env: Env) -> str:
    """Return the file."""
    return os.path.join(env.state, "restore.json")


def is_of(revision: dict[str, Any], env: Env) -> bool:
    """Whether a revision changed this env, or an earlier one of its name.

    Ephemeral envs of one image have one name, and two containers may have theirs at the same time.
    """
    told = str(revision.get("env") or "")
    return os.path.basename(told) == os.path.basename(env.path) and _local(told) == _local(env.path)


def latest(overlay: Overlay, env: Env) -> int:
    """Return the number of the latest change of an env; 0 where there is none."""
    for number in reversed(revisions.ids(overlay)):
        data = revisions.read(overlay, number)
        if data is not None and is_of(data, env):
            return number
    return 0


def under(ctx: Context) -> list[str]:
    """Return what lines are resolved under, besides themselves: the base's packages, and constraints."""
    return [ctx.base_lock or ctx.base.lock(), *map(redact, ctx.spec.constraints)]


def _local(path: str) -> str:
    """Return the name of the container's directory that an ephemeral env lies in, or ``""``."""
    return next((part for part in path.split("/") if part.startswith(LOCAL_PREFIX)), "")


def asked(overlay: Overlay, ctx: Context, *, fresh: bool = False) -> tuple[list[str], list[str]]:
    """Return the lines an env should be brought to: the user's and the administrator's, sorted and redacted.

    Parameters
    ----------
    fresh:
        Nothing is installed yet: the user's file counts as it stands. Else hand edits wait for a ``sync``,
        and what the last change wrote counts.

    Raises
    ------
    OSError
        The file can't be read.
    """
    if fresh:
        source = merge.now(overlay)
    else:
        source = merge.last(overlay)
    mine = sorted(redact(entry.text) for entry in source.entries())
    return mine, sorted(redact(line) for line in ctx.spec.requirements)


def _key(line: str) -> str:
    try:
        return parse(line, trusted=True).key
    except OverlayError:
        return line


def _names(lines: object) -> list[str]:
    out = []
    for line in lines if isinstance(lines, list) else []:
        try:
            out.append(parse(line, trusted=True).name)
        except OverlayError:
            continue
    return [name for name in out if name]


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return [str(item) for item in value]
