"""What an image is: environment, start, user and home. Read once per image id and kept.

Part of it is in the image's configuration; the rest is read from files through a container that is created
and never started, so nothing of the image runs.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import posixpath
import tarfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, NotFound

from overlayspawner.hub.boot import SHELL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HELPER_LABEL = "overlayspawner.helper"
"""On each of our never-started containers, so that what a killed hub leaves behind can be told apart."""

_MAX_PASSWD = 1 << 20  # an image is untrusted: a larger file is not a user database
_SINGLEUSER = ("jupyterhub-singleuser", "jupyter-labhub")


@dataclass(frozen=True)
class ImageFacts:
    """What we know about an image.

    Parameters
    ----------
    id:
        The image's id.
    env:
        Its environment.
    entrypoint, cmd:
        How it starts.
    user:
        The user it runs as, ``""`` for root.
    workdir:
        Its working directory.
    architecture:
        In the engine's words (``amd64``, ``arm64``).
    passwd:
        The text of ``/etc/passwd``, ``""`` where there is none.
    shell:
        Whether it has ``/bin/sh``.
    paths:
        Which of the paths that were asked for exist, and whether each is a directory.
    digests:
        What it is called in registries: ``name@sha256:…``.
    """

    id: str
    env: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    architecture: str = ""
    passwd: str = ""
    shell: bool = True
    paths: Mapping[str, bool] = field(default_factory=dict)
    digests: tuple[str, ...] = ()

    def home(self, environment: Mapping[str, str] | None = None) -> str:
        """Return the home directory of the image's user, ``""`` when unknown.

        Parameters
        ----------
        environment:
            What the container is given besides the image's own.
        """
        home = (environment or {}).get("HOME") or self.env.get("HOME") or passwd_home(self.passwd, self.user)
        return posixpath.normpath(home) if home.startswith("/") else ""

    def public_name(self, name: str) -> str:
        """Return what means this very image elsewhere, where a registry has it, else ``name``.

        Parameters
        ----------
        name:
            What the administrator calls it.
        """
        # Podman has a digest also for what was built here, where no registry is
        if "@" in name or name.startswith("localhost/"):
            return name
        repository = name if ":" not in name.rpartition("/")[2] else name.rpartition(":")[0]
        return next((d for d in self.digests if d.partition("@")[0] == repository), name)

    def base_under(self, home: str) -> bool:
        """Whether a single-user server of the image lies under ``home``."""
        return any(
            path.startswith(home.rstrip("/") + "/") and posixpath.basename(path) in _SINGLEUSER
            for path in self.paths
        )


def passwd_home(passwd: str, user: str) -> str:
    """Return a user's home from the text of ``/etc/passwd``, ``""`` when there is none.

    Parameters
    ----------
    user:
        As an image says it: name or number, a group behind a colon; ``""`` is root.
    """
    name = user.partition(":")[0] or "root"
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and (fields[0] == name or (name.isdigit() and fields[2] == name)):
            return fields[5]
    return ""


def parse_env(lines: object) -> dict[str, str]:
    """Return an environment, given as a list of ``NAME=value`` or as a dict, as a dict of strings."""
    if isinstance(lines, dict):
        return {str(k): "" if v is None else str(v) for k, v in lines.items()}
    out = {}
    for line in lines if isinstance(lines, (list, tuple)) else ():
        name, _, value = str(line).partition("=")
        out[name] = value
    return out


@contextlib.contextmanager
def helper_container(client: Any, image: str, **kwargs: Any) -> Iterator[str]:
    """Create a container that is never started; give its id, and remove it at the end.

    Parameters
    ----------
    client:
        A ``docker.APIClient``.
    image:
        Name or id of an image that the engine has.
    kwargs:
        More for ``create_container``; ``binds`` are put into its host configuration.

    Raises
    ------
    docker.errors.APIError
        The engine refuses.
    """
    labels = {HELPER_LABEL: "1", **kwargs.pop("labels", {})}
    host_config = client.create_host_config(binds=kwargs.pop("binds", None), network_mode="none")
    container = client.create_container(
        image, entrypoint=["overlayspawner"], command=[], labels=labels, host_config=host_config, **kwargs
    )
    try:
        yield container["Id"]
    finally:
        # v: anonymous volumes of the image go too; a named volume is never removed this way
        with contextlib.suppress(APIError):
            client.remove_container(container["Id"], v=True, force=True)


def stat_path(client: Any, container: str, path: str) -> dict[str, Any] | None:
    """Return what the engine says about a path of a container (``name``, ``size``, ``mode``), or ``None``.

    A HEAD request: ``get_archive`` would have the engine pack the whole directory.

    Raises
    ------
    docker.errors.APIError, requests.exceptions.RequestException
        The engine does not answer as expected.
    """
    url = f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
    response = client.head(url, params={"path": path}, timeout=client.timeout)
    if response.status_code == 404:
        return None
    if response.status_code >= 400:
        raise APIError(f"The engine can't look at {path} in {container[:12]}: {response.reason}", response)
    raw = response.headers.get("X-Docker-Container-Path-Stat", "")
    stat: dict[str, Any] = json.loads(base64.b64decode(raw)) if raw else {}
    return stat


def is_dir(stat: Mapping[str, Any] | None) -> bool:
    """Whether :func:`stat_path` found a directory (the engine uses Go's bits: the highest one)."""
    return stat is not None and bool(int(stat.get("mode", 0)) >> 31 & 1)


def read_file(client: Any, container: str, path: str, limit: int = _MAX_PASSWD) -> bytes | None:
    """Return a regular file of a container, ``None`` when it is missing, larger than ``limit`` or no file.

    Raises
    ------
    docker.errors.APIError
        The engine does not answer as expected.
    """
    try:
        chunks, _stat = client.get_archive(container, path)
    except NotFound:
        return None
    data = b""
    try:
        for chunk in chunks:
            data += chunk
            if len(data) > limit + 10240:
                return None
    finally:
        chunks.close()
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            member = archive.next()
            content = archive.extractfile(member) if member is not None and member.isfile() else None
            return content.read() if content is not None else None
    except tarfile.TarError:
        return None


def read_facts(client: Any, info: Mapping[str, Any], extra_paths: tuple[str, ...] = ()) -> ImageFacts:
    """Read the facts of an image.

    Parameters
    ----------
    client:
        A ``docker.APIClient``.
    info:
        What ``inspect_image`` said.
    extra_paths:
        Paths whose existence is wanted as well.

    Raises
    ------
    docker.errors.APIError
        The engine refuses to create a container of the image.
    """
    known = facts_from_config(info)
    env, user = known.env, known.user
    with helper_container(client, info["Id"]) as container:
        shell = stat_path(client, container, SHELL) is not None
        passwd = (read_file(client, container, "/etc/passwd") or b"").decode("utf-8", "replace")
        home = env.get("HOME") or passwd_home(passwd, user)
        wanted = list(extra_paths)
        if home.startswith("/") and posixpath.normpath(home) != "/":
            wanted.append(posixpath.normpath(home))
            for entry in env.get("PATH", "").split(":"):
                if entry.startswith(posixpath.normpath(home) + "/"):
                    wanted += [posixpath.join(entry, name) for name in _SINGLEUSER]
        paths = {}
        for path in wanted:
            stat = stat_path(client, container, path)
            if stat is not None:
                paths[path] = is_dir(stat)
    return replace(known, passwd=passwd, shell=shell, paths=paths)


def facts_from_config(info: Mapping[str, Any]) -> ImageFacts:
    """Return what an image's configuration alone says; nothing is known about its files then."""
    config = info.get("Config") or {}
    return ImageFacts(
        id=str(info["Id"]),
        env=parse_env(config.get("Env")),
        entrypoint=_words(config.get("Entrypoint")),
        cmd=_words(config.get("Cmd")),
        user=config.get("User") or "",
        workdir=config.get("WorkingDir") or "",
        architecture=info.get("Architecture") or "",
        digests=_words(info.get("RepoDigests")),
    )


def _words(value: object) -> tuple[str, ...]:
    # Images built long ago, and other engines, have a plain string: the engine runs that through a shell.
    if isinstance(value, str):
        return (SHELL, "-c", value) if value else ()
    return tuple(str(v) for v in value) if isinstance(value, (list, tuple)) else ()
