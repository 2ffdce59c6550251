"""Long-running actions: one worker thread, a queue, and what each job did.

A job belongs to the server, not to the request that asked for it: a closed browser tab stops nothing. Knows
neither tornado nor the change engine; both are handed in.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.procs import redact

KEEP = 50
"""Jobs remembered, finished ones included."""

MAX_WAITING = 20
"""Jobs in the queue; more are refused."""

MAX_EVENTS = 400
"""Events kept of one job; older ones are dropped."""

MAX_LINE = 2000
"""Characters kept of one line of a log."""

FINISHED = ("done", "failed", "cancelled")

# What share of the work lies behind when a phase begins: an estimate for a progress bar, nothing more.
_PROGRESS = {
    "resolving": 0.1,
    "downloading": 0.3,
    "building": 0.5,
    "staging": 0.7,
    "committing": 0.9,
    "done": 1.0,
}

Event = dict[str, Any]
Work = Callable[["Job", Callable[[Event], None], threading.Event], dict[str, Any]]


def now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean(text: object) -> str:
    """Return one line that may be shown: bounded, without credentials and control characters."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[: MAX_LINE * 4])
    line = redact(line)
    return line if len(line) <= MAX_LINE else line[:MAX_LINE] + " …"


class Job:
    """One action of the server extension.

    Parameters
    ----------
    action:
        Name of the action.
    request:
        The action's fields: see :data:`actions.FIELDS`; what is left out has its default.
    who:
        The user that asked (``server`` for what it does by itself), for the revision.
    """

    def __init__(self, action: str, request: Mapping[str, Any] | None = None, who: str = "") -> None:
        # Not a counter: a page that outlived a restart must not be shown another job under its number.
        self.id = secrets.token_hex(8)
        self.action = action
        self.request: dict[str, Any] = {"install": [], "uninstall": [], "upgrade": [], **(request or {})}
        self.who = who
        self.state = "queued"
        self.phase = ""
        self.message = ""
        self.progress = 0.0
        self.plan: dict[str, Any] | None = None
        self.revision: int | None = None
        self.failed: list[dict[str, str]] = []
        self.error: dict[str, str] | None = None
        self.created = now()
        self.started: str | None = None
        self.finished: str | None = None
        self.cancel = threading.Event()
        self.events: deque[tuple[int, str, dict[str, Any]]] = deque(maxlen=MAX_EVENTS)
        self.sequence = 0

    def to_dict(self, *, log: bool = False) -> dict[str, Any]:
        """Return the JSON shape.

        Parameters
        ----------
        log:
            With ``log``: the messages so far.
        """
        out: dict[str, Any] = {
            "id": self.id,
            "action": self.action,
            "who": self.who,
            "request": self.request,
            "state": self.state,
            "phase": self.phase,
            "message": self.message,
            "progress": self.progress,
            "plan": self.plan,
            "revision": self.revision,
            "failed": self.failed,
            "error": self.error,
            "created": self.created,
            "started": self.started,
            "finished": self.finished,
        }
        if log:
            out["log"] = [
                data["message"] for _, kind, data in self.events if kind == "progress" and data["message"]
            ]
        return out


class JobRunner:
    """Runs jobs one after the other.

    Parameters
    ----------
    work:
        Does one job: called in the worker thread with the job, a function for events and the event that
        asks to stop; returns ``{"revision": {"id", "changed", …}, "plan": …}``, with ``"failed"`` where a
        part could not be done, or raises.
    on_change:
        Called, in any thread, whenever a job changes.
    on_bug:
        Called in the worker thread when ``work`` raised something else than an :class:`OverlayError`.
    """

    def __init__(
        self,
        work: Work,
        *,
        on_change: Callable[[Job], None] | None = None,
        on_bug: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._work = work
        self._on_change = on_change
        self._on_bug = on_bug
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
            self._jobs[job.id] = job
            self._prune()
            if self._thread is None:
                # A daemon, so that a change that hangs on dead storage can't keep the server from ending;
                # `stop` gives it time to end well.
                self._thread = threading.Thread(target=self._run, name="overlay-jobs", daemon=True)
                self._thread.start()
        self._emit(job, "state", job.to_dict())
        self._queue.put(job)
        return job

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
                self._finish(job, "cancelled", OverlayError("cancelled", "It was cancelled before it began."))
        if waiting:
            self._emit(job, "state", job.to_dict())
        return job

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` (in any thread) after each event of any job; returns how to stop that."""
        with self._lock:
            self._listeners.add(callback)

        def stop() -> None:
            with self._lock:
                self._listeners.discard(callback)

        return stop

    def events_after(self, job: Job, sequence: int) -> list[tuple[int, str, dict[str, Any]]]:
        """Return the events of a job with a number greater than ``sequence``."""
        with self._lock:
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
                if job.state != "queued":
                    continue
                job.state = "running"
                job.started = now()
            self._emit(job, "state", job.to_dict())
            self._one(job)
            self._emit(job, "state", job.to_dict())

    def _one(self, job: Job) -> None:
        def on_event(event: Event) -> None:
            self._progress(job, event)

        try:
            result = self._work(job, on_event, job.cancel)
        except OverlayError as e:
            state = "cancelled" if e.code == "cancelled" else "failed"
            if state == "cancelled" and self._stopping:
                e = OverlayError("interrupted", hint="Ask for it again.")
            self._finish(job, state, e)
        except BaseException as e:
            # The worker outlives every bug; the user gets a code, the log the traceback.
            if self._on_bug is not None:
                self._on_bug(e)
            hint = "The server's log says more. `overlay doctor` checks the overlay."
            self._finish(job, "failed", OverlayError("internal", f"An unexpected {type(e).__name__}.", hint))
        else:
            with self._lock:
                job.plan = result.get("plan")
                revision = result.get("revision") or {}
                job.revision = revision["id"] if revision.get("changed") else None
                job.failed = [
                    {key: clean(item.get(key) or "") for key in ("requirement", "reason", "hint")}
                    for item in result.get("failed")
                    or (job.plan or {}).get("failed")
                    or result.get("left_out")
                    or ()
                ]
                job.progress = 1.0
            self._finish(job, "done", None)

    def _finish(self, job: Job, state: str, error: OverlayError | None) -> None:
        with self._lock:
            job.state = state
            job.finished = now()
            job.phase = ""
            if error is not None:
                job.error = {
                    key: "\n".join(clean(line) for line in value.splitlines()[-200:])
                    for key, value in error.to_dict().items()
                }
                job.message = job.error["message"]

    def _progress(self, job: Job, event: Event) -> None:
        phase = str(event.get("phase") or job.phase)
        given = event.get("progress")
        with self._lock:
            job.phase = phase
            job.message = clean(event.get("message") or "")
            share = float(given) if isinstance(given, (int, float)) else _PROGRESS.get(phase, job.progress)
            # a bar never runs backwards, and is full only when the job is done
            job.progress = max(job.progress, min(share, 0.99))
            plan = event.get("plan")
            if isinstance(plan, dict):
                job.plan = plan
            data = {"phase": job.phase, "message": job.message, "progress": job.progress}
            if event.get("package"):
                data["package"] = clean(event["package"])
        self._emit(job, "progress", data)

    def _emit(self, job: Job, kind: str, data: dict[str, Any]) -> None:
        with self._lock:
            job.sequence += 1
            job.events.append((job.sequence, kind, data))
            listeners = list(self._listeners)
        if self._on_change is not None:
            self._on_change(job)
        for callback in listeners:
            callback()

    def _prune(self) -> None:
        finished = [j.id for j in self._jobs.values() if j.state in FINISHED]
        while len(self._jobs) > KEEP and finished:
            del self._jobs[finished.pop(0)]
