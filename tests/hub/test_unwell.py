"""An engine that fails: what is answered and cleared up meanwhile, against an engine with a script."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from tornado.web import HTTPError

from overlayspawner.hub import background, engine_reasons, payload_zip, unwell
from overlayspawner.hub.docker import OverlayDockerSpawner
from overlayspawner.hub.swarm import OverlaySwarmSpawner
from tests.support.scripted import ScriptedEngine
from tests.support.spawner import bare_spawner

BROKEN = (500, {"message": "something inside failed"})
RUNS = (200, {"Id": "c0", "State": {"Running": True, "Status": "running"}})
ENDED = (
    200,
    {"Id": "c0", "State": {"Running": False, "ExitCode": 3, "Error": "", "FinishedAt": "now"}},
)
GONE = (404, {"message": "No such container"})


def in_background() -> list[asyncio.Future[Any]]:
    """Return what goes on of this test: others may have left work in their own loops."""
    return [work for work in background._running if work.get_loop() is asyncio.get_running_loop()]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwell, "_LONGEST_PAUSE", 0.01)


def spawner_at(engine: ScriptedEngine, **traits: Any) -> Any:
    base = traits.pop("base", OverlayDockerSpawner)
    spawner = bare_spawner(
        "ann", base=base, client_kwargs={"base_url": engine.url}, image="image:1", **traits
    )
    spawner.remove = True
    return spawner


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


WAITS = {"State": "pending", "Err": "no suitable node (constraints not satisfied on 1 node)"}
PULLS = {"State": "preparing"}


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ((200, [{"ID": "t", "Status": WAITS}]), r"No node of the swarm .*constraints not satisfied"),
        ((200, [{"ID": "t", "Status": PULLS}]), r"has not got the server to run in time.*start_timeout"),
        (BROKEN, r"The container engine failed"),
    ],
    ids=["no-node", "preparing", "broken"],
)
async def test_what_a_service_waits_for_when_the_start_is_over(tasks: Any, told: str) -> None:
    payload_zip.build()  # takes a second of the start otherwise
    with ScriptedEngine(
        {
            r"GET /images/.*/json": [GONE],
            r"GET /configs": [(200, [])],
            r"POST /configs/create": [BROKEN],
            r"POST /services/create": [(201, {"ID": "s0"})],
            r"GET /services/.*": [GONE, (200, {"ID": "s0", "Spec": {}})],
            r"GET /tasks": [(200, [{"ID": "t", "Status": {"State": "new"}}]), tasks],
            r"GET /containers/json": [(200, [])],
            r"DELETE /services/s0": [(200, {})],
        }
    ) as engine:
        spawner = spawner_at(engine, base=OverlaySwarmSpawner, cmd=["serve"], start_timeout=5)
        with pytest.raises(HTTPError) as failed:
            await spawner.start()
        message = vars(failed.value)["jupyterhub_message"]
        assert re.search(told, message), message
        if tasks == BROKEN:
            unwell._clearing[spawner._log_name].cancel()  # it would be removed later
        else:
            await asyncio.gather(*in_background())
            assert "DELETE /services/s0" in engine.asked


async def test_a_service_that_takes_long_to_end_does_not_hold_up_the_reason() -> None:
    still = (
        200,
        [{"ID": "t", "Status": {"State": "failed", "Err": "x", "ContainerStatus": {"ExitCode": 3}}}],
    )
    payload_zip.build()  # takes a second of the start otherwise
    with ScriptedEngine(
        {
            r"GET /images/.*/json": [GONE],
            r"GET /configs": [(200, [])],
            r"POST /configs/create": [BROKEN],
            r"POST /services/create": [(201, {"ID": "s0"})],
            r"GET /services/.*": [GONE, (200, {"ID": "s0", "Spec": {}})],
            r"GET /tasks": [still],
            r"GET /tasks/t": [(200, {"ID": "t"})],
            r"DELETE /services/s0": [(200, {})],
        }
    ) as engine:
        spawner = spawner_at(engine, base=OverlaySwarmSpawner, cmd=["serve"], start_timeout=5)
        with pytest.raises(HTTPError, match="exit code 3"):
            await spawner.start()
        assert any(not removal.done() for removal in in_background())


async def test_an_engine_that_repeats_what_it_refuses_shows_no_secrets() -> None:
    said = {"message": "invalid environment variable: API_TOKEN=hunter2hunter2 hunter2hunter2"}
    image = {"Id": "sha256:0", "Config": {"Env": [], "Cmd": ["x"]}}
    with ScriptedEngine(
        {
            r"GET /images/.*/json": [(200, image)],
            r"POST /containers/create": [(400, said)],
            r"POST /volumes/create": [(403, {"message": "no volumes"})],
        }
    ) as engine:
        spawner = spawner_at(engine, cmd=["serve"])
        spawner.get_env = lambda: {"API_TOKEN": "hunter2hunter2"}
        with pytest.raises(HTTPError) as failed:
            await spawner.start()
        message = vars(failed.value)["jupyterhub_message"]
        assert "invalid environment variable" in message and "hunter2" not in message


@pytest.mark.parametrize(("code", "counts"), [("name-taken", False), ("engine", True)])
def test_what_a_restart_of_the_hub_can_not_help_does_not_stop_it(code: str, counts: bool) -> None:
    """A container that the engine can't remove keeps its name: that is one user's misfortune."""
    assert engine_reasons.Reason(code).counts(chosen=False) == counts
