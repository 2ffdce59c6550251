"""What notebooks and the page around the panel do: missing packages, kernels, safe mode."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.client import Server
from tests.support.hub import RunningHub
from tests.support.lab import Pages, login, show_panel

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
    """Run a cell once its kernel is there, and return it."""
    idle = page.locator("#jp-main-statusbar").get_by_text("| Idle")
    expect(idle).to_be_visible(timeout=60_000)
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(index)
    cell.locator(".jp-InputPrompt").first.click()
    page.keyboard.press("Control+Enter")
    return cell


def install(page: Page, *names: str) -> Locator:
    """Install something by hand, and return the panel."""
    panel = page.locator(".ovl-Panel")
    panel.get_by_label("Packages to install").fill("\n".join(names))
    page.keyboard.press("Enter")
    panel.locator(".ovl-Proposal").get_by_role("button", name="Install", exact=True).click()
    return panel


def test_what_is_needed_after_a_change(pages: Pages, hub: RunningHub, server: Server, user: str) -> None:
    server.install("tinyleaf<2")
    path = notebook(server, "one.ipynb", "import tinyleaf; tinyleaf.__version__", "import tinydata; 6 * 7")
    page = pages.context().new_page()
    login(page, hub, user)
    page.goto(f"{hub.host}/user/{user}/{path}")
    expect(run(page, 0)).to_contain_text("'1.1'")
    page.locator(".jp-NotebookPanel-toolbar").get_by_title("Install, remove and undo packages").click()

    panel = install(page, "tinydata")
    expect(panel.get_by_role("status").filter(has_text="available now")).to_be_visible(timeout=60_000)
    expect(panel.locator(".ovl-Needed")).to_have_count(0)
    expect(run(page, 1)).to_contain_text("42")

    panel = install(page, "tinyleaf==2.0")
    button = panel.get_by_role("button", name="Restart this kernel: one.ipynb")
    expect(button).to_be_visible(timeout=60_000)
    expect(run(page, 0)).to_contain_text("'1.1'")
    button.click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    expect(panel.get_by_role("status").filter(has_text="available now")).to_be_visible(timeout=60_000)
    expect(run(page, 0)).to_contain_text("'2.0'")


def test_a_missing_package_that_is_known(pages: Pages, hub: RunningHub, server: Server, user: str) -> None:
    server.install("tinyleaf")
    server.job("uninstall", uninstall=["tinyleaf"])
    path = notebook(server, "two.ipynb", "import tinyleaf; tinyleaf.__version__", "import tinynowhere.part")
    page = pages.context().new_page()
    login(page, hub, user)
    page.goto(f"{hub.host}/user/{user}/{path}")
    cell = run(page, 0)
    hint = cell.locator(".ovl-CellHint")
    expect(hint.get_by_role("button", name="Install tinyleaf")).to_be_visible(timeout=60_000)

    unknown = run(page, 1)
    search = unknown.locator(".ovl-CellHint").get_by_role("button", name="Search for tinynowhere…")
    expect(search).to_be_visible(timeout=60_000)
    expect(unknown.get_by_role("button", name="Install")).to_have_count(0)
    search.press("Enter")
    panel = page.locator(".ovl-Panel")
    expect(panel.get_by_label("Packages to install")).to_have_value("tinynowhere")
    unknown.get_by_label("Dismiss: missing package").click()
    expect(unknown.locator(".ovl-CellHint")).to_have_count(0)

    hint.get_by_role("button", name="Install tinyleaf").click()
    proposal = panel.locator(".ovl-Proposal")
    expect(proposal).to_contain_text("Brings 1 package", timeout=60_000)
    assert server.packages("overlay").keys() & {"tinyleaf"} == set()
    proposal.get_by_role("button", name="Install", exact=True).click()
    hint.get_by_role("button", name="Run the cell again").click(timeout=60_000)
    expect(cell).to_contain_text("'2.0'", timeout=60_000)
    expect(hint).to_have_count(0)

    page.keyboard.press("Control+s")
    expect(page.locator(".lm-TabBar-tab.jp-mod-dirty")).to_have_count(0)
    assert "ovl" not in server.get("api/contents/two.ipynb").text, "hints are not in the file"


def restarted(page: Page) -> None:
    """Agree to a restart of the server, and wait for its page with the panel."""
    page.locator(".jp-Dialog").get_by_role("button", name="Restart the server").click()
    page.wait_for_url("**/hub/spawn-pending/**", timeout=100_000)
    page.wait_for_url("**/lab*", timeout=100_000)
    show_panel(page)


def test_safe_mode_and_back(page: Page, server: Server) -> None:
    panel = page.locator(".ovl-Panel")
    panel.get_by_role("button", name="Restart in safe mode…").click()
    page.locator(".jp-Dialog").get_by_role("button", name="Cancel").click()
    assert server.overlay("status")["next_start"] == "normal"

    panel.get_by_role("button", name="Restart in safe mode…").click()
    restarted(page)
    expect(page.locator(".jp-toastContainer").filter(has_text="Safe mode")).to_be_visible(timeout=30_000)
    notice = panel.locator(".ovl-Notice[data-code=safe-mode]")
    expect(notice).to_be_visible()
    assert server.overlay("status")["mode"] == "safe"

    notice.get_by_role("button", name="Leave safe mode…").click()
    restarted(page)
    expect(panel.get_by_role("button", name="Restart in safe mode…")).to_be_visible()
    expect(notice).to_have_count(0)
    assert server.overlay("status")["mode"] == "normal"
