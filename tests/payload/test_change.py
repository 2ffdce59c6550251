"""The commit: all or nothing, wherever it is stopped, and nothing that is not ours is lost."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import change, revisions
from overlayspawner.payload import journal as journals
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.lease import acquire
from overlayspawner.payload.moves import plan_ops, tree_of
from tests.support import changes
from tests.support.envs import run_child
from tests.support.faults import left_over

MAKE = "import sys; from tests.support.changes import make; make(sys.argv[1])"
MEND = "import sys; from tests.support.changes import mend; print(mend(sys.argv[1]))"

# What Python compiled is no part of what a change promises: it may be missing after an undo.
OLD = {path: text for path, text in changes.BEFORE.items() if text != "old bytecode"}


def look(root: Path) -> tuple[str, dict[str, str]]:
    """Say whether the env and the requirements are old or new, and what else is wrong."""
    overlay, env = changes.places(str(root))
    found = changes.read(env.path)
    requirements = Path(overlay.requirements).read_text()
    without_cache = {path: text for path, text in found.items() if text != "old bytecode"}
    if without_cache == OLD and requirements == changes.REQUIREMENTS[0] and not revisions.ids(overlay):
        return "old", {}
    if found == changes.AFTER and requirements == changes.REQUIREMENTS[1] and revisions.ids(overlay) == [1]:
        return "new", {}
    return "mixed", {**found, "requirements": requirements}


def state_of(root: Path) -> set[str]:
    overlay, env = changes.places(str(root))
    return set(left_over(overlay, env))


def test_the_change(tmp_path: Path) -> None:
    changes.prepare(str(tmp_path))
    changes.make(str(tmp_path))
    assert look(tmp_path) == ("new", {})
    assert state_of(tmp_path) == set()


def test_the_renames_follow_packages_not_files(tmp_path: Path) -> None:
    changes.prepare(str(tmp_path))
    _, env = changes.places(str(tmp_path))
    many = [f"{changes.SITE}/many/p{n // 50}/m{n}.py" for n in range(500)]
    ops = plan_ops(env, tree_of(many), {}, "x")
    assert [(kind, path) for kind, path, _ in ops.steps] == [("in", f"{changes.SITE}/many")]
    changes.write(env.path, dict.fromkeys(many, ""))
    changes.write(env.path, {f"{changes.SITE}/many/p1/__pycache__/m50.cpython-311.pyc": ""})
    ops = plan_ops(env, {}, tree_of(many), "x")
    assert [(kind, path) for kind, path, _ in ops.steps] == [("out", f"{changes.SITE}/many")]
    changes.write(env.path, {f"{changes.SITE}/many/p1/download.bin": "theirs"})
    ops = plan_ops(env, {}, tree_of(many), "x")
    assert len(ops.steps) == 9 + 50
    assert f"{changes.SITE}/many/p1" not in {path for _, path, _ in ops.steps}


def test_what_was_in_the_way_is_kept_and_told(tmp_path: Path) -> None:
    changes.prepare(str(tmp_path))
    changes.make(str(tmp_path))
    overlay, env = changes.places(str(tmp_path))
    kept = changes.read(os.path.join(env.state, "kept", "000001-x"))
    assert sorted(kept.values()) == ["theirs", "theirs"]
    revision = revisions.read(overlay, 1)
    assert revision is not None
    assert sorted(revision["in_the_way"]) == [f"{changes.SITE}/becomes_file", f"{changes.SITE}/in_the_way.py"]
    change.prune(overlay, env, keep=0)
    assert os.path.isdir(os.path.join(env.state, "kept", "000001-x"))
    assert os.listdir(os.path.join(env.state, "set-aside")) == []


def test_what_was_replaced_is_set_aside_with_its_place(tmp_path: Path) -> None:
    changes.prepare(str(tmp_path))
    changes.make(str(tmp_path))
    overlay, env = changes.places(str(tmp_path))
    revision = revisions.read(overlay, 1)
    assert revision is not None
    found = {}
    for path, place in revision["aside"]:
        there = os.path.join(env.state, place)
        if os.path.isdir(there):
            found.update({os.path.join(path, rel): text for rel, text in changes.read(there).items()})
        else:
            found[path] = Path(there).read_text()
    expected = {path: changes.BEFORE[path] for path in changes.REMOVED}
    assert {path: found.get(path) for path in expected} == expected


def test_a_pyc_that_python_would_take_for_current_is_gone(tmp_path: Path) -> None:
    """The same size and second: without purging, the old code would run."""
    overlay, env = changes.places(str(tmp_path))
    os.makedirs(env.state)
    changes.write(env.path, {f"{changes.SITE}/mod.py": "VALUE = 1\n", f"{changes.SITE}/keep.py": ""})
    site = os.path.join(env.path, changes.SITE)
    os.utime(os.path.join(site, "mod.py"), (1_600_000_000, 1_600_000_000))
    show = [
        sys.executable,
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, {site!r}); import mod; print(mod.VALUE)",
    ]

    def value() -> str:
        return subprocess.run(show, capture_output=True, text=True, check=True).stdout

    assert value() == "1\n"
    stage = os.path.join(env.state, "stage-1", "prefix")
    changes.write(stage, {f"{changes.SITE}/mod.py": "VALUE = 2\n"})
    os.utime(os.path.join(stage, changes.SITE, "mod.py"), (1_600_000_000, 1_600_000_000))
    with acquire(env) as lease:
        ops = plan_ops(env, tree_of([f"{changes.SITE}/mod.py"]), tree_of([f"{changes.SITE}/mod.py"]), "x")
        change.Commit(overlay, env, "x", "stage-1/prefix", ops).run(lease)
    assert value() == "2\n"


def test_what_someone_else_put_there_meanwhile_survives_an_undo(tmp_path: Path) -> None:
    changes.prepare(str(tmp_path))
    _, env = changes.places(str(tmp_path))
    assert run_child(MAKE, str(tmp_path), fault="commit@24:kill").returncode == -9
    journal = journals.read(env)
    assert journal is not None
    out = next(
        path
        for kind, path, place in journal["steps"]
        if kind == "out"
        and os.path.lexists(os.path.join(env.state, place))
        and not os.path.lexists(os.path.join(env.path, path))
        and os.path.isdir(os.path.dirname(os.path.join(env.path, path)))
    )
    changes.write(env.path, {out: "by another tool"})
    assert changes.mend(str(tmp_path)) == "undone"
    assert look(tmp_path) == ("old", {})
    kept = changes.read(os.path.join(env.state, "kept"))
    assert "by another tool" in kept.values()


def test_requirements_edited_after_a_kill_are_not_overwritten(tmp_path: Path) -> None:
    changes.prepare(str(tmp_path))
    overlay, _ = changes.places(str(tmp_path))
    assert run_child(MAKE, str(tmp_path), fault="commit@24:kill").returncode == -9
    Path(overlay.requirements).write_text("edited\n")
    assert changes.mend(str(tmp_path)) == "undone"
    assert Path(overlay.requirements).read_text() == "edited\n"


KILLED_AFTER_MOVING = """
from overlayspawner.payload import files
rename = files.rename
def killing(src, dst):
    rename(src, dst)
    if "/stage-" in src and dst.endswith(sys.argv[2]):
        os.kill(os.getpid(), 9)
files.rename = killing
"""


@pytest.mark.parametrize("linked", [False, True])
def test_what_pip_installed_after_a_kill_survives_an_undo(linked: bool, tmp_path: Path) -> None:
    """It writes into the directory that the change brought; uv's files are even links to the same ones."""
    changes.prepare(str(tmp_path))
    _, env = changes.places(str(tmp_path))
    code = "import os, sys\n" + KILLED_AFTER_MOVING + MAKE
    assert run_child(code, str(tmp_path), "whole-2.dist-info").returncode == -9
    assert Path(env.path, changes.SITE, "whole/sub/b.py").read_text() == "new"
    whole = Path(env.path, changes.SITE, "whole")
    if not linked:
        (whole / "__init__.py").unlink()
        (whole / "__init__.py").write_text("pip")
    (whole / "pip.txt").write_text("pip")
    shutil.rmtree(Path(env.path, changes.SITE, "whole-2.dist-info"))
    info = f"{changes.SITE}/whole-2.dist-info"
    rows = "whole/__init__.py,,3\nwhole/pip.txt,,3\nwhole-2.dist-info/RECORD,,\n"
    changes.write(env.path, {f"{info}/RECORD": rows, f"{info}/METADATA": "Name: whole\nVersion: 2\n"})
    assert changes.mend(str(tmp_path)) == "undone"
    # the old version was at the path that pip wrote to; what pip wrote is kept beside it
    kept = changes.read(os.path.join(env.state, "kept"))
    assert sorted(kept.values()) == sorted(["new" if linked else "pip", "pip"])
    found = changes.read(env.path)
    assert found[f"{info}/RECORD"] == rows
    assert found[f"{changes.SITE}/whole/__init__.py"] == "old"
    assert state_of(tmp_path) == set()


@pytest.mark.parametrize("linked", [False, True])
def test_a_new_package_that_pip_installed_after_a_kill_stays(linked: bool, tmp_path: Path) -> None:
    overlay, env = changes.places(str(tmp_path))
    changes.prepare(str(tmp_path))
    os.unlink(overlay.requirements)
    shutil.rmtree(env.path)
    os.makedirs(env.site_packages)
    os.makedirs(env.state)
    code = "import os, sys\n" + KILLED_AFTER_MOVING + MAKE
    assert run_child(code, str(tmp_path), "/whole").returncode == -9
    whole = Path(env.site_packages, "whole")
    if not linked:
        (whole / "__init__.py").unlink()
        (whole / "__init__.py").write_text("pip")
    rows = "whole/__init__.py,,3\nwhole-2.dist-info/RECORD,,\n"
    changes.write(env.site_packages, {"whole-2.dist-info/RECORD": rows})
    assert changes.mend(str(tmp_path)) == "undone"
    found = {path: text for path, text in changes.read(env.site_packages).items() if path.startswith("whole")}
    assert found == {
        "whole/__init__.py": "new" if linked else "pip",
        "whole-2.dist-info/RECORD": rows,
    }
    assert state_of(tmp_path) == set()


def test_a_journal_without_inodes_is_undone_as_well(tmp_path: Path) -> None:
    changes.prepare(str(tmp_path))
    _, env = changes.places(str(tmp_path))
    assert run_child(MAKE, str(tmp_path), fault="commit@24:kill").returncode == -9
    journal = journals.read(env)
    assert journal is not None
    del journal["files"], journal["stage_inode"]
    journals.write(env, journal)
    assert changes.mend(str(tmp_path)) == "undone"
    assert look(tmp_path) == ("old", {})


@pytest.mark.parametrize("done", [False, True])
def test_a_journal_of_the_first_version_is_followed(done: bool, tmp_path: Path) -> None:
    """It was a file that came and went."""
    changes.prepare(str(tmp_path))
    _, env = changes.places(str(tmp_path))
    killed = KILLED_AFTER_REVISION + MAKE if done else MAKE
    fault = "" if done else "commit@24:kill"
    assert run_child("import os, sys\n" + killed, str(tmp_path), fault=fault).returncode == -9
    journal = journals.read(env)
    assert journal is not None
    for key in ("anchor", "keep", "action"):
        del journal[key]
    journal["stage_inode"] = os.stat(os.path.join(env.state, journal["stage"])).st_ino
    for name in ("journal", "reserve-0", "reserve-1", "reserve-2", "reserve-3"):
        os.unlink(os.path.join(env.state, name))
    Path(env.state, "journal.json").write_text(json.dumps({**journal, "schema": 1}) + "\n")
    assert change.pending(env)
    assert changes.mend(str(tmp_path)) == ("finished" if done else "undone")
    assert look(tmp_path) == ("new" if done else "old", {})
    assert state_of(tmp_path) == set()
    assert not change.pending(env)


def test_directories_that_hold_nothing_any_more_go(tmp_path: Path) -> None:
    """Python would import them as namespace packages. They come back with what was in them."""
    from tests.payload.faults import trees

    root = str(tmp_path / "home")
    trees.prepare(root)
    _, env = trees.places(root)
    site = Path(env.site_packages)
    trees.change(root, {"ghost": {"ghost/deep/a.py": "", "ghost/b.py": ""}})
    (site / "ghost/cache/empty").mkdir(parents=True)
    (site / "ghost/deep/__pycache__").mkdir()
    (site / "ghost/deep/__pycache__/a.cpython-311.pyc").write_text("")
    (site / "ghost/__pycache__").mkdir()
    (site / "ghost/__pycache__/long_gone.cpython-311.pyc").write_text("")
    trees.change(root, {}, ("ghost",))
    assert not (site / "ghost").exists()
    trees.take_back(root)
    assert (site / "ghost/deep/a.py").exists()
    (site / "ghost/notes.txt").write_text("mine")
    trees.bring_back(root)
    assert [p.name for p in (site / "ghost").iterdir() if p.name != "cache"] == ["notes.txt"]


KILLED_AFTER_REVISION = """
from overlayspawner.payload import revisions
write = revisions.write
revisions.write = lambda *args: (write(*args), os.kill(os.getpid(), 9))
"""


def test_new_requirements_follow_the_umask(tmp_path: Path) -> None:
    changes.prepare(str(tmp_path))
    overlay, _ = changes.places(str(tmp_path))
    os.unlink(overlay.requirements)
    assert run_child("import os; os.umask(0o077)\n" + MAKE, str(tmp_path)).returncode == 0
    assert stat.S_IMODE(os.stat(overlay.requirements).st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
@pytest.mark.parametrize("killed", [False, True])
def test_requirements_keep_their_mode(mode: int, killed: bool, tmp_path: Path) -> None:
    """Whatever the umask, and whether the change itself or a repair writes them."""
    changes.prepare(str(tmp_path))
    overlay, _ = changes.places(str(tmp_path))
    file = Path(overlay.requirements)
    file.chmod(mode)
    umask = "import os; os.umask(0o027)\n"
    if killed:
        code = umask + KILLED_AFTER_REVISION + MAKE
        assert run_child(code, str(tmp_path)).returncode == -9
        assert file.read_text() == changes.REQUIREMENTS[0]
        assert changes.mend(str(tmp_path)) == "finished"
    else:
        assert run_child(umask + MAKE, str(tmp_path)).returncode == 0
    assert look(tmp_path) == ("new", {})
    assert stat.S_IMODE(file.stat().st_mode) == mode


def test_only_the_holder_of_the_lease_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that was held up and replaced stops before it writes again, and leaves repair to the other."""
    changes.prepare(str(tmp_path))
    overlay, env = changes.places(str(tmp_path))
    stage = os.path.join(env.state, "stage-1", "prefix")
    changes.write(stage, changes.STAGED)
    ops = plan_ops(env, changes.tree(stage, list(changes.STAGED)), tree_of(changes.REMOVED), "000001-x")
    commit = change.Commit(overlay, env, "000001-x", "stage-1/prefix", ops, ["whole==2"], ["leaves"])
    lease = acquire(env)
    lease_file = Path(env.state, "lease.json")
    data = json.loads(lease_file.read_text())
    write = journals.write

    def lose(*args: Any) -> None:
        write(*args)
        lease_file.write_text(json.dumps({**data, "token": data["token"] + 1, "nonce": "another"}))

    monkeypatch.setattr(journals, "write", lose)
    with pytest.raises(OverlayError) as e:
        commit.run(lease)
    assert e.value.code == "busy"
    assert change.pending(env)
    lease.release()
    os.utime(lease_file, (0, 0))
    assert changes.mend(str(tmp_path)) == "undone"
    assert look(tmp_path) == ("old", {})


def test_a_damaged_journal_is_moved_aside(tmp_path: Path) -> None:
    changes.prepare(str(tmp_path))
    _, env = changes.places(str(tmp_path))
    Path(env.state, "journal.json").write_text("{")
    assert changes.mend(str(tmp_path)) == "clean"
    assert not change.pending(env)
    assert [n for n in os.listdir(env.state) if n.startswith("journal.json.damaged")]
    assert look(tmp_path)[0] == "old"


def test_a_journal_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    changes.prepare(str(tmp_path))
    _, env = changes.places(str(tmp_path))
    Path(env.state, "journal.json").write_text(json.dumps({"schema": 99, "steps": []}))
    with pytest.raises(OverlayError):
        changes.mend(str(tmp_path))
    assert change.pending(env)


def test_old_changes_are_forgotten(tmp_path: Path) -> None:
    overlay, env = changes.places(str(tmp_path))
    root = Path(env.state, "set-aside")
    for n in range(15):
        (root / f"{n:06d}-x").mkdir(parents=True)
    change.prune(overlay, env)
    assert sorted(os.listdir(root)) == [f"{n:06d}-x" for n in range(5, 15)]


def test_revisions_are_numbered_and_never_replaced(tmp_path: Path) -> None:
    overlay, _ = changes.places(str(tmp_path))
    os.makedirs(overlay.path)
    assert [revisions.write(overlay, {"action": a})["id"] for a in "abc"] == [1, 2, 3]
    Path(revisions.path(overlay, 2)).write_text("damaged")
    assert [r["id"] for r in revisions.list_revisions(overlay)] == [3, 1]
    assert revisions.write(overlay, {"action": "d"})["id"] == 4
    latest = revisions.latest(overlay)
    assert latest is not None
    assert latest["action"] == "d"


def test_an_interruption_after_the_revision_finishes_the_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes.prepare(str(tmp_path))
    overlay, env = changes.places(str(tmp_path))
    write = revisions.write

    def interrupted(*arguments: Any) -> Any:
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(revisions, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        changes.make(str(tmp_path))
    assert changes.read(env.path) == changes.AFTER
    assert Path(overlay.requirements).read_text() == changes.REQUIREMENTS[1]
    assert len(revisions.ids(overlay)) == 1
    assert changes.mend(str(tmp_path)) == "clean"
