"""What pip, uv and conda leave a user of an overlay to guess is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from overlayspawner.payload import adopt, runtime
from overlayspawner.payload.context import Context
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.probe import Base
from tests.support.envs import base, make_context  # noqa: F401  (a fixture)
from tests.support.index import LocalIndex
from tests.support.terminal import open_terminal, tool

CONDA_SAYS = "conda itself:"


@pytest.fixture
def conda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an image's conda: any program of that name, which we only hand on to."""
    folder = tmp_path / "conda" / "bin"
    folder.mkdir(parents=True)
    (folder / "conda").write_text(f'#!/bin/sh\necho "{CONDA_SAYS} $@"\nexit 3\n')
    (folder / "conda").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    return folder


@pytest.fixture
def ctx(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    conda: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Context:
    """A terminal of a server, as in ``test_wrapper.py``."""
    made = make_context(tmp_path / "home", base, index_url=index.url)
    made = open_terminal(made, tmp_path, index.url, monkeypatch)
    runtime.write_wrappers(made)
    return made


def test_what_is_the_images_stays(ctx: Context) -> None:
    for command in (["pip", "uninstall", "-y", "basetool"], ["uv", "pip", "uninstall", "basetool"]):
        shown = tool(ctx, *command)  # both end well, and so do we
        assert "basetool 1.0 belongs to the image and stays" in shown
        assert "overlay create NAME --kind isolated" in shown
    assert "overlay:" not in tool(ctx, "pip", "uninstall", "-y", "nothere")
    assert not adopt.needed(ctx)


def test_what_hides_and_what_comes_back(ctx: Context) -> None:
    assert "overlay: tinyleaf 2.0 hides 1.1 of the image." in tool(ctx, "pip", "install", "tinyleaf>=2")
    assert "overlay:" not in tool(ctx, "pip", "install", "tinydata"), "no noise"
    assert "overlay: tinyleaf 1.1 of the image is used again." in tool(
        ctx, "pip", "uninstall", "-y", "tinyleaf"
    )
    assert "overlay:" not in tool(ctx, "pip", "uninstall", "-y", "tinydata")


def test_user_means_the_overlay(ctx: Context) -> None:
    shown = tool(ctx, "pip", "install", "--user", "tinydata")
    assert "overlay: --user is left out" in shown
    assert set(overlay_dists(ctx.require()[1])) == {"tinydata"}
    assert Path(ctx.require()[0].requirements).read_text() == "tinydata\n"
    assert not Path(ctx.home, ".local").exists()


def test_the_hubs_index_is_that_of_pip_and_uv(
    ctx: Context, index: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would ask the public one, which may have something else under that name."""
    monkeypatch.delenv("PIP_INDEX_URL")
    for command in (
        ["pip", "install", "--dry-run", "tinyscript"],
        ["uv", "pip", "install", "--dry-run", "tinyscript"],
        ["pip", "install", "tinydata"],
        ["uv", "pip", "install", "--no-deps", "tinymany"],
    ):
        seen = len(index.requests)
        tool(ctx, *command)
        assert len(index.requests) > seen, command
    seen = len(index.requests)
    tool(ctx, "pip", "install", "--retries=0", "-i", "http://127.0.0.1:9/", "tinyscript", ok=False)
    assert len(index.requests) == seen, "an option goes before"


def test_a_pip_of_ones_own(ctx: Context) -> None:
    """It replaces ``ENV/bin/pip``, but not the command that terminals find."""
    tool(ctx, "pip", "install", "--force-reinstall", "--no-deps", pip_wheel())
    assert "/home/.overlay/" in tool(ctx, "pip", "--version")
    assert "overlay: pip" in tool(ctx, "pip", "uninstall", "-y", "pip")
    shown = tool(ctx, "pip", "install", "tinydata")
    assert "Successfully installed tinydata" in shown
    assert "tinydata" in Path(ctx.require()[0].requirements).read_text()


def pip_wheel() -> str:
    import ensurepip

    (wheel,) = Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl")
    return str(wheel)


@pytest.mark.parametrize(
    ("words", "explained"),
    [
        ("install numpy", True),
        ("-q update --all", True),
        ("remove --name base numpy", True),
        ("list", False),
        ("install -n mine numpy", False),
        ("create -n mine install", False),
        ("install --prefix=/home/x/env numpy", False),
        ("install -nmine numpy", False),
        ("install -p/home/x/env numpy", False),
        ("install --name=base numpy", True),
        ("install --help", False),
    ],
)
def test_conda_explains_itself_and_runs(ctx: Context, words: str, explained: bool) -> None:
    shown = tool(ctx, "conda", *words.split(), ok=False)  # its exit code is its own
    assert f"{CONDA_SAYS} {words}\n" in shown
    assert ("overlay install NAME" in shown) is explained
    shown = tool(ctx, "conda", *words.split(), ok=False, CONDA_PREFIX="/home/x/active")
    assert ("overlay install NAME" in shown) is (explained and "base" in words)


def test_only_where_there_is_a_conda(ctx: Context) -> None:
    assert os.path.exists(os.path.join(ctx.runtime, "wrappers", "conda"))
    assert not os.path.exists(os.path.join(ctx.runtime, "wrappers", "mamba"))


def test_terminals_complete_and_explain_condas_function(ctx: Context) -> None:
    """``conda init`` makes a function, which stands before every PATH."""
    rc = os.path.join(ctx.runtime, "terminal", "bashrc")
    script = (
        f'conda() {{ echo "{CONDA_SAYS} $@"; return 4; }}\n'
        f". {rc}\n"
        "conda install 'a b'; echo $?; conda list\n"
        "_overlay; echo loaded $?\n"
        'COMP_WORDS=(overlay un); COMP_CWORD=1; _overlay; echo "${COMPREPLY[*]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, env={**os.environ, "HOME": ctx.home}
    )
    assert done.stdout.splitlines() == [
        f"{CONDA_SAYS} install a b",
        "4",
        f"{CONDA_SAYS} list",
        "loaded 124",
        "uninstall undo",
    ], done
    assert done.stderr.count("conda install changes") == 1
    plain = subprocess.run(["sh", "-c", f". {rc}"], capture_output=True, text=True, env={"HOME": ctx.home})
    assert (plain.returncode, plain.stderr) == (0, ""), sys.platform
