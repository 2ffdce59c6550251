"""The wrapper around a command, run by real shells."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from overlayspawner.hub import boot

SHELLS = [s for s in ("dash", "bash", "busybox") if shutil.which(s)]


def run(shell: str, directory: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    program = [shell, "sh"] if shell == "busybox" else [shell]
    wrapped = boot.wrap(list(command), str(directory))
    return subprocess.run(
        [*program, *wrapped[1:]],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", **env},
        check=False,
    )


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    directory = tmp_path / "pay load's"
    directory.mkdir()
    (directory / "launcher.sh").write_text("SEEN=$OVERLAYSPAWNER_PAYLOAD/$#; export SEEN\n")
    (directory / "COMPLETE").write_text("x\n")
    return directory


@pytest.mark.parametrize("shell", SHELLS)
def test_the_launcher_is_sourced_and_the_command_runs_with_its_arguments(shell: str, payload: Path) -> None:
    awkward = ["a b", "", "*", "$HOME", "line\nbreak", "'\""]
    out = run(shell, payload, "sh", "-c", 'printf "%s|" "$SEEN" "$@"', "x", *awkward)
    assert out.stdout.split("|")[:-1] == [f"{payload}/{len(awkward) + 4}", *awkward]
    assert out.stderr == ""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("missing", ["COMPLETE", "launcher.sh", ""])
def test_without_a_payload_the_command_runs_and_the_hub_is_told(
    shell: str, payload: Path, missing: str, tmp_path: Path
) -> None:
    if missing:
        (payload / missing).unlink()
    else:
        payload = tmp_path / "nowhere"
    out = run(shell, payload, "sh", "-c", 'echo "ran ${OVERLAYSPAWNER_SPEC-unset}"', OVERLAYSPAWNER_SPEC="{}")
    assert out.stdout == "ran unset\n"
    assert out.stderr.startswith("overlayspawner: [payload-missing] ")
    assert out.stderr.count("\n") == 1


@pytest.mark.parametrize("shell", SHELLS)
def test_no_variable_of_ours_reaches_the_command(shell: str, payload: Path) -> None:
    out = run(shell, payload, "env", OVERLAYSPAWNER_PAYLOAD="/somewhere/else")
    assert "OVERLAYSPAWNER_PAYLOAD" not in out.stdout
    assert f"SEEN={payload}/1" in out.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_a_missing_command_is_127_as_without_us(shell: str, payload: Path) -> None:
    assert run(shell, payload, "no-such-command-here").returncode == 127


def test_the_one_liner_is_one_line() -> None:
    assert "\n" not in boot.boot("/some where")


@pytest.mark.parametrize(
    "entrypoint, command, what",
    [
        (["tini", "-g", "--", "start.sh"], ["jupyterhub-singleuser"], "command"),
        ([], ["start-notebook.py"], "command"),
        (["/usr/local/bin/entrypoint.sh"], ["jupyter-lab", "--ip=0.0.0.0"], "command"),
        (["conda", "run", "-n", "base"], ["jupyterhub-singleuser"], "command"),
        (["jupyterhub-singleuser"], ["--debug"], "entrypoint"),
        (["jupyterhub-singleuser"], [], "entrypoint"),
        (["tini", "--"], [], "entrypoint"),
        (["jupyter"], ["lab"], "entrypoint"),
        (["tini", "--", "jupyter"], ["lab"], "entrypoint"),
        (["/usr/bin/python3", "-m"], ["jupyterhub.singleuser"], "entrypoint"),
        (["bash", "-l"], ["start.sh"], "entrypoint"),
        ([], [], "no-command"),
        ([], ["--debug"], "no-command"),
    ],
)
def test_what_is_wrapped(entrypoint: list[str], command: list[str], what: str) -> None:
    wrapped = boot.wrap_container(entrypoint, command)
    if what == "command":
        assert wrapped == (None, boot.wrap(command), "")
    elif what == "entrypoint":
        assert wrapped == (boot.wrap(entrypoint), command, "")
    else:
        assert wrapped == (None, command, what)


def test_an_image_without_a_shell_is_left_alone() -> None:
    assert boot.wrap_container(["tini"], ["x"], shell=False) == (None, ["x"], "no-shell")
