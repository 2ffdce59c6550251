"""SystemUserSpawner with package overlays: the overlay lies in the home of a user of the host."""

from __future__ import annotations

import inspect
import re
from typing import Any

from docker.errors import APIError
from dockerspawner import SystemUserSpawner
from traitlets import default

from overlayspawner.hub import failure
from overlayspawner.hub.docker import OverlayDockerSpawner
from overlayspawner.hub.engine_reasons import words
from overlayspawner.hub.output import redact

NO_USER, NO_HOME = "no-system-user", "no-host-home"

CODES = {
    NO_USER: "The hub's machine has no user of this name, and nobody has set the ids.",
    NO_HOME: "The user's home is missing on the engine's machine, or the engine may not look at it.",
}
"""Codes of what can be wrong with a user here: in the hub's log and pages, and ``reason`` of its metrics."""

HINTS = {
    NO_USER: "Make the user, or set `user_id` and `group_id`.",
    NO_HOME: "Make the directory, with the user as its owner.",
}

_PROPAGATIONS = {"shared", "rshared", "slave", "rslave", "private", "rprivate"}

# What engines say about a directory that they are to mount. Matched on text, because they give the same
# status for any other mistake.
_NO_SOURCE = re.compile(r"does not exist|no such file or directory", re.IGNORECASE)
_NO_RIGHT = re.compile(r"permission denied|operation not permitted|input/output error|stale", re.IGNORECASE)


class NoSystemUser(KeyError):
    """The hub's machine does not know a user; a ``KeyError``, as in SystemUserSpawner."""


def home_as_mount(kwargs: dict[str, Any], source: str, target: str) -> dict[str, Any]:
    """Return the arguments of ``create_container`` with the home as a mount instead of a bind. Pure.

    What they mean differs in one thing: the engine refuses a mount whose source is missing, and makes a
    directory that belongs to root for a bind. Only the engine can tell: the hub may run on another machine.

    Parameters
    ----------
    kwargs:
        The arguments; a bind with options that mounts don't have (SELinux labels) is left as it is.
    source, target:
        The home on the host, and in the container.
    """
    host_config = dict(kwargs.get("host_config") or {})
    binds = list(host_config.get("Binds") or [])
    for bind in binds:
        mode = str(bind).removeprefix(f"{source}:{target}:")
        options = set(mode.split(","))
        propagation = options & _PROPAGATIONS
        if mode == bind or len(propagation) > 1 or options - propagation - {"rw", "ro"}:
            continue
        mount: dict[str, Any] = {
            "Type": "bind",
            "Source": source,
            "Target": target,
            "ReadOnly": "ro" in options,
        }
        if propagation:
            mount["BindOptions"] = {"Propagation": propagation.pop()}
        binds.remove(bind)
        host_config["Binds"] = binds
        host_config["Mounts"] = [*(host_config.get("Mounts") or []), mount]
        return {**kwargs, "host_config": host_config}
    return kwargs


def names_directory(text: str, directory: str) -> bool:
    """Whether a message is about a directory itself, not about what is in it or has a longer name."""
    return bool(re.search(re.escape(directory.rstrip("/")) + r"/?(?![\w/-]|\.\w)", text))


class OverlaySystemUserSpawner(OverlayDockerSpawner, SystemUserSpawner):  # type: ignore[misc]
    """Spawns servers in Docker containers as users of the host, each with an overlay in the user's own home.

    ``home_volume`` is empty by default: the home is the host's.
    """

    _overlay_looked_up: frozenset[str] = frozenset()
    _overlay_as_parent = False

    @default("home_volume")
    def _home_volume_default(self) -> str:
        return ""

    # -- who the user is --------------------------------------------------------------------------------

    def _user_id_default(self) -> int:
        return self._overlay_look_up("user_id", "pw_uid")

    def _group_id_default(self) -> int:
        return self._overlay_look_up("group_id", "pw_gid")

    def _overlay_look_up(self, trait: str, field: str) -> int:
        import pwd

        try:
            found: int = getattr(pwd.getpwnam(self.user.name), field)
        except KeyError:
            raise NoSystemUser(trait) from None
        self._overlay_looked_up |= {trait}
        return found

    def get_state(self) -> dict[str, Any]:
        """Return what to keep. Ids only where somebody has set them: what was looked up may change."""
        # SystemUserSpawner looks ids up here; where there is no such user, a hub could not clean up
        state: dict[str, Any] = super(SystemUserSpawner, self).get_state()
        for trait in ("user_id", "group_id"):
            looked_up = trait in self._overlay_looked_up and not self._overlay_as_parent
            if self.trait_has_value(trait) and getattr(self, trait) >= 0 and not looked_up:
                state[trait] = getattr(self, trait)
        return state

    def _overlay_owner(self) -> int:
        return int(self.user_id)

    @property
    def host_homedir(self) -> str:
        """The home directory on the host.

        Raises
        ------
        NoSystemUser
            It had to be looked up, and there is no such user.
        """
        template = self.host_homedir_format_string
        try:
            home: str = super().host_homedir
            return home
        except (KeyError, IndexError, ValueError) as e:
            if not template:
                raise NoSystemUser("host_homedir") from None
            raise failure.config_failure(
                f"host_homedir_format_string is {template!r}, which can't be filled in ({e}).",
                "Its one field is {username}.",
            ) from None

    # -- the start --------------------------------------------------------------------------------------

    async def start(self, *args: Any, **kwargs: Any) -> Any:
        """Start the server, and wait until it answers.

        Raises
        ------
        tornado.web.HTTPError
            The server can't start; the message is for the user.
        """
        me: Any = self
        self._overlay_as_parent = not await self._overlay_value("overlay_enabled")
        if self._overlay_as_parent:
            return await super().start(*args, **kwargs)
        for trait in self._overlay_looked_up:
            me._trait_values.pop(trait, None)  # the user may have another id by now
        self._overlay_looked_up = frozenset()
        given = me.extra_create_kwargs
        # SystemUserSpawner takes it for a dict, and writes the user into it, for all later starts
        now = me._eval_if_callable(given)
        me.extra_create_kwargs = dict((await now if inspect.isawaitable(now) else now) or {})
        try:
            return await super().start(*args, **kwargs)
        except NoSystemUser as e:
            raise self._overlay_no_user(str(e.args[0])) from None
        finally:
            me.extra_create_kwargs = given

    def docker(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the engine; a home that is to be mounted has to exist."""
        # what the engine makes belongs to root: no harm where that is the user
        if method == "create_container" and self._overlay_composing and self.user_id > 0:
            kwargs = home_as_mount(kwargs, self.host_homedir, self.homedir)
        return super().docker(method, *args, **kwargs)

    # -- why it failed ----------------------------------------------------------------------------------

    def _overlay_no_user(self, trait: str) -> Exception:
        name = self.user.name
        if trait == "group_id" and self.trait_has_value("user_id"):
            message = f"This machine has no user named {name}, so that {name}'s group is not known."
            hint = "Where you set user_id, set group_id as well."
        else:
            message = f"This machine has no user named {name}."
            hint = (
                "Ask your administrator to make the user on the hub's machine, or to set user_id and "
                "group_id (and host_homedir_format_string)."
            )
        return self._overlay_refused(NO_USER, message, hint)

    def _overlay_refused(self, code: str, message: str, hint: str) -> Exception:
        self.log.warning("%s: [%s] %s", self._log_name, code, message)
        return failure.spawn_failure(self, message, reason=code, hint=f"{hint} [{code}]")

    async def _overlay_explain(self, error: Exception) -> None:
        """Raise a better exception for a failed start, where there is one."""
        if isinstance(error, APIError):
            text = redact(str(error.explanation or error), self._overlay_secrets)
            home = self.host_homedir
            watch = self._overlay_watch
            about = names_directory(text, home)
            wrong = about and (_NO_SOURCE.search(text) or _NO_RIGHT.search(text))
            if wrong and watch is not None and self.remove:  # created before the home went away
                await self._overlay_discard(await self._overlay_connect(), watch.container)
            if about and _NO_SOURCE.search(text):
                raise self._overlay_refused(
                    NO_HOME,
                    f"There is no directory {home} on the machine that runs the servers.",
                    "Nothing was made in its place, because it would belong to root. Ask your administrator "
                    f"to make it, with {self.user.name} as its owner.",
                ) from error
            if about and _NO_RIGHT.search(text):
                raise self._overlay_refused(
                    NO_HOME,
                    f"The engine may not look at the directory {home}: {words(text)}",
                    "Where homes are on NFS, root has to be able to pass through the directories above it.",
                ) from error
        await super()._overlay_explain(error)
