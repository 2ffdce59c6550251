"""A container in view while it starts: what it prints, and whether it lives."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from docker.errors import DockerException, NotFound
from requests.exceptions import RequestException

from overlayspawner.hub.deaths import Death
from overlayspawner.hub.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from overlayspawner.hub.engine import Engine

ENGINE_ERRORS = (DockerException, RequestException, OSError)
"""What goes wrong when an engine is asked for something."""

_ATTACH_TIMEOUT = 3.0  # seconds: output is nice to have, a start is not to wait for it
_CONNECT_TIMEOUT = 1.0
_FIRST_LOOK, _LOOK = 1.0, 3.0  # seconds between looks, should the stream of events be interrupted
_LAST_WORDS = 0.5  # seconds that output may take to arrive after a death


class StartWatch:
    """The view of one container's start. To be opened before the container is started.

    Parameters
    ----------
    engine:
        Where the container is.
    container:
        Its id.
    secrets:
        What is not to be shown of its output.
    tty:
        Whether it has a terminal.
    restarts:
        Whether the engine may start it again when it dies: then an event alone proves nothing.
    on_hint:
        Called in the event loop's thread with code and sentence of each line of ours in the output.
    """

    def __init__(
        self,
        engine: Engine,
        container: str,
        *,
        secrets: Iterable[str] = (),
        tty: bool = False,
        restarts: bool = False,
        on_hint: Callable[[str, str], None],
    ) -> None:
        self.engine = engine
        self.container = container
        self._restarts = restarts
        loop = asyncio.get_running_loop()

        def hint(code: str, sentence: str) -> None:
            with suppress(RuntimeError):  # the hub is shutting down
                loop.call_soon_threadsafe(on_hint, code, sentence)

        self._output = Output(secrets, hint, tty=tty)
        self._death = engine.deaths.watch(container)

    async def attach(self) -> str:
        """Attach to the output; return what went wrong, or ``""``."""
        engine = self.engine
        if not engine.deaths.connected.is_set():  # the first start of this hub
            await engine.run(engine.deaths.connected.wait, _CONNECT_TIMEOUT)
        try:
            attaching = engine.run(engine.reader.attach, engine.client, self.container, self._output)
            await asyncio.wait_for(attaching, _ATTACH_TIMEOUT)
        except asyncio.TimeoutError:
            return f"the engine did not answer in {_ATTACH_TIMEOUT:g} seconds"
        except ENGINE_ERRORS as e:
            return str(e)
        return ""

    def close(self) -> None:
        """Look away."""
        self.engine.reader.detach(self._output)
        self.engine.deaths.forget(self._death)

    async def next_death(self) -> Death:
        """Return how the container died, once it has."""
        pause = _FIRST_LOOK
        while True:
            if self._death.done():
                # it died once, and may be restarting
                await asyncio.sleep(pause)
            else:
                await asyncio.wait({self._death}, timeout=pause)
            death = await self.death_now()
            if death is not None:
                return death
            pause = _LOOK

    async def death_now(self, patience: float = 0.0) -> Death | None:
        """Return how the container died, ``None`` when it lives or nobody knows.

        Parameters
        ----------
        patience:
            Seconds to wait for the event of its death.
        """
        if patience:
            await asyncio.wait({self._death}, timeout=patience)
        if self._death.done() and not self._restarts:
            return self._death.result()
        return await self._look()

    async def _look(self) -> Death | None:
        try:
            obj = await self.engine.run(self.engine.client.inspect_container, self.container)
        except NotFound:
            return Death(None)
        except ENGINE_ERRORS:
            return None
        state = obj["State"]
        if state.get("Running") or state.get("Restarting") or state.get("Status") == "created":
            return None
        return Death(state.get("ExitCode"), bool(state.get("OOMKilled")), state.get("Error") or "")

    async def last_words(self) -> str:
        """Return the tail of what a dead container printed, without secrets."""
        end = asyncio.get_running_loop().time() + _LAST_WORDS
        while not self._output.ended.is_set() and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # it is a thread's event: there is nothing to await
        return self._output.tail()
