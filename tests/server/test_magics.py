"""``%uv``, ``%pip``, ``%conda`` in a notebook: what they change is the overlay, and what they print helps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.server.conftest import RunningServer, Start
from tests.support.index import LocalIndex

pytestmark = pytest.mark.slow


def test_uv_in_a_notebook_installs_into_the_overlay(server: RunningServer, index: LocalIndex) -> None:
    packaging = pytest.importorskip("IPython.core.magics.packaging")
    if not hasattr(packaging.PackagingMagics, "uv"):
        pytest.skip("this IPython has no %uv")
    requirements = server.overlay_path / "requirements.txt"
    cell = server.run_cell("%uv pip install 'tinytree<2' tinydata")
    assert not cell.error, cell
    assert "+ tinytree==1.0" in cell.text, cell
    assert requirements.read_text().split() == ["tinytree<2", "tinydata"]
    assert {"tinydata", "tinytree"} <= set(server.packages())
    assert not server.run_cell("import tinytree, tinydata").error
    cell = server.run_cell("%uv pip uninstall tinydata")
    assert not cell.error, cell
    assert requirements.read_text().split() == ["tinytree<2"]
    newest = server.overlay("revisions")["revisions"][0]
    assert newest["argv"] == ["uv", "pip", "uninstall", "tinydata"]
    # what does not aim at the overlay is uv's own business
    assert "uv" in server.run_cell("%uv --version").text
    assert len(server.overlay("revisions")["revisions"]) == 2


def test_what_pip_and_conda_print_in_a_notebook(start: Start, tmp_path: Path, index: LocalIndex) -> None:
    conda = tmp_path / "conda"
    conda.mkdir()
    (conda / "conda").write_text('#!/bin/sh\necho "conda itself: $@"\n')
    (conda / "conda").chmod(0o755)
    server = start(environ={"PATH": f"{conda}:{os.environ['PATH']}", "PIP_INDEX_URL": index.url})
    note = "Packages go into your overlay."
    with server.kernel() as kernel:
        cell = kernel.run("%pip install --user tinydata")
        assert "Successfully installed tinydata" in cell.text and note in cell.text, cell
        assert note not in kernel.run("%pip --version").text
        cell = kernel.run("!pip uninstall -y ipykernel; echo code $?")
        assert "belongs to the image and stays" in cell.text and "code 0" in cell.text, cell
        cell = kernel.run("%conda install numpy")
        assert not cell.error and "overlay install NAME" in cell.text, cell
        assert "conda itself" not in cell.text
        shown = kernel.run("!conda install numpy").text
        assert "overlay install NAME" in shown and "conda itself: install numpy" in shown
    (shown,) = server.terminal("conda list; conda update x; type -t _overlay")
    assert shown.count("conda itself") == 2 and shown.count("overlay: conda update") == 1, shown
    assert "function" in shown
    assert set(server.packages()) == {"tinydata"}
