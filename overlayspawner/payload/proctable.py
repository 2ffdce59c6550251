"""Which processes belong to a program that we run, and whether they do anything. Reads ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Iterator

RUN_ENV = "OVERLAYSPAWNER_RUN"
"""Variable that marks a program and all that it starts, whatever groups and sessions they move to."""

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _pids() -> Iterator[int]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdigit():
            yield int(name)


def marked(mark: str) -> list[int]:
    """Return the processes that were started with a mark: the program, and its children's children.

    Parameters
    ----------
    mark:
        The value of :data:`RUN_ENV`.
    """
    wanted = f"{RUN_ENV}={mark}".encode()
    found = []
    for pid in _pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if wanted in f.read().split(b"\0"):
                    found.append(pid)
        except OSError:
            continue  # another user's, or gone meanwhile
    return found


def work(mark: str) -> tuple[float, int]:
    """Return what marked processes have done: seconds of processor time, and bytes read and written.

    Both only grow while the processes live; the time of children that have ended is their parent's.
    """
    seconds, count = 0.0, 0
    for pid in marked(mark):
        try:
            with open(f"/proc/{pid}/stat", "rb") as f:
                # the name may hold anything, parentheses as well
                fields = f.read().rpartition(b")")[2].split()
            seconds += sum(int(field) for field in fields[11:15]) / _TICKS
            with open(f"/proc/{pid}/io", "rb") as f:
                rows = dict(line.split(b": ") for line in f.read().splitlines())
            count += int(rows.get(b"rchar", 0)) + int(rows.get(b"wchar", 0))
        except (OSError, ValueError, IndexError):
            continue
    return seconds, count
