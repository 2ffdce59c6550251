"""JupyterLab in a real browser: pages of users, logged in, with the panel open."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect, sync_playwright

from tests.support.hub import PASSWORD, RunningHub

TAB = "li[data-id='overlayspawner-packages']"
"""The panel's tab in JupyterLab's side bar."""

QUIET: dict[str, dict[str, Any]] = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/codemirror-extension:plugin": {"defaultConfig": {"cursorBlinkRate": 0}},
}
"""Settings that keep out of a page what comes and goes by itself."""

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the machine's Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    assert program, "there is no browser: make chromium"
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
        made.route("**/lab/api/settings/**", lambda route: _override(route, wanted))
        made.route("**/lab/api/settings?**", lambda route: _override(route, wanted))
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

    def close(self) -> None:
        """Close all pages.

        Raises
        ------
        AssertionError
            In one of them code of ours raised what nobody caught.
        """
        for context in self.contexts:
            context.close()
        ours = [text for text in self.problems if "ovl" in text or "overlayspawner" in text]
        assert not ours, ours


def _override(route: Route, wanted: dict[str, dict[str, Any]]) -> None:
    """Answer a question for settings with some of them replaced."""
    if route.request.method != "GET":
        route.continue_()
        return
    answer = route.fetch()
    try:
        told = answer.json()
    except ValueError:
        route.fulfill(response=answer)
        return
    for item in told.get("settings", [told]):
        if item.get("id") in wanted and "raw" in item:
            item["raw"] = json.dumps(wanted[item["id"]])
            item["settings"] = wanted[item["id"]]
    route.fulfill(response=answer, json=told)


def login(page: Page, hub: RunningHub, user: str) -> None:
    """Log in through the hub's page."""
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


def renew_picture(what: Page | Locator, folder: Path, name: str) -> None:
    """Write what a page, or a part of it, looks like to ``FOLDER/NAME.png``."""
    page = what if isinstance(what, Page) else what.page
    page.mouse.move(0, 0)  # nothing is under the pointer
    what.screenshot(path=folder / f"{name}.png", animations="disabled", caret="hide")
