"""uv where neither hub nor image has one: fetched once (the real wheel), run only where it is safe."""

from __future__ import annotations

import copy
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import contract, files
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.doctor import examine, fix
from overlayspawner.payload.events import Events
from overlayspawner.payload.installer import Installer, choose, fetch
from overlayspawner.payload.planning import plan
from overlayspawner.payload.probe import Base
from tests.support.envs import base, make_base, make_context, run_child, snapshot  # noqa: F401  (fixture)
from tests.support.index import LocalIndex, make_wheel
from tests.support.uv_wheel import other_machine, repacked, uv_wheel

pytestmark = [pytest.mark.network, pytest.mark.slow]


@pytest.fixture(scope="module")
def wheel() -> Path:
    return uv_wheel()


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Iterator[LocalIndex]:
    """An index with uv in it."""
    folder = tmp_path_factory.mktemp("tools")
    with LocalIndex(folder, recipes=False) as index:
        index.add(wheel)
        index.add(make_wheel(folder, "tinyleaf", "1.0"))
        index.add(make_wheel(folder, "tinytree", "1.0"))
        yield index


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without uv and without settings, and a process that remembers nothing."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(contract, "UV_DIR", str(tmp_path / "no-volume"))
    fetch._failed.clear()


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory, base: Base, tools: LocalIndex) -> Path:  # noqa: F811
    """The directory ``bin`` after uv was fetched: to be copied."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/usr/bin:/bin")
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setattr(contract, "UV_DIR", "/no/volume")
        ctx = make_context(tmp_path_factory.mktemp("fetched"), base, index_url=tools.url)
        assert get(ctx).name == "uv"
    return Path(fetch.folder(ctx))


@pytest.fixture
def ctx(tmp_path: Path, base: Base, tools: LocalIndex) -> Context:  # noqa: F811
    return make_context(tmp_path / "home", base, index_url=tools.url)


@pytest.fixture
def has_uv(ctx: Context, fetched: Path) -> Path:
    """The directory of the program, fetched earlier."""
    place = Path(fetch.folder(ctx))
    place.parent.mkdir()
    shutil.copytree(fetched, place)
    found = next(place.glob("uv-*"))
    assert fetch.find(ctx) is not None
    return found


def get(ctx: Context, said: list[str] | None = None) -> Installer:
    """Choose an installer as a change does."""
    told = said if said is not None else []
    return choose(ctx, Events(lambda event: told.append(event["message"])))


def asked(index: LocalIndex, since: int) -> list[str]:
    """Return what of uv was asked for since so many requests."""
    return [request.path for request in index.requests[since:] if "/uv" in request.path]


# -- the way it goes ------------------------------------------------------------------------------------


def test_the_first_change_fetches_it_and_all_others_use_it(
    tmp_path: Path,
    base: Base,  # noqa: F811
    tools: LocalIndex,
) -> None:
    # a list of what users may install is not about our tool
    one = make_context(tmp_path / "home", base, index_url=tools.url, allow=["tiny*"])
    before, seen = snapshot(tmp_path / "home"), len(tools.requests)
    made = plan(one, install=["tinyleaf"])
    assert [item["name"] for item in made["new"]] == []  # the image has it
    assert snapshot(tmp_path / "home") == before
    assert asked(tools, seen) == []
    said: list[str] = []
    apply(one, "install", install=["tinytree"], on_event=lambda event: said.append(event["message"]))
    assert any(text.startswith("Fetching uv") for text in said)
    assert any("versions that fit (uv " in text for text in said)
    place = Path(fetch.folder(one))
    assert place == tmp_path / "home" / ".overlay" / ".cache" / "bin"
    (kept,) = place.iterdir()
    assert kept.name.startswith("uv-") and kept.name.endswith(f"-{base.machine}-{base.libc}")
    assert sorted(path.name for path in kept.iterdir()) == ["uv", "uv.json"]
    for path in (place, kept, kept / "uv"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    # another overlay of the same storage has it too
    two = make_context(tmp_path / "home", base, index_url=tools.prefixed("500"))
    two.overlay = type(one.require()[0])(str(tmp_path / "home" / ".overlay" / "other"))
    two.env = two.overlay.create(base)
    seen = len(tools.requests)
    assert getattr(get(two), "path", "") == str(kept / "uv")
    assert asked(tools, seen) == []


def test_an_ephemeral_overlay_keeps_it_in_the_container(ctx: Context, tmp_path: Path) -> None:
    overlay, _ = ctx.require()
    overlay.lifetime, overlay.local = "ephemeral", str(tmp_path / "container")
    os.mkdir(overlay.local, 0o700)
    assert fetch.folder(ctx) == str(tmp_path / "container" / ".cache" / "bin")


def test_a_folder_of_overlays_that_is_not_the_users(ctx: Context) -> None:
    """An administrator's ``overlay_path`` may lie in a directory that all users share."""
    overlay, _ = ctx.require()
    os.chmod(os.path.dirname(overlay.path), 0o1777)
    assert fetch.folder(ctx) == os.path.join(overlay.path, ".cache", "bin")
    os.chmod(overlay.path, 0o777)
    assert fetch.folder(ctx) == ""
    assert get(ctx).name == "pip"


@pytest.mark.parametrize("field", [{"fetch_uv": False}, {"installer": "pip"}])
def test_it_can_be_switched_off(ctx: Context, tools: LocalIndex, field: dict[str, Any]) -> None:
    ctx.spec.__dict__.update(field)
    seen = len(tools.requests)
    assert get(ctx).name == "pip"
    assert asked(tools, seen) == []


# -- what must not be run -------------------------------------------------------------------------------


def test_no_link_and_nothing_that_others_can_write(has_uv: Path, ctx: Context, tmp_path: Path) -> None:
    program, place = has_uv / "uv", has_uv.parent
    for path, mode in ((program, 0o722), (program, 0o720), (has_uv, 0o777), (place, 0o770)):
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        assert fetch.find(ctx) is None, (path, mode)
        path.chmod(before)
    for path in (place.parent, place.parent.parent):
        path.chmod(0o777)
        assert fetch.find(ctx) is None, path
        path.chmod(0o755)
    for path in (program, has_uv, place, place.parent):
        away = tmp_path / "elsewhere"
        path.rename(away)
        path.symlink_to(away)
        assert fetch.find(ctx) is None, path
        path.unlink()
        away.rename(path)
    if os.geteuid() == 0:
        for path in (program, has_uv, place):
            os.chown(path, 1234, -1)
            assert fetch.find(ctx) is None, path
            os.chown(path, 0, -1)
    assert fetch.find(ctx) is not None


def test_a_link_is_not_written_through(ctx: Context, tmp_path: Path, tools: LocalIndex) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    place = Path(fetch.folder(ctx))
    place.parent.mkdir()
    place.symlink_to(elsewhere)
    seen = len(tools.requests)
    assert get(ctx).name == "pip"
    assert asked(tools, seen) == [] and os.listdir(elsewhere) == []


def test_one_of_another_machine_is_left_to_it(has_uv: Path, ctx: Context) -> None:
    """A home that goes from one architecture or C library to another."""
    for machine, libc in (("aarch64", ctx.base.libc), (ctx.base.machine, "musl")):
        ctx.base = copy.copy(ctx.base)
        ctx.base.machine, ctx.base.libc = machine, libc
        assert fetch.kept(ctx) == []


@pytest.mark.parametrize("how", ["cut off", "empty", "other machine", "no size", "missing"])
def test_a_damaged_one_is_replaced(
    has_uv: Path,
    ctx: Context,
    how: str,
    request: pytest.FixtureRequest,
) -> None:
    program = has_uv / "uv"
    raw = program.read_bytes()
    if how == "cut off":
        program.write_bytes(raw[: len(raw) // 2])
    elif how == "empty":
        program.write_bytes(b"")
    elif how == "other machine":
        program.write_bytes(other_machine(raw))
    elif how == "no size":
        (has_uv / "uv.json").unlink()
    else:
        program.unlink()
    assert fetch.find(ctx) is None
    bad = [check["name"] for check in examine(ctx) if not check["ok"]]
    assert bad == ["uv"]
    if how in ("cut off", "other machine"):
        assert get(ctx).name == "uv"
        assert program.read_bytes() == raw
        assert os.listdir(has_uv.parent) == [has_uv.name]
    else:
        fix(ctx)
        assert not has_uv.exists()
    assert all(check["ok"] for check in examine(ctx))


# -- where it can't be had ------------------------------------------------------------------------------


def test_a_wheel_for_another_c_library(ctx: Context, tmp_path: Path) -> None:
    musl = uv_wheel("musllinux_1_1_x86_64")
    with LocalIndex(tmp_path / "musl", recipes=False) as index:
        index.add(musl)
        ctx.spec.index_url = index.url
        assert get(ctx).name == "pip"


@pytest.mark.parametrize("how", ["cut off", "other bytes", "other machine", "no program"])
def test_a_wheel_that_is_none(
    ctx: Context,
    tmp_path: Path,
    wheel: Path,
    fetched: Path,
    how: str,
) -> None:
    folder = tmp_path / "index"
    folder.mkdir()
    program = next(fetched.glob("uv-*/uv")).read_bytes()
    sha256 = ""
    if how == "other machine":
        bad = repacked(wheel, folder, other_machine(program))
    elif how == "no program":
        bad = repacked(wheel, folder, b"")
    else:
        bad = folder / wheel.name
        bad.write_bytes(wheel.read_bytes()[:1_000_000])
        sha256 = "0" * 64 if how == "other bytes" else ""
    with LocalIndex(folder, recipes=False) as index:
        index.add(bad, sha256=sha256)
        ctx.spec.index_url = index.url
        assert get(ctx).name == "pip"
        assert [path for path in os.listdir(fetch.folder(ctx)) if path != "failed.json"] == []
        # asked once, not at each change; also not by another process
        seen = len(index.requests)
        fetch._failed.clear()
        assert get(ctx).name == "pip"
        assert len(index.requests) == seen
        ctx.spec.installer = "uv"
        with pytest.raises(OverlayError) as e:
            get(ctx)
        assert e.value.code == "installer-missing"
        assert "could not be fetched: " in e.value.message


def test_an_index_that_does_not_answer(
    ctx: Context, tools: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx.spec.index_url = tools.prefixed("reset", credentials=True)
    assert get(ctx).name == "pip"
    kept = Path(fetch.folder(ctx), "failed.json").read_text()
    assert tools.password not in kept and "%40ss" not in kept
    # another index is another chance, and so is another hour
    assert fetch._remembered(fetch.folder(ctx), json.loads(kept)["asked"], 3600)
    assert not fetch._remembered(fetch.folder(ctx), "another", 3600)
    later = time.time() + 3601
    monkeypatch.setattr(time, "time", lambda: later)
    assert not fetch._remembered(fetch.folder(ctx), json.loads(kept)["asked"], 3600)


def test_an_index_that_hangs(ctx: Context, tools: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fetch.PATIENCE, "auto", 1.0)
    ctx.spec.index_url = tools.prefixed("hang")
    assert get(ctx).name == "pip"
    assert "too long" in Path(fetch.folder(ctx), "failed.json").read_text()


def test_too_little_space(ctx: Context, tools: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "ROOM", 1 << 60)
    seen = len(tools.requests)
    assert get(ctx).name == "pip"
    assert asked(tools, seen) == []


def test_an_image_without_pip(tmp_path: Path, tools: LocalIndex) -> None:
    bare = make_base(tmp_path / "image", pip=False)
    ctx = make_context(tmp_path / "home", bare, index_url=tools.url)
    with pytest.raises(OverlayError) as e:
        get(ctx)
    assert (e.value.code, "there is no pip to fetch it with" in e.value.message) == (
        "installer-missing",
        True,
    )


@pytest.mark.parametrize(
    ("field", "environ"),
    [
        ({"deny": ["uv"]}, {}),
        ({"deny": ["u*"]}, {}),
        ({"deny": ["uv>0.1"]}, {}),
        ({"allow": ["tiny*", "uv<0.1"]}, {}),
        ({"constraints": ["uv<0.1"]}, {}),
        # the base's pip does not know when files were uploaded
        ({"exclude_newer": "2024-01-01"}, {}),
        ({}, {"PIP_NO_BINARY": "uv"}),
        ({}, {"PIP_NO_BINARY": ":all:"}),
        ({}, {"PIP_CONSTRAINT": "{tmp}/limits.txt"}),
    ],
)
def test_rules_that_mean_uv_are_kept(
    ctx: Context,
    field: dict[str, Any],
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "limits.txt").write_text("uv<0.1\n")
    for name, value in environ.items():
        monkeypatch.setenv(name, value.replace("{tmp}", str(tmp_path)))
    ctx.spec.__dict__.update(field)
    assert get(ctx).name == "pip"
    assert fetch.kept(ctx) == []


def test_a_cancelled_one_is_not_remembered(ctx: Context) -> None:
    class Now:
        def is_set(self) -> bool:
            return True

    with pytest.raises(OverlayError) as e:
        choose(ctx, Events(cancel=Now()))
    assert e.value.code == "cancelled"
    assert not Path(fetch.folder(ctx), "failed.json").exists()


# -- two at a time, and ends in the middle --------------------------------------------------------------

CHILD = """
import json, sys
from overlayspawner.payload import contract
from overlayspawner.payload.context import Context
from overlayspawner.payload.events import Events
from overlayspawner.payload.installer import choose
contract.UV_DIR = "/no/volume"
print(choose(Context.load(sys.argv[1]), Events()).path)
"""


@pytest.fixture
def saved(ctx: Context, tmp_path: Path) -> str:
    """A directory that another process loads the context from."""
    (tmp_path / "server.json").write_text(ctx.to_json())
    return str(tmp_path)


def test_two_servers_fetch_it_at_once(ctx: Context, saved: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: run_child(CHILD, saved), range(2)))
    found = fetch.kept(ctx)
    assert [run.stdout.strip() for run in done] == [*found, *found], [run.stderr for run in done]
    assert len(os.listdir(fetch.folder(ctx))) == 1


def test_killed_or_full_while_it_is_written(
    ctx: Context, saved: str, tools: LocalIndex, fetched: Path, wheel: Path
) -> None:
    place = fetch.folder(ctx)
    os.makedirs(place, 0o700)
    name = next(fetched.glob("uv-*")).name
    count = 0
    for fault in ("ENOSPC", "kill"):
        for number in range(1, 50):
            files.inject(f"{number}:{fault}") if fault == "ENOSPC" else None
            try:
                if fault == "ENOSPC":
                    fetch._keep(place, name, str(wheel))
                else:
                    pid = os.fork()
                    if pid == 0:
                        files.inject(f"{number}:kill")
                        fetch._keep(place, name, str(wheel))
                        os._exit(0)
                    if os.waitpid(pid, 0)[1] == 0:
                        break
            except OSError:
                assert os.listdir(place) == []
                count += 1
            else:
                if fault == "ENOSPC":
                    break
                assert fetch.kept(ctx) == [] or fetch.find(ctx) is not None
                count += 1
            finally:
                files.inject("")
        for left in os.listdir(place):
            files.remove_tree(os.path.join(place, left))
    assert count > 8
    # what is left behind goes with the next one
    left = Path(place, ".stage-x")
    left.mkdir()
    os.utime(left, (1, 1))
    assert get(ctx).name == "uv"
    assert os.listdir(place) == [name]
