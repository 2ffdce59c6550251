"""A real JupyterHub for tests: its own process, proxy, database and ports, and what a test does with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import requests

from tests.support.client import Server
from tests.support.engine import Engine
from tests.support.index import LocalIndex, bridge_address

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a long password for tests only"


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def proxy_command() -> list[str]:
    """Return the command of npm's configurable-http-proxy; installed into ``.cache/node`` when absent."""
    local = ROOT / ".cache" / "node" / "node_modules" / ".bin" / "configurable-http-proxy"
    if not local.exists():
        found = shutil.which("configurable-http-proxy")
        if found:
            return [found]
        print("installing configurable-http-proxy with npm into .cache/node ...", file=sys.stderr)
        local.parents[2].mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "install", "--prefix", ".", "--no-audit", "--no-fund", "configurable-http-proxy"],
            cwd=local.parents[2],
            check=True,
            stdout=sys.stderr,
        )
    return [str(local)]


class SpawnFailed(Exception):
    """The hub says that a server did not start.

    Parameters
    ----------
    events:
        All progress events, in their order.
    """

    def __init__(self, events: list[dict[str, Any]]) -> None:
        super().__init__(events[-1].get("message", "no event") if events else "no event")
        self.events = events


class RunningHub:
    """A hub in a process of its own; a context manager.

    Parameters
    ----------
    config:
        Python lines that end up in ``jupyterhub_config.py`` after the harness's own. ``harness`` is a dict
        with what the harness decided (``prefix``, ``url``, ``hub_ip``, ...).
    spawner:
        ``c.JupyterHub.spawner_class``.
    image:
        ``c.DockerSpawner.image``.
    index:
        Where pip in the containers finds packages; told to them as an administrator would, through
        ``PIP_INDEX_URL`` and ``PIP_TRUSTED_HOST``.
    environment:
        More of ``c.Spawner.environment``.
    docker:
        Whether the hub has to be reachable from containers, and containers and volumes have to be removed.
    own_payload:
        Whether the hub runs a copy of the package whose payload has a hash of its own, so that a test may
        damage the volume that holds it.
    """

    alive: ClassVar[list[RunningHub]] = []

    def __init__(
        self,
        config: str = "",
        *,
        spawner: str = "overlay-docker",
        image: str = "",
        index: LocalIndex | None = None,
        environment: dict[str, str] | None = None,
        docker: bool = True,
        own_payload: bool = False,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="overlay-hub-"))
        self.docker = docker
        self.prefix = f"ovltest-{uuid.uuid4().hex[:8]}"
        self.host = f"http://127.0.0.1:{free_port()}"
        self.token = uuid.uuid4().hex
        self.log_file = self.directory / "hub.log"
        self.python = [sys.executable]
        """What runs the hub; may be changed before it is started."""
        self._process: subprocess.Popen[bytes] | None = None
        self._tokens: dict[str, str] = {}
        hub_ip = bridge_address() if docker else "127.0.0.1"
        settings: dict[str, Any] = {
            "url": self.host,
            "hub_ip": hub_ip,
            "hub_port": free_port(hub_ip),
            "directory": str(self.directory),
            "password": PASSWORD,
            "proxy": proxy_command(),
            "proxy_api": f"http://127.0.0.1:{free_port()}",
            "proxy_token": uuid.uuid4().hex,
            "token": self.token,
            "spawner": spawner,
            "image": image,
            "prefix": self.prefix,
            "environment": {**(index_environment(index, docker) if index else {}), **(environment or {})},
        }
        self.config_file = self.directory / "jupyterhub_config.py"
        base = Path(__file__).with_name("hub_config.py")
        self.config_file.write_text(
            f"import json\nload_subconfig({str(base)!r})\nc = get_config()\n"
            f"harness = json.load(open('harness.json'))\n{config}\n"
        )
        (self.directory / "harness.json").write_text(json.dumps(settings))
        self._users: dict[str, dict[str, Any]] = {}
        self._write_users()
        # local spawners find jupyterhub-singleuser as an activated environment would
        self._environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        if own_payload:
            self._environ["PYTHONPATH"] = str(self._copy_package())
        self.api = requests.Session()
        self.api.trust_env = False
        self.api.headers["Authorization"] = f"token {self.token}"
        self._engine = Engine(self.prefix) if docker else None

    # -- the process --------------------------------------------------------------------------------

    def __enter__(self) -> RunningHub:
        RunningHub.alive.append(self)
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.stop()
        finally:
            RunningHub.alive.remove(self)
            self._stop_proxy()
            if self._engine is not None:
                self._engine.clean()
            shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, *, timeout: float = 60) -> None:
        """Start the hub's process and wait until it answers.

        Parameters
        ----------
        timeout:
            Seconds until an AssertionError with the hub's log is raised.
        """
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.python, "-m", "jupyterhub", "-f", str(self.config_file)],
                cwd=self.directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + timeout
        while True:
            assert self._process.poll() is None, f"the hub died:\n{self.log()}"
            assert time.monotonic() < end, f"the hub does not answer:\n{self.log()}"
            try:
                if self.api.get(f"{self.host}/hub/api/info", timeout=5).ok:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.1)

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Stop the hub's process. ``signal.SIGKILL`` leaves proxy and servers running, as a crash does."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _stop_proxy(self) -> None:
        """End a proxy that a hub left behind: one that was killed, died, or found it running."""
        try:
            number = int((self.directory / "jupyterhub-proxy.pid").read_text().split()[0])
            # process numbers are used again: only ours runs in our directory
            if Path(f"/proc/{number}/cwd").readlink() == self.directory:
                os.kill(number, signal.SIGTERM)
        except (OSError, ValueError, IndexError):
            pass

    @property
    def running(self) -> bool:
        """Whether the hub's process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def engine(self) -> Engine:
        """This hub's containers and volumes."""
        assert self._engine is not None, "this hub has no engine"
        return self._engine

    def log(self, lines: int = 200) -> str:
        """Return the end of the hub's log."""
        if not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    def report(self) -> str:
        """Return what helps to understand a failed test: the hub's log and those of its containers."""
        parts = [f"--- hub {self.prefix}\n{self.log()}"]
        for container in self._engine.containers() if self._engine is not None else []:
            try:
                text = container.logs(tail=60).decode(errors="replace")
            except Exception as error:
                text = f"(no log: {error})"
            parts.append(f"--- container {container.name} ({container.status})\n{text}")
        return "\n".join(parts)

    def _write_users(self) -> None:
        target = self.directory / "users.json"
        fresh = target.with_suffix(".new")
        fresh.write_text(json.dumps(self._users))
        fresh.rename(target)

    def configure(self, user: str, **traits: Any) -> None:
        """Set traits of one user's spawners, from their next start on (``environment`` is added to).

        They are set by a ``pre_spawn_hook``, which is one of the ways administrators do this.
        """
        self._users[user] = traits
        self._write_users()

    def _copy_package(self) -> Path:
        library = self.directory / "lib"
        shutil.copytree(
            ROOT / "overlayspawner", library / "overlayspawner", ignore=shutil.ignore_patterns("__pycache__")
        )
        with (library / "overlayspawner" / "payload" / "__init__.py").open("a") as file:
            file.write(f"# {uuid.uuid4().hex}\n")
        return library

    # -- users and servers --------------------------------------------------------------------------

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """Call the hub's REST API as the administrators' service; nothing is raised for the status."""
        options.setdefault("timeout", 60)
        return self.api.request(method, f"{self.host}/hub/api/{path}", **options)

    def add_user(self, user: str) -> str:
        """Make a user where there is none, and return a token of theirs."""
        if user not in self._tokens:
            made = self.call("POST", f"users/{quote(user)}")
            assert made.status_code in (201, 409), made.text
            answer = self.call("POST", f"users/{quote(user)}/tokens", json={"note": "tests"})
            assert answer.ok, answer.text
            self._tokens[user] = answer.json()["token"]
        return self._tokens[user]

    def login(self, user: str) -> requests.Session:
        """Log in through the login page, as a browser does."""
        session = requests.Session()
        session.trust_env = False
        url = f"{self.host}/hub/login"
        session.get(url, timeout=30)
        answer = session.post(
            url,
            data={"username": user, "password": PASSWORD, "_xsrf": xsrf(session, "/hub/")},
            allow_redirects=False,
            timeout=30,
        )
        assert answer.status_code == 302, f"{answer.status_code} {answer.text[:2000]}"
        return session

    def start_server(
        self, user: str, name: str = "", options: dict[str, Any] | None = None, *, wait: bool = True
    ) -> Server:
        """Ask the hub to start a server.

        Parameters
        ----------
        name:
            Of a named server.
        options:
            The user's options.
        wait:
            Until it is ready; otherwise call :meth:`wait_ready`.

        Raises
        ------
        SpawnFailed
            It did not start.
        """
        self.add_user(user)
        answer = self.call("POST", self._path(user, name), json=options or {})
        if answer.status_code not in (201, 202):
            raise SpawnFailed([{"failed": True, "message": f"{answer.status_code} {answer.text}"}])
        if wait:
            self.wait_ready(user, name)
        return self.server(user, name)

    def server(self, user: str, name: str = "") -> Server:
        """Return a client for a server that runs."""
        path = "".join(f"{quote(part, safe='@~')}/" for part in (user, name) if part)  # as the hub writes it
        return Server(f"{self.host}/user/{path}", self.add_user(user))

    def events(self, user: str, name: str = "", *, timeout: float = 180) -> Iterator[dict[str, Any]]:
        """Yield the progress events of a server's start as they come.

        Parameters
        ----------
        timeout:
            Seconds without any byte until ``requests`` raises.
        """
        end = time.monotonic() + 10
        while True:
            answer = self.call("GET", f"{self._path(user, name)}/progress", stream=True, timeout=timeout)
            # for some milliseconds a start that failed is pending no more, and its failure is not there yet
            if answer.status_code != 400 or "is not starting" not in answer.text or time.monotonic() > end:
                break
            time.sleep(0.1)
        with answer:
            assert answer.ok, f"{answer.status_code} {answer.text[:2000]}"
            for line in answer.iter_lines(chunk_size=1):
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def wait_ready(self, user: str, name: str = "") -> list[dict[str, Any]]:
        """Wait until the hub calls a server ready, and return all progress events.

        Raises
        ------
        SpawnFailed
            It did not start.
        """
        seen: list[dict[str, Any]] = []
        for event in self.events(user, name):
            seen.append(event)
            if event.get("ready"):
                return seen
            if event.get("failed"):
                break
        raise SpawnFailed(seen)

    def wait_found(self, user: str, *, timeout: float = 120) -> Server:
        """Wait until a hub that was started again has found a server that was starting; return its client.

        JupyterHub calls the server ready before it tells the proxy the way to it.
        """
        server = self.server(user)
        end = time.monotonic() + timeout
        while True:
            model = self.model(user)["servers"].get("")
            assert model is not None, f"the hub gave the server up:\n{self.log()}"
            if model["ready"] and server.get("api").ok:
                return server
            assert time.monotonic() < end, f"the server is not found:\n{self.log()}"
            time.sleep(0.2)

    def stop_server(self, user: str, name: str = "", *, timeout: float = 60) -> None:
        """Stop a server and wait until the hub says so; with ``remove=True`` its container is gone then."""
        answer = self.call("DELETE", self._path(user, name))
        assert answer.status_code in (202, 204, 404), answer.text
        end = time.monotonic() + timeout
        while self.model(user)["servers"].get(name, {}).get("pending") or name in self.model(user)["servers"]:
            assert time.monotonic() < end, f"the server is still there after {timeout} s"
            time.sleep(0.1)

    def model(self, user: str) -> dict[str, Any]:
        """Return the hub's model of a user."""
        answer = self.call("GET", f"users/{quote(user)}")
        assert answer.ok, answer.text
        model: dict[str, Any] = answer.json()
        return model

    @staticmethod
    def _path(user: str, name: str) -> str:
        return f"users/{quote(user)}/" + (f"servers/{quote(name)}" if name else "server")


def index_environment(index: LocalIndex, container: bool = True) -> dict[str, str]:
    """Return the variables with which an administrator points pip at the local index."""
    url = index.container_url if container else index.url
    host = index.container_host if container else "127.0.0.1"
    return {"PIP_INDEX_URL": url, "PIP_TRUSTED_HOST": host}


def xsrf(session: requests.Session, path: str) -> str:
    """Return the XSRF token that a session has for a path, for example ``/hub/`` or ``/user/alice/``."""
    for cookie in session.cookies:
        if cookie.name == "_xsrf" and cookie.path == path:
            return str(cookie.value)
    raise AssertionError(f"no _xsrf cookie for {path}: {[(c.name, c.path) for c in session.cookies]}")


def in_parallel(*calls: Any) -> list[Any]:
    """Call several functions at once; return their results, or raise the first exception."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def one(at: int) -> None:
        try:
            results[at] = calls[at]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
