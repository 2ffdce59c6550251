"""What hinders people with disabilities: axe-core looks at each state of the panel, light and dark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.client import Server
from tests.support.hub import RunningHub
from tests.support.index import LocalIndex
from tests.support.lab import Packages, Pages

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
LOOK = """async () => {
  const where = { include: [['.ovl-Panel'], ['.ovl-Status']] };
  const found = await axe.run(where, { resultTypes: ['violations', 'passes'] });
  return {
    passes: found.passes.length,
    violations: found.violations.map(v => ({
      rule: v.id, help: v.help,
      nodes: v.nodes.map(n => [n.target.join(' '), n.html.slice(0, 200), n.failureSummary])
    }))
  };
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_state(
    hub: RunningHub, server: Server, user: str, pages: Pages, index: LocalIndex, theme: str
) -> None:
    page = pages.open(hub, user, theme=theme)
    assert AXE.is_file(), "axe-core is not installed: make labextension"
    page.add_script_tag(path=AXE)
    packages = Packages(page)
    dark = page.evaluate("document.body.dataset.jpThemeLight === 'false'")
    assert dark == (theme == "dark")
    found: list[dict[str, Any]] = []

    def look(state: str) -> None:
        told = page.evaluate(LOOK)
        assert told["passes"] > 5, "it has looked at nothing"
        print(f"axe {theme} {state}: {told['passes']} rules passed, {len(told['violations'])} violated")
        found.extend({"state": state, **item} for item in told["violations"])

    look("empty list")
    packages.ask("tinytree\ntinyhtml")
    look("plan")
    index.mood = "held"
    packages.accept()
    expect(packages.bar).to_be_visible()
    look("progress")
    index.mood = ""
    packages.done()
    expect(packages.rows).to_have_count(3)
    look("list")
    packages.box.fill("tinytree")
    expect(packages.root.locator("ul.ovl-Found")).to_be_visible()
    look("search")
    packages.box.fill("")
    packages.box.fill("tinylost")
    packages.box.press("Enter")
    expect(packages.root.get_by_role("alert")).to_be_visible(timeout=60_000)
    look("refused")
    packages.show("History")
    expect(packages.history.first).to_be_visible()
    look("history")
    packages.show("Clean up")
    look("clean-up")
    # a line that was written by hand
    place = "packages/default/requirements.txt"
    written = server.get(f"api/contents/{place}").json()["content"]
    assert server.put_text(place, f"{written}tinydata\n").ok
    packages.button("Refresh").click()
    expect(packages.root.locator(".ovl-Notices .ovl-Notice").first).to_be_visible()
    look("notices")
    assert server.put_text(place, written).ok
    server.job("undo")
    assert not found, json.dumps(found, indent=1)
