"""What the tests in the browser share: hubs, the browser, pages with the panel, pictures for the manual.

``make screenshots`` (``OVERLAYSPAWNER_SCREENSHOTS=1``) renews the pictures in ``docs/images``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page

from tests.support.client import Server
from tests.support.hub import RunningHub
from tests.support.images import image
from tests.support.index import LocalIndex
from tests.support.lab import Pages, chromium, login, open_panel, renew_picture

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
FAILED = ROOT / "build" / "ui"
"""Where the pages of a failed test are left as pictures."""

LOCAL = """
c.OverlayLocalSpawner.overlay_local_simple = True
c.OverlayLocalSpawner.overlay_payload_dir = harness["directory"] + "/payload"
c.OverlayLocalSpawner.overlay_path = "packages/{name}"
c.OverlayLocalSpawner.args = ["--allow-root"]
"""


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, None]:
    """Keep what the pages of a failed test looked like."""
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    opened = [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Pages)]
    for number, page in enumerate(p for pages in opened for c in pages.contexts for p in c.pages):
        FAILED.mkdir(parents=True, exist_ok=True)
        try:
            page.screenshot(path=FAILED / f"{item.name}-{number}.png", timeout=5_000)
        except Exception as error:  # a page that is gone
            report.sections.append(("picture", str(error)))


def _built() -> None:
    built = ROOT / "overlayspawner" / "labextension" / "package.json"
    assert built.is_file(), "the panel is not built: make labextension"


# The browser's connection is an event loop in this thread: it must be gone before other tests make theirs.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The machine's Chromium."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="package")
def hub(index: LocalIndex) -> Iterator[RunningHub]:
    """A hub whose servers are processes on this machine: quick, and enough for what only the page does."""
    _built()
    environment = {"PIP_INDEX_URL": index.prefixed("moody"), "PIP_TRUSTED_HOST": "127.0.0.1"}
    with RunningHub(LOCAL, spawner="overlay-local", docker=False, environment=environment) as running:
        yield running


@pytest.fixture(scope="package")
def docker_hub(index: LocalIndex) -> Iterator[RunningHub]:
    """A hub whose servers are containers that reach the same index; a module may take it for its ``hub``."""
    _built()
    environment = {"PIP_INDEX_URL": index.prefixed("moody", container=True)}
    with RunningHub(image=image("stacks"), index=index, environment=environment) as running:
        yield running


@pytest.fixture(autouse=True)
def well(index: LocalIndex) -> Iterator[None]:
    """See to it that the index is well when the next test begins: a test may set its ``mood``."""
    yield
    index.mood = ""


@pytest.fixture(scope="module")
def user(request: pytest.FixtureRequest) -> str:
    """The name of this module's user: others' packages and settings are not seen."""
    return str(request.module.__name__).rpartition(".")[2].removeprefix("test_").replace("_", "")


@pytest.fixture(scope="module")
def server(hub: RunningHub, user: str) -> Iterator[Server]:
    """The server of this module's user."""
    yield hub.start_server(user)
    hub.stop_server(user)


@pytest.fixture
def pages(browser: Browser) -> Iterator[Pages]:
    """Opens more pages, of any user of any hub; an error of ours in one of them fails the test."""
    opened = Pages(browser)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def shared(hub: RunningHub, server: Server, user: str, browser: Browser) -> Iterator[Pages]:
    """One browser profile in which this module's user is logged in."""
    opened = Pages(browser)
    login(opened.context().new_page(), hub, user)
    yield opened
    opened.close()


@pytest.fixture
def page(hub: RunningHub, user: str, shared: Pages) -> Iterator[Page]:
    """JupyterLab of this module's user, with the panel open."""
    (context,) = shared.contexts
    yield open_panel(context.new_page(), hub, user)
    for opened in context.pages:
        opened.close()
    shared.check()


@pytest.fixture(scope="session")
def picture() -> Callable[[Page | Locator, str], None]:
    """Keep what a page, or a part of it, looks like for the manual; only with ``make screenshots``."""

    def keep(what: Page | Locator, name: str) -> None:
        if os.environ.get("OVERLAYSPAWNER_SCREENSHOTS"):
            renew_picture(what, IMAGES, name)

    return keep
