"""Finding packages over REST: search, projects, updates, modules, with the tests' own index."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.index.recipes import HTML
from tests.server.conftest import RunningServer, Start
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


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("scikitlearn", "scikit-learn"),
        ("scikit learn", "scikit-learn"),
        ("Scikit_Learn[extra]>=1; python_version>'3'", "scikit-learn"),
        ("reqeusts", "requests"),
        ("cv2", "opencv-python"),
        ("sklearn", "scikit-learn"),
        ("PIL", "pillow"),
        ("\uff4e\uff55\uff4d\uff50\uff59", "numpy"),
    ],
)
def test_what_is_meant_comes_first(used: RunningServer, text: str, first: str) -> None:
    assert named(search(used, text))[0] == first


def test_an_unknown_name_stands_below_the_ones_it_may_be_a_misspelling_of(
    start: Start, index: LocalIndex, tmp_path: Path
) -> None:
    from tests.support.index import make_wheel

    with LocalIndex(tmp_path / "index", recipes=False) as other:
        (tmp_path / "index").mkdir(exist_ok=True)
        other.add(make_wheel(tmp_path / "index", "reqeusts", "1.0", summary=HTML))
        server = start(spec={"index_url": other.url})
        found = search(server, "reqeusts")
        assert found["index"] == "found"
        assert named(found)[0] == "requests" and "reqeusts" in named(found)
        # others may have written anything there: a text, unchanged
        assert next(i for i in found["results"] if i["name"] == "reqeusts")["summary"] == HTML


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


@pytest.mark.parametrize(
    ("name", "newest", "fitting", "told"),
    [
        ("tinypast", "1.0", [False, True], {}),
        ("tinyfuture", "1.0", [False], {"requires_python": ">=4"}),
        ("tinyforeign", "1.0", [False], {}),
        ("tinyother", "1.0", [False, True], {}),
        ("tinyyanked", "1.0", [True, True], {}),
        ("tinyallyanked", "1.0", [True], {}),
        ("tinypre", "1.0", [True, True], {}),
        ("tinyonlypre", "1.0rc1", [True], {}),
        ("tinysdist", "1.0", [True], {"summary": ""}),
    ],
)
def test_versions_that_fit(
    used: RunningServer, name: str, newest: str, fitting: list[bool], told: dict[str, str]
) -> None:
    found = project(used, name)
    assert found["newest"] == newest
    assert [item["fits"] for item in found["versions"]] == fitting
    assert {key: found[key] for key in told} == told
    versions = {item["version"]: item for item in found["versions"]}
    assert versions["1.0" if name != "tinyonlypre" else "1.0rc1"]["wheel"] is (name != "tinysdist")
    assert [v for v, item in versions.items() if item["yanked"]] == {
        "tinyyanked": ["1.1"],
        "tinyallyanked": ["1.0"],
    }.get(name, [])
    assert [v for v, item in versions.items() if item["prerelease"]] == {
        "tinypre": ["2.0rc1"],
        "tinyonlypre": ["1.0rc1"],
    }.get(name, [])


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


def test_rules_of_the_hub(start: Start, index: LocalIndex) -> None:
    server = start(spec={"deny": ["tinydata", "tinyleaf<2", "pand*"], "only_binary": [":all:"]})
    assert project(server, "tinydata")["blocked"] and not project(server, "tinyleaf")["blocked"]
    assert [v["fits"] for v in project(server, "tinyleaf")["versions"]] == [True, False, False]
    assert project(server, "tinysdist")["versions"][0]["fits"] is False
    (hit,) = [i for i in search(server, "tinydata")["results"] if i["name"] == "tinydata"]
    assert "tinydata" in hit["blocked"]
    assert search(server, "pandas")["results"][0]["blocked"], "who asks for it is told"
    assert "pandas" not in named(search(server, "panda")), "nobody else is offered it"


def test_only_what_is_old_enough(start: Start, tmp_path: Path) -> None:
    from tests.support.index import make_wheel

    (tmp_path / "index").mkdir()
    with LocalIndex(tmp_path / "index", recipes=False) as other:
        for version, when in (
            ("1.0", "2020-01-01T00:00:00Z"),
            ("2.0", "2024-01-01T00:00:00.5Z"),
            ("3.0", ""),
        ):
            path = make_wheel(tmp_path / "index", "tinyleaf", version)
            other.add(path)
            if when:
                other.uploaded(path.name, when)
        server = start(spec={"index_url": other.url, "exclude_newer": "2022-01-01"})
        found = project(server, "tinyleaf")
        told = [(v["version"], v["fits"], v["uploaded"]) for v in found["versions"]]
        assert told == [
            ("3.0", None, None),
            ("2.0", False, "2024-01-01T00:00:00Z"),
            ("1.0", True, "2020-01-01T00:00:00Z"),
        ]


def test_an_index_that_wants_a_password(start: Start, index: LocalIndex) -> None:
    server = start(spec={"index_url": index.prefixed("auth", credentials=True)})
    found = search(server, "tinydata")
    assert found["index"] == "found" and project(server, "tinydata")["summary"]
    assert index.password not in json.dumps(found) + json.dumps(project(server, "tinydata")) + server.log
    server = start(spec={"index_url": index.prefixed("auth")})
    assert search(server, "tinydata")["index"] == "unreachable"
    answer = server.get("overlay/v1/projects/tinydata")
    assert (answer.status_code, answer.json()["code"]) == (502, "index-auth")


@pytest.mark.parametrize("fault", ["hang", "garbage", "endless"])
def test_an_index_that_fails(start: Start, index: LocalIndex, fault: str) -> None:
    server = start(spec={"index_url": index.prefixed(fault)})
    before = len(index.requests)
    found = search(server, "numpy")
    assert (found["index"], named(found)[0]) == ("unreachable", "numpy")
    search(server, "numpyx")  # not asked again by what is typed
    assert len(index.requests) == before + 1
    answer = server.get("overlay/v1/projects/tinyleaf")
    assert (answer.status_code, answer.json()["code"]) == (502, "index-unreachable"), answer.text
    assert server.overlay("status"), "nothing else waits"


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


def test_updates_without_an_index(start: Start, index: LocalIndex, tmp_path: Path) -> None:
    home = tmp_path / "home"
    server = start(home=home)
    server.install("tinyleaf")
    server.stop()
    server = start(home=home, spec={"index_url": "http://127.0.0.1:9/simple/"})
    found = server.overlay("updates")
    fits(found, "/updates")
    assert found == {"updates": [], "checked": None, "unreachable": True}


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
    for name in ("", "..", "a b", "1a", "a..b", "a/b", "%2e", "x" * 10_000, "<b>", "a-b"):
        answer = used.get(f"overlay/v1/modules/{quote(name, safe='')}")
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-request"), name


def test_while_packages_come_back(start: Start, index: LocalIndex, tmp_path: Path) -> None:
    home = tmp_path / "home"
    path = home / ".overlay" / "default"
    path.mkdir(parents=True)
    (path / "requirements.txt").write_text("tinyleaf\n")
    server = start(home=home, spec={"index_url": index.prefixed("hang")})
    found = server.overlay("modules/tinyleaf")
    assert found["restoring"] is True and found["packages"] == []


def test_what_the_administrator_asked_for(start: Start) -> None:
    server = start(spec={"requirements": ["tinyleaf"], "restore": "manual"})
    server.install("tinyscript")
    told = {name: (p["requested"], p["administrator"]) for name, p in server.packages().items()}
    assert told == {"tinyleaf": (False, True), "tinyscript": (True, False)}
