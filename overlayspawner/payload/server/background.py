"""What a server does for its overlay without being asked: repair, adopt, restore, and say what it found.

All of it happens in one thread of its own, because the user's storage may be slow or dead. The server's loop
only notices that a kernel or a terminal was used, from figures that it has in memory, and wakes that thread.
No request ever waits for it, and nothing in it raises.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Optional

from overlayspawner.payload.contract import OverlayError, notice
from overlayspawner.payload.server.jobs import FINISHED, Job

LOOK_EVERY = 20_000
"""Milliseconds between two looks whether kernels or terminals were used."""

QUIET = 3.0
"""Seconds for which an env must not change before it is adopted: a tool may be at work in it."""

QUIET_BUSY = 60.0
"""The same while a kernel is busy: perhaps with that tool."""

PAUSES = (30.0, 60.0, 120.0, 300.0, 900.0)
"""Seconds before what failed is tried again, such as a restore that found no index; the last from then on."""

READY = 2.0
"""Seconds after which what a change needs is loaded: the page is there by then, and nobody has asked yet."""

_LATER = 30.0
"""Seconds before a restore is asked for again that another job kept us from."""

_OFFLINE = ("index-unreachable", "index-auth", "timeout", "busy", "interrupted")
"""Why a restore is tried again later."""

_CODES = (
    "adopted",
    "against-policy",
    "base-changed",
    "env-broken",
    "home-moved",
    "no-locks",
    "packages-missing",
    "packages-partial",
    "requirements-pending",
    "restore-partial",
    "restore-waiting",
    "restoring",
    "user-site-packages",
    "venvs-found",
)
"""Notices that are ours to replace."""


class Background:
    """The background work of one server.

    Parameters
    ----------
    service:
        The server's :class:`~overlayspawner.payload.server.service.Service`.
    serverapp:
        The server, asked for its kernels and terminals.
    quiet, quiet_busy:
        See :data:`QUIET` and :data:`QUIET_BUSY`.
    """

    def __init__(
        self, service: Any, serverapp: Any, *, quiet: float = QUIET, quiet_busy: float = QUIET_BUSY
    ) -> None:
        self.service = service
        self.context = service.context
        self._serverapp = serverapp
        self._quiet = quiet
        self._quiet_busy = quiet_busy
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._seen: object = None
        self._used = True
        self._busy = False
        self._adopted: Optional[dict[str, str]] = None
        self._offered: Optional[tuple[int, list[dict[str, str]]]] = None
        self._changed: Optional[tuple[int, list[dict[str, str]]]] = None
        self._job: Optional[Job] = None
        self._attempts = 0
        self._remembered = False
        self._failures = 0
        self._said = ""
        self._restore_at: Optional[float] = 0.0
        self._retry_at: Optional[float] = None
        self._thread: Optional[threading.Thread] = None
        self._ticker: Any = None
        self._ready: Optional[threading.Timer] = None
        self._unlisten: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin. Called on the server's loop, once it runs."""
        from tornado.ioloop import PeriodicCallback

        self._ticker = PeriodicCallback(self.tick, LOOK_EVERY)
        self._ticker.start()
        self._unlisten = self.service.jobs.listen(self._job_changed)
        self._thread = threading.Thread(target=self._run, name="overlay-background", daemon=True)
        self._thread.start()
        self._ready = threading.Timer(READY, get_ready, [self.context])
        self._ready.daemon = True
        self._ready.start()

    def stop(self, timeout: float = 0.0) -> bool:
        """Ask it to end; return whether it has.

        Parameters
        ----------
        timeout:
            Seconds to wait.
        """
        self._stop.set()
        self._wake.set()
        self._unlisten()
        if self._ticker is not None:
            self._ticker.stop()
        if self._ready is not None:
            self._ready.cancel()
        if self._thread is not None:
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return True

    # -- on the loop ------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look whether a kernel or a terminal was used since the last time. Touches no storage."""
        try:
            seen, self._busy = _activity(self._serverapp)
        except Exception:  # somebody's own manager: then every tick counts
            seen, self._busy = time.monotonic(), False
        if seen != self._seen:
            self._seen = seen
            self._used = True
            self._wake.set()

    def _job_changed(self) -> None:
        if self.service.jobs.current() is None:
            self._used = True
            self._wake.set()

    # -- in the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self.once())
            self._wake.clear()

    def once(self) -> Optional[float]:
        """Do what is due; return the seconds until the next time, ``None`` where only a use brings it."""
        try:
            self._round()
        except OverlayError as e:
            self._failed(e.code)
            said = f"[{e.code}] {e.message}"
            if said != self._said:  # a storage may be read-only for days
                self.service.log.info("overlayspawner: %s", said)
            self._said = said
        except Exception:  # the next round may do better
            self._failed("internal")
            self.service.log.warning("overlayspawner: background work failed", exc_info=True)
        return self._pause()

    def _failed(self, code: str) -> None:
        if code == "busy":
            self._failures = 0  # somebody's change ends
        pause = PAUSES[min(self._failures, len(PAUSES) - 1)]
        self._failures += 1
        self._retry_at = time.monotonic() + pause

    def _pause(self) -> Optional[float]:
        times = [self._retry_at]
        if self.context.env is not None:
            times.append(self._restore_at)
        due = [t for t in times if t is not None]
        return max(0.05, min(due) - time.monotonic()) if due else None

    def _round(self) -> None:
        self.service.follow()
        due = self._retry_at is not None and time.monotonic() >= self._retry_at
        looking = self._used or due
        if looking:
            self._used, self._retry_at = False, None
            if self.context.overlay is not None and self.context.env is None:
                self._mend()
        if self.context.overlay is None or self.context.env is None:
            return  # safe mode, or a start that failed; a repair may bring them yet
        error: Optional[OverlayError] = None
        if looking:
            self.service.refresh_pages()  # also after a command in a terminal
            try:
                self._repair()
                self._remember()
                self._adopt()
            except OverlayError as e:
                error = e  # what is to be told does not wait for it
            else:
                self._failures, self._said = 0, ""
        self._restore()
        self._tell()
        if error is not None:
            raise error

    def _mend(self) -> None:
        """Make an env whole that the start found damaged: there, another server might have been at work."""
        context = self.context
        if context.mode == "safe" or not any(item["code"] == "env-broken" for item in context.notices):
            return
        from overlayspawner.payload import runtime
        from overlayspawner.payload.doctor import frame, moved

        assert context.overlay is not None
        for line in frame.mend_env(context, context.overlay):
            self.service.log.info("overlayspawner: %s", line)
        env = context.overlay.env(context.base)
        if env.usable():
            context.env = env
            runtime.write_commands(context, os.environ)
            moved.tell_server(context)
            runtime.write_wrappers(context)

    def _repair(self) -> None:
        from overlayspawner.payload.change import pending, repair
        from overlayspawner.payload.lease import acquire

        overlay, env = self.context.require()
        if self.service.jobs.current() is None and pending(env):
            with acquire(env, who="server") as lease:
                repair(overlay, env, lease)

    def _remember(self) -> None:
        """Once: list the jobs of an earlier server, whose end is known now that all is repaired."""
        if not self._remembered:
            self._remembered = True
            self.service.remember_interrupted()

    def _adopt(self) -> None:
        from overlayspawner.payload import adopt

        if self.service.jobs.current() is not None or not adopt.needed(self.context):
            return  # the end of the job wakes us again
        if not self._settled():
            self._retry_at = time.monotonic() + self._quiet
            return
        done = adopt.adopt(self.context, who="server")
        if done["revision"]["changed"]:
            text = adopt.told(done["plan"])
            self._adopted = notice("adopted", f"The overlay was changed by another tool: {text}.")
            self.service.log.info("overlayspawner: adopted (%s)", text)

    def _settled(self) -> bool:
        """Whether the env stays as it is for a while: a tool that is at work would be caught half-way."""
        from overlayspawner.payload import snapshot

        _, env = self.context.require()
        before = snapshot.fingerprint(env)
        if self._stop.wait(self._quiet_busy if self._busy else self._quiet):
            return False
        return snapshot.fingerprint(env) == before

    def _restore(self) -> None:
        """Submit a restore where one is due; see how the last one ended."""
        if self._job is not None:
            if self._job.state not in FINISHED:
                return
            self._judge(self._job)
            self._job = None
        if self._restore_at is None or time.monotonic() < self._restore_at:
            return
        self._restore_at = None
        if self.context.spec.restore == "manual":
            return
        from overlayspawner.payload.restore import wanted

        why = wanted(self.context)
        if why and self.service.jobs.current() is None:
            self.service.log.info("overlayspawner: restoring (%s)", why)
            try:
                self._job = self.service.jobs.submit(Job("restore", {}, "server"))
            except OverlayError:
                self._restore_at = time.monotonic() + _LATER
        elif why:
            self._restore_at = time.monotonic() + _LATER

    def _judge(self, job: Job) -> None:
        code = (job.error or {}).get("code")
        if job.state == "failed" and code in _OFFLINE:
            self._restore_at = time.monotonic() + self._next_pause()
        elif job.state == "done":
            from overlayspawner.payload.restore import state

            if (state(self.context) or {}).get("state") == "waiting":
                self._restore_at = time.monotonic() + self._next_pause()

    def _next_pause(self) -> float:
        pause = PAUSES[min(self._attempts, len(PAUSES) - 1)]
        self._attempts += 1
        return pause

    def _tell(self) -> None:
        """Replace our notices by what is true now."""
        from overlayspawner.payload import adopt
        from overlayspawner.payload.lease import lock_notice
        from overlayspawner.payload.restore import restore_notice

        found = [*adopt.notices(self.context), *self._offers(), *self._image()]
        _, env = self.context.require()
        for item in (lock_notice(env), restore_notice(self.context), self._adopted):
            if item is not None:
                found.append(item)
        others = [item for item in self.context.notices if item.get("code") not in _CODES]
        self.context.notices = others + found

    def _offers(self) -> list[dict[str, str]]:
        """Say what could be imported; a home is looked through once, and again after each change."""
        from overlayspawner.payload import importing, revisions

        overlay, _ = self.context.require()
        newest = revisions.next_id(overlay)
        if self._offered is None or self._offered[0] != newest:
            self._offered = (newest, importing.notices(self.context))
        return self._offered[1]

    def _image(self) -> list[dict[str, str]]:
        """Say what a changed image broke, or that the home has moved; looked at again after each change."""
        from overlayspawner.payload import basechange, revisions

        overlay, _ = self.context.require()
        newest = revisions.next_id(overlay)
        if self._changed is None or self._changed[0] != newest:
            self._changed = (newest, basechange.check(self.context))
        return self._changed[1]


def get_ready(context: Any) -> None:
    """Import what a change needs, and find the installer, so that the first one does not wait for it.

    From the zip, where modules are compiled each time, that is a tenth of a second. Never raises.
    """
    try:
        from overlayspawner.payload import apply, lockfile, planning, restore  # noqa: F401
        from overlayspawner.payload.installer import choose, uv_preview  # noqa: F401

        if context.env is not None:
            choose(context)
    except Exception:  # the change itself will say it
        return


def _activity(serverapp: Any) -> tuple[object, bool]:
    """Return something that changes whenever a kernel or terminal is used, and whether a kernel is busy."""
    seen: list[object] = []
    busy = False
    manager = serverapp.kernel_manager
    for ident in list(manager.list_kernel_ids()):
        kernel = manager.get_kernel(ident)
        state = getattr(kernel, "execution_state", "")
        busy = busy or state == "busy"
        seen.append((ident, getattr(kernel, "last_activity", None), state))
    terminals = serverapp.web_app.settings.get("terminal_manager")
    for name, terminal in sorted(getattr(terminals, "terminals", {}).items()):
        seen.append((name, getattr(terminal, "last_activity", None)))
    return seen, busy
