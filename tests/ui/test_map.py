"""A widget of the user's own, in a container whose image does not have it: the packages are those of PyPI."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.hub import RunningHub
from tests.support.index import LocalIndex
from tests.support.lab import MAP, Notebook, Packages, Pages, open_panel, red

pytestmark = [pytest.mark.engine, pytest.mark.browser, pytest.mark.network, pytest.mark.slow]

PACKAGES = ["ipyleaflet", "jupyter-leaflet", "branca", "xyzservices", "traittypes"]
"""What the image lacks of it; none of it is compiled. `ipywidgets` is the image's."""


@pytest.fixture(scope="module", autouse=True)
def shelf(index: LocalIndex, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Fetch them from the index of this machine, which containers may not reach, into the local one."""
    folder: Path = tmp_path_factory.mktemp("leaflet")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--only-binary", ":all:", "--dest", str(folder), *PACKAGES], check=True)
    for wheel in folder.iterdir():
        index.add(wheel)


def test_a_map(docker_hub: RunningHub, pages: Pages, picture: Callable[[Page | Locator, str], None]) -> None:
    docker_hub.start_server("mapper")
    page = pages.open(docker_hub, "mapper", width=1100)
    packages = Packages(page)
    notebook = Notebook(page)
    expect(notebook.run("import ipyleaflet")).to_contain_text("ModuleNotFoundError")
    packages.ask("ipyleaflet")
    packages.accept()
    packages.done()
    # kernels have it at once, the page after it was loaded again: that is what the button is for
    with page.expect_navigation():
        packages.button("Reload the page for its widgets").click()
    open_panel(page, docker_hub, "mapper")  # without the notebook that a reloaded page brings back
    map_ = Notebook(page).run(MAP.strip()).locator(".leaflet-container")
    expect(map_.locator("path.leaflet-interactive")).to_be_visible(timeout=60_000)
    assert red(map_) > 5000, "the rectangle on the map is not to be seen"
    picture(page, "widget-map")
    docker_hub.stop_server("mapper")
