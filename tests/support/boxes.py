"""Containers that share homes, without a hub: each is started as the spawner starts one, launcher and all."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from pathlib import Path
from typing import Any

from overlayspawner.hub import boot, bundles
from overlayspawner.hub.delivery import fill
from overlayspawner.payload.contract import PAYLOAD_DIR, SPEC_ENV, UV_DIR, Spec
from tests.support.engine import Engine
from tests.support.images import image

INBOX = Path(__file__).with_name("inbox.py").read_text()
HOME = "/home/jovyan"
PYTHON = "/opt/conda/bin/python"


class Box:
    """One container that runs a verb of :mod:`tests.support.inbox`."""

    def __init__(self, container: Any) -> None:
        self.container = container

    def lines(self) -> list[dict[str, Any]]:
        """Return what it has told so far."""
        out = []
        for line in self.container.logs(stdout=True, stderr=False).decode(errors="replace").splitlines():
            try:
                data = json.loads(line)
            except ValueError:
                continue
            if isinstance(data, dict):
                out.append(data)
        return out

    def log(self) -> str:
        """Return all of its output, as text."""
        text: str = self.container.logs().decode(errors="replace")
        return text

    def until(self, key: str, *, timeout: float = 60.0) -> dict[str, Any]:
        """Wait for a line that has a key; return it."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for line in self.lines():
                if key in line:
                    return line
            self.container.reload()
            assert self.container.status in ("created", "running"), self.log()
            time.sleep(0.1)
        raise AssertionError(f"no {key!r} within {timeout} s:\n{self.log()}")

    def wait(self, *, timeout: float = 300.0) -> list[dict[str, Any]]:
        """Wait for its end; return what it told."""
        result = self.container.wait(timeout=timeout)
        assert result["StatusCode"] == 0, self.log()
        return self.lines()

    def kill(self) -> None:
        """``docker kill``: everything in it dies at once, by SIGKILL. One that has ended is left alone."""
        from docker.errors import APIError

        try:
            self.container.kill()
        except APIError as e:
            if e.status_code != 409:
                raise
        self.container.wait(timeout=60)

    def remove(self) -> None:
        """Remove it, running or not."""
        self.container.remove(force=True)


class Boxes:
    """Makes homes and containers; a context manager that removes them.

    Parameters
    ----------
    spec:
        Fields of the hub's instructions, the same for all.
    """

    def __init__(self, **spec: Any) -> None:
        self.engine = Engine(f"ovl-box-{uuid.uuid4().hex[:8]}")
        self.image = image("stacks")
        self.spec = spec
        found = {PAYLOAD_DIR: bundles.payload_bundle(), UV_DIR: _uv()}
        self._mounts: dict[str, dict[str, str]] = {}
        for directory, bundle in found.items():
            # volumes of our own: those of hubs are removed by other hubs when no container uses them
            own = dataclasses.replace(
                bundle, volume=f"{self.engine.prefix}-{Path(directory).name}", label="overlayspawner.test"
            )
            self.engine.client.volumes.create(own.volume)
            fill(self.engine.client.api, own, self.image)
            self._mounts[own.volume] = {"bind": directory, "mode": "ro"}

    def __enter__(self) -> Boxes:
        return self

    def __exit__(self, *exc: object) -> None:
        self.engine.clean()

    def home(self, name: str, **options: Any) -> str:
        """Make a volume that belongs to the containers' user; ``options`` as for ``docker volume create``."""
        volume = self.engine.make_volume(name, **options)
        self.engine.run_in(volume, "/v", self.image, "chown 1000:100 /v")
        return volume

    def start(
        self,
        home: str,
        verb: str,
        *,
        spec: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        name: str = "",
        security_opt: list[str] | None = None,
        **arguments: Any,
    ) -> Box:
        """Start a container on a home.

        Parameters
        ----------
        home:
            A volume, or a directory of this machine.
        verb, arguments:
            What of :mod:`tests.support.inbox` runs in it.
        spec:
            Differs from the spec of all in these fields.
        environment:
            More variables.
        security_opt:
            As for ``docker run``.
        """
        made = Spec(mounts=[{"path": HOME, "ro": False}], **{**self.spec, **(spec or {})})
        return self.create(
            [PYTHON, "-I", "-c", INBOX, verb, json.dumps(arguments)],
            environment={SPEC_ENV: made.to_json(), **(environment or {})},
            volumes={home: {"bind": HOME, "mode": "rw"}},
            name=name,
            security_opt=security_opt or [],
        )

    def create(
        self,
        command: list[str],
        *,
        environment: dict[str, str],
        volumes: dict[str, dict[str, str]],
        name: str = "",
        **options: Any,
    ) -> Box:
        """Start a container whose command is wrapped as the spawner does it."""
        container = self.engine.client.containers.run(
            self.image,
            boot.wrap(command),
            detach=True,
            name=f"{self.engine.prefix}-{name or 'box'}-{uuid.uuid4().hex[:6]}",
            environment=environment,
            volumes={**self._mounts, **volumes},
            **options,
        )
        return Box(container)

    def run(self, home: str, verb: str, *, timeout: float = 300.0, **rest: Any) -> list[dict[str, Any]]:
        """Start a container, wait for its end, remove it; return what it told."""
        box = self.start(home, verb, **rest)
        try:
            return box.wait(timeout=timeout)
        finally:
            box.remove()

    def overlay(self, home: str, *words: str, fault: str = "", **rest: Any) -> dict[str, Any]:
        """Run one command in a container of its own; return its answer, with ``rc``."""
        return self.run(home, "one", words=list(words), fault=fault, **rest)[-1]

    def session(self, box: Box, commands: list[str]) -> list[dict[str, Any]]:
        """Run commands in a container that runs already; return their answers, with ``rc``."""
        out = []
        for command in commands:
            words = command.split()
            assert words.pop(0) == "overlay"
            done = box.container.exec_run(
                boot.wrap([PYTHON, "-I", "-c", INBOX, "one", json.dumps({"words": words})]), demux=True
            )
            text = (done.output[0] or b"").decode(errors="replace")
            assert text, done.output
            out.append(json.loads(text.splitlines()[-1]))
        return out

    def look(self, home: str, *modules: str, **rest: Any) -> dict[str, Any]:
        """Start a container that only looks; return what it sees."""
        return self.run(home, "look", modules=list(modules), **rest)[-1]


def _uv() -> Any:
    found = bundles.find_uv()
    assert found is not None, "the development environment has uv"
    return found.bundle()
