"""When the background of a server looks again: it sleeps while there is nothing that it could do."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from overlayspawner.payload import adopt, merge
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import notice
from overlayspawner.payload.lease import acquire
from overlayspawner.payload.probe import Base
from overlayspawner.payload.server.background import PAUSES, Background
from overlayspawner.payload.server.service import Service
from tests.support.envs import base, make_context, put  # noqa: F401  (a fixture)
from tests.support.wheels import make_wheel


@pytest.fixture
def ctx(tmp_path: Path, base: Base) -> Context:  # noqa: F811
    return make_context(tmp_path / "home", base, restore="manual")


def background(ctx: Context) -> Background:
    app = SimpleNamespace()  # asked only by tick(), which the server's loop calls
    return Background(Service(ctx, logging.getLogger("background")), app, quiet=0.01, quiet_busy=0.01)


def test_without_an_overlay_there_is_nothing_to_wake_for(ctx: Context) -> None:
    ctx.overlay = ctx.env = None
    ctx.mode = "safe"
    assert background(ctx).once() is None


def test_a_repair_that_another_server_keeps_us_from_is_not_tried_all_the_time(
    ctx: Context, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _, env = ctx.require()
    Path(env.path, "pyvenv.cfg").write_text("")
    ctx.env = None
    ctx.notices.append(notice("env-broken"))
    there = background(ctx)
    with acquire(env, who="another one"):
        pause = there.once()
        assert pause is not None and pause > PAUSES[0] / 2
        # nor by whatever else wakes it
        pause = there.once()
        assert pause is not None and pause > PAUSES[0] / 2
    assert len([r for r in caplog.records if "busy" in r.getMessage()]) == 1
    there._retry_at = 0.0
    there.once()
    assert env.usable() and ctx.env is not None


def test_what_cannot_be_mended_is_left_alone_until_something_is_used(ctx: Context) -> None:
    ctx.env = None
    ctx.mode = "degraded"
    ctx.notices.append(notice("home-full"))
    assert background(ctx).once() is None


def test_an_env_that_breaks_under_a_server_is_told_of_and_loses_no_line(
    ctx: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    overlay, env = ctx.require()
    put(Path(env.site_packages), make_wheel(tmp_path, "tinydata", "1.0"))
    Path(env.site_packages, "tinydata-1.0.dist-info", "INSTALLER").write_text("pip\n")
    adopt.adopt(ctx)
    assert merge.last(overlay).names() == {"tinydata"}
    os.rename(env.site_packages, env.path + "/elsewhere")
    there = background(ctx)
    pauses = []
    for _ in range(len(PAUSES) + 1):
        pauses.append(there.once() or 0.0)
        there._used = True
    assert "env-broken" in [item["code"] for item in ctx.notices]
    assert Path(overlay.requirements).read_text() == "tinydata\n"
    # rarer and rarer, and said once
    assert pauses[-1] > PAUSES[-1] / 2 > pauses[0]
    assert len([r for r in caplog.records if "env-broken" in r.getMessage()]) == 1
    os.rename(env.path + "/elsewhere", env.site_packages)
    there.once()
    assert "env-broken" not in [item["code"] for item in ctx.notices]


def test_a_restore_that_has_not_begun_to_write_is_told_as_one(
    tmp_path: Path,
    base: Base,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ctx = make_context(tmp_path / "home", base, index_url="http://127.0.0.1:9/simple/")
    overlay, _ = ctx.require()
    Path(overlay.requirements).write_text("awaited\n")
    begin, work = threading.Event(), Service._work

    def later(service: Service, *given: Any) -> Any:
        assert begin.wait(60)
        return work(service, *given)

    monkeypatch.setattr(Service, "_work", later)
    there = background(ctx)
    there.once()
    told = there.service.status()
    begin.set()
    assert there.service.jobs.stop(60)
    assert told["job"]["action"] == "restore"
    codes = {n["code"] for n in told["notices"]}
    assert "restoring" in codes and "restore-waiting" not in codes
    # and afterwards, as nothing could be had
    there.once()
    assert "restore-waiting" in {n["code"] for n in there.service.status()["notices"]}
