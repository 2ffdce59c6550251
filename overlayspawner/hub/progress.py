"""The phases of one spawn, as the spawn page shows them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_EVENTS = 300

PULL_FROM, PULL_TO = 5, 50
CREATE, START, STARTED, OURS, SERVER = 55, 60, 65, 75, 80


class Journal:
    """What happened in one spawn. Several pages may follow it; each sees all of it.

    Lives in the event loop's thread.
    """

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, progress: int, message: str, **more: Any) -> None:
        """Add an event, perhaps with more fields; a repeated message only moves the bar."""
        if self._closed or len(self._events) >= MAX_EVENTS:
            return
        event = {"progress": max(progress, self._highest()), "message": message, **more}
        if self._events and self._events[-1] == event:
            return
        self._events.append(event)
        self._wake()

    @property
    def closed(self) -> bool:
        """Whether nothing more comes."""
        return self._closed

    def close(self) -> None:
        """Say that nothing more comes."""
        self._closed = True
        self._wake()

    def _highest(self) -> int:
        return int(self._events[-1]["progress"]) if self._events else 0

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Give all events, past and to come, until the journal is closed."""
        at = 0
        while True:
            changed = self._changed
            while at < len(self._events):
                # a copy: JupyterHub changes what it is given
                yield dict(self._events[at])
                at += 1
            if self._closed:
                return
            if at == len(self._events) and changed is self._changed:
                await changed.wait()
