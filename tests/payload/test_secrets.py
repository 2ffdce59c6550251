"""Credentials of an index stay out of all that is kept, whatever tool was given them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import planning, report, revisions
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.probe import Base
from tests.payload.test_wrapper import base, ctx, tool  # noqa: F401  (fixtures)
from tests.support.envs import make_context
from tests.support.index import LocalIndex


@pytest.mark.slow
def test_what_other_tools_were_given_is_not_kept(ctx: Context, index: LocalIndex) -> None:  # noqa: F811
    url = index.prefixed("auth", credentials=True)
    secret = url.split("@")[0].split(":")[-1]
    files = url.removesuffix("simple/") + "files/"
    tool(ctx, "pip", "install", "--index-url", url, "tinytree")
    tool(ctx, "pip", "install", f"--index-url={url}", "tinydata")
    tool(ctx, "uv", "pip", "install", "--index-url", url, "tinyscript")
    tool(ctx, "pip", "install", f"tinyleaf @ {files}tinyleaf-1.0-py3-none-any.whl")
    tool(ctx, "uv", "pip", "install", f"tinyleaf @ {files}tinyleaf-2.0-py3-none-any.whl")
    tool(ctx, "uv", "pip", "install", "-i", url, "no-such-thing-here", ok=False)
    overlay, _ = ctx.require()
    asked = [str(r["argv"]) for r in revisions.list_revisions(overlay)]
    assert len(asked) == 5 and all("***@" in text for text in asked)
    for top in (ctx.home, ctx.runtime):
        for path in Path(top).rglob("*"):
            raw = path.read_bytes() if path.is_file() else b""
            assert secret.encode() not in raw and index.password.encode() not in raw, path


@pytest.mark.parametrize("place", ["index", "extra"])
@pytest.mark.parametrize("which", ["uv", pytest.param("pip", marks=pytest.mark.slow)])
def test_what_the_hub_gives_is_shown_nowhere(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    monkeypatch: pytest.MonkeyPatch,
    which: str,
    place: str,
) -> None:
    """Plans, changes, what refuses them, status, history, lock, logs: all that is told, and all files."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
    url = index.prefixed("auth", credentials=True)
    refused = url.replace(":" + url.split("@")[0].split(":")[-1], ":s3cret-but-wrong")
    told: list[object] = []

    def context(url: str) -> Context:
        made = make_context(tmp_path / "home", base, installer=which)
        if place == "index":
            made.spec.index_url = url
        else:
            made.spec.index_url, made.spec.extra_index_urls = f"{index.root}/no-such/", [url]
        return made

    def attempt(mine: Context, act: Callable[..., object], **wanted: object) -> str:
        try:
            told.append(act(mine, on_event=told.append, **wanted))
        except OverlayError as e:
            told.append(e.to_dict())
            return e.code
        return ""

    def change(mine: Context, **wanted: Any) -> object:
        return apply(mine, "install", **wanted)

    mine = context(url)
    assert attempt(mine, planning.plan, install=["tinyforest"]) == ""
    assert attempt(mine, change, install=["tinyforest"]) == ""
    assert attempt(mine, planning.plan, install=["no-such-thing-here"]) != ""
    mine.spec.only_binary = [":all:"]
    assert attempt(mine, planning.plan, install=["tinysdist"]) == "policy"
    assert attempt(mine, change, install=["tinysdist"]) == "policy"
    if which == "uv":
        mine.spec.exclude_newer = "2026-01-01"
        assert attempt(mine, planning.plan, install=["tinydata"]) == "no-upload-times"
        assert attempt(mine, change, install=["tinydata"]) == "no-upload-times"
    wrong = context(refused)
    assert attempt(wrong, planning.plan, install=["tinydata"]) != ""
    assert attempt(wrong, change, install=["tinydata"]) != ""
    overlay, _ = mine.require()
    told += [report.status(mine), report.state(mine), revisions.list_revisions(overlay)]
    shown = json.dumps(told, default=str)
    assert "tinyforest" in shown and "tinysdist" in shown
    secrets = [url.split("@")[0].split(":")[-1], index.password, "s3cret-but-wrong"]
    assert not [secret for secret in secrets if secret in shown]
    for path in Path(mine.home).rglob("*"):
        raw = path.read_bytes() if path.is_file() else b""
        assert not [secret for secret in secrets if secret.encode() in raw], path
