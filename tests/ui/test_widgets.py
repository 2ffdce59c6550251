"""Widgets out of an overlay in a real browser: packages from the real index, on a base that has none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from overlayspawner.payload.contract import SPEC_ENV, Spec
from tests.server.conftest import EXTENSIONS, TOKEN, RunningServer
from tests.support.lab import MAP, Pages, red

pytestmark = [pytest.mark.browser, pytest.mark.network, pytest.mark.slow]

PACKAGES = ["ipyleaflet", "anywidget", "jupyterlab-geojson", "jupyterlab-vim", "jupyter-resource-usage"]

ANY = """
import anywidget, traitlets
class Tiny(anywidget.AnyWidget):
    _esm = '''export default {render({model, el}) {
        const button = document.createElement("button");
        button.className = "tiny-anywidget";
        button.textContent = `n is ${model.get("n")}`;
        el.append(button);
    }}'''
    n = traitlets.Int(7).tag(sync=True)
Tiny()
"""

MIME = """
from IPython.display import display
point = {"type": "Point", "coordinates": [10, 50]}
display({"application/geo+json": point, "text/plain": "only text"}, raw=True)
"""

CELLS = [MAP, ANY, MIME, "import ipywidgets\nipywidgets.IntSlider(42)"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with JupyterLab, whose installer uses the machine's own index and cache."""
    settings = {"ServerApp.jpserver_extensions": {**EXTENSIONS, "jupyterlab": True}}
    running = RunningServer(
        tmp_path_factory.mktemp("widgets"), {SPEC_ENV: Spec(path="packages/{name}").to_json()}, settings
    )
    cells = [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": f"c{i}",
            "metadata": {},
            "outputs": [],
            "source": text.strip(),
        }
        for i, text in enumerate(CELLS)
    ]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (running.home / "widgets.ipynb").write_text(json.dumps(notebook))
    running.wait()
    yield running
    running.stop()


def config(server: RunningServer, query: str = "") -> dict[str, Any]:
    """What JupyterLab's page says about itself."""
    answer = server.get(f"lab{query}")
    assert answer.ok, answer.text
    found = re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', answer.text, re.S)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def names(data: dict[str, Any]) -> set[str]:
    return {item["name"] for item in data["federated_extensions"]}


def left_out(server: RunningServer) -> list[str]:
    notices = server.get("overlay/v1/status").json()["notices"]
    return [item["message"] for item in notices if item["code"] == "labextension-left-out"]


def run_notebook(pages: Pages, lab: RunningServer, query: str = "") -> Page:
    page = pages.context(width=1100, height=1400).new_page()
    page.goto(f"{lab.url}lab/tree/widgets.ipynb?reset&token={TOKEN}{query}")
    expect(page.locator(".jp-NotebookPanel .jp-CodeCell")).to_have_count(len(CELLS), timeout=60_000)
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
    return page


def test_after_a_reload_the_widgets_are_there(lab: RunningServer, pages: Pages) -> None:
    before = names(config(lab))
    assert "@jupyter-widgets/jupyterlab-manager" not in before, "the base must have no widgets for this test"
    job = lab.job("install", install=PACKAGES)
    assert (job["state"], job["reload"]) == ("done", True), job
    left = left_out(lab)
    assert len(left) == 1 and "needs a server extension (jupyter_resource_usage)" in left[0], left
    brought = names(config(lab)) - before
    assert {"jupyter-leaflet", "anywidget", "@jupyterlab/geojson-extension"} <= brought
    assert "@jupyter-server/resource-usage" not in brought
    found = lab.get("lab/api/settings").json()["settings"]
    assert "@axlair/jupyterlab_vim:plugin" in [item["id"] for item in found]

    page = run_notebook(pages, lab)
    map_ = page.locator(".jp-OutputArea .leaflet-container").first
    expect(map_.locator("path.leaflet-interactive")).to_be_visible(timeout=60_000)
    expect(page.locator(".tiny-anywidget")).to_have_text("n is 7")
    expect(page.locator(".jp-RenderedGeoJSON .leaflet-marker-icon")).to_be_visible()
    expect(page.locator(".widget-slider")).to_be_visible()
    assert red(map_) > 5000, "the rectangle on the map is not to be seen"

    # and the way out, where one of them breaks the page
    assert names(config(lab, "?overlay-extensions=off")) == before
    page = run_notebook(pages, lab, "&overlay-extensions=off")
    expect(page.locator(".jp-OutputArea-output").filter(has_text="only text")).to_be_visible(timeout=60_000)
    expect(page.locator("li[data-id='overlayspawner-packages']")).to_be_visible()
    assert page.locator(".leaflet-container, .tiny-anywidget, .widget-slider").count() == 0
    assert brought <= names(config(lab)), "the other pages are as they were"


def test_uninstalled_they_are_gone(lab: RunningServer) -> None:
    job = lab.job("undo")
    assert (job["state"], job["reload"]) == ("done", True), job
    assert not {"jupyter-leaflet", "anywidget"} & names(config(lab))
    assert left_out(lab) == []
