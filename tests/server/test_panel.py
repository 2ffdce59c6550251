"""The panel's files: out of the payload, into the runtime dir, whole."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from overlayspawner.payload.server import panel

FILES = {"package.json": b"{}", "static/remoteEntry.1.js": b"1;", "schemas/overlayspawner/panel.json": b"{}"}


def made(tmp_path: Path, kind: str, files: dict[str, bytes]) -> Any:
    """A context whose payload is a zip, or a checkout, with these files of a panel."""
    (tmp_path / "run" / "share" / "jupyter" / "labextensions").mkdir(parents=True)
    payload = tmp_path / "payload"
    named = {f"overlayspawner/labextension/{name}": data for name, data in files.items()}
    if kind == "zip":
        with zipfile.ZipFile(payload, "w") as archive:
            archive.writestr("overlayspawner/__init__.py", "")
            for name, data in named.items():
                archive.writestr(name, data)
    else:
        payload.mkdir()
        for name, data in named.items():
            (payload / name).parent.mkdir(parents=True, exist_ok=True)
            (payload / name).write_bytes(data)
    return SimpleNamespace(runtime=str(tmp_path / "run"), payload=str(payload))


def held(tmp_path: Path) -> dict[str, bytes]:
    """What JupyterLab finds there."""
    top = tmp_path / "run" / "share" / "jupyter" / "labextensions"
    return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["zip", "checkout"])
def test_it_comes_whole(tmp_path: Path, kind: str) -> None:
    assert panel.deliver(SimpleNamespace(), made(tmp_path, kind, FILES))
    assert held(tmp_path) == {f"overlayspawner/{name}": data for name, data in FILES.items()}


@pytest.mark.parametrize("kind", ["zip", "checkout"])
def test_a_payload_without_it(tmp_path: Path, kind: str) -> None:
    assert not panel.deliver(SimpleNamespace(), made(tmp_path, kind, {}))
    assert held(tmp_path) == {}


@pytest.mark.parametrize("major", ["", "3", "5"])
def test_an_image_without_jupyterlab_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, major: str) -> None:
    monkeypatch.setattr(panel, "jupyterlab_major", lambda: major)
    assert not panel.deliver(SimpleNamespace(), made(tmp_path, "zip", FILES))
    assert held(tmp_path) == {}
