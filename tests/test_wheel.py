"""The wheel, installed clean beside JupyterLab, with no hub in sight."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import bytecode
from tests.support.client import Server
from tests.support.envs import other_pythons
from tests.support.hub import free_port
from tests.support.index import LocalIndex

# installs JupyterLab into an environment of its own
pytestmark = [pytest.mark.network, pytest.mark.slow]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make wheel` makes, of a copy: the checkout keeps what it has."""
    out = tmp_path_factory.mktemp("dist")
    checkout = tmp_path_factory.mktemp("copy")
    for name in ("overlayspawner", "jupyter-config", "scripts", "tests/support"):
        leave = shutil.ignore_patterns("__pycache__", "bytecode")
        shutil.copytree(ROOT / name, checkout / name, ignore=leave)
    # stands in for `make labextension`, which needs Node
    panel = checkout / "overlayspawner" / "labextension"
    if not panel.exists():
        panel.mkdir()
        (panel / "package.json").write_text('{"name": "overlayspawner"}')
    for name in (".gitignore", "LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    # not all supported Pythons need be here
    for command in (
        ["scripts/bytecode.py", "--incomplete"],
        ["-m", "build", "--wheel", "--outdir", out, "."],
    ):
        subprocess.run([sys.executable, *command], cwd=checkout, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def lab(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment with JupyterLab and the wheel."""
    env = tmp_path_factory.mktemp("lab")
    subprocess.run([sys.executable, "-m", "venv", env], check=True)
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", env / "bin" / "python"]
    subprocess.run([*uv, "jupyterlab", "ipykernel", "pip", wheel], check=True)
    return env / "bin"


def test_what_is_in_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "overlayspawner/hub/launcher.sh" in names
    assert any(n.endswith("etc/jupyter/jupyter_server_config.d/overlayspawner.json") for n in names)
    assert "overlayspawner/labextension/package.json" in names
    assert any(n.endswith("data/share/jupyter/labextensions/overlayspawner/package.json") for n in names)
    assert not [n for n in names if n.startswith(("tests", "docs", "benchmarks")) or n.endswith(".pyc")]


def test_it_brings_bytecode_for_the_pythons_that_were_there(wheel: Path, lab: Path) -> None:
    versions = ["{}.{}".format(*sys.version_info[:2])]
    for python in other_pythons():
        code = "import sys; print('{}.{}'.format(*sys.version_info[:2]))"
        done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
        versions.append(done.stdout.strip())
    versions = [v for v in versions if tuple(map(int, v.split("."))) in bytecode.VERSIONS]
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"overlayspawner/hub/bytecode/cpython-{version}.bin" for version in versions}
    assert expected <= names
    # and what is installed finds that it fits
    code = (
        "from overlayspawner.hub import payload_zip as p, start_bin as s; "
        "print(len(s.shipped(s.start_modules(p.payload_sources()), s.shipped_dir())))"
    )
    done = subprocess.run([lab / "python", "-I", "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len([n for n in names if n.startswith("overlayspawner/hub/bytecode/")])


def test_the_extension_is_enabled_and_valid(lab: Path, tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "PATH": f"{lab}:{os.environ['PATH']}"}
    done = subprocess.run(
        [lab / "jupyter", "server", "extension", "list"], env=env, capture_output=True, text=True, check=True
    )
    lines = (done.stdout + done.stderr).splitlines()
    at = next(i for i, line in enumerate(lines) if "overlayspawner" in line and "enabled" in line)
    assert "OK" in lines[at + 1] + lines[at + 2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(lab: Path, home: Path, index: LocalIndex) -> Iterator[Server]:
    """``jupyter lab`` as a person starts it on a laptop."""
    port = free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "JUPYTER", "OVERLAY"))}
    env |= {"HOME": str(home), "PATH": f"{lab}:{os.environ['PATH']}", "PIP_INDEX_URL": index.url}
    log = home / "lab.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                lab / "jupyter",
                "lab",
                "--no-browser",
                "--allow-root",
                f"--ServerApp.port={port}",
                "--IdentityProvider.token=secret",
                f"--ServerApp.root_dir={home}",
            ],
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    made = Server(f"http://127.0.0.1:{port}/", "secret")
    try:
        end = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            try:
                if made.get("api/status").ok:
                    break
            except OSError:
                time.sleep(0.2)
        yield made
    finally:
        process.terminate()
        process.wait(30)


def test_packages_without_a_hub(server: Server, home: Path, lab: Path) -> None:
    status = server.overlay("status")
    assert (status["mode"], status["notices"]) == ("normal", [])
    assert status["path"] == str(home / ".overlay" / "default")
    name = "tinytree"
    job = server.install(name)
    assert job["state"] == "done"
    assert server.packages()[name]["requested"]
    cell = server.run_cell(f"import {name}, sys; print({name}.__file__); print(sys.prefix)")
    assert cell.error == ""
    file, prefix = cell.text.split()
    assert file.startswith(prefix + os.sep)
    assert prefix.startswith(str(home))
    # the environment the server runs in has not changed
    assert not list((lab.parent / "lib").glob(f"python*/site-packages/{name}*"))
    done = subprocess.run(
        [lab / "overlay", "list", "--json"],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert name in json.dumps(json.loads(done.stdout))


def test_the_server_s_children_see_no_trace_of_us(server: Server) -> None:
    """Other kernels and proxied applications inherit the server's environment."""
    spec = server.get("api/kernelspecs").json()["kernelspecs"]
    assert {"python3", "python3-base"} <= set(spec)
    ours = "'OVERLAY' in k or k in ('PYTHONNOUSERSITE', 'VIRTUAL_ENV')"
    cell = server.run_cell(f"import os; print([k for k in os.environ if {ours}])", kernel="python3-base")
    assert cell.text.strip() == "[]"
