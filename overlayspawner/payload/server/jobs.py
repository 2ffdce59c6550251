"""Long-running actions: one worker thread, a queue, and what each job did.

A job belongs to the server, not to the request that asked for it: a closed browser tab stops nothing. Knows
neither tornado nor the change engine; both are handed in.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.server.job import FINISHED, MAX_EVENTS, MAX_LINE, Event, Job, clean, now

__all__ = ["FINISHED", "KEEP", "MAX_EVENTS", "MAX_LINE", "MAX_WAITING", "Event", "Job", "JobRunner"]

KEEP = 50
"""Jobs remembered, finished ones included."""

MAX_WAITING = 20
"""Jobs in the queue; more are refused."""

_AGAIN = "Ask for it again."

Work = Callable[[Job, Callable[[Event], None], threading.Event], dict[str, Any]]
Held = Callable[[Job], "contextlib.AbstractContextManager[None]"]


class JobRunner:
    """Runs jobs one after the other.

    Parameters
    ----------
    work:
        Does one job: called in the worker thread with the job, a function for events and the event that
        asks to stop; returns ``{"revision": {"id", "changed", …}, "plan": …}``, with ``"failed"`` where a
        part could not be done and ``"reload"`` where pages have changed, or raises.
    on_change:
        Called, in any thread, whenever a job changes.
    on_bug:
        Called in the worker thread when ``work`` raised something else than an :class:`OverlayError`.
    held:
        Gives what is entered, in the worker thread, around each job and its end.
    """

    def __init__(
        self,
        work: Work,
        *,
        on_change: Callable[[Job], None] | None = None,
        on_bug: Callable[[BaseException], None] | None = None,
        held: Held | None = None,
    ) -> None:
        self._work = work
        self._on_change = on_change
        self._on_bug = on_bug
        self._held = held or (lambda job: contextlib.nullcontext())
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._listeners: set[Callable[[], None]] = set()

    # -- asking ---------------------------------------------------------------------------------------

    def submit(self, job: Job) -> Job:
        """Queue a job.

        Raises
        ------
        OverlayError
            ``busy`` when too many wait, or the server is stopping.
        """
        with self._lock:
            waiting = sum(1 for j in self._jobs.values() if j.state == "queued")
            if self._stopping or waiting >= MAX_WAITING:
                why = (
                    "The server is stopping." if self._stopping else f"{waiting} changes are waiting already."
                )
                raise OverlayError("busy", why, "Wait until they are done.", status=409)
            if self._thread is None or not self._thread.is_alive():
                # A daemon, so that a change that hangs on dead storage can't keep the server from ending;
                # `stop` gives it time to end well. Before all else: where there can't be another thread, no
                # job waits for ever.
                thread = threading.Thread(target=self._run, name="overlay-jobs", daemon=True)
                thread.start()
                self._thread = thread
            job.position = sum(1 for j in self._jobs.values() if j.state not in FINISHED)
            self._jobs[job.id] = job
            self._prune()
        self._emit(job, "state")
        self._queue.put(job)
        return job

    def remember(self, jobs: list[Job]) -> None:
        """Take in finished jobs of an earlier server, as the oldest."""
        with self._lock:
            for job in jobs:
                if job.id not in self._jobs:
                    self._jobs[job.id] = job
                    self._jobs.move_to_end(job.id, last=False)
            self._prune()

    def get(self, ident: str) -> Job:
        """Return a job by its id.

        Raises
        ------
        OverlayError
            ``not-found``.
        """
        with self._lock:
            try:
                return self._jobs[ident]
            except KeyError:
                raise OverlayError(
                    "not-found",
                    "There is no such job; this server remembers its last 50.",
                    status=404,
                ) from None

    def jobs(self) -> list[Job]:
        """Return the jobs, newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def current(self) -> Job | None:
        """Return the running job, else the next in the queue, else ``None``."""
        with self._lock:
            active = [j for j in self._jobs.values() if j.state not in FINISHED]
        running = [j for j in active if j.state == "running"]
        first = running or active
        return first[0] if first else None

    def cancel(self, ident: str) -> Job:
        """Ask a job to stop; one that is finished stays as it is.

        Raises
        ------
        OverlayError
            ``not-found``.
        """
        job = self.get(ident)
        with self._lock:
            job.cancel.set()
            waiting = job.state == "queued"
            if waiting:
                why = OverlayError("cancelled", "It was cancelled before it began.")
                if self._stopping:
                    why = OverlayError("interrupted", "The server stopped before it began.", _AGAIN)
                job.outcome = "cancelled", why
                self._emit(job, "state", end=True)
        if waiting:
            self._moved()
        return job

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` (in any thread) after each event of any job; returns how to stop that."""
        with self._lock:
            self._listeners.add(callback)

        def stop() -> None:
            with self._lock:
                self._listeners.discard(callback)

        return stop

    def events_after(self, job: Job, sequence: int | None) -> list[tuple[int, str, dict[str, Any]]]:
        """Return the events of a job with a number greater than ``sequence``.

        For ``None``, and where some of them are no longer kept, that is one event, ``state``: the job as it
        is now, with its log. A number that has not been given yet is some other job's.
        """
        with self._lock:
            oldest = job.events[0][0] if job.events else job.sequence + 1
            if sequence is None or sequence + 1 < oldest or sequence > job.sequence:
                return [(job.sequence, "state", job.to_dict(log=True))]
            return [e for e in job.events if e[0] > sequence]

    def stop(self, timeout: float = 10.0) -> bool:
        """Cancel everything and wait for the running job to end cleanly.

        Parameters
        ----------
        timeout:
            Seconds to wait.

        Returns
        -------
        bool
            Whether the worker has ended.
        """
        with self._lock:
            self._stopping = True
            active = [j for j in self._jobs.values() if j.state not in FINISHED]
            thread = self._thread
        for job in active:
            self.cancel(job.id)
        if thread is None:
            return True
        self._queue.put(None)
        thread.join(timeout)
        return not thread.is_alive()

    # -- working --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            job = self._queue.get()
            if job is None:
                return
            with self._lock:
                begins = job.state == "queued"
                if begins:
                    job.state, job.started, job.position = "running", now(), None
            if begins:
                self._emit(job, "state")
                self._moved()
                self._one(job)
            elif job.was_interrupted:
                with self._kept(job):
                    pass  # it had waited: the next server shall know

    def _one(self, job: Job) -> None:
        def on_event(event: Event) -> None:
            with self._lock:
                data = job.take(event)
            self._emit(job, "progress", data)

        with self._kept(job):
            try:
                result = self._work(job, on_event, job.cancel)
            except OverlayError as e:
                state = "cancelled" if e.code == "cancelled" else "failed"
                if state == "cancelled" and self._stopping:
                    e = OverlayError("interrupted", hint=_AGAIN)
                job.outcome = state, e
            except BaseException as e:
                # The worker outlives every bug; the user gets a code, the log the traceback.
                self._bug(e)
                hint = "The server's log says more. `overlay doctor` checks the overlay."
                why = f"An unexpected {type(e).__name__}."
                job.outcome = "failed", OverlayError("internal", why, hint)
            else:
                self._take_result(job, result)
                job.outcome = "done", None
        self._emit(job, "state", end=True)
        self._moved()

    @contextlib.contextmanager
    def _kept(self, job: Job) -> Iterator[None]:
        """Enter what surrounds a job; no fault of that is the job's."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._held(job))
            except BaseException as e:
                self._bug(e)
            yield
            try:
                stack.close()
            except BaseException as e:
                self._bug(e)

    def _bug(self, error: BaseException) -> None:
        if self._on_bug is not None:
            with contextlib.suppress(Exception):
                self._on_bug(error)

    def _take_result(self, job: Job, result: dict[str, Any]) -> None:
        with self._lock:
            job.plan = result.get("plan")
            job.reload = bool(result.get("reload"))
            revision = result.get("revision") or {}
            job.revision = revision["id"] if revision.get("changed") else None
            job.failed = [
                {key: clean(item.get(key) or "") for key in ("requirement", "reason", "hint")}
                for item in result.get("failed")
                or (job.plan or {}).get("failed")
                or result.get("left_out")
                or ()
            ]

    def _moved(self) -> None:
        """Tell the waiting jobs where they are in the queue now."""
        moved = []
        with self._lock:
            active = [j for j in self._jobs.values() if j.state not in FINISHED]
            active.sort(key=lambda j: j.state == "queued")
            for place, job in enumerate(active):
                if job.state == "queued" and job.position != place:
                    job.position = place
                    moved.append(job)
        for job in moved:
            self._emit(job, "state")

    def _emit(self, job: Job, kind: str, data: dict[str, Any] | None = None, *, end: bool = False) -> None:
        """Add an event and tell everybody; with ``end`` the job is over from that very event on."""
        with self._lock:
            if end:
                job.end()
            job.sequence += 1
            job.events.append((job.sequence, kind, job.to_dict() if data is None else data))
            callbacks = list(self._listeners)
        if self._on_change is not None:
            callbacks.insert(0, partial(self._on_change, job))
        for callback in callbacks:
            try:
                callback()
            except Exception as e:
                self._bug(e)  # a stream that has gone is no reason to stop working

    def _prune(self) -> None:
        finished = [j.id for j in self._jobs.values() if j.state in FINISHED]
        while len(self._jobs) > KEEP and finished:
            del self._jobs[finished.pop(0)]
