"""The panel *Packages* in a real browser, of a server that a real hub has started."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.index.recipes import HTML
from tests.support.client import Server
from tests.support.hub import RunningHub
from tests.support.index import LocalIndex
from tests.support.lab import Pages
from tests.support.wheels import make_wheel

pytestmark = [pytest.mark.browser, pytest.mark.slow]


# JupyterLab is loaded once: that takes longer than most of what is done here.
@pytest.fixture(scope="module")
def pages(browser: Browser) -> Iterator[Pages]:
    opened = Pages(browser)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def lab(hub: RunningHub, server: Server, user: str, pages: Pages) -> Page:
    return pages.open(hub, user)


@pytest.fixture
def page(lab: Page, server: Server) -> Page:
    """The panel as it is when it is opened; nothing is installed."""
    if names := list(server.packages("overlay")):
        server.job("uninstall", uninstall=names)
    panel = lab.locator(".ovl-Panel")
    for close in panel.locator(".ovl-Proposal, .ovl-Progress").get_by_role("button", name="Close").all():
        close.click()
    panel.get_by_label("Packages to install").fill("")
    panel.get_by_role("tab", name="Packages").click()
    panel.get_by_label("Which packages").select_option("overlay")
    panel.get_by_role("button", name="Refresh").click()
    expect(panel.locator(".ovl-Empty")).to_have_text("Nothing installed yet.")
    return lab


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
    expect(panel.locator(".ovl-Empty")).to_have_text("Nothing installed yet.")
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


PROJECT = """
[project]
name = "mine"
dependencies = ["tinydata"]
[dependency-groups]
test = ["tinyscript"]
"""


def drop(page: Page, name: str, text: str) -> None:
    """Drop a file on the panel, as from a file manager."""
    page.evaluate(
        """([name, text]) => {
            const data = new DataTransfer();
            data.items.add(new File([text], name));
            const zone = document.querySelector(".ovl-Panel-content");
            for (const type of ["dragover", "drop"]) {
                const options = { bubbles: true, cancelable: true, dataTransfer: data };
                zone.dispatchEvent(new DragEvent(type, options));
            }
        }""",
        [name, text],
    )


def test_files(page: Page, server: Server, tmp_path: Path, picture: Callable[[Page, str], None]) -> None:
    panel = page.locator(".ovl-Panel")
    proposal = panel.locator(".ovl-Proposal")
    drop(page, "requirements.txt", "tinydata  # mine\n")
    expect(proposal.locator("h3")).to_have_text("Install tinydata")
    expect(proposal).to_contain_text("Brings 1 package")
    page.keyboard.press("Escape")
    expect(proposal).to_have_count(0)

    # without a mouse: a button; what the file says of other files is named
    (tmp_path / "list.txt").write_text("tinydata\n-r other.txt\n")
    with page.expect_file_chooser() as chooser:
        panel.get_by_role("button", name="Install from a file").click()
    chooser.value.set_files(tmp_path / "list.txt")
    expect(proposal).to_contain_text("-r other.txt")
    expect(proposal).to_contain_text("only this file was sent")
    proposal.get_by_role("button", name="Close").click()

    drop(page, "pyproject.toml", PROJECT)
    expect(proposal).to_contain_text("It asks for 1 package.")
    proposal.get_by_label("test").check()
    expect(proposal).to_contain_text("It asks for 2 packages.")
    picture(page, "panel-file")
    proposal.get_by_role("button", name="Install…").click()
    expect(proposal.locator("h3")).to_have_text("Install tinydata, tinyscript")
    expect(proposal).to_contain_text("Brings 2 packages")
    proposal.get_by_role("button", name="Cancel").click()
    expect(proposal.locator("h3")).to_have_text("pyproject.toml")
    page.keyboard.press("Escape")
    expect(proposal).to_have_count(0)
    assert server.packages("overlay") == {}


def test_a_conflict_is_cancelled_then_accepted(
    page: Page, server: Server, index: LocalIndex, tmp_path: Path, picture: Callable[[Page, str], None]
) -> None:
    index.add(make_wheel(tmp_path, "matplotlib-inline", "0.0.1"))
    panel = page.locator(".ovl-Panel")
    box = panel.get_by_label("Packages to install")
    proposal = panel.locator(".ovl-Proposal")
    box.fill("matplotlib-inline<0.1")
    box.press("Enter")
    expect(proposal).to_contain_text("of the image needs matplotlib-inline>=0.1")
    expect(proposal.get_by_role("list", name="Instead")).to_contain_text("of the image fits")
    picture(page, "panel-conflict")
    proposal.get_by_role("button", name="Cancel").click()
    expect(proposal).to_have_count(0)
    expect(box).to_be_focused()
    assert server.packages("overlay") == {}

    box.press("Enter")
    proposal.get_by_role("button", name="Install anyway").click()
    row = panel.locator("[data-name=matplotlib-inline]")
    expect(row).to_contain_text("hides the image", timeout=60_000)
    assert server.packages("overlay")["matplotlib-inline"]["version"] == "0.0.1"
    row.get_by_role("button", name="Remove matplotlib-inline").click()
    proposal.get_by_role("button", name="Remove", exact=True).click()
    expect(row).to_have_count(0, timeout=60_000)
    assert server.packages("overlay") == {}


def test_search(page: Page, server: Server, picture: Callable[[Page, str], None]) -> None:
    panel = page.locator(".ovl-Panel")
    box = panel.get_by_label("Packages to install")
    box.press_sequentially("tinytree")
    found = panel.locator("[data-found=tinytree]")
    expect(found).to_contain_text("in the index")
    name = found.locator(".ovl-Found-name")
    box.press("ArrowDown")
    page.keyboard.press("End")  # better known ones come first
    expect(name).to_be_focused()
    page.keyboard.press("Enter")
    versions = found.get_by_label("Version of tinytree")
    expect(versions.locator("option")).to_have_count(3)
    picture(page, "panel-search")
    versions.select_option("1.0")
    found.get_by_role("button", name="Install tinytree 1.0").click()
    proposal = panel.locator(".ovl-Proposal")
    expect(proposal.locator("h3")).to_have_text("Install tinytree==1.0")
    expect(proposal).to_contain_text("Brings 2 packages")
    page.keyboard.press("Escape")
    expect(proposal).to_have_count(0)

    box.fill("tinynowhere")
    expect(panel.locator("#ovl-found")).to_contain_text("no package with just this name")
    box.fill("ipykern")
    expect(panel.locator("[data-found=ipykernel]")).to_contain_text("in the image")
    box.fill("tinyhtml")
    expect(panel.locator("[data-found=tinyhtml]")).to_be_visible()
    assert page.title() != "owned" and panel.locator("img, script").count() == 0
    assert server.packages("overlay") == {}


def test_updates(page: Page, server: Server, index: LocalIndex, tmp_path: Path) -> None:
    index.add(make_wheel(tmp_path, "tinynewer", "1.0"))
    server.install("tinynewer", "tinydata")
    index.add(make_wheel(tmp_path, "tinynewer", "2.0"))
    panel = page.locator(".ovl-Panel")
    panel.get_by_role("button", name="Refresh").click()
    panel.get_by_role("button", name="Check for updates").click()
    row = panel.locator("[data-name=tinynewer]")
    expect(row).to_contain_text("2.0 is available")
    expect(panel.locator("[data-name=tinydata]")).not_to_contain_text("available")
    expect(panel.get_by_role("button", name="Upgrade all…")).to_be_enabled()
    row.get_by_role("button", name="Upgrade tinynewer to 2.0").click()
    proposal = panel.locator(".ovl-Proposal")
    expect(proposal.locator("h3")).to_have_text("Upgrade tinynewer")
    proposal.get_by_role("button", name="Upgrade", exact=True).click()
    expect(row.locator(".ovl-Row-version")).to_have_text("2.0", timeout=60_000)
    expect(row).not_to_contain_text("available")


def test_clean_up(page: Page, server: Server, picture: Callable[[Page, str], None]) -> None:
    server.install("tinydata")
    server.job("uninstall", uninstall=["tinydata"])
    panel = page.locator(".ovl-Panel")
    panel.get_by_role("tab", name="Clean up").click()
    panel.get_by_role("button", name="Measure now").click()
    expect(panel.get_by_role("status").filter(has_text="Done")).to_be_visible(timeout=60_000)
    undo = panel.locator("[data-what=undo]")
    expect(undo).to_contain_text("needs a download", timeout=60_000)
    expect(undo.get_by_role("button", name="Delete: ")).to_be_enabled()
    picture(page, "panel-cleanup")
    undo.get_by_role("button", name="Delete: ").click()
    expect(undo).to_have_count(0, timeout=60_000)
    panel.get_by_role("tab", name="History").click()
    expect(panel.get_by_role("button", name="Undo change")).to_have_accessible_name(
        re.compile("needs a download")
    )
    assert not [item for item in server.overlay("cleanup")["items"] if item["what"] == "undo"]


def test_a_job_of_another_page(page: Page, server: Server) -> None:
    """The panel is open and nobody touches it; a change comes from elsewhere."""
    server.install("tinydata")
    panel = page.locator(".ovl-Panel")
    expect(panel.locator("[data-name=tinydata]")).to_be_visible(timeout=20_000)
    server.job("uninstall", uninstall=["tinydata"])
    expect(panel.locator("[data-name=tinydata]")).to_have_count(0, timeout=20_000)
