"""The doctor: each fault is made, explained, mended, and gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.probe import Base
from tests.support.doctor import assert_clean, complaints, leftovers
from tests.support.envs import (
    base,  # noqa: F401  (a fixture)
    make_context,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.index import LocalIndex


@pytest.fixture
def ctx(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Context]:
    """An overlay with tinytree and tinyleaf, in a home of its own."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for name in ("PYTHONPATH", "PYTHONUSERBASE", "PIP_CONFIG_FILE", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"):
        monkeypatch.delenv(name, raising=False)
    made = make_context(home, base, index_url=index.url)
    apply(made, "install", install=["tinytree"])
    yield made


def test_clean_after_a_change(ctx: Context) -> None:
    assert_clean(ctx)
    apply(ctx, "install", install=["tinydata"])
    apply(ctx, "uninstall", uninstall=["tinytree"])
    assert_clean(ctx)


def test_what_is_left_behind_is_seen(ctx: Context) -> None:
    overlay, env = ctx.require()
    Path(env.state, "stage-x").mkdir()
    Path(overlay.path, "requirements.txt.1.tmp").touch()
    assert len(leftovers(overlay)) == 2
    assert "unfinished" in complaints(ctx)
