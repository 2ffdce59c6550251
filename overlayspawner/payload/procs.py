"""The only door to subprocesses: streamed output, a clean environment, no orphans, no credentials in logs."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

TAIL_LINES = 60
MAX_LINE = 4_000
"""Longest line kept, in characters: tools may print a whole file on one."""

_GRACE = 3.0
"""Seconds between asking a process group to end and killing it."""

# What would send an installer to another environment than ours, or feed it options we do not know.
_DROPPED = frozenset(
    {
        "__PYVENV_LAUNCHER__",
        "CONDA_PREFIX",
        "PYTHONHOME",
        "PYTHONINSPECT",
        "PYTHONPATH",
        "PYTHONPLATLIBDIR",
        "PYTHONSAFEPATH",
        "PYTHONSTARTUP",
        "PYTHONUSERBASE",
        "PYTHONWARNINGS",
        "UV_NO_MANAGED_PYTHON",
        "UV_MANAGED_PYTHON",
        "VIRTUAL_ENV",
    }
)

_USERINFO = re.compile(r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/'\"]*)@")


class Cancel(Protocol):
    """What can be asked whether work should stop (``threading.Event`` fits)."""

    def is_set(self) -> bool:
        """Return whether to stop."""
        ...


@dataclass
class Result:
    """How a process ended.

    Parameters
    ----------
    rc:
        Exit code; negative: the signal that ended it.
    tail:
        Its last lines, redacted.
    cancelled, timed_out:
        Whether we ended it, and why.
    """

    rc: int
    tail: str
    cancelled: bool = False
    timed_out: bool = False


def redact(text: str) -> str:
    """Replace credentials in URLs by ``***``.

    A bare ``git@`` is the name everyone uses to reach a Git server, no secret.
    """

    def replace(match: re.Match[str]) -> str:
        user = match["user"]
        return match[0] if user in ("git", "hg") else f"{match['scheme']}***@"

    return _USERINFO.sub(replace, text) if "@" in text else text


def clean_env(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment for tools that act on an overlay.

    Every variable that configures Python, pip or uv is left out; installers put back what they mean to use.

    Parameters
    ----------
    base:
        What to start from; the process's own environment when left out.
    """
    source = os.environ if base is None else base
    return {
        key: value
        for key, value in source.items()
        if key not in _DROPPED
        and not key.startswith(("PIP_", "UV_", "OVERLAYSPAWNER_", "JUPYTERHUB_", "JPY_"))
    }


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
    on_line: Callable[[str], None] | None = None,
    cancel: Cancel | None = None,
) -> Result:
    """Run a program, hand on its output line by line, and leave nothing of it running.

    Parameters
    ----------
    argv:
        Program and arguments. Arguments can be read by every user of the machine: no secrets here.
    env:
        The whole environment; :func:`clean_env` when left out.
    timeout:
        Seconds, or ``None`` for no limit.
    on_line:
        Called with each redacted line of standard output and error.
    cancel:
        Asked several times a second.

    Raises
    ------
    OSError
        The program can't be started.
    """
    process = subprocess.Popen(
        list(argv),
        env=dict(clean_env() if env is None else env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # a group of its own, so that build back ends and compilers end with it
        start_new_session=True,
    )
    reader = _Lines(on_line)
    cancelled = timed_out = False
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        assert process.stdout is not None
        fd = process.stdout.fileno()
        os.set_blocking(fd, False)
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while True:
                if cancel is not None and cancel.is_set():
                    cancelled = True
                    break
                if deadline is not None and time.monotonic() >= deadline:
                    timed_out = True
                    break
                if selector.select(0.1):
                    chunk = os.read(fd, 65_536)
                    if not chunk:
                        break
                    reader.feed(chunk)
                elif process.poll() is not None:
                    # It ended; a grandchild that keeps the pipe open is of no interest. Its last words may
                    # have come since we looked.
                    reader.feed(_rest(fd))
                    break
        if not (cancelled or timed_out):
            while process.poll() is None:
                try:
                    process.wait(0.1)
                except subprocess.TimeoutExpired:
                    if cancel is not None and cancel.is_set():
                        cancelled = True
                    elif deadline is not None and time.monotonic() >= deadline:
                        timed_out = True
                    else:
                        continue
                    break
    finally:
        _end(process)
    reader.close()
    return Result(process.returncode, "\n".join(reader.tail), cancelled=cancelled, timed_out=timed_out)


def foreground(argv: Sequence[str], env: Mapping[str, str], *, keep_open: Sequence[int] = ()) -> int:
    """Run a program in our place: it has our terminal, and what is sent to us reaches it.

    Parameters
    ----------
    argv, env:
        Program and arguments; the whole environment.
    keep_open:
        Descriptors that it inherits: a lock lives for as long as one of them is open.

    Returns
    -------
    int
        Its exit code; as shells do, 128 and the number for a signal that ended it.

    Raises
    ------
    OSError
        The program can't be started.
    """
    forwarded = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    process: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: object) -> None:
        for child in process:
            child.send_signal(number)

    # a terminal sends Ctrl-C to the whole group; it is for the program, and we stay to clear up after it
    before = {number: signal.signal(number, forward) for number in forwarded}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        process.append(subprocess.Popen(list(argv), env=dict(env), pass_fds=tuple(keep_open)))
        rc = process[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return rc if rc >= 0 else 128 - rc


def _rest(fd: int) -> bytes:
    """Return what a pipe holds, without waiting for more."""
    out = b""
    with contextlib.suppress(BlockingIOError):
        while len(out) < 16 * 65_536:
            chunk = os.read(fd, 65_536)
            if not chunk:
                break
            out += chunk
    return out


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its whole group, then reap it."""
    if process.stdout is not None:
        process.stdout.close()
    if process.poll() is None:
        _signal(process.pid, signal.SIGTERM)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            pass
    # also after a proper end: a child that outlives its parent would go on writing into the stage
    _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass


class _Lines:
    """Bytes in, redacted lines out; keeps the last of them."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._on_line = on_line
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = re.split(rb"[\r\n]+", self._rest + chunk)
        for line in lines:
            self._emit(line)
        if len(self._rest) > 16 * MAX_LINE:
            self._emit(self._rest)
            self._rest = b""

    def close(self) -> None:
        self._emit(self._rest)
        self._rest = b""

    def _emit(self, raw: bytes) -> None:
        line = redact(raw.decode("utf-8", "replace").rstrip())[:MAX_LINE]
        if line:
            self.tail.append(line)
            if self._on_line is not None:
                self._on_line(line)
