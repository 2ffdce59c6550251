"""Distributions whose files are damaged, installed again in the version they have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Optional

from overlayspawner.payload import sources
from overlayspawner.payload.apply import Job
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist
from overlayspawner.payload.events import Events, OnEvent
from overlayspawner.payload.procs import Cancel
from overlayspawner.payload.requirements import Requirement, Requirements, parse, parse_name
from overlayspawner.payload.stage import Stage, Staged

_OTHERWISE = frozenset({"no-such-package", "no-matching-version", "conflict", "build-failed"})
"""Errors after which another version is worth a try."""


def reinstall(
    ctx: Context,
    names: Iterable[str],
    *,
    on_event: Optional[OnEvent] = None,
    cancel: Optional[Cancel] = None,
    who: str = "",
    argv: Sequence[str] = (),
) -> dict[str, Any]:
    """Install distributions of the overlay again: from where they came, in their version if it can be had.

    Requirement lines stay as they are.

    Parameters
    ----------
    names:
        Normalised names of distributions of the overlay.
    on_event, cancel, who, argv:
        As for every change.

    Returns
    -------
    dict
        ``revision`` and ``plan`` as of every change.

    Raises
    ------
    OverlayError
        Nothing was changed, and the message says why.
    """
    job = _Again(
        ctx,
        "upgrade",
        upgrade=sorted({parse_name(name) for name in names}),
        events=Events(on_event, cancel),
        who=who,
        argv=argv,
        labels={"repairs": True},
    )
    return job.start()


class _Again(Job):
    """An upgrade to the version that is there: the installer does not get to see the damaged copies."""

    asks = False

    def fill(
        self,
        stage: Stage,
        after: Requirements,
        admin: list[Requirement],
        overlay: dict[str, Dist],
        base: dict[str, Dist],
    ) -> Staged:
        rest = {name: dist for name, dist in overlay.items() if name not in self.upgrade}
        exact = []
        for name in self.upgrade:
            if name in overlay:
                exact += sources.lines_of(overlay[name], self.ctx.home)
        try:
            return super().fill(stage, after, [*admin, *exact], rest, base)
        except OverlayError as e:
            if e.code not in _OTHERWISE or not exact:
                raise
            self.events.say("resolving", f"{e.message} Other versions are tried.")
        stage.clear()
        return super().fill(stage, after, [*admin, *(parse(name) for name in self.upgrade)], rest, base)
