"""What users do with the panel, from login to notebook: a real hub, a real browser, real containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.client import Server
from tests.support.hub import PASSWORD, RunningHub
from tests.support.images import image
from tests.support.index import LocalIndex
from tests.support.lab import Notebook, Packages, Pages, login, open_panel, show_panel
from tests.support.wheels import make_wheel

pytestmark = [pytest.mark.engine, pytest.mark.browser, pytest.mark.slow]

MANY = 1_000
HAVE = "import tinytree; print('I have', tinytree.__version__)"
Picture = Callable[[Page | Locator, str], None]


@pytest.fixture(scope="module", autouse=True)
def shelf(index: LocalIndex, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What only these stories install: an old part of the image's widgets, and very many packages."""
    folder: Path = tmp_path_factory.mktemp("shelf")
    index.add(make_wheel(folder, "widgetsnbextension", "3.6.0", summary="Parts of widgets, of long ago"))
    index.add(make_wheel(folder, "tinymaps", "1.0", requires=["widgetsnbextension<4"]))
    names = [f"many-{number:03}" for number in range(MANY)]
    for name in names:
        index.add(make_wheel(folder, name, "1.0", summary=f"Package {name} of very many"))
    index.add(make_wheel(folder, "multitude", "1.0", requires=names))


@pytest.fixture(scope="module")
def hub(docker_hub: RunningHub) -> RunningHub:
    return docker_hub


@pytest.fixture(scope="module")
def server(hub: RunningHub, user: str) -> Iterator[Server]:
    """The one container of most stories; its administrator forbids a package."""
    hub.configure(user, overlay_deny=["tinyscript<2"])
    yield hub.start_server(user)
    hub.stop_server(user)


@pytest.fixture
def packages(page: Page) -> Packages:
    return Packages(page)


def test_a_new_user_s_first_package(hub: RunningHub, pages: Pages) -> None:
    page = pages.context().new_page()
    page.goto(hub.host)
    page.fill("#username_input", "newcomer")
    page.fill("#password_input", PASSWORD)
    page.click("#login_submit")
    expect(page.locator("#progress-message")).not_to_be_empty()
    page.wait_for_url("**/user/newcomer/lab**", timeout=120_000)

    show_panel(page)
    packages = Packages(page)
    expect(packages.root.locator(".ovl-Notice")).to_have_count(0)
    notebook = Notebook(page)
    expect(notebook.run("import tinytree")).to_contain_text("ModuleNotFoundError")
    expect(packages.ask("tinytree")).to_contain_text("Brings 2 packages")
    packages.accept()
    packages.done()
    # at once, in the kernel that was there
    expect(notebook.run(HAVE)).to_have_text("I have 2.0")

    packages.show("History")
    packages.button("Undo change 1").click()
    expect(packages.history.first).to_contain_text("undone", timeout=60_000)
    packages.show("Packages")
    expect(packages.rows).to_have_count(0)
    assert hub.server("newcomer").packages() == {}
    page.get_by_role("menuitem", name="Kernel").click()
    page.get_by_role("menuitem", name="Restart Kernel…").click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    notebook.ready()
    expect(notebook.run("import tinytree")).to_contain_text("ModuleNotFoundError")
    hub.stop_server("newcomer")


def test_what_would_break_the_image_s_packages(packages: Packages, server: Server) -> None:
    proposal = packages.ask("tinymaps")
    expect(proposal).to_contain_text("ipywidgets")
    assert server.packages() == {}, "a plan changes nothing"
    proposal.get_by_role("button", name="Cancel").click()
    expect(packages.proposal).to_have_count(0)
    assert server.packages() == {} and server.overlay("revisions")["revisions"] == []

    packages.ask("tinymaps")
    packages.accept("Install anyway")
    packages.done()
    expect(packages.row("widgetsnbextension")).to_contain_text("image\u2019s 4.")
    # nobody is asked twice
    expect(packages.ask("tinydata").get_by_role("button", name="Install", exact=True)).to_be_visible()
    packages.accept()
    packages.done()
    assert set(server.packages()) == {"tinymaps", "widgetsnbextension", "tinydata"}
    server.job("undo")
    server.job("undo")
    assert server.packages() == {}


def test_what_the_administrator_forbids(packages: Packages, server: Server, picture: Picture) -> None:
    proposal = packages.ask("tinyscript")
    expect(proposal).to_contain_text("tinyscript<2")
    expect(proposal.get_by_role("button", name="Install")).to_have_count(0)
    picture(packages.page, "panel-forbidden")
    proposal.get_by_role("button", name="Cancel").click()
    assert server.packages() == {}


def test_no_way_to_the_index(packages: Packages, server: Server, index: LocalIndex) -> None:
    with index.feeling("503"):
        packages.box.fill("tinydata")
        packages.box.press("Enter")
        expect(packages.root.get_by_role("alert")).to_contain_text("index", timeout=60_000)
        expect(packages.proposal).to_have_count(0)
    packages.install("tinydata")
    expect(packages.root.get_by_role("alert")).to_have_count(0)
    server.job("undo")


def test_no_way_to_the_server(page: Page, packages: Packages, server: Server) -> None:
    alert = packages.root.get_by_role("alert")
    page.context.set_offline(True)
    try:
        packages.button("Refresh").click()
        expect(alert).to_contain_text("can\u2019t be reached")
    finally:
        page.context.set_offline(False)
    expect(alert).to_have_count(0)  # without a click
    packages.install("tinydata")
    server.job("undo")


def test_two_tabs(hub: RunningHub, page: Page, user: str, index: LocalIndex, server: Server) -> None:
    first = Packages(page)
    second = Packages(open_panel(page.context.new_page(), hub, user, path="lab/workspaces/other?reset"))
    first.ask("tinybig tinytree")
    index.mood = "held"
    first.accept()
    for tab in (first, second):
        expect(tab.bar).to_be_visible(timeout=20_000)
    index.mood = ""
    for tab in (first, second):
        tab.done()
        expect(tab.rows).to_have_count(3)
    server.job("undo")


def test_the_image_changes(hub: RunningHub, pages: Pages, index: LocalIndex, picture: Picture) -> None:
    server = hub.start_server("traveller")
    server.install("tinytree")
    hub.stop_server("traveller")
    hub.configure("traveller", image=image("venv"))  # with another Python, at another place
    index.mood = "held"
    hub.start_server("traveller")
    page = pages.open(hub, "traveller")
    packages = Packages(page)
    expect(packages.notice("restoring")).to_be_visible()
    picture(page, "panel-restoring")
    index.mood = ""
    expect(packages.row("tinytree")).to_be_visible(timeout=60_000)
    expect(packages.notice("restoring")).to_have_count(0)
    expect(Notebook(page).run(HAVE)).to_have_text("I have 2.0")
    hub.stop_server("traveller")


def test_safe_mode(hub: RunningHub, pages: Pages, picture: Picture) -> None:
    hub.start_server("careful").install("tinytree")
    hub.stop_server("careful")
    page = pages.context().new_page()
    login(page, hub, "careful")
    page.goto(f"{hub.host}/hub/spawn/careful?overlay=safe")
    page.wait_for_url("**/user/careful/lab**", timeout=120_000)
    show_panel(page)
    packages = Packages(page)
    expect(packages.notice("safe-mode")).to_contain_text("without the overlay")
    expect(Notebook(page).run("import tinytree")).to_contain_text("ModuleNotFoundError")
    picture(page, "panel-safe")

    page.goto(f"{hub.host}/hub/home")  # from where users stop a server: no page of it goes on asking
    hub.stop_server("careful")
    server = hub.start_server("careful")
    assert server.overlay("status")["mode"] == "normal"
    open_panel(page, hub, "careful")
    expect(packages.root.locator(".ovl-Notice")).to_have_count(0)
    expect(Notebook(page).run(HAVE)).to_have_text("I have 2.0")
    hub.stop_server("careful")


def test_a_thousand_packages(packages: Packages, server: Server) -> None:
    server.install("multitude", timeout=300)
    packages.button("Refresh").click()
    first, last = packages.row("many-000"), packages.row(f"many-{MANY - 1:03}")
    expect(first).to_be_visible()
    expect(first).to_have_attribute("aria-setsize", str(MANY + 1))
    assert packages.rows.count() < 60, "only what can be seen is in the page"
    packages.root.locator(".ovl-List").evaluate("list => list.scrollTop = list.scrollHeight")
    expect(last).to_be_visible()
    expect(first).to_have_count(0)
    assert packages.rows.count() < 60
    packages.root.get_by_label("Filter the packages").fill("many-77")
    expect(packages.rows).to_have_count(10)
