"""What the server extension answers with, apart from HTTP: the context, the jobs and the change engine."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from overlayspawner.payload import actions, dists, gate, interrupted, report, sizes
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError, notice
from overlayspawner.payload.follow import Follower
from overlayspawner.payload.joblimits import JobLimits
from overlayspawner.payload.lease import Busy
from overlayspawner.payload.requirements import parse
from overlayspawner.payload.server import body
from overlayspawner.payload.server.jobs import FINISHED, Event, Job, JobRunner
from overlayspawner.payload.server.tidying import Tidier

if TYPE_CHECKING:
    from overlayspawner.payload.finder import Finder

READ_TIMEOUT = 20.0
"""Seconds that a request waits for the user's storage."""

MAX_READERS = 8
"""Requests that may wait for the user's storage at the same time."""

PLAN_TIMEOUT = 120.0
"""Seconds that a plan may take: most of it is waiting for the index."""

ASK_TIMEOUT = 60.0
"""Seconds that a request may wait for the package index."""

MAX_ASKING = 16
"""Requests that may wait for the package index at the same time."""

MAX_PLANS = 4
"""Plans that are made at the same time."""

LEASE_PATIENCE = 600.0
"""Seconds that a job waits for another server that is changing the overlay."""

LEASE_PAUSE = 1.0
"""Seconds between two attempts."""

T = TypeVar("T")


class Service:
    """The one object behind all handlers.

    Parameters
    ----------
    context:
        What the start found.
    log:
        The server's log.
    on_activity:
        Called, in any thread, while a job runs.
    """

    def __init__(
        self, context: Context, log: logging.Logger, on_activity: Callable[[], None] | None = None
    ) -> None:
        self.context = context
        self._follower = Follower(context)
        self.log = log
        self._on_activity = on_activity
        self._readers = 0
        self._plans = 0
        self._asking = 0
        self._tidier = Tidier(context.for_changes, log)
        self.refresh_pages: Callable[[], bool] = lambda: False
        """Brings pages up to date with the overlay; returns whether they differ now."""
        self.jobs = JobRunner(self._work, on_change=self._changed, on_bug=self._bug, held=self._noted)

    @functools.cached_property
    def finder(self) -> Finder:
        """What finds packages: loaded when somebody looks for one, not while the server starts."""
        from overlayspawner.payload.finder import Finder

        return Finder(self.context.for_changes)

    def follow(self) -> None:
        """Look whether a repair in a terminal has brought an overlay back. Never raises."""
        self._follower.look()

    # -- reading --------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return the JSON shape of ``status``."""
        self._follower.look()
        told, current = report.status(self.context), self.jobs.current()
        if self._restoring(current):  # the notice may be of the moment before that job has begun
            notices = told["notices"]
            told["notices"] = [notice("restoring") if n["code"] == "restore-waiting" else n for n in notices]
        return {**told, "job": current.to_dict() if current else None}

    def packages(self, scope: str) -> list[dict[str, Any]]:
        """Return the packages of a scope (``overlay``, ``base``, ``user-site``)."""
        return dists.packages(self.context, scope)

    def revisions(self) -> list[dict[str, Any]]:
        """Return the revisions, newest first, without the lists of files."""
        return report.history(self.context)

    def export(self, form: str, pinned: bool) -> dict[str, object]:
        """Return the overlay as text; see :func:`overlayspawner.payload.export.export`."""
        from overlayspawner.payload import export_facts
        from overlayspawner.payload.export import export

        return export(export_facts.read(self.context.for_changes()), form, pinned=pinned)

    def cleanup(self) -> dict[str, Any]:
        """Return what could be freed, as it was measured last."""
        return sizes.last(self.context.for_changes())

    def given(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what a file asks for, of which a request sends the text. Keeps nothing of it.

        Raises
        ------
        OverlayError
            ``bad-request``, ``not-available``.
        """
        from overlayspawner.payload import sent

        return sent.read(*body.given(request))

    def modules(self, name: str) -> dict[str, Any]:
        """Return the packages that are known to have a module."""
        found = self.finder.modules(name)
        return {**found, "restoring": found["restoring"] or self._restoring(self.jobs.current())}

    @staticmethod
    def _restoring(job: Job | None) -> bool:
        return job is not None and job.action == "restore"

    async def ask_index(self, work: Callable[[], T]) -> T:
        """Run what asks the package index in a thread of its own, as :meth:`off_loop`.

        Raises
        ------
        OverlayError
            ``busy`` when too many requests wait for the index already, ``timeout``.
        """
        if self._asking >= MAX_ASKING:
            raise OverlayError(
                "busy", "Several requests wait for the package index already.", "Ask again soon.", status=409
            )

        def done() -> None:
            self._asking -= 1

        self._asking += 1
        try:
            return await asyncio.wait_for(self._in_thread(work, done), ASK_TIMEOUT)
        except asyncio.TimeoutError:
            raise OverlayError(
                "timeout",
                f"The package index did not answer within {ASK_TIMEOUT:g} seconds.",
                "Try again; if it goes on, ask your administrator about the package index.",
                status=504,
            ) from None

    async def off_loop(self, work: Callable[[], T]) -> T:
        """Run something that reads the user's storage in a thread of its own.

        A daemon thread rather than an executor's: one that hangs on dead network storage must neither hold
        up later requests nor the end of the server.

        Raises
        ------
        OverlayError
            ``timeout``, when the storage does not answer or too many requests wait for it already.
        """
        slow = OverlayError(
            "timeout",
            f"The storage of the overlay did not answer within {READ_TIMEOUT:g} seconds.",
            "Try again; if it goes on, ask your administrator.",
            status=504,
        )
        if self._readers >= MAX_READERS:
            raise slow

        def done() -> None:
            self._readers -= 1

        self._readers += 1
        try:
            return await asyncio.wait_for(self._in_thread(work, done), READ_TIMEOUT)
        except asyncio.TimeoutError:
            raise slow from None

    def _in_thread(self, work: Callable[[], T], done: Callable[[], None]) -> asyncio.Future[T]:
        """Begin something in a thread; ``done`` is called in the loop once it has really ended."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            done()
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = work()
            except Exception as e:
                error = e
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                pass  # the server has stopped meanwhile

        try:
            threading.Thread(target=run, name="overlay-read", daemon=True).start()
        except BaseException:
            done()  # a limit of processes: what never began does not count for ever
            raise
        return future

    async def plan(self, request: dict[str, Any], cancel: threading.Event) -> dict[str, Any]:
        """Return the plan for a request. Changes nothing.

        Parameters
        ----------
        request:
            The body of the request.
        cancel:
            Set, also by this method, when nobody waits for the answer any more.

        Raises
        ------
        OverlayError
            What the request or the change would be refused with; ``busy`` for too many plans at once,
            ``timeout`` when the index takes too long.
        """
        from overlayspawner.payload.planning import plan

        fields = body.plan(request)
        if self._plans >= MAX_PLANS:
            raise OverlayError(
                "busy", f"{self._plans} plans are being made already.", "Ask again in a moment.", status=409
            )

        def work() -> dict[str, Any]:
            self._follower.look()
            return plan(
                self.context.for_changes(),
                install=fields["install"],
                uninstall=fields["uninstall"],
                upgrade=fields["upgrade"],
                cancel=cancel,
            )

        def done() -> None:
            self._plans -= 1

        self._plans += 1
        try:
            return await asyncio.wait_for(self._in_thread(work, done), PLAN_TIMEOUT)
        except asyncio.TimeoutError:
            raise OverlayError(
                "timeout",
                f"The plan was not ready within {PLAN_TIMEOUT:g} seconds.",
                "Try again; if it goes on, ask your administrator about the package index.",
                status=504,
            ) from None
        finally:
            cancel.set()

    # -- changing -------------------------------------------------------------------------------------

    def make_job(self, request: dict[str, Any], who: str = "") -> Job:
        """Check a request for a job and return the job, not yet queued.

        Raises
        ------
        OverlayError
            ``bad-request``, ``unknown-action``, ``bad-requirement``, ``option-not-allowed``, ``no-overlay``,
            ``policy``.
        """
        self._follower.look()
        action, fields = body.job(request)
        if action != "reset":  # which may be just what an overlay needs that can't be opened
            context = self.context.for_changes()
            context.require()
            if action == "upgrade" and not fields["upgrade"]:
                fields["upgrade"] = report.upgradable(context)
            install = [parse(line) for line in fields.get("install", ())]
            gate.refuse_asked(context, install, fields.get("upgrade", ()))
        return Job(action, fields, who)

    def ask_next(self, request: dict[str, Any]) -> dict[str, str]:
        """Ask for a mode of the next start; return what is asked for now.

        Raises
        ------
        OverlayError
            ``bad-request``, ``no-overlay``, or what the storage says.
        """
        report.ask_next(self.context, body.mode(request))
        return {"mode": report.next_start(self.context)}

    def dismiss(self, job: Job) -> None:
        """Tell no more that a job was interrupted. Reads and writes the user's storage."""
        interrupted.forget(self.context.for_changes(), job.id)

    def remember_interrupted(self) -> None:
        """List what an earlier server was doing when it stopped. Reads the user's storage."""
        self.jobs.remember([_interrupted(data) for data in reversed(interrupted.found(self.context))])

    @contextlib.contextmanager
    def _noted(self, job: Job) -> Iterator[None]:
        """Keep a note of a job in the user's storage while it runs, and afterwards if it was interrupted."""
        record = interrupted.begin(self.context.for_changes(), {**job.to_dict(), "started": job.started})
        yield
        if record is not None:
            record.end(keep=job.was_interrupted)

    def _work(self, job: Job, on_event: Callable[[Event], None], cancel: threading.Event) -> dict[str, Any]:
        context = self.context.for_changes()
        limits = JobLimits(
            cancel,
            total=context.spec.job_timeout,
            silence=context.spec.job_silence,
            on_ask=self._on_activity,
        )
        until = time.monotonic() + LEASE_PATIENCE
        while True:
            try:
                out = actions.run(
                    context, job.action, job.request, on_event=on_event, cancel=limits, who=job.who
                )
                return {**out, "reload": self.refresh_pages()}
            except Busy as e:
                if time.monotonic() >= until:
                    raise
                on_event({"phase": "waiting", "message": e.message})
                if cancel.wait(LEASE_PAUSE):
                    raise OverlayError("cancelled", "It was cancelled before it began.", status=409) from None
                limits.restart()
            except OverlayError as e:
                if e.code != "cancelled" or not limits.over:
                    raise
                raise _too_long(job, limits, e) from None

    def _changed(self, job: Job) -> None:
        if self._on_activity is not None:
            self._on_activity()
        if job.state == "running":
            self._tidier.stop()
        if job.state in FINISHED:
            self._tidier.start()
            what = f"{job.error['code']}: {job.error['message']}" if job.error else f"revision {job.revision}"
            self.log.info("overlayspawner: %s %s (%s)", job.action, job.state, what)

    def _bug(self, error: BaseException) -> None:
        self.log.error("overlayspawner: a job failed unexpectedly", exc_info=error)


def _too_long(job: Job, limits: JobLimits, error: OverlayError) -> OverlayError:
    """Return the error for a job that passed one of its limits: what it hung at."""
    names = [entry["name"] for entry in job.packages.values() if entry["state"] == job.phase]
    what = ", ".join(names[:3]) + (" and others" if names[3:] else "")
    doing = {
        "resolving": "looking for versions that fit, which needs the package index",
        "downloading": f"downloading {what or 'packages'}",
        "building": f"building {what or 'a package'}",
    }.get(job.phase, job.message or "working")
    if limits.over == "silence":
        why = f"There was no sign of life for {limits.silence:g} seconds while {doing}."
    else:
        why = f"It took longer than {limits.total:g} seconds, and was stopped while {doing}."
    hint = "Try again; if it goes on, ask your administrator" + (
        " about the package index." if job.phase in ("resolving", "downloading") else "."
    )
    return OverlayError("timeout", f"{why} Nothing was changed.", hint, status=504, log=error.log)


def _interrupted(data: dict[str, Any]) -> Job:
    """Return the job of an earlier server as one of this server's list."""
    job = Job(data["action"], data["request"], str(data.get("who") or ""))
    job.id = data["id"]
    job.created = str(data.get("created") or job.created)
    job.started = data["started"] if isinstance(data.get("started"), str) else None
    error = OverlayError("interrupted", interrupted.sentence(data), interrupted.hint(data))
    job.outcome = "done" if data["outcome"] == "completed" else "cancelled", error
    job.end()
    return job
