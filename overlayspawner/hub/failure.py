"""Says why a server did not start, so that user and administrator can do something about it.

JupyterHub stops itself after some failed spawns in a row (``consecutive_failure_limit``), because then
something may be wrong with the hub. An image or a home that breaks its own server is no such thing: five
broken users must not take the hub away from all others. JupyterHub 6 does not count errors with a status
below 500; JupyterHub 5 counts every failed spawn, so there the count is corrected.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jupyterhub
from jupyterhub.utils import url_path_join
from tornado import web

from overlayspawner.hub import choice

if TYPE_CHECKING:
    from overlayspawner.hub.deaths import Death

try:
    from jupyterhub.spawner import SpawnException
except ImportError:  # JupyterHub 5
    SpawnException = None

_COUNTS_EVERYTHING = jupyterhub.version_info[0] < 6

_SIGNALS = {
    132: "an illegal instruction (its programs are for another processor)",
    134: "an abort",
    136: "an arithmetic error",
    137: "a kill signal, perhaps for want of memory",
    139: "a segmentation fault",
    143: "a request to terminate",
}

# What the engine says when it can't run what the image (or its user) asks for: nothing is wrong with the
# engine or the hub then. Matched on text, because the engine gives the same status for all of them.
IMAGE_CAUSED = (
    r"executable file not found|no such file or directory|permission denied|exec format error"
    r"|unable to find (?:user|group)|no matching entries in (?:passwd|group)|no command specified"
    r"|chdir to cwd|cannot unmarshal|not a directory"
)


def describe(death: Death) -> str:
    """Return a plain sentence about how a server ended while it started."""
    code = death.exit_code
    if death.out_of_memory:
        return "The server ran out of memory while it started."
    if code is None:
        return "The server's container disappeared while it started."
    if code == 0:
        return "The server's command ended by itself, without an error, before a server was up."
    if code == 126:
        return "The server's command could not be executed (exit code 126)."
    if code == 127:
        return "The server's command was not found (exit code 127)."
    if code in _SIGNALS:
        return f"The server was ended by {_SIGNALS[code]} while it started (exit code {code})."
    return f"The server stopped while it started (exit code {code})."


def label_of(death: Death) -> str:
    """Return a short label for metrics."""
    if death.out_of_memory:
        return "out-of-memory"
    return "command" if death.exit_code in (126, 127) else "exited"


# What registries and engines say about an image that does not exist, or not for us (registries do not tell
# these apart). The engine's status is 404 for some of them and 500 for others.
NO_SUCH_IMAGE = (
    r"manifest unknown|manifest for .* not found|no such image|repository .* not found|name unknown"
    r"|access denied|access to the resource is denied|invalid reference format|no matching manifest"
)


def image_caused(explanation: str) -> bool:
    """Whether the engine's refusal to start a container is due to the image or its settings for the user."""
    return bool(re.search(IMAGE_CAUSED, explanation, re.IGNORECASE))


def spawn_failure(
    spawner: Any, message: str, *, reason: str, tail: str = "", hint: str = "", safe: bool = False
) -> web.HTTPError:
    """Return the exception that tells user and administrator why a spawn failed, without a traceback.

    Must be raised by the caller: where JupyterHub counts every failure, the count is corrected here.

    Parameters
    ----------
    spawner:
        Whose spawn it is.
    message:
        What happened, one sentence.
    reason:
        A short label for metrics.
    tail:
        The last lines that the server printed, without secrets.
    hint:
        What to do.
    safe:
        Offer safe mode: what the user installed may be the reason.
    """
    url = safe_url(spawner) if safe else ""
    plain = " ".join(part for part in (message, hint) if part)
    text = f"{plain} To start without the packages that you installed, open {url} ." if url else plain
    if tail:
        plain += f" The last lines it printed:\n{tail}"
        text += f" The last lines it printed:\n{tail}"
    exception: web.HTTPError
    if SpawnException is not None:
        exception = SpawnException(text, reason=reason, log_message=message)
    else:
        # no second argument: a "%" in the text is doubled by tornado, as JupyterHub 5 expects
        exception = web.HTTPError(400, text)
    # What pages and progress show, whatever JupyterHub makes of the rest.
    exception.jupyterhub_message = text  # type: ignore[attr-defined]
    if url:
        exception.jupyterhub_html_message = choice.offer(url, plain)  # type: ignore[attr-defined]
    if _COUNTS_EVERYTHING:
        _uncount(spawner)
    return exception


def safe_url(spawner: Any) -> str:
    """Return the address that starts a spawner's server in safe mode, ``""`` where there is no hub."""
    hub, name = getattr(spawner, "hub", None), getattr(spawner.user, "escaped_name", "")
    if hub is None or not name:
        return ""
    path = url_path_join(hub.base_url, "spawn", name, quote(getattr(spawner, "name", ""), safe="@~"))
    return f"{path}?{choice.OPTION}=safe"


def _uncount(spawner: Any) -> None:
    """Take one from the hub's count of failures in a row, to which it is about to add one."""
    handler = getattr(spawner, "handler", None)
    if handler is not None:
        handler.settings["failure_count"] = handler.settings.get("failure_count", 0) - 1


def config_failure(message: str, hint: str = "") -> web.HTTPError:
    """Return the exception for a mistake in the hub's configuration (it counts as a failure of the hub)."""
    text = " ".join(part for part in (message, hint) if part)
    exception = web.HTTPError(500, text)
    exception.jupyterhub_message = text  # type: ignore[attr-defined]
    return exception
