"""KubeSpawner with package overlays."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from typing import TYPE_CHECKING, Any, ClassVar

from aiohttp import ClientError
from jupyterhub.traitlets import Command
from kubernetes_asyncio.client.exceptions import ApiException
from kubespawner import KubeSpawner
from traitlets import Unicode

from overlayspawner.hub import background, failure, kube_claims, kube_reasons, payload_zip, progress
from overlayspawner.hub.kube_manifests import NOTEBOOK, Body, PodPlan, compose_pod
from overlayspawner.hub.kube_reasons import Reason
from overlayspawner.hub.kube_secrets import SecretStore
from overlayspawner.hub.mixin import OverlaySpawnerMixin, _setting
from overlayspawner.hub.output import secrets_of
from overlayspawner.payload.contract import OverlayError

if TYPE_CHECKING:
    from collections.abc import Mapping

API_ERRORS = (ApiException, ClientError, OSError, asyncio.TimeoutError)

_LOOK = 0.25  # seconds between looks at a pod's status, which the hub has in memory
_MISSES = 4  # looks in a row at which a pod is not there, until it is believed
_LOOK_AT_EVENTS = 1.0  # seconds; KubeSpawner sorts all events of the namespace each time
_DELIVERY_PATIENCE = 15.0  # seconds
_LOGS_PATIENCE = 5.0  # seconds
_LOG_BYTES = 16384

# How far a start has come when these events of a pod are told.
_PERCENT = {
    "Scheduled": progress.PULL_FROM,
    "Pulling": 2 * progress.PULL_FROM,
    "Pulled": progress.PULL_TO,
    "Created": progress.CREATE,
    "Started": progress.START,
}


class OverlayKubeSpawner(OverlaySpawnerMixin, KubeSpawner):  # type: ignore[misc]
    """Spawns single-user servers in Kubernetes pods, each user with a package overlay on the image."""

    overlay_cmd = _setting(
        Command(minlen=0),
        """
        The image's own command, for servers without ``cmd``. KubeSpawner then leaves the command to the
        image, and nobody but the image knows it: without this setting such servers start without the overlay,
        and the spawn page says so. ``args`` are added to it.

        Where profiles have images with different commands, set it in ``kubespawner_override``::

            c.KubeSpawner.profile_list = [
                {
                    "display_name": "Data science",
                    "kubespawner_override": {
                        "image": "quay.io/jupyter/datascience-notebook",
                        "overlay_cmd": ["start-notebook.py"],
                    },
                },
            ]

        It does nothing where ``cmd`` is set.
        """,
    )

    overlay_secret_name = _setting(
        Unicode(""),
        """
        Name of a Secret with our code for servers that you have made yourself, for hubs that may make none.
        It has to be in the namespace of the pods, and of this hub's version::

            python -m overlayspawner.hub.kube_secret NAME | kubectl create -n NAMESPACE -f -

        Empty: the hub makes a Secret, named by the hash of what it holds, and removes it when no pod uses it
        any more.
        """,
    )

    _overlay_store: ClassVar[SecretStore] = SecretStore()
    _overlay_no_logs: ClassVar[set[str]] = set()  # namespaces whose logs the hub may not read

    _overlay_read = False
    _overlay_plan: PodPlan | None = None
    _overlay_composed_from: Any = None
    _overlay_created = False
    _overlay_seen = False
    _overlay_pod_runs = False
    _overlay_patience_at = 0.0
    _overlay_problem: Reason | None = None
    _overlay_missed = 0
    _overlay_claim_is_new: bool | None = None
    _overlay_unfinished = False
    _overlay_secrets: set[str]
    _overlay_told: set[str]

    # -- the start --------------------------------------------------------------------------------------

    def start(self) -> asyncio.Future[str]:
        """Start the server, and wait until it answers.

        Raises
        ------
        tornado.web.HTTPError
            The server can't start; the message is for the user.
        """
        return asyncio.ensure_future(self._overlay_start(super().start))

    async def _overlay_start(self, parent_start: Any) -> str:
        self._overlay_choose()
        self._overlay_settings, self._overlay_read = None, False
        self._overlay_plan = self._overlay_composed_from = self._overlay_problem = None
        self._overlay_created = self._overlay_seen = self._overlay_pod_runs = False
        self._overlay_patience_at, self._overlay_missed = 0.0, 0
        self._overlay_claim_is_new, self._overlay_unfinished = None, False
        self._overlay_secrets = {self.api_token} if self.api_token else set()
        self._overlay_told = set()
        self._overlay_begin()
        starting = asyncio.ensure_future(parent_start())
        watch = asyncio.ensure_future(self._overlay_watch())
        try:
            await asyncio.wait({starting, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                raise await self._overlay_failed(watch.result())
            try:
                url = str(starting.result())
            except API_ERRORS as e:
                await self._overlay_explain(e)
                raise
            self._overlay_pod_runs = True
            if self._overlay_settings is not None:
                await self._overlay_wait_or_die(url, watch)
                self._overlay_tidy()
            return url
        except BaseException:  # also when the hub gives up
            self._overlay_unfinished = True
            raise
        finally:
            for future in (starting, watch):
                future.cancel()
            self._overlay_end()
            if self._overlay_unfinished and not self._overlay_created:
                # the hub asks to stop what has a pod only
                background.start(self._overlay_drop_claim())

    async def stop(self, now: bool = False) -> None:
        """Stop the server; after a start that failed, no storage claim stays that never had a volume."""
        await super().stop(now)
        await self._overlay_drop_claim()

    async def _overlay_drop_claim(self) -> None:
        # not while KubeSpawner stops an older pod in the middle of a start
        if not self._overlay_unfinished or not self._overlay_claim_is_new:
            return
        self._overlay_claim_is_new = None
        reflector = self.pod_reflector
        pods = reflector.pods.values() if reflector is not None else ()
        if kube_claims.users_of(self.pvc_name, self.namespace, pods):
            return  # another server of the same user waits for it
        if await kube_claims.remove_unbound(self.api, self.namespace, self.pvc_name):
            self._pvc_exists = False

    async def _make_create_pvc_request(self, pvc: Any, request_timeout: Any) -> bool:
        """Create the user's storage claim, and remember whether it was there before."""
        if self._overlay_settings is not None and self._overlay_claim_is_new is None:
            self._overlay_claim_is_new = await kube_claims.is_absent(self.api, self.namespace, self.pvc_name)
        return bool(await super()._make_create_pvc_request(pvc, request_timeout))

    async def load_user_options(self) -> None:
        """Apply the profile that the user chose, which may have settings of the overlay."""
        await super().load_user_options()
        await self._overlay_read_once()

    async def _overlay_read_once(self) -> None:
        if self._overlay_read:
            return
        self._overlay_read = True
        self._overlay_settings = await self._overlay_read_settings()
        if self._overlay_settings is None:
            self._overlay_end()  # KubeSpawner's own progress takes over
        else:
            self._overlay_tell_choice()

    async def _make_create_pod_request(self, pod: Any, request_timeout: Any) -> bool:
        """Create the pod, with the overlay in it.

        Here rather than in ``get_pod_manifest``, because only here everything that an administrator may set,
        ``modify_pod_hook`` included, has been applied.
        """
        await self._overlay_read_once()  # a subclass may have options of its own
        if self._overlay_settings is None:
            return bool(await super()._make_create_pod_request(pod, request_timeout))
        if self._overlay_plan is None or self._overlay_composed_from is not pod:
            self._overlay_composed_from = pod
            self._overlay_plan = await self._overlay_compose(pod)
            self._overlay_say(1, "Creating the pod")
        body = Body(self._overlay_plan.pod)
        created = bool(await super()._make_create_pod_request(body, request_timeout))
        self._overlay_created = created
        return created

    async def _overlay_compose(self, pod: Any) -> PodPlan:
        """Return how the pod is created; what is in the way of the overlay is told, and the server starts."""
        assert self._overlay_settings is not None
        await payload_zip.built()
        given = await self._overlay_value("overlay_secret_name") or ""
        command = await self._overlay_value("overlay_cmd") or []
        try:
            plan = compose_pod(
                self.api.api_client.sanitize_for_serialization(pod),
                settings=self._overlay_settings,
                secret=given or self._overlay_store.name,
                command=[*command, *self.get_args()] if command else None,
                fields={
                    "username": self._expand_user_properties("{username}"),
                    "servername": self._expand_user_properties("{servername}"),
                },
                choice=self._overlay_choice,
                start_timeout=self.start_timeout,
            )
        except OverlayError as e:
            raise failure.config_failure(e.message, e.hint) from None
        self._overlay_secrets |= secrets_of(plan.environment)
        if plan.spec is not None and not given and not await self._overlay_deliver():
            plan.pod, plan.spec = plan.plain, None
        for n in plan.notices:
            self.log.warning("%s: [%s] %s", self._log_name, n["code"], n["message"])
            self._overlay_say(1, f"{n['message']} {n['hint']}".strip())
        return plan

    async def _overlay_deliver(self) -> bool:
        """Make sure that the Secret is in the pod's namespace; return whether it is."""
        making = self._overlay_store.ensure(self.api, self.namespace, self.common_labels)
        try:
            await asyncio.wait_for(making, min(_DELIVERY_PATIENCE, self.start_timeout / 3))
        except (*API_ERRORS, ValueError) as e:
            why = str(e) or type(e).__name__
            if isinstance(e, ApiException):
                why = kube_reasons.words(kube_reasons.refusal_text(e.body) or e.reason)
            self.log.error(
                "%s: the overlay's Secret can't be had in the namespace %s: %s. The hub has to be allowed to "
                "create and get Secrets, or overlay_secret_name has to name one.",
                self._log_name,
                self.namespace,
                why,
            )
            self._overlay_say(
                1,
                "The overlay's code can't be brought into the pod: the server starts without the overlay. "
                f"Kubernetes says: {kube_reasons.words(why, self._overlay_secrets)}",
            )
            return False
        return True

    # -- waiting, reasons -------------------------------------------------------------------------------

    def _overlay_pod(self) -> Mapping[str, Any] | None:
        """Return the pod as the hub knows it."""
        reflector = self.pod_reflector
        # One that was just started anew knows no pods at all yet.
        known = reflector is not None and reflector.first_load_future.done()
        pods = reflector.pods if known else {}
        pod: Mapping[str, Any] | None = pods.get(f"{self.namespace}/{self.pod_name}")
        return pod

    async def _overlay_watch(self) -> Reason:
        """Follow the start, and return why it failed, once it has."""
        margin = min(5.0, 0.1 * self.start_timeout)
        end = self._overlay_started + self.start_timeout - margin
        events_at = 0.0
        while True:
            await asyncio.sleep(_LOOK)
            if self._overlay_settings is None:
                continue  # not known yet, or a start without an overlay: KubeSpawner's own business
            now = time.monotonic()
            try:
                if now - events_at >= _LOOK_AT_EVENTS:
                    events_at = now
                    if self._overlay_plan is not None:
                        self._overlay_tell_events()  # before, they may be those of an older pod of this name
                    self._overlay_tell_slowness(now)
                reason = self._overlay_look(overdue=now >= end) if self._overlay_created else None
            except Exception:
                # Something that Kubernetes says in a way of its own must not end a start that goes well.
                self.log.exception("%s: can't read what Kubernetes says about the pod", self._log_name)
                await asyncio.sleep(_LOOK_AT_EVENTS)
                continue
            if reason is not None:
                return await self._overlay_about_claims(reason)

    def _overlay_look(self, *, overdue: bool) -> Reason | None:
        """Return why the start has failed, ``None`` while it may go well."""
        pod = self._overlay_pod()
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            # Once may be a hub that has just begun to look again.
            self._overlay_missed += self._overlay_seen
            if self._overlay_missed >= _MISSES:
                return Reason("evicted", "The server's pod disappeared while it started.", fatal=True)
            return None
        self._overlay_seen, self._overlay_missed = True, 0
        reason = kube_reasons.of_pod(pod)
        if reason is not None:
            reason = kube_reasons.more_telling(reason, self._overlay_problem)
            if reason.code == "image":
                self._overlay_problem = reason
            self._overlay_tell(reason)
            if reason.fatal:
                return reason
        # Before the hub gives up, without a reason. Until then a cluster may grow, a registry come back.
        if overdue and not self._overlay_pod_runs:
            return reason or self._overlay_problem or kube_reasons.of_unready(pod)
        return None

    def _overlay_tell(self, reason: Reason) -> None:
        """Show once what holds up the start."""
        message = kube_reasons.words(reason.message, self._overlay_secrets)
        if message not in self._overlay_told:
            self._overlay_told.add(message)
            self.log.warning("%s: [%s] %s", self._log_name, reason.code, message)
            self._overlay_say(progress.PULL_FROM, message)

    def _overlay_tell_events(self) -> None:
        """Show what Kubernetes says about the pod."""
        for event in self.events:
            identity = str(event["metadata"].get("uid"))
            if identity in self._overlay_told:
                continue
            self._overlay_told.add(identity)
            reason = kube_reasons.of_event(event)
            if reason is not None:
                self._overlay_problem = kube_reasons.more_telling(reason, self._overlay_problem)
                self._overlay_tell(self._overlay_problem)
            elif event.get("type") == "Normal":
                if event.get("reason") not in ("BackOff", "Pulling"):  # of another try
                    self._overlay_problem = None  # it goes on
                message = kube_reasons.words(event.get("message"), self._overlay_secrets)
                percent = _PERCENT.get(event.get("reason") or "", 1)
                self._overlay_say(percent, message, raw_event=event)

    def _overlay_tell_slowness(self, now: float) -> None:
        """Show KubeSpawner's message about a slow start, which the administrator may have set."""
        threshold = getattr(self, "slow_spawn_message_threshold", 0)  # KubeSpawner 7.1 has it
        elapsed = now - self._overlay_started
        due = self._overlay_patience_at + getattr(self, "slow_spawn_message_frequency", 10)
        if threshold > 0 and elapsed >= max(threshold, due if self._overlay_patience_at else 0):
            self._overlay_patience_at = elapsed
            text = inspect.cleandoc(self.slow_spawn_message).format(seconds=int(elapsed))
            self._overlay_say(1, text)

    async def _overlay_about_claims(self, reason: Reason) -> Reason:
        """Return a reason, with what Kubernetes says about the storage claim if that is waited for."""
        if reason.code != "storage" or not self.pvc_name:
            return reason
        told = await kube_claims.what_is_said(self.api, self.namespace, self.pvc_name)
        if not told:
            return reason
        return Reason(reason.code, f"{reason.message} About the claim {self.pvc_name}: {told}", fatal=True)

    async def _overlay_wait_or_die(self, url: str, watch: asyncio.Future[Reason]) -> None:
        self._overlay_tell_events()
        if self.server is None:
            return  # there is no hub that would look for the server
        self._overlay_say(progress.STARTED, "Waiting for the server to answer")
        if await self._overlay_wait_at(url + self.server.base_url, until=watch):
            self._overlay_say(progress.SERVER, "The server answers")
        elif watch.done():
            raise await self._overlay_failed(watch.result())

    async def _overlay_failed(self, reason: Reason) -> Exception:
        """Return the exception that tells why the start failed."""
        message = kube_reasons.words(reason.message, self._overlay_secrets)
        last_words = kube_reasons.tail(reason.tail or await self._overlay_logs(reason), self._overlay_secrets)
        self.log.warning("%s: [%s] %s\n%s", self._log_name, reason.code, message, last_words)
        if reason.code == "evicted" and self._overlay_created and self.delete_stopped_pods:
            # KubeSpawner takes a pod that has failed without a container for one that is gone
            with contextlib.suppress(*API_ERRORS):
                await asyncio.wait_for(super().stop(now=True), _LOGS_PATIENCE)
        return failure.spawn_failure(
            self,
            message,
            reason=reason.code,
            tail=last_words,
            hint=reason.hint,
            safe=reason.safe and self._overlay_choice is None,
        )

    async def _overlay_logs(self, reason: Reason) -> str:
        """Return the end of the server's log, ``""`` where the hub may not read it."""
        if not reason.safe or self.namespace in self._overlay_no_logs:
            return ""
        try:
            asked = self.api.read_namespaced_pod_log(
                self.pod_name,
                self.namespace,
                container=NOTEBOOK,
                tail_lines=kube_reasons.MAX_TAIL_LINES,
                limit_bytes=_LOG_BYTES,
            )
            return str(await asyncio.wait_for(asked, _LOGS_PATIENCE) or "")
        except API_ERRORS as e:
            if getattr(e, "status", None) == 403:
                self._overlay_no_logs.add(self.namespace)
            return ""

    async def _overlay_explain(self, error: Exception) -> None:
        """Raise a better exception for a request that failed, where there is one."""
        if self._overlay_settings is None:
            return
        if isinstance(error, ApiException):
            reason = kube_reasons.of_refusal(error.status or 0, error.body)
        elif self._overlay_created:
            return  # the pod is there and does not run in time: KubeSpawner says so
        else:
            own = kube_reasons.words(error) or type(error).__name__
            reason = Reason("cluster", f"{kube_reasons.CODES['cluster']} ({own})")
        if reason.code != "cluster" and getattr(error, "status", None) != 401:
            # It is about this pod or this namespace: nothing that starting the hub again would mend.
            raise await self._overlay_failed(reason) from error
        message = kube_reasons.words(reason.message, self._overlay_secrets)
        self.log.error("%s: [%s] %s", self._log_name, reason.code, message)
        raise failure.config_failure(message, reason.hint) from error

    def _overlay_tidy(self) -> None:
        """Remove old Secrets, while nobody waits for it."""
        if self._overlay_plan is None or self._overlay_plan.spec is None:
            return
        if not callable(self.overlay_secret_name) and self.overlay_secret_name:
            return
        background.start(self._overlay_store.remove_old(self.api, self.namespace))

    # -- the rest ---------------------------------------------------------------------------------------

    async def get_url(self) -> str:
        """Return where the server is: a hub that was restarted in mid-start does not know."""
        known = self.server is not None and self.server.ip
        if not known and self.server is not None and await self._overlay_value("overlay_enabled"):
            pod = self._overlay_pod()
            if pod is not None and self.is_pod_running(pod):
                return str(self._get_pod_url(pod)) + str(self.server.base_url)
        url: str = await super().get_url()
        return url
