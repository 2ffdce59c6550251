"""Work in the hub's event loop that goes on when nobody waits for it any more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

_running: set[asyncio.Future[Any]] = set()  # asyncio itself does not hold on to its tasks


def start(work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
    """Begin something, and return its future; nobody has to keep it."""
    task = asyncio.ensure_future(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task
