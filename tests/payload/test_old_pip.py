"""An image whose pip is older than reports: what it did is told by its command line and its metadata."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from overlayspawner.payload import adopt, merge, revisions, runtime
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.installer import pip
from overlayspawner.payload.probe import Base
from tests.support.doctor import assert_clean
from tests.support.envs import make_base, make_context, put
from tests.support.index import LocalIndex
from tests.support.wheels import make_wheel

pytestmark = pytest.mark.slow

OLD = "22.1.2"
"""The last that knows no ``--report``."""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """An image's Python with that pip, from PyPI, and ``tinyleaf`` 1.1."""
    base = make_base(tmp_path_factory.mktemp("old") / "image")
    install = [base.executable, "-m", "pip", "install", "-q", f"pip=={OLD}"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no pip {OLD} to be had: {done.stderr[-300:]}")
    put(Path(base.site_dirs[-1]), make_wheel(tmp_path_factory.mktemp("wheels"), "tinyleaf", "1.1"))
    return base


@pytest.fixture
def ctx(old: Base, tmp_path: Path, index: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # without uv
    made = make_context(tmp_path / "home", old, index_url=index.url)
    made.runtime = str(tmp_path / "runtime")
    os.mkdir(made.runtime, 0o700)
    Path(made.runtime, "server.json").write_text(made.to_json())
    runtime.make_folders(made.runtime)
    runtime.write_commands(made, {"PATH": os.environ["PATH"]})
    return made


def run(ctx: Context, *argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lines(ctx: Context) -> list[str]:
    return Path(ctx.require()[0].requirements).read_text().splitlines()


def test_what_the_command_was_asked_for_is_recorded(ctx: Context) -> None:
    command = os.path.join(ctx.runtime, "bin", "pip")
    assert f"pip {OLD} " in run(ctx, command, "--version")
    run(ctx, command, "install", "-q", "tinytree>=1,<2", "tinydata")
    assert lines(ctx) == ["tinydata", "tinytree>=1,<2"]
    # tinyleaf is the image's
    assert set(overlay_dists(ctx.require()[1])) == {"tinydata", "tinytree"}
    assert not adopt.needed(ctx)
    assert not any(merge.pending(ctx.require()[0]).values())
    run(ctx, command, "uninstall", "-y", "-q", "tinydata")
    assert lines(ctx) == ["tinytree>=1,<2"]
    assert_clean(ctx)


def test_what_it_did_behind_our_back_is_adopted(ctx: Context) -> None:
    run(ctx, ctx.require()[1].python, "-I", "-m", "pip", "install", "-q", "tinyforest", "tinyleaf<2")
    assert adopt.needed(ctx)
    adopt.adopt(ctx)
    assert lines(ctx) == ["tinyforest"]
    newest = revisions.latest(ctx.require()[0])
    assert newest is not None and newest["action"] == "adopt"
    assert not adopt.needed(ctx)
    assert_clean(ctx)


def test_it_is_too_old_to_be_our_installer(ctx: Context) -> None:
    """It can't plan without changing the env."""
    assert pip.find(ctx) is None
    with pytest.raises(OverlayError) as refused:
        apply(ctx, "install", install=["tinydata"])
    assert refused.value.code == "installer-missing"
    assert pip.OLDEST_TEXT in refused.value.message + refused.value.hint
    assert lines(ctx) == []
    assert overlay_dists(ctx.require()[1]) == {}
    assert_clean(ctx)
