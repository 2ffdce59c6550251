"""The panel *Packages* in a real browser, of a server that a real hub has started.

``OVERLAYSPAWNER_SCREENSHOTS=1`` renews the pictures of the manual.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.index.recipes import HTML
from tests.support.client import Server
from tests.support.hub import PASSWORD, RunningHub
from tests.support.index import LocalIndex

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
CONFIG = """
c.OverlayLocalSpawner.overlay_local_simple = True
c.OverlayLocalSpawner.overlay_payload_dir = harness["directory"] + "/payload"
c.OverlayLocalSpawner.overlay_path = "packages/{name}"
c.OverlayLocalSpawner.args = ["--allow-root"]
"""


@pytest.fixture(scope="module")
def hub(index: LocalIndex) -> Iterator[RunningHub]:
    built = ROOT / "overlayspawner" / "labextension" / "package.json"
    assert built.is_file(), "the panel is not built: make labextension"
    environment = {"PIP_INDEX_URL": index.url, "PIP_TRUSTED_HOST": "127.0.0.1"}
    with RunningHub(CONFIG, spawner="overlay-local", docker=False, environment=environment) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    assert program, "there is no browser: make chromium"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def server(hub: RunningHub) -> Server:
    return hub.start_server("reader")


@pytest.fixture
def page(hub: RunningHub, server: Server, browser: Browser) -> Iterator[Page]:
    """JupyterLab with the panel open."""
    context = browser.new_context(viewport={"width": 1000, "height": 700})
    page = context.new_page()
    page.set_default_timeout(30_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{hub.host}/hub/login")
    page.fill("#username_input", "reader")
    page.fill("#password_input", PASSWORD)
    page.click("#login_submit")
    page.goto(f"{hub.host}/user/reader/lab?reset")
    page.click("li[data-id='overlayspawner-packages']", timeout=60_000)
    expect(page.locator(".ovl-Panel h2")).to_have_text("Packages")
    yield page
    context.close()
    assert not [text for text in problems if "ovl" in text or "overlayspawner" in text], problems


def picture(page: Page, name: str) -> None:
    """Keep what the panel looks like, for the manual."""
    if os.environ.get("OVERLAYSPAWNER_SCREENSHOTS"):
        page.screenshot(path=ROOT / "docs" / "images" / f"{name}.png")


def test_install_and_undo(page: Page, server: Server) -> None:
    panel = page.locator(".ovl-Panel")
    panel.get_by_label("Packages to install").fill("tinytree\ntinyhtml  # a comment")
    page.keyboard.press("Enter")
    proposal = panel.locator(".ovl-Proposal")
    expect(proposal.locator("h3")).to_have_text("Install tinytree, tinyhtml")
    expect(proposal).to_contain_text("Brings 3 packages")
    assert server.packages("overlay") == {}, "a plan changes nothing"
    picture(page, "panel-plan")

    proposal.get_by_role("button", name="Install", exact=True).click()
    expect(panel.get_by_role("status").filter(has_text="Done")).to_be_visible(timeout=60_000)
    rows = panel.locator(".ovl-Row")
    expect(rows).to_have_count(3)
    expect(panel.locator("[data-name=tinytree]")).to_contain_text("you asked for it")
    expect(panel.locator("[data-name=tinyleaf]")).to_contain_text("needed by another")
    expect(page.locator(".ovl-Status")).to_have_text("Packages: 3")
    assert set(server.packages("overlay")) == {"tinytree", "tinyleaf", "tinyhtml"}
    picture(page, "panel-packages")

    # what a package says of itself is text
    expect(panel.locator("[data-name=tinyhtml]")).to_have_attribute("title", HTML)
    panel.get_by_label("Filter the packages").fill("onerror")
    expect(rows).to_have_count(1)
    assert page.title() != "owned" and panel.locator("img, script").count() == 0
    panel.get_by_label("Filter the packages").fill("")

    panel.get_by_role("tab", name="History").click()
    expect(panel.locator(".ovl-History li").first).to_contain_text("install tinytree tinyhtml")
    picture(page, "panel-history")
    panel.get_by_role("button", name="Undo change").click()
    expect(panel.locator(".ovl-History li").first).to_contain_text("undone", timeout=60_000)
    panel.get_by_role("tab", name="Packages").click()
    expect(panel.locator(".ovl-Empty")).to_have_text("None.")
    assert server.packages("overlay") == {}


def test_what_is_refused_is_said(page: Page, server: Server) -> None:
    panel = page.locator(".ovl-Panel")
    box = panel.get_by_label("Packages to install")
    box.fill("tinylost")
    box.press("Enter")
    expect(panel.get_by_role("alert")).to_be_visible(timeout=60_000)
    expect(panel.locator(".ovl-Proposal")).to_have_count(0)
    expect(box).to_have_value("tinylost")
    assert server.packages("overlay") == {}


def test_cancelled_before_it_began(page: Page, server: Server) -> None:
    panel = page.locator(".ovl-Panel")
    box = panel.get_by_label("Packages to install")
    box.fill("tinydata")
    box.press("Enter")
    expect(panel.locator(".ovl-Proposal")).to_contain_text("Brings 1 package")
    page.keyboard.press("Escape")
    expect(panel.locator(".ovl-Proposal")).to_have_count(0)
    assert server.packages("overlay") == {}


def test_the_image_s_packages_by_keyboard(page: Page, server: Server) -> None:
    panel = page.locator(".ovl-Panel")
    panel.get_by_label("Which packages").select_option("base")
    names = sorted(server.packages("base"))
    first = panel.locator(f"[data-name='{names[0]}']")
    expect(first).to_be_visible()
    assert panel.locator(".ovl-Row").count() < len(names), "only what can be seen is in the page"
    first.focus()
    page.keyboard.press("End")
    last = panel.locator(f"[data-name='{names[-1]}']")
    expect(last).to_be_focused()
    expect(last).to_have_attribute("aria-posinset", str(len(names)))
    expect(panel.get_by_role("button", name="Remove")).to_have_count(0)
