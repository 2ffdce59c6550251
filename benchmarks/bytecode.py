#!/usr/bin/env python3
"""Whether to compile packages when they are installed: what it costs then, and what it saves later.

    python benchmarks/bytecode.py [--rounds 5] [--directory DIR] [PACKAGE=MODULE ...]

Each package is installed by uv from a warm cache into an empty directory, without and with bytecode, in
turns. Then its module is imported twice: the first import of the installation without bytecode compiles what
it uses, and only that. Nothing here is asserted; ratios can be compared, seconds can't.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEFAULT = ("humanize=humanize", "sympy=sympy", "pandas=pandas", "scikit-learn=sklearn.ensemble")


def timed(argv: list[str], **environ: str) -> float:
    """Run a program; return the seconds it took."""
    start = time.monotonic()
    subprocess.run(argv, check=True, capture_output=True, env={**os.environ, **environ})
    return time.monotonic() - start


def size(folder: Path) -> int:
    """Return the bytes of the bytecode in a directory."""
    return sum(path.stat().st_size for path in folder.rglob("*.pyc"))


def round_of(package: str, module: str, place: Path) -> dict[str, float]:
    """Install and import once each way."""
    uv = os.path.join(os.path.dirname(sys.executable), "uv")
    out: dict[str, float] = {}
    for how in ("plain", "compiled"):
        target = place / how
        shutil.rmtree(target, ignore_errors=True)
        argv = [uv, "pip", "install", "-q", "--python", sys.executable, "--target", str(target), package]
        argv += ["--compile-bytecode"] if how == "compiled" else []
        out[f"install {how}"] = timed(argv, UV_CACHE_DIR=str(place / "cache"))
        out[f"pyc {how}"] = float(size(target))
    code = [
        sys.executable,
        "-I",
        "-c",
        "import sys; sys.path.insert(0, sys.argv[1]); __import__(sys.argv[2])",
    ]
    for how in ("plain", "compiled"):
        for which in ("first", "second"):
            out[f"{which} {how}"] = timed([*code, str(place / how), module])
    out["pyc used"] = float(size(place / "plain"))
    return out


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory")
    parser.add_argument("packages", nargs="*", default=DEFAULT)
    options = parser.parse_args()
    heads = ("package", "install (s)", "with bytecode (s)", "first import (s)", "compiled (s)", "later (s)")
    print("| " + " | ".join((*heads, "all pyc (MB)", "used (MB)")) + " |")
    print("|---|---|---|---|---|---|---|---|")
    for item in options.packages:
        package, _, module = item.partition("=")
        with tempfile.TemporaryDirectory(dir=options.directory) as place:
            round_of(package, module, Path(place))  # fills the cache
            rounds = [round_of(package, module, Path(place)) for _ in range(options.rounds)]
        middle = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        keys = ("install plain", "install compiled", "first plain", "first compiled", "second plain")
        cells = [f"{middle[key]:.2f}" for key in keys]
        cells += [f"{middle[key] / 1e6:.1f}" for key in ("pyc compiled", "pyc used")]
        print("| " + " | ".join((package, *cells)) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
