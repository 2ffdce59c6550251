"""Which of several lines would break something of the image, where the others shall come; for ``fitting``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from overlayspawner.payload import constraints, forced
from overlayspawner.payload.breaks import breaks
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, base_dists
from overlayspawner.payload.fitting import Refused, split_pin
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import Requirement, parse
from overlayspawner.payload.resolving import REFUSED
from overlayspawner.payload.sentences import would_break
from overlayspawner.payload.stage import Stage


class Keeper:
    """Sees to it that the image's packages keep what they need; see :class:`~.fitting.Judge`.

    Parameters
    ----------
    stage:
        Where an attempt leaves what came.
    overlay, base:
        What there is.
    lines:
        The user's lines. Those that were agreed to break something are let in.
    sure:
        Others that are let in, whatever they do: the administrator's, and what was there before.
    pins:
        The lines of a lock. A package of the image that they replace asks for nothing.
    resolve:
        ``resolve(lines, constraints, **how)`` fills the stage, or raises :class:`OverlayError`.
    """

    code = "would-break"
    hint = "To have it nevertheless: overlay install --anyway, with that line."

    def __init__(
        self,
        ctx: Context,
        stage: Stage,
        overlay: Mapping[str, Dist],
        base: Mapping[str, Dist],
        lines: Sequence[Requirement],
        sure: Sequence[Requirement],
        pins: Sequence[str],
        resolve: Callable[..., None],
    ) -> None:
        self._rules = constraints.rules(ctx)
        self._stage = stage
        self._overlay = overlay
        self._base = base
        agreed = forced.among(ctx.require()[0], lines)
        self._free = forced.targets(agreed)
        self._sure = {redact(line.text) for line in sure} | set(agreed)
        self._resolve = resolve
        other = {
            name for name, version in map(split_pin, pins) if name in base and base[name].version != version
        }
        rules = [rule for rule in self._rules if rule.owner not in other]
        self._limits = constraints.limits(rules, overlay, self._free)
        self._lines = [line for lines in self._limits.values() for line in lines]
        self.pins = [pin for pin in pins if self._admits(*split_pin(pin))]
        """Those without versions that the image's packages don't admit."""

    def _admits(self, name: str, version: str) -> bool:
        wanted = [line[len(name) :] for line in self._limits.get(name, ())]
        return all(constraints.admits(specifier, version) for specifier in wanted)

    def fill(self, lines: Sequence[str], pins: Sequence[str], **how: Any) -> None:
        """Fill the stage with versions that leave the image's packages what they need.

        Without pins, and where nothing fits, with any versions: what they need may be replaced as well, which
        only a look at what has come can tell. Pins make room first.
        """
        again = REFUSED if self._lines and not pins else ()
        try:
            self._resolve(lines, [*pins, *self._lines], again=again, **how)
        except OverlayError as e:
            if e.code not in again:
                raise
            self._stage.clear()
            self._resolve(lines, [], **how)

    def _fits(self, line: Requirement) -> bool:
        """Whether there are versions for a line by itself; the stage is lost."""
        self._stage.clear()
        try:
            self._resolve([line.text], self._lines, again=REFUSED, dry=True)
        except OverlayError as e:
            if e.code not in REFUSED:
                raise
            return False
        return True

    def before(self, lines: Sequence[Requirement]) -> Refused:
        """Return nothing: only what has come tells."""
        return []

    def after(self, lines: Sequence[Requirement]) -> Refused:
        """Return the lines that break something, each with what it would be."""
        staged = self._stage.result().apart_from(self._base)
        comes = {**self._overlay, **staged}
        judged = [line for line in lines if redact(line.text) not in self._sure]
        found: dict[str, tuple[Requirement, str]] = {}
        for item in breaks(staged, self._overlay, self._base, (), lambda: self._rules) if judged else ():
            target = item["by"]["name"]
            was = self._base.get(target) or self._overlay.get(target)
            if target in self._free or was is None:
                continue
            for line in forced.culprits(judged, target, was.version, comes.get):
                found.setdefault(line.text, (line, would_break(item)))
        # some of them may only have followed the others
        out = [item for item in found.values() if not self._fits(item[0])]
        return out or list(found.values())[-1:]


def adopted(ctx: Context, lines: Sequence[str], found: Mapping[str, Dist]) -> None:
    """Take what another tool did for agreed to: it is there, and has to come again with the next env.

    Parameters
    ----------
    lines:
        Those that were written for it.
    found:
        What the overlay holds.
    """
    base = base_dists(ctx)
    if not lines or base.keys().isdisjoint(found):
        return
    wanted = [parse(line, trusted=True) for line in lines]
    agreed: dict[str, set[str]] = {}
    rules = constraints.rules(ctx)
    for target in sorted(base.keys() & found.keys()):
        if constraints.unmet(rules, target, found):
            for line in forced.culprits(wanted, target, base[target].version, found.get):
                agreed.setdefault(line.text, set()).add(target)
    forced.note(ctx.require()[0], agreed, ())
