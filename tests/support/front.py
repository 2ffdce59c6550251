"""A socket in front of the engine's own, which may be told to be unwell: the engine itself is left alone."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
import threading
from pathlib import Path


class EngineFront:
    """A context manager; :attr:`url` is for ``base_url`` of a client.

    Its :attr:`mood` is ``well``, or ``hangs``: takes requests and never answers. :meth:`go` and
    :meth:`come_back` are an engine that ends and starts again. With :attr:`hangs_on`, a pattern, only
    requests that match hang.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="ovl-front-")
        self.path = Path(self._directory.name) / "docker.sock"
        self.url = f"unix://{self.path}"
        self.mood = "well"
        self.hangs_on: re.Pattern[bytes] | None = None
        self.seen: list[bytes] = []
        host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        self._engine = host.removeprefix("unix://")
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()

    def __enter__(self) -> EngineFront:
        self.come_back()
        return self

    def __exit__(self, *exc: object) -> None:
        self.go()
        self._directory.cleanup()

    def come_back(self) -> None:
        """Listen."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(100)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def go(self) -> None:
        """Cut all connections, and be no more."""
        self.path.unlink(missing_ok=True)
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for one in list(self._open):
            _end(one)

    def tcp(self) -> str:
        """Listen on a port as well, until the engine goes; return address and port."""
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        self._open.add(listener)
        return f"127.0.0.1:{listener.getsockname()[1]}"

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(self._engine)
            self._open |= {client, engine}
            for a, b, asks in ((client, engine, True), (engine, client, False)):
                threading.Thread(target=self._copy, args=(a, b, asks), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        hangs = False
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if asks:
                    self.seen.append(data.partition(b"\r\n")[0])
                    hangs = hangs or bool(self.hangs_on and self.hangs_on.search(data))
                if not hangs and self.mood == "well":
                    target.sendall(data)
            if asks and not hangs:
                target.shutdown(socket.SHUT_WR)  # as attaching does it
                return
        for one in (source, target):
            self._open.discard(one)
            _end(one)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
