"""The laws of the code's layout: what may import what, and what the payload may weigh."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from overlayspawner.hub import payload_zip

ROOT = Path(payload_zip.__file__).parents[1]
PAYLOAD = sorted((ROOT / "payload").rglob("*.py"))
HUB = sorted((ROOT / "hub").rglob("*.py"))
# Modules that write only into the runtime dir (container-local), never into the user's storage.
RUNTIME_DIR_ONLY = {"runtime.py", "kernelspec.py"}
WRITERS = {
    "mkdir",
    "makedirs",
    "rename",
    "replace",
    "remove",
    "unlink",
    "rmdir",
    "symlink",
    "link",
    "truncate",
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def is_server(path: Path) -> bool:
    return (ROOT / "payload" / "server") in path.parents


@pytest.mark.parametrize("path", HUB, ids=name)
def test_the_hub_imports_only_the_contract_from_the_payload(path: Path) -> None:
    used = {m for m in imports(path) if m.startswith("overlayspawner.payload")}
    contract = "overlayspawner.payload.contract"
    assert {m for m in used if not m.startswith(contract)} <= {"overlayspawner.payload"}
    if "overlayspawner.payload" in used:
        assert contract in used


@pytest.mark.parametrize("path", PAYLOAD, ids=name)
def test_the_payload_never_imports_the_hub(path: Path) -> None:
    assert not {
        m for m in imports(path) if m.startswith(("overlayspawner.hub", "jupyterhub", "dockerspawner"))
    }


@pytest.mark.parametrize("path", PAYLOAD, ids=name)
def test_only_the_server_imports_tornado(path: Path) -> None:
    if not is_server(path):
        assert not {m for m in imports(path) if m.split(".")[0] in ("tornado", "jupyter_server", "traitlets")}


@pytest.mark.parametrize("path", PAYLOAD, ids=name)
def test_only_procs_imports_subprocess(path: Path) -> None:
    if path.name != "procs.py":
        assert "subprocess" not in imports(path)


@pytest.mark.parametrize("path", PAYLOAD, ids=name)
def test_only_files_writes(path: Path) -> None:
    if path.name == "files.py" or path.name in RUNTIME_DIR_ONLY:
        return
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        func = node.func
        if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
            if func.value.id == "os" and func.attr in WRITERS:
                found.append((node.lineno, func.attr))
            if func.value.id == "shutil" and func.attr != "which" and func.attr != "disk_usage":
                found.append((node.lineno, func.attr))
        if isinstance(func, ast.Name) and func.id == "open":
            mode = node.args[1] if len(node.args) > 1 else None
            mode = next((k.value for k in node.keywords if k.arg == "mode"), mode)
            if isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+"):
                found.append((node.lineno, "open"))
    # The kernel launcher takes its mark out of the runtime dir.
    allowed = {"kernel.py": {"unlink"}}.get(path.name, set())
    assert [f for f in found if f[1] not in allowed] == []


@pytest.mark.parametrize("path", PAYLOAD, ids=name)
def test_the_payload_is_written_in_python_3_9(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 9))


def test_the_zip_is_small_and_the_same_each_time() -> None:
    first, second = payload_zip.build(), payload_zip.build()
    assert first.zip == second.zip
    assert len(first.zip) < 450_000


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("payload") / "overlay.pyz"
    path.write_bytes(payload_zip.build().zip)
    return str(path)


def bare_python(tmp: Path) -> str:
    """A Python that has nothing but its standard library."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp / "bare"], check=True)
    return str(tmp / "bare" / "bin" / "python")


def test_everything_but_the_server_imports_from_the_zip_with_the_standard_library_alone(
    pyz: str, tmp_path: Path
) -> None:
    modules = [
        n.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for n in zipfile.ZipFile(pyz).namelist()
        if n.endswith(".py") and n != "__main__.py" and "/server/" not in n
    ]
    assert "overlayspawner.payload.bootstrap" in modules
    code = (
        "import sys, importlib\n"
        f"sys.path.insert(0, {pyz!r})\n"
        f"for m in {modules!r}: importlib.import_module(m)\n"
        "print([f for m in list(sys.modules.values()) for f in [getattr(m, '__file__', None) or '']"
        " if 'site-packages' in f])\n"
    )
    done = subprocess.run([bare_python(tmp_path), "-I", "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"


def test_the_start_path_imports_nothing_heavy(pyz: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        f"sys.path.insert(0, {pyz!r})\n"
        "import overlayspawner.payload.bootstrap\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        [bare_python(tmp_path), "-I", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )
    loaded = set(done.stdout.split())
    assert "overlayspawner.payload.files" in loaded
    heavy = {
        "asyncio", "dataclasses", "hashlib", "importlib.metadata", "inspect", "json", "logging", "pathlib",
        "re", "shutil", "subprocess", "tempfile", "typing",
    }  # fmt: skip
    assert not loaded & heavy


def test_what_is_run_with_pip_too_is_there() -> None:
    """Those lists (see tests/conftest.py) name tests; one that is renamed would be left out unseen."""
    lists = 0
    for path in Path(__file__).parent.glob("test_*.py"):
        tree = ast.parse(path.read_text())
        tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PIP_TOO":
                named = {str(item).partition("[")[0] for item in ast.literal_eval(node.value)}
                assert named <= tests, path.name
                lists += 1
    assert lists >= 5
