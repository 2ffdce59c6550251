"""Fixtures of the payload's tests: a payload zip, and an overlay on the development environment's Python."""

from __future__ import annotations

import importlib.util
import marshal
import os
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from overlayspawner.hub import payload_zip
from overlayspawner.payload import bootstrap
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import Spec
from overlayspawner.payload.probe import probe
from tests.support.index import LocalIndex


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a freshly built ``overlay.pyz``, to which this Python's bytecode was added.

    Hundreds of commands are run from it, and compiling would take longer than what they do. Without bytecode
    it is run in test_laws.py, test_launcher.py, damage/ and by everything in containers.
    """
    path = tmp_path_factory.mktemp("payload") / "overlay.pyz"
    path.write_bytes(payload_zip.build().zip)
    with zipfile.ZipFile(path, "a") as archive:
        for info in archive.infolist():
            if info.filename.endswith(".py"):
                source = archive.read(info)
                code = compile(source, f"{path}/{info.filename}", "exec", dont_inherit=True)
                changed = int(time.mktime((*info.date_time, -1, -1, -1)))
                header = importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, changed, len(source))
                compiled = zipfile.ZipInfo(f"{info.filename}c", info.date_time)
                archive.writestr(compiled, header + marshal.dumps(code))
    return str(path)


@pytest.fixture(params=["uv", pytest.param("pip", marks=pytest.mark.slow)])
def installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each installer in turn; the machine's own settings have no say.

    pip takes seconds for what takes uv tenths of one.
    """
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def open_overlay(home: Path, tmp_path: Path, pyz: str, monkeypatch: pytest.MonkeyPatch):
    """Open an overlay in a home of its own, on this very Python (a venv as base), as a start would."""

    def do(
        environ: dict[str, str] | None = None, *, base: dict[str, object] | None = None, **spec: object
    ) -> Context:
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        monkeypatch.setattr(bootstrap, "_payload", lambda: pyz)
        env = {"HOME": str(home), "XDG_RUNTIME_DIR": str(run), "PATH": "/usr/bin:/bin", **(environ or {})}
        found = probe()
        found.__dict__.update(base or {})
        return bootstrap.open_context(Spec(**spec), environ=env, base=found)  # type: ignore[arg-type]

    return do


@pytest.fixture
def environ(home: Path, index: LocalIndex) -> dict[str, str]:
    # outside of any server: what a hand-started container or a plain machine has
    path = os.path.dirname(sys.executable) + ":/usr/bin:/bin"
    return {"HOME": str(home), "PATH": path, "PIP_INDEX_URL": index.url, "LANG": "C.UTF-8"}


@pytest.fixture
def overlay(
    environ: dict[str, str], tmp_path: Path, pyz: str
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``overlay`` from the zip, isolated, as in a container."""

    def run(*argv: str, **extra: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", pyz, "cli", *argv]
        return subprocess.run(
            command, env={**environ, **extra}, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )

    return run


@pytest.fixture(scope="module")
def used_home(tmp_path_factory: pytest.TempPathFactory, index: LocalIndex, pyz: str) -> Path:
    """A home with something installed, for the tests that change nothing."""
    home = tmp_path_factory.mktemp("used")
    environ = {"HOME": str(home), "PATH": os.path.dirname(sys.executable), "PIP_INDEX_URL": index.url}
    subprocess.run([sys.executable, "-I", pyz, "cli", "install", "tinydata"], env=environ, check=True)
    return home
