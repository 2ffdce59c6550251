"""What a user does with a single-user server: requests, notebook cells, terminals."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
import websocket

_ANSI = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-Z0-9]|[=>])")


@dataclass
class Cell:
    """What a cell printed and gave.

    Parameters
    ----------
    text:
        Standard output and standard error.
    result:
        The plain text of its value.
    error:
        ``Name: value`` of its exception, or empty.
    """

    text: str = ""
    result: str = ""
    error: str = ""
    traceback: list[str] = field(default_factory=list)


class Server:
    """A user's running server.

    Parameters
    ----------
    url:
        Its base URL, with a slash at the end.
    token:
        A token of somebody who may use it.
    verify:
        As for :mod:`requests`.
    """

    def __init__(self, url: str, token: str, *, verify: bool | str = True) -> None:
        self.url = url
        self.token = token
        self.session = requests.Session()
        # A machine's .netrc or proxy settings must not come between the test and its hub.
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"token {token}"
        self.session.verify = verify

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request to a path below the server's base URL; nothing is raised for its status."""
        options.setdefault("timeout", 60)
        return self.session.request(method, self.url + path.lstrip("/"), **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET a path below the base URL."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        """POST to a path below the base URL."""
        return self.request("POST", path, **options)

    def delete(self, path: str, **options: Any) -> requests.Response:
        """DELETE a path below the base URL."""
        return self.request("DELETE", path, **options)

    def put_text(self, path: str, text: str) -> requests.Response:
        """Write a text file through the contents service."""
        model = {"type": "file", "format": "text", "content": text}
        return self.request("PUT", f"api/contents/{path}", json=model)

    # -- the overlay --------------------------------------------------------------------------------

    def overlay(self, path: str) -> Any:
        """GET below ``overlay/v1/`` and return the JSON of the answer, which must be a success."""
        answer = self.get(f"overlay/v1/{path}")
        assert answer.ok, f"{path}: {answer.status_code} {answer.text[:2000]}"
        return answer.json()

    def job(self, action: str, *, timeout: float = 120, **arguments: Any) -> dict[str, Any]:
        """Start a job and return it when it is over.

        Parameters
        ----------
        action:
            For example ``install``.
        timeout:
            Seconds it may take.
        arguments:
            The other fields of the request, for example ``install=["tinyleaf"]``.
        """
        answer = self.post("overlay/v1/jobs", json={"action": action, **arguments})
        assert answer.status_code == 202, f"{answer.status_code} {answer.text[:2000]}"
        return self.finished(answer.json(), timeout=timeout)

    def finished(self, job: dict[str, Any], *, timeout: float = 120) -> dict[str, Any]:
        """Wait until a job is over, and return it as it is then."""
        end = time.monotonic() + timeout
        while job["state"] in ("queued", "running"):
            assert time.monotonic() < end, f"the job is not over after {timeout} s: {job}"
            time.sleep(0.1)
            job = self.overlay(f"jobs/{job['id']}")
        return job

    def install(self, *requirements: str, timeout: float = 120) -> dict[str, Any]:
        """Install over REST; the job must succeed."""
        job = self.job("install", install=list(requirements), timeout=timeout)
        assert job["state"] == "done", job
        return job

    def packages(self, scope: str = "overlay") -> dict[str, dict[str, Any]]:
        """Return the packages of a scope by name."""
        return {item["name"]: item for item in self.overlay(f"packages?scope={scope}")["packages"]}

    def notices(self) -> set[str]:
        """Return the codes of the notices of ``GET status``."""
        return {item["code"] for item in self.overlay("status")["notices"]}

    # -- kernels ------------------------------------------------------------------------------------

    @contextmanager
    def kernel(self, name: str = "python3") -> Iterator[Kernel]:
        """Start a kernel; it is shut down at the end."""
        answer = self.post("api/kernels", json={"name": name})
        assert answer.status_code == 201, f"{answer.status_code} {answer.text[:2000]}"
        model = answer.json()
        kernel = Kernel(self._socket(f"api/kernels/{model['id']}/channels"), model["id"])
        try:
            yield kernel
        finally:
            kernel.close()
            self.delete(f"api/kernels/{model['id']}")

    def run_cell(self, code: str, kernel: str = "python3", *, timeout: float = 60) -> Cell:
        """Run one cell in a kernel of its own."""
        with self.kernel(kernel) as running:
            return running.run(code, timeout=timeout)

    # -- terminals ----------------------------------------------------------------------------------

    def terminal(self, *commands: str, timeout: float = 60) -> list[str]:
        """Type commands into a new terminal and return what each printed.

        Raises
        ------
        AssertionError
            A command did not come to its end in time (seconds, for each command).
        """
        answer = self.post("api/terminals", json={})
        assert answer.ok, f"{answer.status_code} {answer.text[:2000]}"
        name = answer.json()["name"]
        socket = self._socket(f"terminals/websocket/{name}")
        out: list[str] = []
        try:
            socket.send(json.dumps(["set_size", 50, 500]))
            for command in commands:
                mark = uuid.uuid4().hex[:12]
                # Two parts, so that the echo of what was typed does not look like the end.
                typed = f"echo; echo begin'-'{mark}; {command}; echo end'-'{mark}-$?\n"
                socket.send(json.dumps(["stdin", typed.replace("\n", "\r")]))
                out.append(_until(socket, mark, timeout))
        finally:
            socket.close()
            self.delete(f"api/terminals/{name}")
        return out

    def _socket(self, path: str) -> websocket.WebSocket:
        url = "ws" + self.url[4:] + path
        return websocket.create_connection(
            url,
            header=[f"Authorization: token {self.token}"],
            timeout=60,
            http_no_proxy=["*"],
            sslopt={"cert_reqs": 0},
        )


def _until(socket: websocket.WebSocket, mark: str, timeout: float) -> str:
    text = ""
    end = time.monotonic() + timeout
    ended = re.compile(rf"end-{mark}-(\d+)")
    while not ended.search(text):
        left = end - time.monotonic()
        assert left > 0, f"the terminal did not answer in {timeout} s:\n{text}"
        socket.settimeout(left)
        try:
            message = json.loads(socket.recv())
        except websocket.WebSocketTimeoutException:
            continue
        if message[0] == "stdout":
            text = (text + _ANSI.sub("", message[1])).replace("\r", "")
    begin = text.index(f"begin-{mark}") + len(f"begin-{mark}")
    return text[begin : ended.search(text).start()]  # type: ignore[union-attr]


class Kernel:
    """A running kernel's websocket."""

    def __init__(self, socket: websocket.WebSocket, identity: str) -> None:
        self.socket = socket
        self.id = identity
        self.session = uuid.uuid4().hex

    def close(self) -> None:
        """Close the websocket; the kernel goes on."""
        self.socket.close()

    def run(self, code: str, *, timeout: float = 60) -> Cell:
        """Run a cell.

        Raises
        ------
        AssertionError
            It was not over after ``timeout`` seconds.
        """
        identity = uuid.uuid4().hex
        self.socket.send(
            json.dumps(
                {
                    "channel": "shell",
                    "header": {
                        "msg_id": identity,
                        "msg_type": "execute_request",
                        "session": self.session,
                        "username": "tests",
                        "version": "5.3",
                        "date": "2020-02-02T00:00:00Z",
                    },
                    "parent_header": {},
                    "metadata": {},
                    "buffers": [],
                    "content": {
                        "code": code,
                        "silent": False,
                        "store_history": True,
                        "user_expressions": {},
                        "allow_stdin": False,
                        "stop_on_error": True,
                    },
                }
            )
        )
        cell = Cell()
        end = time.monotonic() + timeout
        replied = idle = False
        while not (replied and idle):
            left = end - time.monotonic()
            assert left > 0, f"the kernel did not answer in {timeout} s; so far: {cell}"
            self.socket.settimeout(left)
            try:
                raw = self.socket.recv()
            except websocket.WebSocketTimeoutException:
                continue
            assert raw, f"the kernel's websocket was closed; so far: {cell}"
            message = json.loads(raw)
            if message["parent_header"].get("msg_id") != identity:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                cell.text += _ANSI.sub("", content["text"])
            elif kind == "execute_result":
                cell.result = content["data"].get("text/plain", "")
            elif kind == "error":
                cell.error = f"{content['ename']}: {content['evalue']}"
                cell.traceback = [_ANSI.sub("", line) for line in content["traceback"]]
            elif kind == "execute_reply":
                replied = True
            elif kind == "status" and content["execution_state"] == "idle":
                idle = True
        return cell
