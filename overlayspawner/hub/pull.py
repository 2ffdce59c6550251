"""Pulls images with progress in bytes; users who want the same image share one pull."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import TYPE_CHECKING, Any

from docker import auth
from docker.errors import APIError, ImageNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def split_image(image: str) -> tuple[str, str]:
    """Return repository and tag of an image's name, as DockerSpawner does: without a tag it is ``latest``.

    With a digest, name and digest.
    """
    if "@" in image:
        repository, _, digest = image.partition("@")
        return repository, digest
    if ":" in image.rpartition("/")[2]:
        repository, _, tag = image.rpartition(":")
        return repository, tag
    return image, "latest"


class PullProgress:
    """Adds up what the engine says about the layers of one pull. Safe to read from other threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._layers: dict[str, tuple[int, int]] = {}

    def take(self, event: dict[str, Any]) -> None:
        """Take one event of the engine's stream.

        Raises
        ------
        ImageNotFound, APIError
            The event says that the pull failed.
        """
        error = event.get("error")
        if error:
            kind = ImageNotFound if "not found" in error or "manifest unknown" in error else APIError
            raise kind(f"The image could not be pulled: {error}", explanation=error)
        layer, status = event.get("id"), event.get("status")
        if not layer or not status:
            return
        detail = event.get("progressDetail") or {}
        with self._lock:
            done, total = self._layers.get(layer, (0, 0))
            if status == "Downloading":
                done, total = int(detail.get("current") or done), int(detail.get("total") or total)
            elif status in ("Download complete", "Pull complete", "Verifying Checksum"):
                done = total
            self._layers[layer] = (done, total)

    def totals(self) -> tuple[int, int]:
        """Return bytes downloaded and to download, as far as they are known."""
        with self._lock:
            return sum(d for d, _ in self._layers.values()), sum(t for _, t in self._layers.values())


def credentials(client: Any, image: str) -> dict[str, Any] | None:
    """Return what a client would show to an image's registry, ``None`` for nothing. May run a helper program.

    Raises
    ------
    docker.errors.DockerException
        The image's name or the client's configuration can't be read.
    """
    registry, _name = auth.resolve_repository_name(split_image(image)[0])
    known = getattr(client, "_auth_configs", None)  # docker-py has no public way to ask for it
    if not known:
        return None
    found = auth.resolve_authconfig(known, registry, credstore_env=client.credstore_env)
    return dict(found) if found else None


def pull(
    client: Any, image: str, progress: PullProgress, auth_config: Mapping[str, Any] | None = None
) -> None:
    """Pull an image; blocks until it is there.

    Parameters
    ----------
    auth_config:
        Credentials; with ``None`` the client looks for its own.

    Raises
    ------
    docker.errors.APIError
        The registry has no such image, or refuses.
    """
    repository, tag = split_image(image)
    for event in client.pull(repository, tag, stream=True, decode=True, auth_config=auth_config):
        progress.take(event)


class Pulls:
    """The pulls under way on one engine.

    Parameters
    ----------
    run:
        Runs a function in a thread; returns an awaitable future.
    """

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run
        self._under_way: dict[tuple[str, str], tuple[PullProgress, Any]] = {}

    def start(
        self, client: Any, image: str, auth_config: Mapping[str, Any] | None = None
    ) -> tuple[PullProgress, Any]:
        """Return progress and future of the pull of an image: the one under way, or a new one.

        Pulls with other credentials are other pulls: one may be refused, the other not.
        """
        shown = json.dumps(auth_config, sort_keys=True, default=str).encode()
        key = (image, hashlib.sha256(shown).hexdigest())
        found = self._under_way.get(key)
        if found is None or found[1].done():
            progress = PullProgress()
            future = self._run(pull, client, image, progress, auth_config)
            self._under_way[key] = found = (progress, future)
            future.add_done_callback(lambda _f: self._under_way.pop(key, None))
        return found


def megabytes(size: int) -> str:
    """Return a number of bytes for people."""
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"
