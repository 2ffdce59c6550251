"""Why a container does not start, in plain sentences. Pure: reads what Docker or Podman says about it.

What engines and registries say has no codes, and the status is often 500, so texts are matched. A text that
nobody knows gives the reason of the step that failed, with the engine's own words.
"""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from docker.errors import APIError, DockerException
from requests.exceptions import ConnectionError as Unreachable
from requests.exceptions import RequestException, Timeout
from urllib3.exceptions import HTTPError, NameResolutionError
from urllib3.exceptions import SSLError as NoTLS

from overlayspawner.hub import failure
from overlayspawner.hub.output import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlayspawner.hub.deaths import Death

MAX_CHARS = 600
"""How much of a message of the engine is shown."""

CODES = {
    "engine": "The container engine can't be reached.",
    "engine-access": "The hub has no right to use the container engine.",
    "engine-tls": "The hub and the container engine don't agree on encryption.",
    "engine-hangs": "The container engine does not answer.",
    "engine-failed": "The container engine failed.",
    "image": "The image does not exist, or may not be pulled.",
    "image-absent": "The image is not on this machine, and the hub is told not to pull it.",
    "image-name": "The image's name is not valid.",
    "image-damaged": "What the registry sent of the image is damaged.",
    "registry": "The image's registry can't be reached.",
    "registry-login": "The image's registry wants a login.",
    "pull-slow": "The image is still being pulled.",
    "disk": "The container engine has no space left.",
    "architecture": "The image's programs are not for this machine's processor.",
    "network": "The network that the container should be in does not exist.",
    "port": "The port that the container should have is taken.",
    "mount": "Something that is to be mounted can't be.",
    "too-large": "The server's environment or command is too large to start a program with.",
    "settings": "The container's settings are not valid, or this machine can't follow them.",
    "name-taken": "Another container has the name that the server's should have.",
    "command": "The server's command can't be run.",
    "out-of-memory": "The server needed more memory than it may have.",
    "exited": "The server ended while it started.",
}
"""Stable codes: they are in the hub's log, and where JupyterHub allows it the ``reason`` of its metrics."""

HINTS = {
    "engine": "Ask your administrator to start it, or to correct the address that the hub has for it.",
    "engine-access": "Ask your administrator to let the hub's user use the engine's socket.",
    "engine-tls": "Ask your administrator to look at tls_config and the engine's address.",
    "engine-hangs": "Try again in a few minutes; if that does not help, an administrator has to look at it.",
    "engine-failed": "Try again; if it happens again, an administrator finds more in the engine's log.",
    "image": "Check the image's name and tag, or choose another image.",
    "image-absent": "An administrator has to pull it, or to change pull_policy.",
    "image-name": "Correct the name: lower case, and a tag behind one colon.",
    "image-damaged": "Try again; if it happens again, the image has to be pushed again.",
    "registry": "Try again later, or choose an image that this machine has already.",
    "registry-login": "An administrator has to log the hub in to the registry.",
    "pull-slow": "The pull goes on: try again in a few minutes. An administrator may raise start_timeout.",
    "disk": "An administrator has to make room, for example with: docker system prune",
    "architecture": "Choose an image that was built for this machine.",
    "network": "An administrator has to create it, or to correct network_name.",
    "port": "Try again; an administrator may have to free the port or to change port_bindings.",
    "mount": "An administrator has to correct the volumes and mounts, or to create what is missing.",
    "too-large": "An administrator has to make the environment smaller: one variable holds 128 kB.",
    "settings": "An administrator has to correct extra_create_kwargs, extra_host_config or the limits.",
    "name-taken": "An administrator has to remove that container, or to change name_template.",
    "command": "Choose another image, or ask your administrator to correct the command.",
    "out-of-memory": "Choose a larger server, or ask your administrator for more memory.",
}
"""What to do, for each code where something can be said."""

UNCOUNTED = frozenset(
    (
        "registry",
        "image-damaged",
        "pull-slow",
        "disk",
        "architecture",
        "too-large",
        "name-taken",
        "command",
        "out-of-memory",
        "exited",
    )
)
"""What nothing in the hub can help: it does not count towards ``consecutive_failure_limit``."""

OF_IMAGE = frozenset(("image", "image-absent", "image-name", "registry-login"))
"""Not counted either where the user chose the image; otherwise the hub's configuration names it."""

LOST = frozenset(("engine", "engine-access", "engine-tls", "engine-hangs"))
"""The engine can't be asked about the container."""

# The first that fits, with the step that it is about ("" for any).
_TEXTS = {
    ("", "disk"): r"no space left on device|disk quota exceeded",
    (
        "",
        "image-name",
    ): r"invalid reference format|must be lowercase|invalid repository name|invalid tag format",
    ("pull", "architecture"): r"no matching manifest|no image found in (?:manifest list|image index)",
    ("pull", "registry-login"): r"unauthorized|authentication required|no basic auth credentials"
    r"|status code 401|\b401\b|incorrect username or password|unable to retrieve auth token",
    ("pull", "image-damaged"): r"digest did not match|wrong digest|verification failed|unexpected EOF"
    r"|failed to register layer|invalid (?:checksum|tar header)|archive/tar|gzip: invalid|filesystem layer",
    ("pull", "registry"): r"connection refused|no such host|i/o timeout|tls handshake|no route to host"
    r"|network is unreachable|client\.timeout|context deadline|connection reset|server gave HTTP response"
    r"|x509|\bEOF\b|temporary failure|status(?: code)?:? 5\d\d|toomanyrequests",
    ("pull", "image"): failure.NO_SUCH_IMAGE,
    ("", "image"): r"no such image",
    ("", "network"): r"network \S+ not found|unable to find network|network not found|no such network",
    ("", "port"): r"port is already allocated|address already in use",
    ("", "too-large"): r"argument list too long|request body too large",
    ("", "architecture"): r"exec format error",
    ("", "mount"): r"bind source path|mount source path|volume mountpoint|invalid (?:mount|volume|container) "
    r"|mounts denied|error while mounting|error mounting|failed to mount|to rootfs at|creating named volume"
    r"|invalid characters for a local volume name|error looking up volume plugin|volumedriver"
    r"|failed to populate volume|failed to mount local volume",
    ("", "name-taken"): r"name .* is already in use",
    ("start", "settings"): r"memory limit|rlimit|sysctl|cgroup|seccomp|apparmor|capabilit|device",
    ("start", "command"): failure.IMAGE_CAUSED,
    ("", "settings"): r"memory limit|CPUs is from|unknown (?:runtime|capability)|invalid CapAdd|device"
    r"|security-opt|log.?driver|logger|sysctl|ulimit|rlimit|invalid runtime|OCI runtime",
}
_MATCHERS = {key: re.compile(text, re.IGNORECASE) for key, text in _TEXTS.items()}
# The runtime's own last words: it is the container's process by then, so they come with the output.
_LAST_WORDS = re.compile(r"^(?:exec |.*: )(?P<what>exec format error|argument list too long)$", re.IGNORECASE)
_PREPARING = re.compile(r"preparing container \w+ for attach: (?P<why>.*?)[\")]*$", re.DOTALL)
_UNEXPECTED = re.compile(
    r"(?:HostConfig|create_container|ContainerConfig|APIClient|NetworkingConfig).*argument"
)


@dataclass(frozen=True)
class Reason:
    """Why a server is not up.

    Parameters
    ----------
    code:
        One of :data:`CODES`.
    words:
        What the engine says about it, or ``""``.
    """

    code: str
    words: str = ""

    @property
    def message(self) -> str:
        """What happened, in one or two sentences."""
        said = self.words.rstrip(" .")
        return f"{CODES[self.code]} The engine says: {said}." if said else CODES[self.code]

    @property
    def hint(self) -> str:
        """What to do about it, or ``""``."""
        return HINTS.get(self.code, "")

    def counts(self, *, chosen: bool) -> bool:
        """Whether it counts as a failure of the hub.

        Parameters
        ----------
        chosen:
            Whether the user chose the image.
        """
        return not (self.code in UNCOUNTED or (chosen and self.code in OF_IMAGE))


def words(text: object, secrets: Iterable[str] = ()) -> str:
    """Return a message of the engine in one line, bounded, without secrets."""
    return one_line(text, secrets, limit=MAX_CHARS)


def of_error(error: BaseException, step: str, secrets: Iterable[str] = ()) -> Reason | None:
    """Return why a request failed, ``None`` where the error is none of the engine's.

    Parameters
    ----------
    error:
        What was raised.
    step:
        ``pull``, ``create`` or ``start``.
    secrets:
        What is not to be shown.
    """
    if isinstance(error, APIError):
        return _of_refusal(error, step, secrets)
    # No OSError by itself: an administrator's hook may have raised it.
    if isinstance(error, (RequestException, HTTPError)) or (
        isinstance(error, DockerException) and error.__context__ is not None
    ):
        return _of_silence(error, secrets)
    if isinstance(error, DockerException):
        said = words(error, secrets)
        # docker-py checks addresses and limits itself, before it asks an engine
        return Reason("engine" if "bind address" in said or "base_url" in said else "settings", said)
    if isinstance(error, TypeError) and _UNEXPECTED.search(str(error)):
        return Reason("settings", words(error, secrets))
    return None


def of_refusal_text(text: str, secrets: Iterable[str] = ()) -> Reason | None:
    """Return why Podman could not make a container that was to be attached to, ``None`` if it could."""
    said = _PREPARING.search(text)
    if said is None:
        return None
    return Reason(of_text(said["why"], "start") or "settings", words(said["why"], secrets))


def of_text(text: str, step: str) -> str:
    """Return the code of what an engine says, ``""`` when nobody knows it."""
    for (where, code), pattern in _MATCHERS.items():
        if where in ("", step) and pattern.search(text):
            return code
    return ""


def _of_refusal(error: APIError, step: str, secrets: Iterable[str]) -> Reason:
    text = str(error.explanation or error)
    code = of_text(text, step)
    if not code and error.status_code in (400, 406):
        code = "settings"
    if not code:
        code = "image" if step == "pull" and error.status_code == 404 else "engine-failed"
    return Reason(code, words(text, secrets))


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and what caused it; some libraries keep the cause among the arguments."""
    seen: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        e = todo.pop()
        if not isinstance(e, BaseException) or any(e is s for s in seen):
            continue
        seen.append(e)
        todo += [e.__cause__, e.__context__, getattr(e, "reason", None), *e.args]
    return seen


def _of_silence(error: BaseException, secrets: Iterable[str]) -> Reason:
    causes = list(_chain(error))
    if any(isinstance(e, PermissionError) for e in causes):
        return Reason("engine-access")
    if any(isinstance(e, (ssl.SSLError, NoTLS)) for e in causes):
        return Reason("engine-tls")
    refused = (FileNotFoundError, ConnectionRefusedError, socket.gaierror, NameResolutionError)
    if any(isinstance(e, refused) for e in causes):
        return Reason("engine")
    if any(isinstance(e, (Timeout, TimeoutError)) for e in causes):
        return Reason("engine-hangs")
    if any(isinstance(e, (Unreachable, ConnectionError)) for e in causes):
        return Reason("engine")
    return Reason("engine-failed", words(error, secrets))


def of_death(death: Death, tail: str) -> str:
    """Return the code of a container's end.

    Parameters
    ----------
    death:
        How it ended.
    tail:
        What it printed last. It may be forged, so it decides between words only.
    """
    said = _LAST_WORDS.match(tail.rstrip().rpartition("\n")[2])
    if said and death.exit_code in (1, 126, 255):
        return "architecture" if "format" in said["what"].lower() else "too-large"
    return failure.label_of(death)
