"""Damaged homes in real containers: server, page and kernel start, and a notice says what is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.docker.conftest import HOMES
from tests.support.client import Server
from tests.support.hub import RunningHub
from tests.support.images import image
from tests.support.index import LocalIndex

pytestmark = [pytest.mark.engine, pytest.mark.beside]

HOME = HOMES["stacks"]
SMALL = "*.* revisions/* envs/*/.overlay/*.json envs/*/pip.conf"
EXTENSION = "$E/share/jupyter/labextensions/bad"
CRASH = "import ctypes; ctypes.string_at(0)"

# name → what root does in the home ($E is the env, $S its site-packages), the code of the notice, and what is
# said besides; "" where nothing is wrong, "mended" where the server puts it right, "rebuilt"
# where it moves what it can't use aside and installs again
CASES = {
    "the overlay is root's": ("chown -R 0:0 .overlay; chmod 700 .overlay", "home-unwritable"),
    "the env is root's": ("chown -R 0:0 $E; chmod 700 $E", "rebuilt"),
    "our own state is root's": ("chown -R 0:0 $E/.overlay; chmod -R 600 $E/.overlay", ""),
    "envs is a file": ("rm -r .overlay/default/envs; echo x >.overlay/default/envs", "damaged-file"),
    "a loop of links": ("rm -r .overlay; ln -s .overlay .overlay", "damaged-file"),
    "a link to somebody else's": ("rm -r .overlay; ln -s /etc .overlay", "home-unwritable"),
    "pyvenv.cfg is gone": ("rm $E/pyvenv.cfg", "mended"),
    "the interpreter dangles": ("ln -sfn /nowhere/python $E/bin/python", "mended"),
    "all small files are garbage": (
        f'cd .overlay/default; for f in {SMALL}; do [ ! -f "$f" ] || head -c 300 /dev/urandom >"$f"; done',
        "",
    ),
    "a .pth exits": ("echo 'import os; os._exit(1)' >$S/bad.pth", "kernel-base"),
    "traitlets crashes": (f"echo '{CRASH}' >$S/traitlets.py", "kernel-rescued"),
    "a lab extension is cut off": (
        f"mkdir -p {EXTENSION}; echo '{{\"na' >{EXTENSION}/package.json",
        "",
    ),
    "everything is from the future": ("find . -exec touch -h -d 2099-01-01 {} +", ""),
}


@pytest.fixture(scope="module")
def used(index: LocalIndex) -> Iterator[tuple[RunningHub, str]]:
    """A hub, and a volume with the home of a user who installed something."""
    with RunningHub(image=image("stacks"), index=index) as hub:
        volume = hub.engine.make_volume("damage")
        hub.configure("seed", volumes={volume: HOME})
        hub.start_server("seed").install("tinyleaf")
        hub.stop_server("seed")
        hub.engine.run_in(volume, "/h", image("stacks"), "cp -a /h/.overlay /h/.seed")
        yield hub, volume


def check(server: Server) -> None:
    """Look at what works on every server."""
    assert server.get("lab").status_code == 200
    assert server.get("tree").status_code == 200
    assert server.get("overlay/v1/status").status_code == 200
    assert server.run_cell("6 * 7").result == "42"


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_home(used: tuple[RunningHub, str], case: str) -> None:
    hub, volume = used
    script, code = CASES[case]
    prepare = (
        "cd /h; rm -rf .overlay; cp -a .seed .overlay; E=$(echo .overlay/default/envs/*);"
        f" S=$(echo $E/lib/python3*/site-packages); {script}"
    )
    hub.engine.run_in(volume, "/h", image("stacks"), prepare)
    server = hub.start_server("seed")
    try:
        log = hub.engine.container("seed").logs().decode(errors="replace")
        assert "Traceback" not in log
        if code in ("mended", "rebuilt"):
            # one answer for both: it may be mended between two
            while (status := server.overlay("status"))["mode"] != "normal":
                assert "env-broken" in {notice["code"] for notice in status["notices"]}
                time.sleep(0.2)
            assert "env-broken" not in server.notices()
        while code == "rebuilt" and server.run_cell("import tinyleaf").error:
            time.sleep(0.5)
        check(server)
        notices = server.notices()
        if code in ("", "mended", "rebuilt"):
            assert not notices & {
                "env-broken",
                "damaged-file",
                "home-unwritable",
                "kernel-base",
                "kernel-rescued",
            }
            assert not server.run_cell("import tinyleaf").error
        else:
            assert code in notices
    finally:
        hub.stop_server("seed")


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ("size=64m,uid=1000,gid=100,noexec", "import tinyleaf"),
        ("size=64m,uid=1000,gid=100,nr_inodes=12", "6 * 7"),
    ],
)
def test_odd_file_systems(used: tuple[RunningHub, str], options: str, seen: str) -> None:
    """A home from which no program can be run, and one without free inodes."""
    hub, _ = used
    user = "noexec" if "noexec" in options else "inodes"
    hub.configure(user, home_volume="", extra_host_config={"tmpfs": {HOME: options}})
    server = hub.start_server(user)
    try:
        check(server)
        if user == "noexec":
            server.install("tinyleaf")
        assert not server.run_cell(seen).error
    finally:
        hub.stop_server(user)
