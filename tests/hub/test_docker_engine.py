"""OverlayDockerSpawner in a real hub: what the engine suite of the whole product does not cover."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest
import requests
from docker.errors import APIError, NotFound

from overlayspawner.hub.image_facts import facts_from_config
from tests.support.hub import RunningHub, SpawnFailed, in_parallel
from tests.support.images import image
from tests.support.registry import SlowRegistry
from tests.support.spawner import bare_spawner

pytestmark = pytest.mark.engine

# slow_spawn_timeout: the request that starts a server does not wait for it, so that progress can be followed
CONFIG = """
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}
c.Spawner.consecutive_failure_limit = 3
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
c.DockerSpawner.allowed_images = "*"
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    with RunningHub(CONFIG, image=image("stacks")) as running:
        yield running


def follow(hub: RunningHub, user: str, options: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Start a server and return all progress events."""
    hub.start_server(user, options=options, wait=False)
    return list(hub.events(user))


def test_the_phases_of_a_start(hub: RunningHub) -> None:
    events = follow(hub, "phases")
    assert events[-1].get("ready"), events
    messages = [e["message"] for e in events[:-1]]
    phases = ["Creating the container", "Starting the server", "Waiting for the server to answer"]
    assert [m for m in messages if m in phases] == phases
    assert "The server answers" in messages
    # a line of the container's own
    assert any("/home/jovyan/.overlay/default" in m for m in messages), messages
    bars = [e["progress"] for e in events]
    assert bars == sorted(bars)
    assert not any("html_message" in e for e in events[:-1])


def test_a_pull_is_shown_in_bytes_and_shared(hub: RunningHub) -> None:
    with SlowRegistry() as registry:
        name = f"{registry.name}:latest"
        try:
            first, second = in_parallel(
                lambda: follow(hub, "pulls1", {"image": name}),
                lambda: follow(hub, "pulls2", {"image": name}),
            )
            # what exports call it
            facts = facts_from_config(docker.from_env().api.inspect_image(name))
            assert re.fullmatch(re.escape(registry.name) + "@sha256:[0-9a-f]{64}", facts.public_name(name))
        finally:
            docker.from_env().images.remove(name, force=True)
        layers = [r for r in registry.requests if "/blobs/" in r]
    assert len(layers) == 2, layers  # config and layer, once each
    for events in (first, second):
        shown = [e["message"] for e in events if re.search(r"Pulling .*: \d+ [Mk]B of 8 MB", e["message"])]
        assert shown, events
        assert (
            "no-such-program" in events[-1]["message"]
        )  # and then it can't start, for which it has no shell
        assert any("no /bin/sh" in e["message"] for e in events)


async def test_a_login_of_the_spawner_s_own_client_is_used() -> None:
    """As a hook before the spawn makes it; another user without it gets no part of that pull."""
    with SlowRegistry(login="someone:a-password") as registry:
        name = f"{registry.name}:latest"
        known, unknown = (bare_spawner(user, image=name) for user in ("known", "unknown"))
        host = registry.name.partition("/")[0]
        await known.docker("login", username="someone", password="a-password", registry=host)
        try:
            found, refused = await asyncio.gather(
                known._overlay_pull(name), unknown._overlay_pull(name), return_exceptions=True
            )
            assert isinstance(found, dict), found
            assert isinstance(refused, APIError), refused
            assert "a-password" not in str(refused)
        finally:
            with contextlib.suppress(NotFound):
                docker.from_env().images.remove(name, force=True)


def test_an_image_that_does_not_exist_is_the_user_s_mistake_when_the_user_chose_it(hub: RunningHub) -> None:
    with SlowRegistry() as registry:
        for number in range(4):
            events = follow(hub, f"typo{number}", {"image": f"{registry.name}:typo"})
            assert "can't be had" in events[-1]["message"], events
            assert "manifest unknown" in events[-1]["message"], events
    assert hub.running


def test_a_container_that_is_kept(hub: RunningHub) -> None:
    """Restarted as it is, recreated when the settings changed, kept when something would be lost."""
    user = "kept"
    hub.configure(user, remove=False)
    follow(hub, user)
    first = hub.engine.container(user)
    hub.stop_server(user)
    assert hub.engine.container(user).id == first.id

    events = follow(hub, user)
    assert events[-1].get("ready"), events
    assert hub.engine.container(user).id == first.id
    hub.stop_server(user)

    hub.configure(user, remove=False, overlay_kernel="add")
    events = follow(hub, user)
    assert events[-1].get("ready"), events
    assert any("settings have changed" in e["message"] for e in events)
    second = hub.engine.container(user)
    assert second.id != first.id
    # what the user has put into the container itself must not be lost
    assert second.exec_run(["touch", "/opt/conda/mine"], user="0").exit_code == 0
    hub.stop_server(user)

    hub.configure(user, remove=False, overlay_kernel="replace")
    events = follow(hub, user)
    assert events[-1].get("ready"), events
    assert any("/opt/conda/mine" in e["message"] for e in events), events
    assert hub.engine.container(user).id == second.id
    hub.stop_server(user)


def test_a_container_of_the_stock_class_is_started_as_it_is(hub: RunningHub) -> None:
    user = "stock"
    hub.configure(user, remove=False, overlay_enabled=False)
    follow(hub, user)
    before = hub.engine.container(user)
    hub.stop_server(user)
    hub.configure(user, remove=False)
    events = follow(hub, user)
    assert events[-1].get("ready"), events
    assert any("created without an overlay" in e["message"] for e in events)
    assert hub.engine.container(user).id == before.id
    assert hub.server(user).get("lab").status_code == 200
    hub.stop_server(user)


def test_settings_may_be_callables(hub: RunningHub) -> None:
    config = """
async def name(spawner):
    return "of-" + spawner.user.name
c.OverlayDockerSpawner.overlay_name = name
c.OverlayDockerSpawner.overlay_path = lambda spawner: "packages/{username}/{name}"
c.OverlayDockerSpawner.overlay_enabled = lambda spawner: spawner.user.name != "without"
"""
    with RunningHub(CONFIG + config, image=image("stacks")) as own:
        follow(own, "callable")
        status = own.server("callable").overlay("status")
        assert status["path"] == "/home/jovyan/packages/callable/of-callable"
        assert status["overlay"] == "of-callable"
        follow(own, "without")
        assert own.server("without").get("overlay/v1/status").status_code == 404


def test_a_wrong_setting_is_said_and_counts_as_the_hub_s_own_failure() -> None:
    """The other side of "five broken users don't stop the hub": what the hub gets wrong still does."""
    config = "c.OverlayDockerSpawner.overlay_kind = lambda spawner: 'no such kind'\n"
    with RunningHub("c.Spawner.consecutive_failure_limit = 3\n" + config, image=image("stacks")) as own:
        for number in range(3):
            user = f"user{number}"
            own.start_server(user, wait=False)
            # not through events(): for a moment, JupyterHub calls a start that failed at once "not starting"
            for _ in range(50):
                answer = own.call("GET", f"users/{user}/server/progress")
                if answer.ok:
                    break
                time.sleep(0.1)
            assert "overlay_kind is 'no such kind'" in answer.text, answer.text
        end = time.monotonic() + 30
        while own.running and time.monotonic() < end:
            time.sleep(0.1)
        assert not own.running


def test_too_large_a_spec_is_said(hub: RunningHub) -> None:
    hub.configure("large", overlay_requirements=["a-package-of-some-name==1.0"] * 6000)
    events = follow(hub, "large")
    assert "variable holds" in events[-1]["message"], events
    follow(hub, "resets-the-count")  # a success: this failure was the hub's


def test_the_page_after_a_death_shows_the_tail_as_text(hub: RunningHub) -> None:
    hub.configure("page", cmd=["sh", "-c", "echo '<b>last</b> words' >&2; exit 5"])
    hub.add_user("page")
    session = hub.login("page")
    answer = session.get(f"{hub.host}/hub/spawn/page", timeout=60)
    end = time.monotonic() + 30
    while "last" not in answer.text and time.monotonic() < end:
        time.sleep(0.2)
        answer = session.get(f"{hub.host}/hub/spawn-pending/page", timeout=60)
    assert "exit code 5" in answer.text
    assert "&lt;b&gt;last&lt;/b&gt; words" in answer.text
    assert "<b>last</b>" not in answer.text


def test_the_hub_answers_while_many_servers_start(hub: RunningHub) -> None:
    """Nothing of ours blocks the hub's event loop while containers are slow to come up."""
    users = [f"slow{n}" for n in range(6)]
    for user in users:
        hub.configure(user, cmd=["sh", "-c", "yes | head -c 3000000; sleep 5; exit 1"])
        hub.start_server(user, wait=False)
    delays = []
    for _ in range(20):
        begin = time.monotonic()
        assert requests.get(f"{hub.host}/hub/health", timeout=30).ok
        delays.append(time.monotonic() - begin)
        time.sleep(0.1)
    for user in users:
        with pytest.raises(SpawnFailed):
            hub.wait_ready(user)
    # no test asserts a time; but a loop that is blocked by a wait of seconds is another thing than a busy one
    assert sorted(delays)[len(delays) // 2] < 2.5, delays
