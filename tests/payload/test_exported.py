"""What exports say is what other tools install: pip and uv, each into an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support.index import LocalIndex

WANTED = {"tinyextra": "1.0", "tinyleaf": "1.1", "tinyscript": "1.0", "tinysdist": "1.0"}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, index: LocalIndex, pyz: str) -> Path:
    """A folder with the exports of an overlay."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("exports")
    environ = {"HOME": str(home), "PATH": os.path.dirname(sys.executable) + ":/usr/bin:/bin"}
    environ["PIP_INDEX_URL"] = index.url

    def overlay(*argv: str) -> str:
        done = subprocess.run(
            [sys.executable, "-I", pyz, "cli", *argv], env=environ, cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    overlay("install", "tinyleaf<2", "tinyextra[leaf]", "tinyscript", "tinysdist")
    overlay("export", "--pinned", "-o", "pinned.txt")
    (folder / "plain.txt").write_text(overlay("export"))
    for form, name in (("pylock", "pylock.toml"), ("pyproject", "pyproject.toml")):
        assert overlay("export", "--format", form, "-o", name) == ""
    told = json.loads(overlay("export", "--json"))
    assert told["content"] == (folder / "plain.txt").read_text() and told["filename"] == "requirements.txt"
    return folder


SHOW = """
import importlib.metadata as m, json
print(json.dumps({d.metadata["Name"]: d.version for d in m.distributions()}))
"""


def installed(place: Path, index: LocalIndex, *command: str, **extra: str) -> dict[str, str]:
    """Make an environment, run a command for it, and return what of the index is there then."""
    venv.create(place, with_pip=False, symlinks=True)
    python = str(place / "bin" / "python")
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
    own.update(PIP_INDEX_URL=index.url, UV_DEFAULT_INDEX=index.url)
    own.update(PIP_CONFIG_FILE=os.devnull, UV_NO_CONFIG="1", **extra)
    if command[0] == "pip":
        argv = [sys.executable, "-m", "pip", "--python", python, *command[1:]]
    else:
        argv = [str(Path(sys.executable).with_name("uv")), *command[1:], "--python", python]
    done = subprocess.run(argv, env=own, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(subprocess.check_output([python, "-I", "-c", SHOW], text=True))
    return {name: version for name, version in found.items() if name.startswith("tiny")}


def test_pip_takes_the_exact_versions(exports: Path, index: LocalIndex, tmp_path: Path) -> None:
    text = (exports / "pinned.txt").read_text()
    assert text.count("--hash=sha256:") >= len(WANTED)
    assert (
        installed(tmp_path / "a", index, "pip", "install", "-q", "-r", str(exports / "pinned.txt")) == WANTED
    )


def test_a_changed_file_is_refused(exports: Path, index: LocalIndex, tmp_path: Path) -> None:
    text = (exports / "pinned.txt").read_text()
    bad = tmp_path / "bad.txt"
    bad.write_text(text.replace("--hash=sha256:", "--hash=sha256:0").replace("0" * 65, "0" * 64))
    with pytest.raises(AssertionError, match=r"(?i)hash"):
        installed(tmp_path / "a", index, "pip", "install", "-q", "-r", str(bad))


@pytest.mark.parametrize("name", ["plain.txt", "pinned.txt", "pyproject.toml"])
def test_uv_takes_lists_and_projects(exports: Path, index: LocalIndex, tmp_path: Path, name: str) -> None:
    assert installed(tmp_path / "a", index, "uv", "pip", "install", "-r", str(exports / name)) == WANTED


def test_uv_takes_the_lock(exports: Path, index: LocalIndex, tmp_path: Path) -> None:
    sync = ("uv", "pip", "sync", "--preview", str(exports / "pylock.toml"))
    assert installed(tmp_path / "a", index, *sync) == WANTED


@pytest.mark.network
def test_pip_installs_the_project(exports: Path, index: LocalIndex, tmp_path: Path) -> None:
    """The build needs setuptools, which the local index does not have."""
    download = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary",
        ":all:",
        "setuptools",
    ]
    subprocess.run([*download, "-d", str(tmp_path / "build")], check=True)
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text((exports / "pyproject.toml").read_text())
    for name in ("data", "notebooks"):  # what lies beside it is none of its business
        (project / name).mkdir()
    install = ("pip", "install", "-q", str(project))
    assert installed(tmp_path / "a", index, *install, PIP_FIND_LINKS=str(tmp_path / "build")) == WANTED
