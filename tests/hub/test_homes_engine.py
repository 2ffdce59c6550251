"""Home volumes on a real engine: whose they are, and engines that have none for us."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from tests.support.images import image
from tests.support.spawner import RefusingProxy, bare_spawner

pytestmark = pytest.mark.engine

USER_LABEL = "overlayspawner.home"


@pytest.fixture
def client() -> Iterator[Any]:
    with docker.APIClient(version="auto") as made:
        yield made


@pytest.fixture
def prefix(client: Any) -> Iterator[str]:
    """Everything whose name begins with it is removed."""
    prefix = f"ovltest-{uuid.uuid4().hex[:8]}"
    yield prefix
    for container in client.containers(all=True, filters={"name": prefix}):
        client.remove_container(container["Id"], force=True)
    for volume in client.volumes(filters={"name": prefix})["Volumes"] or []:
        client.remove_volume(volume["Name"])


def volumes(client: Any, prefix: str) -> list[str]:
    return [v["Name"] for v in client.volumes(filters={"name": prefix})["Volumes"] or []]


def spawner(prefix: str, **more: Any) -> Any:
    settings = {"prefix": prefix, "image": image("stacks"), "cmd": ["sleep", "600"], "remove": True, **more}
    return bare_spawner("alice", **settings)


async def started(spawner: Any, client: Any) -> tuple[str, str]:
    """Start; return the volume at the home, or ``""``, and the spec."""
    assert await spawner.start()
    found = client.inspect_container(spawner.object_name)
    assert found["State"]["Running"]
    homes = [m.get("Name", "") for m in found["Mounts"] if m["Destination"] == "/home/jovyan"]
    spec = [e for e in found["Config"]["Env"] if e.startswith("OVERLAYSPAWNER_SPEC=")]
    return "".join(homes), "".join(spec)


@pytest.mark.parametrize("refused", ["/volumes", "/volumes/create", r"/containers/[^/]+/archive"])
async def test_an_engine_that_refuses(
    client: Any, prefix: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a filtering proxy: what starts with the stock class starts with ours."""
    with RefusingProxy(refused) as proxy:
        monkeypatch.setenv("DOCKER_HOST", proxy.url)
        home, spec = await started(spawner(prefix), client)
        assert home == ""
        assert spec
        if "volumes" in refused:
            assert "not-persistent" in spec


async def test_an_engine_that_refuses_volumes_with_the_overlay_switched_off(
    client: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RefusingProxy("/volumes") as proxy:
        monkeypatch.setenv("DOCKER_HOST", proxy.url)
        assert await started(spawner(prefix, overlay_enabled=False), client) == ("", "")


async def test_two_hubs_on_one_engine(client: Any, prefix: str) -> None:
    """Told apart by ``name_template``: neither gets nor deletes the other's homes."""
    production = spawner(prefix, name_template="{prefix}-production-{username}")
    other = spawner(prefix, name_template="{prefix}-other-{username}")
    volume = f"{prefix}-home-alice"
    assert (await started(production, client))[0] == volume
    home, spec = await started(other, client)
    assert home == ""
    assert "not-persistent" in spec and volume in spec
    for one in (production, other):
        client.remove_container(one.object_name, force=True)
    await other.delete_forever()
    assert volume in volumes(client, prefix)
    switched_off = spawner(prefix, name_template="{prefix}-other-{username}", overlay_enabled=False)
    assert await started(switched_off, client) == ("", "")
    await production.delete_forever()
    assert volume not in volumes(client, prefix)


@pytest.mark.parametrize(
    "template", ["", "{prefix}-{username}-{servername}", "{prefix}-{imagename}-{username}--{servername}"]
)
async def test_servers_of_one_user_share_a_home(client: Any, prefix: str, template: str) -> None:
    more = {"name_template": template} if template else {}
    volume = f"{prefix}-home-alice"
    assert (await started(spawner(prefix, name="first", **more), client))[0] == volume
    assert (await started(spawner(prefix, **more), client))[0] == volume
    other = spawner(prefix, name="second", **more)
    client.tag(image("stacks"), prefix)
    try:
        other.image = prefix
        assert (await started(other, client))[0] == volume
    finally:
        client.remove_container(other.object_name, force=True)
        client.remove_image(prefix)


async def test_volumes_without_the_newer_label(client: Any, prefix: str) -> None:
    """Made by an administrator: mounted, never deleted. Made by us before: mounted, deleted with the user."""
    volume = f"{prefix}-home-alice"
    for labels, remains in (({}, True), ({USER_LABEL: "alice"}, False)):
        client.create_volume(volume, labels=labels)
        one = spawner(prefix)
        assert (await started(one, client))[0] == volume
        client.remove_container(one.object_name, force=True)
        await one.delete_forever()
        assert (volume in volumes(client, prefix)) is remains
        if remains:
            client.remove_volume(volume)


async def test_a_stopped_server_does_not_keep_the_home_of_a_deleted_user(client: Any, prefix: str) -> None:
    """With ``remove = False`` a named server's container remains, and refers to the volume."""
    volume = f"{prefix}-home-alice"
    named = spawner(prefix, name="gpu", remove=False)
    assert (await started(named, client))[0] == volume
    default = spawner(prefix, remove=False)
    await default.delete_forever()
    assert volume in volumes(client, prefix)  # a running one is nobody's to remove
    client.stop(named.object_name, timeout=0)
    theirs = client.create_container(
        image("stacks"),
        command=["true"],
        name=f"{prefix}-theirs",
        host_config=client.create_host_config(binds={volume: {"bind": "/v", "mode": "rw"}}),
    )
    await default.delete_forever()
    assert volume in volumes(client, prefix)
    assert client.inspect_container(theirs["Id"])  # not made by us
    client.remove_container(theirs["Id"])
    await default.delete_forever()
    assert volume not in volumes(client, prefix)
