"""Server extensions of ``~/.local`` that the server does not load are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import Spec
from overlayspawner.payload.probe import probe
from overlayspawner.payload.server import hidden


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(
        spec=Spec(),
        base=probe(),
        home=str(tmp_path),
        runtime="",
        payload="",
        restore_env={"PYTHONNOUSERSITE": None},
    )


def install(home: Path, name: str, *, config: str = ".local/etc/jupyter", on: bool = True) -> None:
    version = probe().version
    module = home / f".local/lib/python{version}/site-packages" / name
    module.mkdir(parents=True, exist_ok=True)
    (module / "__init__.py").write_text("")
    directory = home / config / "jupyter_server_config.d"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps({"ServerApp": {"jpserver_extensions": {name: on}}}))


def test_they_are_named(context: Context, tmp_path: Path) -> None:
    install(tmp_path, "only_mine")
    install(tmp_path, "mine_too", config=".jupyter")
    install(tmp_path, "switched_off", on=False)
    install(tmp_path, "jupyter_server")  # the image has it as well
    (tmp_path / ".jupyter/jupyter_server_config.d/garbage.json").write_text("{")
    hidden.look(context)
    (found,) = context.notices
    assert found["code"] == "user-site-hidden"
    assert "mine_too, only_mine." in found["message"]


def test_nothing_is_said_where_nothing_is_left_out(context: Context, tmp_path: Path) -> None:
    hidden.look(context)
    install(tmp_path, "only_mine")
    context.restore_env = {}  # the server sees the user site
    hidden.look(context)
    assert context.notices == []
