"""Finding packages over REST: search, projects, updates, modules, with the tests' own index."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import quote

import pytest

from tests.index.recipes import HTML
from tests.server.conftest import RunningServer
from tests.server.test_openapi import fits
from tests.support.index import LocalIndex

pytestmark = pytest.mark.slow


def search(server: RunningServer, text: str) -> dict[str, Any]:
    found: dict[str, Any] = server.overlay(f"search?q={quote(text, safe='')}")
    fits(found, "/search")
    return found


def named(found: dict[str, Any]) -> list[str]:
    return [item["name"] for item in found["results"]]


def project(server: RunningServer, name: str) -> dict[str, Any]:
    found: dict[str, Any] = server.overlay(f"projects/{name}")
    fits(found, "/projects/{name}")
    return found


@pytest.fixture(scope="module")
def used(server: RunningServer) -> RunningServer:
    """A server with tinyleaf 1.0 and tinytree 1.0, both asked for."""
    server.install("tinyleaf<2", "tinytree==1.0")
    server.install("tinyyanked==1.0", "tinyns-one")
    return server


# -- search -----------------------------------------------------------------------------------------------


def test_what_is_installed_is_found_with_where_it_is(used: RunningServer) -> None:
    first = search(used, "Tiny_Leaf")["results"][0]
    assert first["name"] == "tinyleaf", "spelled as another name of the same letters"
    found = search(used, "TinyLeaf")
    first = found["results"][0]
    assert (first["name"], first["where"], first["version"]) == ("tinyleaf", "overlay", "1.1")
    assert (first["source"], found["index"]) == ("installed", "skipped")
    assert search(used, "jupyter_server")["results"][0]["where"] == "base"
    # by words of the summary alone
    assert "tinytree" in named(search(used, "called tinytree"))


def test_the_index_is_asked_for_the_one_name_only(used: RunningServer, index: LocalIndex) -> None:
    before = len(index.requests)
    found = search(used, "tinydata")
    assert found["index"] == "found"
    hit = next(item for item in found["results"] if item["name"] == "tinydata")
    assert hit == {
        "name": "tinydata",
        "version": "1.0",
        "summary": "A test package called tinydata.",
        "where": None,
        "source": "index",
        "blocked": None,
    }
    paths = [request.path for request in index.requests[before:]]
    assert paths == ["/simple/tinydata/", "/files/tinydata-1.0-py3-none-any.whl.metadata"]
    search(used, "tinydata")
    assert len(index.requests) == before + 2, "an answer is remembered"
    found = search(used, "tinynowhere")
    assert found["index"] == "not-found" and "tinynowhere" not in named(found)


def test_html_stays_a_text(used: RunningServer) -> None:
    (hit,) = [i for i in search(used, "tinyhtml")["results"] if i["name"] == "tinyhtml"]
    assert hit["summary"] == HTML
    answer = used.get("overlay/v1/projects/tinyhtml")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json()["summary"] == HTML
    huge = project(used, "tinyhuge")
    assert huge["summary"].startswith("long long") and len(huge["summary"]) == 500
    assert project(used, "tinyhtmlname")["name"] == "tinyhtmlname"


def test_there_are_at_most_thirty(used: RunningServer) -> None:
    for text in ("a", "py", "e"):
        assert len(search(used, text)["results"]) == 30
    assert search(used, "") == {"query": "", "results": [], "index": "skipped"}
    assert search(used, " \t\u200b ") == {"query": "", "results": [], "index": "skipped"}


def texts() -> list[str]:
    rng = random.Random(7)
    out = ["/", "//", "../../etc/passwd", "a/../../b", "%2e%2e%2f", "..", ".", "-", "_", "a\x00b", "\x1b[31m"]
    out += [
        "İ" * 200,
        "ﬃ" * 200,
        "\u202egnp.exe",
        "e\u0301" * 50,
        "<script>",
        "'\"&<>",
        "a?b#c",
        "a;b",
        "\\",
        "💥",
    ]
    out += [
        "file:///etc/passwd",
        "http://127.0.0.1:1/x",
        "git+https://x/y",
        "a @ file:///etc/passwd",
        "[",
        "a[",
        "(",
    ]
    alphabet = "ab-_./\\ \t\n\r\x00\x7f\x85\u2028\ud7ff\uffff\U0010ffffé٣五[]<>=!~;@%&?#'\""
    out += ["".join(rng.choices(alphabet, k=rng.randint(1, 200))) for _ in range(150)]
    return out


def test_odd_texts(used: RunningServer, index: LocalIndex) -> None:
    before = len(index.requests)
    for text in texts():
        answer = used.get("overlay/v1/search", params={"q": text})
        assert answer.status_code == 200, (text, answer.text[:300])
        fits(answer.json(), "/search")
    for request in index.requests[before:]:
        place = request.path.removeprefix("/simple/").removesuffix("/")
        assert request.path.startswith("/files/") or place.replace("-", "").isalnum(), request.path
    for text in ("x" * 201, "x" * 10_000, "/" * 10_000, "é" * 5_000):
        answer = used.get("overlay/v1/search", params={"q": text})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")
    for raw in ("%ff%fe", "%c3%28"):
        answer = used.get(f"overlay/v1/search?q={raw}")
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-request"), raw
    assert used.get("overlay/v1/search?q=a&r=b").status_code == 400
    assert "Traceback" not in used.log


# -- projects ---------------------------------------------------------------------------------------------


def test_a_project(used: RunningServer) -> None:
    found = project(used, "TinyLeaf")
    assert (found["name"], found["newest"]) == ("tinyleaf", "2.0")
    assert found["installed"] == {"overlay": "1.1", "base": None, "user_site": None}
    assert [item["version"] for item in found["versions"]] == ["2.0", "1.1", "1.0"]
    assert all(item["fits"] and item["wheel"] and item["size"] > 0 for item in found["versions"])
    assert found["summary"] == "A test package called tinyleaf."


def test_a_project_that_is_not_there(used: RunningServer) -> None:
    answer = used.get("overlay/v1/projects/reqeusts")
    assert (answer.status_code, answer.json()["code"]) == (404, "no-such-package")
    assert "requests" in answer.json()["hint"]
    for name in (
        "",
        "..",
        "%2e%2e",
        "..%2f..%2fetc",
        "%2Fetc%2Fpasswd",
        "a%00b",
        "a b",
        "x" * 10_000,
        "%C3%A9",
        "a%0a",
    ):
        answer = used.get(f"overlay/v1/projects/{name}")
        assert answer.status_code in (400, 404), name
        assert answer.json()["code"] in ("bad-requirement", "not-found", "bad-request"), (
            name,
            answer.text[:200],
        )
    assert used.get("overlay/v1/projects/tinyleaf/files").json()["code"] == "not-found"


# -- updates ----------------------------------------------------------------------------------------------


def test_updates(used: RunningServer, index: LocalIndex) -> None:
    before = len(index.requests)
    found = used.overlay("updates")
    fits(found, "/updates")
    # tinyleaf's line admits no 2.0, tinytree's is a pin, 1.1 of tinyyanked was taken back
    assert (found["updates"], found["unreachable"]) == ([], False)
    asked = {request.path for request in index.requests[before:]}
    assert "/simple/tinyns-one/" in asked and "/simple/pip/" not in asked
    requirements = used.overlay_path / "requirements.txt"
    text = requirements.read_text()
    requirements.write_text(text.replace("tinyleaf<2", "tinyleaf"))
    seen = len(index.requests)
    again = used.overlay("updates")
    assert again["updates"] == [{"name": "tinyleaf", "version": "1.1", "newest": "2.0"}]
    assert again["checked"] == found["checked"] and len(index.requests) == seen, "asked once an hour"
    requirements.write_text(text)


# -- modules ----------------------------------------------------------------------------------------------


def module(server: RunningServer, name: str) -> dict[str, str]:
    found = server.overlay(f"modules/{quote(name, safe='')}")
    fits(found, "/modules/{name}")
    assert found["restoring"] is False
    return {item["name"]: item["source"] for item in found["packages"]}


def test_modules(used: RunningServer, index: LocalIndex) -> None:
    before = len(index.requests)
    assert module(used, "cv2")["opencv-python"] == "known"
    assert module(used, "sklearn.svm") == {"scikit-learn": "known"}
    assert module(used, "google.protobuf.message") == {"protobuf": "known"}
    assert module(used, "numpy") == {"numpy": "known"}
    # installed here, or once installed
    assert module(used, "tinyleaf") == {"tinyleaf": "record"}
    assert module(used, "tinyns.one") == {"tinyns-one": "record"}
    assert module(used, "tinyns") == {}, "a namespace is nobody's"
    assert module(used, "jupyter_server_terminals.app") == {"jupyter-server-terminals": "record"}
    used.install("tinyscript")
    assert used.job("uninstall", uninstall=["tinyscript"])["state"] == "done"
    before = len(index.requests)
    assert module(used, "tinyscript") == {"tinyscript": "history"}
    # there is a package of this name in the index, and nobody has said that it has the module
    assert module(used, "tinydata") == {}
    assert len(index.requests) == before
    for name in ("", "a b", "1a", "a..b", "a/b", "%2e", "x" * 10_000, "<b>", "a-b"):
        answer = used.get(f"overlay/v1/modules/{quote(name, safe='')}")
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-request"), name
