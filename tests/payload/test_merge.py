"""Hand edits of requirements.txt: kept, shown as pending, applied by sync."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayspawner.payload import merge, restore, revisions
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.overlay import Overlay
from overlayspawner.payload.probe import Base
from overlayspawner.payload.requirements import Requirements
from overlayspawner.payload.undo import undo
from tests.support.envs import base, make_context, uv_on_path  # noqa: F401  (fixtures)
from tests.support.index import LocalIndex

NOTHING: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}


@pytest.fixture
def ctx(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Context]:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    yield make_context(tmp_path / "home", base, index_url=index.url)


def edit(ctx: Context, *lines: str) -> None:
    """Write the file as a user does in an editor."""
    overlay, _ = ctx.require()
    Path(overlay.requirements).write_text("".join(line + "\n" for line in lines))


def lines(ctx: Context) -> list[str]:
    overlay, _ = ctx.require()
    return Path(overlay.requirements).read_text().splitlines()


def pending(ctx: Context) -> dict[str, list[str]]:
    overlay, _ = ctx.require()
    return merge.pending(overlay)


def installed(ctx: Context) -> dict[str, str]:
    _, env = ctx.require()
    return {name: dist.version for name, dist in overlay_dists(env).items()}


def test_nothing_is_pending_after_a_change(ctx: Context) -> None:
    assert pending(ctx) == NOTHING
    apply(ctx, "install", install=["tinydata", "tinyleaf>=2"])
    assert pending(ctx) == NOTHING
    apply(ctx, "uninstall", uninstall=["tinydata"])
    assert pending(ctx) == NOTHING
    overlay, _ = ctx.require()
    assert merge.notice(overlay) is None
    assert stat.S_IMODE(os.stat(merge.path(overlay)).st_mode) == 0o600


def test_each_kind_of_edit_is_told(ctx: Context) -> None:
    apply(ctx, "install", install=["tinydata", "tinyleaf>=2", "tinymany"])
    edit(ctx, "# my list", "tinydata", "tinyleaf>=1  # either", "tinytree", "--pre", "-r more.txt")
    assert pending(ctx) == {"added": ["tinytree"], "removed": ["tinymany"], "changed": ["tinyleaf>=1"]}
    overlay, _ = ctx.require()
    found = merge.notice(overlay)
    assert found is not None
    assert found["code"] == "requirements-pending"
    for part in ("tinytree", "tinymany", "tinyleaf>=1", "--pre", "-r more.txt"):
        assert part in found["message"]
    assert installed(ctx).keys() == {"tinydata", "tinyleaf", "tinymany"}  # reading installs nothing


def test_sync_does_what_is_pending(ctx: Context) -> None:
    apply(ctx, "install", install=["tinyforest", "tinymany"])
    assert installed(ctx).keys() == {"tinyforest", "tinytree", "tinyleaf", "tinymany"}
    text = ["# my list", "", "tinydata  # new", "tinymany", "--pre"]
    edit(ctx, *text)
    plan = apply(ctx, "sync")["plan"]
    assert {p["name"]: p["reason"] for p in plan["removes"]} == {
        "tinyforest": "uninstalled",
        "tinytree": "unneeded",
        "tinyleaf": "unneeded",
    }
    assert installed(ctx).keys() == {"tinydata", "tinymany"}
    assert lines(ctx) == text
    assert pending(ctx) == NOTHING


def test_sync_changes_versions(ctx: Context) -> None:
    apply(ctx, "install", install=["tinyleaf>=2"])
    edit(ctx, "tinyleaf<1.1")
    apply(ctx, "sync")
    assert installed(ctx) == {"tinyleaf": "1.0"}
    assert pending(ctx) == NOTHING


def test_sync_keeps_what_another_line_needs(ctx: Context) -> None:
    apply(ctx, "install", install=["tinytree", "tinyleaf>=2"])
    edit(ctx, "tinytree")
    assert not apply(ctx, "sync")["revision"]["changed"]
    assert installed(ctx).keys() == {"tinytree", "tinyleaf"}
    assert pending(ctx) == NOTHING


def test_an_edit_that_asks_for_no_change_is_done_by_a_sync(ctx: Context) -> None:
    apply(ctx, "install", install=["tinydata"])
    edit(ctx, "tinydata>=1", "tinyleaf")  # the image has tinyleaf
    assert pending(ctx) == {"added": ["tinyleaf"], "removed": [], "changed": ["tinydata>=1"]}
    apply(ctx, "sync")
    assert pending(ctx) == NOTHING


def test_a_change_keeps_edits_and_comments(ctx: Context) -> None:
    apply(ctx, "install", install=["tinydata", "tinymany"])
    edit(ctx, "# for the course", "tinydata", "", "tinytree  # soon", "-r other.txt")
    apply(ctx, "install", install=["tinyscript"])
    assert lines(ctx) == [
        "# for the course",
        "tinydata",
        "",
        "tinytree  # soon",
        "-r other.txt",
        "tinyscript",
    ]
    # what was added came along, as every change resolves all lines; what was taken out waits for a sync
    assert "tinytree" in installed(ctx)
    assert pending(ctx) == {"added": [], "removed": ["tinymany"], "changed": []}
    assert "tinymany" in installed(ctx)
    apply(ctx, "uninstall", uninstall=["tinyscript"])
    assert pending(ctx)["removed"] == ["tinymany"]
    apply(ctx, "sync")
    assert "tinymany" not in installed(ctx)
    assert pending(ctx) == NOTHING


def test_an_uninstallation_realises_no_other_line(ctx: Context) -> None:
    apply(ctx, "install", install=["tinydata", "tinymany"])
    edit(ctx, "tinydata", "tinymany", "tinyscript")
    apply(ctx, "uninstall", uninstall=["tinydata"])
    assert lines(ctx) == ["tinymany", "tinyscript"]
    assert pending(ctx)["added"] == ["tinyscript"]
    assert "tinyscript" not in installed(ctx)


def test_without_the_copy_the_history_tells(ctx: Context) -> None:
    apply(ctx, "install", install=["tinydata"])
    overlay, _ = ctx.require()
    Path(merge.path(overlay)).write_bytes(b"\0" * 50)
    assert pending(ctx) == NOTHING
    os.unlink(merge.path(overlay))
    assert pending(ctx) == NOTHING
    edit(ctx, "tinydata", "tinymany")
    assert pending(ctx)["added"] == ["tinymany"]


def test_credentials_are_not_shown(tmp_path: Path) -> None:
    overlay = Overlay(str(tmp_path))
    os.mkdir(overlay.revisions)
    Path(overlay.requirements).write_text("thing @ https://me:secret@example.org/thing.whl\n")
    assert merge.pending(overlay)["added"] == ["thing @ https://***@example.org/thing.whl"]
    found = merge.notice(overlay)
    assert found is not None
    assert "secret" not in found["message"]
    # a revision holds the line without its credentials: still the same line
    revisions.write(overlay, {"requirements": {"after": ["thing @ https://***@example.org/thing.whl"]}})
    assert merge.pending(overlay) == NOTHING


def test_an_unreadable_file_is_no_reason_to_fail(tmp_path: Path) -> None:
    overlay = Overlay(str(tmp_path))
    os.mkdir(overlay.requirements)
    assert merge.notice(overlay) is None


@pytest.mark.parametrize("action", ["install", "uninstall", "sync", "undo"])
def test_noting_what_is_realised_twice_is_the_same_as_once(action: str) -> None:
    before = Requirements("a\nb==1\nc\n")
    after = Requirements("a  # mine\nb==2\nd\n")
    once = merge.realised(before, action, after, ["b==2"], ["e"])
    assert merge.realised(Requirements(once), action, after, ["b==2"], ["e"]) == once


@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_a_byte_order_mark_and_windows_line_ends_are_no_edit(ctx: Context, mark: str) -> None:
    apply(ctx, "install", install=["tinydata", "tinymany"])
    overlay, _ = ctx.require()
    Path(overlay.requirements).write_bytes(f"{mark}tinydata\r\ntinymany".encode())
    assert pending(ctx) == NOTHING
    assert not apply(ctx, "sync")["revision"]["changed"]
    assert installed(ctx).keys() == {"tinydata", "tinymany"}


def test_a_line_that_cannot_be_understood_uninstalls_nothing(ctx: Context) -> None:
    apply(ctx, "install", install=["tinydata", "tinymany", "tinyscript"])
    hashed = "tinymany==1.0 --hash=sha256:" + "0" * 64
    edit(ctx, "tinydata=1.0", hashed)
    assert pending(ctx) == {"added": [], "removed": ["tinyscript"], "changed": []}
    apply(ctx, "sync")
    assert installed(ctx).keys() == {"tinydata", "tinymany"}
    assert pending(ctx) == NOTHING
    overlay, _ = ctx.require()
    found = merge.notice(overlay)
    assert found is not None
    assert "tinydata=1.0" in found["message"] and "tinymany==1.0" in found["message"]
    edit(ctx, "tinydata==1.0")
    assert pending(ctx) == {"added": [], "removed": ["tinymany"], "changed": ["tinydata==1.0"]}


@pytest.mark.parametrize("how", ["missing", "zeros", "a link to nowhere"])
def test_a_lost_file_uninstalls_nothing(ctx: Context, how: str) -> None:
    apply(ctx, "install", install=["tinydata", "tinymany"])
    overlay, _ = ctx.require()
    file = Path(overlay.requirements)
    size = file.stat().st_size
    file.unlink()
    if how == "zeros":
        file.write_bytes(b"\0" * size)
    elif how != "missing":
        file.symlink_to(file.parent / "elsewhere" / "mine.txt")
    assert pending(ctx) == NOTHING
    apply(ctx, "sync")
    assert installed(ctx).keys() == {"tinydata", "tinymany"}
    if how == "missing":
        assert lines(ctx) == ["tinydata", "tinymany"]
        file.unlink()
        apply(ctx, "install", install=["tinyscript"])
        assert lines(ctx) == ["tinydata", "tinymany", "tinyscript"]
        edit(ctx)
        apply(ctx, "sync")
        assert installed(ctx) == {}
        undo(ctx)
        assert installed(ctx).keys() == {"tinydata", "tinymany", "tinyscript"}


def test_a_lost_file_with_a_secret_is_written_for_its_owner_only(tmp_path: Path) -> None:
    overlay = Overlay(str(tmp_path))
    os.mkdir(overlay.revisions)
    merge.save(overlay, "thing @ https://me:secret@example.org/thing.whl\n")
    assert merge.bring_back(overlay)
    assert stat.S_IMODE(os.stat(overlay.requirements).st_mode) == 0o600
    assert not merge.bring_back(overlay)


def test_what_a_sync_put_into_effect_waits_again_when_that_is_undone(ctx: Context) -> None:
    apply(ctx, "install", install=["tinydata", "tinyleaf>=2"])
    edit(ctx, "tinymany  # mine", "tinyleaf<1.1")
    edits = pending(ctx)
    assert edits == {"added": ["tinymany"], "removed": ["tinydata"], "changed": ["tinyleaf<1.1"]}
    apply(ctx, "sync")
    for _ in range(2):
        assert installed(ctx).keys() == {"tinymany", "tinyleaf"}
        assert pending(ctx) == NOTHING
        done = undo(ctx)
        assert done["revision"]["undo"] == "offline"
        assert installed(ctx) == {"tinydata": "1.0", "tinyleaf": "2.0"}
        assert lines(ctx) == ["tinymany  # mine", "tinyleaf<1.1"]
        assert pending(ctx) == edits
        assert restore.wanted(ctx) is None
        undo(ctx, done["revision"]["id"])
    assert installed(ctx).keys() == {"tinymany", "tinyleaf"}
    assert pending(ctx) == NOTHING
