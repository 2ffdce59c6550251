"""What does not start is told at once and in plain words, and the hub lives on."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest

from tests.support.hub import RunningHub, SpawnFailed
from tests.support.images import image
from tests.support.index import LocalIndex

# A stock hub would wait out these ten minutes; a test that does so is stopped much earlier.
CONFIG = """
c.Spawner.http_timeout = 600
c.Spawner.start_timeout = 600
c.Spawner.consecutive_failure_limit = 3
"""
pytestmark = [pytest.mark.engine, pytest.mark.beside, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def hub(index: LocalIndex) -> Iterator[RunningHub]:
    with RunningHub(CONFIG, image=image("stacks"), index=index) as running:
        yield running


def told(events: list[dict[str, object]]) -> str:
    return "\n".join(str(event.get("message", "")) for event in events)


@pytest.mark.parametrize(
    ("user", "script", "words"),
    [
        ("exits", "echo these are the last words >&2; exit 3", "these are the last words"),
        ("zero", "echo all done", "all done"),
        ("late", "sleep 3; echo gave up >&2; exit 1", "gave up"),
        ("killed", "echo before; kill -9 $$", "before"),
    ],
)
def test_death_is_told_at_once(hub: RunningHub, user: str, script: str, words: str) -> None:
    hub.configure(user, cmd=["/bin/sh", "-c", script])
    with pytest.raises(SpawnFailed) as failed:
        hub.start_server(user)
    assert words in told(failed.value.events), failed.value.events
    assert hub.running
    assert hub.engine.containers(f"-{user}") == []


def test_command_that_is_not_there(hub: RunningHub) -> None:
    hub.configure("missing", cmd=["no-such-command"])
    with pytest.raises(SpawnFailed) as failed:
        hub.start_server("missing")
    assert "no-such-command" in told(failed.value.events)


def test_secrets_and_html_are_not_passed_on(hub: RunningHub) -> None:
    script = (
        'echo "token is $JUPYTERHUB_API_TOKEN"; echo "https://me:hunter2@example.org/simple"; '
        "echo '<script>alert(1)</script>'; exit 1"
    )
    hub.configure("loud", cmd=["/bin/sh", "-c", script])
    with pytest.raises(SpawnFailed) as failed:
        hub.start_server("loud")
    text = told(failed.value.events)
    assert "token is" in text
    assert not re.search(r"token is [0-9a-f]{32}", text), text
    assert "hunter2" not in text
    for event in failed.value.events:
        assert "<script>" not in str(event.get("html_message", "")), event
    log = hub.log(10_000)
    assert not re.search(r"token is [0-9a-f]{32}", log)
    assert "hunter2" not in log


def test_much_output_is_bounded(hub: RunningHub) -> None:
    hub.configure("noisy", cmd=["/bin/sh", "-c", "yes '%s spam' | head -c 20000000; echo the end; exit 1"])
    with pytest.raises(SpawnFailed) as failed:
        hub.start_server("noisy")
    text = told(failed.value.events)
    assert "the end" in text
    assert len(text) < 100_000


def test_five_broken_users_do_not_stop_the_hub(hub: RunningHub) -> None:
    for number in range(5):
        user = f"broken{number}"
        hub.configure(user, cmd=["/bin/sh", "-c", "exit 1"])
        with pytest.raises(SpawnFailed):
            hub.start_server(user)
    assert hub.running
    assert hub.start_server("healthy").get("lab").status_code == 200


def test_hub_killed_in_mid_start(hub: RunningHub) -> None:
    """A hub that comes back finds the server that was starting when it was killed."""
    hub.configure("midstart", cmd=["/bin/sh", "-c", "sleep 6; exec start-notebook.py"])
    hub.start_server("midstart", wait=False)
    for event in hub.events("midstart"):
        if hub.engine.containers("midstart") and "aiting" in str(event.get("message", "")):
            break
        assert not event.get("failed") and not event.get("ready"), event
    hub.stop(signal.SIGKILL)
    hub.start()
    server = hub.wait_found("midstart")
    assert server.get("lab").status_code == 200


@pytest.fixture
def own(index: LocalIndex) -> Iterator[RunningHub]:
    """A hub with a payload of its own, which may be damaged."""
    with RunningHub(CONFIG, image=image("stacks"), index=index, own_payload=True) as running:
        yield running


def payload_volume(hub: RunningHub, user: str) -> str:
    """Return the volume that holds the payload; removed with the hub."""
    mounts = hub.engine.container(user).attrs["Mounts"]
    (name,) = [str(m["Name"]) for m in mounts if m["Destination"] == "/opt/overlayspawner"]
    hub.engine.forget_volume(name)
    return name


@pytest.mark.parametrize(
    "damage",
    ["pruned", "rm /v/overlay.pyz", "rm /v/COMPLETE", "rm /v/launcher.sh", ": > /v/overlay.pyz", "rm /v/*"],
)
def test_damaged_payload(own: RunningHub, damage: str) -> None:
    """The server starts plain and says so; the hub mends the volume, and the next start is whole again."""
    server = own.start_server("first")
    assert server.overlay("status")["mode"] == "normal"
    volume = payload_volume(own, "first")
    own.stop_server("first")
    if damage == "pruned":
        own.engine.client.volumes.get(volume).remove()
    else:
        own.engine.run_in(volume, "/v", image("stacks"), damage)
    server = own.start_server("first")
    assert server.get("lab").status_code == 200
    assert server.run_cell("1+1").result == "2"
    log = own.engine.container("first").logs().decode()
    plain = server.get("overlay/v1/status").status_code == 404
    if plain:
        assert re.search(r"overlayspawner: \[(payload-missing|bootstrap-failed)\]", log), log
    own.stop_server("first")
    server = own.start_server("first")
    assert server.overlay("status")["mode"] == "normal"
