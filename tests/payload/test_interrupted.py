"""What was going on when a server stopped: noted, told, forgotten; and never a reason to fail."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import files, interrupted, report
from overlayspawner.payload.actions import run
from overlayspawner.payload.context import Context
from tests.support.index import LocalIndex

JOB: dict[str, Any] = {
    "id": "0123456789abcdef",
    "action": "install",
    "who": "someone",
    "created": "2020-02-02T02:02:02Z",
    "started": "2020-02-02T02:02:03Z",
    "request": {"install": ["tinyleaf", "x @ https://me:hunter2@example.org/x.whl"]},
}


@pytest.fixture
def ctx(open_overlay: Callable[..., Context], index: LocalIndex) -> Context:
    return open_overlay(index_url=index.url, installer="uv")


def notes(ctx: Context) -> list[Path]:
    assert ctx.env is not None
    return list(Path(ctx.env.state).glob("job-*"))


def told(ctx: Context) -> list[str]:
    return [item["message"] for item in report.all_notices(ctx) if item["code"] == "interrupted"]


def test_a_note_is_told_of_once_its_server_is_gone(ctx: Context) -> None:
    record = interrupted.begin(ctx, JOB)
    assert record is not None and len(notes(ctx)) == 1
    assert interrupted.found(ctx) == [] and told(ctx) == []  # it is at work still
    interrupted.forget(ctx)
    assert len(notes(ctx)) == 1
    record.end(keep=True)
    (data,) = interrupted.found(ctx)
    assert data["outcome"] == "unchanged" and data["id"] == JOB["id"]
    (message,) = told(ctx)
    assert message.startswith("Installing tinyleaf, x @ https://***@example.org/x.whl was interrupted")
    assert message.endswith("nothing was changed.")
    assert "hunter2" not in notes(ctx)[0].read_text()
    interrupted.forget(ctx, "fedc")
    assert told(ctx)
    interrupted.forget(ctx, JOB["id"])
    assert not told(ctx) and not notes(ctx)


def test_a_change_that_was_made_is_told_so_until_the_next(ctx: Context) -> None:
    request = {"install": ["tinyleaf"]}
    record = interrupted.begin(ctx, {**JOB, "request": request})
    run(ctx, "install", request, who="someone")
    assert record is not None
    record.end(keep=True)
    (message,) = told(ctx)
    assert (
        message == "Installing tinyleaf was interrupted when the server stopped, but it had been completed."
    )
    assert [item["hint"] for item in interrupted.notices(ctx)] == ["There is nothing to do."]
    # somebody else's change is not this one
    assert interrupted.found(ctx)[0]["outcome"] == "completed"
    (note,) = notes(ctx)
    note.write_text(json.dumps({**json.loads(note.read_text()), "who": "another"}))
    assert interrupted.found(ctx)[0]["outcome"] == "unchanged"
    run(ctx, "uninstall", {"uninstall": ["tinyleaf"]}, who="someone")
    assert not told(ctx) and not notes(ctx)


def test_nothing_is_noted_where_that_can_not_be(ctx: Context) -> None:
    assert ctx.env is not None
    for fault in ("ENOSPC", "EIO"):
        for step in (1, 2, 3):
            files.inject(f"{step}:{fault}")
            try:
                record = interrupted.begin(ctx, JOB)
            finally:
                files.inject("")
            if record is not None:
                record.end()
            assert notes(ctx) == [], (fault, step)
    os.rename(ctx.env.state, ctx.env.state + ".away")
    os.symlink("/tmp", ctx.env.state)
    assert interrupted.begin(ctx, JOB) is None
    assert not list(Path("/tmp").glob(f"job-{JOB['id']}*"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"action": 1}', '{"action": "install", "request": 3}'])
def test_any_content_is_read(ctx: Context, content: str) -> None:
    assert ctx.env is not None
    os.makedirs(ctx.env.state, exist_ok=True)
    (Path(ctx.env.state) / "job-01.json").write_text(content)
    (Path(ctx.env.state) / "job-02.json").mkdir()
    os.symlink("/etc/passwd", Path(ctx.env.state) / "job-03.json")
    (Path(ctx.env.state) / "job-not-a-number.json").write_text("{}")
    assert len(told(ctx)) == (1 if "request" in content else 0)
    interrupted.forget(ctx)
