"""The config objects that bring the payload into services: made where they are absent, removed when unused.

A config object can't be changed, and is named by the payload's hash. There is one for each file of the
payload, because older engines allow half a megabyte for each. An engine removes none that a service still
names, so what is in use needs no guessing.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from docker.errors import APIError

from overlayspawner.hub import payload_zip
from overlayspawner.hub.delivery import PAYLOAD_LABEL

if TYPE_CHECKING:
    from overlayspawner.hub.engine import Engine

log = logging.getLogger(__name__)

MAX_BYTES = 1_024_000
"""A config object is smaller than this."""

_LOOK_EVERY = 3600.0  # seconds between looks for old objects
_YOUNGEST = (
    3600.0  # seconds for which one of another payload is left alone: a service may be about to name it
)


class ConfigStore:
    """Our config objects in one swarm, for all spawners of a hub.

    Parameters
    ----------
    engine:
        A manager of the swarm.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, tuple[str, str]] = {}
        self._making: asyncio.Future[dict[str, tuple[str, str]]] | None = None
        self._looked = -_LOOK_EVERY

    async def ensure(self) -> dict[str, tuple[str, str]]:
        """Make the objects that are absent; return the payload's files, each with its object's id and name.

        Raises
        ------
        docker.errors.APIError
            The engine refuses.
        ValueError
            There is an object of this name that holds something else.
        """
        if not self._known:
            if self._making is None:
                # one for all spawns that wait for it
                self._making = asyncio.ensure_future(self._engine.run(self._make))
                self._making.add_done_callback(self._made)
            return await asyncio.shield(self._making)
        return self._known

    def _made(self, making: asyncio.Future[dict[str, tuple[str, str]]]) -> None:
        # nobody may be left to wait for it, and the next start has it all the same
        self._making = None
        if not making.cancelled() and making.exception() is None:
            self._known = making.result()

    def forget(self) -> None:
        """Look again at the next start."""
        self._known = {}

    def _make(self) -> dict[str, tuple[str, str]]:
        payload = payload_zip.build()
        mark, content = payload.mark()
        out = {}
        for file, data in {**payload.contents(), mark: content}.items():
            name = f"{prefix()}{file}"
            out[file] = (self._make_one(name, data, payload.id), name)
        return out

    def _make_one(self, name: str, data: bytes, version: str) -> str:
        client = self._engine.client
        for _ in range(2):
            found = _named(client, name)
            if found is None:
                try:
                    made = client.create_config(name, data, labels={PAYLOAD_LABEL: version})
                except APIError as e:
                    if e.status_code != 409:  # another hub was faster
                        raise
                    continue
                log.info("Made the config object %s with the overlay's payload.", name)
                return str(made["ID"])
            # Whoever took the name could run code in all users' servers.
            if base64.b64decode(found["Spec"].get("Data") or "") != data:
                raise ValueError(f"the config object {name} holds something else than its name says")
            return str(found["ID"])
        raise ValueError(f"the config object {name} can be neither made nor found")

    async def remove_old(self) -> list[str]:
        """Remove objects of other payloads that no service uses, once in a while; return their names."""
        if time.monotonic() - self._looked < _LOOK_EVERY:
            return []
        self._looked = time.monotonic()
        return await self._engine.run(remove_unused, self._engine.client, youngest=_YOUNGEST)


def prefix() -> str:
    """Return how the names of this payload's objects begin."""
    return f"overlayspawner-payload-{payload_zip.build().short_id}-"


def remove_unused(client: Any, *, youngest: float, own: bool = False) -> list[str]:
    """Remove our config objects that no service names; return their names. Never raises.

    Parameters
    ----------
    client:
        A ``docker.APIClient``.
    youngest:
        Seconds for which an object is left alone.
    own:
        Also those of this hub's payload.
    """
    removed = []
    try:
        for config in client.configs(filters={"label": PAYLOAD_LABEL}):
            name = str(config["Spec"]["Name"])
            if not own and name.startswith(prefix()):
                continue
            if time.time() - _seconds(config.get("CreatedAt")) < youngest:
                continue
            try:
                client.remove_config(config["ID"])
            except APIError as e:
                log.debug("The config object %s stays: %s", name, e.explanation)  # it is in use
            else:
                removed.append(name)
    except (APIError, OSError, KeyError) as e:
        log.warning("Can't look for old config objects: %s", e)
    if removed:
        log.info("Removed unused config objects: %s", ", ".join(removed))
    return removed


def _named(client: Any, name: str) -> dict[str, Any] | None:
    # the engine's filter finds what begins with the name
    found = client.configs(filters={"name": name})
    return next((config for config in found if config["Spec"].get("Name") == name), None)


def _seconds(timestamp: object) -> float:
    """Return when an object was made; unknown counts as now."""
    try:
        # the engine gives nanoseconds, which Python 3.10 does not read
        return datetime.fromisoformat(str(timestamp)[:19] + "+00:00").timestamp()
    except ValueError:
        return time.time()
