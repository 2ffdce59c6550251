"""``%uv`` in a notebook changes the overlay, and what it was asked for is recorded."""

from __future__ import annotations

import pytest

from tests.server.conftest import RunningServer
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
