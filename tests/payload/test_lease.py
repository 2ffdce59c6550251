"""One writer at a time, whoever dies, and wherever the other one runs."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overlayspawner.payload import lease as leases
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.overlay import Env
from tests.support.envs import ROOT, run_child

HOLD = """
import sys
from overlayspawner.payload.lease import acquire
from overlayspawner.payload.overlay import Env
with acquire(Env(sys.argv[1], "3.11"), who="the other server"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def env(tmp_path: Path) -> Env:
    return Env(str(tmp_path), "3.11")


@contextmanager
def another_holder(env: Env) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, env.path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def refused(env: Env) -> OverlayError:
    with pytest.raises(OverlayError) as e:
        leases.acquire(env)
    assert e.value.code == "busy"
    return e.value


def lease_data(env: Env) -> dict[str, object]:
    data = json.loads(Path(env.state, "lease.json").read_text())
    assert isinstance(data, dict)
    return data


def pretend_elsewhere(env: Env, *, silent_for: float) -> None:
    """Leave the lease as a holder on another kernel would, last heard of some seconds ago."""
    data = {**lease_data(env), "boot": "another-kernel", "released": False, "who": "far away"}
    path = Path(env.state, "lease.json")
    path.write_text(json.dumps(data))
    there = path.stat().st_mtime - silent_for
    os.utime(path, (there, there))


def test_another_process_has_to_wait(env: Env) -> None:
    with another_holder(env):
        assert "the other server" in refused(env).message
        assert leases.holder(env) == "the other server"
    leases.acquire(env).release()
    assert leases.holder(env) is None


def test_another_thread_or_job_of_the_same_process_has_to_wait(env: Env) -> None:
    with leases.acquire(env, who="me"):
        refused(env)
    leases.acquire(env).release()


def test_one_that_was_killed_is_replaced_at_once(env: Env) -> None:
    with another_holder(env) as process:
        process.kill()
        process.wait()
        assert lease_data(env)["released"] is False
        assert leases.holder(env) is None
        with leases.acquire(env):
            pass


def test_waiting_for_one_that_ends(env: Env) -> None:
    with another_holder(env) as process:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        leases.acquire(env, wait=30).release()


def test_a_holder_on_another_kernel_counts_while_its_heart_beats(env: Env) -> None:
    leases.acquire(env).release()
    pretend_elsewhere(env, silent_for=leases.TTL / 2)
    assert "far away" in refused(env).message
    assert leases.holder(env) == "far away"
    pretend_elsewhere(env, silent_for=leases.TTL + 1)
    leases.acquire(env).release()


def test_a_damaged_lease_counts_for_as_long(env: Env) -> None:
    leases.acquire(env).release()
    path = Path(env.state, "lease.json")
    path.write_text("{")
    refused(env)
    there = path.stat().st_mtime - leases.TTL - 1
    os.utime(path, (there, there))
    leases.acquire(env).release()


def test_each_holder_has_a_higher_token(env: Env) -> None:
    tokens = []
    for _ in range(3):
        with leases.acquire(env) as lease:
            tokens.append(lease.token)
    assert tokens == sorted(set(tokens))


def test_the_loss_of_a_lease_is_noticed_and_left_alone(env: Env) -> None:
    lease = leases.acquire(env)
    lease.check()
    taken = leases.Lease(lease.path, os.open(os.devnull, os.O_RDONLY), lease.token + 1, "next", True)
    taken._write()
    with pytest.raises(OverlayError) as e:
        lease.check()
    assert e.value.code == "busy"
    lease.release()
    assert lease_data(env)["who"] == "next"
    assert lease_data(env)["released"] is False
    taken.release()


@pytest.mark.parametrize("released", [False, True])
def test_a_takeover_that_got_the_same_inode_is_noticed(env: Env, released: bool) -> None:
    """File systems give freed inodes away again; here the same file is written to."""
    lease = leases.acquire(env)
    lease.check()
    path = Path(env.state, "lease.json")
    inode = path.stat().st_ino
    # the token of another that came to the same number, as two may where there are no locks
    path.write_text(json.dumps({**lease_data(env), "nonce": "another", "who": "next", "released": released}))
    assert path.stat().st_ino == inode
    with pytest.raises(OverlayError) as e:
        lease.check()
    assert e.value.code == "busy"
    lease.release()
    assert lease_data(env)["who"] == "next"


def test_ones_own_heartbeat_is_no_takeover(env: Env) -> None:
    with leases.acquire(env) as lease:
        for _ in range(3):
            os.utime(lease.path, (1_600_000_000, 1_600_000_000))
            lease.check()


def test_the_heart_beats(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.05)
    beats = []
    monkeypatch.setattr(leases.files, "touch", lambda target: beats.append(target))
    with leases.acquire(env) as lease:
        for _ in range(100):
            if len(beats) > 2:
                break
            lease._stop.wait(0.05)
    assert beats[:2] == [lease.path, lease.path]


@contextmanager
def beating(env: Env) -> Iterator[None]:
    """Touch the lease as a holder elsewhere does."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.02):
            os.utime(os.path.join(env.state, "lease.json"), (1_600_000_000, 1_600_000_000))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_clock_that_jumps_forward_makes_nobody_dead(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.5)
    leases.acquire(env).release()
    pretend_elsewhere(env, silent_for=24 * 3600)
    with beating(env):
        assert "far away" in refused(env).message
    leases.acquire(env).release()


def test_a_clock_that_was_set_back_makes_nobody_immortal(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    leases.acquire(env).release()
    pretend_elsewhere(env, silent_for=-24 * 3600)
    refused(env)
    refused(env)
    monkeypatch.setattr(leases, "TTL", 0.0)  # as if we had watched it for so long
    leases.acquire(env).release()


@pytest.fixture(params=["ENOLCK", "ENOSYS"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*args: object) -> None:
        raise OSError(getattr(errno, request.param), "no locks")

    monkeypatch.setattr(leases.fcntl, "flock", flock)


def test_whether_locks_work_can_be_asked(env: Env) -> None:
    assert leases.locks_work(env)
    leases.acquire(env).release()
    before = sorted(os.listdir(env.state))
    assert leases.locks_work(env)
    assert leases.lock_notice(env) is None
    with another_holder(env):
        assert leases.locks_work(env)
    assert sorted(os.listdir(env.state)) == before


def test_without_locks_one_that_died_is_replaced_when_it_is_silent(
    env: Env, no_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.1)
    dead = leases.acquire(env, who="dead")
    dead._stop.set()  # its heart stops, and it says nothing
    assert not leases.locks_work(env)
    told = leases.lock_notice(env)
    assert told is not None and told["code"] == "no-locks"
    assert "dead" in refused(env).message
    path = Path(env.state, "lease.json")
    there = path.stat().st_mtime - leases.TTL - 1
    os.utime(path, (there, there))
    with leases.acquire(env) as lease:
        with pytest.raises(OverlayError) as e:
            dead.check()
        assert e.value.code == "busy"
        assert lease.token > dead.token


def test_without_locks_one_of_two_wins(env: Env, no_locks: None) -> None:
    """Both write the lease at the same time; whoever was first notices before it changes anything."""
    leases.acquire(env).release()
    code = """
import sys, errno, time
from overlayspawner.payload import lease
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.overlay import Env
def flock(*args):
    raise OSError(errno.ENOLCK, "no locks")
lease.fcntl.flock = flock
try:
    with lease.acquire(Env(sys.argv[1], "3.11")) as held:
        time.sleep(2)
        held.check()
        print("held")
except OverlayError as e:
    print(e.code)
"""
    argv = [sys.executable, "-c", code, env.path]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = sorted(process.communicate()[0].strip() for process in both)
    assert said.count("held") <= 1
    assert set(said) <= {"busy", "held"}


def test_storage_without_locks(env: Env, no_locks: None) -> None:
    with leases.acquire(env) as lease:
        assert not lease.locked
        refused(env)  # by its heartbeat alone, on the same kernel too
    leases.acquire(env).release()


def test_a_full_or_read_only_storage_is_told(env: Env) -> None:
    code = """
import sys
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.lease import acquire
from overlayspawner.payload.overlay import Env
try:
    acquire(Env(sys.argv[1], "3.11"))
except OverlayError as e:
    print(e.code)
"""
    assert run_child(code, env.path, fault="1:ENOSPC").stdout == "disk-full\n"
    assert run_child(code, env.path, fault="1:EDQUOT").stdout == "disk-full\n"
    assert run_child(code, env.path, fault="1:EROFS").stdout == "read-only\n"
    assert run_child(code, env.path, fault="3:EIO").stdout == "internal\n"
