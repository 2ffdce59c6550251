"""Who may do what: no verb of the interface is open, and none answers with a page or a redirect."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests
from jupyter_server.auth import Authorizer

from overlayspawner.payload.server.handlers import ROUTES, OverlayHandler
from tests.server.conftest import RunningServer, Start

VERBS = ("get", "head", "post", "put", "patch", "delete")
SAMPLES = {
    "jobs/([0-9a-f]{1,64})": "jobs/0a",
    "jobs/([0-9a-f]{1,64})/events": "jobs/0a/events",
    "projects/(?P<name>[^/]*)": "projects/tinyleaf",
    "modules/(?P<name>[^/]*)": "modules/cv2",
    ".*": "nothing",
}


def every_verb() -> list[tuple[str, str]]:
    """Method and path of each verb that one of our handlers has."""
    found = []
    for pattern, handler in ROUTES:
        for verb in VERBS:
            # what tornado itself answers with 405 is no verb of ours
            if getattr(handler, verb) is not getattr(OverlayHandler, verb):
                found.append((verb.upper(), SAMPLES.get(pattern, pattern)))
    return found


EVERY_VERB = every_verb()


class RefuseOverlay(Authorizer):
    """Allows everything but what concerns overlays."""

    def is_authorized(self, handler: object, user: object, action: str, resource: str) -> bool:
        return resource != "overlay"


class ReadOnly(Authorizer):
    """Allows to look."""

    def is_authorized(self, handler: object, user: object, action: str, resource: str) -> bool:
        return action == "read"


@pytest.fixture
def before(server: RunningServer) -> Iterator[None]:
    state = server.snapshot(), server.overlay("jobs")
    yield
    assert (server.snapshot(), server.overlay("jobs")) == state


def test_there_are_verbs() -> None:
    assert ("POST", "jobs") in EVERY_VERB and ("DELETE", "jobs/0a") in EVERY_VERB
    assert len(EVERY_VERB) >= 12
    assert not set(SAMPLES) - {pattern for pattern, _ in ROUTES}


@pytest.mark.parametrize(("method", "path"), EVERY_VERB)
@pytest.mark.parametrize("who", ["nobody", "a wrong token"])
def test_without_a_valid_token(server: RunningServer, before: None, method: str, path: str, who: str) -> None:
    headers = {} if who == "nobody" else {"Authorization": "token of-another-user"}
    answer = requests.request(
        method,
        f"{server.url}overlay/v1/{path}",
        headers=headers,
        json={"action": "install", "install": ["tinyleaf"]} if method == "POST" else None,
        allow_redirects=False,
        timeout=60,
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "not-authenticated")
    assert set(answer.json()) == {"code", "message", "hint"}


def logged_in(server: RunningServer) -> requests.Session:
    """A browser's session: cookies, no token in its requests."""
    session = requests.Session()
    session.trust_env = False
    page = session.get(server.url + "login", timeout=60)
    assert page.ok
    form = {"password": server.token, "_xsrf": session.cookies["_xsrf"]}
    assert session.post(server.url + "login", data=form, timeout=60, allow_redirects=False).status_code == 302
    return session


def test_a_browser_needs_the_xsrf_token(server: RunningServer, before: None) -> None:
    session = logged_in(server)
    jobs = server.url + "overlay/v1/jobs"
    referer = {"Referer": server.url + "lab"}
    assert session.get(jobs, headers=referer, timeout=60).ok
    wrong = {**referer, "X-XSRFToken": "2|1234|5678|9"}
    for headers in (referer, wrong):
        for method, url in (("POST", jobs), ("DELETE", jobs + "/0a")):
            body = {"action": "install", "install": ["tinyleaf"]} if method == "POST" else None
            answer = session.request(method, url, json=body, headers=headers, timeout=60)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), answer.text
    right = {**referer, "X-XSRFToken": session.cookies["_xsrf"]}
    answer = session.delete(jobs + "/0a", headers=right, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    # a form that another site sends: a text body, the cookies, no header
    answer = session.post(jobs, data="{}", headers={"Content-Type": "text/plain"}, timeout=60)
    assert answer.status_code == 403


def test_another_site_gets_nothing(server: RunningServer, before: None) -> None:
    session = logged_in(server)
    headers = {"Origin": "https://evil.example", "Referer": "https://evil.example/"}
    for method, path in EVERY_VERB:
        answer = session.request(method, f"{server.url}overlay/v1/{path}", headers=headers, timeout=60)
        assert answer.status_code in (403, 404), (method, path)
        assert "code" in answer.json() and "overlay" not in answer.json()
        assert answer.headers.get("Access-Control-Allow-Origin") != "https://evil.example"


def test_a_foreign_host_header_is_refused(server: RunningServer, before: None) -> None:
    answer = server.get("overlay/v1/status", headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert answer.json()["code"] == "not-authenticated"


def test_every_verb_asks_the_authorizer(start: Start) -> None:
    server = start(
        settings={"ServerApp.authorizer_class": "tests.server.test_guards.RefuseOverlay"},
        environ=import_path(),
    )
    assert server.get("api/status").ok
    for method, path in EVERY_VERB:
        answer = server.request(method, "overlay/v1/" + path)
        assert (answer.status_code, answer.json()["code"]) == (403, "not-authorized"), (method, path)


def test_changing_takes_more_than_reading(start: Start) -> None:
    server = start(
        settings={"ServerApp.authorizer_class": "tests.server.test_guards.ReadOnly"}, environ=import_path()
    )
    server.overlay("status")
    answer = server.post("overlay/v1/jobs", json={"action": "install", "install": ["tinyleaf"]})
    assert (answer.status_code, answer.json()["code"]) == (403, "not-authorized")
    assert server.overlay("jobs") == {"jobs": []}


def import_path() -> dict[str, str]:
    """Let the server import the authorizers of this file."""
    from pathlib import Path

    return {"PYTHONPATH": str(Path(__file__).parents[2])}


def test_answers_are_kept_by_no_cache(server: RunningServer) -> None:
    for path in ("status", "packages", "jobs", "revisions", "nothing"):
        assert server.get("overlay/v1/" + path).headers["Cache-Control"] == "no-store"
    assert urlsplit(server.url).path != "/"
