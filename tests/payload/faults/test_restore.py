"""A restore, and the rewriting after a move, stopped at their writes: then old or new, never between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import basechange, restore, revisions
from overlayspawner.payload.apply import apply
from overlayspawner.payload.change import repair
from overlayspawner.payload.context import Context
from overlayspawner.payload.lease import acquire
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.probe import Base
from tests.support.doctor import complaints
from tests.support.envs import (
    base,  # noqa: F401  (a fixture)
    env_snapshot,
    make_context,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.faults import Operation, left_over, quick_directory, sweep
from tests.support.index import LocalIndex


@pytest.fixture
def where(tmp_path: Path, uv_on_path: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:  # noqa: F811
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with quick_directory(tmp_path) as directory:
        # one cache for all runs: what is tested is ours, not the download
        monkeypatch.setenv("UV_CACHE_DIR", str(directory / "cache"))
        (directory / "cache").mkdir()
        yield directory


def places(root: str, base: Base) -> tuple[Overlay, Env]:  # noqa: F811
    overlay = Overlay(os.path.join(root, "home", ".overlay", "default"))
    return overlay, overlay.env(base)


def look(ctx: Context) -> dict[str, Any]:
    """What Python and the user see. How the last restore went may be told differently."""
    overlay, _ = ctx.require()
    return {**env_snapshot(ctx), "revisions": str(revisions.ids(overlay))}


def operation(
    name: str,
    base: Base,  # noqa: F811
    index: LocalIndex,
    before: Any,
    act: Any,
) -> Operation:
    def context(root: str) -> Context:
        return make_context(Path(root) / "home", base, index_url=index.url)

    def mend(root: str) -> None:
        overlay, env = places(root, base)
        with acquire(env) as lease:
            repair(overlay, env, lease)

    def left(root: str) -> Iterable[str]:
        # a lock that was cut short is told as such, and what is not installed as well: that is the old state
        found = complaints(context(root), without=["lock", "place", "requirements"])
        return [*left_over(*places(root, base)), *(f"{key}: {text}" for key, text in found.items())]

    return Operation(
        name,
        lambda root: before(context(root)),
        lambda root: act(context(root)),
        mend,
        lambda root: look(context(root)),
        left,
    )


def test_a_restore_of_a_fresh_env(where: Path, base: Base, index: LocalIndex) -> None:  # noqa: F811
    def before(ctx: Context) -> None:
        overlay, _ = ctx.require()
        Path(overlay.requirements).write_text("# mine\ntinyscript\nnosuchpackage\ntinytree\n")

    done = operation("restore", base, index, before, restore.restore)
    tally = sweep(done, where, each=9, mend_faults=False)
    assert tally["old"] and tally["new"]


def test_every_write_of_its_commit(where: Path, base: Base, index: LocalIndex) -> None:  # noqa: F811
    def before(ctx: Context) -> None:
        overlay, _ = ctx.require()
        Path(overlay.requirements).write_text("tinyscript\n")

    done = operation("commit of a restore", base, index, before, restore.restore)
    tally = sweep(done, where, phase="commit", hows=["kill", "EIO"])
    assert tally["old"] and tally["new"]


def test_the_rewriting_after_a_move(where: Path, base: Base, index: LocalIndex) -> None:  # noqa: F811
    made = make_context(where / "elsewhere" / "home", base, index_url=index.url)
    apply(made, "install", install=["tinyscript"])
    first = Path(made.home)

    def before(ctx: Context) -> None:
        shutil.rmtree(ctx.home)
        shutil.copytree(first, ctx.home, symlinks=True)

    done = operation("relocate", base, index, before, basechange.relocate)
    first.rename(first.with_name("gone"))
    first = first.with_name("gone")
    tally = sweep(done, where, hows=["kill", "ENOSPC"])
    assert tally["old"] and tally["new"]
