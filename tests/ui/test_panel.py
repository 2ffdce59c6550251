"""The panel *Packages* in a real browser, of a server that a real hub has started."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.index.recipes import HTML
from tests.support.client import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_install_and_undo(page: Page, server: Server, picture: Callable[[Page, str], None]) -> None:
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
