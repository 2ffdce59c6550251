"""A change that only adds resolves the new lines; where anything else may be at stake, all of them."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import adopt, revisions, undo
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.installer.uv import Uv
from overlayspawner.payload.mark import Mark, path
from overlayspawner.payload.probe import Base
from tests.support.envs import (
    base,  # noqa: F401  (a fixture)
    make_context,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.index import LocalIndex


@pytest.fixture
def ctx(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
) -> Context:
    return make_context(tmp_path / "home", base, installer="uv", index_url=index.url)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the installer was asked to resolve, each time."""
    out: list[list[str]] = []
    stage = Uv.stage

    def watched(self: Uv, ctx: Context, requirements: list[str], *rest: Any, **how: Any) -> None:
        out.append(list(requirements))
        stage(self, ctx, requirements, *rest, **how)

    monkeypatch.setattr(Uv, "stage", watched)
    return out


def install(ctx: Context, *lines: str) -> dict[str, Any]:
    return dict(apply(ctx, "install", install=lines)["plan"])


def versions(ctx: Context) -> dict[str, str]:
    return {name: dist.version for name, dist in overlay_dists(ctx.require()[1]).items()}


def test_only_what_is_new_is_resolved(ctx: Context, asked: list[list[str]]) -> None:
    todo = [["tinyscript", "tinydata"], ["tinyns-one"], ["basetool"], ["tinyscript>=1", "tinyextra[leaf]"]]
    for lines in todo:
        install(ctx, *lines)
    assert asked == todo
    assert set(versions(ctx)) == {"tinyscript", "tinydata", "tinyns-one", "tinyextra"}


def test_after_an_uninstall_too(ctx: Context, asked: list[list[str]]) -> None:
    install(ctx, "tinyscript", "tinytree")
    apply(ctx, "uninstall", uninstall=["tinytree"])
    install(ctx, "tinydata")
    assert asked[1:] == [["tinydata"]]


def test_where_the_names_tell_all_lines_are_asked_at_once(ctx: Context, asked: list[list[str]]) -> None:
    install(ctx, "tinytree<2", "tinyscript")
    install(ctx, "tinytree>=2", "tinydata")
    assert asked[1:] == [["tinytree>=2", "tinyscript", "tinydata"]]
    assert versions(ctx)["tinytree"] == "2.0"


def test_a_new_package_that_takes_something_away_has_all_lines_asked(
    ctx: Context, asked: list[list[str]]
) -> None:
    install(ctx, "tinyleaf<2", "tinyscript")
    with pytest.raises(OverlayError) as e:
        install(ctx, "tinytree>=2")
    assert e.value.code == "conflict"
    assert asked[1:] == [["tinytree>=2"], ["tinyleaf<2", "tinyscript", "tinytree>=2"]]
    assert versions(ctx) == {"tinyscript": "1.0"}
    # what they all agree with is found
    install(ctx, "tinytree")
    assert asked[3:] == [["tinytree"], ["tinyleaf<2", "tinyscript", "tinytree"]]
    assert versions(ctx) == {"tinyscript": "1.0", "tinytree": "1.0"}


def test_it_is_one_change_all_the_same(ctx: Context) -> None:
    install(ctx, "tinyscript")
    install(ctx, "tinytree")
    overlay, env = ctx.require()
    assert Path(overlay.requirements).read_text() == "tinyscript\ntinytree\n"
    assert Mark.read(env).asked == ["tinyscript", "tinytree"]
    assert revisions.ids(overlay) == [1, 2]


def by_hand(ctx: Context) -> Context:
    Path(ctx.require()[0].requirements).write_text("tinyscript\ntinyns-one\ntinydata\n")
    return ctx


def by_pip(ctx: Context) -> Context:
    env = ctx.require()[1]
    argv = [env.python, "-m", "pip", "install", "-q", "--no-deps", "-i", ctx.spec.index_url, "tinymany"]
    subprocess.run(argv, check=True, env={**os.environ, "PIP_CONFIG_FILE": os.devnull})
    return ctx


def by_pip_recorded(ctx: Context) -> Context:
    by_pip(ctx)
    assert adopt.adopt(ctx)["revision"]["changed"]
    return ctx


def with_spec(ctx: Context, **fields: Any) -> Context:
    out = copy.copy(ctx)
    out.spec = copy.copy(ctx.spec)
    out.spec.__dict__.update(fields)
    return out


def by_the_image(ctx: Context) -> Context:
    out = copy.copy(ctx)
    out.base_lock = "another"
    return out


def by_the_administrator(ctx: Context) -> Context:
    return with_spec(ctx, requirements=["tinydata"])


def by_constraints(ctx: Context) -> Context:
    return with_spec(ctx, constraints=["tinydata<2"])


def by_damage(ctx: Context) -> Context:
    dist = overlay_dists(ctx.require()[1])["tinyscript"]
    os.unlink(os.path.join(dist.path, "INSTALLER"))
    return ctx


def by_loss(ctx: Context) -> Context:
    shutil.rmtree(overlay_dists(ctx.require()[1])["tinyscript"].path)
    return ctx


def by_an_undo_of_more(ctx: Context) -> Context:
    undo.undo(ctx)
    undo.undo(ctx)
    return ctx


def by_nobody_knows_whom(ctx: Context) -> Context:
    os.unlink(path(ctx.require()[1]))
    return ctx


def by_an_earlier_version(ctx: Context) -> Context:
    file = Path(path(ctx.require()[1]))
    text = file.read_text().replace('"settled"', '"other"').replace('"under"', '"other2"')
    file.write_text(text)
    return ctx


@pytest.mark.parametrize(
    "what",
    [
        by_hand,
        by_pip,
        by_pip_recorded,
        by_the_image,
        by_the_administrator,
        by_constraints,
        by_damage,
        by_loss,
        by_an_undo_of_more,
        by_nobody_knows_whom,
        by_an_earlier_version,
    ],
)
def test_all_lines_are_resolved_when_something_has_changed(
    ctx: Context, asked: list[list[str]], what: Callable[[Context], Context]
) -> None:
    install(ctx, "tinyscript")
    install(ctx, "tinyns-one")
    later = what(ctx)
    asked.clear()
    install(later, "tinyns-two")
    lines = Path(ctx.require()[0].requirements).read_text().split()
    assert set(asked[-1]) == {*lines, *later.spec.requirements}
    # and then it is known again
    install(later, "tinyextra")
    assert asked[-1] == ["tinyextra"]


def test_an_undo_brings_back_what_was_known(ctx: Context, asked: list[list[str]]) -> None:
    install(ctx, "tinyscript")
    install(ctx, "tinydata")
    undo.undo(ctx)
    install(ctx, "tinyns-one")
    assert asked[-1] == ["tinyns-one"]


def test_an_undo_of_what_was_resolved_under_another_image(ctx: Context, asked: list[list[str]]) -> None:
    install(ctx, "tinyscript")
    later = by_the_image(ctx)
    install(later, "tinydata")
    undo.undo(later)
    install(later, "tinyns-one")
    assert asked[-1] == ["tinyscript", "tinyns-one"]


@pytest.mark.slow
def test_pip_has_all_lines_asked_too_where_something_has_to_go(ctx: Context) -> None:
    later = with_spec(ctx, installer="pip")
    install(later, "tinyleaf<2", "tinyscript")
    with pytest.raises(OverlayError) as e:
        install(later, "tinytree>=2")
    assert e.value.code == "conflict"
    assert versions(ctx) == {"tinyscript": "1.0"}
    install(later, "tinytree", "tinydata")
    assert versions(ctx) == {"tinyscript": "1.0", "tinytree": "1.0", "tinydata": "1.0"}
