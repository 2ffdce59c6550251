#!/usr/bin/env python3
"""What a change costs in overlays of different sizes: install and undo one small package, and 500 files.

    python benchmarks/change.py [--rounds 9] [--sizes 0,10000,100000] [--directory DIR]

Overlays are filled with packages made for this, and take turns, so that a busy moment of the machine hits all
of them. "install" and "undo" are whole changes in a running server's process: the look at what is there, uv,
the stage, the commit, the records. "commit" is the part that moves files and writes the history; it is what
500 files are measured by.

Nothing here is asserted: the numbers depend on the machine. Ratios can be compared, milliseconds can't.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from overlayspawner.payload import adopt, change, undo
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from tests.support.envs import make_base, make_context
from tests.support.index import LocalIndex, make_wheel

FIRST, SMALL, LARGE, FILES = "benchfirst", "benchsmall", "benchlarge", 500
MOST_RATIO, MOST_MORE = 1.5, 30.0
"""Targets: times the empty overlay's; milliseconds more than the empty overlay's."""


def packages(files: int) -> int:
    """Return how many packages hold so many files."""
    return min(200, files // 100)


def fill(ctx: Context, files: int) -> None:
    """Put packages into an env that look as if pip had installed them, and have them recorded.

    Parameters
    ----------
    files:
        How many files, together; some hundred packages hold them.
    """
    _, env = ctx.require()
    site = Path(env.site_packages)
    count = packages(files)
    for number in range(count):
        name = f"bulk{number}"
        mine = [f"{name}/p{n // 50}/m{n}.py" for n in range(files // count - 6)]
        info = site / f"{name}-1.0.dist-info"
        # one asks for all others, as a large package does for what it stands on
        needs = "".join(f"Requires-Dist: bulk{n}\n" for n in range(1, count)) if number == 0 else ""
        for path in mine:
            full = site / path
            full.parent.mkdir(parents=True, exist_ok=True)
            full.write_text(f"# {path}\n")
        info.mkdir()
        texts = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}",
            "WHEEL": "Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "INSTALLER": "pip\n",
            **({"REQUESTED": ""} if number == 0 else {}),
        }
        for part, text in texts.items():
            (info / part).write_text(text)
        rows = [f"{path},sha256=x,{len(path) + 3}\n" for path in mine]
        rows += [f"{info.name}/{part},,\n" for part in (*texts, "RECORD")]
        (info / "RECORD").write_text("".join(rows))
    if count:
        adopt.adopt(ctx)


class Stopwatch:
    """Adds up the time spent in :meth:`Commit.run <overlayspawner.payload.change.Commit.run>`."""

    def __init__(self) -> None:
        self.spent = 0.0
        run = change.Commit.run

        def timed(commit: change.Commit, lease: Any) -> dict[str, Any]:
            begin = time.perf_counter()
            try:
                return run(commit, lease)
            finally:
                self.spent += time.perf_counter() - begin

        change.Commit.run = timed  # type: ignore[method-assign]

    def measure(self, act: Callable[[], Any]) -> tuple[float, float]:
        """Run something; return its time and the part of it that was commit, in milliseconds."""
        self.spent = 0.0
        begin = time.perf_counter()
        act()
        return (time.perf_counter() - begin) * 1000, self.spent * 1000


def run(rounds: int, sizes: list[int], root: Path) -> dict[tuple[str, int], list[float]]:
    """Measure everything; return milliseconds by what was measured and the overlay's size."""
    found: dict[tuple[str, int], list[float]] = {}
    watch = Stopwatch()
    with LocalIndex(root / "index", recipes=False, fresh=600) as index:
        for number in range(packages(max(sizes))):
            # uv looks each of them up, as it does for real ones
            needs = [f"bulk{n}" for n in range(1, packages(max(sizes)))] if number == 0 else []
            index.add(make_wheel(root / "index", f"bulk{number}", "1.0", requires=needs))
        for name in (FIRST, SMALL):
            index.add(make_wheel(root / "index", name, "1.0"))
        large = {f"{LARGE}/p{n // 50}/m{n}.py": f"# {n}\n" for n in range(FILES)}
        index.add(make_wheel(root / "index", LARGE, "1.0", files=large))
        base = make_base(root / "image")
        contexts: dict[int, Context] = {}
        for size in sizes:
            print(f"making an overlay of {size} files", file=sys.stderr, flush=True)
            contexts[size] = make_context(root / f"home{size}", base, index_url=index.url)
            fill(contexts[size], size)
            # the first change after other tools' work resolves all lines
            apply(contexts[size], "install", install=[FIRST])
        # what the making of them left to be written back would be waited for below
        os.sync()
        for number in range(rounds + 1):
            order = sizes if number % 2 == 0 else sizes[::-1]
            for size in order:
                ctx = contexts[size]
                for name in (SMALL, LARGE):
                    installed = watch.measure(lambda c=ctx, n=name: apply(c, "install", install=[n]))  # type: ignore[misc]
                    undone = watch.measure(lambda c=ctx: undo.undo(c))  # type: ignore[misc]
                    if number == 0:
                        continue  # fills caches
                    which = "small" if name == SMALL else "500 files"
                    for what, (whole, commit) in (("install", installed), ("undo", undone)):
                        found.setdefault((f"{what}, {which}", size), []).append(whole)
                        found.setdefault((f"commit of {what}, {which}", size), []).append(commit)
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return found


def table(found: dict[tuple[str, int], list[float]], sizes: list[int]) -> str:
    """Return medians and ratios as a table."""
    head = [f"{size:,} files (ms)" for size in sizes]
    lines = [
        "| what | " + " | ".join(head) + " | ratio | more (ms) | target |",
        "|---" * (len(sizes) + 4) + "|",
    ]
    for what in dict.fromkeys(what for what, _ in found):
        middle = [statistics.median(found[what, size]) for size in sizes]
        ratio, more = middle[-1] / middle[0], middle[-1] - middle[0]
        aim = ""
        if what in ("install, small", "undo, small"):
            aim = f"≤ {MOST_RATIO} x"
        elif what.startswith("commit of") and what.endswith("500 files"):
            aim = f"≤ {MOST_MORE:.0f} ms more"
        cells = " | ".join(f"{value:.0f}" for value in middle)
        lines.append(f"| {what} | {cells} | {ratio:.2f} | {more:.0f} | {aim} |")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="changes of each kind and size (default: 9)")
    parser.add_argument("--sizes", default="0,10000,100000", help="files in the overlays, the smallest first")
    parser.add_argument(
        "--directory", default=None, help="on the file system to measure (default: temporary)"
    )
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    root = Path(tempfile.mkdtemp(prefix="overlayspawner-bench-", dir=options.directory))
    os.environ["HOME"] = str(root)
    try:
        print(f"{options.rounds} rounds\n{table(run(options.rounds, sizes, root), sizes)}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
