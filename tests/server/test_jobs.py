"""The queue of jobs by itself: order, limits, bugs, what is kept and what is hidden."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.server.jobs import (
    FINISHED,
    KEEP,
    MAX_EVENTS,
    MAX_LINE,
    MAX_WAITING,
    Job,
    JobRunner,
)
from overlayspawner.payload.server.service import MAX_ASKING, MAX_READERS, Service

RESULT = {"revision": {"id": 7, "changed": True}, "plan": {"new": []}}
Tell = Callable[[dict[str, Any]], None]


def wait(runner: JobRunner, *jobs: Job) -> None:
    """Wait until jobs are over: every change wakes the waiter."""
    news = threading.Event()
    stop = runner.listen(news.set)
    try:
        while any(job.state not in FINISHED for job in jobs):
            assert news.wait(30), [job.to_dict() for job in jobs]
            news.clear()
    finally:
        stop()


@pytest.fixture
def gate() -> threading.Event:
    """Jobs that wait for it end when it is set."""
    return threading.Event()


def held(gate: threading.Event) -> Callable[[Job, Tell, threading.Event], dict[str, Any]]:
    def work(job: Job, tell: Tell, cancel: threading.Event) -> dict[str, Any]:
        tell({"phase": "resolving", "message": "waiting"})
        while not gate.wait(0.01):
            if cancel.is_set():
                raise OverlayError("cancelled")
        return RESULT

    return work


def test_one_at_a_time_in_the_order_of_asking() -> None:
    order: list[str] = []
    inside: list[str] = []

    def work(job: Job, tell: Tell, cancel: threading.Event) -> dict[str, Any]:
        inside.append(job.id)
        assert inside == [job.id]
        order.append(job.id)
        inside.remove(job.id)
        return RESULT

    runner = JobRunner(work)
    jobs = [runner.submit(Job("sync", {})) for _ in range(10)]
    wait(runner, *jobs)
    assert order == [job.id for job in jobs]
    assert {job.state for job in jobs} == {"done"}
    assert jobs[0].revision == 7 and jobs[0].progress == 1.0
    assert runner.jobs() == jobs[::-1]
    assert runner.stop()


def test_a_bug_fails_one_job_and_not_the_next() -> None:
    bugs: list[BaseException] = []

    def work(job: Job, tell: Tell, cancel: threading.Event) -> dict[str, Any]:
        if job.action == "install":
            raise SystemExit("a secret detail")
        return RESULT

    runner = JobRunner(work, on_bug=bugs.append)
    bad, good = runner.submit(Job("install", {})), runner.submit(Job("sync", {}))
    wait(runner, bad, good)
    assert bad.state == "failed" and bad.error is not None and bad.error["code"] == "internal"
    assert "secret" not in str(bad.to_dict(log=True))
    assert isinstance(bugs[0], SystemExit)
    assert good.state == "done"
    assert runner.stop()


def test_too_many_are_refused(gate: threading.Event) -> None:
    runner = JobRunner(held(gate))
    first = runner.submit(Job("sync", {}))
    while first.state != "running":
        pass
    jobs = [runner.submit(Job("sync", {})) for _ in range(MAX_WAITING)]
    with pytest.raises(OverlayError) as caught:
        runner.submit(Job("sync", {}))
    assert (caught.value.code, caught.value.status) == ("busy", 409)
    gate.set()
    wait(runner, first, *jobs)
    runner.submit(Job("sync", {}))
    assert runner.stop()


def test_the_last_fifty_are_remembered() -> None:
    runner = JobRunner(lambda job, tell, cancel: RESULT)
    jobs = []
    for _ in range(KEEP + 10):
        jobs.append(runner.submit(Job("sync", {})))
        wait(runner, jobs[-1])
    assert runner.jobs() == jobs[: -KEEP - 1 : -1]
    with pytest.raises(OverlayError) as caught:
        runner.get(jobs[0].id)
    assert (caught.value.code, caught.value.status) == ("not-found", 404)
    assert runner.stop()


def test_a_job_that_waits_is_never_forgotten(gate: threading.Event) -> None:
    runner = JobRunner(held(gate))
    first = runner.submit(Job("sync", {}))
    for _ in range(KEEP + 10):
        runner.cancel(runner.submit(Job("sync", {})).id)
    assert runner.get(first.id) is first and len(runner.jobs()) == KEEP
    assert runner.current() is first
    gate.set()
    wait(runner, first)
    assert runner.current() is None
    assert runner.stop()


def test_the_log_is_bounded_and_redacted() -> None:
    def work(job: Job, tell: Tell, cancel: threading.Event) -> dict[str, Any]:
        for _ in range(MAX_EVENTS * 2):
            tell({"phase": "downloading", "message": "get https://me:hunter2@example.org/x\x1b[31m\nsecond"})
        tell({"phase": "staging", "message": "x" * 100_000, "package": "https://me:hunter2@example.org/"})
        raise OverlayError(
            "installer-failed", "at https://me:hunter2@example.org/", log="https://me:hunter2@e/\n" * 999
        )

    runner = JobRunner(work)
    job = runner.submit(Job("install", {"install": ["x"]}))
    wait(runner, job)
    text = str(job.to_dict(log=True)) + str(list(job.events))
    assert "hunter2" not in text and "\\x1b" not in text
    assert len(job.events) <= MAX_EVENTS
    log = job.to_dict(log=True)["log"]
    assert max(map(len, log)) <= MAX_LINE + 2
    assert job.error is not None and len(job.error["log"].splitlines()) <= 200
    assert job.error["message"].startswith("at https://")
    assert runner.stop()


def test_stopping_cancels_what_runs_and_what_waits(gate: threading.Event) -> None:
    runner = JobRunner(held(gate))
    first, second = runner.submit(Job("sync", {})), runner.submit(Job("sync", {}))
    while first.state != "running":
        pass
    assert runner.stop()
    assert (first.state, second.state) == ("cancelled", "cancelled")
    assert first.error is not None and first.error["code"] == "interrupted"
    with pytest.raises(OverlayError) as caught:
        runner.submit(Job("sync", {}))
    assert caught.value.code == "busy"


def test_stopping_does_not_wait_for_ever() -> None:
    release = threading.Event()

    def work(job: Job, tell: Tell, cancel: threading.Event) -> dict[str, Any]:
        release.wait()
        return RESULT

    runner = JobRunner(work)
    job = runner.submit(Job("sync", {}))
    while job.state != "running":
        pass
    assert not runner.stop(timeout=0.05)
    release.set()
    wait(runner, job)
    # the commit had begun: it is done, whatever was asked meanwhile
    assert job.state == "done"


def test_events_are_numbered_and_nothing_goes_backwards() -> None:
    def work(job: Job, tell: Tell, cancel: threading.Event) -> dict[str, Any]:
        for phase in ("staging", "resolving", "downloading", "unheard-of", "committing"):
            tell({"phase": phase, "message": phase})
        return {"revision": {"id": 7, "changed": False}, "plan": None}

    runner = JobRunner(work)
    job = runner.submit(Job("sync", {}))
    wait(runner, job)
    numbers = [number for number, _, _ in job.events]
    assert numbers == list(range(1, len(numbers) + 1))
    shares = [data["progress"] for _, kind, data in job.events if kind == "progress"]
    assert shares == sorted(shares) and max(shares) < 1
    assert job.revision is None
    assert [n for n, _, _ in runner.events_after(job, 4)] == numbers[4:]
    assert runner.stop()


def test_the_worker_outlives_whoever_listens_and_whatever_surrounds_a_job() -> None:
    bugs: list[BaseException] = []

    @contextlib.contextmanager
    def held(job: Job) -> Iterator[None]:
        if job.action == "sync":
            raise OSError("before")
        yield
        raise OSError("after")

    def fails(*_: object) -> None:
        raise RuntimeError("a page that has gone")

    def work(job: Job, tell: Tell, cancel: threading.Event) -> dict[str, Any]:
        if job.action == "undo":
            raise SystemExit("of the whole server, thinks a library")
        tell({"phase": "staging", "message": "half-way"})
        return RESULT

    runner = JobRunner(work, on_change=fails, on_bug=bugs.append, held=held)
    runner.listen(fails)
    jobs = [runner.submit(Job(action)) for action in ("sync", "install", "undo", "install")]
    wait(runner, *jobs)
    assert [job.state for job in jobs] == ["done", "done", "failed", "done"]
    assert jobs[2].error is not None and jobs[2].error["code"] == "internal"
    assert {str(bug) for bug in bugs} >= {"before", "after", "a page that has gone"}
    assert runner.stop()


def test_a_worker_that_died_is_replaced(gate: threading.Event) -> None:
    runner = JobRunner(lambda job, tell, cancel: RESULT)
    wait(runner, runner.submit(Job("sync")))
    # what no handler can catch: the thread is gone
    runner._queue.put(None)
    assert runner._thread is not None
    runner._thread.join(10)
    again = runner.submit(Job("sync"))
    wait(runner, again)
    assert again.state == "done" and runner.stop()


def test_who_waits_is_told_its_place(gate: threading.Event) -> None:
    runner = JobRunner(held(gate))
    jobs = [runner.submit(Job("sync")) for _ in range(4)]
    while jobs[0].state != "running":
        pass
    assert [job.to_dict()["position"] for job in jobs] == [None, 1, 2, 3]
    runner.cancel(jobs[2].id)
    assert [job.to_dict()["position"] for job in jobs] == [None, 1, None, 2]
    gate.set()
    wait(runner, *jobs)
    places = [data["position"] for _, kind, data in jobs[3].events if kind == "state"]
    assert places[:2] == [3, 2] and places[-2:] == [None, None]
    assert runner.stop()


def test_who_comes_late_gets_the_whole_state() -> None:
    def work(job: Job, tell: Tell, cancel: threading.Event) -> dict[str, Any]:
        for n in range(MAX_EVENTS * 2):
            tell({"phase": "downloading", "message": f"line {n}"})
        return RESULT

    runner = JobRunner(work)
    job = runner.submit(Job("sync"))
    wait(runner, job)
    for sequence in (None, 0, 5, job.sequence + 1):
        ((number, kind, data),) = runner.events_after(job, sequence)
        assert (number, kind, data["state"]) == (job.sequence, "state", "done")
        assert data["log"][-1] == f"line {MAX_EVENTS * 2 - 1}"
    assert [e[0] for e in runner.events_after(job, job.sequence - 2)] == [job.sequence - 1, job.sequence]
    assert runner.events_after(job, job.sequence) == []
    assert runner.stop()


def test_jobs_of_an_earlier_server_are_the_oldest() -> None:
    runner = JobRunner(lambda job, tell, cancel: RESULT)
    new, old = Job("sync"), Job("install")
    wait(runner, runner.submit(new))
    old.outcome = "cancelled", OverlayError("interrupted")
    old.end()
    runner.remember([old])
    runner.remember([old])
    assert runner.jobs() == [new, old] and runner.current() is None
    assert runner.cancel(old.id).was_interrupted
    assert runner.stop()


def test_a_job_is_shown_while_packages_are_added_to_it() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            job = Job("install")
            entries = [{"name": f"many-{number}", "state": "downloading"} for number in range(900)]
            worker = threading.Thread(target=lambda j=job, e=entries: [j.take({"packages": [x]}) for x in e])
            worker.start()
            while worker.is_alive():
                job.to_dict()
            worker.join()
            assert len(job.to_dict()["packages"]) == 900
    finally:
        sys.setswitchinterval(before)


@contextlib.contextmanager
def no_more_threads() -> Iterator[None]:
    """No thread begins: none finds room for its stack."""
    before = threading.stack_size(1 << 60)
    try:
        yield
    finally:
        threading.stack_size(before)


def test_what_could_not_begin_for_want_of_threads_is_over() -> None:
    runner = JobRunner(lambda job, tell, cancel: RESULT)
    with no_more_threads(), pytest.raises(RuntimeError):
        runner.submit(Job("install"))
    assert runner.current() is None and runner.jobs() == [], "it would count as activity for ever"
    job = runner.submit(Job("install"))
    wait(runner, job)
    assert job.state == "done" and runner.stop()

    context: Any = SimpleNamespace(runtime="/none", for_changes=lambda: None)
    service = Service(context, logging.getLogger("test"))

    async def ask() -> list[object]:
        for read in (service.off_loop, service.ask_index):
            for _ in range(MAX_READERS + MAX_ASKING):
                with no_more_threads(), pytest.raises(RuntimeError):
                    await read(lambda: 1)
        return [await service.off_loop(lambda: 1), await service.ask_index(lambda: 2)]

    assert asyncio.run(ask()) == [1, 2]
