"""What kernels and terminals see: overlay first, then image, and the user's other things as before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docker.conftest import HOMES, PREFIXES
from tests.support.client import Server
from tests.support.hub import RunningHub
from tests.support.images import image

pytestmark = [pytest.mark.engine, pytest.mark.beside]


class Case:
    """A running server on one of the images."""

    def __init__(self, hub: RunningHub, server: Server, kind: str, user: str) -> None:
        self.hub = hub
        self.server = server
        self.user = user
        self.home = HOMES[kind]
        self.base = PREFIXES[kind]
        self.env = f"{self.home}/.overlay/default/envs/"


@pytest.fixture(scope="module", params=["stacks", "venv"])
def case(request: pytest.FixtureRequest, hub: RunningHub) -> Iterator[Case]:
    kind = str(request.param)
    user = f"kernel{kind}"
    hub.configure(user, image=image(kind))
    yield Case(hub, hub.start_server(user), kind, user)
    hub.stop_server(user)


def test_prefix_is_the_env(case: Case) -> None:
    cell = case.server.run_cell("import sys; print(sys.prefix); print(sys.executable)")
    prefix, executable = cell.text.split()
    assert prefix.startswith(case.env)
    assert executable == f"{prefix}/bin/python"


def test_base_packages_import(case: Case) -> None:
    cell = case.server.run_cell(
        "import ipykernel, jupyter_client, pytest, jupyterlab\n"
        "import importlib.metadata as m; print(jupyterlab.__file__, m.version('jupyterlab') > '4')"
    )
    assert not cell.error, cell
    assert cell.text.startswith(case.base)
    assert cell.text.endswith("True\n")


def test_the_images_own_kernel_is_there(case: Case) -> None:
    specs = case.server.get("api/kernelspecs").json()
    assert {"python3", "python3-base"} <= set(specs["kernelspecs"])
    assert specs["default"] == "python3"
    cell = case.server.run_cell("import sys; print(sys.prefix)", "python3-base")
    assert cell.text.strip() == case.base


def test_percent_pip(case: Case) -> None:
    with case.server.kernel() as kernel:
        cell = kernel.run("%pip install tinydata")
        assert not cell.error, cell
        cell = kernel.run(
            "import sys, tinydata, pathlib; print(tinydata.__file__);"
            "print(pathlib.Path(sys.prefix, 'share/tinydata/data.txt').read_text())"
        )
        assert cell.text.startswith(case.env), cell
        assert "data" in cell.text.splitlines()
        cell = kernel.run("%pip uninstall -y tinydata")
        assert not cell.error, cell
    assert "ModuleNotFoundError" in case.server.run_cell("import tinydata").error


def test_shell_pip(case: Case) -> None:
    with case.server.kernel() as kernel:
        cell = kernel.run("!pip install tinyextra[leaf]")
        assert "Successfully installed" in cell.text, cell
        cell = kernel.run("import tinyextra, tinyleaf; print(tinyextra.__file__)")
        assert cell.text.startswith(case.env), cell


def test_pip_does_not_install_what_the_base_has(case: Case) -> None:
    with case.server.kernel() as kernel:
        cell = kernel.run("!pip install pytest")
        assert "already satisfied" in cell.text, cell
        cell = kernel.run("import pytest; print(pytest.__file__)")
    assert cell.text.startswith(case.base)


def test_terminal_pip(case: Case) -> None:
    where, installed, imported, script = case.server.terminal(
        "command -v pip; pip --version",
        "pip install tinyscript 2>&1",
        "python -c 'import tinyscript; print(tinyscript.__file__)'",
        "tinyscript-hello",
    )
    assert "overlay" in where.split()[0], where
    assert "Successfully installed" in installed, installed
    assert imported.strip().startswith(case.env), imported
    assert script.strip().startswith(f"hello from {case.env}"), script


def test_terminal_overlay_command(case: Case) -> None:
    installed, listed, gone = case.server.terminal(
        "overlay install tinyns-one; echo code=$?",
        "overlay list",
        "overlay uninstall tinyns-one; echo code=$?",
    )
    assert "code=0" in installed, installed
    assert "tinyns-one" in listed, listed
    assert "code=0" in gone, gone


def test_the_users_shell_settings_still_count(case: Case) -> None:
    assert case.server.put_text("profile.txt", "").status_code == 201
    container = case.hub.engine.container(case.user)
    done = container.exec_run(["/bin/sh", "-c", f"echo 'export FROM_BASHRC=yes' >> {case.home}/.bashrc"])
    assert done.exit_code == 0
    printed, path = case.server.terminal("echo value=$FROM_BASHRC", "command -v pip")
    assert "value=yes" in printed
    assert "overlay" in path


@pytest.mark.parametrize("tool", ["ipython", "pytest"])
def test_the_images_own_commands_see_the_overlay(case: Case, tool: str) -> None:
    case.server.install("tinyleaf")
    commands = {
        "ipython": "ipython --no-banner -c 'import tinyleaf; print(\"version\", tinyleaf.__version__)'",
        "pytest": "pytest -q /tmp/test_tiny.py",
    }
    expected = {"ipython": "version 2.0", "pytest": "1 passed"}
    script = "printf 'def test_it():\\n    import tinyleaf\\n' > /tmp/test_tiny.py"
    case.hub.engine.container(case.user).exec_run(["/bin/sh", "-c", script])
    (printed,) = case.server.terminal(commands[tool])
    assert expected[tool] in printed, printed
    cell = case.server.run_cell(f"!{commands[tool]}")
    assert expected[tool] in cell.text, cell


def test_rest_install_is_seen_by_a_running_kernel(case: Case) -> None:
    with case.server.kernel() as kernel:
        assert "ModuleNotFoundError" in kernel.run("import tinymany").error
        case.server.install("tinymany")
        assert not kernel.run("import tinymany.part9.m499 as m; print(m.N)").error


def test_other_venvs_of_the_user(case: Case) -> None:
    base = f"{case.base}/bin/python"
    with case.server.kernel() as kernel:
        cell = kernel.run(f"!{base} -m venv --without-pip ~/other && echo made")
        assert "made" in cell.text, cell
        cell = kernel.run(f"!{base} -m pip --python ~/other/bin/python install tinypre 2>&1")
        assert "Successfully installed" in cell.text, cell
        cell = kernel.run("!~/other/bin/python -c 'import sys, tinypre; print(sys.prefix, tinypre.__file__)'")
        assert cell.text.split()[0] == f"{case.home}/other", cell
        assert cell.text.split()[1].startswith(f"{case.home}/other/"), cell
        cell = kernel.run("!~/other/bin/python -c 'import tinymany'")
        assert "ModuleNotFoundError" in cell.text
    # the same from a terminal, activated as users do it
    activated, prefix = case.server.terminal(
        ". ~/other/bin/activate; echo done", "python -c 'import sys; print(sys.prefix)'"
    )
    assert "done" in activated
    assert prefix.strip() == f"{case.home}/other"


@pytest.mark.parametrize("how", ["variable", "file"])
def test_pip_user_settings(hub: RunningHub, how: str) -> None:
    user = f"pipuser{how}"
    home = HOMES["stacks"]
    if how == "variable":
        hub.configure(user, environment={"PIP_USER": "1"})
    else:
        volume = hub.engine.make_volume("pip-user")
        hub.engine.put(volume, image("stacks"), home, {".config/pip/pip.conf": "[global]\nuser = true\n"})
        hub.configure(user, volumes={volume: home})
    server = hub.start_server(user)
    with server.kernel() as kernel:
        for line, module in (("%pip install tinydata", "tinydata"), ("!pip install tinyleaf", "tinyleaf")):
            cell = kernel.run(line)
            assert "Successfully installed" in cell.text, cell
            cell = kernel.run(f"import {module}; print({module}.__file__)")
            assert cell.text.startswith(f"{home}/.overlay/"), cell
    printed, where = server.terminal(
        "pip install tinypre 2>&1", "python -c 'import tinypre; print(tinypre.__file__)'"
    )
    assert "Successfully installed" in printed, printed
    assert where.strip().startswith(f"{home}/.overlay/"), where
    server.install("tinymany")
    assert "tinymany" in server.packages("overlay")


def test_user_site_is_seen_by_kernels(hub: RunningHub) -> None:
    home = HOMES["stacks"]
    volume = hub.engine.make_volume("user-site")
    site = ".local/lib/python3.11/site-packages"
    hub.engine.put(volume, image("stacks"), home, {f"{site}/mine.py": "WHERE = 'user site'\n"})
    hub.configure("usersite", volumes={volume: home})
    server = hub.start_server("usersite")
    assert server.run_cell("import mine; print(mine.WHERE)").text == "user site\n"


def test_kernel_added_instead(hub: RunningHub) -> None:
    hub.configure("added", overlay_kernel="add")
    server = hub.start_server("added")
    assert server.run_cell("import sys; print(sys.prefix)").text == "/opt/conda\n"
    names = set(server.get("api/kernelspecs").json()["kernelspecs"]) - {"python3"}
    prefixes = {name: server.run_cell("import sys; print(sys.prefix)", name).text for name in names}
    assert any(prefix.startswith(f"{HOMES['stacks']}/.overlay/") for prefix in prefixes.values()), prefixes
