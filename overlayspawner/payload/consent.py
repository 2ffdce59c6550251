"""What a change needs somebody's word for: that it breaks something which stays, or differs from its plan.

Nobody is asked for what was agreed to before, what the administrator asks for, what takes something away, and
what brings an earlier state back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Optional

from overlayspawner.payload import forced, space
from overlayspawner.payload import plan as plans
from overlayspawner.payload.constraints import Rule, unmet
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist
from overlayspawner.payload.events import Events
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import Requirement
from overlayspawner.payload.sentences import no_room, would_break

_SHOWN = 5


class Consent:
    """What of a plan has to be agreed to.

    Parameters
    ----------
    plan:
        The plan.
    before, after:
        The user's lines before the change and after it.
    admin:
        The administrator's.
    was, image:
        What there is now by name, and what of it the image has.
    comes:
        What the overlay holds afterwards.
    rules:
        Returns what the image's packages ask for.
    asks:
        Whether anybody is asked.
    """

    def __init__(
        self,
        overlay: Overlay,
        plan: Mapping[str, Any],
        *,
        before: Sequence[Requirement],
        after: Sequence[Requirement],
        admin: Sequence[Requirement],
        was: Mapping[str, Dist],
        image: Mapping[str, Dist],
        comes: Mapping[str, Dist],
        rules: Callable[[], Iterable[Rule]] = tuple,
        asks: bool = True,
    ) -> None:
        self._overlay = overlay
        self._plan = plan
        self._before = before
        self._after = after
        self._admin = admin
        self._was = was
        self._image = image
        self._comes = comes
        self._rules = rules
        self._asks = asks

    def needed(self) -> list[dict[str, Any]]:
        """Return the entries of the plan's ``breaks`` that nobody has agreed to."""
        if not self._asks or not self._plan["breaks"]:
            return []
        # a line that is asked for anew is asked about anew
        agreed = forced.among(self._overlay, self._both())
        free = forced.targets(agreed)
        out = []
        for item in self._plan["breaks"]:
            target = item["by"]["name"]
            if target in free or (self._of(self._admin, target) and not self._of(self._after, target)):
                continue
            out.append(item)
        return out

    def choices(self) -> list[dict[str, Any]]:
        """Return what can be done about it.

        Returns
        -------
        list
            ``{choice, message}`` each; ``choice`` is ``cancel`` or ``force``, and in a plan also ``change``,
            with the lines to ``install`` instead.
        """
        items = self.needed()
        if not items:
            return []
        return [
            {"choice": "cancel", "message": "Leave everything as it is."},
            {"choice": "force", "message": "Install anyway, and remember it."},
        ]

    def check(self, events: Events, force: bool, expect: Optional[Mapping[str, Any]]) -> None:
        """Refuse what nobody has agreed to; whoever listens is told the plan.

        Raises
        ------
        OverlayError
            ``plan-changed``, ``would-break``.
        """
        plan = dict(self._plan)
        if expect is not None and plans.differs(plan, expect):
            events.say("staging", "Comparing what has come with what was agreed to.", plan=plan)
            raise OverlayError(
                "plan-changed",
                "Something else would be installed or removed than what was agreed to. Nothing was changed.",
                "Look at the plan again, and agree to it as it is now.",
                status=409,
            )
        items = self.needed()
        if items and not force:
            events.say("staging", "Looking at what would stop working.", plan=plan)
            told = [would_break(item) for item in items]
            more = f" {len(told) - _SHOWN} more." if len(told) > _SHOWN else ""
            raise OverlayError(
                "would-break",
                f"{' '.join(told[:_SHOWN])}{more} Nothing was changed.",
                "Ask for other versions; or install anyway: overlay install --anyway, `force` in the REST"
                " interface.",
                status=409,
            )

    def remember(self, force: bool) -> None:
        """Keep which lines were agreed to, and forget those that go. Best effort."""
        agreed: dict[str, set[str]] = {}
        for item in self.needed() if force else ():
            target = item["by"]["name"]
            for line in self._of(self._after, target):
                agreed.setdefault(line.text, set()).add(target)
        known = forced.among(self._overlay, self._before)
        after = {line.key: line for line in self._after}
        for line in self._before:
            new = after.get(line.key)
            if new is None or new.text == line.text:
                continue
            # in the place of one that was agreed to, and no better: nobody is asked about that
            for target in known.get(redact(line.text), ()):
                if unmet(self._rules(), target, self._comes) and self._of([new], target):
                    agreed.setdefault(new.text, set()).add(target)
        forced.note(self._overlay, agreed, self._after, [redact(line.text) for line in self._before])

    def _both(self) -> list[Requirement]:
        after = {redact(line.text) for line in self._after}
        return [line for line in self._before if redact(line.text) in after]

    def _of(self, lines: Sequence[Requirement], target: str) -> list[Requirement]:
        """Return the lines because of which a package is not what it was."""
        was = self._image.get(target) or self._was.get(target)
        return forced.culprits(lines, target, was.version, self._comes.get) if was is not None else []


def check_space(env: Env, expect: Optional[Mapping[str, Any]]) -> None:
    """Refuse what was agreed to where there is no room for its files, before any is downloaded.

    Raises
    ------
    OverlayError
        ``disk-full``.
    """
    needed = int((expect or {}).get("bytes") or 0)
    free = space.free(env) if needed else None
    if free is not None and needed > free:
        raise OverlayError(
            "disk-full",
            f"{no_room(needed, free)} Nothing was changed.",
            "Delete what you no longer need, then try again.",
            status=507,
        )
