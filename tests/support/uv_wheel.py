"""Releases of uv and pip, from the package index, once."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

CACHE = Path(os.environ.get("OVERLAYSPAWNER_CACHE") or Path(__file__).resolve().parents[2] / ".cache")


def uv_wheel(platform: str = "") -> Path:
    """Return the path of uv's wheel in the development environment's version; fails where none can be had.

    Parameters
    ----------
    platform:
        As for ``pip download``; this machine's when empty.
    """
    folder = CACHE / "uv" / (platform or "here")
    wanted = version("uv")
    found = list(folder.glob(f"uv-{wanted}-*.whl"))
    if not found:
        argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-q"]
        argv += ["--platform", platform] if platform else []
        done = subprocess.run(
            [*argv, "--dest", str(folder), f"uv=={wanted}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"no wheel of uv to be had: {done.stderr[-300:]}"
        found = list(folder.glob(f"uv-{wanted}-*.whl"))
    return found[0]


def fetched(name: str, version: str) -> Path:
    """Return a folder with a release of uv or pip from PyPI, kept from run to run."""
    folder = CACHE / "conformance" / f"{name}-{version or 'newest'}"
    if not (folder / "complete").exists():
        wanted = f"{name}=={version}" if version else name
        argv = [sys.executable, "-m", "pip", "install", "-q", "--upgrade", "--no-deps", "--target", folder]
        done = subprocess.run([*map(str, argv), wanted], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-500:]
        (folder / "complete").touch()
    return folder


def repacked(wheel: Path, directory: Path, program: bytes) -> Path:
    """Write the same wheel with another program in it; return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    out = directory / wheel.name
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if name.endswith((".dist-info/METADATA", ".dist-info/WHEEL", ".dist-info/RECORD")):
                new.writestr(name, old.read(name))
            elif name.endswith("/scripts/uv"):
                new.writestr(name, program)
    return out


def other_machine(program: bytes) -> bytes:
    """Return a program as one for another architecture: the ELF header says so."""
    assert program[:4] == b"\x7fELF"
    machine = 183 if program[18] != 183 else 62
    return program[:18] + machine.to_bytes(2, "little") + program[20:]
