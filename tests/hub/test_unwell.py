"""An engine that fails: what is answered and cleared up meanwhile, against an engine with a script."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from overlayspawner.hub import unwell
from tests.support.scripted import ScriptedEngine
from tests.support.spawner import bare_spawner

BROKEN = (500, {"message": "something inside failed"})
RUNS = (200, {"Id": "c0", "State": {"Running": True, "Status": "running"}})
ENDED = (
    200,
    {"Id": "c0", "State": {"Running": False, "ExitCode": 3, "Error": "", "FinishedAt": "now"}},
)
GONE = (404, {"message": "No such container"})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwell, "_LONGEST_PAUSE", 0.01)


def spawner_at(engine: ScriptedEngine, **traits: Any) -> Any:
    return bare_spawner("ann", client_kwargs={"base_url": engine.url}, image="image:1", remove=True, **traits)


@pytest.mark.parametrize(
    ("answers", "ended"),
    [
        ([BROKEN, RUNS], False),
        ([BROKEN, RUNS, BROKEN], False),
        ([BROKEN, BROKEN], False),
        ([BROKEN, ENDED], True),
        ([BROKEN, GONE], True),
        ([GONE], True),
    ],
)
async def test_an_error_of_the_engine_is_no_end_of_a_server(answers: list[Any], ended: bool) -> None:
    with ScriptedEngine({r"GET /containers/.*/json": answers}) as engine:
        spawner = spawner_at(engine)
        spawner.object_id = "c0"
        assert (await spawner.poll() is not None) == ended
        if not ended:
            assert spawner.object_id == "c0"


async def test_a_start_without_an_overlay_is_not_cleared_up_either() -> None:
    """What is left of a failed start is told by its name, which the next server has as well."""
    with ScriptedEngine({r"GET /containers/.*/json": [BROKEN]}) as engine:
        spawner = spawner_at(engine)
        spawner._overlay_clear_up_later()
        clearing = unwell._clearing[spawner._log_name]
        spawner.overlay_enabled = False
        with pytest.raises(Exception, match="404"):  # the image
            await spawner.start()
        await asyncio.wait({clearing}, timeout=5)
        assert clearing.cancelled()


async def test_one_clears_up_at_a_time_and_nothing_of_it_stays() -> None:
    with ScriptedEngine({r"GET /containers/.*/json": [RUNS], r"DELETE .*": [(204, None)]}) as engine:
        spawner = spawner_at(engine)
        spawner._overlay_clear_up_later()
        first = unwell._clearing[spawner._log_name]
        spawner._overlay_clear_up_later()
        second = unwell._clearing[spawner._log_name]
        await asyncio.wait({first, second}, timeout=10)
        await asyncio.sleep(0)
        assert first.cancelled() and second.done() and not second.cancelled()
        assert spawner._log_name not in unwell._clearing


async def test_what_could_not_be_removed_is_removed_later() -> None:
    removals = [BROKEN, (0, None), (204, None)]
    with ScriptedEngine({r"GET /containers/.*/json": [RUNS], r"DELETE .*": removals}) as engine:
        spawner = spawner_at(engine)
        spawner._overlay_clear_up_later()
        await asyncio.wait_for(unwell._clearing[spawner._log_name], 10)
        assert len([a for a in engine.asked if a.startswith("DELETE")]) == 3


async def test_an_engine_that_goes_away_while_it_removes_does_not_hide_the_reason() -> None:
    with ScriptedEngine({r"DELETE .*": [(0, None)]}) as engine:
        spawner = spawner_at(engine)
        await spawner._overlay_discard(await spawner._overlay_connect(), "c0")
        assert "DELETE /containers/c0" in engine.asked
