#!/usr/bin/env python3
"""What installing costs on a scientific base: ours, plain ``uv pip install``, ``pip install``.

    python benchmarks/install.py [--rounds 3] [--rows humanize,seaborn,…] [--live] [--directory DIR]

The base is a venv with JupyterLab, numpy, scipy, pandas and matplotlib, made once from the package index and
kept in ``.cache/install``, with all wheels that are installed here. Installers take turns, on one file system
and from one index: a local one that serves those wheels, or with ``--live`` the machine's own.

"plain uv" and "pip" install into fresh venvs that see the base, the best that can be done without us: pip
leaves out what the base has, uv does not. "ours" is a whole change in a running server's process: the look at
what is there, uv, the stage, the commit, the records. "REST" is the same from the request to the job's last
event, in a real server on that base, from ``overlay.pyz``. Each time into an empty overlay or venv; caches
are warm, but in the row that says otherwise.

Nothing here is asserted: the numbers depend on the machine. Ratios can be compared, seconds can't.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from overlayspawner.hub import boot, payload_zip  # noqa: E402
from overlayspawner.payload.apply import apply  # noqa: E402
from overlayspawner.payload.contract import SPEC_ENV, Spec  # noqa: E402
from overlayspawner.payload.overlay import Overlay  # noqa: E402
from overlayspawner.payload.probe import Base  # noqa: E402
from overlayspawner.payload.server.background import READY  # noqa: E402
from tests.support.client import Server  # noqa: E402
from tests.support.envs import describe, make_context  # noqa: E402
from tests.support.index import LocalIndex  # noqa: E402

CACHE = Path(os.environ.get("OVERLAYSPAWNER_CACHE") or ROOT / ".cache") / "install"
BASE = [
    *("numpy", "pandas", "scipy", "matplotlib", "requests"),
    *("jupyterlab", "notebook", "ipykernel", "ipywidgets", "jupyterhub"),
]
THIRTY = [
    *("scikit-learn", "seaborn", "statsmodels", "plotly", "xarray", "networkx", "sympy", "bokeh", "dask"),
    *("altair", "openpyxl", "lxml", "h5py", "scikit-image", "tqdm", "rich", "typer", "fastapi", "humanize"),
    *("nltk", "shapely", "geopandas", "pyproj", "duckdb", "polars", "numba", "cloudpickle", "joblib"),
    *("tabulate", "beautifulsoup4"),
]
ROWS = {
    "humanize": ["humanize"],
    "seaborn": ["seaborn"],
    "scikit-learn": ["scikit-learn"],
    "30 packages": THIRTY,
    "30 packages, cold cache": THIRTY,
}
TOOLS = ("plain uv", "pip", "ours", "REST")
TOKEN = "benchmark"


def say(text: str) -> None:
    """Say on standard error what is going on."""
    print(f"install: {text}", file=sys.stderr, flush=True)


def clean() -> dict[str, str]:
    """Return an environment without a machine's settings of pip and uv."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_"))}
    return {**kept, "PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


# -- what is made once ----------------------------------------------------------------------------------


def prepare() -> Base:
    """Make base and wheels where they are missing; return the base."""
    wheels, done = CACHE / "wheels", CACHE / "complete"
    wanted = json.dumps([sys.version, BASE, THIRTY])
    if not done.exists() or done.read_text() != wanted:
        say("downloading the wheels of the base and of all that is installed (1 GB, once)")
        shutil.rmtree(CACHE, ignore_errors=True)
        wheels.mkdir(parents=True)
        pip = [sys.executable, "-m", "pip", "download", "-qq", "--only-binary", ":all:", "-d", str(wheels)]
        subprocess.run([*pip, "pip", *BASE, *THIRTY], check=True, stderr=subprocess.DEVNULL)
        say("making the base")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(CACHE / "base")], check=True)
        install = [sys.executable, "-m", "pip", "--python", str(CACHE / "base" / "bin" / "python")]
        install += ["install", "-q", "--no-index", "--find-links", str(wheels), "pip", *BASE]
        subprocess.run(install, env=clean(), check=True)
        done.write_text(wanted)
    return describe(CACHE / "base")


@contextmanager
def index(live: bool) -> Iterator[str]:
    """Give the address of the index; empty for the machine's own."""
    if live:
        yield ""
        return
    with LocalIndex(CACHE / "wheels", recipes=False, fresh=600) as running:
        for path in sorted((CACHE / "wheels").glob("*.whl")):
            running.add(path)
        yield running.url


# -- the four ways --------------------------------------------------------------------------------------


class Bench:
    """Installs in one of the ways, and measures.

    Parameters
    ----------
    base:
        What is installed on.
    url:
        The index; empty for the machine's own.
    root:
        For homes, venvs and caches.
    """

    def __init__(self, base: Base, url: str, root: Path) -> None:
        self.base = base
        self.url = url
        self.root = root
        self.caches = root / "home" / ".overlay" / ".cache"
        self.uv = str(Path(sys.executable).parent / "uv")
        self._count = 0
        payload = payload_zip.build()
        self.payload = root / "payload"
        self.payload.mkdir()
        for name, data in [*payload.contents().items(), payload.mark()]:
            (self.payload / name).write_bytes(data)

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of plain tools."""
        own = {"PIP_INDEX_URL": self.url, "UV_DEFAULT_INDEX": self.url} if self.url else {}
        base = clean() if self.url else dict(os.environ)
        return {**base, **own, "PIP_CACHE_DIR": str(self.root / "pip-cache"), **more}

    def run(self, tool: str, packages: list[str], *, cold: bool = False) -> tuple[float, int]:
        """Install; return seconds and the bytes that were added."""
        self._count += 1
        name = f"round{self._count}"
        if tool in ("plain uv", "pip"):
            return self.plain(tool, name, packages, cold)
        return self.ours(tool, name, packages, cold)

    def plain(self, tool: str, name: str, packages: list[str], cold: bool) -> tuple[float, int]:
        """Install with a tool by itself, into a venv that sees the base."""
        venv = self.root / name
        make = [self.base.executable, "-m", "venv", "--system-site-packages"]
        subprocess.run([*make, "--without-pip", str(venv)], check=True)
        python = venv / "bin" / "python"
        site = venv / "lib" / f"python{self.base.version}" / "site-packages"
        # the base is a venv itself, which a venv on top of it does not see by any option
        (site / "zzz-base.pth").write_text(f"import site; site.addsitedir({self.base.site_dirs[-1]!r})\n")
        before = size(venv)
        if tool == "pip":
            argv = [str(python), "-m", "pip", "install", "-q", *packages]
            environ = self.environ()
            if cold:
                environ["PIP_CACHE_DIR"] = str(self.root / f"{name}-cache")
        else:
            argv = [self.uv, "pip", "install", "-q", "--python", str(python), *packages]
            cache = self.root / f"{name}-cache" if cold else self.caches / "uv"
            environ = self.environ(UV_CACHE_DIR=str(cache))
        begin = time.perf_counter()
        subprocess.run(argv, env=environ, check=True, stdout=subprocess.DEVNULL)
        took = time.perf_counter() - begin
        added = size(venv) - before
        for path in (venv, self.root / f"{name}-cache"):
            shutil.rmtree(path, ignore_errors=True)
        return took, added

    def ours(self, tool: str, name: str, packages: list[str], cold: bool) -> tuple[float, int]:
        """Install into an empty overlay."""
        home = self.root / (f"home-{name}" if cold else "home")
        overlay = Overlay(str(home / ".overlay" / name))
        env = overlay.env(self.base)
        if tool == "REST":
            with self.server(home, name) as server:
                before = size(Path(env.path))
                begin = time.perf_counter()
                follow(server, packages)
                took = time.perf_counter() - begin
        else:
            ctx = make_context(home, self.base, name=name, **({"index_url": self.url} if self.url else {}))
            ctx.overlay, ctx.env = overlay, overlay.create(self.base)
            before = size(Path(env.path))
            begin = time.perf_counter()
            apply(ctx, "install", install=packages)
            took = time.perf_counter() - begin
        added = size(Path(env.path)) - before
        shutil.rmtree(home if cold else overlay.path)
        return took, added

    @contextmanager
    def server(self, home: Path, name: str) -> Iterator[Server]:
        """Start a server of the base with an overlay, as a hub would, and end it."""
        home.mkdir(parents=True, exist_ok=True)
        place = self.root / f"{name}-run"
        place.mkdir(mode=0o700)
        spec = Spec(name=name, path=".overlay/{name}", **({"index_url": self.url} if self.url else {}))
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        config = {
            "ServerApp": {"ip": "127.0.0.1", "port": port, "allow_root": True, "open_browser": False},
            "IdentityProvider": {"token": TOKEN},
        }
        (place / "config.json").write_text(json.dumps(config))
        environ = {
            **(clean() if self.url else os.environ),
            "PATH": f"{Path(self.base.executable).parent}:{Path(self.uv).parent}:/usr/bin:/bin",
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(place),
            SPEC_ENV: spec.to_json(),
        }
        jupyter = str(Path(self.base.executable).with_name("jupyter-server"))
        command = boot.wrap([jupyter, f"--config={place / 'config.json'}"], str(self.payload))
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(command, env=environ, cwd=home, stdout=log, stderr=log)
        try:
            yield wait(process, port, place / "log")
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(place, ignore_errors=True)


def wait(process: subprocess.Popen[bytes], port: int, log: Path) -> Server:
    """Return a server once it has looked at its overlay."""
    server = Server(f"http://127.0.0.1:{port}/", TOKEN)
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            if server.get("overlay/v1/packages").ok:
                time.sleep(READY + 1.0)  # nobody asks for a package in the first seconds
                return server
        except requests.ConnectionError:
            pass
        time.sleep(0.1)
    sys.exit(f"the server does not answer:\n{log.read_text(errors='replace')}")


def follow(server: Server, packages: list[str]) -> None:
    """Install over REST, and listen until it is over."""
    answer = server.post("overlay/v1/jobs", json={"action": "install", "install": packages})
    assert answer.status_code == 202, answer.text
    job = answer.json()
    with server.get(f"overlay/v1/jobs/{job['id']}/events", stream=True, timeout=600) as events:
        for _ in events.iter_lines():
            pass
    job = server.overlay(f"jobs/{job['id']}")
    assert job["state"] == "done", job


def size(path: Path) -> int:
    """Return the bytes of all files below a directory."""
    total = 0
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            total += size(Path(entry.path))
        else:
            total += entry.stat(follow_symlinks=False).st_size
    return total


# -- the table ------------------------------------------------------------------------------------------

Found = dict[tuple[str, str], list[tuple[float, int]]]


def measure(bench: Bench, rounds: int, rows: list[str]) -> Found:
    """Measure everything, in turns."""
    found: Found = {}
    for row in rows:
        cold = row.endswith("cold cache")
        tools = [tool for tool in TOOLS if not (cold and tool in ("pip", "REST"))]
        times = 2 * rounds if row == "humanize" else rounds
        for number in range(times + (not cold)):
            for tool in tools if number % 2 == 0 else tools[::-1]:
                result = bench.run(tool, ROWS[row], cold=cold)
                if number or cold:  # the first one fills the cache
                    found.setdefault((row, tool), []).append(result)
            say(f"{row}: round {number} of {times}")
    return found


def table(found: Found) -> str:
    """Return medians and ratios as a table."""
    head = ["what", *(f"{tool} (s)" for tool in TOOLS), "ours : uv", "REST - uv (ms)", "pip : ours"]
    head += ["uv (MB)", "pip (MB)", "ours (MB)"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in dict.fromkeys(row for row, _ in found):
        took = {t: statistics.median(s for s, _ in found[row, t]) for t in TOOLS if (row, t) in found}
        added = {t: statistics.median(b for _, b in found[row, t]) / 1e6 for t in took}
        cells = [f"{took[t]:.2f}" if t in took else "" for t in TOOLS]
        cells.append(f"{took['ours'] / took['plain uv']:.2f}")
        cells.append(f"{(took['REST'] - took['plain uv']) * 1000:.0f}" if "REST" in took else "")
        cells.append(f"{took['pip'] / took['ours']:.1f}" if "pip" in took else "")
        cells += [f"{added[t]:.1f}" if t in added else "" for t in ("plain uv", "pip", "ours")]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=3, help="of each row (default: 3); humanize twice as many"
    )
    parser.add_argument("--rows", default=",".join(ROWS), help="which, by their names")
    parser.add_argument("--live", action="store_true", help="from the machine's own index")
    parser.add_argument("--directory", default=None, help="on the file system to measure (default: .cache)")
    options = parser.parse_args()
    rows = [row for row in ROWS if row in [name.strip() for name in options.rows.split(",")]]
    rows += ["30 packages, cold cache"] if "cold cache" in options.rows and len(rows) < len(ROWS) else []
    base = prepare()
    if not options.live:
        for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
            del os.environ[name]
        os.environ["PIP_CONFIG_FILE"] = os.devnull
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    root = Path(tempfile.mkdtemp(prefix="install-", dir=options.directory or CACHE))
    try:
        with index(options.live) as url:
            found = measure(Bench(base, url, root), options.rounds, list(dict.fromkeys(rows)))
        print(f"{options.rounds} rounds\n{table(found)}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
