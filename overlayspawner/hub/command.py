"""Overlays for spawners that run a command on a machine: the public part for parents of one's own.

``class OverlayMySpawner(OverlayCommandMixin, MySpawner)`` is all that most parents need; the methods without
an underscore are there to be overridden where one is different. See ``docs/how-to/other-spawners.md``.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from escapism import escape
from traitlets import Unicode, default

from overlayspawner.hub import boot, failure, payload_dir, progress
from overlayspawner.hub.config import build_spec
from overlayspawner.hub.deaths import Death
from overlayspawner.hub.mixin import OverlaySpawnerMixin
from overlayspawner.hub.payload_dir import Reader
from overlayspawner.payload.contract import SPEC_ENV, OverlayError

_DEATH_POLL = 0.1  # seconds; asking for a child's exit status is one system call


def state_dir() -> str:
    """Return where a hub keeps what is its own: ``/var/lib`` for root, else the user's data directory."""
    if os.geteuid() == 0:
        return "/var/lib/overlayspawner"
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "overlayspawner")


class OverlayCommandMixin(OverlaySpawnerMixin):
    """Brings overlays to a spawner whose ``start()`` runs ``cmd`` with the environment of ``get_env()``."""

    overlay_payload_dir = Unicode(
        config=True,
        help="""
        The directory that our code for servers is put into. Servers have to be able to read it; nobody but
        the hub's user and root may write to it, nor to the directories that lead to it: whoever could would
        run code in every user's server. Several hubs of one user may share it.

        Default: ``/var/lib/overlayspawner/payload`` when the hub runs as root, else
        ``~/.local/share/overlayspawner/payload``.
        """,
    )

    @default("overlay_payload_dir")
    def _overlay_payload_dir_default(self) -> str:
        return os.path.join(state_dir(), "payload")

    # -- what a subclass may override -------------------------------------------------------------------

    overlay_output_hint = "The hub's log has what it printed."
    """Where an administrator finds what a server printed."""

    async def overlay_deliver(self) -> str:
        """Put the payload where the server can read it; return that directory, as the server sees it.

        ``""`` where something else runs the payload: then :meth:`overlay_wrap` is not called.

        Raises
        ------
        OverlayError
            It can't be had.
        """
        return (await deliver(self.overlay_payload_dir))[0]

    def overlay_wrap(self, command: list[str], directory: str) -> list[str]:
        """Return the command that prepares the overlay and then runs ``command``.

        One of its words is a line of shell; a parent that joins words without quoting them needs them quoted.
        """
        return boot.wrap(command, directory)

    async def overlay_launch(self) -> Any:
        """Have the parent start the server; return its address, as ``start()`` does."""
        return await super().start()  # type: ignore[misc]

    def overlay_describe_end(self, status: int) -> tuple[str, str]:
        """Return a plain sentence about how the server ended while it started, and a label for metrics.

        Parameters
        ----------
        status:
            What ``poll()`` said; 0 also where a parent does not know.
        """
        if status == 0:
            return "The server ended before it answered.", "exited"
        # Popen has negative numbers for signals, a shell 128 and more
        death = Death(128 - status if status < 0 else status)
        return failure.describe(death), failure.label_of(death)

    def overlay_failure(self, message: str, *, reason: str, hint: str = "") -> Exception:
        """Return an exception for :meth:`overlay_launch` to raise: it tells the user why there is no server.

        It does not count as a failure of the hub (``consecutive_failure_limit``).

        Parameters
        ----------
        message, hint:
            What happened, and what to do; sentences.
        reason:
            A label for metrics.
        """
        me: Any = self
        self.log.warning("%s: %s", me._log_name, message)
        return failure.spawn_failure(self, message, reason=reason, hint=hint)

    # -- the start --------------------------------------------------------------------------------------

    def get_env(self) -> dict[str, str]:
        """Return the server's environment."""
        settings = self._overlay_settings
        me: Any = self
        try:
            env: dict[str, str] = super().get_env()  # type: ignore[misc]
        except KeyError as e:
            if settings is None or "getpwnam" not in str(e):
                raise
            raise self.overlay_failure(
                f"There is no user {me.user.name} on this machine.",
                reason="user",
                hint="Ask your administrator for an account.",
            ) from None
        if settings is not None:
            fields = {"username": escaped(me.user.name), "servername": escaped(me.name)}
            # no mounts here: the home of a machine's user is persistent
            env[SPEC_ENV] = build_spec(
                settings,
                fields=fields,
                mounts=None,
                choice=self._overlay_choice,
                start_timeout=me.start_timeout,
            ).to_json()
        return env

    async def start(self) -> Any:
        """Start the server, and wait until it answers.

        Raises
        ------
        tornado.web.HTTPError
            The server can't start; the message is for the user.
        """
        self._overlay_choose()
        self._overlay_settings = await self._overlay_read_settings()
        if self._overlay_settings is None:
            self._overlay_end()
            return await super().start()  # type: ignore[misc]
        self._overlay_begin()
        me: Any = self
        command = me.cmd
        try:
            self._overlay_say(progress.CREATE, "Preparing the server")
            self._overlay_tell_choice()
            directory = await self.overlay_deliver()
            if directory and command:
                # the parent reads it while it starts the server, and nobody else does meanwhile
                me.cmd = self.overlay_wrap(list(command), directory)
            self._overlay_say(progress.START, "Starting the server")
            address = await self.overlay_launch()
            self._overlay_say(progress.STARTED, "Waiting for the server to answer")
            await self._overlay_wait_or_die(address)
            return address
        except OverlayError as e:
            raise failure.config_failure(e.message, e.hint) from None
        finally:
            me.cmd = command
            self._overlay_end()

    async def _overlay_wait_or_die(self, address: Any) -> None:
        if isinstance(address, str):
            me: Any = self
            host = "/".join(address.split("/")[:3])
            url = host + (me.server.base_url if me.server else "/")
        elif isinstance(address, tuple) and len(address) == 2:
            url = self._overlay_url(address[0], int(address[1]))
        else:
            return
        watch = asyncio.ensure_future(self._overlay_next_end())
        try:
            if await self._overlay_wait_at(url, until=watch):
                self._overlay_say(progress.SERVER, "The server answers")
            elif watch.done():
                message, reason = self.overlay_describe_end(watch.result())
                raise failure.spawn_failure(
                    self,
                    message,
                    reason=reason,
                    hint=self.overlay_output_hint,
                    safe=self._overlay_choice is None,
                )
        finally:
            watch.cancel()

    async def _overlay_next_end(self) -> int:
        me: Any = self
        while True:
            status = await me.poll()
            if status is not None:
                return int(status)
            await asyncio.sleep(_DEATH_POLL)


async def deliver(parent: str, reader: Reader | None = None, *, keep: bool = True) -> tuple[str, int]:
    """Call :func:`overlayspawner.hub.payload_dir.deliver`, which may have to wait, in a thread."""
    return await asyncio.to_thread(payload_dir.deliver, parent, reader, keep=keep)


def escaped(name: str) -> str:
    """Return a name as part of a path: one component of it, whatever the name is."""
    safe = set("abcdefghijklmnopqrstuvwxyz0123456789_")
    return str(escape(name, safe=safe, escape_char="-")).lower()
