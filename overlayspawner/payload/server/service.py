"""What the server extension answers with, apart from HTTP: the context, the jobs and the change engine."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from overlayspawner.payload import dists, report, requirements
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.server.jobs import FINISHED, Event, Job, JobRunner

ACTIONS = ("install", "uninstall", "upgrade", "sync")
LATER = ("restore", "undo", "reset", "import")
"""Actions that are part of the interface but not built yet: answered with 501 and ``not-available``."""

FIELDS = ("install", "uninstall", "upgrade")
MAX_REQUIREMENTS = 200
"""Entries of one list in a request."""

READ_TIMEOUT = 20.0
"""Seconds that a request waits for the user's storage."""

MAX_READERS = 8
"""Requests that may wait for the user's storage at the same time."""

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
        self.log = log
        self._on_activity = on_activity
        self._readers = 0
        self.jobs = JobRunner(self._work, on_change=self._changed, on_bug=self._bug)

    # -- reading --------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return the JSON shape of ``status``."""
        current = self.jobs.current()
        return {**report.status(self.context), "job": current.to_dict() if current else None}

    def packages(self, scope: str) -> list[dict[str, Any]]:
        """Return the packages of a scope (``overlay``, ``base``, ``user-site``)."""
        return dists.packages(self.context, scope)

    def revisions(self) -> list[dict[str, Any]]:
        """Return the revisions, newest first, without the lists of files."""
        return report.history(self.context)

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
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            self._readers -= 1
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

        self._readers += 1
        threading.Thread(target=run, name="overlay-read", daemon=True).start()
        try:
            return await asyncio.wait_for(future, READ_TIMEOUT)
        except asyncio.TimeoutError:
            raise slow from None

    # -- changing -------------------------------------------------------------------------------------

    def make_job(self, body: dict[str, Any], who: str = "") -> Job:
        """Check a request for a job and return the job, not yet queued.

        Raises
        ------
        OverlayError
            ``bad-request``, ``unknown-action``, ``not-available``, ``bad-requirement``,
            ``option-not-allowed``, ``no-overlay``.
        """
        extra = set(body) - {"action", *FIELDS}
        action = body.get("action")
        if not isinstance(action, str):
            raise OverlayError("bad-request", "The field 'action' is missing or not a text.")
        if action in LATER:
            raise OverlayError("not-available", f"{action!r} is not available in this version.", status=501)
        if action not in ACTIONS:
            known = ", ".join(ACTIONS)
            raise OverlayError(
                "unknown-action", f"There is no action {action[:40]!r}.", f"The actions are {known}."
            )
        if extra:
            raise OverlayError(
                "bad-request", f"There is no field {min(extra)[:40]!r} in a request for a job."
            )
        request = {field: _texts(body, field) for field in FIELDS}
        others = [field for field in FIELDS if request[field] and field != action]
        if others:
            raise OverlayError(
                "bad-request", f"The field {others[0]!r} does not belong to the action {action!r}."
            )
        if action in ("install", "uninstall") and not request[action]:
            raise OverlayError(
                "bad-request", f"The field {action!r} is missing or empty: there is nothing to do."
            )
        for text in request["install"]:
            requirements.parse(text)
        for field in ("uninstall", "upgrade"):
            for text in request[field]:
                requirements.parse_name(text)
        self.context.require()
        if action == "upgrade" and not request["upgrade"]:
            request["upgrade"] = report.upgradable(self.context)
        return Job(action, request, who)

    def _work(self, job: Job, on_event: Callable[[Event], None], cancel: threading.Event) -> dict[str, Any]:
        from overlayspawner.payload.apply import apply

        return apply(
            self.context,
            job.action,
            install=job.request["install"],
            uninstall=job.request["uninstall"],
            upgrade=job.request["upgrade"],
            on_event=on_event,
            cancel=cancel,
            who=job.who,
        )

    def _changed(self, job: Job) -> None:
        if self._on_activity is not None:
            self._on_activity()
        if job.state in FINISHED:
            what = f"{job.error['code']}: {job.error['message']}" if job.error else f"revision {job.revision}"
            self.log.info("overlayspawner: %s %s (%s)", job.action, job.state, what)

    def _bug(self, error: BaseException) -> None:
        self.log.error("overlayspawner: a job failed unexpectedly", exc_info=error)


def _texts(body: dict[str, Any], field: str) -> list[str]:
    value = body.get(field, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise OverlayError("bad-request", f"The field {field!r} is not a list of texts.")
    if len(value) > MAX_REQUIREMENTS:
        raise OverlayError("bad-request", f"The field {field!r} has more than {MAX_REQUIREMENTS} entries.")
    return value
