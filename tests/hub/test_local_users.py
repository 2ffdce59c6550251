"""OverlayLocalSpawner with several real users of this machine, on one hub that runs as root."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overlayspawner.hub import processes, runtime_dirs
from overlayspawner.payload.contract import RUNTIME_LOCK
from tests.support.hub import RunningHub, SpawnFailed, free_port, in_parallel
from tests.support.system_users import (
    SystemUsers,
    processes_of,
    public_python,
    runtime_dirs_of,
)

pytestmark = pytest.mark.slow

CONFIG = """
c.OverlayLocalSpawner.cmd = [{bin!r} + "/jupyterhub-singleuser"]
c.OverlayLocalSpawner.overlay_payload_dir = {payload!r}
c.OverlayLocalSpawner.http_timeout = 120
c.OverlayLocalSpawner.start_timeout = 120
c.OverlayLocalSpawner.default_url = "/lab/tree/{{username}}"
"""


@pytest.fixture(scope="module")
def users() -> Iterator[SystemUsers]:
    with SystemUsers() as made:
        yield made


@pytest.fixture(scope="module")
def programs(users: SystemUsers) -> Path:
    return public_python(users.directory)


@pytest.fixture(scope="module")
def hub(users: SystemUsers, programs: Path) -> Iterator[RunningHub]:
    config = CONFIG.format(bin=str(programs), payload=str(users.directory / "payload"))
    environment = {"PATH": f"{programs}:/usr/bin:/bin"}
    with RunningHub(config, spawner="overlay-local", docker=False, environment=environment) as running:
        yield running


@pytest.fixture(scope="module")
def alice(users: SystemUsers) -> pwd.struct_passwd:
    return users.add()


@pytest.fixture(scope="module")
def bob(users: SystemUsers) -> pwd.struct_passwd:
    return users.add()


def run_as(user: pwd.struct_passwd, *command: str, **options: object) -> subprocess.Popen[str]:
    """Start a program as a user."""
    words = ["setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups", *command]
    return subprocess.Popen(
        words, cwd="/", text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **options
    )  # type: ignore[call-overload, no-any-return]


def until(check: Callable[[], object]) -> object:
    """Wait until something is so, 20 s at most; return what it last was."""
    end = time.monotonic() + 20
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def test_all_start_at_once_each_in_an_own_home(
    hub: RunningHub, users: SystemUsers, alice: pwd.struct_passwd, bob: pwd.struct_passwd
) -> None:
    # what others may try beforehand: the places where runtime dirs are made are everybody's
    squat = run_as(
        bob,
        "/bin/sh",
        "-c",
        "for n in 0 1 2; do mkdir -m 777 /tmp/overlayspawner-squat$n-$1; done;"
        "mkfifo /tmp/overlayspawner-squat0-$1/in-use;"
        "ln -s $2 /tmp/overlayspawner-squat1-$1/in-use;"
        "ln -s $2 /tmp/overlayspawner-link-$1",
        "sh",
        alice.pw_name,
        alice.pw_dir,
    )
    assert squat.wait() == 0
    nologin = users.add(shell="/usr/sbin/nologin")
    homeless = users.add(home="/nonexistent")
    locked = users.add()  # full disks are in tests/conformance
    os.chmod(locked.pw_dir, 0o555)
    everybody = [alice, bob, nologin, homeless, locked]
    servers = in_parallel(*(lambda name=u.pw_name: hub.start_server(name) for u in everybody))
    for user, server in zip(everybody[:3], servers):
        status = server.overlay("status")
        assert status["mode"] == "normal", status
        assert status["path"] == f"{user.pw_dir}/.overlay/default"
        cell = server.run_cell("import os, sys; print(os.getuid(), os.getgid(), sys.prefix)")
        assert cell.text == f"{user.pw_uid} {user.pw_gid} {status['env']}\n"
        found = [Path(user.pw_dir) / ".overlay", *(Path(user.pw_dir) / ".overlay").rglob("*")]
        assert len(found) > 5
        for path in found:
            info = path.lstat()
            assert (info.st_uid, info.st_gid) == (user.pw_uid, user.pw_gid), path
            assert stat.S_ISLNK(info.st_mode) or not info.st_mode & 0o022, path
        made = [p for p in runtime_dirs_of(user.pw_uid) if not p.name.endswith(alice.pw_name)]
        assert [stat.S_IMODE(p.stat().st_mode) for p in made] == [0o700], (made, user)
        # the payload stays for as long as one of them runs
        (pid,) = [p.pid for p in processes_of(user.pw_uid) if b"singleuser" in cmdline(p.pid)]
        held = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        assert sum(path.startswith(f"{users.directory}/payload/.in-use/") for path in held) == 1
    for server in servers[3:]:
        assert server.overlay("status")["mode"] == "degraded"
        assert "home-unwritable" in server.notices()
        assert server.run_cell("print(6 * 7)").text == "42\n"
    # what another user may write to is not where programs and settings come from
    cell = servers[0].run_cell(
        "import json, os, sys; print(json.dumps([*sys.path, *os.environ['PATH'].split(':'),"
        "*os.environ.get('JUPYTER_PATH', '').split(':')]))"
    )
    places = [p for p in json.loads(cell.text) if os.path.exists(p)]
    assert len(places) > 5
    for place in places:
        info = os.stat(place)
        assert info.st_uid in (0, alice.pw_uid) and not info.st_mode & 0o022, place
    for path in [users.directory / "payload", *(users.directory / "payload").glob("[0-9a-f]*/*")]:
        assert path.stat().st_uid == 0 and not path.stat().st_mode & 0o022, path
    in_parallel(*(lambda name=u.pw_name: hub.stop_server(name) for u in everybody[2:]))
    for user in everybody[2:]:
        assert processes_of(user.pw_uid) == [] and runtime_dirs_of(user.pw_uid) == []
    # a fifo and links in the places of locks have neither hung the hub nor led it anywhere
    hub.stop_server(bob.pw_name)
    assert os.path.isdir(alice.pw_dir) and hub.running


def test_a_hub_that_is_started_again_finds_and_stops_them(
    hub: RunningHub, alice: pwd.struct_passwd, programs: Path, users: SystemUsers
) -> None:
    late = users.add()
    singleuser = programs / "jupyterhub-singleuser"
    hub.configure(
        late.pw_name,
        cmd=["/bin/sh", "-c", f'while [ ! -e ~/go ]; do sleep 0.1; done; exec {singleuser} "$@"', "sh"],
    )
    server = hub.server(alice.pw_name)
    if not hub.model(alice.pw_name)["servers"]:
        hub.start_server(alice.pw_name)
    with server.kernel() as kernel:
        kernel.run("import subprocess; subprocess.Popen(['sleep', '1001'], start_new_session=True)")
        hub.start_server(late.pw_name, wait=False)
        assert until(lambda: any(b"~/go" in cmdline(p.pid) for p in processes_of(late.pw_uid)))
        time.sleep(0.5)
        hub.stop(signal.SIGKILL)
        (Path(late.pw_dir) / "go").touch()
        hub.start()
        assert hub.model(alice.pw_name)["servers"][""]["ready"]
        found = hub.wait_found(late.pw_name)
        assert found.overlay("status")["mode"] == "normal"
        assert server.get("api/kernels").json()[0]["id"] == kernel.id
        # what a user leaves running at the end of a session is left alone; kernels and what they run is not
        hub.stop_server(alice.pw_name)
    hub.stop_server(late.pw_name)
    for user in (alice, late):
        assert [cmdline(p.pid) for p in processes_of(user.pw_uid)] == []
        assert runtime_dirs_of(user.pw_uid) == []


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_why_it_does_not_start_is_said(hub: RunningHub, users: SystemUsers, alice: pwd.struct_passwd) -> None:
    def failure(user: str, **traits: object) -> str:
        hub.configure(user, **traits)
        with pytest.raises(SpawnFailed) as caught:
            hub.start_server(user)
        hub.configure(user)
        return str(caught.value)

    name = alice.pw_name
    assert "no user nobody-of-that-name on this machine" in failure("nobody-of-that-name")
    # JupyterHub's own spawner would look for a directory to start in for ever, and hang
    rootless = users.add(home="/")
    assert f"user {rootless.pw_name} has no home directory" in failure(rootless.pw_name)
    assert "not found (exit code 127)" in failure(name, cmd=["no-such-command"])
    assert "could not be executed (exit code 126)" in failure(name, cmd=["/etc/passwd"])
    assert "stopped while it started (exit code 3)" in failure(name, cmd=["/bin/sh", "-c", "exit 3"])
    assert "larger than this system allows" in failure(name, environment={"LONG": "x" * 200_000})
    assert "settings take" in failure(name, overlay_constraints=[f"a{n}==1" for n in range(20_000)])
    assert runtime_dirs_of(alice.pw_uid) == []
    assert hub.running


def test_a_port_that_another_user_has_taken_is_not_taken_for_the_server(
    hub: RunningHub, alice: pwd.struct_passwd, bob: pwd.struct_passwd
) -> None:
    port = free_port()
    hub.configure(alice.pw_name, port=port)
    code = f"""
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"stolen")
print("up", flush=True)
http.server.HTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""
    thief = run_as(bob, "/usr/bin/env", "python3", "-c", code)
    try:
        assert until(lambda: processes.listeners(port) == {bob.pw_uid})
        with pytest.raises(SpawnFailed, match=f"Port {port}.*is taken by another program"):
            hub.start_server(alice.pw_name)
    finally:
        thief.kill()
        thief.wait()
        hub.configure(alice.pw_name)
    assert until(lambda: processes_of(alice.pw_uid) == [] and runtime_dirs_of(alice.pw_uid) == [])


def test_a_hub_that_is_not_root_is_for_its_own_user_only(
    programs: Path, alice: pwd.struct_passwd, bob: pwd.struct_passwd
) -> None:
    code = f"""
import logging
from types import SimpleNamespace
from overlayspawner.hub import local
from overlayspawner.hub.config import Settings
spawner = local.OverlayLocalSpawner(log=logging.getLogger())
spawner.orm_spawner = SimpleNamespace(name="", server=None, user=None)
spawner._overlay_settings = Settings()
for name in ({alice.pw_name!r}, {bob.pw_name!r}):
    spawner.user = SimpleNamespace(name=name, settings={{}}, url="/user/x/", escaped_name=name)
    try:
        print(callable(spawner.make_preexec_fn(name)))
    except Exception as e:
        print(e.jupyterhub_message)
print(spawner.overlay_payload_dir)
"""
    environment = {"HOME": alice.pw_dir, "PATH": "/usr/bin:/bin"}
    done = run_as(alice, str(programs / "python"), "-c", code, env=environment, stderr=subprocess.PIPE)
    out, err = done.communicate(timeout=60)
    expected = f"The hub runs as {alice.pw_name}, and only root may start servers for other users."
    place = f"{alice.pw_dir}/.local/share/overlayspawner/payload"
    assert out.splitlines() == ["True", expected, place], err


def test_runtime_dirs_of_the_dead_are_told_from_those_of_the_living(users: SystemUsers) -> None:
    import fcntl

    user, parent = users.add(), users.directory / "runtime"

    def make(name: str, *, lock: bool = True) -> Path:
        path = parent / f"overlayspawner-{name}"
        path.mkdir(mode=0o700, parents=True)
        if lock:
            (path / RUNTIME_LOCK).touch()
        os.chown(path, user.pw_uid, user.pw_gid)
        return path

    dead, living = make("dead"), make("living")
    lost, named = make("lost", lock=False), make("named", lock=False)
    os.chown(parent, user.pw_uid, user.pw_gid)
    (parent / "overlayspawner-link").symlink_to(user.pw_dir)
    os.lchown(parent / "overlayspawner-link", user.pw_uid, user.pw_gid)
    fd = os.open(living / RUNTIME_LOCK, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)

    def found(**environment: str) -> set[str]:
        child = run_as(user, "/bin/sleep", "100", env={"PATH": "/usr/bin:/bin", **environment})
        try:
            assert until(lambda: cmdline(child.pid).startswith(b"/bin/sleep"))
            return set(runtime_dirs.dead(user.pw_uid, [str(parent)]))
        finally:
            child.kill()
            child.wait()

    try:
        config = f"{named}/config"
        assert found(JUPYTER_CONFIG_PATH=config) == {str(dead), str(lost)}
        # somebody is starting: what has no lock yet may be theirs
        assert found(OVERLAYSPAWNER_SPEC="{}") == {str(dead)}
        assert runtime_dirs.dead(user.pw_uid + 1, [str(parent)]) == []
        # with the user's rights: what root has put there stays
        (lost / "of-root").mkdir()
        (lost / "of-root" / "file").touch()
        removed = runtime_dirs.remove_dead(user.pw_uid, [user.pw_gid], [str(parent)])
        assert set(asyncio.run(removed)) == {str(dead), str(lost), str(named)}
        assert sorted(p.name for p in parent.glob("*")) == [
            f"overlayspawner-{n}" for n in ("link", "living", "lost")
        ]
        assert os.path.isdir(user.pw_dir)
    finally:
        os.close(fd)


def test_programs_of_terminals_are_not_among_what_ends_with_a_server() -> None:
    code = (
        "import os, pty, subprocess, sys\n"
        "a = subprocess.Popen(['sleep', '100'], start_new_session=True)\n"
        "b = subprocess.Popen(['sh', '-c', 'sleep 100; true'])\n"
        "pid, fd = pty.fork()\n"
        "if pid == 0: os.execvp('sleep', ['sleep', '100'])\n"
        "print(a.pid, b.pid, pid, flush=True)\n"
        "input()\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    kernel, job, terminal = map(int, server.stdout.readline().split())
    try:
        assert until(lambda: len(processes.family(server.pid)) == 3)
        family = {p.pid: p for p in processes.family(server.pid)}
        assert {kernel, job} < set(family) and terminal not in family
        server.kill()
        server.wait()
        for process in family.values():
            assert processes.alive(process)
            processes.send(process, signal.SIGKILL, os.geteuid() + 1)  # another user's: not touched
        time.sleep(0.1)
        assert all(map(processes.alive, family.values()))
        for process in family.values():
            processes.send(process, signal.SIGKILL, os.geteuid())
        assert until(lambda: not any(map(processes.alive, family.values())))
    finally:
        for pid in (kernel, job, terminal):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def test_whose_program_listens_is_known() -> None:
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        port = here.getsockname()[1]
        assert processes.listeners(port) == set()
        here.listen()
        assert processes.listeners(port) == {os.geteuid()}
