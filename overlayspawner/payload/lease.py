"""One writer at a time: a file lock, and a lease with a heartbeat where locks don't span hosts.

Process ids and host names mean nothing across containers, and clocks differ. So the lease is timed by the
storage's own clock (the modification times it gives), and only two facts are believed: whether the lock can
be had, and whether the heartbeat goes on. The lease is checked again before each step of a commit (once it
has been taken over, its file holds another's *nonce* and a higher *fencing token*), so that a holder that was
suspended and replaced notices before it writes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from overlayspawner.payload import files, links, space
from overlayspawner.payload.contract import OverlayError, notice
from overlayspawner.payload.overlay import Env, Overlay

BEAT = 3.0
"""Seconds between heartbeats."""

TTL = 20.0
"""Seconds without a heartbeat, by the storage's clock, after which a holder counts as gone."""

PATIENCE = 2.0
"""Seconds that a change waits for a lease: longer than a look at it takes, shorter than a user's patience."""

_UNSUPPORTED = frozenset({"ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EINVAL"})


class Busy(OverlayError):
    """Another has the lease; nothing was begun, so that it can be tried again."""


class Lease:
    """The right to change an env; a context manager.

    Use :func:`acquire`. Losing it is only noticed at :meth:`check`.
    """

    def __init__(self, path: str, lock_fd: int, token: int, who: str, locked: bool) -> None:
        self.path = path
        self.token = token
        self.who = who
        self.locked = locked
        self._lock_fd = lock_fd
        self._nonce = ""
        self._seen: tuple[int, ...] = ()
        self._using = threading.Lock()  # the heartbeat and the writer
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def check(self) -> None:
        """Make sure that the lease is still ours: one ``stat`` while nobody but us wrote it.

        The inode alone does not tell: one that was freed may be given to another holder's file.

        Raises
        ------
        OverlayError
            ``busy``: another has taken over, nothing more may be written.
        """
        try:
            with self._using:
                seen = _stamp(self.path)
                same = seen == self._seen
                if not same:
                    data = _read(self.path) or {}
                    same = data.get("nonce") == self._nonce and data.get("token") == self.token
                    if same:
                        self._seen = seen
        except OSError:
            same = False
        if not same:
            raise OverlayError(
                "busy",
                "Another server took over while this change was held up.",
                "Look at what it did, then try again.",
                status=409,
            )

    def descriptors(self) -> list[int]:
        """Return what a program inherits for the lock to last as long as it runs, should we be killed."""
        return [self._lock_fd]

    def release(self) -> None:
        """Give it up; idempotent."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.check()
            self._write(released=True)
        except (OSError, OverlayError):
            pass
        os.close(self._lock_fd)

    def _write(self, *, released: bool = False) -> None:
        nonce = os.urandom(8).hex()
        data = {
            "token": self.token,
            "nonce": nonce,
            "who": self.who,
            "boot": _boot_id(),
            "released": released,
        }
        raw = json.dumps(data) + "\n"
        try:
            files.write_atomic(self.path, raw)
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.EDQUOT) or not os.path.lexists(self.path):
                raise
            # a full disk: over the old one, for whoever wants to delete something. One that is torn counts
            # as somebody's until it is silent.
            files.overwrite(self.path, raw.encode(), size=len(raw))
        self._nonce, self._seen = nonce, ()  # the next check reads it

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._beat, name="overlay-lease", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                self.check()
                files.touch(self.path)
            except (OSError, OverlayError):
                continue


def acquire(env: Env, *, who: str = "", wait: float = 0.0) -> Lease:
    """Take the lease of an env.

    Parameters
    ----------
    who:
        Who asks, as it is shown to others: a server's name, no secret.
    wait:
        Seconds to go on trying.

    Raises
    ------
    OverlayError
        ``busy`` when another holds it, ``read-only`` or ``disk-full`` when the storage can't be written to.
    """
    until = time.monotonic() + wait
    while True:
        try:
            return _try(env, who)
        except OverlayError as e:
            if e.code != "busy" or time.monotonic() >= until:
                raise
        except OSError as e:
            if space.is_full(e) and space.spend(env):
                continue  # the lease itself needs a little: what frees space has to begin with it
            raise storage_error(e) from e
        time.sleep(0.2)


def locks_work(env: Env) -> bool:
    """Whether the storage of an env can lock files. Changes nothing.

    Where it can't, two writers are told apart by their heartbeats alone: it takes longer to replace one that
    died, and one server at a time should change the overlay.
    """
    try:
        fd = os.open(_lock_path(env), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True  # nobody has changed anything here yet
    try:
        return _lock(fd, fcntl.LOCK_SH)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def lock_notice(env: Env) -> dict[str, str] | None:
    """Return the notice about storage that can't lock files, ``None`` where it can."""
    if locks_work(env):
        return None
    return notice(
        "no-locks",
        "This storage can't lock files, so servers can't keep out of each other's way reliably.",
        "Change the overlay from one server at a time.",
    )


def holder(env: Env) -> str | None:
    """Return who holds the lease of an env, for display; ``None`` when nobody seems to. Changes nothing."""
    data = _read(_lease_path(env))
    if data is None or data.get("released"):
        return None
    try:
        fd = os.open(_lock_path(env), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        locked = _lock(fd, fcntl.LOCK_SH)
        if locked and data.get("boot") == _boot_id():
            return None
    except BlockingIOError:
        pass
    finally:
        os.close(fd)
    return str(data.get("who") or "another server")


def storage_error(error: OSError) -> OverlayError:
    """Turn an error of the storage into one a user may see."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OverlayError(
            "disk-full",
            "There is no space left in your storage; nothing was changed.",
            "Delete what you no longer need, then try again.",
            status=507,
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return OverlayError(
            "read-only",
            "Your storage can't be written to; nothing was changed.",
            "Ask the administrator about the storage behind your home.",
            status=507,
        )
    return OverlayError(
        "internal",
        f"Your storage reported an error: {error.strerror or error}; nothing was changed.",
        status=500,
    )


def _stamp(path: str) -> tuple[int, ...]:
    info = os.stat(path)
    return info.st_ino, info.st_mtime_ns, info.st_ctime_ns


def _lease_path(env: Env) -> str:
    return os.path.join(env.state, "lease.json")


def _lock_path(env: Env) -> str:
    return os.path.join(env.state, "lock")


def _try(env: Env, who: str) -> Lease:
    links.refuse(links.of_env(env))
    files.mkdir(env.state)
    fd = files.open_lock(_lock_path(env))
    try:
        try:
            locked = _lock(fd, fcntl.LOCK_EX)
        except BlockingIOError:
            raise _busy(_read(_lease_path(env))) from None
        path = _lease_path(env)
        known = _read(path)
        token = _token(known)
        if known is not None and not known.get("released"):
            # On one kernel the lock alone tells: whoever held it has died. On another one, or where there
            # are no locks, only silence does.
            same_kernel = locked and known.get("boot") == _boot_id()
            if not same_kernel and not _silent(fd, path):
                raise _busy(known)
        lease = Lease(path, fd, token + 1, who, locked)
        lease._write()
        if not locked:
            # without locks two may have written: the later one wins, and both look again
            time.sleep(0.5)
            lease.check()
        lease._start()
        return lease
    except BaseException:
        os.close(fd)
        raise


def _busy(data: dict[str, Any] | None) -> OverlayError:
    who = str((data or {}).get("who") or "")
    by = f" ({who})" if who else ""
    return Busy(
        "busy",
        f"Another server{by} is changing this overlay.",
        "Wait until it has finished, then try again.",
        status=409,
    )


def _lock(fd: int, how: int) -> bool:
    """Lock without waiting. Returns ``False`` where the storage knows no locks.

    ``flock`` rather than POSIX record locks: those are one for all threads of a process, and are lost when
    any descriptor of the file is closed. On NFS Linux turns it into a record lock on the server.
    """
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as e:
        if errno.errorcode.get(e.errno or 0) in _UNSUPPORTED:
            return False
        raise
    return True


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}  # there is one, and nothing is known about its holder
    return data if isinstance(data, dict) else {}


def _token(data: dict[str, Any] | None) -> int:
    token = (data or {}).get("token")
    return token if isinstance(token, int) else 0


_watched: dict[str, tuple[tuple[int, ...], float]] = {}
"""Leases that were found held: how each looked, and since when by our own clock."""


def _silent(lock_fd: int, path: str) -> bool:
    """Whether a holder's heart has stopped.

    The storage's clock may have been set, forward (every holder looks dead) or back (none ever does). So a
    holder that looks dead is watched for a beat, and one that we saw do nothing for long enough is dead
    whatever the clock says.
    """
    seen, now = _stamp(path), time.monotonic()
    before, since = _watched.setdefault(path, (seen, now))
    if before != seen:
        _watched[path] = (seen, now)
        since = now
    if now - since >= TTL:
        return True
    if _age(lock_fd, path) < TTL:
        return False
    until = now + BEAT * 1.2
    while time.monotonic() < until:
        time.sleep(BEAT / 20)
        if _stamp(path) != seen:
            return False
    return True


def _age(lock_fd: int, lease_path: str) -> float:
    """Seconds since the last heartbeat, by the storage's clock."""
    files.touch(lock_fd)
    return os.fstat(lock_fd).st_mtime - os.stat(lease_path).st_mtime


def _boot_id() -> str:
    """Name the running kernel: containers on it share its locks."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            return f.read().strip()
    except (OSError, UnicodeDecodeError):
        return "unknown-" + os.uname().nodename


@contextlib.contextmanager
def overlay_lock(overlay: Overlay, *, wait: float = 5.0) -> Iterator[bool]:
    """Keep writers of an overlay's *other* envs away from its requirements and revisions for a moment.

    Held for milliseconds only. Where locks don't work it is no more than good manners: every write below is
    atomic by itself. Yields whether it is held.

    Parameters
    ----------
    wait:
        Seconds after which to go on without it, rather than leave a change half recorded.
    """
    fd = files.open_lock(os.path.join(overlay.path, ".lock"))
    try:
        until = time.monotonic() + wait
        while True:
            try:
                held = _lock(fd, fcntl.LOCK_EX)
                break
            except BlockingIOError:
                held = False
                if time.monotonic() >= until:
                    break
                time.sleep(0.02)
        yield held
    finally:
        os.close(fd)
