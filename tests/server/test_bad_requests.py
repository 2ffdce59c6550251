"""Requests that must be refused: the documented error, and nothing has changed."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.server.conftest import TOKEN, RunningServer
from tests.server.test_openapi import fits

Body = Any

ONCE = {"Connection": "close"}
"""Tornado ends some connections without a word (after a body that it did not read, or an unknown method): no
other request may use them."""

BAD_JOBS: list[tuple[str, Body, int, str]] = [
    ("no action", {}, 400, "bad-request"),
    ("null action", {"action": None}, 400, "bad-request"),
    ("list as action", {"action": ["install"]}, 400, "bad-request"),
    ("unknown action", {"action": "explode"}, 400, "unknown-action"),
    ("case of action", {"action": "Install", "install": ["tinyleaf"]}, 400, "unknown-action"),
    ("revision as text", {"action": "restore", "revision": "1"}, 400, "bad-request"),
    ("negative revision", {"action": "undo", "revision": -1}, 400, "bad-request"),
    ("true as revision", {"action": "undo", "revision": True}, 400, "bad-request"),
    ("half a revision", {"action": "undo", "revision": 1.5}, 400, "bad-request"),
    ("endless revision", {"action": "undo", "revision": 1 << 40}, 400, "bad-request"),
    ("reset of something", {"action": "reset", "revision": 1}, 400, "bad-request"),
    ("import of nothing", {"action": "import"}, 400, "bad-request"),
    ("import of blanks", {"action": "import", "source": "  "}, 400, "bad-request"),
    ("import of a list", {"action": "import", "source": ["user-site"]}, 400, "bad-request"),
    ("import of two lines", {"action": "import", "source": "user-site\nx"}, 400, "bad-request"),
    ("import of much", {"action": "import", "source": "x" * 5000}, 400, "bad-request"),
    ("source of undo", {"action": "undo", "source": "user-site"}, 400, "bad-request"),
    ("nothing to install", {"action": "install"}, 400, "bad-request"),
    ("empty list", {"action": "install", "install": []}, 400, "bad-request"),
    ("text for a list", {"action": "install", "install": "tinyleaf"}, 400, "bad-request"),
    ("null for a list", {"action": "install", "install": None}, 400, "bad-request"),
    ("object for a list", {"action": "install", "install": {"tinyleaf": 1}}, 400, "bad-request"),
    ("number in the list", {"action": "install", "install": ["tinyleaf", 7]}, 400, "bad-request"),
    ("null in the list", {"action": "install", "install": [None]}, 400, "bad-request"),
    ("list in the list", {"action": "install", "install": [["tinyleaf"]]}, 400, "bad-request"),
    ("too many", {"action": "install", "install": ["tinyleaf"] * 201}, 400, "bad-request"),
    ("unknown field", {"action": "install", "install": ["tinyleaf"], "overwrite": True}, 400, "bad-request"),
    ("other action's field", {"action": "sync", "install": ["tinyleaf"]}, 400, "bad-request"),
    ("field of uninstall", {"action": "install", "uninstall": ["tinyleaf"]}, 400, "bad-request"),
    ("not a requirement", {"action": "install", "install": ["tiny leaf"]}, 400, "bad-requirement"),
    ("half a specifier", {"action": "install", "install": ["tinyleaf>="]}, 400, "bad-requirement"),
    ("empty requirement", {"action": "install", "install": [" "]}, 400, "bad-requirement"),
    ("very long", {"action": "install", "install": ["a" * 5000]}, 400, "bad-requirement"),
    ("path", {"action": "install", "install": ["/etc/passwd"]}, 400, "bad-requirement"),
    ("relative path", {"action": "install", "install": ["../evil"]}, 400, "bad-requirement"),
    ("second is bad", {"action": "install", "install": ["tinyleaf", "=="]}, 400, "bad-requirement"),
    (
        "credentials",
        {"action": "install", "install": ["x @ https://me:secret@example.org/x.whl"]},
        400,
        "bad-requirement",
    ),
    (
        "index option",
        {"action": "install", "install": ["--index-url=http://evil/"]},
        400,
        "option-not-allowed",
    ),
    ("file option", {"action": "install", "install": ["-r /etc/passwd"]}, 400, "option-not-allowed"),
    ("editable", {"action": "install", "install": ["-e ."]}, 400, "option-not-allowed"),
    ("trailing option", {"action": "install", "install": ["tinyleaf --pre"]}, 400, "option-not-allowed"),
    ("second line", {"action": "install", "install": ["tinyleaf\n-r x"]}, 400, "option-not-allowed"),
    ("carriage return", {"action": "install", "install": ["tinyleaf\r--pre"]}, 400, "option-not-allowed"),
    ("NUL", {"action": "install", "install": ["tinyleaf\0"]}, 400, "option-not-allowed"),
    ("uninstall option", {"action": "uninstall", "uninstall": ["-y"]}, 400, "option-not-allowed"),
    ("uninstall version", {"action": "uninstall", "uninstall": ["tinyleaf==2.0"]}, 400, "bad-requirement"),
    ("uninstall path", {"action": "uninstall", "uninstall": ["../../x"]}, 400, "bad-requirement"),
    ("upgrade option", {"action": "upgrade", "upgrade": ["--all"]}, 400, "option-not-allowed"),
]

BAD_BODIES: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("not JSON", b"install=tinyleaf"),
    ("cut off", b'{"action": "install", "install": ["tinyleaf"'),
    ("list", b'["install"]'),
    ("text", b'"install"'),
    ("number", b"1"),
    ("not UTF-8", b'{"action": "\xff\xfe"}'),
    ("very deep", b"[" * 100_000),
]


@pytest.fixture(scope="module", autouse=True)
def something_installed(server: RunningServer) -> None:
    server.install("tinyleaf==1.0")


@pytest.fixture(autouse=True)
def nothing_changes(server: RunningServer, something_installed: None) -> Iterator[None]:
    """The overlay's files, its requirements and the list of jobs are the same after each of these tests."""
    before = server.snapshot(), server.overlay("jobs")
    assert len(before[0]) > 20
    yield
    assert server.overlay("status")["job"] is None
    assert (server.snapshot(), server.overlay("jobs")) == before


def refused(answer: requests.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert set(answer.json()) == {"code", "message", "hint"}
    assert answer.json()["message"]
    assert answer.headers["Content-Type"] == "application/json"
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("body", "status", "code"), [row[1:] for row in BAD_JOBS], ids=[row[0] for row in BAD_JOBS]
)
def test_a_bad_job(server: RunningServer, body: Body, status: int, code: str) -> None:
    answer = server.post("overlay/v1/jobs", json=body)
    refused(answer, status, code)
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "body", [{}, {"mode": "reset"}, {"mode": None}, {"mode": ["safe"]}, {"mode": "safe", "more": 1}]
)
def test_a_bad_mode(server: RunningServer, body: Body) -> None:
    refused(server.post("overlay/v1/next-start", json=body), 400, "bad-request")
    assert server.overlay("status")["next_start"] == "normal"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "requirements.txt"},
        {"name": "a/", "text": ""},
        {"name": "a\nb", "text": ""},
        {"name": "requirements.txt", "text": ["tinyleaf"]},
        {"name": "requirements.txt", "text": "", "groups": "test"},
        {"name": "requirements.txt", "text": "", "path": "/etc/passwd"},
        {"name": "pyproject.toml", "text": "[["},
        {"name": "pyproject.toml", "text": "", "groups": ["test"]},
    ],
)
def test_a_bad_file(server: RunningServer, body: Body) -> None:
    refused(server.post("overlay/v1/given", json=body), 400, "bad-request")


def test_a_file(server: RunningServer) -> None:
    body = {"name": "C:\\work\\requirements.txt", "text": f"tinyleaf<2\n-r {__file__}\n", "groups": []}
    answer = server.post("overlay/v1/given", json=body)
    assert answer.ok, answer.text
    fits(answer.json(), "/given", "post")
    assert answer.json()["requirements"] == ["tinyleaf<2"]
    assert [item["requirement"] for item in answer.json()["left_out"]] == [f"-r {__file__}"]


@pytest.mark.parametrize("body", [row[1] for row in BAD_BODIES], ids=[row[0] for row in BAD_BODIES])
def test_a_body_that_is_no_json_object(server: RunningServer, body: bytes) -> None:
    refused(server.post("overlay/v1/jobs", data=body), 400, "bad-request")


@pytest.mark.parametrize("form", ["as JSON", "as garbage", "in chunks"])
def test_ten_megabytes(server: RunningServer, form: str) -> None:
    body: Any = json.dumps({"action": "install", "install": ["tinyleaf"], "x": "y" * 10_000_000}).encode()
    if form == "as garbage":
        body = b"\0" * 10_000_000
    elif form == "in chunks":
        whole = body
        body = (whole[n : n + 100_000] for n in range(0, len(whole), 100_000))
    refused(server.post("overlay/v1/jobs", data=body, headers=ONCE), 413, "too-large")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_ten_megabytes_where_no_body_belongs(server: RunningServer, method: str) -> None:
    answer = server.request(method, "overlay/v1/jobs/abc", data=b"x" * 10_000_000, headers=ONCE)
    refused(answer, 413, "too-large")


def test_a_body_far_too_large_is_refused_before_it_is_sent(server: RunningServer) -> None:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.putrequest("POST", parts.path + "overlay/v1/jobs")
    connection.putheader("Authorization", f"token {TOKEN}")
    connection.putheader("Content-Length", "100000000")
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (413, "too-large")
    connection.close()


def test_a_client_that_goes_away_in_mid_body(server: RunningServer) -> None:
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as s:
        head = f"POST {parts.path}overlay/v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: token {TOKEN}\r\n"
        s.sendall(head.encode() + b'Content-Length: 60\r\n\r\n{"action": "install", "install": [')
    assert server.overlay("status")["job"] is None


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "jobs/00000000", 404, "not-found"),
        ("DELETE", "jobs/00000000", 404, "not-found"),
        ("GET", "jobs/00000000/events", 404, "not-found"),
        ("GET", "jobs/../status", 200, ""),
        ("GET", "jobs/%2e%2e%2fstatus", 404, "not-found"),
        ("GET", "jobs/NOT-AN-ID", 404, "not-found"),
        ("GET", "", 404, "not-found"),
        ("GET", "nothing/here", 404, "not-found"),
        ("POST", "nothing/here", 404, "not-found"),
        ("PUT", "nothing/here", 404, "not-found"),
        ("PATCH", "nothing/here", 404, "not-found"),
        ("DELETE", "nothing/here", 404, "not-found"),
        ("PUT", "jobs", 405, "method-not-allowed"),
        ("DELETE", "jobs", 405, "method-not-allowed"),
        ("PATCH", "status", 405, "method-not-allowed"),
        ("POST", "status", 405, "method-not-allowed"),
        ("POST", "packages", 405, "method-not-allowed"),
        ("POST", "jobs/00000000", 405, "method-not-allowed"),
        ("PROPFIND", "status", 405, "method-not-allowed"),
        ("GET", "packages?scope=everything", 400, "bad-request"),
        ("GET", "packages?scope=", 400, "bad-request"),
        ("GET", "packages?scop=base", 400, "bad-request"),
        ("GET", "status?verbose=1", 400, "bad-request"),
    ],
)
def test_a_bad_address(server: RunningServer, method: str, path: str, status: int, code: str) -> None:
    answer = server.request(method, "overlay/v1/" + path, headers=ONCE)
    if status == 200:
        assert answer.ok
    else:
        refused(answer, status, code)


@pytest.mark.parametrize("last", ["-1", "one", "1.5", "9" * 30, "²"])
def test_a_bad_last_event_id(server: RunningServer, last: str) -> None:
    job = server.overlay("jobs")["jobs"][0]["id"]
    answer = server.get(f"overlay/v1/jobs/{job}/events", headers={"Last-Event-ID": last.encode()})
    refused(answer, 400, "bad-request")
