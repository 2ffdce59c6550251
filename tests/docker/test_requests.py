"""Bad requests get the documented error through a real hub, and change nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.support.client import Server
from tests.support.hub import RunningHub, xsrf

pytestmark = [pytest.mark.engine, pytest.mark.beside]

OVERLAY = "/home/jovyan/.overlay"
JOBS = "overlay/v1/jobs"


@pytest.fixture(scope="module")
def server(hub: RunningHub) -> Server:
    running = hub.start_server("alice")
    running.install("tinyleaf<2")
    # what follows a job by itself ends with this file
    look = ["sh", "-c", f"ls {OVERLAY}/default/envs/*/.overlay/sizes.json"]
    end = time.monotonic() + 60
    while hub.engine.container("alice").exec_run(look).exit_code != 0:
        assert time.monotonic() < end, "nothing was measured after the job"
        time.sleep(0.2)
    return running


@pytest.fixture(autouse=True)
def unchanged(hub: RunningHub, server: Server, listing: Callable[[Any, str], str]) -> Iterator[None]:
    """No test here may change the overlay or leave a job behind."""
    container = hub.engine.container("alice")
    before = listing(container, OVERLAY)
    jobs = server.overlay("jobs")
    yield
    assert server.overlay("jobs") == jobs
    assert listing(container, OVERLAY) == before


def refused(answer: requests.Response, status: int, code: str) -> None:
    """Check an answer's status and its JSON error."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text[:2000]}"
    body = answer.json()
    assert set(body) >= {"code", "message", "hint"}, body
    assert body["code"] == code, body
    assert body["message"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("requirement", "code"),
    [
        ("not a requirement", "bad-requirement"),
        ("tinyleaf==", "bad-requirement"),
        ("../../etc", "bad-requirement"),
        ("<b>tinyleaf</b>", "bad-requirement"),
        ("", "bad-requirement"),
        ("https://me:hunter2@example.org/x-1.0-py3-none-any.whl", "bad-requirement"),
        ("--index-url=http://127.0.0.1/simple", "option-not-allowed"),
        ("-r /etc/passwd", "option-not-allowed"),
        ("-r/etc/passwd", "option-not-allowed"),
        ("-e .", "option-not-allowed"),
        (" --target=/tmp", "option-not-allowed"),
        ("tinyleaf --hash=sha256:00", "option-not-allowed"),
        ("tinyleaf\n--index-url=http://127.0.0.1/simple", "option-not-allowed"),
    ],
)
def test_bad_requirements(server: Server, requirement: str, code: str) -> None:
    for action in ("install", "upgrade"):
        answer = server.post(JOBS, json={"action": action, action: [requirement]})
        refused(answer, 400, code)
        assert "hunter2" not in answer.text
    answer = server.post(JOBS, json={"action": "install", "install": ["tinydata", requirement]})
    refused(answer, 400, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad-request"),
        (b"{", "bad-request"),
        (b"[]", "bad-request"),
        (b"null", "bad-request"),
        (b"\xff\xfe", "bad-request"),
        (b"[" * 100_000, "bad-request"),
        (b"{}", "bad-request"),
        (b'{"action": 1}', "bad-request"),
        (b'{"action": "install"}', "bad-request"),
        (b'{"action": "install", "install": "tinydata"}', "bad-request"),
        (b'{"action": "install", "install": [1]}', "bad-request"),
        (b'{"action": "install", "install": {"tinydata": 1}}', "bad-request"),
        (b'{"action": "explode"}', "unknown-action"),
        (b'{"action": "__class__"}', "unknown-action"),
    ],
)
def test_bad_bodies(server: Server, body: bytes, code: str) -> None:
    answer = server.post(JOBS, data=body, headers={"Content-Type": "application/json"})
    refused(answer, 400, code)


def test_large_body(server: Server) -> None:
    body = json.dumps({"action": "install", "install": ["tinydata"], "more": "x" * 10_000_000})
    refused(server.post(JOBS, data=body), 413, "too-large")


def test_unknown_things(server: Server) -> None:
    refused(server.get(f"{JOBS}/0123456789abcdef"), 404, "not-found")
    refused(server.delete(f"{JOBS}/0123456789abcdef"), 404, "not-found")
    refused(server.get("overlay/v1/nothing"), 404, "not-found")
    refused(server.get("overlay/v1/packages?scope=everything"), 400, "bad-request")


def test_no_token(hub: RunningHub, server: Server) -> None:
    for method, path in (("GET", "status"), ("GET", "packages"), ("GET", "jobs"), ("POST", "jobs")):
        answer = requests.request(
            method,
            f"{server.url}overlay/v1/{path}",
            json={"action": "sync"},
            allow_redirects=False,
            timeout=30,
        )
        assert answer.status_code in (401, 403), f"{method} {path}: {answer.status_code}"
        assert "tinyleaf" not in answer.text
    wrong = Server(server.url, "0" * 32)
    assert wrong.get("overlay/v1/status", allow_redirects=False).status_code in (401, 403)


def test_a_refused_request_leaves_the_proxys_connection_usable(server: Server) -> None:
    """The hub's proxy keeps connections; one that is closed without notice makes the next request a 503."""
    for _ in range(10):
        answer = requests.post(server.url + JOBS, data=b"x" * 200_000, timeout=30)
        assert answer.status_code == 403
        assert server.get("overlay/v1/jobs").status_code == 200


def test_another_users_token(hub: RunningHub, server: Server) -> None:
    other = Server(server.url, hub.add_user("mallory"))
    assert other.get("overlay/v1/status").status_code == 403
    answer = other.post(JOBS, json={"action": "install", "install": ["tinydata"]})
    assert answer.status_code == 403
    assert "tinyleaf" not in answer.text


def test_another_users_session(hub: RunningHub, server: Server) -> None:
    browser = hub.login("mallory")
    answer = browser.post(server.url + JOBS, json={"action": "install", "install": ["tinydata"]}, timeout=30)
    assert answer.status_code in (401, 403)
    assert browser.get(server.url + "overlay/v1/status", timeout=30).status_code in (401, 403)


def test_missing_xsrf(hub: RunningHub, server: Server) -> None:
    browser = hub.login("alice")
    assert browser.get(f"{server.url}lab", timeout=60).status_code == 200
    body = {"action": "install", "install": ["tinydata"]}
    refused(browser.post(server.url + JOBS, json=body, timeout=30), 403, "forbidden")
    headers = {"X-XSRFToken": "2|00000000|00000000000000000000000000000000|1"}
    refused(browser.post(server.url + JOBS, json=body, headers=headers, timeout=30), 403, "forbidden")
    # a page of another site can send a form, and our own token does not help it
    form = browser.post(
        server.url + JOBS, data=json.dumps(body), headers={"Content-Type": "text/plain"}, timeout=30
    )
    refused(form, 403, "forbidden")
    # the same request with the right token is understood: what was missing above is the token only
    right = {"X-XSRFToken": xsrf(browser, "/user/alice/")}
    refused(browser.post(server.url + JOBS, data=b"{", headers=right, timeout=30), 400, "bad-request")
