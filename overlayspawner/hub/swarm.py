"""SwarmSpawner with package overlays."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, ClassVar

from docker.errors import APIError, ImageNotFound, NotFound
from dockerspawner import SwarmSpawner
from traitlets import default

from overlayspawner.hub import background, failure, homes, progress, swarm_service
from overlayspawner.hub.compose import find_home
from overlayspawner.hub.docker import OverlayDockerSpawner
from overlayspawner.hub.image_facts import ImageFacts
from overlayspawner.hub.output import clean, redact
from overlayspawner.hub.swarm_configs import ConfigStore
from overlayspawner.hub.swarm_service import CODES, Reason
from overlayspawner.hub.watch import ENGINE_ERRORS
from overlayspawner.payload.contract import PAYLOAD_DIR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlayspawner.hub.delivery import Bundle
    from overlayspawner.hub.engine import Engine

_FIRST_LOOK, _LOOK = 0.1, 0.5  # seconds between looks at a service's tasks
_TASK_PATIENCE = 5.0  # seconds until a new service has its first task
_DELIVERY_PATIENCE = 15.0  # seconds
_LOGS_PATIENCE = 5.0  # seconds
_LAST_LOOK = 1.0  # seconds, when a start has taken too long
_GRACE = 10.0  # seconds that the engine gives a container to end, where the service does not say
_GRACE_MARGIN = 5.0
_TAIL_LINES, _TAIL_CHARS = 40, 4000

# How far a start has come in these states of a task, and what is said.
_STATES = {
    "assigned": (progress.CREATE, "A node was found for the server"),
    "preparing": (progress.CREATE, "The node prepares the server (it pulls the image where that is needed)"),
    "starting": (progress.START, "Starting the server"),
}


class OverlaySwarmSpawner(OverlayDockerSpawner, SwarmSpawner):  # type: ignore[misc]
    """Spawns single-user servers as services of a swarm, each user with a package overlay on the image."""

    _overlay_stores: ClassVar[dict[Engine, ConfigStore]] = {}

    _overlay_configs: dict[str, tuple[str, str]]
    _overlay_service = ""
    _overlay_told: set[str]

    @default("home_volume")
    def _home_volume_default(self) -> str:
        return ""  # a volume belongs to one node, and the next start may be on another

    # -- the start --------------------------------------------------------------------------------------

    async def start(self, *args: Any, **kwargs: Any) -> Any:
        """Start the server, and wait until it answers.

        Raises
        ------
        tornado.web.HTTPError
            The server can't start; the message is for the user.
        """
        self._overlay_service, self._overlay_told, self._overlay_configs = "", set(), {}
        try:
            return await super().start(*args, **kwargs)
        except BaseException:
            # JupyterHub stops only what runs, and the engine would start a dead server again and again
            if self._overlay_service:
                # The reason has to come before the hub gives up, and a container may take longer to end.
                margin = (self.start_timeout - self._overlay_patience()) / 2
                left = self._overlay_started + self.start_timeout - time.monotonic() - margin
                await asyncio.wait({background.start(self._overlay_drop())}, timeout=max(0.0, left))
            raise

    async def _overlay_drop(self) -> None:
        """Remove the service of a failed start."""
        service = self.object_id = self._overlay_service
        self._overlay_service = ""
        try:
            await self.remove_object()
        except ENGINE_ERRORS as e:
            self.log.error("%s: the service %s can't be removed: %s", self._log_name, self.service_name, e)
            self._overlay_clear_up_later()
        if self.object_id == service:  # no later start's
            self.object_id = ""

    async def _overlay_image(self) -> ImageFacts:
        """Return what the image is; the node that the hub runs on need not have it."""
        try:
            return await super()._overlay_image()
        except (ImageNotFound, NotFound):
            self._overlay_facts = ImageFacts("")
            return self._overlay_facts

    async def get_command(self) -> list[str]:
        """Return the command, without one the image's own where that is known."""
        if self._overlay_settings is not None and not self.cmd and self.get_args():
            facts = await self._overlay_image()
            if not facts.id:
                raise failure.config_failure(
                    f"The image {self.image} is not on the hub's node, so its command is not known.",
                    "An administrator has to set Spawner.cmd.",
                )
        command: list[str] = await super().get_command()
        return command

    async def _overlay_deliver(self, facts: ImageFacts) -> list[Bundle]:
        """Make sure that the swarm has the payload; without it, the server starts without the overlay."""
        store = await self._overlay_store()
        try:
            making = store.ensure()
            patience = min(_DELIVERY_PATIENCE, self.start_timeout / 3)
            self._overlay_configs = await asyncio.wait_for(making, patience)
        except (*ENGINE_ERRORS, asyncio.TimeoutError, ValueError) as e:
            said = swarm_service.words(getattr(e, "explanation", None) or e) or type(e).__name__
            if swarm_service.code_of(said, "") == "not-a-manager":
                raise
            self._overlay_configs = {}
            self.log.error(
                "%s: the swarm does not take the overlay's config objects: %s", self._log_name, said
            )
            self._overlay_say(
                progress.CREATE,
                "The overlay's code can't be brought into the swarm: the server starts without the overlay.",
            )
        return []

    async def _overlay_store(self) -> ConfigStore:
        engine = await self._overlay_connect()
        return self._overlay_stores.setdefault(engine, ConfigStore(engine))

    def docker(self, method: str, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """Call the engine; the service that SwarmSpawner is about to create gets the overlay."""
        if method == "create_service" and self._overlay_composing:
            return asyncio.ensure_future(self._overlay_create_service(kwargs))
        if method == "create_service" and self._overlay_kept_home and self._overlay_facts is not None:
            home, problem = find_home(
                swarm_service.as_container(kwargs),
                swarm_service.environment_of(kwargs),
                self._overlay_facts,
                self._overlay_kept_home,
            )
            if not problem:
                volume = self._overlay_volume_options()
                kwargs = swarm_service.with_home(kwargs, self._overlay_kept_home, home, volume)
        result: asyncio.Future[Any] = super().docker(method, *args, **kwargs)
        return result

    async def _overlay_create_service(self, kwargs: dict[str, Any]) -> Any:
        container = swarm_service.as_container(kwargs)
        if container["image"] != self.image:
            self._overlay_facts = ImageFacts("")  # extra_container_spec names another one
        directory = swarm_service.place(kwargs)
        if not directory:
            self._overlay_configs, directory = {}, PAYLOAD_DIR
            self._overlay_say(
                progress.CREATE,
                "Volumes are mounted over all places for the overlay's code: the server starts without it.",
            )
        plan = self._overlay_plan = self._overlay_compose(container, directory)
        self._overlay_tell_plan(plan)
        for again in (True, False):
            final = swarm_service.as_service(
                kwargs,
                plan,
                configs=self._overlay_configs,
                directory=directory,
                volume=self._overlay_volume_options(),
            )
            try:
                service = await super().docker("create_service", **final)
                break
            except APIError as e:
                # removed by another hub, or the swarm is a new one
                if not again or "config" not in str(e.explanation or "") or not self._overlay_configs:
                    raise
                (await self._overlay_store()).forget()
                await self._overlay_deliver(ImageFacts(""))
        self._overlay_service = service["ID"]
        # SwarmSpawner looks once a second whether the service has a task
        end = time.monotonic() + _TASK_PATIENCE
        while not await self._overlay_tasks() and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(_FIRST_LOOK / 2)
        return service

    def _overlay_volume_options(self) -> dict[str, Any]:
        """Return the options of a home volume that a node has to make."""
        options: dict[str, Any] = {"Labels": homes.labels_of(self)}
        if self.mount_driver_config:
            options["DriverConfig"] = self.mount_driver_config
        return options

    # -- waiting, reasons -------------------------------------------------------------------------------

    async def _overlay_tasks(self) -> list[Mapping[str, Any]]:
        """Return the service's tasks, dead ones included.

        Raises
        ------
        docker.errors.APIError
            The engine has no such service, or fails.
        """
        engine = await self._overlay_connect()
        service = self._overlay_service or self.object_id or self.service_name
        tasks: list[Mapping[str, Any]] = await engine.run(engine.client.tasks, filters={"service": service})
        return tasks

    async def start_object(self) -> None:
        """Wait until the service's container runs; say what happens until then, and why it does not."""
        if not self._overlay_starting:
            await super().start_object()
            return
        self._overlay_say(progress.CREATE, "Looking for a node for the server")
        pause = _FIRST_LOOK
        while True:
            tasks, reason = await self._overlay_look()
            if reason is not None and reason.fatal:
                raise await self._overlay_failed(reason)
            if swarm_service.running(tasks):
                break
            for task in tasks:
                percent, message = _STATES.get(task["Status"]["State"], (0, ""))
                if message:
                    self._overlay_tell(percent, message)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311
            pause = min(_LOOK, pause * 1.1)
        self._overlay_say(progress.STARTED, "Waiting for the server to answer")

    async def _overlay_look(self) -> tuple[list[Mapping[str, Any]], Reason | None]:
        """Return the service's tasks, and what is in the way of the start; that is shown once."""
        try:
            tasks = await self._overlay_tasks()
        except NotFound:
            return [], Reason("gone", CODES["gone"], fatal=True)
        except ENGINE_ERRORS as e:
            self.log.debug("%s: can't look at the service: %s", self._log_name, e)
            return [], None
        reason = swarm_service.of_tasks(tasks)
        if reason is not None and not reason.fatal:
            self._overlay_tell(progress.CREATE, swarm_service.words(reason.message, self._overlay_secrets))
        return tasks, reason

    def _overlay_tell(self, percent: int, message: str) -> None:
        if message not in self._overlay_told:
            self._overlay_told.add(message)
            self._overlay_say(percent, message)

    async def _overlay_end_of_task(self) -> Reason:
        while True:
            _, reason = await self._overlay_look()
            if reason is not None and reason.fatal:
                return reason
            await asyncio.sleep(_LOOK * random.uniform(0.8, 1.2))  # noqa: S311

    async def _overlay_wait_or_die(self, ip: str, port: int) -> None:
        ending = asyncio.ensure_future(self._overlay_end_of_task())
        try:
            if await self._overlay_wait(ip, port, until=ending):
                self._overlay_say(progress.SERVER, "The server answers")
            elif ending.done():
                raise await self._overlay_failed(ending.result())
        finally:
            ending.cancel()
        self._overlay_tidy()

    async def _overlay_failed(self, reason: Reason) -> Exception:
        """Return the exception that tells why the start failed."""
        message = swarm_service.words(reason.message, self._overlay_secrets)
        tail = await self._overlay_logs() if reason.ended else ""
        self.log.warning("%s: [%s] %s\n%s", self._log_name, reason.code, message, tail)
        return failure.spawn_failure(
            self,
            message,
            reason=reason.code,
            tail=tail,
            hint=reason.hint,
            safe=reason.ended and self._overlay_choice is None,
        )

    async def _overlay_logs(self) -> str:
        """Return the end of what the server printed, ``""`` where it can't be had."""
        engine = await self._overlay_connect()

        def read() -> bytes:
            logs = engine.client.service_logs(
                self._overlay_service, stdout=True, stderr=True, tail=_TAIL_LINES, is_tty=self._overlay_tty()
            )
            return logs if isinstance(logs, bytes) else b"".join(logs)

        try:
            data = await asyncio.wait_for(engine.run(read), _LOGS_PATIENCE)
        except (*ENGINE_ERRORS, asyncio.TimeoutError) as e:
            self.log.debug("%s: no logs: %s", self._log_name, e)
            return ""
        text = redact(clean(data.decode("utf-8", "replace")), self._overlay_secrets).strip()
        return "\n".join(text.splitlines()[-_TAIL_LINES:])[-_TAIL_CHARS:]

    def _overlay_tty(self) -> bool:
        return self._overlay_plan is not None and self._overlay_plan.tty

    async def _overlay_explain(self, error: Exception) -> None:
        """Raise a better exception for a failed start, where there is one."""
        if isinstance(error, asyncio.TimeoutError) and self._overlay_service:
            reason = await self._overlay_why_so_long()
            if reason is not None:
                raise await self._overlay_failed(reason) from None
        if isinstance(error, APIError):
            text = swarm_service.words(error.explanation or error, self._overlay_secrets)
            reason = swarm_service.of_refusal(text)
            # an error of the engine's own refuses nothing
            refused = error.is_client_error() or reason.code != "settings"
            if reason.code == "not-a-manager" or (refused and not self._overlay_pulling):
                self.log.error("%s: [%s] %s", self._log_name, reason.code, reason.message)
                raise failure.config_failure(reason.message, reason.hint) from error
        await super()._overlay_explain(error)

    async def _overlay_why_so_long(self) -> Reason | None:
        """Return what the start still waits for, ``None`` where the engine does not say."""
        try:
            tasks, reason = await asyncio.wait_for(self._overlay_look(), _LAST_LOOK)
        except asyncio.TimeoutError:
            return None
        return reason or swarm_service.of_slowness(tasks)

    def _overlay_tidy(self) -> None:
        """Remove old config objects, while nobody waits for it."""

        async def tidy() -> None:
            await (await self._overlay_store()).remove_old()

        background.start(tidy())

    # -- the end ----------------------------------------------------------------------------------------

    async def remove_object(self) -> None:
        """Remove the service, and wait until its container is gone, which has its port and its home."""
        service = self.object_id
        if not await self._overlay_value("overlay_enabled"):
            await SwarmSpawner.remove_object(self)
            return
        engine = await self._overlay_connect()
        try:
            found = await engine.run(engine.client.inspect_service, service)
            tasks = await engine.run(engine.client.tasks, filters={"service": service})
        except NotFound:
            return
        self.log.info("Removing service %s", service)
        try:
            await engine.run(engine.client.remove_service, service)
        except NotFound:
            return
        grace = swarm_service.container_spec(
            {"task_template": (found.get("Spec") or {}).get("TaskTemplate")}
        ).get("StopGracePeriod")
        patience = (grace / 1e9 if grace is not None else _GRACE) + _GRACE_MARGIN
        try:
            await asyncio.wait_for(self._overlay_until_removed(engine, service, tasks), patience)
        except asyncio.TimeoutError:
            self.log.warning("%s: containers of the service are still there", self._log_name)
        except ENGINE_ERRORS as e:
            self.log.warning("%s: can't see whether the container is gone: %s", self._log_name, e)

    async def _overlay_until_removed(
        self, engine: Engine, service: str, tasks: list[Mapping[str, Any]]
    ) -> None:
        for task in tasks:
            while True:
                try:
                    await engine.run(engine.client.inspect_task, task["ID"])
                except NotFound:
                    break
                await asyncio.sleep(_FIRST_LOOK)
        # Containers outlive their tasks by a moment. Those of other nodes can't be seen.
        mine = {"label": f"com.docker.swarm.service.id={service}"}
        while await engine.run(engine.client.containers, all=True, filters=mine):  # noqa: ASYNC110
            await asyncio.sleep(_FIRST_LOOK)
