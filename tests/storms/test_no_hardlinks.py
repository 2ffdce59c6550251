"""Homes whose file system knows no hard links: everything works, by copies and symbolic links."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest

from overlayspawner.hub import boot
from tests.storms.test_writers import assert_unbroken, assert_whole
from tests.support.boxes import PYTHON, Box, Boxes
from tests.support.index import LocalIndex

pytestmark = pytest.mark.engine

NO_LINKS = "seccomp=" + json.dumps(
    {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["link", "linkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}],
    }
)
"""A storage without hard links, as a container sees it."""

CELL = """
import json, sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")
said = []
def hook(message):
    if message["msg_type"] == "stream":
        said.append(message["content"]["text"])
try:
    reply = client.execute_interactive(sys.argv[1], output_hook=hook, timeout=120)
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
print(json.dumps({"said": "".join(said), "status": reply["content"]["status"]}))
"""


def execute(box: Box, *command: str, **environment: str) -> str:
    """Run a command in a container as its server would; return its standard output."""
    done = box.container.exec_run(boot.wrap(list(command)), demux=True, environment=environment)
    out, errors = ((part or b"").decode(errors="replace") for part in done.output)
    assert done.exit_code == 0, out + errors
    return out


def cell(box: Box, code: str, **environment: str) -> str:
    """Run code in a notebook's kernel; return what it prints."""
    data: dict[str, str] = json.loads(execute(box, PYTHON, "-c", CELL, code, **environment).splitlines()[-1])
    assert data["status"] == "ok", data
    return data["said"]


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_home_without_hard_links(boxes: Boxes, storm_index: LocalIndex, installer: str) -> None:
    home = boxes.home(f"nolinks-{installer}")
    environment = {
        "PIP_INDEX_URL": storm_index.container_url,
        "PIP_TRUSTED_HOST": storm_index.container_host,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    rest: dict[str, Any] = {
        "security_opt": [NO_LINKS],
        "spec": {"installer": installer},
        "environment": environment,
    }
    modules = ("pkg0", "pkg1", "pkg2", "shared0", "leaf")

    def look() -> dict[str, Any]:
        seen = boxes.look(home, *modules, **rest)
        assert_whole(seen)
        return seen

    box = boxes.start(home, "start", **rest)
    try:
        box.until("up")
        refused = f"import os\ntry: os.link({PYTHON!r}, '/tmp/x')\nexcept PermissionError: print('refused')"
        assert execute(box, PYTHON, "-c", refused).strip() == "refused"
        done = boxes.session(
            box,
            ["overlay install pkg0 shared0==1.0", "overlay install pkg1 shared0==2.0", "overlay undo"],
        )
        assert [answer["rc"] for answer in done] == [0, 0, 0], done
        seen = look()
        assert seen["packages"] == {"pkg0": "1.0", "shared0": "1.0", "leaf": "1.0"}
        # a cache from which uv has to copy would be all of it twice: none in the user's storage
        assert int(execute(box, "sh", "-c", "ls -d ~/.overlay/.cache/uv/archive-* | wc -l")) == 0
        assert_unbroken(seen)

        # through the notebook, which records what was asked for
        cell(box, "%pip install pkg1")
        seen = look()
        assert "pkg1" in seen["packages"]
        assert "pkg1" in seen["requirements"]
        assert cell(box, "import pkg1; print(pkg1.__version__)").strip() == "1.0"
        assert_unbroken(seen)

        # and behind our back: the next change finds it
        cell(box, "import sys, subprocess; subprocess.run([sys.executable, '-m', 'pip', 'install', 'pkg2'])")
        (done1,) = boxes.session(box, ["overlay uninstall pkg0"])
        assert done1["rc"] == 0, done1
        seen = look()
        assert set(seen["packages"]) == {"pkg1", "pkg2", "shared0", "leaf"}
        assert "pkg2" in seen["requirements"]
        assert_unbroken(seen)
    finally:
        box.remove()


def test_one_copy_on_a_volume(boxes: Boxes, storm_index: LocalIndex) -> None:
    """What an env holds and what uv's cache holds are the same files."""
    home = boxes.home("links")
    environment = {
        "PIP_INDEX_URL": storm_index.container_url,
        "PIP_TRUSTED_HOST": storm_index.container_host,
    }
    box = boxes.start(home, "start", spec={"installer": "uv"}, environment=environment)
    try:
        box.until("up")
        (done,) = boxes.session(box, ["overlay install pkg0"])
        assert done["rc"] == 0, done
        code = "import os, pkg0; print(os.stat(pkg0.__file__).st_nlink)"
        assert cell(box, code).strip() == "2"
    finally:
        box.remove()
