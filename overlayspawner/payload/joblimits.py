"""How long a job may take, and how long it may show no sign of life.

A job that hangs would keep the others waiting, the overlay locked and its server from being culled. Life is
whatever gets on: a line that was printed, bytes that were read or written, processor time that was used. A
spinner that turns is none.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from overlayspawner.payload import proctable
from overlayspawner.payload.procs import Cancel

SHARE = 0.01
"""Share of one processor below which a process counts as waiting: a turning spinner takes a thousandth."""

NOISE = 4096
"""Bytes that mean nothing: what is on its way between two looks."""


class JobLimits:
    """Stops work that takes too long or hangs; a :class:`~overlayspawner.payload.procs.Cancel`.

    Parameters
    ----------
    cancel:
        What else may stop it.
    total:
        Seconds that it may take; 0: no limit.
    silence:
        Seconds without a sign of life; 0: no limit.
    on_ask:
        Called about once a second while somebody asks whether to stop: the work is going on.
    """

    def __init__(
        self,
        cancel: Cancel,
        *,
        total: float = 0.0,
        silence: float = 0.0,
        on_ask: Callable[[], None] | None = None,
    ) -> None:
        self.over = ""
        """``total`` or ``silence`` once that limit was passed."""
        self.total = total
        self.silence = silence
        self._cancel = cancel
        self._on_ask = on_ask
        self._asked = 0.0
        self._began = self._alive = self._looked = time.monotonic()
        self._signs = -1
        self._mark = ""
        self._work = (0.0, 0)

    def is_set(self) -> bool:
        """Return whether to stop."""
        now = time.monotonic()
        if self._on_ask is not None and now - self._asked >= 1.0:
            self._asked = now
            self._on_ask()
        if not self.over and self.total and now - self._began >= self.total:
            self.over = "total"
        return bool(self.over) or self._cancel.is_set()

    def restart(self) -> None:
        """Begin to count anew: the job has only waited until now."""
        self._began = self._alive = self._looked = time.monotonic()

    def look(self, mark: str, signs: int, raw: int) -> None:
        """Called several times a second while a program runs.

        Parameters
        ----------
        mark:
            Of its processes; see :data:`~overlayspawner.payload.proctable.RUN_ENV`.
        signs, raw:
            What it has printed; see :class:`~overlayspawner.payload.screen.Output`.
        """
        now = time.monotonic()
        if mark != self._mark or signs != self._signs:
            self._mark, self._signs, self._alive = mark, signs, now
            self._work = (-1.0, 0)
            return
        # looking costs a little, and whoever was heard a moment ago needs none
        if not self.silence or now - max(self._alive, self._looked) < min(1.0, self.silence / 5):
            return
        self._looked = now
        seconds, count = proctable.work(mark)
        count -= raw  # what they drew for us
        before = self._work
        used = max(0.02, SHARE * (now - self._alive))
        if before[0] < 0 or seconds - before[0] > used or count - before[1] > NOISE:
            # the first look since the last sign has nothing to compare with, and is no sign itself
            self._alive = self._alive if before[0] < 0 else now
            self._work = (seconds, count)
        elif now - self._alive >= self.silence:
            self.over = "silence"
