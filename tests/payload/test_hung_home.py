"""A home on storage that never answers: a real file system whose daemon says nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from overlayspawner.payload.contract import Spec
from tests.support.envs import ROOT

# Mounts a FUSE file system in a mount namespace of its own and answers none of its requests.
HUNG = """
import ctypes, os, subprocess, sys

home, root = sys.argv[1:3]
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
private = 1 << 14 | 1 << 18
if (
    libc.unshare(0x20000)
    or libc.mount(None, b"/", None, private, None)
    or libc.mount(b"hung", home.encode(), b"fuse", 0, options)
):
    sys.exit(77)
code = '''
import os, sys
if sys.argv[1] != "root":
    os.geteuid = lambda: 1000
sys.path.insert(0, sys.argv[2])
from overlayspawner.payload.bootstrap import main
main([])
'''
try:
    sys.exit(subprocess.run([sys.executable, "-c", code, *sys.argv[3:4], root], timeout=60).returncode)
except subprocess.TimeoutExpired:
    sys.exit("it never ended")
"""


@pytest.mark.parametrize("who", ["user", "root"])
@pytest.mark.parametrize("variable", ["", "TMPDIR", "XDG_RUNTIME_DIR"])
def test_the_server_starts(tmp_path: Path, who: str, variable: str) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "OVERLAYSPAWNER_SPEC": Spec(deadline=0.5).to_json(),
        **({variable: str(other)} if variable else {}),
    }
    argv = [sys.executable, "-c", HUNG, str(home), str(ROOT), who]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("no file system can be mounted here")
    assert done.returncode == 0, done.stderr
    assert "export JUPYTER_CONFIG_PATH=" in done.stdout
    assert ("[deadline]" if who == "user" else "[root-start]") in done.stderr
    made = done.stdout.split("export JUPYTER_CONFIG_PATH='")[1].split("/config'")[0]
    subprocess.run(["rm", "-rf", made], check=True)
