"""What can be freed, what deleting it really frees, and that nothing else goes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import cleanup, cli, lease, revisions, sizes, undo, uvcache
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.installer import choose, uv
from overlayspawner.payload.overlay import Env
from overlayspawner.payload.probe import Base
from tests.support.doctor import assert_clean
from tests.support.envs import (
    env_snapshot,
    make_base,
    make_context,
    put,
    run_python,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.faults import in_child
from tests.support.index import LocalIndex
from tests.support.uv_wheel import fetched
from tests.support.wheels import make_wheel

OLDEST = ".".join(map(str, uv.OLDEST))
OTHER = "cpython-3.8-x86_64-glibc-00000000"


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """An image of the test's own, with tinyleaf 1.1."""
    made = make_base(tmp_path / "image", pip=False)
    put(Path(made.site_dirs[-1]), make_wheel(tmp_path, "tinyleaf", "1.1"))
    return made


@pytest.fixture
def ctx(
    tmp_path: Path,
    base: Base,
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Context:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    return make_context(tmp_path / "home", base, index_url=index.url)


def install(ctx: Context, *lines: str) -> None:
    apply(ctx, "install", install=lines)


def clean(ctx: Context, *what: str, **how: Any) -> dict[str, Any]:
    return cleanup.clean(ctx, what, **how)


def versions(ctx: Context) -> dict[str, str]:
    return {name: dist.version for name, dist in overlay_dists(ctx.require()[1]).items()}


def used(path: str) -> int:
    """What `du` says: each file once."""
    seen, total = set(), 0
    for folder, _, names in os.walk(path):
        for name in [".", *names]:
            info = os.lstat(os.path.join(folder, name))
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                total += info.st_blocks * 512
    return total


def kinds(result: dict[str, Any]) -> set[str]:
    return {item["what"] for item in result["cleanup"]}


def other_env(ctx: Context) -> Env:
    """An env for another image, with a package, bytecode and a file that a user has put there."""
    overlay, env = ctx.require()
    other = Env(os.path.join(overlay.envs, OTHER), env.version)
    shutil.copytree(env.path, other.path, symlinks=True)
    Path(other.path, "share").mkdir(exist_ok=True)
    Path(other.path, "share", "mine.txt").write_text("mine")
    return other


def test_the_cache_is_freed_only_as_far_as_no_env_has_its_files(ctx: Context) -> None:
    install(ctx, "tinybig", "tinymany")
    (cache, why), *_ = uvcache.own(ctx)
    assert why == ""
    before = used(ctx.home)
    (item,) = [item for item in cleanup.found(ctx, ["cache"]) if item["what"] == "cache"]
    assert item["bytes"] < 2_000_000 < used(cache)  # the 4 MB are in the env as well: one copy on disk
    told = clean(ctx, "cache")["frees"]
    assert abs(before - used(ctx.home) - told) <= 65_536  # our own small files
    assert uvcache.contents(cache) == []
    apply(ctx, "uninstall", uninstall=["tinybig"])
    install(ctx, "tinybig")
    assert run_python(ctx, "import tinybig; print(1)") == "1"
    # now the cache's copy is the only one, once nothing is kept for undoing
    apply(ctx, "uninstall", uninstall=["tinybig"])
    assert clean(ctx, "cache", dry_run=True)["frees"] < 2_000_000
    both = clean(ctx, "cache", "undo", dry_run=True)
    assert both["frees"] > 4_000_000
    before = used(ctx.home)
    told = clean(ctx, "cache", "undo")["frees"]
    assert told > 4_000_000 and abs(before - used(ctx.home) - told) <= 65_536
    assert_clean(ctx)


def test_a_dry_run_and_no_name_change_nothing(ctx: Context) -> None:
    install(ctx, "tinymany")
    apply(ctx, "uninstall", uninstall=["tinymany"])
    other_env(ctx)
    before = env_snapshot(ctx)
    for what in (("all",), ()):
        result = clean(ctx, *what, dry_run=bool(what))
        assert {"cache", "envs", "undo"} <= kinds(result)
        assert result["revision"]["changed"] is False
    assert env_snapshot(ctx) == before and os.path.isdir(os.path.join(ctx.require()[0].envs, OTHER))
    shutil.rmtree(os.path.join(ctx.require()[0].envs, OTHER))
    assert_clean(ctx)
    assert sizes.by_kind(ctx)["undo"] == sum(i["bytes"] for i in result["cleanup"] if i["what"] == "undo")


def test_without_what_is_kept_an_undo_needs_a_download_and_the_history_says_so(ctx: Context) -> None:
    install(ctx, "tinydata", "tinyscript")
    apply(ctx, "uninstall", uninstall=["tinydata"])
    from overlayspawner.payload import report

    assert report.history(ctx)[0]["kept"] is True
    assert undo.undoable(ctx) == {"revision": 2, "offline": True}
    text = [Path(revisions.path(ctx.require()[0], n)).read_bytes() for n in (1, 2)]
    clean(ctx, "undo")
    assert undo.undoable(ctx) == {"revision": 2, "offline": False}
    assert report.history(ctx)[0]["kept"] is False
    assert [Path(revisions.path(ctx.require()[0], n)).read_bytes() for n in (1, 2)] == text
    assert undo.undo(ctx)["revision"]["undo"] == "download"
    assert versions(ctx) == {"tinydata": "1.0", "tinyscript": "1.0"}


def test_an_env_of_another_image(ctx: Context) -> None:
    install(ctx, "tinymany")
    other = other_env(ctx)
    overlay, env = ctx.require()
    before = env_snapshot(ctx)
    with lease.acquire(other, who="another server"):
        result = clean(ctx, "envs")
        assert result["frees"] == 0 and "another server" in result["left_out"][0]["reason"]
        assert os.path.isdir(other.path)
    size = used(ctx.home)
    told = clean(ctx, "envs")["frees"]
    assert os.listdir(overlay.envs) == [os.path.basename(env.path)]
    assert told > 500_000 and abs(size - used(ctx.home) - told) <= 65_536
    assert env_snapshot(ctx) == before
    # what no package lists is the user's
    (place,) = Path(overlay.path, "kept").iterdir()
    assert {str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()} == {"share/mine.txt"}
    assert clean(ctx, "all")["cleanup"] is not None and place.is_dir()
    clean(ctx, "kept")
    assert not place.exists()


def test_copies_of_what_the_image_has(ctx: Context, base: Base, tmp_path: Path) -> None:
    install(ctx, "tinyleaf>=2", "tinyscript")
    assert clean(ctx, "copies")["revision"]["changed"] is False
    site = Path(base.site_dirs[-1])
    shutil.rmtree(site / "tinyleaf-1.1.dist-info")
    put(site, make_wheel(tmp_path, "tinyleaf", "2.0"))
    lines = Path(ctx.require()[0].requirements).read_text()
    (item,) = clean(ctx, "copies", dry_run=True)["cleanup"]
    assert (item["name"], item["bytes"]) == ("tinyleaf", 0) and item["later"] > 0
    result = clean(ctx, "copies")
    assert result["revision"]["changed"] and result["revision"]["action"] == "clean"
    assert versions(ctx) == {"tinyscript": "1.0"}
    assert Path(ctx.require()[0].requirements).read_text() == lines
    assert apply(ctx, "sync")["revision"]["changed"] is False
    undo.undo(ctx)
    assert versions(ctx) == {"tinyscript": "1.0", "tinyleaf": "2.0"}
    assert_clean(ctx)


def test_a_cache_in_use_stays(ctx: Context) -> None:
    install(ctx, "tinyscript")
    ((cache, _),) = uvcache.own(ctx)
    with uvcache.locked(cache) as free:
        assert free
        result = clean(ctx, "cache")
    assert "in use" in result["left_out"][0]["reason"] or "using it" in result["left_out"][0]["reason"]
    assert uvcache.contents(cache)


def test_the_command(ctx: Context, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(ctx, "tinydata")
    apply(ctx, "uninstall", uninstall=["tinydata"])
    ctx.runtime = str(tmp_path / "runtime")
    os.mkdir(ctx.runtime, 0o700)
    Path(ctx.runtime, "server.json").write_text(ctx.to_json())

    def command(*argv: str, code: int = 0) -> str:
        assert cli.main(["--runtime", ctx.runtime, *argv]) == code
        found = capsys.readouterr()
        return found.out + found.err

    shown = command("clean")
    assert "cache" in shown and "could be freed." in shown and "overlay clean cache" in shown
    assert "kept for undo" in command("status")
    assert "needs a download" not in command("history")
    assert "could be freed" in command("clean", "undo", "--dry-run")
    assert " freed." in command("clean", "undo")
    assert "(undo needs a download)" in command("history")
    assert json.loads(command("clean", "all", "--dry-run", "--json"))["revision"]["changed"] is False
    assert "[bad-request]" in command("clean", "everything", code=2)


def test_what_is_no_kind(ctx: Context) -> None:
    with pytest.raises(OverlayError) as e:
        clean(ctx, "everything")
    assert e.value.code == "bad-request" and "cache" in e.value.hint


@pytest.mark.parametrize("how", ["kill", pytest.param("EIO", marks=pytest.mark.slow)])
def test_a_clean_up_that_is_stopped_leaves_a_sound_overlay(ctx: Context, tmp_path: Path, how: str) -> None:
    """At every step: the env works, what was asked for is there, and the next clean-up finishes."""
    install(ctx, "tinyscript", "tinydata")
    apply(ctx, "uninstall", uninstall=["tinydata"])
    other_env(ctx)
    home = Path(ctx.home)
    keep = tmp_path / "keep"
    shutil.copytree(home, keep, symlinks=True)
    what = ("cache", "leftovers", "envs", "undo")
    before = env_snapshot(ctx)
    total = in_child(lambda root: clean(ctx, *what), "", fault=f"repair@{1 << 30}:kill").steps
    assert total > 8
    for step in range(1, total + 1):
        shutil.rmtree(home)
        shutil.copytree(keep, home, symlinks=True)
        outcome = in_child(lambda root: clean(ctx, *what), "", fault=f"repair@{step}:{how}")
        assert outcome.state != "crashed", outcome.detail
        assert env_snapshot(ctx) == before, step
        assert len(revisions.ids(ctx.require()[0])) == 2
        assert len([p for p in home.rglob("mine.txt") if p.is_file()]) == 1, step
        if step % 4 == 0:
            clean(ctx, *what)
            assert os.listdir(ctx.require()[0].envs) == [os.path.basename(ctx.require()[1].path)]
            ((cache, _),) = uvcache.own(ctx)
            assert uvcache.contents(cache) == []
    clean(ctx, *what)
    assert_clean(ctx)


# -- the cache between jobs -------------------------------------------------------------------------------


def test_there_is_one_copy_on_disk(ctx: Context) -> None:
    install(ctx, "tinybig")
    _, env = ctx.require()
    info = os.stat(os.path.join(env.site_packages, "tinybig", "noise.bin"))
    assert info.st_nlink == 2
    ((cache, _),) = uvcache.own(ctx)
    assert [p for p in Path(cache).rglob("noise.bin") if p.stat().st_ino == info.st_ino]


@pytest.fixture(params=["", pytest.param(OLDEST, marks=pytest.mark.slow)])
def uv_version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The uv of the development environment, and the oldest that is supported."""
    version = str(request.param)
    if version:
        folder = fetched("uv", version)
        monkeypatch.setenv("PATH", f"{folder}/bin{os.pathsep}{os.environ['PATH']}")
    return version


def test_the_cache_is_pruned_of_what_no_env_has(ctx: Context, uv_version: str) -> None:
    found = choose(ctx)
    assert found.name == "uv" and found.version.startswith(uv_version)
    install(ctx, "tinybig", "tinymany", "tinydata")
    ((cache, _),) = uvcache.own(ctx)

    def there() -> set[str]:
        return {path.parent.name for path in Path(cache).glob("archive-*/*/tiny*/__init__.py")}

    assert uvcache.prune(ctx, keep=0) < 100_000  # tinyleaf or what else is small; nothing that is linked
    assert there() == {"tinybig", "tinymany", "tinydata"}
    apply(ctx, "uninstall", uninstall=["tinybig"])
    assert uvcache.prune(ctx, keep=0) == 0  # it is kept for undoing: that shares the files too
    clean(ctx, "undo")
    assert uvcache.prune(ctx) == 0  # young, and not too much
    with uvcache.locked(cache):
        assert uvcache.prune(ctx, keep=0) == 0
    before = used(ctx.home)
    freed = uvcache.prune(ctx, keep=0)
    assert freed > 4_000_000 and abs(before - used(ctx.home) - freed) < 65_536
    assert there() == {"tinymany", "tinydata"}
    install(ctx, "tinybig")  # downloaded again
    assert there() == {"tinybig", "tinymany", "tinydata"}
    apply(ctx, "uninstall", uninstall=["tinybig"])
    clean(ctx, "undo")
    assert uvcache.prune(ctx, age=-1) > 4_000_000
