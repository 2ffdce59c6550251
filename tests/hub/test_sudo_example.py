"""examples/sudo: a hub without any rights of root, the real sudospawner and the real sudo."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.adapter import until
from tests.support.hub import ROOT, RunningHub, SpawnFailed
from tests.support.system_users import SystemUsers, processes_of, public_python

pytestmark = pytest.mark.slow

CONFIG = f"""
load_subconfig({str(ROOT / "examples" / "sudo" / "jupyterhub_config.py")!r})
c.SudoSpawner.sudospawner_path = %(programs)r + "/sudospawner"
"""


@pytest.fixture(scope="module")
def users() -> Iterator[SystemUsers]:
    with SystemUsers() as made:
        yield made


@pytest.fixture(scope="module")
def programs(users: SystemUsers) -> Path:
    """A Python for everybody, with what the how-to has root prepare."""
    if not shutil.which("sudo"):
        install = ["apt-get", "install", "-y", "--no-install-recommends", "sudo"]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        assert shutil.which("sudo"), f"sudo is needed, and can't be installed: {done.stderr[-500:]}"
    folder = public_python(users.directory)
    words = ["-m", "overlayspawner.hub.payload_dir", str(users.directory / "payload")]
    made = subprocess.run(
        [folder / "python", *words, folder / "jupyterhub-singleuser"],
        check=True,
        capture_output=True,
    )
    (folder / "sudospawner-singleuser").write_bytes(made.stdout)
    (folder / "sudospawner-singleuser").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def alice(users: SystemUsers) -> pwd.struct_passwd:
    return users.add()


@pytest.fixture(scope="module")
def hub(users: SystemUsers, programs: Path, alice: pwd.struct_passwd) -> Iterator[RunningHub]:
    owner = users.add()
    rule = Path("/etc/sudoers.d") / owner.pw_name
    rule.write_text(f"{owner.pw_name} ALL=({alice.pw_name}) NOPASSWD: {programs}/sudospawner\n")
    rule.chmod(0o440)
    running = RunningHub(CONFIG % {"programs": str(programs)}, spawner="simple", docker=False)
    ids = ["--reuid", str(owner.pw_uid), "--regid", str(owner.pw_gid), "--clear-groups"]
    running.python = ["setpriv", *ids, "env", f"HOME={owner.pw_dir}", str(programs / "python")]
    for path in [running.directory, *running.directory.rglob("*")]:
        os.chown(path, owner.pw_uid, owner.pw_gid)
    try:
        with running:
            yield running
    finally:
        rule.unlink()


def test_a_server_of_another_user_has_an_overlay(hub: RunningHub, alice: pwd.struct_passwd) -> None:
    server = hub.start_server(alice.pw_name)
    status = server.overlay("status")
    assert status["mode"] == "normal", status
    assert status["path"] == f"{alice.pw_dir}/.overlay/default"
    cell = server.run_cell("import os, sys; print(os.getuid(), sys.prefix)")
    assert cell.text == f"{alice.pw_uid} {status['env']}\n"
    hub.stop_server(alice.pw_name)
    # sudospawner's own mediator waits for the server, and ends a moment after it
    until(lambda: not processes_of(alice.pw_uid), "processes of the stopped server are left")


def test_what_sudo_refuses_is_said(hub: RunningHub, users: SystemUsers) -> None:
    stranger = users.add()
    with pytest.raises(SpawnFailed, match=f"sudo could not start a server for {stranger.pw_name}"):
        hub.start_server(stranger.pw_name)
    with pytest.raises(SpawnFailed, match="no user nobody-of-that-name on this machine"):
        hub.start_server("nobody-of-that-name")
    assert hub.running
