"""One Docker engine, as all spawners of this process see it: clients, threads, and what is known about it.

Never DockerSpawner's own executor: that is a single thread for all users, and a stream or a pull would stop
everybody's spawns.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from overlayspawner.hub import bundles
from overlayspawner.hub.deaths import DeathWatch
from overlayspawner.hub.delivery import Bundle, Delivery
from overlayspawner.hub.image_facts import ImageFacts, read_facts
from overlayspawner.hub.output import Reader
from overlayspawner.hub.pull import Pulls

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

THREADS = 16
PULL_THREADS = 4
_MAX_FACTS = 200


class Engine:
    """An engine.

    Parameters
    ----------
    make_client:
        Returns a new ``docker.APIClient``.
    """

    def __init__(self, make_client: Callable[[], Any]) -> None:
        self.client = make_client()
        self.deaths = DeathWatch(make_client)
        self.reader = Reader()
        self.delivery = Delivery()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="overlay-docker")
        self._pull_pool = ThreadPoolExecutor(PULL_THREADS, thread_name_prefix="overlay-pull")
        self.pulls = Pulls(partial(self._submit, self._pull_pool))
        self._facts: dict[str, ImageFacts] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @staticmethod
    def _submit(pool: ThreadPoolExecutor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return asyncio.wrap_future(pool.submit(partial(function, *args, **kwargs)))

    async def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a blocking function in one of our threads."""
        result: T = await self._submit(self._pool, function, *args, **kwargs)
        return result

    def _lock(self, name: str) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # tests run several loops after one another
            self._loop, self._locks = loop, {}
        return self._locks.setdefault(name, asyncio.Lock())

    async def facts(self, image: str, info: dict[str, Any] | None = None) -> ImageFacts:
        """Return the facts of an image; read once per image id.

        Parameters
        ----------
        image:
            Its name.
        info:
            What ``inspect_image`` said just now, where that is known.

        Raises
        ------
        docker.errors.APIError
            The engine has no such image, or refuses.
        """
        inspected: dict[str, Any] = info or {}
        if not inspected:
            inspected = await self.run(self.client.inspect_image, image)
        key = str(inspected["Id"])
        async with self._lock("facts " + key):
            facts = self._facts.get(key)
            if facts is None:
                uv = bundles.find_uv()
                extra = (uv.loader,) if uv and uv.loader else ()
                facts = await self.run(read_facts, self.client, inspected, extra)
                while len(self._facts) >= _MAX_FACTS:
                    self._facts.pop(next(iter(self._facts)))
                self._facts[key] = facts
        return facts

    async def ensure(self, bundle: Bundle, image: str) -> bool:
        """Make sure that a volume is filled; spawns that need the same one wait for each other.

        Raises
        ------
        docker.errors.APIError
            The engine refuses.
        """
        async with self._lock("volume " + bundle.volume):
            return await self.run(self.delivery.ensure, self.client, bundle, image)


_engines: dict[str, Engine] = {}
_connecting: dict[str, Future[Engine]] = {}
_lock = threading.Lock()
# Not the loop's default executor: tornado looks names up there, and an engine that hangs would stop that.
_connectors = ThreadPoolExecutor(2, thread_name_prefix="overlay-connect")


async def connect(key: str, make_client: Callable[[], Any]) -> Engine:
    """Return the engine of this process that ``key`` stands for; the first call connects.

    Raises
    ------
    docker.errors.DockerException, OSError
        There is no answer. The next call tries again.
    """
    with _lock:
        engine = _engines.get(key)
        if engine is not None:
            return engine
        future = _connecting.get(key)
        if future is None:
            future = _connecting[key] = _connectors.submit(_connect, key, make_client)
    waiter = asyncio.wrap_future(future)
    waiter.add_done_callback(lambda f: f.cancelled() or f.exception())  # nobody may be left to look at it
    # shielded: others may wait for the same connection when this start is cancelled
    return await asyncio.shield(waiter)


def _connect(key: str, make_client: Callable[[], Any]) -> Engine:
    try:
        engine = Engine(make_client)
        with _lock:
            return _engines.setdefault(key, engine)
    finally:
        with _lock:
            _connecting.pop(key, None)
