"""Tells at once when a container dies: one shared stream of events per engine, read by one thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Death:
    """How a container ended.

    Parameters
    ----------
    exit_code:
        Its exit code, ``None`` when nobody knows.
    out_of_memory:
        Whether the kernel killed it, or a process in it, for want of memory.
    error:
        What the engine says about it.
    """

    exit_code: int | None
    out_of_memory: bool = False
    error: str = ""


class DeathWatch:
    """Watches containers of one engine.

    Parameters
    ----------
    make_client:
        Returns a new client: a stream needs a connection of its own.
    """

    def __init__(self, make_client: Callable[[], Any]) -> None:
        self._make_client = make_client
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Future[Death]]] = {}
        self._oom: set[str] = set()
        self._thread: threading.Thread | None = None
        self.connected = threading.Event()

    def watch(self, container: str) -> asyncio.Future[Death]:
        """Return a future of the death of a container, to be called before it is started.

        The stream may be interrupted: whoever waits looks at the container from time to time as well.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Death] = loop.create_future()
        with self._lock:
            self._waiting[container] = (loop, future)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="overlay-events", daemon=True)
                self._thread.start()
        return future

    def forget(self, future: asyncio.Future[Death]) -> None:
        """Stop watching, given what :meth:`watch` returned."""
        with self._lock:
            for container, (_loop, waiting) in list(self._waiting.items()):
                if waiting is future:
                    del self._waiting[container]
                    self._oom.discard(container)

    def _run(self) -> None:
        pause = 0.1
        while True:
            try:
                self._listen()
                pause = 0.1
            except Exception as e:
                log.debug("The stream of container events ended: %s", e)
                pause = min(pause * 2, 10.0)
            self.connected.clear()
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311

    def _listen(self) -> None:
        client = self._make_client()
        with contextlib.closing(client):
            # Podman says "die", too, but looks for its own words in filters.
            events = ["die", "oom", "destroy", "died", "remove"]
            stream = client.events(decode=True, filters={"type": "container", "event": events})
            self.connected.set()
            with contextlib.closing(stream):
                for event in stream:
                    self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        actor = event.get("Actor") or {}
        container = actor.get("ID") or event.get("id") or ""
        with self._lock:
            waiting = self._waiting.get(container)
            if waiting is None:
                return
            if event.get("Action") == "oom":
                self._oom.add(container)
                return
            out_of_memory = container in self._oom
        code = str((actor.get("Attributes") or {}).get("exitCode", ""))
        death = Death(int(code) if code.lstrip("-").isdigit() else None, out_of_memory)
        loop, future = waiting
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, future, death)


def _resolve(future: asyncio.Future[Death], death: Death) -> None:
    if not future.done():
        future.set_result(death)
