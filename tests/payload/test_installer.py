"""Choosing an installer, where it looks for packages, and what its failures are called."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

from overlayspawner.payload import contract
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.installer import choose, pip, uv
from overlayspawner.payload.installer.errors import classify, failure
from overlayspawner.payload.installer.index import pip_env, uv_env
from overlayspawner.payload.probe import Base
from overlayspawner.payload.procs import Result
from tests.support.envs import base, make_context, uv_on_path  # noqa: F401  (fixtures)
from tests.support.index import LocalIndex


@pytest.fixture
def ctx(tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> Context:  # noqa: F811
    """An overlay on a machine without any settings or tools of its own."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "none"))
    monkeypatch.setattr(contract, "UV_DIR", str(tmp_path / "uv-volume"))
    return make_context(tmp_path / "home", base)


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def real_uv(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(Path(sys.executable).parent / "uv")


# -- choosing -------------------------------------------------------------------------------------------


def test_uv_from_the_hub_comes_first(ctx: Context, tmp_path: Path) -> None:
    real_uv(tmp_path / "uv-volume" / "uv")
    found = choose(ctx)
    assert isinstance(found, uv.Uv)
    assert found.path == str(tmp_path / "uv-volume" / "uv")
    assert found.version[0].isdigit()


def test_uv_of_the_image_or_the_overlay(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, env = ctx.require()
    real_uv(Path(env.bin, "uv"))
    found = choose(ctx)
    assert isinstance(found, uv.Uv)
    assert found.path == os.path.join(env.bin, "uv")
    real_uv(tmp_path / "image-bin" / "uv")
    monkeypatch.setenv("PATH", str(tmp_path / "image-bin"))
    found = choose(ctx)
    assert isinstance(found, uv.Uv)
    assert found.path == str(tmp_path / "image-bin" / "uv")


@pytest.mark.parametrize(
    "text",
    [
        "\x7fELF not for this machine",
        "#!/no/such/loader\n",
        "#!/bin/sh\nexit 1\n",
        "#!/bin/sh\necho uv 0.2.1\n",
    ],
)
def test_a_uv_that_does_not_run_or_is_too_old_is_passed_over(ctx: Context, tmp_path: Path, text: str) -> None:
    program(tmp_path / "uv-volume" / "uv", text)
    found = choose(ctx)
    assert isinstance(found, pip.Pip)
    assert found.name == "pip"


def test_the_spec_decides(ctx: Context, tmp_path: Path) -> None:
    real_uv(tmp_path / "uv-volume" / "uv")
    ctx.spec.installer = "pip"
    assert choose(ctx).name == "pip"
    ctx.spec.installer = "uv"
    assert choose(ctx).name == "uv"
    (tmp_path / "uv-volume" / "uv").unlink()
    with pytest.raises(OverlayError) as e:
        choose(ctx)
    assert e.value.code == "installer-missing"


def test_an_old_pip_is_not_used(ctx: Context, tmp_path: Path) -> None:
    _, env = ctx.require()
    Path(env.site_packages, "pip-20.3.4.dist-info").mkdir()
    with pytest.raises(OverlayError) as e:
        choose(ctx)
    assert e.value.code == "installer-missing"
    assert "22.2" in e.value.message


# -- settings -------------------------------------------------------------------------------------------


def test_pips_settings_are_for_both(ctx: Context) -> None:
    config = Path(ctx.home, ".config", "pip", "pip.conf")
    config.parent.mkdir(parents=True)
    config.write_text(
        "[global]\nindex-url = https://u:p@index.example/simple\nextra_index_url =\n  https://one.example\n"
        "  https://two.example\nuser = true\ntarget = /x\n[install]\ntrusted-host = index.example\n"
        "find-links = /wheels https://links.example\ncert = /ca.pem\ntimeout = 7.5\n"
    )
    env = pip_env(ctx)
    assert env["PIP_INDEX_URL"] == "https://u:p@index.example/simple"
    assert env["PIP_EXTRA_INDEX_URL"] == "https://one.example https://two.example"
    assert env["PIP_TRUSTED_HOST"] == "index.example"
    assert env["PIP_CONFIG_FILE"] == os.devnull
    assert "PIP_USER" not in env
    assert "PIP_TARGET" not in env
    env = uv_env(ctx, "/cache")
    assert env["UV_DEFAULT_INDEX"] == "https://u:p@index.example/simple"
    assert env["UV_INDEX"] == "https://one.example https://two.example"
    assert env["UV_FIND_LINKS"] == "/wheels,https://links.example"
    assert env["UV_INSECURE_HOST"] == "index.example"
    assert env["UV_HTTP_TIMEOUT"] == "7"
    assert env["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert env["UV_CACHE_DIR"] == "/cache"


def test_variables_beat_files(ctx: Context) -> None:
    config = Path(ctx.home, ".config", "pip", "pip.conf")
    config.parent.mkdir(parents=True)
    config.write_text("[global]\nindex-url = https://file.example\n")
    environ = {"PIP_INDEX_URL": "https://variable.example"}
    assert pip_env(ctx, environ)["PIP_INDEX_URL"] == "https://variable.example"
    assert uv_env(ctx, "/c", environ)["UV_DEFAULT_INDEX"] == "https://variable.example"
    environ = {"PIP_CONFIG_FILE": os.devnull}
    assert "PIP_INDEX_URL" not in pip_env(ctx, environ)


def test_the_images_uv_settings_are_for_uv(ctx: Context) -> None:
    environ = {
        "UV_INDEX_URL": "https://uv.example",
        "PIP_INDEX_URL": "https://pip.example",
        "PIP_CERT": "/ca.pem",
        "UV_TARGET": "/x",
        "UV_PYTHON": "3.8",
    }
    env = uv_env(ctx, "/c", environ)
    assert env["UV_INDEX_URL"] == "https://uv.example"
    assert "UV_DEFAULT_INDEX" not in env
    assert "UV_INDEX_STRATEGY" not in env
    assert env["SSL_CERT_FILE"] == "/ca.pem"
    assert "UV_TARGET" not in env
    assert "UV_PYTHON" not in env


def test_the_hubs_index_is_the_only_one(ctx: Context) -> None:
    ctx.spec.index_url = "https://hub.example/simple"
    environ = {
        "PIP_EXTRA_INDEX_URL": "https://other.example",
        "PIP_FIND_LINKS": "/wheels",
        "PIP_NO_INDEX": "1",
        "UV_INDEX": "https://other.example",
        "UV_FIND_LINKS": "/wheels",
        "UV_NO_INDEX": "1",
        "PIP_CERT": "/ca.pem",
    }
    for env, key in (
        (pip_env(ctx, environ), "PIP_INDEX_URL"),
        (uv_env(ctx, "/c", environ), "UV_DEFAULT_INDEX"),
    ):
        assert env[key] == "https://hub.example/simple"
        assert "/wheels" not in env.values()
        assert "https://other.example" not in env.values()
        assert "/ca.pem" in env.values()
    ctx.spec.extra_index_urls = ["https://a.example", "https://b.example"]
    assert pip_env(ctx, environ)["PIP_EXTRA_INDEX_URL"] == "https://a.example https://b.example"
    assert uv_env(ctx, "/c", environ)["UV_INDEX"] == "https://a.example https://b.example"


def test_a_damaged_pip_conf_stops_nothing(ctx: Context) -> None:
    config = Path(ctx.home, ".config", "pip", "pip.conf")
    config.parent.mkdir(parents=True)
    config.write_bytes(b"\xff\xfe[global\nno section")
    assert "PIP_INDEX_URL" not in pip_env(ctx, {})


def test_no_credential_on_a_command_line(ctx: Context, tmp_path: Path, index: LocalIndex) -> None:
    """Every user of a machine can read command lines."""
    log = tmp_path / "argv"
    real = Path(sys.executable).parent / "uv"
    program(tmp_path / "uv-volume" / "uv", f'#!/bin/sh\necho "$@" >> {log}\nexec {real} "$@"\n')
    ctx.spec.index_url = index.prefixed("auth", credentials=True)
    result = apply(ctx, "install", install=["tinyscript"])
    assert [p["name"] for p in result["plan"]["new"]] == ["tinyscript"]
    told = log.read_text()
    assert "pip install" in told
    assert "@" not in told
    assert index.user not in told


def test_the_cache_is_on_the_envs_file_system(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert uv.cache_dir(ctx) == os.path.join(ctx.home, ".overlay", ".cache", "uv")
    own = tmp_path / "image-cache"
    own.mkdir()
    monkeypatch.setenv("UV_CACHE_DIR", str(own))
    assert uv.cache_dir(ctx) == str(own)
    monkeypatch.setenv("UV_CACHE_DIR", "/proc")
    assert uv.cache_dir(ctx) == os.path.join(ctx.home, ".overlay", ".cache", "uv")


def test_the_cache_of_an_overlay_that_is_a_volume(
    ctx: Context, tmp_path: Path, index: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies above a mount point is often not the user's to write in, or on another file system."""
    overlay, env = ctx.require()
    real_uv(tmp_path / "uv-volume" / "uv")
    ctx.spec.index_url = index.url
    inside = os.path.join(overlay.path, ".cache", "uv")
    above = os.path.dirname(overlay.path)
    mkdir = uv.files.mkdir

    def refuse(path: str, mode: int = 0o777) -> bool:
        if os.path.dirname(path) == above:
            raise PermissionError(errno.EACCES, "not yours", path)
        return mkdir(path, mode)

    with monkeypatch.context() as m:
        m.setattr(uv.files, "mkdir", refuse)
        assert uv.cache_dir(ctx) == inside
        apply(ctx, "install", install=["tinyscript"])
    assert os.listdir(inside)
    other = "/dev/shm"
    if os.path.isdir(other) and os.stat(other).st_dev != os.stat(env.path).st_dev:
        with tempfile.TemporaryDirectory(dir=other) as folder:
            os.symlink(folder, os.path.join(above, ".cache"))
            assert uv.cache_dir(ctx) == inside


# -- pip's report ---------------------------------------------------------------------------------------


def item(name: str, version: str, *, direct: bool = False, **info: object) -> dict[str, object]:
    return {"metadata": {"name": name, "version": version}, "is_direct": direct, "download_info": info}


def test_exactly_the_files_of_the_report() -> None:
    items = [
        item(
            "Some.Thing", "1.0", url="https://i/x.whl", archive_info={"hashes": {"sha256": "aa", "md5": "bb"}}
        ),
        item("older-report", "1.0", url="https://i/y.whl", archive_info={"hash": "sha256=cc"}),
        item("unhashed", "2.0", url="https://i/z.whl", archive_info={}),
        item("direct", "3.0", direct=True, url="https://d/d.whl", archive_info={"hashes": {"sha256": "dd"}}),
        item("repo", "4.0", direct=True, url="https://g/r.git", vcs_info={"vcs": "git", "commit_id": "e1"}),
        item("secret", "5.0", direct=True, url="https://s/s.whl", archive_info={"hashes": {"sha256": "ff"}}),
    ]
    hashed, other = pip.wanted(items, ["secret @ https://${U}:${P}@s/s.whl", "direct @ https://d/d.whl"])
    assert hashed == [
        "some-thing==1.0 --hash=sha256:aa",
        "older-report==1.0 --hash=sha256:cc",
        "direct @ https://d/d.whl --hash=sha256:dd",
    ]
    assert other == ["unhashed==2.0", "repo @ git+https://g/r.git@e1", "secret @ https://${U}:${P}@s/s.whl"]


@pytest.mark.parametrize(
    "meta",
    [
        {"name": "--index-url=http://elsewhere.example/", "version": "1.0"},
        {"name": "thing", "version": "1.0 --no-index"},
        {"name": "<b>", "version": "1"},
        {},
    ],
)
def test_what_an_index_calls_a_package_becomes_no_option(tmp_path: Path, meta: dict[str, str]) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"install": [{"metadata": meta}]}))
    with pytest.raises(OverlayError) as e:
        pip._read_report(str(report))
    assert e.value.code == "bad-package"


# -- failures -------------------------------------------------------------------------------------------


def test_facts_come_before_words(tmp_path: Path) -> None:
    words = "No matching distribution found"
    assert failure(Result(1, words, cancelled=True), str(tmp_path), "uv").code == "cancelled"
    assert failure(Result(-15, words, timed_out=True), str(tmp_path), "uv").code == "timeout"
    killed = failure(Result(-9, words), str(tmp_path), "uv")
    assert killed.code == "installer-failed"
    assert "memory" in killed.hint
    assert failure(Result(1, words), str(tmp_path), "uv").code == "no-matching-version"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("error: Failed to write: No space left on device (os error 28)", "disk-full"),
        ("ERROR: Could not install packages due to an OSError: [Errno 122] Disk quota exceeded", "disk-full"),
        ("OSError: [Errno 30] Read-only file system: '/home/x'", "read-only"),
        ("something entirely new", "installer-failed"),
        (
            "  \u00d7 No solution found\n  ╰─▶ Because there is no version of\n      foo==9 and",
            "no-matching-version",
        ),
    ],
)
def test_words(text: str, code: str) -> None:
    error = classify(text, "uv")
    assert error.code == code
    assert error.log == text


@pytest.mark.parametrize("installer", ["uv", "pip"])
@pytest.mark.parametrize(
    ("prefix", "codes"),
    [
        ("auth", {"index-auth"}),
        ("garbage", {"index-unreachable", "no-matching-version", "no-such-package"}),
        ("garbage-files", {"bad-package"}),
        pytest.param("500", {"index-unreachable"}, marks=pytest.mark.slow),
        pytest.param("reset", {"index-unreachable"}, marks=pytest.mark.slow),
        pytest.param("reset-files", {"index-unreachable"}, marks=pytest.mark.slow),
    ],
)
def test_a_bad_index(
    ctx: Context,
    tmp_path: Path,
    index: LocalIndex,
    installer: str,
    prefix: str,
    codes: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "1")
    real_uv(tmp_path / "uv-volume" / "uv")
    ctx.spec.installer = installer
    ctx.spec.index_url = index.prefixed(prefix)
    with pytest.raises(OverlayError) as e:
        apply(ctx, "install", install=["tinyscript"])
    assert e.value.code in codes, e.value.log
    assert e.value.log


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_no_index_at_all(
    ctx: Context, tmp_path: Path, installer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    real_uv(tmp_path / "uv-volume" / "uv")
    ctx.spec.installer = installer
    ctx.spec.index_url = "http://127.0.0.1:9/simple/"
    with pytest.raises(OverlayError) as e:
        apply(ctx, "install", install=["tinyscript"])
    assert e.value.code == "index-unreachable", e.value.log
