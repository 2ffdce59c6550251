"""Work in a child process that is given up after a deadline.

A hung network file system can't be interrupted from within a process, and a thread that hangs in it keeps the
process from ending. On the start path.
"""

from __future__ import annotations

import os

from overlayspawner.payload import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Late(Exception):
    """The work was not done in time; it was killed."""


class Child:
    """A child process that does one piece of work; it has begun when this returns.

    Parameters
    ----------
    work:
        Returns what JSON can hold. Its standard output leads nowhere: the launcher reads ours to its end, and
        a child that hangs must not hold it open.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._read, write = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(write)
            return
        status = 1
        try:
            os.close(self._read)
            os.setpgid(0, 0)  # what it starts is killed with it
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            data = jsontext.dumps(work()).encode()
            while data:
                data = data[os.write(write, data) :]
            status = 0
        finally:
            os._exit(status)

    def result(self, seconds: float) -> Any:
        """Wait for the work and return what it returned.

        Parameters
        ----------
        seconds:
            How long to wait from now.

        Raises
        ------
        Late
            It was not done in time.
        ValueError
            It failed.
        """
        import select
        from time import monotonic

        end = monotonic() + seconds
        poll = select.poll()
        poll.register(self._read, select.POLLIN | select.POLLHUP)
        data = b""
        try:
            while True:
                left = end - monotonic()
                if left <= 0 or not poll.poll(left * 1000):
                    self._kill()
                    raise Late
                chunk = os.read(self._read, 65536)
                if not chunk:
                    break
                data += chunk
        finally:
            os.close(self._read)
        self._wait(0)
        return jsontext.loads(data.decode("utf-8", "replace"))

    def _kill(self) -> None:
        for kill in (os.killpg, os.kill):
            try:
                kill(self._pid, 9)
            except OSError:
                continue  # it has no group of its own yet, or is gone
        # not waited for: in a hung file system it stays until that answers
        self._wait(os.WNOHANG)

    def _wait(self, options: int) -> None:
        try:
            os.waitpid(self._pid, options)
        except ChildProcessError:
            pass  # whoever started us ignores SIGCHLD, and so the system does not keep it
