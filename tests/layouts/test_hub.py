"""The same through a hub: a spawn on each layout, and the kinds and lifetimes as a user meets them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.layouts.conftest import LAYOUTS
from tests.support.client import Server
from tests.support.hub import RunningHub
from tests.support.images import image
from tests.support.index import LocalIndex

pytestmark = [pytest.mark.engine, pytest.mark.beside]

PREFIX = "import sys; print(sys.prefix)"


@pytest.fixture(scope="module")
def hub(kernel_index: LocalIndex) -> Iterator[RunningHub]:
    with RunningHub(image=image("conda"), index=kernel_index) as running:
        yield running


def until(server: Server, name: str) -> None:
    """Wait for a package that is being installed in the background."""
    end = time.monotonic() + 60
    while name not in server.packages("overlay"):
        assert time.monotonic() < end, server.overlay("status")
        time.sleep(0.3)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_spawn(hub: RunningHub, name: str) -> None:
    user = f"layout{name}"
    hub.configure(user, image=image(name))
    server = hub.start_server(user)
    server.install("tinyscript")
    cell = server.run_cell(
        "import tinyscript, from_pth, base_editable, base_develop, tinyleaf; print(tinyscript.__file__)"
    )
    assert "/.overlay/default/envs/" in cell.text, cell
    assert {"base-editable", "base-develop", "tinyleaf"} <= set(server.packages("base"))
    assert server.overlay("status")["mode"] == "normal"
    (path, version) = server.terminal("command -v pip", "python -c 'import from_pth, sys; print(sys.prefix)'")
    assert "overlayspawner-" in path
    assert "/.overlay/default/envs/" in version
    hub.stop_server(user)


def test_the_variables_of_conda(hub: RunningHub) -> None:
    hub.configure("activated", image=image("conda"))
    server = hub.start_server("activated")
    names = ("CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_SHLVL", "LAYOUT_ACTIVATED")
    code = f"import os; print([os.environ.get(n) for n in {names}])"
    assert server.run_cell(code).text.strip() == "['/opt/conda', 'base', '1', 'yes']"
    # the environment's name is not changed by what comes before it on the search path
    assert "/opt/conda/bin" in server.run_cell("import os; print(os.environ['PATH'].split(':'))").text
    hub.stop_server("activated")


@pytest.mark.parametrize("restore", ["background", "before-start"])
def test_ephemeral_overlay(hub: RunningHub, restore: str) -> None:
    user = f"ephemeral{restore[0]}"
    hub.configure(user, overlay_lifetime="ephemeral", overlay_restore=restore)
    server = hub.start_server(user)
    assert server.overlay("status")["lifetime"] == "ephemeral"
    server.install("tinytree")
    cell = server.run_cell("import tinytree, sys; print(tinytree.__file__, sys.prefix)")
    file, prefix = cell.text.split()
    assert file.startswith(prefix)
    assert not prefix.startswith("/home/")
    container = hub.engine.container(user)
    found = container.exec_run(["find", "/home/jovyan/.overlay", "-name", "tinytree*", "-o", "-name", "envs"])
    assert found.output == b""
    hub.stop_server(user)
    server = hub.start_server(user)
    if restore == "background":
        until(server, "tinytree")
    assert {"tinytree", "tinyleaf"} <= set(server.packages("overlay"))
    cell = server.run_cell("import tinytree, sys; print(tinytree.__file__.startswith(sys.prefix))")
    assert cell.text == "True\n", cell
    assert not {"restore-waiting", "restore-partial"} & server.notices()
    hub.stop_server(user)


def test_persistent_isolated(hub: RunningHub) -> None:
    user = "isolated"
    hub.configure(user, image=image("py313"), overlay_kind="isolated")
    server = hub.start_server(user)
    assert set(server.get("api/kernelspecs").json()["kernelspecs"]) == {"python3"}
    assert "no-kernel" in server.notices()
    assert server.run_cell(PREFIX).text.strip() == "/usr"
    server.install("tinyscript", "ipykernel")
    # no restart of the server
    specs = server.get("api/kernelspecs").json()
    assert {"python3", "python3-base"} <= set(specs["kernelspecs"])
    assert "no-kernel" not in server.notices()
    for _ in range(2):
        cell = server.run_cell("import tinyscript, ipykernel, sys; print(sys.prefix, ipykernel.__file__)")
        prefix, kernel = cell.text.split()
        assert prefix.startswith("/home/user/.overlay/default/envs/")
        assert kernel.startswith(prefix)
        assert "ModuleNotFoundError" in server.run_cell("import from_pth").error
        assert server.run_cell(PREFIX, "python3-base").text.strip() == "/usr"
        hub.stop_server(user)
        server = hub.start_server(user)
    hub.stop_server(user)


def test_isolated_pip_in_a_notebook(hub: RunningHub) -> None:
    user = "isolatedpip"
    hub.configure(user, image=image("py313"), overlay_kind="isolated")
    server = hub.start_server(user)
    # the kernel is still the image's; what is installed goes into the overlay, and brings a kernel with it
    cell = server.run_cell("%pip install ipykernel")
    assert not cell.error, cell
    until(server, "ipykernel")
    assert server.run_cell(PREFIX).text.strip().startswith("/home/user/.overlay/default/envs/")
    cell = server.run_cell("%pip install tinydata")
    assert not cell.error, cell
    assert not server.run_cell("import tinydata").error
    hub.stop_server(user)


def test_a_kept_container_gathers_nothing(hub: RunningHub) -> None:
    user = "kept"
    hub.configure(user, overlay_lifetime="ephemeral", remove=False)
    hub.start_server(user).install("tinyscript")
    first = hub.engine.container(user).id
    places = "ls -d /var/tmp/overlayspawner-env-* /tmp/overlayspawner-*"
    before = hub.engine.container(user).exec_run(["sh", "-c", places]).output.split()
    hub.stop_server(user)
    server = hub.start_server(user)
    container = hub.engine.container(user)
    assert container.id == first
    until(server, "tinyscript")
    now = container.exec_run(["sh", "-c", places]).output.split()
    assert len(now) == len(before) == 2
    assert not set(now) & set(before)
    hub.stop_server(user)
