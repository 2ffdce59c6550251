"""Locks: what is in them, what must never be, and what becomes of damaged ones."""

from __future__ import annotations

import builtins
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib

from overlayspawner.payload import lockfile, pylock
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.probe import Base
from tests.support.envs import (
    base,  # noqa: F401  (a fixture)
    make_context,
    put,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.index import LocalIndex
from tests.support.wheels import make_wheel


@pytest.fixture
def ctx(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    installer: str,
) -> Iterator[Context]:
    yield make_context(tmp_path / "home", base, installer=installer, index_url=index.url)


def locked(ctx: Context) -> dict[str, Any]:
    """The lock as any reader of TOML sees it."""
    _, env = ctx.require()
    return tomllib.loads(Path(env.lock_file).read_text())


def packages(ctx: Context) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in locked(ctx)["packages"]}


def sha256(index: LocalIndex, name: str) -> str:
    return index.files[name].sha256


def test_a_lock_after_each_change(ctx: Context, index: LocalIndex) -> None:
    apply(ctx, "install", install=["tinytree"])
    data = locked(ctx)
    assert data["lock-version"] == "1.0"
    assert data["created-by"] == "overlayspawner"
    assert data["requires-python"] == f"=={ctx.base.version}.*"
    own = data["tool"]["overlayspawner"]
    assert own["base"] == {"key": ctx.base.key, "lock": ctx.base_lock}
    assert own["revision"] == 1
    found = packages(ctx)
    assert {name: item["version"] for name, item in found.items()} == {"tinyleaf": "2.0", "tinytree": "2.0"}
    for name, item in found.items():
        (wheel,) = item["wheels"]
        assert wheel["url"].endswith(f"{name}-2.0-py3-none-any.whl")
        assert wheel["hashes"] == {"sha256": sha256(index, f"{name}-2.0-py3-none-any.whl")}
        assert "tool" not in item
    # the index is not asked for what is known
    before = len(index.requests)
    overlay, env = ctx.require()
    assert lockfile.write(ctx, env)
    assert len(index.requests) == before
    assert locked(ctx) == data
    apply(ctx, "uninstall", uninstall=["tinytree"])
    assert locked(ctx)["tool"]["overlayspawner"]["revision"] == 2
    assert locked(ctx).get("packages", []) == []
    assert not lockfile.stale(overlay, env)


def test_what_comes_from_elsewhere(ctx: Context, index: LocalIndex, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{index.port}/files/tinyscript-1.0-py3-none-any.whl"
    wheel = make_wheel(tmp_path, "tinylocal", "1.0")
    apply(ctx, "install", install=[f"tinyscript @ {url}", str(wheel), "tinysdist"])
    found = packages(ctx)
    assert found["tinyscript"]["archive"]["url"] == url
    assert found["tinylocal"]["archive"]["url"] == f"file://{wheel}"
    # an sdist was built here; what it was built from is known
    assert found["tinysdist"]["sdist"]["hashes"]["sha256"] == sha256(index, "tinysdist-1.0.tar.gz")
    lock = lockfile.read(ctx.require()[1].lock_file)
    assert lock.packages["tinyscript"].direct
    assert not lock.packages["tinysdist"].direct


def test_an_unknown_hash_is_marked(ctx: Context, tmp_path: Path) -> None:
    _, env = ctx.require()
    put(Path(env.site_packages), make_wheel(tmp_path, "somewhere", "3.0"))
    assert lockfile.write(ctx, env)
    item = packages(ctx)["somewhere"]
    assert item["tool"]["overlayspawner"]["hash"] == "unknown"
    assert lockfile.read(env.lock_file).packages["somewhere"].pin() == "somewhere==3.0"


def test_one_unknown_package_does_not_hide_the_others(
    ctx: Context, index: LocalIndex, tmp_path: Path
) -> None:
    apply(ctx, "install", install=["tinytree"])
    overlay, env = ctx.require()
    put(Path(env.site_packages), make_wheel(tmp_path, "somewhere", "3.0"))
    if ctx.spec.installer == "uv":
        # as if it had never been written: all is asked of the cache again
        os.unlink(env.lock_file)
        os.unlink(lockfile.path(overlay, env))
    assert lockfile.write(ctx, env)
    found = packages(ctx)
    assert found["tinyleaf"]["wheels"][0]["hashes"]["sha256"] == sha256(
        index, "tinyleaf-2.0-py3-none-any.whl"
    )
    assert found["somewhere"]["tool"]["overlayspawner"]["hash"] == "unknown"


def test_credentials_of_the_index_stay_out(ctx: Context, index: LocalIndex) -> None:
    ctx.spec.index_url = index.prefixed("auth", credentials=True)
    apply(ctx, "install", install=["tinytree"])
    assert set(packages(ctx)) == {"tinytree", "tinyleaf"}
    _nowhere(ctx, index.password, "p%40ss")


def test_credentials_of_a_requirement_stay_out(
    ctx: Context, index: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay, _ = ctx.require()
    where = f"127.0.0.1:{index.port}/files"
    monkeypatch.setenv("MY_TOKEN", "t0ps3cret")
    Path(overlay.requirements).write_text(
        f"tinyscript @ http://me:t0ps3cret@{where}/tinyscript-1.0-py3-none-any.whl\n"
        f"tinydata @ http://{where}/tinydata-1.0-py3-none-any.whl?token=t0ps3cret\n"
        f"tinyleaf @ http://${{MY_TOKEN}}@{where}/tinyleaf-1.0-py3-none-any.whl\n"
    )
    apply(ctx, "sync")
    assert packages(ctx)["tinyscript"]["archive"]["url"] == f"http://{where}/tinyscript-1.0-py3-none-any.whl"
    assert packages(ctx)["tinydata"]["archive"]["url"] == f"http://{where}/tinydata-1.0-py3-none-any.whl"
    _nowhere(ctx, "t0ps3cret")


def _nowhere(ctx: Context, *secrets: str) -> None:
    overlay, env = ctx.require()
    for path in (env.lock_file, lockfile.path(overlay, env)):
        text = Path(path).read_text()
        assert not [secret for secret in secrets if secret in text]


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://me:secret@host/a.whl", "https://host/a.whl"),
        ("https://secret@host:8443/a.whl?x=secret#sha256=secret", "https://host:8443/a.whl"),
        ("https://host/a.whl?sig=secret", "https://host/a.whl"),
        ("ssh://git@host/me/project", "ssh://git@host/me/project"),
        ("git+https://oauth2:secret@host/me/project", "git+https://host/me/project"),
        ("file:///home/me/a.whl", "file:///home/me/a.whl"),
        ("wheels/a.whl", "wheels/a.whl"),
        ("https://me:sec[ret@host/a.whl", ""),
    ],
)
def test_urls_lose_what_may_be_secret(url: str, clean: str) -> None:
    assert pylock.without_credentials(url) == clean
    assert "secret" not in pylock.without_credentials(url)


def test_what_is_written_is_read_again() -> None:
    odd = 'quote " backslash \\ tab \t delete \x7f snowman ☃ bell \x07'
    lock = pylock.Lock(
        base={"key": "k", "lock": odd},
        python="3.11.7",
        revision=7,
        packages={
            "a": pylock.Locked(
                "a", "1.0", {"wheels": [{"url": "https://h/a.whl", "hashes": {"sha256": "0" * 64}}]}
            ),
            "b": pylock.Locked(
                "b", "2!1.0+local", {"vcs": {"type": "git", "url": "https://h/b", "commit-id": "c"}}, True
            ),
            "c": pylock.Locked("c", "1", {}),
        },
    )
    text = pylock.dumps(lock)
    data = tomllib.loads(text)
    assert data["tool"]["overlayspawner"]["base"]["lock"] == odd
    assert [item["name"] for item in data["packages"]] == ["a", "b", "c"]


def test_a_round_trip(tmp_path: Path) -> None:
    lock = pylock.Lock(
        base={"key": "k", "lock": "l"},
        python="3.9.1",
        revision=2,
        packages={
            "a": pylock.Locked(
                "a", "1.0", {"sdist": {"url": "https://h/a.tar.gz", "hashes": {"sha256": "a" * 64}}}
            ),
            "b": pylock.Locked(
                "b", "1.0", {"directory": {"path": "file:///b", "editable": True}}, compiled=True
            ),
        },
    )
    path = tmp_path / "pylock.toml"
    path.write_text(pylock.dumps(lock))
    assert pylock.read(str(path)) == lock
    assert lock.packages["a"].pin() == "a==1.0 --hash=sha256:" + "a" * 64
    assert lock.packages["a"].pin(hashes=False) == "a==1.0"


@pytest.mark.parametrize(
    "text",
    [
        "[[[",
        "\0" * 100,
        "packages = 3",
        "[[packages]]\nversion = '1'",
        "packages = ['a']",
        "a = " + "[" * 5000,
        "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    ],
)
def test_what_is_no_lock(text: str, tmp_path: Path) -> None:
    path = tmp_path / "pylock.toml"
    path.write_text(text)
    with pytest.raises(OverlayError) as e:
        pylock.read(str(path))
    assert e.value.code == "damaged-file"


def test_foreign_digests_and_urls_never_become_options(tmp_path: Path) -> None:
    path = tmp_path / "pylock.toml"
    path.write_text(
        '[[packages]]\nname = "a"\nversion = "1.0"\n'
        'wheels = [{ url = "https://h/a.whl", hashes = { sha256 = "x --index-url=https://evil" } }]\n'
    )
    assert [item.pin() for item in pylock.read(str(path)).packages.values()] == ["a==1.0"]
    for name, version in (
        ("b", "1.0\\n--index-url=https://evil"),
        ("b --index-url=https://evil", "1.0"),
        ("", "1"),
    ):
        path.write_text(f'[[packages]]\nname = "{name}"\nversion = "{version}"\n')
        with pytest.raises(OverlayError):
            pylock.read(str(path))


def test_pythons_without_tomllib(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__
    hidden = {"tomllib"}

    class Finder:
        @staticmethod
        def find_spec(name: str, *rest: object) -> None:
            if name in hidden:
                raise ModuleNotFoundError(name)

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    for name in ("tomllib", "tomli", "pip._vendor.tomli"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert builtins.__import__ is real
    assert pylock.loads("a = 1") == {"a": 1}
    assert "tomllib" not in sys.modules
    hidden |= {"tomli", "pip._vendor.tomli"}
    for name in ("tomli", "pip._vendor.tomli"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(OverlayError) as e:
        pylock.loads("a = 1")
    assert e.value.code == "not-available"


def test_a_stale_lock_is_recognised(ctx: Context) -> None:
    overlay, env = ctx.require()
    assert not lockfile.stale(overlay, env)
    apply(ctx, "install", install=["tinyscript"])
    old = Path(env.lock_file).read_text()
    apply(ctx, "install", install=["tinydata"])
    assert not lockfile.stale(overlay, env)
    for path in (env.lock_file, lockfile.path(overlay, env)):
        Path(path).write_text(old)
    assert lockfile.stale(overlay, env)
    Path(env.lock_file).write_text("garbage")
    assert lockfile.stale(overlay, env)
    assert lockfile.write(ctx, env)
    assert not lockfile.stale(overlay, env)


def test_a_lock_that_cannot_be_written_fails_no_change(ctx: Context) -> None:
    overlay, env = ctx.require()
    os.mkdir(env.lock_file)
    Path(overlay.path, "locks").write_text("in the way")
    apply(ctx, "install", install=["tinyscript"])
    assert "tinyscript" in overlay_dists(env)
    assert lockfile.stale(overlay, env)


def test_the_copy_outlives_the_env(ctx: Context) -> None:
    apply(ctx, "install", install=["tinyscript"])
    overlay, env = ctx.require()
    shutil.rmtree(env.path)
    lock = lockfile.find(overlay, env)
    assert lock is not None
    assert lock.packages["tinyscript"].hashes
