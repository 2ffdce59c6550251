"""No bytecode is written by kernels while space is short."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayspawner.payload import kernel, space
from tests.support.envs import ROOT

CODE = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from types import SimpleNamespace
from overlayspawner.payload import kernel
from overlayspawner.payload.overlay import Env
kernel._environment(SimpleNamespace(env=Env(sys.argv[2], "3.11"), runtime=sys.argv[2]))
sys.path.insert(0, sys.argv[2])
import module
inside = [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import other", sys.argv[2]]
import subprocess
subprocess.run(inside, check=True)
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)], check=False)
    if done.returncode:
        pytest.skip("this needs a file system of its own, and root to mount it")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_no_bytecode_while_space_is_short(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    for name in ("module", "other"):
        (small / f"{name}.py").write_text("N = 1\n")
    (small / "filling").write_bytes(b"x" * 8_150_000)
    run = [sys.executable, "-I", "-c", CODE, str(ROOT), str(small)]
    subprocess.run(run, check=True)
    assert not (small / "__pycache__").exists()
    (small / "filling").unlink()
    subprocess.run(run, check=True)
    assert len(list((small / "__pycache__").iterdir())) == 2


def test_short_means_the_same_everywhere() -> None:
    assert kernel.LITTLE == space.LITTLE
