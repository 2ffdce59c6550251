"""Every failure of an installation says what happened, why, and what to do: provoked with both tools."""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
from pathlib import Path

import pytest

from overlayspawner.payload import contract, report
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.installer import asking, errors, similar, versions
from overlayspawner.payload.installer.asking import File, Index
from overlayspawner.payload.installer.errors import failure
from overlayspawner.payload.probe import Base
from overlayspawner.payload.procs import Result
from tests.support import provoke
from tests.support.envs import env_snapshot, make_base, make_context
from tests.support.index import LocalIndex
from tests.support.provoke import CASES

SECRETS = ("hidden-word", "hidden-token", "p@ss", "p%40ss")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A base that satisfies nothing of what is asked for."""
    return make_base(tmp_path_factory.mktemp("base") / "image")


@pytest.fixture
def ctx(tmp_path: Path, base: Base, installer: str, monkeypatch: pytest.MonkeyPatch) -> Context:
    """An overlay on a machine without settings of its own, for each installer."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "none"))
    monkeypatch.setattr(contract, "UV_DIR", str(tmp_path / "uv-volume"))
    (tmp_path / "uv-volume").mkdir()
    (tmp_path / "uv-volume" / "uv").symlink_to(Path(sys.executable).parent / "uv")
    return make_context(tmp_path / "home", base, installer=installer)


@pytest.mark.parametrize("name", CASES)
def test_what_it_says(ctx: Context, index: LocalIndex, name: str, installer: str) -> None:
    case = CASES[name]
    if name in ("no-header", "no-library") and shutil.which("gcc") is None:
        pytest.skip("no compiler here")
    error = provoke.provoke(ctx, case, index)
    told = f"{error.message} {error.hint}"
    assert error.code == case.code, error.log
    for part in case.says:
        part = part.replace("{port}", str(index.port))
        assert part in told or ("{closed}" in part and re.search(r"127\.0\.0\.1:\d+", told))
    first = error.message.removesuffix(f" {errors.SAME}")
    assert error.message != first and "\n" not in error.message
    assert error.hint.endswith((".", "?"))
    assert error.log and len(error.log) <= 40_000
    for text in (error.message, error.hint, error.log):
        assert not any(secret in text for secret in SECRETS)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text)
    assert first != errors.says(error.code)[0]
    # and the manual shows it
    shown = provoke.shown(error)
    lines = [line for line in provoke.PAGE.read_text().splitlines() if f"| {case.what} |" in line]
    mine = [line for line in lines if installer in line.split(" | ")[1].split(", ")]
    assert [line.partition(f" | {line.split(' | ')[1]} | ")[2] for line in mine] == [f"{shown} |"]


def test_the_page_shows_every_case() -> None:
    text = provoke.PAGE.read_text()
    assert text.startswith(provoke.HEAD)
    assert set(re.findall(r"^## (.*)$", text, re.MULTILINE)) == {c.code for c in CASES.values()}
    shown = set(re.findall(r"^\| ([^|]*) \| (?:uv|pip|uv, pip) \|", text, re.MULTILINE))
    assert shown == {case.what for case in CASES.values()}


@pytest.mark.parametrize("name", ["misspelt", "past", "conflict", "refused", "401", "liar"])
def test_a_plan_says_the_same(ctx: Context, index: LocalIndex, name: str) -> None:
    before = env_snapshot(ctx)
    error = provoke.provoke(ctx, CASES[name], index, planned=True)
    assert error.code == CASES[name].code
    shown = provoke.shown(error)
    assert shown in provoke.PAGE.read_text()
    assert env_snapshot(ctx) == before


def test_huge_metadata_is_not_shown_and_eats_no_memory(ctx: Context, index: LocalIndex) -> None:
    ctx.spec.index_url = index.url
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = apply(ctx, "install", install=["tinyhuge"])
    listed = report.packages(ctx, "overlay") if hasattr(report, "packages") else {}
    assert len(str(result)) < 20_000
    assert len(str(listed)) < 20_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_credentials_of_the_index_are_used_for_asking_and_never_shown(
    ctx: Context, index: LocalIndex
) -> None:
    ctx.spec.index_url = index.prefixed("auth", credentials=True)
    with pytest.raises(OverlayError) as e:
        apply(ctx, "install", install=["tinypast==2.0"])
    assert "tinypast 2.0 needs Python >=4" in e.value.message
    told = str(e.value.to_dict())
    assert not any(secret in told for secret in SECRETS)
    asked = [r for r in index.requests if r.path == "/auth/simple/tinypast/" and r.agent == "overlayspawner"]
    assert asked[-1].authorized


# -- asking the index -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "state", "why"),
    [
        ("", "found", ""),
        ("auth", "denied", "it answered 401"),
        ("403", "denied", "it answered 403"),
        ("404", "missing", ""),
        ("503", "unreachable", "it answered 503"),
        ("reset", "unreachable", "it broke off the connection"),
        ("cut", "unreachable", "it broke off the connection"),
        ("garbage", "unreachable", "its answer made no sense"),
        ("loop", "unreachable", "it redirects in a circle"),
        ("hang", "unreachable", "it did not answer in time"),
        ("endless", "unreachable", "it did not answer in time"),
    ],
)
def test_asking_never_fails(
    index: LocalIndex, prefix: str, state: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 1.0)
    monkeypatch.setattr(asking, "MAX_BYTES", 1_000_000)
    url = index.prefixed(prefix) if prefix else index.url
    (answer,) = Index({"UV_DEFAULT_INDEX": url}).ask("tinyleaf")
    assert (answer.state, answer.why, answer.host) == (state, why, f"127.0.0.1:{index.port}")
    assert bool(answer.files) == (state == "found")


def test_tls_and_addresses_nobody_knows(index: LocalIndex) -> None:
    url = index.untrusted_url
    (answer,) = Index({"PIP_INDEX_URL": url}).ask("tinyleaf")
    assert answer.why == "its TLS certificate is not trusted here"
    (answer,) = Index({"PIP_INDEX_URL": url, "PIP_TRUSTED_HOST": "127.0.0.1"}).ask("tinyleaf")
    assert answer.state == "found"
    (answer,) = Index({"PIP_INDEX_URL": "https://index.invalid/simple"}).ask("tinyleaf")
    assert answer.why == "its name can't be resolved (DNS)"
    assert Index({"UV_DEFAULT_INDEX": "file:///etc", "UV_INDEX": "ftp://x/y"}).urls == []
    assert Index({"PIP_NO_INDEX": "1"}).urls == []


def test_all_indexes_are_asked_and_their_passwords_known() -> None:
    index = Index(
        {
            "UV_DEFAULT_INDEX": "https://a:p%40ssword@one.example/simple",
            "UV_INDEX": "two=https://two.example/s",
        }
    )
    assert index.hosts == ["one.example", "two.example"]
    assert index.secrets == ("p%40ssword", "p@ssword")


def test_html_pages() -> None:
    raw = b"""<html><a href="../../x/thing-1.0-py3-none-any.whl#sha256=0" data-requires-python="&gt;=4">t</a>
    <A HREF='thing-0.9.tar.gz' data-yanked>t</A><a>no</a><a href="other.txt">t</a></html>"""
    assert asking._html_files(raw) == [
        File("thing-1.0-py3-none-any.whl", ">=4", url="../../x/thing-1.0-py3-none-any.whl"),
        File("thing-0.9.tar.gz", "", True, url="thing-0.9.tar.gz"),
    ]
    assert asking._html_files(b"\xff\xfe") is None
    assert asking._json_files(b"[" * 100_000) is None
    assert asking._json_files(b'{"files": [{"filename": "a", "yanked": "why"}]}') == [File("a", "", True)]


# -- versions and names -----------------------------------------------------------------------------------


def wheel(version: str, tags: str = "py3-none-any", python: str = "", *, yanked: bool = False) -> File:
    return File(f"thing-{version}-{tags}.whl", python, yanked)


@pytest.mark.parametrize(
    ("specifier", "files", "parts"),
    [
        ("==3", [wheel("1.0"), wheel("10.0"), wheel("9.0")], ["no version 3: there are 10.0, 9.0, 1.0"]),
        (
            ">=2",
            [wheel("1.0"), wheel("2.0", python="<3.9")],
            ["thing 2.0 needs Python <3.9", "has 3.12", "is 1.0"],
        ),
        ("", [wheel("1.0rc1")], ["pre-releases", "1.0rc1", "thing==1.0rc1"]),
        ("", [wheel("1.0", "cp38-cp38-win_amd64")], ["Python 3.8", "Windows"]),
        ("", [wheel("1.0", "py3-none-macosx_11_0_arm64")], ["macOS (arm64)"]),
        ("", [File("thing-2.0.tar.gz", ">=3.13"), wheel("1.0")], ["2.0 needs Python >=3.13", "thing==1.0"]),
    ],
)
def test_why_no_version_fits(specifier: str, files: list[File], parts: list[str]) -> None:
    found = versions.unavailable("thing", specifier, files, "3.12.1")
    assert found is not None
    for part in parts:
        assert part in " ".join(found)


def test_a_version_that_should_fit_is_not_explained_away() -> None:
    assert versions.unavailable("thing", ">=1", [wheel("1.0")], "3.12.1") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sklearn", "scikit-learn"),
        ("cv2", "opencv-python"),
        ("PIL", "pillow"),
        ("bs4", "beautifulsoup4"),
        ("nunpy", "numpy"),
        ("pandsa", "pandas"),
        ("scikit_lern", "scikit-learn"),
        ("scikitlearn", "scikit-learn"),
        ("tensorflw", "tensorflow"),
        ("yaml", "pyyaml"),
        ("house-pakage", "house-package"),
    ],
)
def test_close_names(name: str, expected: str) -> None:
    found = similar.close(name, ["house-package"])
    assert found[0] == expected
    assert len(found) <= similar.SHOWN


@pytest.mark.parametrize("name", ["numpy", "qqqqqqqqqq", "x", "z" * 2000])
def test_what_is_close_to_nothing(name: str) -> None:
    assert name not in similar.close(name)
    assert len(similar.close(name)) <= similar.SHOWN
    if name != "numpy":
        assert similar.close(name) == []


def test_a_close_name_is_never_installed(ctx: Context, index: LocalIndex) -> None:
    ctx.spec.index_url = index.url
    apply(ctx, "install", install=["tinyscript"])
    with pytest.raises(OverlayError) as e:
        apply(ctx, "install", install=["tinyscritp"])
    assert e.value.hint == "Did you mean tinyscript?"
    assert "/simple/tinyscritp/" in {r.path for r in index.requests}


# -- facts ------------------------------------------------------------------------------------------------


def test_a_quota_and_a_full_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = failure(Result(1, "error: Disk quota exceeded (os error 122)"), str(tmp_path), "uv")
    assert (error.code, error.message) == ("disk-full", f"Your quota of storage is used up. {errors.SAME}")
    full = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    error = failure(Result(1, full), str(tmp_path), "pip")
    assert re.match(r"There is not enough space left in your storage \([\d.,]+ \w+ free\)\.", error.message)


@pytest.mark.parametrize("rc", [-9, 137])
def test_out_of_memory(tmp_path: Path, rc: int) -> None:
    error = failure(Result(rc, ""), str(tmp_path), "uv")
    assert error.code == "installer-failed"
    assert "memory ran out" in error.message and "kernels" in error.hint
