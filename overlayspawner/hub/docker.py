"""DockerSpawner with package overlays."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import docker
from docker.utils import kwargs_from_env
from dockerspawner import DockerSpawner
from traitlets import Bool, Unicode, default

from overlayspawner.hub import bundles, engine_reasons, failure, homes, kept, payload_zip, progress
from overlayspawner.hub.compose import Plan, compose, find_home, with_home
from overlayspawner.hub.engine import Engine, connect
from overlayspawner.hub.image_facts import facts_from_config, parse_env
from overlayspawner.hub.mixin import OverlaySpawnerMixin, _setting
from overlayspawner.hub.output import secrets_of
from overlayspawner.hub.pull import credentials, megabytes
from overlayspawner.hub.unwell import UnwellEngine
from overlayspawner.hub.watch import ENGINE_ERRORS, StartWatch
from overlayspawner.payload.contract import PAYLOAD_DIR, OverlayError

if TYPE_CHECKING:
    from overlayspawner.hub.deaths import Death
    from overlayspawner.hub.delivery import Bundle
    from overlayspawner.hub.image_facts import ImageFacts


_REMOVAL_POLLS = 100  # five seconds
_CONNECT_TIMEOUT = 10.0  # seconds
_DELIVERY_PATIENCE = 20.0  # seconds: a fill takes one or two, unless a killed hub left one behind


class OverlayDockerSpawner(OverlaySpawnerMixin, UnwellEngine, DockerSpawner):  # type: ignore[misc]
    """Spawns single-user servers in Docker containers, each user with a package overlay on the image."""

    home_volume = _setting(
        Unicode(),
        """
        Name of a volume to mount at the home directory, so that files and packages stay when the container is
        removed. Empty mounts nothing.

        It acts only where you mount nothing at, under or above the home, where the name is not used for
        another mount, where the container's user is not overridden (``user``, ``NB_USER``), and where the
        image's Python does not lie under the home. A new volume gets the content that the image has there.

        A volume belongs to the user of one hub, told by ``name_template``: another hub on the same engine
        does not mount it, and needs another ``home_volume`` or ``prefix``.

        Fields: those of ``volumes``, for example ``{username}``, ``{servername}``, ``{prefix}``.
        """,
    )

    @default("home_volume")
    def _home_volume_default(self) -> str:
        return "{prefix}-home-{username}"

    delete_home_volume = Bool(
        True,
        config=True,
        help="""
        Delete the home volume when the user (or, with ``{servername}`` in ``home_volume``, the named server)
        is deleted from JupyterHub. Otherwise, the next user of that name would find the files.

        Only volumes that this spawner made are deleted.
        """,
    )

    _overlay_starting = False
    _overlay_pulling = False
    _overlay_composing = ""
    _overlay_plan: Plan | None = None
    _overlay_facts: ImageFacts | None = None
    _overlay_info: dict[str, Any] | None = None
    _overlay_bundles: list[Bundle]
    _overlay_watch: StartWatch | None = None
    _overlay_secrets: set[str]
    _overlay_home_template = ""
    _overlay_kept_home = ""
    _overlay_home_refused: dict[str, str] | None = None

    # -- the engine -------------------------------------------------------------------------------------

    def _overlay_client_kwargs(self) -> dict[str, Any]:
        # as DockerSpawner.client, which is one shared instance and made for one thread
        kwargs: dict[str, Any] = {"version": "auto"}
        if self.tls_config:
            kwargs["tls"] = docker.tls.TLSConfig(**self.tls_config)
        kwargs.update(kwargs_from_env())
        kwargs.update(self.client_kwargs)
        return kwargs

    async def _overlay_connect(self) -> Engine:
        """Return the engine, which all spawners with the same connection settings share."""
        kwargs = self._overlay_client_kwargs()
        timeout = kwargs.get("timeout", docker.constants.DEFAULT_TIMEOUT_SECONDS)
        key = repr(sorted((k, str(v)) for k, v in kwargs.items() if k != "tls")) + repr(self.tls_config)

        def make_client() -> Any:
            # The first request is for the version. Where that hangs, the next start is not to wait for it.
            client = docker.APIClient(**{**kwargs, "timeout": min(_CONNECT_TIMEOUT, timeout)})
            client.timeout = timeout
            return client

        return await connect(key, make_client)

    # -- the start --------------------------------------------------------------------------------------

    async def start(self, *args: Any, **kwargs: Any) -> Any:
        """Start the server, and wait until it answers.

        Raises
        ------
        tornado.web.HTTPError
            The server can't start; the message is for the user.
        """
        self._overlay_hope()
        self._overlay_choose()
        self._overlay_settings = await self._overlay_read_settings()
        self._overlay_home_template = await self._overlay_value("home_volume") or ""
        self._overlay_plan = self._overlay_facts = self._overlay_info = None
        self._overlay_kept_home = ""
        self._overlay_home_refused = None
        if self._overlay_settings is None:
            self._overlay_end()
            return await super().start(*args, **kwargs)
        self._overlay_secrets = {self.api_token} if self.api_token else set()
        self._overlay_begin()
        self._overlay_starting, self._overlay_pulling = True, False
        try:
            try:
                # before the hub ends it, which can't say what it was about
                address = await asyncio.wait_for(super().start(*args, **kwargs), self._overlay_patience())
            except Exception as e:
                await self._overlay_explain(e)
                raise
            if isinstance(address, tuple):
                await self._overlay_wait_or_die(*address)
            return address
        finally:
            self._overlay_starting = False
            if self._overlay_watch is not None:
                self._overlay_watch.close()
                self._overlay_watch = None
            self._overlay_end()

    async def pull_image(self, image: str) -> None:
        """Pull the image if the policy asks for it, with progress and without holding up other spawns."""
        if self._overlay_settings is None:
            await super().pull_image(image)
            return
        info = None
        self._overlay_pulling = True
        if self.pull_policy.lower() == "skip":
            await super().pull_image(image)
        else:
            info = await self._overlay_pull(image)
        self._overlay_pulling = False
        # DockerSpawner pulls the image as the first thing of a start, then looks for an existing container:
        # this is the moment to remove one that is out of date.
        if self._overlay_starting and image == self.image:
            self._overlay_info = info
            if not self.remove:
                await kept.resume(self)

    async def _overlay_pull(self, image: str) -> dict[str, Any]:
        engine = await self._overlay_connect()
        policy = self.pull_policy.lower()
        if policy != "always":
            try:
                return await engine.run(engine.client.inspect_image, image)
            except docker.errors.NotFound:
                if policy == "never":
                    raise
        self.log.info("pulling image %s", image)
        self._overlay_say(progress.PULL_FROM, f"Pulling the image {image}")
        # logins are made on DockerSpawner's own client (``self.docker("login", ...)``)
        auth = await engine.run(lambda: credentials(self.client, image))
        self._overlay_pulled = 0
        pulled, future = engine.pulls.start(engine.client, image, auth)
        span = progress.PULL_TO - progress.PULL_FROM
        while not future.done():
            # asyncio.wait, not await: another user may wait for the same pull when this start is cancelled
            await asyncio.wait({future}, timeout=1.0)
            done, total = pulled.totals()
            self._overlay_pulled = done
            if total:
                percent = progress.PULL_FROM + span * done // total
                of = f"{megabytes(done)} of {megabytes(total)}"
                self._overlay_say(percent, f"Pulling the image {image}: {of}")
        future.result()
        return await engine.run(engine.client.inspect_image, image)

    async def get_command(self) -> list[str]:
        """Return the command; an image without one is no error: its entrypoint may do."""
        if self._overlay_settings is None or self.cmd:
            command: list[str] = await super().get_command()
            return command
        facts = await self._overlay_image()
        return [*facts.cmd, *self.get_args()]

    async def create_object(self) -> Any:
        """Create the container, with the overlay in it."""
        if self._overlay_settings is None:
            self._overlay_kept_home = await self._overlay_find_kept_home()
            return await super().create_object()
        self._overlay_say(progress.CREATE, "Creating the container")
        self._overlay_tell_choice()
        return await self._overlay_create("create")

    async def _overlay_create(self, how: str) -> Any:
        """Have DockerSpawner create the container (``create``), or only say how it would (``plan``)."""
        facts = await self._overlay_image()
        self._overlay_bundles = await self._overlay_deliver(facts)
        if self._overlay_home_template:
            engine = await self._overlay_connect()
            volume = self.format_volume_name(self._overlay_home_template, self)
            self._overlay_home_refused = await engine.run(
                homes.look, engine.client, volume, homes.labels_of(self)
            )
        self._overlay_composing = how
        try:
            return await super().create_object()
        finally:
            self._overlay_composing = ""

    def docker(self, method: str, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """Call the engine; what DockerSpawner is about to create gets the overlay.

        Here rather than in ``get_command``, ``get_env`` and ``volume_binds``, because only here everything
        that an administrator may set or override has been applied.
        """
        if method == "create_container" and self._overlay_composing:
            plan = self._overlay_plan = self._overlay_compose(kwargs)
            if self._overlay_composing == "plan":
                future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                future.set_result({self.object_id_key: ""})
                return future
            return asyncio.ensure_future(self._overlay_create_container(plan, kwargs))
        if method == "create_container" and self._overlay_kept_home and self._overlay_facts is not None:
            environment = parse_env(kwargs.get("environment"))
            home, problem = find_home(kwargs, environment, self._overlay_facts, self._overlay_kept_home)
            if not problem:
                kwargs = with_home(kwargs, self._overlay_kept_home, home)
        result: asyncio.Future[Any] = super().docker(method, *args, **kwargs)
        return result

    async def _overlay_create_container(self, plan: Plan, kwargs: dict[str, Any]) -> Any:
        if plan.home_volume:
            engine = await self._overlay_connect()
            self._overlay_home_refused = await engine.run(
                homes.make, engine.client, plan.home_volume, homes.labels_of(self)
            )
            if self._overlay_home_refused is not None:
                plan = self._overlay_plan = self._overlay_compose(kwargs)
        self._overlay_tell_plan(plan)
        return await super().docker("create_container", **plan.kwargs)

    def _overlay_tell_plan(self, plan: Plan) -> None:
        """Show what the user should know about how the server is created."""
        if plan.home_problem:
            self.log.info("%s: no home volume, because %s", self._log_name, plan.home_problem)
        for n in plan.notices:
            self.log.warning("%s: [%s] %s", self._log_name, n["code"], n["message"])
            self._overlay_say(progress.CREATE, f"{n['message']} {n['hint']}".strip())

    async def _overlay_find_kept_home(self) -> str:
        """Return the home volume that an earlier start made: it stays when the overlay is switched off."""
        if not self._overlay_home_template:
            return ""
        volume = self.format_volume_name(self._overlay_home_template, self)
        try:
            engine = await self._overlay_connect()
            if not await engine.run(homes.made_by_us, engine.client, volume, homes.labels_of(self)):
                return ""
            await self._overlay_image()
        except ENGINE_ERRORS as e:
            self.log.warning("%s: can't look for the home volume %s: %s", self._log_name, volume, e)
            return ""
        return str(volume)

    def _overlay_compose(self, kwargs: dict[str, Any], directory: str = PAYLOAD_DIR) -> Plan:
        assert self._overlay_settings is not None and self._overlay_facts is not None
        volume = self.format_volume_name(self._overlay_home_template, self)
        try:
            plan = compose(
                kwargs,
                facts=self._overlay_facts,
                settings=self._overlay_settings,
                bundles=self._overlay_bundles,
                payload_id=payload_zip.build().id,
                directory=directory,
                home_volume=volume,
                home_refused=self._overlay_home_refused,
                fields={"username": self.escaped_name, "servername": self.escape(self.name.lower())},
                choice=self._overlay_choice,
                start_timeout=self.start_timeout,
                owner=self._overlay_owner(),
            )
        except OverlayError as e:
            raise failure.config_failure(e.message, e.hint) from None
        self._overlay_secrets |= secrets_of(plan.environment)  # engines repeat what they refuse
        return plan

    def _overlay_owner(self) -> int:
        """Return the id of the user to whom the home belongs, -1 where that is not known."""
        return -1

    async def _overlay_image(self) -> ImageFacts:
        if self._overlay_facts is None:
            engine = await self._overlay_connect()
            info = self._overlay_info
            if info is None:
                info = dict(await engine.run(engine.client.inspect_image, self.image))
            try:
                self._overlay_facts = await engine.facts(self.image, info)
            except ENGINE_ERRORS as e:
                self.log.warning("%s: can't look into the image %s: %s", self._log_name, self.image, e)
                self._overlay_facts = facts_from_config(info)
        return self._overlay_facts

    async def _overlay_deliver(self, facts: ImageFacts) -> list[Bundle]:
        """Return what is delivered; what can't be is left out, and the server starts without it."""
        engine = await self._overlay_connect()
        patience = min(_DELIVERY_PATIENCE, self.start_timeout / 3)
        delivered, problems = await bundles.deliver(engine, facts, patience)
        for problem in problems:
            self.log.error("%s: %s: starting without it", self._log_name, problem)
            self._overlay_say(progress.CREATE, f"{problem}: starting without it")
        return delivered

    # -- output, waiting, death -------------------------------------------------------------------------

    async def remove_object(self) -> None:
        """Remove the container, and wait until it is gone."""
        container = self.object_id
        await super().remove_object()
        if self._overlay_settings is not None and container:
            await self._overlay_until_gone(container)

    async def _overlay_until_gone(self, container: str) -> None:
        """Wait until a container is removed.

        The engine removes it by itself when it ends (``remove``), and answers "already in progress"
        meanwhile: a start at that moment would find its name taken.
        """
        engine = await self._overlay_connect()
        for _ in range(_REMOVAL_POLLS):
            try:
                await engine.run(engine.client.inspect_container, container)
            except ENGINE_ERRORS:
                return
            await asyncio.sleep(0.05)

    async def start_object(self) -> None:
        """Start the container, with its output and its end in view."""
        if self._overlay_starting:
            await self._overlay_open_watch()
            self._overlay_say(progress.START, "Starting the server")
        await super().start_object()
        if self._overlay_starting:
            self._overlay_say(progress.STARTED, "Waiting for the server to answer")

    async def _overlay_open_watch(self) -> None:
        plan = self._overlay_plan
        self._overlay_watch = StartWatch(
            await self._overlay_connect(),
            self.container_id,
            secrets=self._overlay_secrets,
            tty=plan is not None and plan.tty,
            # nothing is known of an existing container: look at it
            restarts=plan is None or plan.restarts,
            on_hint=self._overlay_hint,
        )
        problem = self._overlay_unattached = await self._overlay_watch.attach()
        if problem:
            self.log.warning("%s: the server's output can't be read: %s", self._log_name, problem)

    def _overlay_hint(self, code: str, sentence: str) -> None:
        """Take a line of ours from the container's output. It may be forged, so it is only a hint."""
        self._overlay_say(progress.OURS, sentence)
        if code in ("payload-missing", "bootstrap-failed"):
            self.log.warning(
                "%s: [%s] The payload will be looked at before the next start.", self._log_name, code
            )
            if self._overlay_watch is not None:
                self._overlay_watch.engine.delivery.forget(bundles.payload_bundle())

    async def _overlay_wait_or_die(self, ip: str, port: int) -> None:
        if self._overlay_watch is None:  # a subclass starts containers in its own way
            await self._overlay_wait(ip, port)
            return
        death = asyncio.ensure_future(self._overlay_watch.next_death())
        try:
            if await self._overlay_wait(ip, port, until=death):
                self._overlay_say(progress.SERVER, "The server answers")
            elif death.done():
                raise await self._overlay_died(death.result())
        finally:
            death.cancel()

    async def _overlay_died(self, death: Death) -> Exception:
        """Return the exception that tells about a death."""
        assert self._overlay_watch is not None
        tail = await self._overlay_watch.last_words()
        code = engine_reasons.of_death(death, tail)
        message, hint = failure.describe(death), engine_reasons.HINTS.get(code, "")
        self.log.warning("%s: [%s] %s\n%s", self._log_name, code, message, tail)
        if self.remove:
            await self._overlay_until_gone(self._overlay_watch.container)
        return failure.spawn_failure(
            self, message, reason=code, tail=tail, hint=hint, safe=self._overlay_choice is None
        )

    # -- the rest ---------------------------------------------------------------------------------------

    async def get_url(self) -> str:
        """Return where the server is: a hub that was restarted in mid-start does not know.

        Once ``start()`` has returned, JupyterHub knows, and the configuration may have changed since.
        """
        known = self.server is not None and self.server.ip
        if known or not await self._overlay_value("overlay_enabled"):
            url: str = await super().get_url()
            return url
        try:
            ip, port = await self.get_ip_and_port()
        except Exception as e:
            self.log.warning("%s: can't ask for the server's address: %s", self._log_name, e)
            url = await super().get_url()
            return url
        return self._overlay_url(ip, int(port))

    async def delete_forever(self) -> None:
        """Delete the home volume of a deleted user or named server."""
        result = super().delete_forever()
        if inspect.isawaitable(result):
            await result
        template = await self._overlay_value("home_volume")
        if not self.delete_home_volume or not template:
            return
        if self.name and "{servername}" not in template:
            return  # the user's other servers have the same home
        volume = self.format_volume_name(template, self)
        engine = await self._overlay_connect()
        try:
            removed = await engine.run(
                homes.delete, engine.client, volume, homes.labels_of(self), self.object_name
            )
        except ENGINE_ERRORS as e:
            self.log.error("%s: the home volume %s can't be deleted: %s", self._log_name, volume, e)
        else:
            if removed:
                self.log.info("%s: deleted the home volume %s", self._log_name, volume)
