"""A spawner without a hub around it, and an engine that refuses some requests."""

from __future__ import annotations

import logging
import re
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

from overlayspawner.hub.docker import OverlayDockerSpawner


def bare_spawner(
    user: str, *, name: str = "", base: type[OverlayDockerSpawner] = OverlayDockerSpawner, **traits: Any
) -> Any:
    """Return a spawner that can be started without a hub; its class, and so its client, is its own.

    Parameters
    ----------
    user:
        Name of its user.
    name:
        Name of the server.
    base:
        The class of spawners.
    traits:
        Settings.
    """

    class Bare(base):  # type: ignore[misc, valid-type]
        orm_server: Any = None

        @property
        def server(self) -> Any:
            return self.orm_server

        @server.setter
        def server(self, value: Any) -> None:
            self.orm_server = value

        def get_env(self) -> dict[str, str]:
            return {"A": "b"}

        def get_args(self) -> list[str]:
            return []

    spawner: Any = Bare()
    spawner.user = SimpleNamespace(name=user, settings={}, url="/user/x/", groups=[])
    spawner.orm_spawner = SimpleNamespace(name=name, server=None, user=None)
    spawner.log = logging.getLogger("bare-spawner")
    spawner.internal_ssl = False
    spawner.api_token = "a token of a test"
    spawner.orm_server = SimpleNamespace(url="", base_url="/", ip="", port=0)
    traits = {"start_timeout": 20, "http_timeout": 1, **traits}
    for trait in sorted(traits, key="image".__eq__):  # it goes into the container's name, as others do
        setattr(spawner, trait, traits[trait])
    return spawner


class RefusingProxy:
    """A context manager: the engine's socket, except that some paths are answered with 403.

    Parameters
    ----------
    refused:
        Regular expression, matched at the beginning of paths behind the API's version.
    """

    def __init__(self, refused: str) -> None:
        self._refused = re.compile(r"(/v[\d.]+)?" + refused)
        self._directory = tempfile.TemporaryDirectory(prefix="overlay-proxy-")
        self._path = Path(self._directory.name) / "engine.sock"
        self.url = f"unix://{self._path}"
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> RefusingProxy:
        self._listener.bind(str(self._path))
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._directory.cleanup()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._handle, args=(self._listener.accept()[0],), daemon=True).start()

    def _handle(self, client: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            data = client.recv(65536)
            if not data:
                client.close()
                return
            request += data
        path = request.split(b" ", 2)[1].decode()
        if self._refused.match(path):
            client.sendall(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        if "/attach" not in path:  # that one needs its own Connection header; no other may reuse the socket
            request = re.sub(rb"\r\nConnection:[^\r]*", b"", request)
            request = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
        engine = socket.socket(socket.AF_UNIX)
        engine.connect("/var/run/docker.sock")
        engine.sendall(request)
        threading.Thread(target=_pump, args=(client, engine), daemon=True).start()
        _pump(engine, client)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
