#!/usr/bin/env python3
"""What the panel costs a page, and how soon it is there when it is opened.

    python benchmarks/panel.py [--rounds 15] [--base 300] [--overlay 100]

A real hub starts a local server on a base with 300 distributions, for a user with 100 packages of their own,
and one with the stock spawner on the same base. A real browser loads JupyterLab from both in turns, each time
with an empty cache and no workspace, so that a busy moment of the machine hits both. "load" is from the
navigation until JupyterLab has restored its layout; "requests" and "bytes" are what had been fetched by then.

"opens" is from the command that shows the panel, in a page that has not shown it yet, until the rows of the
list are painted; "again" is the next time.

Nothing here is asserted: the numbers depend on the machine.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.hub import PASSWORD, RunningHub

KINDS = {"stock": "simple", "overlay": "overlay-local"}
LIMITS = {"opens": 200.0, "load": 1.03}
USER = "reader"

CONFIG = """
c.Spawner.cmd = [{command!r}]
c.Spawner.args = ["--allow-root", "--LabApp.expose_app_in_browser=True"]
c.Spawner.notebook_dir = "~"
c.SimpleLocalProcessSpawner.home_dir_template = {homes!r} + "/{{username}}"
c.OverlayLocalSpawner.home_dir_template = {homes!r} + "/{{username}}"
c.OverlayLocalSpawner.overlay_local_simple = True
c.OverlayLocalSpawner.overlay_payload_dir = harness["directory"] + "/payload"
c.OverlayLocalSpawner.overlay_path = "packages/{{name}}"
"""

# JupyterLab's own promise; what it resolves to is painted with the next frame
LOADED = "() => window.jupyterapp && window.jupyterapp.restored.then(() => performance.now())"
OPENS = """
() => new Promise(done => {
  const begin = performance.now();
  const look = () => document.querySelector('.ovl-Panel .ovl-Row')?.offsetParent
    ? requestAnimationFrame(() => done(performance.now() - begin))
    : requestAnimationFrame(look);
  window.jupyterapp.commands.execute('overlayspawner:open');
  look();
})
"""


def distribution(site: Path, name: str) -> None:
    """Write an installed distribution, as pip leaves one."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (site / f"{name}.py").write_text("")
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: One of many\n"
    )
    (info / "INSTALLER").write_text("pip\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    names = [f"{name}.py", *(f"{info.name}/{part}" for part in ("METADATA", "INSTALLER", "WHEEL", "RECORD"))]
    (info / "RECORD").write_text("".join(f"{part},,\n" for part in names))


def make_base(where: Path, wanted: int) -> str:
    """Make a venv that sees this one, filled up with small distributions; return its single-user command."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", where], check=True)
    python = where / "bin" / "python"
    site = Path(output(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (site / "zzz-below.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    count = "import importlib.metadata as m; print(len({d.name for d in m.distributions()}))"
    for number in range(wanted - int(output(python, count))):
        distribution(site, f"filler{number:03}")
    for name in ("share", "etc"):  # JupyterLab's pages and settings
        (where / name).symlink_to(Path(sys.prefix) / name)
    command = where / "bin" / "jupyterhub-singleuser"
    command.write_text(f"#!{python}\nfrom jupyterhub.singleuser import main\nmain()\n")
    command.chmod(0o755)
    return str(command)


def output(python: Path, program: str) -> str:
    return subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def fill_overlay(home: Path, wanted: int) -> None:
    """Put packages into the overlay that the first start has made; the next start adopts them."""
    sites = list(home.glob("packages/default/envs/*/lib/python3*/site-packages"))
    assert len(sites) == 1, sites
    for number in range(wanted):
        distribution(sites[0], f"mine{number:03}")


def log_in(hub: RunningHub, page: Page) -> None:
    page.goto(f"{hub.host}/hub/login")
    page.fill("#username_input", USER)
    page.fill("#password_input", PASSWORD)
    page.click("#login_submit")
    page.wait_for_url("**/user/**")


def load(hub: RunningHub, browser: Browser, state: Any, opens: bool) -> dict[str, float]:
    """Load JupyterLab in a browser that has never seen it; return milliseconds, requests and bytes."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, storage_state=state)
    page = context.new_page()
    found = {"requests": 0.0, "bytes": 0.0}
    page.goto(f"{hub.host}/user/{USER}/lab?reset", wait_until="commit")
    page.wait_for_function("() => window.jupyterapp")
    found["load"] = page.evaluate(LOADED)
    sizes = page.evaluate("() => performance.getEntriesByType('resource').map(e => e.encodedBodySize)")
    found["requests"], found["bytes"] = len(sizes), sum(sizes)
    if opens:
        page.wait_for_selector("li[data-id='overlayspawner-packages']")
        page.wait_for_timeout(1_000)  # until the page is at rest
        found["opens"] = page.evaluate(OPENS)
        page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
        page.wait_for_selector(".ovl-Panel", state="hidden")
        found["again"] = page.evaluate(OPENS)
    context.close()
    return found


def run(rounds: int, base: int, overlay: int) -> dict[str, list[dict[str, float]]]:
    """Measure both kinds alternately; return what was found by kind."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    assert program, "there is no browser: make chromium"
    with tempfile.TemporaryDirectory(prefix="overlay-bench-") as scratch:
        command = make_base(Path(scratch) / "base", base)
        config = {kind: CONFIG.format(command=command, homes=f"{scratch}/{kind}") for kind in KINDS}
        stock = RunningHub(config["stock"], spawner=KINDS["stock"], docker=False)
        ours = RunningHub(config["overlay"], spawner=KINDS["overlay"], docker=False)
        with stock, ours, sync_playwright() as playwright:
            hubs = {"stock": stock, "overlay": ours}
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            states = {}
            for kind, hub in hubs.items():
                hub.start_server(USER)
                if kind == "overlay":
                    hub.stop_server(USER)
                    fill_overlay(Path(scratch) / kind / USER, overlay)
                    server = hub.start_server(USER)
                    counts = {scope: len(server.packages(scope)) for scope in ("base", "overlay")}
                    print(f"base {counts['base']}, overlay {counts['overlay']} packages", file=sys.stderr)
                context = browser.new_context()
                log_in(hub, context.new_page())
                states[kind] = context.storage_state()
                context.close()
                load(hub, browser, states[kind], opens=False)  # what the server reads once
            for number in range(rounds):
                for kind in list(hubs) if number % 2 == 0 else list(reversed(hubs)):
                    found[kind].append(load(hubs[kind], browser, states[kind], opens=kind == "overlay"))
                print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            browser.close()
    return found


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Return medians and ratios as a table."""

    def median(kind: str, what: str) -> float:
        return statistics.median(item[what] for item in found[kind])

    lines = ["| what | stock | overlay | ratio | target |", "|---|---|---|---|---|"]
    for what, unit, scale in (("load", "ms", 1), ("requests", "", 1), ("bytes", "kB", 1000)):
        stock, ours = median("stock", what) / scale, median("overlay", what) / scale
        target = f"≤ {LIMITS[what]}" if what in LIMITS else ""
        lines.append(f"| {what} | {stock:,.0f} {unit} | {ours:,.0f} {unit} | {ours / stock:.3f} | {target} |")
    for what in ("opens", "again"):
        target = f"≤ {LIMITS['opens']:.0f} ms"
        lines.append(f"| {what} | | {median('overlay', what):,.0f} ms | | {target} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--base", type=int, default=300)
    parser.add_argument("--overlay", type=int, default=100)
    options = parser.parse_args()
    built = Path(__file__).resolve().parent.parent / "overlayspawner" / "labextension" / "package.json"
    if not built.exists():
        sys.exit("the panel is not built: make labextension")
    print(table(run(options.rounds, options.base, options.overlay)))


if __name__ == "__main__":
    main()
