"""Starting over and its undoing, stopped at every step; what is asked for one start is done once."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import files, lease, oneshot, revisions, swap
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError, Spec
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.probe import Base, probe
from overlayspawner.payload.reset import reset, undo_reset
from overlayspawner.payload.storage import open_storage
from tests.support.envs import make_context, snapshot

IGNORED = ("lease.json", "lock", ".lock", "starts.json")


@pytest.fixture(scope="module")
def here() -> Base:
    return probe()


def used(home: Path, base: Base) -> Context:
    """Return an overlay with a package, a revision and something of the user's own."""
    ctx = make_context(home, base)
    overlay, env = ctx.require()
    Path(overlay.requirements).write_text("# mine\nthing==1\n")
    site = Path(env.site_packages)
    (site / "thing.py").write_text("x = 1\n")
    info = site / "thing-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
    (info / "RECORD").write_text("thing.py,,\n")
    (Path(overlay.path) / "notes.txt").write_text("kept\n")
    revisions.write(overlay, {"action": "install", "when": "x", "argv": ["install", "thing"]})
    return ctx


def content(path: str | Path) -> dict[str, str]:
    found = snapshot(path)
    return {k: v for k, v in found.items() if os.path.basename(k) not in IGNORED}


def folders(home: Path) -> list[Path]:
    return sorted((home / ".overlay").glob("default.reset-*"))


def fresh(overlay: Overlay) -> bool:
    names = sorted(n for n in os.listdir(overlay.path) if n not in IGNORED)
    return (
        names == ["README.md", "envs", "overlay.json", "requirements.txt", "revisions"]
        and Path(overlay.requirements).read_text() == ""
        and [r["action"] for r in revisions.list_revisions(overlay)] == ["reset"]
    )


def test_everything_is_moved_and_comes_back(tmp_path: Path, here: Base) -> None:
    ctx = used(tmp_path, here)
    overlay, env = ctx.require()
    before = content(overlay.path)
    said: list[str] = []
    done = reset(ctx, who="alice", argv=["reset"], on_event=lambda e: said.append(e["message"]))
    (folder,) = folders(tmp_path)
    assert re.fullmatch(r"default\.reset-\d{8}-\d{6}", folder.name)
    assert done["revision"]["folder"] == str(folder) and str(folder) in said[-1]
    assert (done["revision"]["changed"], done["revision"]["action"], done["revision"]["who"]) == (
        True,
        "reset",
        "alice",
    )
    assert [r["name"] for r in done["plan"]["removes"]] == ["thing"] and done["plan"]["needs_restart"]
    assert done["revision"]["requirements"] == {"before": ["thing==1"], "after": []}
    assert fresh(overlay) and env.usable()
    assert content(folder) == before

    (Path(env.site_packages) / "new.py").write_text("since\n")
    done = undo_reset(ctx, who="alice")
    assert [p["name"] for p in done["plan"]["new"]] == ["thing"]
    after = content(overlay.path)
    assert {k: v for k, v in after.items() if k != "revisions/000002.json"} == before
    assert [r["action"] for r in revisions.list_revisions(overlay)] == ["undo", "install"]
    (second,) = folders(tmp_path)  # the first is empty, and so gone
    assert list(second.rglob("new.py")) and done["revision"]["folder"] == str(second)
    # and again
    reset(ctx)
    assert fresh(overlay) and len(folders(tmp_path)) == 2


def test_the_leases_are_given_back(tmp_path: Path, here: Base) -> None:
    ctx = used(tmp_path, here)
    _, env = ctx.require()
    reset(ctx)
    lease.acquire(env, who="next").release()
    (folder,) = folders(tmp_path)
    for found in folder.rglob("lease.json"):
        assert json.loads(found.read_text())["released"], found
    undo_reset(ctx)
    lease.acquire(env, who="next").release()


def test_nothing_is_moved_while_another_writes(tmp_path: Path, here: Base) -> None:
    ctx = used(tmp_path, here)
    overlay, _ = ctx.require()
    # an env of another image: its server is at work
    other = Path(overlay.path, "envs", "another-key")
    (other / ".overlay").mkdir(parents=True)
    with lease.acquire(Env(str(other), "3.9"), who="the other"):
        before = content(overlay.path)
        with pytest.raises(OverlayError) as refused:
            reset(ctx)
        assert refused.value.code == "busy" and "the other" in refused.value.message
        assert content(overlay.path) == before and not folders(tmp_path)
    reset(ctx)
    assert fresh(overlay)


@pytest.mark.parametrize("kind", ["link", "sealed"])
def test_inside_where_beside_is_impossible(tmp_path: Path, here: Base, kind: str) -> None:
    ctx = used(tmp_path / "home", here)
    overlay, _ = ctx.require()
    if kind == "link":
        moved = tmp_path / "disk"
        os.rename(overlay.path, moved)
        os.symlink(moved, overlay.path)
    elif os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    else:
        os.chmod(os.path.dirname(overlay.path), 0o555)
    before = content(overlay.path)
    done = reset(ctx)
    folder = done["revision"]["folder"]
    assert folder.startswith(os.path.join(overlay.path, ".reset") + os.sep)
    assert content(folder) == before
    undo_reset(ctx)
    assert {k: v for k, v in content(overlay.path).items() if not k.startswith((".reset", "revisions"))} == {
        k: v for k, v in before.items() if not k.startswith("revisions")
    }


def damage_file(path: Path) -> None:
    files.remove_tree(str(path))
    path.write_bytes(b"\0garbage")


def damage_link(path: Path) -> None:
    files.remove_tree(str(path))
    path.symlink_to("nowhere")


def damage_parts(path: Path) -> None:
    files.remove_tree(str(path / "envs"))
    (path / "envs").write_text("no directory")
    files.remove_tree(str(path / "requirements.txt"))
    (path / "requirements.txt").mkdir()
    files.remove_tree(str(path / "revisions"))
    (path / "revisions").symlink_to("revisions")


@pytest.mark.parametrize("damage", [damage_file, damage_link, damage_parts])
def test_a_damaged_overlay_can_be_reset(tmp_path: Path, here: Base, damage: Callable[[Path], None]) -> None:
    ctx = used(tmp_path, here)
    damage(tmp_path / ".overlay/default")
    reset(ctx)
    overlay, env = ctx.require()
    assert fresh(overlay) and env.usable()
    assert len(list((tmp_path / ".overlay").iterdir())) >= 2


def test_a_folder_that_is_gone_can_t_come_back(tmp_path: Path, here: Base) -> None:
    ctx = used(tmp_path, here)
    with pytest.raises(OverlayError) as refused:
        undo_reset(ctx)
    assert refused.value.code == "cannot-undo"
    reset(ctx)
    files.remove_tree(str(folders(tmp_path)[0]))
    before = content(tmp_path)
    with pytest.raises(OverlayError) as refused:
        undo_reset(ctx)
    assert refused.value.code == "cannot-undo" and "gone" in refused.value.message
    assert content(tmp_path) == before


# -- stopped at every step ------------------------------------------------------------------------------


def stopped(what: Callable[[Context], object], ctx: Context, fault: str) -> str:
    """Do it in a child that fails at a step; return ``done``, the error's code or ``killed``."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            files.inject(fault)
            what(ctx)
            os.write(write, b"done")
        except OverlayError as e:
            os.write(write, e.code.encode())
        except BaseException as e:
            os.write(write, f"{type(e).__name__}: {e}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as f:
        said = f.read()
    return said if os.waitpid(pid, 0)[1] == 0 else "killed"


@pytest.mark.parametrize("how", ["kill", "ENOSPC", "EIO"])
@pytest.mark.parametrize("what", [reset, undo_reset])
def test_old_or_new_whatever_fails(tmp_path: Path, here: Base, what: Any, how: str) -> None:
    seen = set()
    for step in range(1, 200):
        home = tmp_path / str(step)
        ctx = used(home, here)
        overlay, env = ctx.require()
        if what is undo_reset:
            reset(ctx)
            (Path(overlay.path) / "since.txt").write_text("new\n")
        before = content(overlay.path)
        all_before = content(home / ".overlay")
        said = stopped(what, ctx, f"swap@{step}:{how}")
        if said == "done" and not swap.pending(overlay.path):
            break
        # what the next start does
        found = open_storage(Spec(), here, str(home))
        assert found.mode == "normal", found.notices
        assert not swap.pending(overlay.path)
        assert not list(Path(overlay.path).glob(".swap-*"))
        if how != "kill":
            assert said in ("disk-full" if how == "ENOSPC" else "internal", "done")
        now = {k: v for k, v in content(overlay.path).items() if not k.endswith(".tmp")}
        if now == before:
            assert said in ("killed" if how == "kill" else "internal", "disk-full")
            assert how == "kill" or content(home / ".overlay") == all_before
            seen.add("old")
        else:
            assert said == ("killed" if how == "kill" else "done")
            seen.add("new")
            if what is reset:
                assert fresh(overlay)
                assert (folders(home)[0] / "notes.txt").read_text() == "kept\n"
                assert list(folders(home)[0].rglob("thing.py"))
            else:
                assert (Path(overlay.path) / "notes.txt").read_text() == "kept\n"
                assert os.path.exists(os.path.join(env.site_packages, "thing.py"))
                assert (folders(home)[0] / "since.txt").exists()
        reset(make_context(home, here))
        assert fresh(overlay)  # nothing is left over
    else:
        pytest.fail("it has no end")
    assert step > 8
    assert seen == {"old", "new"}


def test_nobody_mends_what_is_still_being_done(tmp_path: Path, here: Base) -> None:
    for step in range(1, 200):  # until the envs, which are the first to be moved, are away
        home = tmp_path / str(step)
        ctx = used(home, here)
        stopped(reset, ctx, f"swap@{step}:kill")
        moved = [folder / "envs" for folder in folders(home) if (folder / "envs").exists()]
        if moved:
            break
    overlay, _ = ctx.require()
    assert swap.pending(overlay.path)
    (env,) = moved[0].iterdir()
    with lease.acquire(Env(str(env), ""), who="at work"):
        open_storage(Spec(), here, str(home))
        assert swap.pending(overlay.path)
    open_storage(Spec(), here, str(home))
    assert not swap.pending(overlay.path)
    assert (folders(home)[0] / "notes.txt").exists()


def test_a_damaged_journal_stops_nothing(tmp_path: Path, here: Base) -> None:
    ctx = used(tmp_path, here)
    overlay, _ = ctx.require()
    for text in ("", "\0", "[]", '{"schema": 1, "out": [["a"]]}', '{"schema": 99}', '{"schema":1,"out":3}'):
        Path(overlay.path, swap.JOURNAL).write_text(text)
        assert open_storage(Spec(), here, str(tmp_path)).mode == "normal", text
        assert not swap.pending(overlay.path), text
    assert len(list(Path(overlay.path).glob("swap.json.damaged-*"))) == 6


# -- one start ------------------------------------------------------------------------------------------


def start(home: Path, base: Base, **spec: Any) -> Any:
    home.mkdir(exist_ok=True)
    return open_storage(Spec(**spec), base, str(home))


def codes(found: Any) -> list[str]:
    return [n["code"] for n in found.notices]


def test_safe_mode_is_for_one_start(tmp_path: Path, here: Base) -> None:
    overlay, _ = used(tmp_path, here).require()
    before = content(overlay.path)
    found = start(tmp_path, here, safe=True, nonce="a")
    assert (found.mode, found.env, codes(found)) == ("safe", "", ["safe-mode"])
    found = start(tmp_path, here, safe=True, nonce="a")  # the same container, once more
    assert (found.mode, bool(found.env)) == ("normal", True)
    assert start(tmp_path, here, safe=True, nonce="b").mode == "safe"
    assert start(tmp_path, here).mode == "normal"
    assert content(overlay.path) == before


def test_a_reset_is_done_once(tmp_path: Path, here: Base) -> None:
    overlay, _ = used(tmp_path, here).require()
    found = start(tmp_path, here, reset=True, nonce="a")
    assert (found.mode, codes(found)) == ("normal", ["reset-done"])
    (folder,) = folders(tmp_path)
    assert str(folder) in found.notices[0]["message"] and fresh(overlay)
    Path(overlay.requirements).write_text("mine\n")
    found = start(tmp_path, here, reset=True, nonce="a")
    assert (found.mode, codes(found), len(folders(tmp_path))) == ("normal", [], 1)
    assert Path(overlay.requirements).read_text() == "mine\n"
    start(tmp_path, here, reset=True, nonce="b")
    assert len(folders(tmp_path)) == 2


def test_a_reset_that_fails_is_told_and_not_tried_again(
    tmp_path: Path, here: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = used(tmp_path, here)
    overlay, env = ctx.require()
    before = content(overlay.path)
    with lease.acquire(env, who="another server"):
        found = start(tmp_path, here, reset=True, nonce="a")
        assert found.mode == "normal" and "another server" in found.notices[0]["message"]
    assert content(overlay.path) == before
    assert codes(start(tmp_path, here, reset=True, nonce="a")) == []
    assert content(overlay.path) == before

    # what can't be recorded is not begun: it would be done again at each start
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "read-only")

    monkeypatch.setattr(files, "write_atomic", refuse)
    with pytest.raises(OverlayError) as refused:
        oneshot.take(Spec(reset=True, nonce="c"), overlay.path, here)
    assert refused.value.code == "read-only"
    assert oneshot.take(Spec(safe=True, nonce="c"), overlay.path, here) == "safe"
    monkeypatch.undo()
    assert content(overlay.path) == before


def test_a_new_user_s_first_start(tmp_path: Path, here: Base) -> None:
    assert start(tmp_path / "a", here, safe=True, nonce="n").mode == "safe"
    assert start(tmp_path / "a", here, safe=True, nonce="n").mode == "normal"
    found = start(tmp_path / "b", here, reset=True, nonce="n")
    assert (found.mode, codes(found), folders(tmp_path / "b")) == ("normal", [], [])
    assert os.path.isfile(tmp_path / "b/.overlay/default/overlay.json")


def test_an_overlay_that_is_no_directory(tmp_path: Path, here: Base) -> None:
    (tmp_path / ".overlay").mkdir()
    (tmp_path / ".overlay/default").write_text("a file\n")
    assert start(tmp_path, here, safe=True, nonce="n").mode == "safe"
    assert start(tmp_path, here, safe=True, nonce="n").mode != "safe"
    found = start(tmp_path, here, reset=True, nonce="r")
    assert found.mode == "normal", found.notices
    assert [p.read_text() for p in folders(tmp_path) if p.is_file()] == ["a file\n"]
    start(tmp_path, here, reset=True, nonce="r")
    assert revisions.ids(Overlay(found.overlay)) == [1]


def test_nonces_are_remembered_and_garbage_is_none(tmp_path: Path, here: Base) -> None:
    overlay, _ = used(tmp_path, here).require()
    # a container that is kept, while other servers of this home start in safe mode again and again
    assert start(tmp_path, here, reset=True, nonce="kept").mode == "normal"
    for number in range(499):
        assert oneshot.take(Spec(safe=True, nonce=f"n{number}"), overlay.path, here) == "safe"
    assert codes(start(tmp_path, here, reset=True, nonce="kept")) == []
    for number in range(5):
        assert start(tmp_path, here, safe=True, nonce=f"m{number}").mode == "safe"
    path = Path(overlay.path) / oneshot.STARTS
    used_up = json.loads(path.read_text())["used"]
    assert len(used_up) == 500 and used_up[-1] == "m4"
    for text in ("", "\0\0", "[]", '{"used": 3}'):
        path.write_text(text)
        assert start(tmp_path, here, safe=True, nonce="x").mode == "safe"


def test_what_is_asked_for_the_next_start(tmp_path: Path, here: Base) -> None:
    overlay, _ = used(tmp_path, here).require()
    oneshot.ask(overlay.path, "safe")
    assert oneshot.asked(overlay.path) == "safe"
    assert start(tmp_path, here).mode == "safe"
    assert oneshot.asked(overlay.path) == "normal"
    assert start(tmp_path, here).mode == "normal"
    oneshot.ask(overlay.path, "safe")
    oneshot.ask(overlay.path, "normal")
    oneshot.ask(overlay.path, "normal")
    assert start(tmp_path, here).mode == "normal"
    for text in ("", "\0", "[]", '{"mode": "explode"}'):
        Path(overlay.path, oneshot.NEXT).write_text(text)
        assert start(tmp_path, here).mode == "normal"
        assert not os.path.exists(os.path.join(overlay.path, oneshot.NEXT))
    assert not list(Path(overlay.path).glob("*.tmp"))


def test_an_ephemeral_env_is_reset_in_place(tmp_path: Path, here: Base) -> None:
    found = start(tmp_path, here, lifetime="ephemeral")
    overlay = Overlay(found.overlay, lifetime="ephemeral", local=found.local)
    env = overlay.env(here)
    try:
        Path(overlay.requirements).write_text("thing\n")
        (Path(env.site_packages) / "thing.py").write_text("x = 1\n")
        ctx = make_context(tmp_path, here)
        ctx.overlay, ctx.env = overlay, env
        ctx.spec.lifetime = "ephemeral"
        files.remove_tree(os.path.join(overlay.path, "envs"))  # make_context's
        done = reset(ctx)
        assert env.usable() and not os.path.exists(os.path.join(env.site_packages, "thing.py"))
        assert Path(overlay.requirements).read_text() == ""
        assert not os.path.exists(os.path.join(overlay.path, "envs"))
        assert os.path.isfile(os.path.join(done["revision"]["folder"], "requirements.txt"))
        undo_reset(ctx)
        assert os.path.exists(os.path.join(env.site_packages, "thing.py"))
        assert Path(overlay.requirements).read_text() == "thing\n"
        # at a start there is no env yet
        again = start(tmp_path, here, lifetime="ephemeral", reset=True, nonce="n")
        assert codes(again) == ["reset-done"] and not os.path.exists(os.path.join(overlay.path, "envs"))
        files.remove_tree(again.local)
    finally:
        files.remove_tree(found.local)
