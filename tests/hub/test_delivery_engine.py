"""Delivery through volumes, on a real engine."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import docker
import pytest
from docker.errors import APIError

from overlayspawner.hub import bundles, delivery
from overlayspawner.hub.delivery import Bundle, Delivery, make_tar
from overlayspawner.hub.engine import Engine
from overlayspawner.hub.image_facts import helper_container, is_dir, read_facts, read_file, stat_path
from tests.support.images import image

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with docker.APIClient(version="auto") as made:
        yield made


@dataclass
class Made:
    """A bundle of a test, which counts how often its files were asked for."""

    name: str = field(default_factory=lambda: f"ovltest-{uuid.uuid4().hex[:8]}")
    asked: int = 0

    def bundle(self, version: str = "1") -> Bundle:
        return Bundle(f"{self.name}-{version}", self.name, version, "/opt/it", self._files, b"mark\n")

    def _files(self) -> dict[str, bytes]:
        self.asked += 1
        return {"a.txt": b"content of a", "b.txt": b""}


@pytest.fixture
def made(client: Any) -> Iterator[Made]:
    made = Made()
    yield made
    for container in client.containers(all=True, filters={"label": made.name}):
        client.remove_container(container["Id"], force=True)
    for volume in client.volumes(filters={"name": made.name})["Volumes"] or []:
        client.remove_volume(volume["Name"])


def content(client: Any, bundle: Bundle, *, volume: str = "") -> dict[str, bytes | None]:
    """Return what a container of a user would see."""
    binds = {volume or bundle.volume: {"bind": bundle.directory, "mode": "ro"}}
    with helper_container(client, image("nopython"), binds=binds) as container:
        return {
            n: read_file(client, container, f"{bundle.directory}/{n}") for n in ("a.txt", "b.txt", "COMPLETE")
        }


WHOLE = {"a.txt": b"content of a", "b.txt": b"", "COMPLETE": b"mark\n"}


def test_a_volume_is_filled_once(client: Any, made: Made) -> None:
    known, bundle = Delivery(), made.bundle()
    assert known.ensure(client, bundle, image("nopython")) is True
    assert content(client, bundle) == WHOLE
    asked = made.asked
    assert known.ensure(client, bundle, image("nopython")) is False
    assert made.asked == asked
    assert Delivery().ensure(client, bundle, image("nopython")) is False  # as after a hub's restart
    assert not client.containers(all=True, filters={"label": made.name})


def test_a_pruned_volume_is_made_again(client: Any, made: Made) -> None:
    known, bundle = Delivery(), made.bundle()
    known.ensure(client, bundle, image("nopython"))
    client.remove_volume(bundle.volume)
    assert known.ensure(client, bundle, image("nopython")) is True
    assert content(client, bundle) == WHOLE


def test_an_empty_volume_made_by_the_engine_is_filled(client: Any, made: Made) -> None:
    bundle = made.bundle()
    assert content(client, bundle)["COMPLETE"] is None  # mounting it made it
    assert Delivery().ensure(client, bundle, image("nopython")) is True
    assert content(client, bundle) == WHOLE


@pytest.mark.parametrize(
    "damage", [{"a.txt": b"content of b"}, {"a.txt": b""}, {"COMPLETE": b""}, {"b.txt": b"more"}]
)
def test_a_damaged_volume_is_mended_once_there_is_a_hint(
    client: Any, made: Made, damage: dict[str, bytes]
) -> None:
    known, bundle = Delivery(), made.bundle()
    known.ensure(client, bundle, image("nopython"))
    binds = {bundle.volume: {"bind": "/opt/it", "mode": "rw"}}
    with helper_container(client, image("nopython"), binds=binds) as container:
        client.put_archive(container, "/opt/it", make_tar(damage))
    known.forget(bundle)
    assert known.ensure(client, bundle, image("nopython")) is True
    assert content(client, bundle) == WHOLE


def test_two_hubs_fill_one_volume(made: Made) -> None:
    """Hubs are processes of their own: separate clients, nothing shared but the engine."""
    bundle = made.bundle()
    filled: list[bool] = []
    errors: list[BaseException] = []

    def one() -> None:
        try:
            with docker.APIClient(version="auto") as own:
                filled.append(Delivery().ensure(own, bundle, image("nopython")))
                assert content(own, bundle) == WHOLE
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(filled) == [False, False, False, True]


def test_what_a_killed_hub_left_behind_is_overcome(
    client: Any, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = made.bundle()
    client.create_volume(bundle.volume, labels={bundle.label: "1"})
    binds = {bundle.volume: {"bind": "/opt/it", "mode": "rw"}}
    name = f"{bundle.volume}-fill"
    left = helper_container(client, image("nopython"), binds=binds, name=name, labels={made.name: "1"})
    container = left.__enter__()
    client.put_archive(container, "/opt/it", make_tar({"a.txt": b"half"}))
    monkeypatch.setattr(delivery, "_STALE_AFTER", 0.5)
    assert Delivery().ensure(client, bundle, image("nopython")) is True
    assert content(client, bundle) == WHOLE


def test_old_versions_go_unless_they_are_used_or_being_filled(client: Any, made: Made) -> None:
    for version in ("used", "unused"):
        Delivery().ensure(client, made.bundle(version), image("nopython"))
    # "unused" was filled last and found "used" without a container: both filled anew, kept by a container
    Delivery().ensure(client, made.bundle("used"), image("nopython"))
    holder = client.create_container(
        image("nopython"),
        command=["true"],
        labels={made.name: "1"},
        host_config=client.create_host_config(binds={f"{made.name}-used": {"bind": "/opt/it", "mode": "ro"}}),
    )
    Delivery().ensure(client, made.bundle("unused"), image("nopython"))
    Delivery().ensure(client, made.bundle("new"), image("nopython"))
    names = {v["Name"] for v in client.volumes(filters={"label": made.name})["Volumes"]}
    assert names == {f"{made.name}-used", f"{made.name}-new"}
    assert content(client, made.bundle("used")) == WHOLE
    client.remove_container(holder["Id"])


def test_an_image_can_not_put_anything_into_our_volumes(client: Any, made: Made) -> None:
    """The engine fills an empty volume from the image that it is mounted over: not ours."""
    tag = f"ovltest-evil-{uuid.uuid4().hex[:8]}"
    files = {"opt/it/a.txt": b"evil", "opt/it/COMPLETE": b"mark\n", "opt/it/more": b"evil"}
    client.import_image_from_data(make_tar(files), repository=tag)
    bundle = made.bundle()
    try:
        assert Delivery().ensure(client, bundle, tag) is True
        assert content(client, bundle) == WHOLE
        binds = {bundle.volume: {"bind": bundle.directory, "mode": "ro"}}
        with helper_container(client, image("nopython"), binds=binds) as container:
            assert stat_path(client, container, "/opt/it/more") is None
    finally:
        client.remove_image(tag)


def test_an_unknown_image_is_an_error_not_a_hang(client: Any, made: Made) -> None:
    with pytest.raises(APIError):
        Delivery().ensure(client, made.bundle(), "sha256:" + "0" * 64)


def test_facts_of_real_images(client: Any) -> None:
    stacks = read_facts(client, client.inspect_image(image("stacks")), ("/etc", "/no/such/path"))
    assert stacks.home() == "/home/jovyan"
    assert stacks.paths["/home/jovyan"] is True and stacks.paths["/etc"] is True
    assert "/no/such/path" not in stacks.paths
    assert stacks.shell and not stacks.base_under("/home/jovyan")
    assert stacks.architecture == client.inspect_image(image("stacks"))["Architecture"]
    assert "root:" in stacks.passwd
    plain = read_facts(client, client.inspect_image(image("nopython")))
    assert plain.home({"HOME": "/elsewhere/"}) == "/elsewhere"


def test_an_image_with_nothing_in_it(client: Any) -> None:
    """Neither a shell, nor a user database, nor a home."""
    tag = f"ovltest-empty-{uuid.uuid4().hex[:8]}"
    made = client.import_image_from_data(make_tar({"program": b"x"}), repository=tag)
    assert "error" not in made
    try:
        facts = read_facts(client, client.inspect_image(tag))
        assert (facts.shell, facts.passwd, facts.home()) == (False, "", "")
    finally:
        client.remove_image(tag)


def test_paths_are_looked_at_without_being_read(client: Any) -> None:
    with helper_container(client, image("stacks")) as container:
        assert is_dir(stat_path(client, container, "/usr"))
        found = stat_path(client, container, "/etc/passwd")
        assert found is not None and not is_dir(found) and found["size"] > 0
        assert stat_path(client, container, "/nowhere") is None
        assert read_file(client, container, "/usr") is None
        assert read_file(client, container, "/etc/passwd", limit=-20000) is None


def test_uv_is_delivered_where_it_fits(client: Any) -> None:
    uv = bundles.find_uv()
    assert uv is not None, "the development environment has uv"
    facts = read_facts(client, client.inspect_image(image("stacks")), (uv.loader,))
    assert uv.fits(facts)
    assert not uv.fits(replace(facts, architecture="s390x"))
    if uv.loader:
        assert not uv.fits(replace(facts, paths={}))
    bundle = uv.bundle()
    Delivery().ensure(client, bundle, image("stacks"))
    command = client.create_container(
        image("stacks"),
        entrypoint=["/opt/overlayspawner-uv/uv"],
        command=["--version"],
        host_config=client.create_host_config(binds=[f"{bundle.volume}:{bundle.directory}:ro"]),
    )
    try:
        client.start(command["Id"])
        assert client.wait(command["Id"])["StatusCode"] == 0
        assert uv.version.encode() in client.logs(command["Id"])
    finally:
        client.remove_container(command["Id"], force=True)


async def test_deaths_and_output_of_a_real_container() -> None:
    from overlayspawner.hub.watch import StartWatch

    engine = Engine(lambda: docker.APIClient(version="auto"))
    hints: list[tuple[str, str]] = []
    script = "echo 'overlayspawner: [busy] A line of ours.' >&2; echo the end; exit 7"
    made = engine.client.create_container(
        image("nopython"),
        entrypoint=["sh", "-c", script],
        command=[],
        host_config=engine.client.create_host_config(auto_remove=True),
    )
    watch = StartWatch(engine, made["Id"], on_hint=lambda *hint: hints.append(hint))
    assert await watch.attach() == ""
    assert await watch.death_now() is None
    await engine.run(engine.client.start, made["Id"])
    death = await watch.next_death()
    assert (death.exit_code, death.out_of_memory) == (7, False)
    # Standard output and standard error are two streams: which comes first is not certain.
    words = (await watch.last_words()).splitlines()
    assert sorted(words) == ["overlayspawner: [busy] A line of ours.", "the end"]
    watch.close()
    assert hints == [("busy", "A line of ours.")]
