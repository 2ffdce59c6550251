"""The image's packages change below an env, and a home that comes to another path."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayspawner.payload import basechange, relocate, restore, revisions
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.probe import Base
from tests.support.envs import (
    env_snapshot,
    make_base,
    make_context,
    put,
    run_python,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.index import LocalIndex
from tests.support.wheels import make_wheel


@pytest.fixture
def image(tmp_path: Path) -> Base:
    """An image of this test alone, with ``tinyleaf`` 1.1 and ``basetool``, which needs it."""
    return make_base(
        tmp_path / "image",
        [
            make_wheel(tmp_path, "tinyleaf", "1.1"),
            make_wheel(tmp_path, "basetool", "1.0", requires=["tinyleaf"]),
        ],
        pip=False,  # takes seconds each time
    )


@pytest.fixture
def ctx(
    tmp_path: Path,
    image: Base,
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Context]:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    yield make_context(tmp_path / "home", image, index_url=index.url)


def again(ctx: Context) -> Context:
    """The next start of a server on the same home."""
    return make_context(Path(ctx.home), ctx.base, index_url=ctx.spec.index_url)


def rebuilt(image: Base, tmp_path: Path, remove: str, *wheels: tuple[str, str]) -> None:
    """The image's maker replaces packages."""
    site = Path(image.site_dirs[-1])
    for entry in list(site.iterdir()):
        if entry.name.split("-")[0].removesuffix(".py") == remove:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name, version in wheels:
        put(site, make_wheel(tmp_path, name, version))


def test_nothing_is_said_while_nothing_changes(ctx: Context) -> None:
    assert basechange.check(ctx) == []
    apply(ctx, "install", install=["tinytree<2", "tinyscript"])
    assert basechange.check(ctx) == []
    assert basechange.check(again(ctx)) == []


def test_what_broke_is_named_and_a_restore_mends_it(ctx: Context, image: Base, tmp_path: Path) -> None:
    apply(ctx, "install", install=["tinytree<2"])  # content with the image's tinyleaf 1.1
    assert "tinyleaf" not in overlay_dists(ctx.require()[1])
    assert basechange.check(ctx) == []
    before = env_snapshot(ctx)
    rebuilt(image, tmp_path, "tinyleaf", ("tinyleaf", "2.0"))
    later = again(ctx)
    (told,) = basechange.check(later)
    assert told["code"] == "base-changed"
    assert "tinytree needs tinyleaf" in told["message"]
    assert "2.0" in told["message"]
    assert "overlay restore" in told["hint"]
    assert env_snapshot(later) == before  # nothing is mended by looking
    # it is told until it is mended, by each server
    assert "tinytree needs tinyleaf" in basechange.check(again(ctx))[0]["message"]
    result = restore.restore(later)
    assert [p["name"] for p in result["plan"]["new"]] == ["tinyleaf"]
    assert run_python(later, "import tinyleaf; print(tinyleaf.__version__)") < "2"
    assert basechange.check(again(ctx)) == []


def test_a_package_that_the_image_no_longer_has(ctx: Context, image: Base, tmp_path: Path) -> None:
    apply(ctx, "install", install=["tinyleaf"])  # the image's will do
    basechange.check(ctx)
    rebuilt(image, tmp_path, "tinyleaf")
    later = again(ctx)
    assert "tinyleaf is asked for" in basechange.check(later)[0]["message"]
    restore.restore(later)
    assert "tinyleaf" in overlay_dists(later.require()[1])
    assert basechange.check(again(ctx)) == []


def test_copies_that_the_image_has_by_now_are_offered_not_dropped(
    ctx: Context, image: Base, tmp_path: Path
) -> None:
    apply(ctx, "install", install=["tinytree"])
    assert "tinyleaf" in overlay_dists(ctx.require()[1])
    basechange.check(ctx)
    rebuilt(image, tmp_path, "tinyleaf", ("tinyleaf", "2.0"))
    later = again(ctx)
    (told,) = basechange.check(later)
    assert "your copies could go: tinyleaf" in told["message"]
    assert "overlay uninstall tinyleaf" in told["hint"]
    assert "tinyleaf" in overlay_dists(later.require()[1])
    assert basechange.check(again(ctx)) == []  # an offer is made once
    apply(later, "uninstall", uninstall=["tinyleaf"])
    assert set(overlay_dists(later.require()[1])) == {"tinytree"}
    assert basechange.look(later).broken == []


def test_what_was_broken_before_is_no_news(ctx: Context, image: Base, tmp_path: Path) -> None:
    _, env = ctx.require()
    put(Path(env.site_packages), make_wheel(tmp_path, "lonely", "1.0", requires=["nobody>=3"]))
    assert basechange.check(ctx) == []
    rebuilt(image, tmp_path, "basetool")
    for told in basechange.check(again(ctx)):
        assert "nobody" not in told["message"]


def test_a_change_that_happened_before_the_first_look(ctx: Context, image: Base, tmp_path: Path) -> None:
    apply(ctx, "install", install=["tinytree<2"])
    rebuilt(image, tmp_path, "tinyleaf")
    (told,) = basechange.check(again(ctx))
    assert "tinytree needs tinyleaf" in told["message"]


def test_compiled_here_is_listed(ctx: Context, image: Base, tmp_path: Path) -> None:
    apply(ctx, "install", install=["tinyscript"])
    _, env = ctx.require()
    basechange.check(ctx)
    wheel = Path(overlay_dists(env)["tinyscript"].path) / "WHEEL"
    text = wheel.read_text()
    wheel.write_text(text.replace("Tag: py3-none-any", "Tag: cp311-cp311-linux_x86_64"))
    assert basechange.look(ctx).compiled == ["tinyscript"]
    rebuilt(image, tmp_path, "basetool")
    assert "tinyscript" in basechange.check(again(ctx))[0]["message"]


def test_a_damaged_memory_is_a_first_look(ctx: Context) -> None:
    apply(ctx, "install", install=["tinyscript"])
    _, env = ctx.require()
    for text in ("", "{", "[]", '{"schema": 1}', "\0"):
        Path(basechange.path(env)).write_text(text)
        assert basechange.check(ctx) == []
        assert json.loads(Path(basechange.path(env)).read_text())["lock"] == ctx.base_lock


# -- a home at another path -------------------------------------------------------------------------------


def moved(ctx: Context, to: str = "moved") -> Context:
    home = Path(ctx.home)
    new = home.parent / to
    home.rename(new)
    return make_context(new, ctx.base, index_url=ctx.spec.index_url)


def runs(ctx: Context, name: str, *arguments: str) -> str:
    _, env = ctx.require()
    done = subprocess.run(
        [os.path.join(env.bin, name), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("to", ["moved", "with a space", "x" * 150])
def test_a_home_at_another_path(ctx: Context, to: str) -> None:
    apply(ctx, "install", install=["tinyscript"])
    assert relocate.moved_from(ctx.require()[1]) == ""
    assert basechange.relocate(ctx) is None
    old = ctx.require()[1].path
    hello = runs(ctx, "tinyscript-hello")
    later = moved(ctx, to)
    _, env = later.require()
    assert relocate.moved_from(env) == old
    with pytest.raises((OSError, subprocess.CalledProcessError)):
        runs(later, "tinyscript-hello")
    told = [item for item in basechange.check(later) if item["code"] == "home-moved"]
    assert old in told[0]["message"]
    # packages work meanwhile
    assert run_python(later, "import tinyscript; print(1)") == "1"
    result = basechange.relocate(later, who="me")
    assert result is not None
    assert result["revision"]["action"] == "relocate"
    assert result["revision"]["who"] == "me"
    assert runs(later, "tinyscript-hello") == hello.replace(old, env.path)
    pip = subprocess.run([os.path.join(env.bin, "pip"), "list"], capture_output=True, text=True, check=False)
    assert f"{env.python}: No module named pip" in pip.stderr  # it was found, and started the right Python
    assert os.access(os.path.join(env.bin, "tinyscript-hello"), os.X_OK)
    assert relocate.moved_from(env) == ""
    assert basechange.relocate(later) is None
    assert basechange.check(later) == []
    # RECORD fits: it can be uninstalled, and nothing stays behind
    apply(later, "uninstall", uninstall=["tinyscript"])
    assert not os.path.exists(os.path.join(env.bin, "tinyscript-hello"))
    for folder, _, names in os.walk(env.path):
        if ".overlay" not in folder:
            for name in names:
                path = Path(folder) / name
                assert path.is_symlink() or (old + "/").encode() not in path.read_bytes()


def test_projects_in_the_home_move_along(ctx: Context) -> None:
    project = Path(ctx.home) / "project"
    (project / "src" / "mine").mkdir(parents=True)
    (project / "src" / "mine" / "__init__.py").write_text("answer = 42\n")
    _, env = ctx.require()
    site = Path(env.site_packages)
    info = site / "mine-1.0.dist-info"
    info.mkdir()
    (site / "__editable__.mine-1.0.pth").write_text(f"{project}/src\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "INSTALLER").write_text("pip\n")
    (info / "direct_url.json").write_text(
        json.dumps({"url": f"file://{project}", "dir_info": {"editable": True}})
    )
    names = [
        "__editable__.mine-1.0.pth",
        *(f"mine-1.0.dist-info/{n}" for n in ("METADATA", "INSTALLER", "RECORD")),
    ]
    names.append("mine-1.0.dist-info/direct_url.json")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in names))
    assert run_python(ctx, "import mine; print(mine.answer)") == "42"
    later = moved(ctx)
    basechange.relocate(later)
    assert run_python(later, "import mine; print(mine.answer)") == "42"
    dist = overlay_dists(later.require()[1])["mine"]
    assert json.loads(dist.read("direct_url.json") or "")["url"] == f"file://{later.home}/project"


def test_a_link_to_the_same_place_is_no_move(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(ctx.home)
    linked = make_context(tmp_path / "link", ctx.base)
    assert relocate.moved_from(linked.require()[1]) == ""


def test_the_history_tells_of_the_move(ctx: Context) -> None:
    old = ctx.require()[1].path
    later = moved(ctx)
    basechange.relocate(later)
    overlay, _ = later.require()
    last = revisions.latest(overlay)
    assert last is not None
    assert last["moved_from"] == old
