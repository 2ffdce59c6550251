"""Real Jupyter servers with the extension, each on a home of its own, with the tests' package index."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from overlayspawner.payload.contract import SPEC_ENV, Spec
from tests.support.client import Server
from tests.support.index import LocalIndex

TOKEN = "a-token-for-tests"
BASE_URL = "/user/some.one%40example.org/"
EXTENSIONS = {
    "overlayspawner": True,
    "jupyter_server_terminals": True,
    "jupyterlab": False,
    "jupyter_lsp": False,
}


WRITERS_OWN = (
    "job-",
    "journal",
    "lease.json",
    "reserve-",
    "set-aside",
    "spare",
    "base.json",
    "snapshot.json",
    "sizes.json",
)
"""Made by an env's first writer, or a moment after a job, whether or not it changes anything."""

STUBS = "/.overlay/stubs"
"""What is kept from one change to the next to save time, also when the change was refused."""


class RunningServer(Server):
    """A server process.

    Parameters
    ----------
    directory:
        Holds its home, its runtime files and its log.
    environ:
        Variables besides the necessary ones.
    settings:
        Trait → value of the server's configuration.
    """

    def __init__(
        self, directory: Path, environ: dict[str, str], settings: dict[str, Any], home: Path | None = None
    ) -> None:
        self.home = home or directory / "home"
        self.run = directory / "run"
        self.log_file = directory / "server.log"
        for path in (self.home, self.run):
            path.mkdir(exist_ok=True, parents=True)
        port = _free_port()
        super().__init__(f"http://127.0.0.1:{port}{BASE_URL}", TOKEN)
        config = directory / "config.json"
        options = {
            "port": port,
            "ip": "127.0.0.1",
            "open_browser": False,
            "allow_root": True,
            "port_retries": 0,
        }
        merged: dict[str, dict[str, Any]] = {
            "ServerApp": {**options, "base_url": BASE_URL, "jpserver_extensions": EXTENSIONS},
            "IdentityProvider": {"token": TOKEN},
        }
        for trait, value in settings.items():
            section, _, name = trait.partition(".")
            merged.setdefault(section, {})[name] = value
        config.write_text(json.dumps(merged))
        self.environ = {
            "PATH": os.path.dirname(sys.executable) + ":/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.run),
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            **environ,
        }
        command = [sys.executable, "-m", "jupyter_server", f"--config={config}"]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environ, cwd=self.home, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self, timeout: float = 60) -> None:
        """Wait until it answers."""
        end = time.monotonic() + timeout
        while True:
            assert self.process.poll() is None, f"the server has died:\n{self.log}"
            assert time.monotonic() < end, f"the server does not answer:\n{self.log}"
            try:
                if self.get("api").ok:
                    return
            except requests.ConnectionError:
                pass
            time.sleep(0.05)

    @property
    def log(self) -> str:
        """What it has printed."""
        return self.log_file.read_text(errors="replace")

    @property
    def overlay_path(self) -> Path:
        """Where its overlay lives."""
        return self.home / ".overlay" / "default"

    def stop(self, timeout: float = 60) -> int:
        """Ask it to end; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def snapshot(self) -> dict[str, str]:
        """Everything of the overlay with its content, to compare before and after.

        What a writer keeps for itself is left out, unless it says that something was begun and not finished.
        """
        out = {}
        for path in sorted(self.overlay_path.rglob("*")):
            if path.name in ("lock", ".lock", "stubs.json") or STUBS in str(path):
                continue
            if path.parent.name == ".overlay" and path.name.startswith(WRITERS_OWN):
                if path.name == "journal" and path.read_bytes().split()[3] != b"none":
                    out[str(path)] = "open"
                if path.is_dir() and os.listdir(path):
                    out[str(path)] = str(sorted(os.listdir(path)))
            elif path.is_symlink():
                out[str(path)] = f"link to {os.readlink(path)}"
            elif path.is_file():
                out[str(path)] = path.read_bytes().hex()
            else:
                out[str(path)] = "directory"
        return out


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


Start = Callable[..., RunningServer]


def _starter(directory: Path, index: LocalIndex, servers: list[RunningServer]) -> Start:
    def start(
        *,
        environ: dict[str, str] | None = None,
        settings: dict[str, Any] | None = None,
        home: Path | None = None,
        wait: bool = True,
        spec: dict[str, Any] | None = None,
    ) -> RunningServer:
        place = directory / f"server{len(servers)}"
        place.mkdir()
        text = Spec(**{"index_url": index.url, **(spec or {})}).to_json()
        server = RunningServer(place, {SPEC_ENV: text, **(environ or {})}, settings or {}, home)
        servers.append(server)
        if wait:
            server.wait()
        return server

    return start


@pytest.fixture
def start(tmp_path: Path, index: LocalIndex) -> Iterator[Start]:
    """Start servers; they end with the test. ``spec`` holds fields of the hub's instructions."""
    servers: list[RunningServer] = []
    yield _starter(tmp_path, index, servers)
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, index: LocalIndex) -> Iterator[RunningServer]:
    """One server for all tests of a module."""
    servers: list[RunningServer] = []
    yield _starter(tmp_path_factory.mktemp("server"), index, servers)()
    for running in servers:
        running.stop()
