"""An engine, a registry or a setting that lets a start fail: what the user is told, and what stays behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import jupyterhub
import pytest

from overlayspawner.hub import engine_reasons as reasons
from overlayspawner.hub.delivery import make_tar
from tests.support.front import EngineFront
from tests.support.hub import RunningHub, SpawnFailed, in_parallel
from tests.support.images import image
from tests.support.registry import SlowRegistry

pytestmark = [pytest.mark.engine, pytest.mark.beside, pytest.mark.timeout(150)]

CONFIG = """
c.DockerSpawner.client_kwargs = {"base_url": "FRONT"}
c.DockerSpawner.allowed_images = "*"
c.Spawner.poll_interval = 1
c.Spawner.start_timeout = 40
c.Spawner.environment = {**harness["environment"], "MY_TOKEN": "hunter2hunter2"}
"""


@pytest.fixture(scope="module")
def front() -> Iterator[EngineFront]:
    with EngineFront() as front:
        yield front


@pytest.fixture(scope="module")
def hub(front: EngineFront) -> Iterator[RunningHub]:
    """All of these tests share a hub: it has to bear all of this."""
    with RunningHub(CONFIG.replace("FRONT", front.url), image=image("nopython")) as running:
        yield running


def fails(hub: RunningHub, user: str, code: str, **options: Any) -> str:
    """Start a server that can't start; return what the user is told."""
    before = hub.log_file.stat().st_size
    hub.start_server(user, wait=False, **options)
    with pytest.raises(SpawnFailed) as failed:
        hub.wait_ready(user)
    told = str(failed.value)
    with hub.log_file.open("rb") as file:
        file.seek(before)
        log = file.read().decode()
    assert any(f"{user}: [{code}] " in line for line in log.splitlines()), (told, log)
    assert reasons.HINTS[code] in told, told
    assert "Traceback" not in told + log, log
    for event in failed.value.events:
        assert "hunter2" not in str(event)
    assert "hunter2" not in log
    if code not in reasons.LOST:
        assert hub.engine.containers(f"-{user}") == []
    assert hub.running
    return told


def taken_port() -> int:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    LISTENERS.append(listener)
    return int(listener.getsockname()[1])


LISTENERS: list[socket.socket] = []

SETTINGS: dict[str, tuple[str, Callable[[], dict[str, Any]], str]] = {
    "absent": (
        "image-absent",
        lambda: {"image": "nobody/has:this", "pull_policy": "never"},
        "nobody/has:this",
    ),
    "skipped": (
        "image-absent",
        lambda: {"image": "nobody/has:this", "pull_policy": "skip"},
        "nobody/has:this",
    ),
    "named": ("image-name", lambda: {"image": "Upper/Case:1"}, "Upper/Case:1"),
    "closed": ("registry", lambda: {"image": "127.0.0.1:9/no/registry:1"}, "127.0.0.1:9"),
    "network": ("network", lambda: {"network_name": "no-such-network"}, "no-such-network"),
    "port": ("port", lambda: {"extra_host_config": port_taken()}, "in use"),
    "mount": ("mount", lambda: {"mounts": [bind("/no/such/directory")]}, "/no/such/directory"),
    "bind": ("mount", lambda: {"volumes": {"/proc/no/such": "/data"}}, "/proc/no/such"),
    "large": ("too-large", lambda: {"environment": {"BIG": "x" * 140_000}}, "argument list too long"),
    "unknown": ("settings", lambda: {"extra_host_config": {"no_such_setting": 1}}, "no_such_setting"),
    "tiny": ("settings", lambda: {"mem_limit": "1M"}, "memory limit"),
    "runtime": ("settings", lambda: {"extra_host_config": {"runtime": "no-such-one"}}, "no-such-one"),
    "starved": ("out-of-memory", lambda: {"mem_limit": "8M", "cmd": EATER}, "out of memory"),
}
EATER = ["/bin/sh", "-c", "sleep 1; exec tail /dev/zero"]


def port_taken() -> dict[str, Any]:
    return {"port_bindings": {"8888/tcp": taken_port()}}


def bind(source: str) -> dict[str, Any]:
    return {"type": "bind", "source": source, "target": "/data"}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting(hub: RunningHub, name: str) -> None:
    code, traits, words = SETTINGS[name]
    hub.configure(name, **traits())
    assert words in fails(hub, name, code)


def test_the_cause_is_gone(hub: RunningHub) -> None:
    """A user's next start works, after a failure at each step."""
    hub.configure("mended", network_name="no-such-network")
    fails(hub, "mended", "network")
    hub.configure("mended", image="nobody/has:this", pull_policy="never")
    fails(hub, "mended", "image-absent")
    hub.configure("mended")
    hub.start_server("mended")
    hub.stop_server("mended")


# -- registries ---------------------------------------------------------------------------------------


def test_registries(hub: RunningHub) -> None:
    with SlowRegistry(size=10_000, login="someone:a-password") as registry:
        told = fails(hub, "login", "registry-login", options={"image": f"{registry.name}:latest"})
        assert "a-password" not in told
    with SlowRegistry(size=10_000) as registry:
        fails(hub, "typo", "image", options={"image": f"{registry.name}:typo"})
        layer = max(registry.blobs, key=lambda d: len(registry.blobs[d]))
        registry.blobs[layer] = registry.blobs[layer][:-100] + b"x" * 100
        fails(hub, "damaged", "image-damaged", options={"image": f"{registry.name}:latest"})
    # what no hub can help is none of its failures
    assert "reason=image-damaged" in hub.log() or jupyterhub.version_info < (6,)


def test_a_registry_that_hangs(hub: RunningHub) -> None:
    """The user is told before the hub gives up; others start meanwhile."""
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen(10)
    hub.configure("silent", start_timeout=5)
    name = f"127.0.0.1:{silent.getsockname()[1]}/no/answer:1"
    try:
        told, _ = in_parallel(
            lambda: fails(hub, "silent", "registry", options={"image": name}),
            lambda: hub.start_server("beside"),
        )
    finally:
        silent.close()
    assert name in told
    hub.stop_server("beside")


def test_another_processor_s_program(hub: RunningHub) -> None:
    """The image's program can't run here: an ELF file of a machine that this one is not."""
    client = docker.from_env()
    tag = f"{hub.engine.prefix}/alien:1"
    made = client.api.create_container(image("nopython"), user="0")
    try:
        elf = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x02\0\xf3\0" + b"\x01\0\0\0" + b"\0" * 40
        client.api.put_archive(made["Id"], "/usr/bin", make_tar({"alien": elf}, executable=True))
        client.api.commit(made["Id"], repository=tag.rpartition(":")[0], tag="1")
        hub.configure("alien", image=tag, extra_create_kwargs={"entrypoint": ["/usr/bin/alien"]})
        assert "exec format error" in fails(hub, "alien", "architecture")
    finally:
        client.api.remove_container(made["Id"], force=True, v=True)
        client.images.remove(tag, force=True)
        client.close()


# -- the engine ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["nowhere", "refusing", "encrypted", "unanswering"])
def test_no_engine(hub: RunningHub, front: EngineFront, how: str) -> None:
    code, url = "engine", f"unix://{front.path}.not"
    traits: dict[str, Any] = {}
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if how != "nowhere":
            url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        if how == "unanswering":
            listener.listen(5)
            code, traits = "engine-hangs", {"start_timeout": 4}
        if how == "encrypted":
            # the front speaks no TLS, whatever the engine does
            code, url = "engine-tls", f"tcp://{front.tcp()}"
            traits = {"tls_config": {"verify": False}}
        hub.configure(how, client_kwargs={"base_url": url}, **traits)
        fails(hub, how, code)
    hub.configure(how)
    hub.start_server(how)
    hub.stop_server(how)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody without rights")
def test_no_rights(front: EngineFront) -> None:
    front.path.parent.chmod(0o711)
    front.path.chmod(0o600)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            docker.APIClient(base_url=front.url, version="auto")
        except Exception as e:
            reason = reasons.of_error(e, "create")
            os.write(write, reason.code.encode() if reason else b"nothing")
        os._exit(0)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 100) == b"engine-access"


def test_a_request_that_hangs(hub: RunningHub, front: EngineFront) -> None:
    """One container that the engine can't make: its user is told in time, all others start."""
    hub.configure("hung", start_timeout=8)
    front.hangs_on = re.compile(rb"containers/create\?name=[^ ]*-hung\b")
    try:
        _told, first, second = in_parallel(
            lambda: fails(hub, "hung", "engine-hangs"),
            lambda: hub.start_server("free1"),
            lambda: hub.start_server("free2"),
        )
    finally:
        front.hangs_on = None
    assert first.get("api").ok and second.get("api").ok
    hub.start_server("hung")
    for user in ("hung", "free1", "free2"):
        hub.stop_server(user)


def test_an_engine_that_hangs(hub: RunningHub, front: EngineFront) -> None:
    hub.configure("stalled", start_timeout=6)
    front.mood = "hangs"
    try:
        fails(hub, "stalled", "engine-hangs")
    finally:
        front.mood = "well"
    hub.configure("stalled")
    hub.start_server("stalled")
    hub.stop_server("stalled")


def test_an_engine_that_ends_in_mid_start(hub: RunningHub, front: EngineFront) -> None:
    """What was started is removed when the engine is back, without anybody's starting it again."""
    hub.configure("midway", cmd=["/bin/sh", "-c", "sleep 600"], start_timeout=30, post_start_cmd="sleep 60")
    hub.start_server("midway", wait=False)
    wait_for(lambda: any(c.status == "running" for c in hub.engine.containers("-midway")))
    wait_for(lambda: any(b"/exec" in line for line in front.seen))
    front.go()
    try:
        with pytest.raises(SpawnFailed) as failed:
            hub.wait_ready("midway")
        assert reasons.CODES["engine"] in str(failed.value)
        assert hub.engine.containers("-midway")
    finally:
        front.come_back()
    wait_for(lambda: not hub.engine.containers("-midway"))


def test_an_engine_that_ends_while_a_server_runs(hub: RunningHub, front: EngineFront) -> None:
    """Neither the hub's polls nor a hub that is started meanwhile take the server for gone."""
    hub.configure("running")
    hub.start_server("running")
    first = hub.engine.container("running").id
    front.go()
    try:
        wait_for(lambda: "can't tell whether it runs" in hub.log())
        fails(hub, "unlucky", "engine")
        time.sleep(2)  # two more polls
        assert hub.model("running")["servers"][""]["ready"]
        hub.stop(signal.SIGKILL)
        hub.start()
        server = hub.wait_found("running")
        assert server.get("api").ok
        # stopped while there is no engine: the hub forgets it, we don't
        hub.call("DELETE", "users/running/server")
    finally:
        front.come_back()
    wait_for(lambda: not hub.engine.containers("-running"))
    hub.start_server("running")
    assert hub.engine.container("running").id != first


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)
