"""What else an image has stays exactly as it was: other kernels, environments, applications behind a proxy.

The same user's server is started without us, and with us and packages in the overlay; all that a process of
the image can find out about itself is compared.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.support.client import Server
from tests.support.hub import RunningHub
from tests.support.images import image

pytestmark = [pytest.mark.engine, pytest.mark.beside]

PROBE = "/opt/conda/share/probe.py"
CELLS = {
    "bash": f"python3 {PROBE}",  # what a command of a cell finds
    "second": f"exec(open({PROBE!r}).read())",
    "script": f"exec(open({PROBE!r}).read())",
    "image": f"exec(open({PROBE!r}).read())",
}
"""Kernel → a cell in which the probe tells. ``image`` is the image's own Python kernel."""

PER_START = {
    # the hub makes new tokens and a new container for each start
    "JUPYTERHUB_API_TOKEN",
    "JPY_API_TOKEN",
    "HOSTNAME",
    # the server's process id
    "JPY_PARENT_PID",
    # the file that the kernel was started for: a random name, as this test asks for none
    "JPY_SESSION_NAME",
    # bash_kernel's prompt, by which it finds the end of an output
    "PS1",
}
"""Variables whose values differ from start to start, also of the same image without us."""


def tell(server: Server, kernel: str) -> dict[str, Any]:
    """Return what the probe finds in a kernel, without what differs from start to start."""
    name = kernel
    if kernel == "image":
        specs = server.get("api/kernelspecs").json()["kernelspecs"]
        name = "python3-base" if "python3-base" in specs else "python3"
    cell = server.run_cell(CELLS[kernel], name)
    assert not cell.error, cell
    return settled(json.loads(cell.text.split("PROBE")[1]))


def settled(found: dict[str, Any]) -> dict[str, Any]:
    """Take out what differs from start to start, and the one thing that differs with us; nothing else."""
    home = "/home/jovyan/.local/share/jupyter/runtime"
    place = found["environ"].get("JUPYTER_RUNTIME_DIR", home)
    assert place == home or re.fullmatch(r"/tmp/overlayspawner-[0-9a-f]{16}/jupyter", place)
    # With us, sockets and connection files are outside the home, which may be full. The variable stays for
    # what the server starts: `jupyter server list` and `jupyter console --existing` find them, as without us.
    text = json.dumps(found).replace(json.dumps(place)[1:-1], "RUNTIME")
    # the connection file of a kernel is named after its random id, the application's port is a free one
    text = re.sub(r"kernel-[0-9a-f-]{36}", "kernel-ID", text)
    text = re.sub(rf'("{PROBE}", )"\d+"', r'\1"PORT"', text)
    out: dict[str, Any] = json.loads(text)
    for key in ("environ", "begin"):
        assert {"PATH", "HOME", "JUPYTERHUB_USER"} <= set(out[key]), out[key]
        assert out[key].pop("JUPYTER_RUNTIME_DIR", "RUNTIME") == "RUNTIME"
        for name in PER_START & set(out[key]):
            out[key][name] = "differs"
    return out


def everything(server: Server) -> dict[str, Any]:
    """Return what each of them finds."""
    answer = server.get("probe/")
    assert answer.ok, answer.text
    specs = server.get("api/kernelspecs").json()["kernelspecs"]
    return {
        "proxied": settled(answer.json()),
        "specs": {name: specs[name] for name in ("bash", "second", "script")},
        **{kernel: tell(server, kernel) for kernel in CELLS},
    }


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Name what differs in two nested structures."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [d for key in keys for d in differences(one.get(key), other.get(key), f"{place}/{key}")]
    return [] if one == other else [f"{place}: {one!r} became {other!r}"]


def test_they_stay_as_they_were(hub: RunningHub) -> None:
    user = "guest"
    # the home is the same volume both times
    volume = {hub.engine.make_volume("home"): "/home/jovyan"}
    hub.configure(user, image=image("guests"), volumes=volume, overlay_enabled=False)
    server = hub.start_server(user)
    specs = server.get("api/kernelspecs").json()["kernelspecs"]
    assert "python3-base" not in specs and {"bash", "second", "script"} <= set(specs)
    before = everything(server)
    hub.stop_server(user)

    hub.configure(user, image=image("guests"), volumes=volume)
    server = hub.start_server(user)
    server.install("tinydata", "tinyscript")
    assert "OVERLAY" not in json.dumps(before)
    assert server.overlay("status")["mode"] == "normal"
    found = differences(before, everything(server))
    assert not found, "\n".join(found)
