"""Undoing changes: offline where nothing stands against it, else by installing what was there before."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import change, revisions
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.probe import Base
from overlayspawner.payload.undo import undo, undoable
from tests.support.envs import (
    base,  # noqa: F401  (a fixture)
    env_snapshot,
    make_context,
    run_python,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.index import LocalIndex

NOWHERE = "http://127.0.0.1:9/simple"


@pytest.fixture
def here(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Context]:
    """An empty overlay."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    yield make_context(tmp_path / "home", base, installer="uv", index_url=index.url)


def install(ctx: Context, *lines: str) -> int:
    return int(apply(ctx, "install", install=lines)["revision"]["id"])


def offline(ctx: Context) -> Context:
    """The same server without a package index."""
    ctx.spec.index_url = NOWHERE
    return ctx


def tree(ctx: Context) -> dict[str, str]:
    """The env without the lock, which is written anew each time."""
    return {path: text for path, text in env_snapshot(ctx).items() if path != "pylock.toml"}


def refused(ctx: Context, revision: Any = None) -> OverlayError:
    before = tree(ctx)
    with pytest.raises(OverlayError) as e:
        undo(ctx, revision)
    assert tree(ctx) == before
    return e.value


def names(ctx: Context) -> dict[str, str]:
    _, env = ctx.require()
    return {name: dist.version for name, dist in overlay_dists(env).items()}


def test_nothing_to_undo(here: Context) -> None:
    assert undoable(here) is None
    assert refused(here).code == "cannot-undo"
    assert refused(here, 7).code == "cannot-undo"
    assert refused(here, "x").code == "bad-request"
    assert refused(here, True).code == "bad-request"


def test_undoing_needs_no_index_and_brings_everything_back(here: Context) -> None:
    states = [tree(here)]
    install(here, "tinytree<2")
    states.append(tree(here))
    install(here, "tinytree>=2", "tinyscript")
    states.append(tree(here))
    offline(here)
    assert undoable(here) == {"revision": 2, "offline": True}
    events: list[dict[str, Any]] = []
    done = undo(here, on_event=events.append, who="alice", argv=["overlay", "undo"])
    assert tree(here) == states[1]
    assert {k: done["revision"][k] for k in ("id", "action", "undoes", "undo", "who", "argv", "changed")} == {
        "id": 3,
        "action": "undo",
        "undoes": 2,
        "undo": "offline",
        "who": "alice",
        "argv": ["overlay", "undo"],
        "changed": True,
    }
    assert [(p["name"], p["version"], p["replaces"]) for p in done["plan"]["new"]] == [
        ("tinytree", "1.0", "2.0")
    ]
    assert sorted(p["name"] for p in done["plan"]["removes"]) == ["tinyleaf", "tinyscript"]
    assert [e["phase"] for e in events] == ["committing", "done"]
    assert run_python(here, "import tinytree; print(tinytree.__version__)") == "1.0"
    # once more goes one further back
    assert undoable(here) == {"revision": 1, "offline": True}
    assert undo(here)["revision"]["undoes"] == 1
    assert tree(here) == states[0]
    assert undoable(here) is None
    assert refused(here).code == "cannot-undo"
    # what was undone comes back by undoing that
    assert undo(here, 4)["revision"]["undoes"] == 4
    assert tree(here) == states[1]
    assert undo(here, 3)["revision"]["undo"] == "offline"
    assert sorted(tree(here)) == sorted(states[2])
    assert names(here) == {"tinytree": "2.0", "tinyleaf": "2.0", "tinyscript": "1.0"}
    # and can be undone like the change itself
    assert undoable(here) == {"revision": 2, "offline": True}
    assert undo(here, 2)["revision"]["undo"] == "offline"
    assert tree(here) == states[1]


def test_undone_is_undone(here: Context) -> None:
    install(here, "tinyscript")
    undo(here)
    assert "undone already, by revision 2" in refused(here, 1).message
    undo(here, 2)
    assert "undone already, by revision 3" in refused(here, 2).message
    undo(here, 1)
    assert names(here) == {}


def test_what_was_edited_by_hand_since_stays(here: Context) -> None:
    overlay, _ = here.require()
    file = Path(overlay.requirements)
    install(here, "tinyscript")
    install(here, "tinytree<2", "tinydata")
    file.write_text(
        "# a note\n" + file.read_text().replace("tinydata", "tinydata>=1  # at least") + "tinypre\n"
    )
    undo(here)
    assert file.read_text() == "# a note\ntinyscript\ntinydata>=1  # at least\ntinypre\n"
    assert names(here) == {"tinyscript": "1.0"}


def test_credentials_are_not_recorded_so_that_line_stays(here: Context) -> None:
    overlay, _ = here.require()
    file = Path(overlay.requirements)
    install(here, "tinyscript")
    file.write_text("tinyscript @ https://me:secret@example.invalid/tinyscript-1.0-py3-none-any.whl\n")
    data = revisions.read(overlay, 1)
    assert data is not None
    lines = {"before": ["tinyscript @ https://***@example.invalid/x.whl"], "after": ["tinyscript==1.0"]}
    Path(revisions.path(overlay, 1)).write_text(__import__("json").dumps({**data, "requirements": lines}))
    file.write_text("tinyscript==1.0\n")
    events: list[dict[str, Any]] = []
    undo(here, on_event=events.append)
    assert file.read_text() == "tinyscript==1.0\n"
    assert any("credentials" in e["message"] for e in events)


def test_an_older_change_alone(here: Context) -> None:
    install(here, "tinyscript")
    install(here, "tinytree<2")
    offline(here)
    assert undo(here, 1)["revision"]["undo"] == "offline"
    assert names(here) == {"tinytree": "1.0"}
    assert undoable(here) == {"revision": 2, "offline": True}


def test_what_a_later_change_needs_is_not_taken_away(here: Context) -> None:
    install(here, "tinyleaf>=2")
    install(here, "tinytree>=2")
    error = refused(here, 1)
    assert error.code == "cannot-undo"
    assert "tinytree" in error.message and "revision 2" in error.message


def test_files_that_were_changed_since_are_downloaded(here: Context) -> None:
    install(here, "tinytree<2")
    install(here, "tinytree>=2")
    _, env = here.require()
    module = next(Path(env.site_packages).glob("tinytree*/__init__.py"), None) or Path(
        env.site_packages, "tinytree.py"
    )
    text = module.read_text()
    module.unlink()
    module.write_text(text + "# mine\n")
    assert undoable(here) == {"revision": 2, "offline": False}
    done = undo(here, argv=["overlay", "undo"])
    assert done["revision"]["undo"] == "download"
    assert (done["revision"]["action"], done["revision"]["undoes"]) == ("undo", 2)
    assert names(here) == {"tinytree": "1.0"}
    assert undoable(here) is not None
    assert undoable(here)["revision"] == 1  # type: ignore[index]


def test_what_is_no_longer_kept_is_downloaded(here: Context) -> None:
    install(here, "tinytree<2")
    install(here, "tinytree>=2")
    overlay, env = here.require()
    change.prune(overlay, env, keep=0)
    assert undoable(here) == {"revision": 2, "offline": False}
    assert undo(here)["revision"]["undo"] == "download"
    assert names(here) == {"tinytree": "1.0"}


def test_without_a_network_such_a_change_stays(here: Context) -> None:
    install(here, "tinytree<2")
    install(here, "tinytree>=2")
    overlay, env = here.require()
    change.prune(overlay, env, keep=0)
    offline(here)
    os.environ.pop("UV_CACHE_DIR", None)
    before = names(here)
    try:
        undo(here)
    except OverlayError as e:
        assert e.code in ("index-unreachable", "not-restored", "installer-failed"), e.code
        assert names(here) == before
    else:
        assert names(here) == {"tinytree": "1.0"}  # out of the installer's cache


def test_a_metadata_directory_goes_whole(here: Context) -> None:
    """A tool wrote into it since; what stayed behind would look like a package."""
    install(here, "tinyscript")
    _, env = here.require()
    (Path(overlay_dists(env)["tinyscript"].path) / "REQUESTED").write_text("")
    undo(here)
    assert names(here) == {}
    assert not list(Path(env.site_packages).glob("tinyscript*"))


def test_what_somebody_put_there_stays(here: Context) -> None:
    install(here, "tinydata")
    _, env = here.require()
    folder = next(
        p
        for p in Path(env.site_packages).iterdir()
        if p.is_dir() and p.name.startswith("tinydata") and p.suffix != ".dist-info"
    )
    (folder / "mine.txt").write_text("mine")
    undo(here)
    assert [p.name for p in folder.iterdir()] == ["mine.txt"]


def test_an_uninstallation_comes_back(here: Context) -> None:
    install(here, "tinytree", "tinyscript")
    before = tree(here)
    apply(here, "uninstall", uninstall=["tinytree"])
    offline(here)
    undo(here)
    after = tree(here)
    lines = [state.pop("requirements").splitlines() for state in (before, after)]
    assert sorted(lines[0]) == sorted(lines[1])
    assert before == after


def test_what_another_tool_did_since_is_the_newest_change(here: Context) -> None:
    _, env = here.require()
    install(here, "tinyscript")
    index = ["--index-url", here.spec.index_url, "--trusted-host", "127.0.0.1"]
    argv = [env.python, "-m", "pip", "install", "-q", *index, "tinymany"]
    subprocess.run(argv, check=True)
    done = undo(here)
    assert (done["revision"]["undoes"], done["revision"]["undo"]) == (2, "download")
    assert names(here).keys() == {"tinyscript"}
    assert (revisions.read(here.require()[0], 2) or {})["action"] == "adopt"
