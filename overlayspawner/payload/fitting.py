"""As much as can be had: which requirement lines, which versions of a lock an index can still give. Pure.

First everything is tried at once. Only what fails is divided, so that one line that can't be had costs a few
more attempts, not one for each line. Earlier lines win over later ones that contradict them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional, Protocol

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import Requirement

UNREACHABLE = frozenset({"index-unreachable", "index-auth"})
"""Errors that are the index's, for an ordinary line; for a URL they may be that line's alone."""

_OF_A_LINE = UNREACHABLE | {
    "no-such-package",
    "no-matching-version",
    "conflict",
    "build-failed",
    "bad-package",
    "installer-failed",
    "policy",
    "no-upload-times",
}
"""Errors that leaving out a line may mend. After others (a full disk, a cancellation) it is no use."""

_ENOUGH = 2
"""After so many ordinary lines that fail because of the index, and none that succeeds, it is the index."""

_SAME = "Nothing was changed."

HINT = "Ask for another version or package. The rules are your administrator's: overlay_deny and the like."
"""What to do about a line that the hub's rules don't let in."""


Refused = list[tuple[Requirement, str]]
"""Lines that may not come in, each with the sentence that says why."""


def split_pin(pin: str) -> tuple[str, str]:
    """Return name and version of a line of a lock, which may have hashes."""
    name, _, rest = pin.partition("==")
    return name, rest.partition(" ")[0]


class Judge(Protocol):
    """What the search asks about rules; see :class:`overlayspawner.payload.gate.Judge`."""

    code: str
    hint: str

    def before(self, lines: Sequence[Requirement]) -> Refused:
        """Return the lines that are not worth an attempt."""

    def after(self, lines: Sequence[Requirement]) -> Refused:
        """Return the lines that brought into the stage what may not come."""


class Fitting:
    """The search; the results are in :attr:`accepted` and :attr:`failed`.

    Parameters
    ----------
    resolve:
        ``resolve(lines, constraints, rebuild=…, build=…, dry=…, offline=…)`` fills the stage, or raises
        :class:`OverlayError`.
    clear:
        Empties the stage.
    say:
        Told ``(phase, message)``.
    judges:
        Say which lines may not come in, before and after an attempt.
    """

    def __init__(
        self,
        resolve: Callable[..., None],
        clear: Callable[[], None],
        say: Callable[[str, str], None],
        *judges: Judge,
    ) -> None:
        self.accepted: list[Requirement] = []
        """Lines whose packages are in the stage."""
        self.failed: list[dict[str, str]] = []
        """``{requirement, reason, hint, code}`` of each line that can't be had."""
        self._resolve = resolve
        self._clear = clear
        self._say = say
        self._judges = judges
        self._used = False
        self._staged: Optional[list[Requirement]] = None
        self._rebuild: Sequence[str] = ()
        self._refused = 0

    def run(
        self,
        lines: Sequence[Requirement],
        pins: Sequence[str] = (),
        *,
        exact: bool = True,
        rebuild: Sequence[str] = (),
    ) -> None:
        """Fill the stage with as much as can be had.

        Parameters
        ----------
        lines:
            All requirements.
        pins:
            ``name==version`` lines of a lock, with hashes perhaps.
        exact:
            The lock is of this kind of Python: try it as a whole. Else its versions are kept one by one,
            where there are wheels.
        rebuild:
            Names of which nothing that was built earlier may be taken.

        Raises
        ------
        OverlayError
            Trying other lines would not help.
        """
        self._rebuild = rebuild
        refused: dict[str, dict[str, str]] = {}
        for judge in self._judges:
            refused.update(self._refuse(judge, judge.before(lines)))
        while True:
            left = [line for line in lines if redact(line.text) not in refused]
            self._search(left, pins, exact)
            found: dict[str, dict[str, str]] = {}
            for judge in self._judges if self.accepted else ():
                found = found or self._refuse(judge, judge.after(self.accepted))
            if not found:
                break
            # without these lines others may fit that did not
            refused.update(found)
            self._clear()
            self._used, self._staged, self._refused = False, None, 0
            self.accepted, self.failed = [], []
        self.failed = [*refused.values(), *self.failed]

    def _refuse(self, judge: Judge, found: Refused) -> dict[str, dict[str, str]]:
        """Return what is to be told of refused lines, by line."""
        out = {}
        for line, why in found:
            text = redact(line.text)
            self._say("resolving", f"Left out: {text}. {why}")
            out[text] = {"requirement": text, "reason": why, "hint": judge.hint, "code": judge.code}
        return out

    def _search(self, lines: Sequence[Requirement], pins: Sequence[str], exact: bool) -> None:
        """Fill the stage with as much as the index can give."""
        if not lines:
            return
        limits = list(pins) if exact else self._versions(lines, pins)
        error = self._attempt(lines, limits)
        if error is not None and error.code in UNREACHABLE:
            self._say("resolving", "The index can't be reached; perhaps all is on this machine already.")
            if self._attempt(lines, limits, offline=True) is None:
                return
        if error is None:
            return
        # Another file under the same name and version is refused for good: the pins stay. Else versions that
        # are gone from the index make room for others.
        refused = error.code == "bad-package"
        keep = limits if refused else []
        if limits and not refused:
            self._say("resolving", "Not every version of the lock can be had any more.")
        if refused or not limits or self._attempt(lines, [], dry=True) is not None:
            accepted = self._grow([], list(lines), keep)
        else:
            accepted = list(lines)
        if not accepted:
            self._clear()
            return
        if not refused:
            keep = self._versions(accepted, pins)
        if self._staged != accepted or keep:
            error = self._attempt(accepted, keep)
            if error is not None and keep and not refused:
                error = self._attempt(accepted, [])
            if error is not None:
                raise error

    def _attempt(
        self, lines: Sequence[Requirement], limits: Sequence[str], **how: Any
    ) -> Optional[OverlayError]:
        """Try; return the error that leaving out something may mend, raise every other."""
        if self._used:
            self._clear()
        self._used = True
        self._staged = None
        try:
            self._resolve([r.text for r in lines], list(limits), rebuild=self._rebuild, **how)
        except OverlayError as e:
            if e.code in _OF_A_LINE:
                return e
            raise
        if not how.get("dry"):
            self._staged = list(lines)
            self.accepted = list(lines)
        return None

    def _grow(
        self, sure: list[Requirement], more: list[Requirement], limits: Sequence[str]
    ) -> list[Requirement]:
        """Return ``sure`` with those of ``more`` that go along with it."""
        error = self._attempt([*sure, *more], limits)
        if error is None:
            return [*sure, *more]
        if len(more) > 1:
            half = len(more) // 2
            return self._grow(self._grow(sure, more[:half], limits), more[half:], limits)
        line = more[0]
        if error.code in UNREACHABLE and not line.url and not sure:
            self._refused += 1
            if self._refused >= _ENOUGH or not self.failed:
                raise error
        self._say("resolving", f"Left out for now: {redact(line.text)}. {_reason(error)}")
        self.failed.append(
            {
                "requirement": redact(line.text),
                "reason": _reason(error),
                "hint": error.hint,
                "code": error.code,
            }
        )
        return sure

    def _versions(self, lines: Sequence[Requirement], pins: Sequence[str]) -> list[str]:
        """Return those pins that can be kept together, without building anything where that is possible."""
        if not pins:
            return []
        build = self._attempt(lines, [], dry=True, build=False) is not None
        if build and self._attempt(lines, [], dry=True) is not None:
            return []

        def grow(sure: list[str], more: list[str]) -> list[str]:
            if self._attempt(lines, [*sure, *more], dry=True, build=build) is None:
                return [*sure, *more]
            if len(more) == 1:
                return sure
            half = len(more) // 2
            return grow(grow(sure, more[:half]), more[half:])

        return grow([], list(pins))


def _reason(error: OverlayError) -> str:
    return error.message.replace(_SAME, "").strip()
