"""What a Docker spawner does when its engine, a registry or a setting lets a start fail.

The user gets one sentence with a reason, before the hub itself gives up. A server that the engine can't be
asked about counts as running, because the hub forgets one that it believes gone; and what could not be
removed is removed when the engine answers again.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

from docker.errors import DockerException, NotFound

from overlayspawner.hub import engine_reasons as reasons
from overlayspawner.hub import failure
from overlayspawner.hub.engine_reasons import Reason
from overlayspawner.hub.watch import ENGINE_ERRORS

if TYPE_CHECKING:
    from overlayspawner.hub.engine import Engine
    from overlayspawner.hub.watch import StartWatch

_THREADS = 8
_POLL_PATIENCE = 10.0  # seconds: a healthy engine takes milliseconds
_LONGEST_PAUSE = 30.0  # seconds between attempts to clear up
_LATE = 150.0  # seconds in which an engine that hung may still do what it was asked for
_GIVE_UP = 24 * 3600.0

# By server: JupyterHub makes a new spawner after a failed start.
_clearing: dict[str, asyncio.Task[None]] = {}


class UnwellEngine:
    """What :class:`~overlayspawner.hub.docker.OverlayDockerSpawner` does about failures."""

    if TYPE_CHECKING:
        log: Any
        image: str
        object_id: str
        object_name: str
        object_type: str
        pull_policy: str
        remove: bool
        start_timeout: int
        user_options: dict[str, Any]
        _log_name: str
        _overlay_pulling: bool
        _overlay_secrets: set[str]
        _overlay_watch: StartWatch | None

        async def _overlay_value(self, name: str) -> Any: ...
        async def _overlay_connect(self) -> Engine: ...
        async def _overlay_died(self, death: Any) -> Exception: ...
        async def _overlay_until_gone(self, container: str) -> None: ...

    _overlay_pulled = -1  # bytes; -1 while there is no pull
    _overlay_lost = False
    _overlay_unattached = ""  # why the container could not be attached to
    _overlay_threads: ClassVar[ThreadPoolExecutor | None] = None

    @property
    def executor(self) -> ThreadPoolExecutor:
        """DockerSpawner's threads, several instead of one: a request that hangs must not hold up all."""
        if UnwellEngine._overlay_threads is None:
            UnwellEngine._overlay_threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="dockerspawner")
        return UnwellEngine._overlay_threads

    def _overlay_patience(self) -> float:
        """Return after how many seconds ``start()`` gives up: before the hub, which can say no reason."""
        return float(max(1.0, self.start_timeout - min(5.0, 0.1 * self.start_timeout)))

    def _overlay_hope(self) -> None:
        """Begin a start: what an earlier one left behind, it looks for itself."""
        self._overlay_lost, self._overlay_pulled, self._overlay_unattached = False, -1, ""
        self._overlay_leave()

    def _overlay_leave(self) -> None:
        """Clear up no longer: what has this server's name is about to be another one."""
        clearing = _clearing.pop(self._log_name, None)
        if clearing is not None:
            clearing.cancel()

    async def _overlay_explain(self, error: Exception) -> None:
        """Raise a better exception for a failed start, where there is one; nothing half-made stays."""
        watch = self._overlay_watch
        step = "pull" if self._overlay_pulling else "start" if watch is not None else "create"
        reason: Reason | None
        if isinstance(error, asyncio.TimeoutError):
            reason = self._overlay_overdue()
        else:
            reason = reasons.of_error(error, step, self._overlay_secrets)
        if step == "start" and isinstance(error, DockerException) and self._overlay_unattached:
            # Podman makes the container when it is attached to. A second attempt has another error, of what
            # the first one left behind.
            reason = reasons.of_refusal_text(self._overlay_unattached, self._overlay_secrets) or reason
        if reason is not None and reason.code == "image" and self.pull_policy.lower() in ("never", "skip"):
            reason = Reason("image-absent", reason.words)
        if reason is not None and reason.code in reasons.LOST:
            self._overlay_lost = True
            if step != "pull":
                self._overlay_clear_up_later()
        # A dead container has no port and can't run post_start_cmd: its death is the reason then.
        elif watch is not None and (reason is None or reason.code == "engine-failed"):
            death = await watch.death_now(patience=0.5)
            if death is not None:
                raise await self._overlay_died(death) from error
        if watch is not None and not self._overlay_lost and self.remove:
            await self._overlay_discard(await self._overlay_connect(), watch.container)
        if reason is not None:
            raise self._overlay_failure(reason) from None

    def _overlay_overdue(self) -> Reason:
        """Return why a start takes so long that the hub is about to give it up."""
        if not self._overlay_pulling or self._overlay_pulled < 0:
            return Reason("engine-hangs")
        return Reason("pull-slow" if self._overlay_pulled else "registry")

    def _overlay_failure(self, reason: Reason) -> Exception:
        message = reason.message
        if self._overlay_pulling and reason.code not in reasons.LOST:
            message = f"The image {self.image} can't be had. {message}"
        self.log.error("%s: [%s] %s", self._log_name, reason.code, message)
        if reason.counts(chosen=bool(self.user_options.get("image"))):
            return failure.config_failure(message, reason.hint)
        return failure.spawn_failure(self, message, reason=reason.code, hint=reason.hint)

    # -- an engine that can't be asked --------------------------------------------------------------------

    async def poll(self) -> Any:
        """Return ``None`` while the server runs, and while the engine can't say whether it does.

        The hub takes anything else, and also an exception when it starts, for the server's end: it forgets
        the server, which runs on. A hub that starts looks itself whether the server answers.
        """
        parent: Any = super()
        if not await self._overlay_value("overlay_enabled"):
            return await parent.poll()
        if self._overlay_lost:
            return 0  # of a failed start; what it left is removed when that can be done
        known = self.object_id
        try:
            status = await asyncio.wait_for(parent.poll(), _POLL_PATIENCE)
            if status == 0 and known and not self.object_id:
                # DockerSpawner says so also when the engine answered with an error of its own
                engine = await self._overlay_connect()
                inspect = getattr(engine.client, f"inspect_{self.object_type}")
                await asyncio.wait_for(engine.run(inspect, self.object_name), _POLL_PATIENCE)
                # it is there: the engine has recovered from its error
                self.object_id = known
                status = await asyncio.wait_for(parent.poll(), _POLL_PATIENCE)
                if not self.object_id:  # an error again, or it went just now: the next poll will tell
                    self.object_id, status = known, None
        except NotFound:
            return 0
        except (*ENGINE_ERRORS, asyncio.TimeoutError) as e:
            if not known:
                return 0  # there never was one
            self.object_id = known
            why = reasons.of_error(e, "") or Reason("engine-hangs")
            self.log.warning("%s: can't tell whether it runs: [%s] %s", self._log_name, why.code, why.message)
            return None
        return status

    async def stop(self, now: bool = False) -> None:
        """Stop the server; one that can't be reached is stopped when the engine answers again."""
        parent: Any = super()
        try:
            await parent.stop(now)
        except ENGINE_ERRORS as e:
            if await self._overlay_value("overlay_enabled"):
                reason = reasons.of_error(e, "")
                if reason is not None and reason.code in reasons.LOST:
                    self._overlay_clear_up_later()
            raise

    def _overlay_clear_up_later(self) -> None:
        """Stop or remove what a start or a stop left behind, as soon as the engine answers."""
        self._overlay_leave()
        name = self._log_name
        task = _clearing[name] = asyncio.ensure_future(self._overlay_clear_up(self.object_name))

        def ended(_: object) -> None:
            if _clearing.get(name) is task:
                del _clearing[name]

        task.add_done_callback(ended)

    async def _overlay_clear_up(self, name: str) -> None:
        began, pause = time.monotonic(), 1.0
        while time.monotonic() - began < _GIVE_UP:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
            try:
                engine = await self._overlay_connect()
                found = await engine.run(getattr(engine.client, f"inspect_{self.object_type}"), name)
                if self.object_type == "service":
                    await engine.run(engine.client.remove_service, found["ID"])
                elif self.remove:
                    await engine.run(engine.client.remove_container, found["Id"], v=True, force=True)
                elif found["State"].get("Running"):
                    await engine.run(engine.client.stop, found["Id"])
                self.log.info("%s: cleared up what the engine's absence left behind", self._log_name)
                return
            except NotFound:
                if time.monotonic() - began > _LATE:
                    return
            except ENGINE_ERRORS as e:
                self.log.debug("%s: the engine does not answer yet: %s", self._log_name, e)

    async def _overlay_discard(self, engine: Engine, container: str) -> None:
        """Remove the container of a start that failed. An engine may do so by itself; not all do."""
        try:
            await engine.run(engine.client.remove_container, container, v=True, force=True)
        except ENGINE_ERRORS as e:
            self.log.debug("%s: the container is not removed: %s", self._log_name, e)
        await self._overlay_until_gone(container)
