"""The checks: what every engine does. The first line of each is what the manual's matrix shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conformance.adapter import DIED, Adapter, SmallDisk, until
from tests.support.client import Server
from tests.support.hub import SpawnFailed

FILES = """
import hashlib, os, sys
found = []
for place, folders, names in os.walk(PLACE):
    folders[:] = sorted(f for f in folders if f != "__pycache__")
    for name in sorted(names):
        path = os.path.join(place, name)
        info = os.lstat(path)
        found.append((path, info.st_size, int(info.st_mtime), info.st_mode, info.st_uid))
print(len(found), hashlib.sha256(repr(found).encode()).hexdigest())
"""


def code(text: str, **values: str) -> str:
    for name, value in values.items():
        text = text.replace(name, repr(value))
    return text


@pytest.fixture(scope="module")
def user(engine: Adapter) -> str:
    """The user of most checks, whose server stays for the next one."""
    return engine.user("walker")


@pytest.fixture
def server(engine: Adapter, user: str) -> Server:
    """That user's server, which runs."""
    return engine.serve(user)


def test_spawn_on_an_unmodified_image(engine: Adapter, user: str, server: Server) -> None:
    """A spawn on an unmodified image or environment: it is the one named, and none of its files is changed"""
    base = engine.bases[0]
    status = server.overlay("status")
    assert status["mode"] == "normal", status
    assert engine.runs_on(user) == base.image
    assert server.get("lab").status_code == 200
    look = code(FILES, PLACE=base.files)
    seen = server.run_cell(look)
    assert not seen.error and seen.text == engine.untouched(base, look), seen
    assert int(seen.text.split()[0]) > 1_000


def test_overlay_kernel(engine: Adapter, server: Server) -> None:
    """The kernel runs in the overlay and sees the base's packages; the server runs in the base"""
    base = engine.bases[0]
    status = server.overlay("status")
    prefix, jupyterlab, parent = server.run_cell(
        "import sys, os, jupyterlab\n"
        "print(sys.prefix, jupyterlab.__file__, open(f'/proc/{os.getppid()}/cmdline').read().split('\\0')[0])"
    ).text.split()
    assert prefix == status["env"] and "/envs/" in prefix
    assert jupyterlab.startswith(f"{base.files}/")
    assert parent.startswith(f"{base.prefix}/bin/python"), "the server's interpreter is not the base's"
    assert server.run_cell("import sys; print(sys.prefix)", "python3-base").text.strip() == base.prefix


def test_install_over_rest(engine: Adapter, server: Server) -> None:
    """A package installed over REST is imported by a kernel that ran before, and by a new one"""
    with server.kernel() as kernel:
        assert "ModuleNotFoundError" in kernel.run("import tinytree").error
        server.install("tinytree")
        for cell in (
            kernel.run("import tinytree; print(tinytree.__file__)"),
            server.run_cell("import tinyleaf"),
        ):
            assert not cell.error, cell
    env = server.overlay("status")["env"]
    assert server.run_cell("import tinytree; print(tinytree.__file__)").text.startswith(f"{env}/")


def test_a_new_container(engine: Adapter, user: str, server: Server) -> None:
    """The package is there in a new container, pod or process"""
    if "tinytree" not in server.packages():
        server.install("tinytree")
    first = engine.instance(user)
    assert first
    engine.stop(user)
    engine.serve(user)
    assert engine.instance(user) not in ("", first)
    assert server.packages()["tinytree"]["requested"] is True
    assert not server.run_cell("import tinytree, tinyleaf").error


def test_another_image(engine: Adapter, user: str, server: Server) -> None:
    """Another image or environment: the packages are installed again for it, and the way back is instant"""
    first, second = engine.bases
    if "tinytree" not in server.packages():
        server.install("tinytree")
    before = server.overlay("status")
    try:
        engine.stop(user)
        engine.use_base(user, second)
        engine.serve(user)
        assert engine.runs_on(user) == second.image
        until(lambda: "tinytree" in server.packages(), "the packages were not restored")
        until(lambda: server.overlay("status")["job"] is None, "the restore does not end")
        after = server.overlay("status")
        assert after["path"] == before["path"] and after["base"]["key"] != before["base"]["key"]
        cell = server.run_cell("import tinytree, tinyleaf, sys; print(tinytree.__file__)")
        assert cell.text.startswith(f"{after['env']}/"), cell
    finally:
        engine.stop(user)
        engine.use_base(user, first)
    engine.serve(user)
    # at the first look: nothing was installed again
    assert not server.run_cell("import tinytree, tinyleaf").error
    status = server.overlay("status")
    assert status["env"] == before["env"] and "restoring" not in {n["code"] for n in status["notices"]}
    assert server.overlay("jobs")["jobs"] == []


@pytest.fixture(scope="module")
def owner(engine: Adapter) -> str:
    """The user whose home is a small file system."""
    return engine.user("owner")


@pytest.fixture(scope="module")
def disk(engine: Adapter, owner: str) -> Iterator[SmallDisk]:
    """That file system, with a file of the user's own and a package in it."""
    with SmallDisk(engine.use_home(owner), engine.owner(owner)) as made:
        server = engine.serve(owner)
        server.install("tinytree")
        assert server.put_text("mine.txt", "kept\n").status_code == 201
        engine.stop(owner)
        yield made
        engine.stop(owner)


@contextmanager
def served(engine: Adapter, user: str) -> Iterator[Server]:
    """Start a server, look at what works on every one, and stop it again."""
    try:
        server = engine.serve(user)
        assert server.get("lab").status_code == 200
        assert server.run_cell("6 * 7").result == "42"
        yield server
    finally:
        engine.stop(user)


def test_full_home(engine: Adapter, owner: str, disk: SmallDisk) -> None:
    """A full home: the server starts, a change says that there is no space, and nothing is lost"""
    before = disk.files()
    with disk.full(), served(engine, owner) as server:
        assert not server.run_cell("import tinytree").error
        job = server.job("install", install=["tinybig"])
        assert job["state"] == "failed" and job["error"]["code"] == "disk-full", job
        assert not server.run_cell("import tinytree").error
    assert disk.files() == before


def test_read_only_home(engine: Adapter, owner: str, disk: SmallDisk) -> None:
    """A home that nobody may write to: the server starts and says so, and the packages are there"""
    before = disk.files()
    with disk.read_only(), served(engine, owner) as server:
        assert "home-unwritable" in server.notices()
        assert not server.run_cell("import tinytree").error
    assert disk.files() == before


def test_damaged_overlay(engine: Adapter, owner: str, disk: SmallDisk) -> None:
    """An overlay with damaged files: the server starts, the list of packages survives, and it is mended"""
    before = disk.files()
    (env,) = disk.directory.glob(".overlay/default/envs/*")
    for path in (env / "pyvenv.cfg", disk.directory / ".overlay/default/overlay.json"):
        path.write_bytes(b"\0\xff{[")
    (env / "bin/python").unlink()
    (env / "bin/python").symlink_to("/nowhere/python")
    with served(engine, owner) as server:
        assert "home-unwritable" not in server.notices()
        until(lambda: not server.run_cell("import tinytree").error, "the overlay is not mended")
    assert disk.files() == before


def test_safe_mode(engine: Adapter, user: str, server: Server) -> None:
    """Safe mode by a link leaves the overlay out of one start, and of no other"""
    if "tinytree" not in server.packages():
        server.install("tinytree")
    engine.stop(user)
    browser = engine.hub.login(user)
    assert browser.get(f"{engine.hub.host}/hub/spawn/{user}?overlay=safe", timeout=60).ok
    events = engine.hub.wait_ready(user)
    assert any("Safe mode" in str(event.get("message")) for event in events), events
    status = server.overlay("status")
    assert status["mode"] == "safe" and "safe-mode" in {n["code"] for n in status["notices"]}
    assert "ModuleNotFoundError" in server.run_cell("import tinytree").error
    engine.stop(user)
    engine.serve(user)
    assert server.overlay("status")["mode"] == "normal"
    assert not server.run_cell("import tinytree").error


def test_failure_reason(engine: Adapter) -> None:
    """A command that dies: the spawn page tells its exit code and offers safe mode, and nothing stays"""
    user = engine.user("dying")
    engine.use_command(user, ["/bin/sh", "-c", f"exit {DIED}"])
    with pytest.raises(SpawnFailed) as failed:
        engine.hub.start_server(user)
    told = "\n".join(str(event.get("message")) for event in failed.value.events)
    assert re.search(rf"stopped while it started \(exit code {DIED}\)", told), told
    page = engine.hub.login(user).get(f"{engine.hub.host}/hub/spawn-pending/{user}", timeout=60)
    assert f"(exit code {DIED})" in page.text and f"/hub/spawn/{user}?overlay=safe" in page.text, page.text
    until(lambda: not engine.instance(user), "what died is still there")
    engine.use_command(user, None)
    assert engine.serve(user).overlay("status")["mode"] == "normal"
    engine.stop(user)


def test_stop(engine: Adapter, user: str, server: Server) -> None:
    """A server that is stopped is gone: hub and engine know nothing of it"""
    assert engine.instance(user)
    engine.hub.stop_server(user)
    assert not engine.hub.model(user)["servers"]
    until(lambda: not engine.instance(user), "the server is still there")


def test_nothing_left_over(engine: Adapter) -> None:
    """When all servers are stopped nothing is left over but the users' storage and the payload"""
    for model in engine.hub.call("GET", "users").json():
        if model.get("servers"):
            engine.stop(model["name"])
    until(lambda: not engine.left_over(), f"left over: {engine.left_over()}")
