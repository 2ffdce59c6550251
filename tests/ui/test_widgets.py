"""Widgets out of an overlay, in a real browser: packages from the real index, on a base that has none of them."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from overlayspawner.payload.contract import SPEC_ENV, Spec
from tests.server.conftest import EXTENSIONS, TOKEN, RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.network, pytest.mark.slow]

PACKAGES = ["ipyleaflet", "anywidget", "jupyterlab-geojson", "jupyterlab-vim", "jupyter-resource-usage"]

CELLS = [
    # no tiles: those would come from a public server
    "from ipyleaflet import Map, Rectangle\n"
    "box = Rectangle(bounds=((40, 0), (60, 20)), color='#ff0000', fill_color='#ff0000', fill_opacity=1)\n"
    "Map(center=(50, 10), zoom=3, layers=[box])",
    "import anywidget, traitlets\n"
    "class Tiny(anywidget.AnyWidget):\n"
    "    _esm = '''export default {render({model, el}) {\n"
    "        const button = document.createElement('button');\n"
    "        button.className = 'tiny-anywidget';\n"
    "        button.textContent = `n is ${model.get(\"n\")}`;\n"
    "        el.append(button);\n"
    "    }}'''\n"
    "    n = traitlets.Int(7).tag(sync=True)\n"
    "Tiny()",
    "from IPython.display import display\n"
    "point = {'type': 'Point', 'coordinates': [10, 50]}\n"
    "display({'application/geo+json': point, 'text/plain': 'only text'}, raw=True)",
    "import ipywidgets\nipywidgets.IntSlider(42)",
]

RED = """async url => {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = image.width;
    canvas.height = image.height;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, image.width, image.height).data;
    let count = 0;
    for (let i = 0; i < data.length; i += 4) {
        count += data[i] > 200 && data[i + 1] < 60 && data[i + 2] < 60 ? 1 : 0;
    }
    return count;
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
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
            "source": text,
        }
        for i, text in enumerate(CELLS)
    ]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (running.home / "widgets.ipynb").write_text(json.dumps(notebook))
    running.wait()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    assert program, "there is no browser: make chromium"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


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


def open_notebook(page: Page, server: RunningServer, query: str = "") -> None:
    page.goto(f"{server.url}lab/tree/widgets.ipynb?reset&token={TOKEN}{query}")
    page.get_by_role("menuitem", name="Run", exact=True).click(timeout=90_000)
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def test_after_a_reload_the_widgets_are_there(server: RunningServer, chromium: Browser) -> None:
    before = names(config(server))
    assert "@jupyter-widgets/jupyterlab-manager" not in before, "the base must have no widgets for this test"
    job = server.job("install", install=PACKAGES)
    assert (job["state"], job["reload"]) == ("done", True), job
    left = left_out(server)
    assert len(left) == 1 and "needs a server extension (jupyter_resource_usage)" in left[0], left
    brought = names(config(server)) - before
    assert {"jupyter-leaflet", "anywidget", "@jupyterlab/geojson-extension"} <= brought
    assert "@jupyter-server/resource-usage" not in brought
    found = server.get("lab/api/settings").json()["settings"]
    assert "@axlair/jupyterlab_vim:plugin" in [item["id"] for item in found]

    page = chromium.new_page(viewport={"width": 1100, "height": 1400})
    open_notebook(page, server)
    map_ = page.locator(".jp-OutputArea .leaflet-container").first
    expect(map_.locator("path.leaflet-interactive")).to_be_visible(timeout=60_000)
    expect(page.locator(".tiny-anywidget")).to_have_text("n is 7")
    expect(page.locator(".jp-RenderedGeoJSON .leaflet-container")).to_be_visible()
    expect(page.locator(".widget-slider")).to_be_visible()
    url = "data:image/png;base64," + base64.b64encode(map_.screenshot()).decode()
    assert page.evaluate(RED, url) > 5000, "the rectangle on the map is not to be seen"
    page.close()

    # and the way out, where one of them breaks the page
    assert names(config(server, "?overlay-extensions=off")) == before
    page = chromium.new_page(viewport={"width": 1100, "height": 1400})
    open_notebook(page, server, "&overlay-extensions=off")
    expect(page.locator(".jp-OutputArea-output").filter(has_text="only text")).to_be_visible(timeout=60_000)
    expect(page.locator("li[data-id='overlayspawner-packages']")).to_be_visible()
    assert page.locator(".leaflet-container, .tiny-anywidget, .widget-slider").count() == 0
    page.close()
    assert brought <= names(config(server)), "the other pages are as they were"


def test_uninstalled_they_are_gone(server: RunningServer) -> None:
    job = server.job("undo")
    assert (job["state"], job["reload"]) == ("done", True), job
    assert not {"jupyter-leaflet", "anywidget"} & names(config(server))
    assert left_out(server) == []
