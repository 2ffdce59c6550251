"""What an engine has to tell the checks: the interface of adapters.

To add an engine, put one subclass of :class:`Adapter` into ``engines/NAME.py`` and add ``NAME`` to
:data:`ENGINES`. It says

- how a hub is configured for the engine: :meth:`Adapter.hub_options`, :meth:`Adapter.prepared`;
- how one user's next server gets another base, home or command: ``use_base``, ``use_home``, ``use_command``;
- what there is: :meth:`Adapter.instance`, :meth:`Adapter.runs_on`, :meth:`Adapter.left_over`.

All else is the same for all engines, and has to stay so. Engines that run images begin with
:class:`ContainerAdapter`; ``engines/docker.py`` is the shortest example.
"""

from __future__ import annotations

import importlib
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tests.support.client import Server
from tests.support.hub import RunningHub, index_environment
from tests.support.images import image
from tests.support.index import LocalIndex

ENGINES: dict[str, str] = {
    "docker": "Docker",
    "system-user": "Docker, users of the host",
    "swarm": "Docker Swarm",
    "podman": "Podman",
    "kube": "Kubernetes",
    "local": "Local processes",
}
"""All engines, in the matrix's order: the names of the modules in ``engines/`` (with ``_`` for ``-`` there),
and what people call them."""

USUAL = ("docker", "kube", "local")
"""Those that run when nobody names any."""

PATIENCE = "c.Spawner.start_timeout = c.Spawner.http_timeout = 180  # the machine may have much else to do\n"

DIED = 3
"""The exit status of the command that :meth:`Adapter.use_dying_command` sets."""


@dataclass(frozen=True)
class Base:
    """What a server runs on: an image, or an environment of this machine.

    Parameters
    ----------
    image:
        What the engine calls it; for a local process the path of the environment.
    python:
        Its interpreter.
    prefix:
        ``sys.prefix`` of it.
    home:
        The user's home in it; empty where each user has another.
    packages:
        The directory that its packages are in, when it is not ``lib`` below the prefix.
    """

    image: str
    python: str
    prefix: str
    home: str = ""
    packages: str = ""

    @property
    def files(self) -> str:
        """The directory that its packages are in."""
        return self.packages or f"{self.prefix}/lib"


class Adapter(ABC):
    """One engine; a context manager that runs one hub, for all checks.

    Parameters
    ----------
    index:
        The package index that servers install from.
    directory:
        An empty directory, for whatever the engine needs. It is deleted at the end.
    """

    name: ClassVar[str]
    not_applicable: ClassVar[dict[str, str]] = {}
    """Check (the test's name without ``test_``) → why this engine can't have it, as a sentence."""
    hub: RunningHub

    def __init__(self, index: LocalIndex, directory: Path) -> None:
        self.index = index
        self.directory = directory
        self._traits: dict[str, dict[str, Any]] = {}

    # -- what an engine has to say ------------------------------------------------------------------

    @property
    @abstractmethod
    def bases(self) -> tuple[Base, Base]:
        """Two bases for the same home, each with another Python; the first is what users have usually."""

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Around the hub's life: a namespace, a swarm, environment variables. The engine answers already."""
        yield

    @abstractmethod
    def hub_options(self) -> dict[str, Any]:
        """Return the arguments of :class:`RunningHub`, ``spawner`` among them."""

    @abstractmethod
    def use_base(self, user: str, base: Base) -> None:
        """Let the user's next server run on another base; call :meth:`configure` with what that takes."""

    @abstractmethod
    def use_home(self, user: str) -> Path:
        """Let the user's next servers have a directory of this machine as home; return it.

        It is empty, or is not there yet: a small file system will be mounted on it, which belongs to
        :meth:`owner`. The file system is made full and read-only, and is looked at while no server runs.
        """

    def owner(self, user: str) -> tuple[int, int]:
        """Return user and group, on this machine, of such a home."""
        return 1000, 1000

    def user(self, role: str) -> str:
        """Return the name of the user who has a part in the checks; made where that is needed."""
        return role

    def use_command(self, user: str, command: list[str] | None) -> None:
        """Let the user's next server be another command; ``None`` for the usual one."""
        self.configure(user, cmd=command)

    @abstractmethod
    def instance(self, user: str) -> str:
        """Return what identifies the container, pod or process of a user's server now; empty for none."""

    @abstractmethod
    def runs_on(self, user: str) -> str:
        """Return the base (:attr:`Base.image`) that a user's server runs on, as the engine tells it."""

    @abstractmethod
    def left_over(self) -> list[str]:
        """Return what is there of this hub now that no server runs: ``kind name``, one each.

        Not the storage of users, and not the payload where it is kept for the next start. Everything else
        that the hub may have made: containers, pods, services, configs, secrets, processes, runtime dirs.
        """

    def untouched(self, base: Base, code: str) -> str:
        """Run Python code on a base that no hub has touched, and return what it prints."""
        command = ["docker", "run", "--rm", "--network=none", f"--entrypoint={base.python}", base.image]
        return subprocess.run([*command, "-c", code], capture_output=True, text=True, check=True).stdout

    # -- what is the same for all -------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[Adapter]:
        """Run the hub."""
        with self.prepared():
            options = self.hub_options()
            options["config"] = PATIENCE + options.get("config", "")
            with RunningHub(index=self.index, **options) as self.hub:
                yield self

    def configure(self, user: str, **traits: Any) -> None:
        """Set traits of a user's next servers, besides those that were set; ``None`` takes one back."""
        mine = self._traits.setdefault(user, {})
        mine.update(traits)
        for name in [name for name, value in mine.items() if value is None]:
            del mine[name]
        self.hub.configure(user, **mine)

    def serve(self, user: str) -> Server:
        """Return the client of a user's server, which is started when none runs."""
        if self.hub.call("GET", f"users/{user}").status_code == 404 or not self.hub.model(user)["servers"]:
            return self.hub.start_server(user)
        return self.hub.server(user)

    def stop(self, user: str) -> None:
        """Stop a user's server, and wait until the engine has nothing of it either."""
        self.hub.stop_server(user)
        until(lambda: not self.instance(user), f"the server of {user} is still there")


class ContainerAdapter(Adapter):
    """What engines that run images have in common: the images, and how their servers reach the index."""

    @property
    def bases(self) -> tuple[Base, Base]:
        """Debian's Python 3.11 with a venv, and Debian's own Python 3.13."""
        return (
            Base(image("venv"), "/opt/venv/bin/python", "/opt/venv", "/home/user"),
            Base(image("py313"), "/usr/bin/python3.13", "/usr", "/home/user", "/usr/local/lib"),
        )

    def use_base(self, user: str, base: Base) -> None:
        """Set ``image``."""
        self.configure(user, image=base.image)

    def hub_options(self) -> dict[str, Any]:
        """Return the image and the index's address."""
        return {"image": self.bases[0].image, "environment": index_environment(self.index)}


def until(condition: Any, sentence: str, *, timeout: float = 120) -> Any:
    """Wait until a condition holds, and return its value; ``sentence`` is said after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, sentence
        time.sleep(0.2)
    return value


def adapter(name: str) -> type[Adapter]:
    """Return the adapter of an engine."""
    module = importlib.import_module(f"tests.conformance.engines.{name.replace('-', '_')}")
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Adapter) and value.__module__ == module.__name__
    )
    return found


class SmallDisk:
    """A small file system of this machine, in memory, as a user's home; a context manager. Needs root.

    Parameters
    ----------
    directory:
        Where; made when it is missing.
    owner:
        User and group.
    megabytes:
        Its size.
    """

    def __init__(self, directory: Path, owner: tuple[int, int], megabytes: int = 48) -> None:
        self.directory = directory
        self._options = f"size={megabytes}m,uid={owner[0]},gid={owner[1]},mode=0755"

    def __enter__(self) -> SmallDisk:
        self.directory.mkdir(exist_ok=True)
        self._mount("-t", "tmpfs", "-o", self._options, "overlay-conformance")
        return self

    def __exit__(self, *exc: object) -> None:
        # a container that is just going may still hold it
        subprocess.run(["umount", "--lazy", str(self.directory)], check=True)

    def _mount(self, *words: str) -> None:
        subprocess.run(["mount", *words, str(self.directory)], check=True, capture_output=True, text=True)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Leave no room for a single byte."""
        ballast = self.directory / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file:
                try:
                    while file.write(b"\0" * 65536):
                        pass
                except OSError:
                    pass
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nobody write."""
        until(lambda: self._remount("ro"), "the home is still being written to")
        try:
            yield
        finally:
            self._remount("rw")

    def _remount(self, how: str) -> bool:
        command = ["mount", "-o", f"remount,{how}", str(self.directory)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def files(self) -> dict[str, bytes]:
        """Return what is in the overlay and in the user's own files: path → content."""
        own = [self.directory / "mine.txt", *self.directory.glob(".overlay/default/requirements.txt")]
        return {str(p.relative_to(self.directory)): p.read_bytes() for p in own}
