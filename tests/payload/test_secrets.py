"""Credentials of an index stay out of all that is kept, whatever tool was given them."""

from __future__ import annotations

from pathlib import Path

import pytest

from overlayspawner.payload import revisions
from overlayspawner.payload.context import Context
from tests.payload.test_wrapper import base, ctx, tool  # noqa: F401  (fixtures)
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
