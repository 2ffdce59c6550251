"""Thousands of requests that nobody should send to a real server: refused with a code, and nothing changes.

What would be a proper request is left out (other tests send those), but for a few that are planned. A canary
that the texts name, in options above all, is watched: no process may open it.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from overlayspawner.payload.contract import CODES, OverlayError
from overlayspawner.payload.server import body
from tests.server.conftest import TOKEN, RunningServer, Start
from tests.support import fuzz
from tests.support.index import LocalIndex

COUNT = 2_500
PLANNED = 12
"""Requests for a plan that are let through to the installer."""

IN_OPEN = 0x20


class Client:
    """One connection that is kept, and opened again when the server ends it."""

    def __init__(self, server: RunningServer) -> None:
        parts = urlsplit(server.url)
        self.path = parts.path + "overlay/v1/"
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def send(self, method: str, path: str, data: bytes | None = None) -> tuple[int, bytes]:
        """Send a request; return status and body of the answer."""
        headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
        self.connection.request(method, self.path + path, body=data, headers=headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file in a directory where every opening is noticed by the kernel."""
    folder = tmp_path_factory.mktemp("watched")
    path = folder / "canary"
    path.write_text("canary-secret==1\n")
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0 and libc.inotify_add_watch(fd, os.fsencode(folder), IN_OPEN) >= 0

    def opened() -> bytes:
        try:
            return os.read(fd, 65536)
        except BlockingIOError:
            return b""

    path.read_text()
    assert opened(), "the watch does not work"
    yield path
    seen = opened()
    os.close(fd)
    assert seen == b"", f"opened: {seen[:200]!r}"


@pytest.fixture(scope="module")
def target(
    server: RunningServer, canary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """The server, with something installed; nothing of its home changes."""
    server.install("tinyleaf==1.0")
    before = server.snapshot(), server.overlay("jobs"), outside(server)
    yield server
    assert server.process.poll() is None
    assert server.overlay("status")["job"] is None
    assert (server.snapshot(), server.overlay("jobs"), outside(server)) == before
    assert "Traceback" not in server.log and "canary-secret" not in server.log


def outside(server: RunningServer) -> list[str]:
    """Return what lies in the home beside the overlay and its cache."""
    found = (str(path.relative_to(server.home)) for path in server.home.rglob("*"))
    return sorted(path for path in found if not path.startswith((".overlay/.cache", ".overlay/default")))


def taken(path: str, data: object) -> bool:
    """Whether a request would be followed."""
    if not isinstance(data, dict):
        return False
    try:
        body.plan(data) if path == "plan" else body.job(data)
    except OverlayError:
        return False
    return True


def check(status: int, answer: bytes, sent: object, *, installer: bool = False) -> None:
    said = f"{str(sent)[:300]!r}: {status} {answer[:500]!r}"
    assert 400 <= status < 500 or (installer and status in (502, 504)), said
    assert b"Traceback" not in answer and b"canary-secret" not in answer and b"secret@" not in answer, said
    found = json.loads(answer)
    assert set(found) - ({"log"} if installer else set()) == {"code", "message", "hint"}, said
    assert found["code"] in CODES, said
    assert found["code"] != "internal" and 0 < len(found["message"]) < 1500, said


def test_bodies(target: RunningServer, canary: Path) -> None:
    client = Client(target)
    for seed in range(COUNT):
        rng = random.Random(seed)
        path = rng.choice(("plan", "jobs", "next-start") if seed % 10 == 0 else ("plan", "jobs"))
        made = fuzz.data(rng, str(canary))
        if path == "plan" and isinstance(made, dict):
            made.pop("action", None)
        sent = fuzz.raw(rng, json.dumps(made).encode())
        try:
            data = json.loads(sent.decode())
        except (ValueError, RecursionError):
            data = None
        if path == "next-start" and isinstance(data, dict) and data.get("mode") in body.MODES:
            continue
        if path == "next-start" or not taken(path, data):
            check(*client.send("POST", path, sent), sent)


def test_texts_that_pass_for_requirements(target: RunningServer, canary: Path) -> None:
    """They get as far as the installer, which opens nothing that it should not either."""
    client, planned, seed = Client(target), 0, 0
    while planned < PLANNED:
        seed += 1
        data = {"install": [fuzz.requirement(random.Random(seed), str(canary))]}
        if not taken("plan", data) or data["install"][0].startswith("tinyleaf") or "file:" in str(data):
            continue
        planned += 1
        status, answer = client.send("POST", "plan", json.dumps(data).encode())
        if status != 200:
            check(status, answer, data, installer=True)


def test_addresses(target: RunningServer, canary: Path) -> None:
    client = Client(target)
    for seed in range(600):
        rng = random.Random(seed)
        text = quote(fuzz.requirement(rng, str(canary))[:500].encode("utf-8", "surrogatepass"), safe="=&")
        path = rng.choice(
            ("packages?scope=", "packages?", "status?", "jobs/", "jobs/../", "", "revisions?", "plan?")
        )
        method = rng.choice(("GET", "GET", "GET", "DELETE"))
        if method == "GET" and path in ("status?", "packages?", "revisions?") and not text:
            continue
        status, answer = client.send(method, path + text)
        if status != 200 or "?" not in path:
            check(status, answer, (method, path, text))


def test_the_canary_of_a_text_that_names_it_is_read(start: Start, tmp_path: Path, index: LocalIndex) -> None:
    """That the watch would notice: a wheel that a request does name."""
    folder = tmp_path / "named"
    folder.mkdir()
    name = next(name for name in index.files if name.startswith("tinydata-") and name.endswith(".whl"))
    (folder / name).write_bytes(index.files[name].path.read_bytes())
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    libc.inotify_add_watch(fd, os.fsencode(folder), IN_OPEN)
    answer = start().post("overlay/v1/plan", json={"install": [str(folder / name)]})
    assert answer.ok, answer.text
    assert os.read(fd, 65536)
    os.close(fd)
