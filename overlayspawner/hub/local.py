"""Local processes with package overlays."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from escapism import escape
from jupyterhub.spawner import LocalProcessSpawner, SimpleLocalProcessSpawner
from traitlets import Bool, Unicode, default

from overlayspawner.hub import boot, failure, payload_zip, progress
from overlayspawner.hub.config import build_spec
from overlayspawner.hub.deaths import Death
from overlayspawner.hub.mixin import OverlaySpawnerMixin
from overlayspawner.payload.contract import SPEC_ENV, OverlayError

_DEATH_POLL = 0.1  # seconds; asking for a child's exit status is one system call


def state_dir() -> str:
    """Return where a hub keeps what is its own: ``/var/lib`` for root, else the user's data directory."""
    if os.geteuid() == 0:
        return "/var/lib/overlayspawner"
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "overlayspawner")


class OverlayLocalSpawner(OverlaySpawnerMixin, LocalProcessSpawner):  # type: ignore[misc]
    """Spawns single-user servers as local processes, each user with a package overlay on the hub's Python."""

    overlay_payload_dir = Unicode(
        config=True,
        help="""
        The directory on this machine that our code for servers is put into. It must belong to the hub's user,
        who alone may write to it, and servers have to be able to read it.

        Default: ``/var/lib/overlayspawner/payload`` when the hub runs as root, else
        ``~/.local/share/overlayspawner/payload``.
        """,
    )

    @default("overlay_payload_dir")
    def _overlay_payload_dir_default(self) -> str:
        return os.path.join(state_dir(), "payload")

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

    @property
    def home_dir(self) -> str:
        """The home directory with ``overlay_local_simple``."""
        return self.home_dir_template.format(username=_escaped(self.user.name))

    def make_preexec_fn(self, name: str) -> Any:
        """Return what the child does before it runs the server."""
        if not self.overlay_local_simple:
            return super().make_preexec_fn(name)
        return SimpleLocalProcessSpawner.make_preexec_fn(self, name)

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """Add what depends on the user to the server's environment."""
        if not self.overlay_local_simple:
            result: dict[str, str] = super().user_env(env)
            return result
        return SimpleLocalProcessSpawner.user_env(self, env)  # type: ignore[no-any-return]

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """Bring certificates to where the server finds them."""
        if self.overlay_local_simple:
            return paths
        result: dict[str, str] = await super().move_certs(paths)
        return result

    def get_env(self) -> dict[str, str]:
        """Return the server's environment."""
        env: dict[str, str] = super().get_env()
        settings = self._overlay_settings
        if settings is not None:
            fields = {"username": _escaped(self.user.name), "servername": _escaped(self.name)}
            # no mounts here: the home of a local user is persistent
            env[SPEC_ENV] = build_spec(
                settings,
                fields=fields,
                mounts=None,
                choice=self._overlay_choice,
                start_timeout=self.start_timeout,
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
            return await super().start()
        self._overlay_begin()
        me: Any = self
        command = me.cmd
        try:
            self._overlay_say(progress.CREATE, "Preparing the server")
            self._overlay_tell_choice()
            directory = deliver(self.overlay_payload_dir)
            # LocalProcessSpawner reads it while it starts the process, and nobody else does meanwhile
            me.cmd = boot.wrap(list(command), directory)
            self._overlay_say(progress.START, "Starting the server")
            address = await super().start()
            self._overlay_say(progress.STARTED, "Waiting for the server to answer")
            await self._overlay_wait_or_die(*address)
            return address
        except OverlayError as e:
            raise failure.config_failure(e.message, e.hint) from None
        finally:
            me.cmd = command
            self._overlay_end()

    async def _overlay_wait_or_die(self, ip: str, port: int) -> None:
        watch = asyncio.ensure_future(self._overlay_next_death())
        try:
            if await self._overlay_wait(ip, port, until=watch):
                self._overlay_say(progress.SERVER, "The server answers")
            elif watch.done():
                death = watch.result()
                message = failure.describe(death)
                hint = "The hub's log has what it printed."
                raise failure.spawn_failure(
                    self,
                    message,
                    reason=failure.label_of(death),
                    hint=hint,
                    safe=self._overlay_choice is None,
                )
        finally:
            watch.cancel()

    async def _overlay_next_death(self) -> Death:
        while True:
            status = await self.poll()
            if status is not None:
                # Popen has negative numbers for signals, a shell 128 and more
                return Death(128 - status if status < 0 else status)
            await asyncio.sleep(_DEATH_POLL)


def _escaped(name: str) -> str:
    """Return a name as part of a path: one component of it, whatever the name is."""
    safe = set("abcdefghijklmnopqrstuvwxyz0123456789_")
    return str(escape(name, safe=safe, escape_char="-")).lower()


def deliver(parent: str) -> str:
    """Put the payload into a directory of its own below ``parent``, unless it is there; return it.

    Parameters
    ----------
    parent:
        Made, with mode 0755, when it is missing.

    Raises
    ------
    OverlayError
        ``bad-spec``: the directory can't be used, or somebody else could write to it and so run code in
        every user's server.
    """
    payload = payload_zip.build()
    final = Path(parent) / payload.short_id
    mark, content = payload.mark()
    try:
        Path(parent).mkdir(mode=0o755, parents=True, exist_ok=True)
        _check_owner(Path(parent))
        if final.is_dir():
            _check_owner(final)
            with suppress(OSError):
                if (final / mark).read_bytes() == content:
                    return str(final)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
        for name, data in {**payload.contents(), mark: content}.items():
            (temporary / name).write_bytes(data)
            (temporary / name).chmod(0o644)
        temporary.chmod(0o755)
        try:
            temporary.rename(final)
        except OSError:
            if not final.is_dir():
                raise
            # incomplete, or another hub was first: put file by file into it, the mark last
            for name in [*payload.contents(), mark]:
                (temporary / name).rename(final / name)
            temporary.rmdir()
    except OSError as e:
        raise OverlayError(
            "bad-spec",
            f"The directory {parent} can't be used for the overlay's files: {e.strerror or e}.",
            "Set OverlayLocalSpawner.overlay_payload_dir to a directory that the hub may write to.",
            status=500,
        ) from None
    return str(final)


def _check_owner(directory: Path) -> None:
    stat = directory.lstat()
    if stat.st_uid != os.geteuid() or stat.st_mode & 0o022:
        raise OverlayError(
            "bad-spec",
            f"Others than the hub's user may write to {directory}, and so run code in users' servers.",
            "Set OverlayLocalSpawner.overlay_payload_dir to a directory that only the hub may write to.",
            status=500,
        )
