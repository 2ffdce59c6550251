"""Local processes with package overlays."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from jupyterhub.spawner import LocalProcessSpawner, SimpleLocalProcessSpawner
from traitlets import Bool, Unicode, default

from overlayspawner.hub import failure, payload_dir, processes, runtime_dirs
from overlayspawner.hub.command import OverlayCommandMixin, deliver, escaped
from overlayspawner.hub.payload_dir import Reader

_STATE = "overlay"
_LEAVE = 2.0  # seconds that kernels and jobs have to end with their server, and then after each signal
_POLL = 0.05


class OverlayLocalSpawner(OverlayCommandMixin, LocalProcessSpawner):  # type: ignore[misc]
    """Spawns single-user servers as local processes, each user with a package overlay on the hub's Python."""

    overlay_local_simple = Bool(
        False,
        config=True,
        help="""
        Run servers as the hub's own user, in a directory for each (``home_dir_template``), for users that
        this machine does not know. For trying things out on one's own machine, without root and without
        system users, as with JupyterHub's SimpleLocalProcessSpawner.

        It isolates nothing: each user can read and change everything of all others, and of the hub.
        """,
    )

    home_dir_template = Unicode(
        config=True,
        help="""
        The home directory of a user with ``overlay_local_simple``; ``{username}`` is escaped.

        Default: ``homes/{username}`` beside ``overlay_payload_dir``.
        """,
    )

    @default("home_dir_template")
    def _home_dir_template_default(self) -> str:
        return os.path.join(os.path.dirname(self.overlay_payload_dir.rstrip("/")), "homes", "{username}")

    _overlay_lease = -1
    _overlay_uid = -1
    _overlay_ticks = 0
    _overlay_port = 0
    _overlay_tidying: asyncio.Future[None] | None = None

    @property
    def home_dir(self) -> str:
        """The home directory with ``overlay_local_simple``."""
        return self.home_dir_template.format(username=escaped(self.user.name))

    # -- whose process it is ----------------------------------------------------------------------------

    def make_preexec_fn(self, name: str) -> Any:
        """Return what the child does before it runs the server."""
        if self.overlay_local_simple:
            return SimpleLocalProcessSpawner.make_preexec_fn(self, name)
        if self._overlay_settings is not None:
            self._overlay_check_user(name)
        return super().make_preexec_fn(name)

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """Add what depends on the user to the server's environment."""
        if self.overlay_local_simple:
            return SimpleLocalProcessSpawner.user_env(self, env)  # type: ignore[no-any-return]
        result: dict[str, str] = super().user_env(env)
        return result

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """Bring certificates to where the server finds them."""
        if self.overlay_local_simple:
            return paths
        result: dict[str, str] = await super().move_certs(paths)
        return result

    def _overlay_check_user(self, name: str) -> None:
        user = pwd.getpwnam(name)
        if os.geteuid() not in (0, user.pw_uid):
            own = pwd.getpwuid(os.geteuid()).pw_name
            raise self.overlay_failure(
                f"The hub runs as {own}, and only root may start servers for other users.", reason="rights"
            )
        if not os.path.isabs(user.pw_dir) or user.pw_dir.strip("/") == "":
            # LocalProcessSpawner would look for another place for ever, and the hub with it
            message = f"The user {name} has no home directory on this machine."
            raise self.overlay_failure(message, reason="home", hint="Ask your administrator for one.")

    def _overlay_groups(self, uid: int) -> list[int]:
        user = pwd.getpwuid(uid)
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
        return [user.pw_gid, *(g for g in groups if g != user.pw_gid)]

    # -- the start --------------------------------------------------------------------------------------

    async def start(self) -> Any:
        """Start the server, and wait until it answers."""
        self._overlay_uid, self._overlay_ticks, self._overlay_port = -1, 0, 0
        self._overlay_tidying = None
        return await super().start()

    async def overlay_deliver(self) -> str:
        """Put the payload into ``overlay_payload_dir``; it stays there while the server runs."""
        self._overlay_release()
        reader = None
        if not self.overlay_local_simple:
            try:
                uid = pwd.getpwnam(self.user.name).pw_uid
            except KeyError:
                pass  # a subclass may run servers as somebody else
            else:
                if uid != os.geteuid():
                    reader = Reader(uid, self._overlay_groups(uid))
        directory, self._overlay_lease = await deliver(self.overlay_payload_dir, reader, keep=False)
        return directory

    async def overlay_launch(self) -> Any:
        """Start the process; it inherits the lease of the payload."""
        me: Any = self
        given = me.popen_kwargs
        try:
            if self._overlay_lease >= 0:
                passed = (*given.get("pass_fds", ()), self._overlay_lease)
                me.popen_kwargs = {**given, "pass_fds": passed}
            address = await super().overlay_launch()
        except OSError as e:
            raise self._overlay_refused(e) from e
        except subprocess.SubprocessError:  # all that Popen tells of what happened before the command
            message = "The hub could not become this user to start the server; its log has the reason."
            raise failure.config_failure(message) from None
        finally:
            me.popen_kwargs = given
            self._overlay_release()
        self._overlay_note(address)
        return address

    def _overlay_release(self) -> None:
        """Close the hub's copy of the lease."""
        lease, self._overlay_lease = self._overlay_lease, -1
        if lease >= 0:
            os.close(lease)

    def _overlay_refused(self, error: OSError) -> Exception:
        if error.errno == errno.E2BIG:
            return self.overlay_failure(
                "The server's environment and arguments are larger than this system allows.",
                reason="command",
                hint="Ask your administrator to make the settings shorter.",
            )
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC):
            what = "was not found" if error.errno == errno.ENOENT else "may not be run"
            name = error.filename or "the server's command"
            return self.overlay_failure(f"{name} {what}: the server could not be started.", reason="command")
        # no memory, no processes: nothing that a user could change
        return failure.config_failure(f"The server's process could not be made: {error.strerror or error}.")

    def _overlay_note(self, address: Any) -> None:
        """Remember the process, also for a hub that is started again before this start is over."""
        process = processes.look(self.pid)
        if process is None:
            return
        self._overlay_ticks, self._overlay_uid = process.started, processes.owner(self.pid)
        self._overlay_port = int(address[1]) if isinstance(address, tuple) else 0
        database = getattr(self.user, "db", None)
        if database is not None:
            self.orm_spawner.state = self.get_state()
            database.commit()

    async def _overlay_wait_or_die(self, address: Any) -> None:
        try:
            await super()._overlay_wait_or_die(address)
        finally:
            if self._overlay_tidying is not None:
                await self._overlay_tidying
        if self._overlay_port:
            self._overlay_check_listener(await asyncio.to_thread(processes.listeners, self._overlay_port))

    def _overlay_check_listener(self, found: set[int]) -> None:
        """Refuse a server that is somebody else's: any user of this machine may have taken the port first."""
        known = {self._overlay_uid, os.geteuid(), 0}
        if self._overlay_uid == -1 or not found or found & known or not all(map(_is_user, found)):
            return
        raise self.overlay_failure(_taken(self._overlay_port), reason="port", hint="Start it again.")

    def overlay_describe_end(self, status: int) -> tuple[str, str]:
        """Say how the server ended; the commonest reason of a fixed port is that it is taken."""
        if self._overlay_port and processes.listeners(self._overlay_port):
            return _taken(self._overlay_port), "port"
        return super().overlay_describe_end(status)

    # -- a hub that was started again -------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """Return what a hub that is started again has to know."""
        state: dict[str, Any] = super().get_state()
        if self.pid and self._overlay_ticks:
            state[_STATE] = {
                "started": self._overlay_ticks,
                "uid": self._overlay_uid,
                "port": self._overlay_port,
            }
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Take what an earlier hub has noted."""
        super().load_state(state)
        noted = state.get(_STATE) or {}
        self._overlay_ticks = int(noted.get("started", 0))
        self._overlay_uid = int(noted.get("uid", -1))
        self._overlay_port = int(noted.get("port", 0))

    def clear_state(self) -> None:
        """Forget the process; whose it was is needed for tidying up."""
        super().clear_state()
        self._overlay_ticks = 0

    async def poll(self) -> int | None:
        """Return ``None`` while the server runs, else its exit status, 0 where it is not known."""
        if self.proc is None and self.pid and self._overlay_ticks:
            process = processes.look(self.pid)
            # another process may have the number by now; one that nobody waits for stays as a zombie
            if process is None or process.zombie or process.started != self._overlay_ticks:
                self.clear_state()
        status: int | None = await super().poll()
        if status is not None and self._overlay_uid != -1 and self._overlay_tidying is None:
            # JupyterHub calls stop() only for what runs
            self._overlay_tidying = asyncio.ensure_future(self._overlay_tidy())
        return status

    async def get_url(self) -> str:
        """Return where the server is: a hub that was restarted in mid-start does not know."""
        if self._overlay_port and not (self.server is not None and self.server.ip):
            return self._overlay_url(self.ip or "127.0.0.1", self._overlay_port)
        url: str = await super().get_url()
        return url

    # -- the end ----------------------------------------------------------------------------------------

    async def stop(self, now: bool = False) -> None:
        """Stop the server, what it has started, and leave nothing of it behind."""
        if self._overlay_uid == -1:  # started without an overlay
            await super().stop(now=now)
            return
        started = await asyncio.to_thread(processes.family, self.pid) if self.pid else []
        await super().stop(now=now)
        await self._overlay_end_all(started)
        await self._overlay_tidy()

    async def _overlay_end_all(self, started: list[processes.Process]) -> None:
        """End kernels and jobs that outlive their server, as they do when it had to be killed."""
        steps: list[Callable[[processes.Process], Any]] = [
            partial(processes.send, sig=sig, uid=self._overlay_uid)
            for sig in (signal.SIGTERM, signal.SIGKILL)
        ]
        for step in [None, *steps]:
            left = [p for p in started if processes.alive(p)]
            for process in left if step is not None else ():
                assert step is not None
                step(process)
            end = time.monotonic() + _LEAVE
            while left and time.monotonic() < end:
                await asyncio.sleep(_POLL)
                left = [p for p in left if processes.alive(p)]
            if not left:
                return

    async def _overlay_tidy(self) -> None:
        """Remove runtime dirs of this user's ended servers, and payloads that no server uses."""
        uid = self._overlay_uid
        try:
            groups = [] if uid == os.geteuid() else self._overlay_groups(uid)
            await asyncio.gather(
                asyncio.to_thread(payload_dir.remove_old, self.overlay_payload_dir),
                runtime_dirs.remove_dead(uid, groups, runtime_dirs.places(self.environment)),
            )
        except Exception as e:  # the server has ended all the same
            self.log.warning("%s: tidying up: %s: %s", self._log_name, type(e).__name__, e)


def _is_user(uid: int) -> bool:
    try:
        return bool(pwd.getpwuid(uid))
    except KeyError:  # inside a container, say
        return False


def _taken(port: int) -> str:
    return f"Port {port}, which the server was to use, is taken by another program."
