"""Finding packages: what comes first, what fits, what an index that fails does; with real indexes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import catalogue, dists
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.finder import Finder
from overlayspawner.payload.imported import table
from overlayspawner.payload.installer import asking, similar
from overlayspawner.payload.overlay import Env
from overlayspawner.payload.probe import Base
from overlayspawner.payload.requirements import normalise
from tests.index.recipes import HTML
from tests.support.envs import base, make_context, uv_on_path  # noqa: F401
from tests.support.index import LocalIndex, make_wheel

pytestmark = pytest.mark.slow


@pytest.fixture
def ctx(tmp_path: Path, base: Base, index: LocalIndex, uv_on_path: None) -> Context:  # noqa: F811
    """An empty overlay."""
    return make_context(tmp_path / "home", base, index_url=index.url)


@pytest.fixture
def finder(ctx: Context) -> Finder:
    return Finder(lambda: ctx)


def named(found: dict[str, Any]) -> list[str]:
    return [item["name"] for item in found["results"]]


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
def test_what_is_meant_comes_first(finder: Finder, text: str, first: str) -> None:
    assert named(finder.search(text))[0] == first


def test_a_name_that_looks_mistyped_stands_below_what_may_be_meant(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    with LocalIndex(tmp_path / "index", recipes=False) as other:
        for name in ("reqeusts", "nump", "house-made"):
            other.add(make_wheel(tmp_path / "index", name, "1.0", summary=HTML))
        ctx.spec.index_url = other.url
        finder = Finder(lambda: ctx)
        found = finder.search("reqeusts")
        assert (found["index"], named(found)[0]) == ("found", "requests")
        # whoever made it may have written anything there: a text, unchanged
        (hit,) = [item for item in found["results"] if item["name"] == "reqeusts"]
        assert (hit["summary"], hit["source"]) == (HTML, "index")
        found = named(finder.search("nump"))
        assert found[0] == "numpy" and found.index("nump") <= 7
        assert named(finder.search("House_Made==1.0"))[0] == "house-made"


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
    finder: Finder, name: str, newest: str, fitting: list[bool], told: dict[str, str]
) -> None:
    found = finder.project(name)
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


def test_rules_of_the_hub(ctx: Context, finder: Finder) -> None:
    ctx.spec.deny, ctx.spec.only_binary = ["tinydata", "tinyleaf<2", "pand*"], [":all:"]
    assert finder.project("tinydata")["blocked"] and not finder.project("tinyleaf")["blocked"]
    assert [v["fits"] for v in finder.project("tinyleaf")["versions"]] == [True, False, False]
    assert finder.project("tinysdist")["versions"][0]["fits"] is False
    (hit,) = [i for i in finder.search("tinydata")["results"] if i["name"] == "tinydata"]
    assert "tinydata" in hit["blocked"]
    assert finder.search("pandas")["results"][0]["blocked"], "who asks for it is told"
    assert "pandas" not in named(finder.search("panda")), "nobody else is offered it"
    assert finder.modules("pandas")["packages"] == [] != finder.modules("numpy")["packages"]


def test_only_what_is_old_enough(ctx: Context, finder: Finder, tmp_path: Path) -> None:
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
        ctx.spec.index_url, ctx.spec.exclude_newer = other.url, "2022-01-01"
        told = [(v["version"], v["fits"], v["uploaded"]) for v in finder.project("tinyleaf")["versions"]]
        assert told == [
            ("3.0", None, None),
            ("2.0", False, "2024-01-01T00:00:00Z"),
            ("1.0", True, "2020-01-01T00:00:00Z"),
        ]


def test_pages_of_html_tell_as_much_as_they_can(
    ctx: Context, finder: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_ACCEPT", "text/html")
    found = finder.project("tinypast")
    assert (found["newest"], found["summary"]) == ("1.0", "A test package called tinypast.")
    assert [(v["fits"], v["size"]) for v in found["versions"]] == [(False, None), (True, None)]


def test_an_index_that_wants_a_password(ctx: Context, index: LocalIndex) -> None:
    ctx.spec.index_url = index.prefixed("auth", credentials=True)
    finder = Finder(lambda: ctx)
    found = finder.search("tinydata"), finder.project("tinydata")
    assert found[0]["index"] == "found" and found[1]["summary"]
    assert index.password not in json.dumps(found)
    ctx.spec.index_url = index.prefixed("auth")
    finder = Finder(lambda: ctx)
    assert finder.search("tinydata")["index"] == "unreachable"
    with pytest.raises(OverlayError) as e:
        finder.project("tinydata")
    assert (e.value.code, e.value.status) == ("index-auth", 502)


@pytest.mark.parametrize("fault", ["hang", "garbage", "endless", "reset", "503"])
def test_an_index_that_fails(ctx: Context, finder: Finder, index: LocalIndex, fault: str) -> None:
    ctx.spec.index_url = index.prefixed(fault)
    before = len(index.requests)
    found = finder.search("numpy")
    assert (found["index"], named(found)[0]) == ("unreachable", "numpy")
    with pytest.raises(OverlayError) as e:
        finder.project("numpy")
    assert (e.value.code, e.value.status) == ("index-unreachable", 502)
    assert len(index.requests) == before + 1, "both waited for one answer"
    assert finder.search("numpyx")["index"] == "unreachable"
    assert len(index.requests) == before + 1, "it is not asked again by what is typed"


def test_only_web_pages_are_asked_for_and_links_are_pages(tmp_path: Path) -> None:
    secret = tmp_path / "secret.metadata"
    secret.write_text("Summary: a secret\n")
    with pytest.raises(ValueError, match="web page"):
        asking._open(f"file://{secret}", "", {})
    assert asking.Index({}).read(f"file://{secret}") == b""
    bad = ("javascript:alert(1)", "data:text/html,x", "http://a b", "https://u:x@y.example/", "//x", "http:x")
    for url in bad:
        assert catalogue._web(url) == "", url
    assert catalogue._web("https://x.example/a?b#c") == "https://x.example/a?b#c"


def test_what_pypi_itself_tells() -> None:
    info = {"summary": HTML, "home_page": None, "project_urls": {"Homepage": "https://x.example/"}}
    told = catalogue._legacy(json.dumps({"info": info}).encode())
    assert dict(told) == {"summary": HTML, "project-url": "Homepage,https://x.example/"}
    for raw in (b"", b"[]", b"[" * 100_000, b'{"info": 1}', b'{"info": {"project_urls": [1]}}', b"\xff"):
        assert catalogue._legacy(raw) == []


def test_no_index_at_all(ctx: Context, finder: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx.spec.index_url = ""
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert finder.search("numpy")["index"] == "skipped"
    with pytest.raises(OverlayError, match="no package index"):
        finder.project("numpy")


# -- updates ----------------------------------------------------------------------------------------------


def test_updates_without_an_index(ctx: Context, finder: Finder, index: LocalIndex) -> None:
    apply(ctx, "install", install=["tinyscript"])
    ctx.spec.index_url = index.prefixed("503")
    assert finder.updates() == {"updates": [], "checked": None, "unreachable": True}


def test_what_the_administrator_asked_for(ctx: Context, finder: Finder) -> None:
    ctx.spec.requirements = ["tinytree==1.0"]
    apply(ctx, "install", install=["tinyscript"])
    told = {p["name"]: (p["requested"], p["administrator"]) for p in dists.packages(ctx)}
    assert (told["tinytree"], told["tinyscript"]) == ((False, True), (True, False))
    assert finder.updates()["updates"] == []
    # of one that is no requirement the next change tells
    ctx.spec.requirements = ["tinytree", "no requirement at all"]
    assert {p["name"] for p in dists.packages(ctx) if p["administrator"]} == {"tinytree"}
    assert finder.updates()["updates"] == [{"name": "tinytree", "version": "1.0", "newest": "2.0"}]


# -- modules ----------------------------------------------------------------------------------------------


def test_the_table_holds_well_known_packages_only() -> None:
    ranks = similar.popular()
    assert len(table()) > 500
    for module, names in table().items():
        assert all(part.isidentifier() for part in module.split(".")), module
        assert all(name == normalise(name) for name in names), module
        # anybody may have registered a package of the module's name: of these, only what very many use
        assert normalise(module) not in names or ranks.get(normalise(module), 9) <= 1, module
    assert table()["cv2"][0] == "opencv-python" and table()["PIL"] == ("pillow",)


def test_what_the_user_had(ctx: Context, finder: Finder, base: Base) -> None:  # noqa: F811
    apply(ctx, "install", install=["tinydata"])
    overlay, env = ctx.require()
    there = [{"name": "tinydata", "source": "record", "installed": True}]
    assert finder.modules("tinydata.inside")["packages"] == there
    # another image: that of before is still there
    ctx.env = Env(os.path.join(overlay.envs, "other"), ctx.base.version)
    os.makedirs(os.path.join(overlay.envs, "other", "lib", f"python{ctx.base.version}", "site-packages"))
    there = [{"name": "tinydata", "source": "record", "installed": False}]
    found = finder.modules("tinydata")
    assert (found["packages"], found["restoring"]) == (there, True)
    ctx.spec.restore = "manual"
    assert finder.modules("tinydata")["restoring"] is False
    # and where that is gone, its lock is not
    os.rename(env.path, os.path.join(ctx.home, "gone"))
    there = [{"name": "tinydata", "source": "lock", "installed": False}]
    assert finder.modules("tinydata")["packages"] == there
    # a package of that name is in the index, and the user never had it
    assert finder.modules("tinybig")["packages"] == []


# -- odd indexes ------------------------------------------------------------------------------------------


@pytest.fixture
def odd(ctx: Context) -> Iterator[dict[str, list[str] | int]]:
    """The index of a context: name → names of files or a status; the address of each file is none."""
    projects: dict[str, list[str] | int] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = projects.get(self.path.strip("/").rpartition("/")[2], 404)
            there = [] if isinstance(found, int) else found
            files = [{"filename": name, "url": "http://[", "core-metadata": True} for name in there]
            self.send_response(found if isinstance(found, int) else 200)
            self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
            self.end_headers()
            self.wfile.write(json.dumps({"files": files}).encode())

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ctx.spec.index_url = f"http://127.0.0.1:{server.server_port}/simple"
        yield projects
        server.shutdown()


def test_an_index_with_odd_files(odd: dict[str, Any], finder: Finder) -> None:
    odd["house"] = [
        "house-1.0-py3-none-any.whl",
        *(f"house-2.0{pre}.tar.gz" for pre in ("-beta1", ".rc1", "c1", "-dev", "_pre1")),
        "house-boat-9.0.tar.gz",
    ]
    found = finder.project("house")
    assert (found["newest"], found["summary"]) == ("1.0", "")
    assert {v["version"] for v in found["versions"] if not v["prerelease"]} == {"1.0"}
    assert finder.search("house")["index"] == "found"


def test_an_index_that_denies_one_name(odd: dict[str, Any], finder: Finder) -> None:
    odd.update(secret=403, house=["house-1.0-py3-none-any.whl"])
    assert finder.search("secret")["index"] == "unreachable"
    assert finder.search("house")["index"] == "found"


def test_updates_are_what_an_upgrade_would_bring(
    odd: dict[str, Any],
    ctx: Context,
    finder: Finder,
) -> None:
    overlay, env = ctx.require()
    there = {"early": "2.0rc1", "late": "2.0rc1", "marked": "1.0", "limited": "1.0", "free": "1.0"}
    for name, version in there.items():
        info = Path(env.site_packages, f"{name}-{version}.dist-info")
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        odd[name] = [f"{name}-{v}-py3-none-any.whl" for v in ("1.0", "1.5", "2.0rc1", "2.0rc2")]
    lines = ["early>=2.0rc1", "late", "marked<1.5 ; python_version < '3'", "marked", "limited", "free"]
    Path(overlay.requirements).write_text("\n".join(lines))
    ctx.spec.constraints = ["Limited<1.5", "free<1.5 ; python_version < '3'"]
    found = {item["name"]: item["newest"] for item in finder.updates()["updates"]}
    assert found == {"early": "2.0rc2", "marked": "1.5", "free": "1.5"}


def test_links_that_never_end_are_looked_at_once() -> None:
    # minutes, if from each were looked for the end of it; with that a server stands still
    good = b'<a href="a-1.0-py3-none-any.whl" data-yanked="">a</a>'
    files = asking._html_files(b"<a " * 2_000_000 + b"x" * 4_001 + b">" + good)
    assert files is not None and [(file.name, file.yanked) for file in files] == [
        (
            "a-1.0-py3-none-any.whl",
            True,
        )
    ]


def test_what_kernels_do_not_see_is_not_installed(ctx: Context, finder: Finder) -> None:
    info = Path(dists.user_site(ctx), "mine-1.0.dist-info")
    info.mkdir(parents=True)
    (info / "RECORD").write_text("mine/__init__.py,,\n")
    assert finder.modules("mine")["packages"] == [{"name": "mine", "source": "record", "installed": True}]
    ctx.spec.user_site = "never"
    assert finder.modules("mine")["packages"] == [{"name": "mine", "source": "record", "installed": False}]
