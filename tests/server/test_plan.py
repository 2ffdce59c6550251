"""`POST plan`: what a change would do, and nothing has changed."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from overlayspawner.payload import planning
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.server import service, tidying
from tests.server.conftest import TOKEN, RunningServer, Start
from tests.server.test_bad_requests import BAD_BODIES, refused
from tests.server.test_guards import import_path
from tests.server.test_openapi import fits
from tests.support.index import LocalIndex

pytestmark = pytest.mark.slow


def ask(server: RunningServer, **body: Any) -> dict[str, Any]:
    answer = server.post("overlay/v1/plan", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    return dict(answer.json())


@pytest.fixture(scope="module", autouse=True)
def something_installed(server: RunningServer) -> None:
    server.install("tinyleaf==1.0", "tinydata")
    # a moment after a change the server measures what is there, and writes that down
    since, last = time.monotonic(), server.snapshot()
    while time.monotonic() - since < 2 * tidying.DELAY:
        time.sleep(0.2)
        now = server.snapshot()
        if now != last:
            since, last = time.monotonic(), now


@pytest.fixture(autouse=True)
def nothing_changes(server: RunningServer, something_installed: None) -> Any:
    before = server.snapshot(), server.overlay("jobs")
    yield
    assert (server.snapshot(), server.overlay("jobs")) == before


def test_a_plan(server: RunningServer) -> None:
    found = ask(server, install=["tinytree"], uninstall=["tinydata"], upgrade=[])
    fits(found, "/plan", "post")
    assert {p["name"]: p["version"] for p in found["new"]} == {"tinytree": "1.0"}
    assert [p["name"] for p in found["removes"]] == ["tinydata"]
    assert "Removes tinydata 1.0." in found["sentences"]
    assert found["bytes"] == sum(p["size"] for p in found["new"]) > 0
    fits(ask(server, install=["tinysdist"]), "/plan", "post")
    fits(ask(server, install=["tinysdist @ https://127.0.0.1:9/x.tar.gz"]), "/plan", "post")
    fits(ask(server, upgrade=["tinyleaf"]), "/plan", "post")


def test_without_a_package_s_code(server: RunningServer) -> None:
    found = ask(server, install=["tinyrefuse"])
    assert found["builds"] == [{"name": "tinyrefuse", "version": "1.0"}]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "bad-request"),
        ({"install": []}, 400, "bad-request"),
        ({"install": "tinyleaf"}, 400, "bad-request"),
        ({"install": [None]}, 400, "bad-request"),
        ({"install": ["tinyleaf"], "action": "install"}, 400, "bad-request"),
        ({"install": ["tinyleaf"] * 201}, 400, "bad-request"),
        ({"install": ["--index-url=http://evil/"]}, 400, "option-not-allowed"),
        ({"install": ["tinyleaf\n-r x"]}, 400, "option-not-allowed"),
        ({"uninstall": ["tinyleaf==1.0"]}, 400, "bad-requirement"),
        ({"upgrade": ["-U"]}, 400, "option-not-allowed"),
        ({"uninstall": ["tinytree"]}, 404, "not-installed"),
    ],
)
def test_what_is_refused(server: RunningServer, body: Any, status: int, code: str) -> None:
    refused(server.post("overlay/v1/plan", json=body), status, code)


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [("tinynowhere", 404, "no-such-package"), ("tinyleaf==9", 409, "no-matching-version")],
)
def test_what_the_change_would_be_refused_with(
    server: RunningServer, line: str, status: int, code: str
) -> None:
    answer = server.post("overlay/v1/plan", json={"install": [line]})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "Traceback" not in answer.text and answer.json()["log"]


@pytest.mark.parametrize("body", [row[1] for row in BAD_BODIES], ids=[row[0] for row in BAD_BODIES])
def test_a_body_that_is_no_json_object(server: RunningServer, body: bytes) -> None:
    refused(server.post("overlay/v1/plan", data=body), 400, "bad-request")


def test_other_verbs_and_arguments(server: RunningServer) -> None:
    refused(server.get("overlay/v1/plan"), 405, "method-not-allowed")
    refused(server.post("overlay/v1/plan?dry=1", json={"install": ["tinyleaf"]}), 400, "bad-request")
    # how JupyterLab's own requests get past caches
    assert server.get("overlay/v1/status?1795000000000").ok


def test_who_may_look_may_ask(start: Start) -> None:
    settings = {"ServerApp.authorizer_class": "tests.server.test_guards.ReadOnly"}
    server = start(settings=settings, environ=import_path())
    assert ask(server, install=["tinyscript"])["new"]


def installers(server: RunningServer) -> list[str]:
    """Command lines of running programs that belong to the server's home."""
    out = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "--dry-run" in words and any(str(server.home) in word for word in words):
            out.append(" ".join(words))
    return out


def wait_for(condition: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def send(server: RunningServer, body: dict[str, Any]) -> socket.socket:
    """Ask, and don't wait for the answer."""
    parts = urlsplit(server.url)
    raw = json.dumps(body).encode()
    connection = socket.create_connection((parts.hostname or "", parts.port or 0))
    head = f"POST {parts.path}overlay/v1/plan HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: token {TOKEN}\r\n"
    connection.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
    return connection


def test_a_client_that_goes_away_ends_the_work(start: Start, index: LocalIndex) -> None:
    server = start(spec={"index_url": index.prefixed("hang")})
    connection = send(server, {"install": ["tinydata"]})
    wait_for(lambda: installers(server))
    assert server.overlay("status")["mode"] == "normal"  # the server answers meanwhile
    connection.close()
    wait_for(lambda: not installers(server))


def test_no_more_than_a_few_at_once(start: Start, index: LocalIndex) -> None:
    server = start(spec={"index_url": index.prefixed("hang")})
    asked = [send(server, {"install": ["tinydata"]}) for _ in range(4)]
    wait_for(lambda: len(installers(server)) == 4)
    answer = server.post("overlay/v1/plan", json={"install": ["tinyleaf"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "busy")
    # neither those nor jobs stop who only looks
    assert server.packages("base")
    for connection in asked:
        connection.close()
    wait_for(lambda: not installers(server))
    wait_for(lambda: server.post("overlay/v1/plan", json={}).json()["code"] == "bad-request")


def test_one_that_takes_too_long(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context.load(str(next(server.run.glob("*/server.json")).parent))
    stopped = threading.Event()

    def slow(ctx: Context, *, cancel: threading.Event, **fields: Any) -> dict[str, Any]:
        if cancel.wait(60):
            stopped.set()
        return {}

    monkeypatch.setattr(planning, "plan", slow)
    monkeypatch.setattr(service, "PLAN_TIMEOUT", 0.2)
    with pytest.raises(OverlayError) as e:
        asyncio.run(
            service.Service(context, logging.getLogger()).plan({"install": ["tinydata"]}, threading.Event())
        )
    assert (e.value.code, e.value.status) == ("timeout", 504)
    assert stopped.wait(10)
