"""JupyterLab in a real browser: pages of users, logged in, with the panel open."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.support.hub import PASSWORD, RunningHub

TAB = "li[data-id='overlayspawner-packages']"
"""The panel's tab in JupyterLab's side bar."""

QUIET: dict[str, dict[str, Any]] = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/codemirror-extension:plugin": {"defaultConfig": {"cursorBlinkRate": 0}},
}
"""Settings that keep out of a page what comes and goes by itself."""

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}


# Not by Playwright's routes: with these, a browser keeps nothing of what it loaded.
_OVERRIDE = """
{
  const wanted = WANTED;
  const plain = window.fetch;
  window.fetch = async (input, init) => {
    const request = new Request(input, init);
    const answer = await plain(request);
    if (request.method !== 'GET' || !request.url.includes('/lab/api/settings') || !answer.ok) {
      return answer;
    }
    const told = await answer.json();
    for (const item of Array.isArray(told.settings) ? told.settings : [told]) {
      if (item.id in wanted) {
        item.raw = JSON.stringify(wanted[item.id]);
        item.settings = wanted[item.id];
      }
    }
    const { status, statusText, headers } = answer;
    return new Response(JSON.stringify(told), { status, statusText, headers });
  };
}
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the machine's Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    assert program, "there is no browser: make chromium"
    # nobody waits for long where all is well, and a machine may have much else to do
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


class Pages:
    """Opens pages, closes them, and remembers what went wrong in them.

    Parameters
    ----------
    browser:
        A running browser.
    """

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.contexts: list[BrowserContext] = []
        self.problems: list[str] = []

    def context(
        self,
        *,
        theme: str = "light",
        settings: dict[str, dict[str, Any]] | None = None,
        width: int = 1000,
        height: int = 700,
    ) -> BrowserContext:
        """Return a new browser profile: no cookies, nobody logged in.

        Parameters
        ----------
        theme:
            ``light`` or ``dark``.
        settings:
            More of JupyterLab's settings: plugin → what is not its default. The user's own settings on the
            server stay as they are: only these pages see these.
        width, height:
            Pixels of its pages.
        """
        made = self.browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", locale="en-GB"
        )
        self.contexts.append(made)
        made.set_default_timeout(30_000)
        made.on("weberror", lambda problem: self.problems.append(str(problem.error)))
        themes = {"@jupyterlab/apputils-extension:themes": {"theme": THEMES[theme]}}
        wanted = {**QUIET, **themes, **(settings or {})}
        made.add_init_script(_OVERRIDE.replace("WANTED", json.dumps(wanted)))
        return made

    def open(self, hub: RunningHub, user: str, *, path: str = "lab?reset", **options: Any) -> Page:
        """Log in in a new profile, and open JupyterLab with the panel.

        Parameters
        ----------
        path:
            Below the user's server, which runs.
        options:
            As for :meth:`context`.
        """
        page = self.context(**options).new_page()
        login(page, hub, user)
        return open_panel(page, hub, user, path=path)

    def check(self) -> None:
        """See to it that no code of ours raised what nobody caught, since this was asked last."""
        problems, self.problems = self.problems, []
        ours = [text for text in problems if "ovl" in text or "overlayspawner" in text]
        assert not ours, ours

    def close(self) -> None:
        """Close all pages, and check."""
        for context in self.contexts:
            context.close()
        self.check()


def login(page: Page, hub: RunningHub, user: str) -> None:
    """Log in through the hub's page; no server is started by that."""
    page.goto(f"{hub.host}/hub/login?next=%2Fhub%2Fhome")
    page.fill("#username_input", user)
    page.fill("#password_input", PASSWORD)
    page.click("#login_submit")
    page.wait_for_url("**/hub/home")


def open_panel(page: Page, hub: RunningHub, user: str, *, path: str = "lab?reset") -> Page:
    """Open JupyterLab of a user who is logged in, with the panel in front."""
    page.goto(f"{hub.host}/user/{user}/{path}")
    return show_panel(page)


def show_panel(page: Page) -> Page:
    """Bring the panel to the front in a page with JupyterLab, and wait for its first answers."""
    page.wait_for_selector(TAB, timeout=60_000)
    # JupyterLab gives the focus to its main area when it has restored what was open
    page.wait_for_selector("#jp-main-dock-panel .lm-TabBar-tab", timeout=60_000)
    page.wait_for_selector("#jupyterlab-splash", state="detached")
    panel = page.locator(".ovl-Panel")
    if not panel.is_visible():
        page.click(TAB)
    expect(panel.locator("h2")).to_have_text("Packages")
    expect(panel.locator(".ovl-Tabpanel").get_by_text("Loading…")).to_have_count(0)
    return page


class Packages:
    """The panel of a page, as somebody uses it.

    Parameters
    ----------
    page:
        With the panel open.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.root = page.locator(".ovl-Panel")
        self.box = self.root.get_by_label("Packages to install")
        self.proposal = self.root.locator(".ovl-Proposal")
        self.rows = self.root.locator(".ovl-Row")
        self.bar = self.root.get_by_role("progressbar")
        self.history = self.root.locator(".ovl-History li")

    def button(self, name: str) -> Locator:
        """Return a button by its whole name."""
        return self.root.get_by_role("button", name=name, exact=True)

    def row(self, name: str) -> Locator:
        """Return the row of a package."""
        return self.root.locator(f".ovl-Row[data-name='{name}']")

    def notice(self, code: str) -> Locator:
        """Return what the panel says about something."""
        return self.root.locator(f".ovl-Notice[data-code='{code}']")

    def show(self, tab: str) -> None:
        """Go to a tab of the panel."""
        self.root.get_by_role("tab", name=tab, exact=True).click()

    def ask(self, text: str) -> Locator:
        """Ask for packages; return what is said about it when it is worked out."""
        self.box.fill(text)
        self.box.press("Enter")
        expect(self.proposal.locator(".ovl-Sentences")).to_be_visible(timeout=60_000)
        return self.proposal

    def accept(self, label: str = "Install") -> None:
        """Agree to what is proposed; the change has begun then."""
        self.proposal.get_by_role("button", name=label, exact=True).click()
        expect(self.proposal).to_have_count(0)

    def done(self) -> None:
        """Wait until the change that runs is made."""
        expect(self.root.get_by_role("status").filter(has_text="Done")).to_be_visible(timeout=60_000)

    def install(self, text: str) -> None:
        """Ask for packages, agree, and wait."""
        self.ask(text)
        self.accept()
        self.done()


class Notebook:
    """A new notebook of a page, with a kernel that is ready.

    Parameters
    ----------
    page:
        With JupyterLab.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        page.keyboard.press("Control+Shift+L")  # a launcher
        cards = page.locator(".jp-Launcher:visible .jp-LauncherCard[data-category='Notebook']")
        cards.filter(has_not_text="image only").first.click()
        self.root = page.locator(".jp-NotebookPanel:visible")
        self.ready()

    def ready(self) -> None:
        """Wait until the kernel has nothing to do."""
        expect(self.page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60_000)

    def run(self, code: str) -> Locator:
        """Run code in the last cell; return what it shows."""
        number = self.root.locator(".jp-CodeCell").count() - 1
        cell = self.root.locator(".jp-CodeCell").nth(number)
        editor = cell.locator(".cm-content")
        editor.click()
        expect(editor).to_be_focused()
        self.page.keyboard.insert_text(code)
        expect(editor).not_to_have_text("")
        self.page.keyboard.press("Shift+Enter")
        expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"), timeout=60_000)
        return cell.locator(".jp-Cell-outputArea")


def renew_picture(what: Page | Locator, folder: Path, name: str) -> None:
    """Write what a page, or a part of it, looks like to ``FOLDER/NAME.png``."""
    page = what if isinstance(what, Page) else what.page
    page.mouse.move(0, 0)  # nothing is under the pointer
    what.screenshot(path=folder / f"{name}.png", animations="disabled", caret="hide")


MAP = """
from ipyleaflet import Map, Rectangle
# no tiles: those would come from a public server
box = Rectangle(bounds=((40, 0), (60, 20)), color="#ff0000", fill_color="#ff0000", fill_opacity=1)
Map(center=(50, 10), zoom=3, layers=[box])
"""
"""A notebook's cell: a map with a red rectangle."""

_RED = """async url => {
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


def red(what: Locator) -> int:
    """Return how many pixels of it are red, as it is painted."""
    url = "data:image/png;base64," + base64.b64encode(what.screenshot()).decode()
    return int(what.page.evaluate(_RED, url))
