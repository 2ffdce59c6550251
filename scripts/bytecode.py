#!/usr/bin/env python3
"""Compile the modules of a container's start for all supported Pythons, as package data of a release's wheel.

    scripts/bytecode.py [--python PATH]... [--incomplete]

Each version compiles for itself, so an interpreter of each is needed. Taken is, for each version, the first
that answers: of those given, of PATH, of those that uv knows, of the neighbours of the one that runs this.
Where a version is missing, nothing is written and the exit status is 1; with ``--incomplete`` the others are
written, and images with a Python of the missing version compile the sources at each start.

The files lie in ``overlayspawner/hub/bytecode``. The hub leaves out those that don't fit its sources, so in a
checkout they do no harm. The same sources and the same Pythons give the same bytes.
"""

from __future__ import annotations

import argparse
import marshal
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from overlayspawner.hub import payload_zip, start_bin  # noqa: E402

VERSIONS = tuple((3, minor) for minor in range(9, 15))
"""The versions of CPython that a release has bytecode for: all that a container's Python may have."""

DIRECTORY = ROOT / "overlayspawner" / "hub" / "bytecode"


class Bytecode(NamedTuple):
    """What one interpreter made.

    Parameters
    ----------
    version:
        Its full version.
    magic:
        The magic number of its bytecode.
    packed:
        The modules, as ``start.bin`` has them.
    """

    version: str
    magic: bytes
    packed: bytes

    @property
    def short(self) -> tuple[int, ...]:
        """Major and minor version."""
        return tuple(int(part) for part in self.version.split(".")[:2])


def say(text: str) -> None:
    """Tell the person who runs this."""
    print(f"bytecode: {text}", file=sys.stderr, flush=True)


class Unfit(Exception):
    """An interpreter can't be used; the text says why."""


def compile_with(python: str, modules: start_bin.Modules) -> Bytecode:
    """Have an interpreter compile the modules of the start.

    It runs isolated and without its ``site``, so that nothing of the machine takes part. Columns are left
    out: a traceback shows them only beside a source's line, which a container doesn't have.

    Raises
    ------
    Unfit
        It doesn't run, or is no released CPython.
    """
    command = [python, "-I", "-S", "-X", "no_debug_ranges", "-c", start_bin.program()]
    data = marshal.dumps(modules, start_bin.PLAIN)
    try:
        done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Unfit(str(e)) from None
    words = done.stdout.decode(errors="replace").split()
    if done.returncode != 0 or len(words) != 6 or words[0] != "compiled":
        said = done.stderr.decode(errors="replace").strip().splitlines()
        if not said:
            raise Unfit(f"exit status {done.returncode}")
        raise Unfit(said[-1] if said[0].startswith("Traceback") else said[0])
    _, implementation, version, level, magic, code = words
    if implementation != "CPython" or level != "final":
        # a preview's bytecode has another magic number than the release's
        raise Unfit(f"{implementation} {version} ({level}) is no release of CPython")
    return Bytecode(version, bytes.fromhex(magic), start_bin.pack(bytes.fromhex(code)))


def candidates(given: Iterable[str], version: tuple[int, int]) -> Iterator[str]:
    """Yield interpreters that may be of a version, those that are asked for first."""
    yield from given
    name = "python{}.{}".format(*version)
    for folder in os.get_exec_path():
        # each of PATH: the first may be a stand-in that finds no version to run
        if path := shutil.which(name, path=folder):
            yield path
    if path := _known_to_uv(version):
        yield path
    yield from map(str, sorted(Path(sys.base_prefix).parent.glob(f"*/bin/{name}"), reverse=True))


def _known_to_uv(version: tuple[int, int]) -> str | None:
    command = [sys.executable, "-m", "uv", "python", "find", "--offline", "--quiet", "{}.{}".format(*version)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    return done.stdout.strip() or None if done.returncode == 0 else None


class Compilers:
    """Interpreters, each of which is run once.

    Parameters
    ----------
    given:
        Those to try first.
    modules:
        What they compile.
    """

    def __init__(self, given: Iterable[str], modules: start_bin.Modules) -> None:
        self.given = list(given)
        self.modules = modules
        self.tried: dict[str, Bytecode | None] = {}

    def find(self, version: tuple[int, int]) -> Bytecode | None:
        """Return what the first interpreter of a version makes, or ``None`` where there is none."""
        for python in candidates(self.given, version):
            if python not in self.tried:
                self.tried[python] = self._try(python)
            made = self.tried[python]
            if made is not None and made.short == version:
                say("{}.{}: made by {}, {}".format(*version, made.version, python))
                return made
        return None

    def _try(self, python: str) -> Bytecode | None:
        try:
            return compile_with(python, self.modules)
        except Unfit as e:
            say(f"not used: {python}: {e}")
            return None


def write(found: Iterable[Bytecode], modules: start_bin.Modules, directory: Path) -> None:
    """Write a file for each, and remove those of an earlier run."""
    directory.mkdir(exist_ok=True)
    for old in directory.glob("*.bin"):
        old.unlink()
    for made in found:
        path = directory / "cpython-{}.{}.bin".format(*made.short)
        path.write_bytes(start_bin.make_bytecode_file(made.magic, made.packed, modules))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--python", action="append", default=[], help="an interpreter; may be given repeatedly"
    )
    parser.add_argument(
        "--incomplete", action="store_true", help="go on without the versions that are missing"
    )
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="where the files go")
    arguments = parser.parse_args()
    modules = start_bin.start_modules(payload_zip.payload_sources())
    compilers = Compilers(arguments.python, modules)
    made = {version: compilers.find(version) for version in VERSIONS}
    missing = ", ".join("{}.{}".format(*version) for version, one in made.items() if one is None)
    if missing and not arguments.incomplete:
        say(
            f"no CPython {missing} was found, and nothing was written: a release has bytecode for every "
            "supported version. Name an interpreter with --python, or go on without it with --incomplete."
        )
        return 1
    write([one for one in made.values() if one is not None], modules, arguments.directory)
    if missing:
        say(f"left out: {missing}. Images with these versions compile the sources at each start.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
