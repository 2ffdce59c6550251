"""What this machine's processes are, from ``/proc``; where there is none, nothing is known.

Everything here is only read, and is what users make it: a process can call itself what it likes. So it is
used only to act on that user's own processes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

_PROC = "/proc"
_LISTEN = "0A"


class Process(NamedTuple):
    """A process.

    Parameters
    ----------
    pid, parent, session:
        Numbers of processes.
    terminal:
        Whether it belongs to a terminal.
    started:
        When it started, in the kernel's ticks: process numbers are used again, both together are not.
    zombie:
        Whether it has ended, and nobody has asked how.
    """

    pid: int
    parent: int
    session: int
    terminal: bool
    started: int
    zombie: bool


def look(pid: int) -> Process | None:
    """Return a process, or ``None``."""
    try:
        with open(f"{_PROC}/{pid}/stat", "rb") as f:
            text = f.read()
        # the name, in parentheses, may hold anything
        fields = text[text.rindex(b")") + 2 :].split()
        return Process(
            pid,
            int(fields[1]),
            int(fields[3]),
            int(fields[4]) != 0,
            int(fields[19]),
            fields[0] in (b"Z", b"X"),
        )
    except (OSError, ValueError, IndexError):
        return None


def every() -> dict[int, Process]:
    """Return all processes."""
    found: dict[int, Process] = {}
    with suppress(OSError):
        for name in os.listdir(_PROC):
            process = look(int(name)) if name.isdigit() else None
            if process is not None:
                found[process.pid] = process
    return found


def owner(pid: int) -> int:
    """Return the number of the user whom a process runs as, -1 when that is not known."""
    with suppress(OSError, ValueError, IndexError), open(f"{_PROC}/{pid}/status", "rb") as f:
        for line in f:
            if line.startswith(b"Uid:"):
                return int(line.split()[2])
    return -1


def family(pid: int) -> list[Process]:
    """Return what should end with a server: its kernels and jobs, with their children.

    Not what was started in its terminals: that is told that the terminal is gone, and may go on, as at the
    end of any login (``nohup``, ``tmux``).
    """
    known = every()
    children: dict[int, list[int]] = {}
    for process in known.values():
        children.setdefault(process.parent, []).append(process.pid)
    todo = [p.pid for p in known.values() if p.session == pid and p.pid != pid]
    todo += children.get(pid, [])
    found: dict[int, Process] = {}
    while todo:
        process = known[todo.pop()]
        if process.pid in found or process.terminal:
            continue
        found[process.pid] = process
        todo += children.get(process.pid, [])
    return list(found.values())


def alive(process: Process) -> bool:
    """Whether it is still the same process, and has not ended."""
    now = look(process.pid)
    return now is not None and now.started == process.started and not now.zombie


def send(process: Process, sig: int, uid: int) -> None:
    """Send a signal to a process, if it still is that user's and not another one of the same number."""
    try:
        fd = os.pidfd_open(process.pid)
    except (OSError, AttributeError):
        return
    try:
        if alive(process) and owner(process.pid) == uid:
            with suppress(OSError):
                signal.pidfd_send_signal(fd, sig)
    finally:
        os.close(fd)


def environments(uid: int) -> list[bytes]:
    """Return what the user's processes had in their environments when they were started."""
    found = []
    with suppress(OSError):
        for name in os.listdir(_PROC):
            if name.isdigit() and owner(int(name)) == uid:
                with suppress(OSError), open(f"{_PROC}/{name}/environ", "rb") as f:
                    found.append(f.read())
    return found


def listeners(port: int) -> set[int]:
    """Return the numbers of the users whose programs listen on a TCP port of this machine."""
    found: set[int] = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError), open(f"{_PROC}/net/{table}", encoding="ascii", errors="replace") as f:
            found |= _owners(f, port)
    return found


def _owners(lines: Iterable[str], port: int) -> set[int]:
    found = set()
    for line in lines:
        fields = line.split()
        if len(fields) > 7 and fields[3] == _LISTEN and fields[1].endswith(f":{port:04X}"):
            found.add(int(fields[7]))
    return found
