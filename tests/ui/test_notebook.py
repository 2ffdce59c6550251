"""What notebooks and the page around the panel do: missing packages, kernels, safe mode."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.client import Server
from tests.support.hub import RunningHub
from tests.support.lab import Pages, login

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def notebook(server: Server, name: str, *cells: str) -> str:
    """Write a notebook and return the path of its page."""
    content = {
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
        "cells": [
            {
                "id": f"c{i}",
                "cell_type": "code",
                "source": text,
                "metadata": {},
                "outputs": [],
                "execution_count": None,
            }
            for i, text in enumerate(cells)
        ],
    }
    answer = server.request(
        "PUT", f"api/contents/{name}", json={"type": "notebook", "format": "json", "content": content}
    )
    assert answer.ok, answer.text
    return f"lab/tree/{name}?reset"


def run(page: Page, index: int) -> Locator:
    """Run a cell and return it."""
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_visible(timeout=60_000)
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(index)
    cell.locator(".jp-InputPrompt").click()
    page.keyboard.press("Control+Enter")
    return cell


def test_explore(pages: Pages, hub: RunningHub, server: Server, user: str) -> None:
    path = notebook(
        server, "one.ipynb", "import tinyleaf\ntinyleaf.__version__", "import cv2", "import nowheretobefound"
    )
    page = pages.context().new_page()
    login(page, hub, user)
    page.goto(f"{hub.host}/user/{user}/{path}")
    server.install("tinyleaf<2")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    cell = run(page, 0)
    page.wait_for_timeout(2000)
    page.screenshot(path="/tmp/nb1.png")
    cell = run(page, 1)
    page.wait_for_timeout(2000)
    page.screenshot(path="/tmp/nb2.png")
    page.locator(".jp-NotebookPanel-toolbar").get_by_role("button", name="Packages").click()
    panel = page.locator(".ovl-Panel")
    expect(panel).to_be_visible()
    panel.get_by_label("Packages to install").fill("tinyleaf==2.0")
    page.keyboard.press("Enter")
    panel.locator(".ovl-Proposal").get_by_role("button", name="Install", exact=True).click()
    expect(panel.get_by_role("status").filter(has_text="Done")).to_be_visible(timeout=60_000)
    page.wait_for_timeout(1000)
    page.screenshot(path="/tmp/nb3.png")
