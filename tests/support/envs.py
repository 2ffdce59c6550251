"""Bases and contexts for tests that change an env without any container."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import Spec
from overlayspawner.payload.overlay import Overlay
from overlayspawner.payload.probe import Base
from tests.support.wheels import make_wheel

ROOT = Path(__file__).resolve().parents[2]

_PROBE = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from overlayspawner.payload.probe import probe
sys.path.remove({str(ROOT)!r})
print(json.dumps(probe().to_dict()))
"""


def put(site: Path, wheel: Path) -> None:
    """Unpack a wheel into a directory of packages, as an image's build would have done."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)


def other_pythons() -> list[str]:
    """Return Pythons of other versions that this machine has beside the one that runs the tests."""
    beside = sorted(Path(sys.base_prefix).parent.glob("*/bin/python3"))
    named = [shutil.which(f"python3.{minor}") for minor in range(9, 20)]
    check = "import sys, venv, ensurepip; print(sys.version_info >= (3, 9), *sys.version_info[:2])"
    out: dict[str, str] = {}
    for path in [*map(str, beside), *filter(None, named)]:
        done = subprocess.run([path, "-I", "-c", check], capture_output=True, text=True, check=False)
        fits, _, version = done.stdout.strip().partition(" ")
        if fits == "True" and version != "{} {}".format(*sys.version_info[:2]):
            out.setdefault(version, path)
    return list(out.values())


def make_base(
    directory: Path, wheels: Iterable[Path] = (), *, interpreter: str = sys.executable, pip: bool = True
) -> Base:
    """Make a venv, with pip or without, that serves as an image's Python; return its description."""
    options = [] if pip else ["--without-pip"]
    subprocess.run([interpreter, "-m", "venv", *options, str(directory)], check=True)
    base = describe(directory)
    for wheel in wheels:
        put(Path(base.site_dirs[-1]), wheel)
    return base


def describe(venv: Path) -> Base:
    """Return the description of a venv that serves as an image's Python."""
    python = venv / "bin" / "python"
    out = subprocess.run([str(python), "-I", "-c", _PROBE], check=True, capture_output=True, text=True)
    return Base.from_dict(json.loads(out.stdout))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A base with pip, ``tinyleaf`` 1.1 and ``basetool`` 1.0, which needs it. Tests leave it as it is."""
    wheels = tmp_path_factory.mktemp("base-wheels")
    return make_base(
        tmp_path_factory.mktemp("base") / "image",
        [
            make_wheel(wheels, "tinyleaf", "1.1"),
            make_wheel(wheels, "basetool", "1.0", requires=["tinyleaf"]),
        ],
    )


def make_context(home: Path, base: Base, **spec: object) -> Context:
    """Make an overlay in a home directory, and the context of a server that uses it."""
    home.mkdir(parents=True, exist_ok=True)
    overlay = Overlay(str(home / ".overlay" / "default"))
    env = overlay.create(base)
    return Context(
        spec=Spec(**spec),  # type: ignore[arg-type]
        base=base,
        home=str(home),
        runtime="",
        payload=str(ROOT),
        overlay=overlay,
        env=env,
        base_lock=base.lock(),
    )


def snapshot(path: str | Path, *, without: Iterable[str] = ()) -> dict[str, str]:
    """Describe every file, link and directory below a path: relative path → kind, mode and content's digest.

    Parameters
    ----------
    without:
        Relative paths left out, with all below them.
    """
    out: dict[str, str] = {}
    skip = set(without)

    def walk(folder: str, rel: str) -> None:
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            name = f"{rel}/{entry.name}" if rel else entry.name
            if name in skip:
                continue
            mode = oct(entry.stat(follow_symlinks=False).st_mode)
            if entry.is_symlink():
                out[name] = f"link {os.readlink(entry.path)}"
            elif entry.is_dir():
                out[name] = f"dir {mode}"
                walk(entry.path, name)
            else:
                out[name] = f"file {mode} {hashlib.sha256(Path(entry.path).read_bytes()).hexdigest()}"

    walk(str(path), "")
    return out


def stamps(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Tell what changes when something below a path does, without reading it: path → mode; of files also
    inode, size and time.

    :func:`snapshot` for after each test: it takes a hundredth of a second for an image.
    """
    out: dict[str, tuple[int, ...]] = {}
    folders = [str(path)]
    while folders:
        for entry in os.scandir(folders.pop()):
            info = entry.stat(follow_symlinks=False)
            out[entry.path] = (info.st_mode,)
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                out[entry.path] += (info.st_ino, info.st_size, info.st_mtime_ns)
    return out


def env_snapshot(ctx: Context) -> dict[str, str]:
    """Describe the env as Python sees it (without our own state and lock), and the requirements."""
    overlay, env = ctx.require()
    out = snapshot(env.path, without=[".overlay", "pylock.toml"])
    out["requirements"] = Path(overlay.requirements).read_text()
    return out


def run_python(ctx: Context, code: str, *arguments: str) -> str:
    """Run code in the env's Python and return what it prints."""
    _, env = ctx.require()
    argv = [env.python, "-I", "-B", "-c", code, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def uv_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the development environment's uv where an image may have one."""
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])


def run_child(code: str, *arguments: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own that can import the checkout, dying where ``fault`` says."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OVERLAYSPAWNER_FAULT": fault}
    argv = [sys.executable, "-c", code, *arguments]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
