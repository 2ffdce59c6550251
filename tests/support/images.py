"""The images that tests run, built when they are absent."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent / "images" / "build.py"


@functools.cache
def image(name: str) -> str:
    """Return the tag of the test image `name` (`stacks`, `venv`, `nopython`, `entrypoint`).

    Builds it first when its recipe has no image yet, which takes a minute or two and says so on
    standard error. Raises RuntimeError with the build's own words when that fails.
    """
    result = subprocess.run([sys.executable, str(BUILD), name], capture_output=True, text=True, check=False)
    sys.stderr.write(result.stderr)
    if result.returncode != 0:
        raise RuntimeError(f"the test image {name!r} could not be built:\n{result.stderr}")
    return result.stdout.split()[-1]
