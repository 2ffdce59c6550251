"""After a job, when nobody waits: the cache is pruned, and what takes space is measured.

It ends at once when the next job comes, and does nothing while another server changes the overlay.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from overlayspawner.payload import cleanup, lease, sizes, uvcache
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError

DELAY = 2.0
"""Seconds after a job: jobs often come one after the other."""


class Tidier:
    """Tidies up after jobs.

    Parameters
    ----------
    context:
        Returns the server's view of its overlay.
    log:
        The server's log.
    """

    def __init__(self, context: Callable[[], Context], log: logging.Logger) -> None:
        self._context = context
        self._log = log
        self._cancel: threading.Event | None = None
        self._lock = threading.Lock()

    def stop(self) -> None:
        """A job begins: whatever is going on ends soon."""
        with self._lock:
            if self._cancel is not None:
                self._cancel.set()
            self._cancel = None

    def start(self) -> None:
        """A job has ended."""
        self.stop()
        cancel = threading.Event()
        with self._lock:
            self._cancel = cancel
        # a daemon: one that hangs on dead storage must not keep the server from ending
        threading.Thread(target=self._run, args=(cancel,), name="overlay-tidy", daemon=True).start()

    def _run(self, cancel: threading.Event) -> None:
        if cancel.wait(DELAY):
            return
        try:
            tidy(self._context(), cancel)
        except (OverlayError, OSError) as e:
            self._log.debug("overlayspawner: not tidied up: %s", e)
        except Exception:
            self._log.warning("overlayspawner: tidying up failed", exc_info=True)


def tidy(context: Context, cancel: threading.Event) -> None:
    """Prune the cache and measure.

    Raises
    ------
    OverlayError
        ``busy``, ``cancelled``, or what the storage says.
    """
    _, env = context.require()
    with lease.acquire(env, who="clean-up"):
        uvcache.prune(context, cancel=cancel)
    items = cleanup.found(context, cancel=cancel)
    if not cancel.is_set():
        sizes.save(context, items)
