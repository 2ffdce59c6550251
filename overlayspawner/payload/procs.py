"""The only door to subprocesses: streamed output, a clean environment, no orphans, no credentials in logs."""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from overlayspawner.payload.proctable import RUN_ENV, marked
from overlayspawner.payload.screen import MAX_LINE, Output

TAIL_LINES = 60

COLUMNS, ROWS = 200, 100
"""Size of the terminal of a program that draws: wide enough for a bar with a long name."""

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

_TELLING = re.compile(
    r"^\W*(?:error\b|cause:|Caused by|Failed|Collecting |Downloading |Building )", re.IGNORECASE
)
_TELLING_LINES = 8
"""Lines that begin so are kept when much follows them: the last few."""

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
    drawn: Callable[[str], bool] | None = None,
    terminal: bool = True,
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
    drawn:
        Called with each piece of text; returns whether it is a part of a progress bar, no line. With it the
        program prints on a terminal, if there can be one: others draw nothing.
    terminal:
        ``False`` where a terminal is not wanted.
    cancel:
        Asked several times a second. One that has a method ``look`` is told beforehand how the program gets
        on; see :meth:`JobLimits.look <overlayspawner.payload.joblimits.JobLimits.look>`.

    Raises
    ------
    OSError
        The program can't be started.
    """
    mark = os.urandom(8).hex()
    screen = _Terminal.open() if drawn is not None and terminal else None
    try:
        process = subprocess.Popen(
            list(argv),
            env={**(clean_env() if env is None else env), **(screen.env if screen else {}), RUN_ENV: mark},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=screen.theirs if screen else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # a group of its own, so that build back ends and compilers end with it
            start_new_session=True,
        )
    except BaseException:
        if screen:
            screen.close()
        raise
    tail = _Tail()

    def on_text(text: str) -> None:
        line = redact(text)[:MAX_LINE]
        tail.add(line)
        if on_line is not None:
            on_line(line)

    reader = Output(on_text, drawn, COLUMNS if screen else 0)
    look: Any = getattr(cancel, "look", None)
    deadline = None if timeout is None else time.monotonic() + timeout
    cancelled = timed_out = False

    def stop() -> bool:
        nonlocal cancelled, timed_out
        if look is not None:
            look(mark, reader.signs, reader.raw)
        cancelled = cancel is not None and cancel.is_set()
        timed_out = not cancelled and deadline is not None and time.monotonic() >= deadline
        return cancelled or timed_out

    try:
        if screen:
            screen.give_away()
        fd = screen.ours if screen else process.stdout.fileno()  # type: ignore[union-attr]
        os.set_blocking(fd, False)
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while not stop():
                if selector.select(0.1):
                    chunk = _read(fd)
                    if not chunk:
                        break
                    reader.feed(chunk)
                elif process.poll() is not None:
                    # It ended; a grandchild that keeps the pipe open is of no interest. Its last words may
                    # have come since we looked.
                    reader.feed(_rest(fd))
                    break
        while not (cancelled or timed_out) and process.poll() is None:
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                stop()
    finally:
        if screen:
            screen.close()
        _end(process)
        if cancelled or timed_out:
            _end_marked(mark)
    reader.close()
    return Result(process.returncode, tail.text(), cancelled=cancelled, timed_out=timed_out)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65_536)
    except OSError as e:
        if e.errno == errno.EIO:  # how a terminal says that everybody has closed it
            return b""
        raise


class _Terminal:
    """A terminal for a program to draw on; nobody's controlling terminal, so that nothing asks there."""

    def __init__(self, ours: int, theirs: int) -> None:
        self.ours = ours
        self.theirs = theirs
        # without colours; and a terminal that can move its cursor
        self.env = {"TERM": "xterm", "NO_COLOR": "1"}

    @classmethod
    def open(cls) -> _Terminal | None:
        """Return one, or ``None`` where the system has none: drawing is not worth a failure."""
        try:
            import fcntl
            import struct
            import termios

            ours, theirs = os.openpty()
        except (ImportError, OSError):
            return None
        terminal = cls(ours, theirs)
        try:
            modes = termios.tcgetattr(theirs)
            modes[1] &= ~termios.OPOST  # line breaks as they are written
            modes[3] &= ~termios.ECHO
            termios.tcsetattr(theirs, termios.TCSANOW, modes)
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        except (OSError, termios.error):
            terminal.close()
            return None
        return terminal

    def give_away(self) -> None:
        """Close the program's end, once it has it."""
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def close(self) -> None:
        """Close both ends."""
        self.give_away()
        if self.ours >= 0:
            os.close(self.ours)
            self.ours = -1


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
            chunk = _read(fd)
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


def _end_marked(mark: str) -> None:
    """End what has left the group: a program that was told to stop leaves nothing that goes on writing."""
    for _ in range(10):
        found = marked(mark)
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        time.sleep(0.02)


class _Tail:
    """The last lines, and those before them that tell what they are about."""

    def __init__(self) -> None:
        self._last: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._before: collections.deque[str] = collections.deque(maxlen=_TELLING_LINES)

    def add(self, line: str) -> None:
        if len(self._last) == TAIL_LINES and _TELLING.match(self._last[0]):
            self._before.append(self._last[0])
        self._last.append(line)

    def text(self) -> str:
        return "\n".join([*self._before, *self._last])
