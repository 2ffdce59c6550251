"""The launcher: which Python it finds, and that it never stands in a command's way."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from overlayspawner.hub import boot, payload_zip, start_bin
from scripts import bytecode
from tests.support.envs import other_pythons
from tests.support.user import as_user

SHELLS = [s for s in ("dash", "bash", "busybox") if shutil.which(s)]


def test_there_is_a_posix_shell_to_test_with() -> None:
    assert SHELLS


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    return ["busybox", "sh"] if request.param == "busybox" else [request.param]


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    directory = tmp_path / "payload"
    directory.mkdir()
    built = payload_zip.build()
    for name, content in built.contents().items():
        (directory / name).write_bytes(content)
    (directory / "COMPLETE").write_text("")
    return directory


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A PATH of its own, with a space in it."""
    directory = tmp_path / "some bin"
    directory.mkdir()
    (directory / "python3.99").symlink_to(sys.executable)
    return directory


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def find(shell: list[str], payload: Path, bin_dir: Path, *command: str) -> str:
    """Run only the launcher's search."""
    code = f'. "{payload}/launcher.sh"; _ovl_find "$@"'
    done = subprocess.run(
        [*shell, "-c", code, "x", *command],
        env={"PATH": f"{bin_dir}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.strip()


FORMS = {
    "plain path": "#!{python}\n",
    "with options": "#!{python} -I -s\n",
    "space after the mark": "#! {python}\n",
    "env": "#!/usr/bin/env python3.99\n",
    "env -S": "#!/usr/bin/env -S python3.99 -I\n",
    "env with an assignment": "#!/usr/bin/env -S A=b python3.99\n",
    "two lines, quoted": "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n",
    "two lines, unquoted": "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_the_interpreter_of_the_entry_point(
    shell: list[str], payload: Path, bin_dir: Path, form: str
) -> None:
    python = bin_dir / "python3.99"
    if "quoted" not in form or "unquoted" in form:
        # a first line can't hold a path with a space; only the quoted two-line form can
        python = Path(str(payload.parent / "python3.99"))
        python.symlink_to(sys.executable)
    script(bin_dir / "jupyterhub-singleuser", FORMS[form].format(python=python) + "print()\n")
    found = find(shell, payload, bin_dir, "start-something", "--flag")
    assert found == str(bin_dir / "python3.99" if form.startswith("env") else python)


def test_the_command_s_own_entry_point_goes_before_the_one_on_path(
    shell: list[str], payload: Path, bin_dir: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other-python3"
    other.symlink_to(sys.executable)
    mine = tmp_path / "venv" / "python3"
    mine.parent.mkdir()
    mine.symlink_to(sys.executable)
    script(bin_dir / "jupyterhub-singleuser", f"#!{bin_dir}/python3.99\n")
    named = script(tmp_path / "venv" / "jupyterhub-singleuser", f"#!{mine}\n")
    assert find(shell, payload, bin_dir, "tini", "--", str(named), "--port=1") == str(mine)


def test_a_python_command(shell: list[str], payload: Path, bin_dir: Path) -> None:
    found = find(shell, payload, bin_dir, "python3.99", "-m", "jupyterhub.singleuser")
    assert found == str(bin_dir / "python3.99")


@pytest.mark.parametrize(
    "text", ["#!/bin/bash\n", "\x7fELF\x00\x00", "", "#!/usr/bin/env\n", "#!/usr/bin/perl\n"]
)
def test_no_python(shell: list[str], payload: Path, bin_dir: Path, text: str) -> None:
    script(bin_dir / "start", text)
    assert find(shell, payload, bin_dir, "start") == ""
    assert find(shell, payload, bin_dir, "missing") == ""
    assert find(shell, payload, bin_dir) == ""


def run(shell: list[str], payload: Path, command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    wrapped = boot.wrap(command, str(payload))
    assert wrapped[0] == boot.SHELL
    return subprocess.run(
        [*shell, *wrapped[1:]],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


ARGUMENTS = ["printf", "%s|", "a b", "*", "$HOME", "'", '"', "\\", "", "--flag=x\ny"]
EXPECTED = "a b|*|$HOME|'|\"|\\||--flag=x\ny|"


def test_the_command_is_run_unchanged_without_a_spec(shell: list[str], payload: Path) -> None:
    done = run(shell, payload, ARGUMENTS)
    assert (done.stdout, done.stderr, done.returncode) == (EXPECTED, "", 0)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("empty volume", "payload-missing"),
        ("half filled", "payload-missing"),
        ("no zip", "payload-missing"),
        ("zip is garbage", "bootstrap-failed"),
        ("zip is truncated", "bootstrap-failed"),
        ("zip of another version", "bootstrap-failed"),
        ("python dies", "bootstrap-failed"),
        ("python prints garbage", "bootstrap-failed"),
        ("spec is garbage", "bad-spec"),
        ("no python", "no-python"),
    ],
)
def test_whatever_is_broken_the_command_runs(
    shell: list[str], payload: Path, bin_dir: Path, damage: str, code: str
) -> None:
    spec = '{"v": 1}'
    single = script(bin_dir / "jupyterhub-singleuser", f"#!{sys.executable}\n")
    zip_file = payload / "overlay.pyz"
    if damage == "empty volume":
        shutil.rmtree(payload)
        payload.mkdir()
    elif damage == "half filled":
        (payload / "COMPLETE").unlink()
    elif damage == "no zip":
        zip_file.unlink()
    elif damage == "zip is garbage":
        zip_file.write_bytes(os.urandom(1000))
    elif damage == "zip is truncated":
        zip_file.write_bytes(zip_file.read_bytes()[:-2000])
    elif damage == "zip of another version":
        zip_file.write_bytes(zip_file.read_bytes() + b"\0")
    elif damage == "python dies":
        script(bin_dir / "python3.98", "#!/bin/sh\nkill -9 $$\n")
        single.write_text("#!/usr/bin/env python3.98\n")
    elif damage == "python prints garbage":
        script(bin_dir / "python3.98", "#!/bin/sh\necho 'exit 3; rm -rf /nonexistent'\n")
        single.write_text("#!/usr/bin/env python3.98\n")
    elif damage == "spec is garbage":
        spec = "{{{"
    elif damage == "no python":
        single.write_text("#!/bin/sh\n")
    path = f"{bin_dir}:/usr/bin:/bin"
    done = run(shell, payload, ARGUMENTS, OVERLAYSPAWNER_SPEC=spec, PATH=path)
    assert (done.stdout, done.returncode) == (EXPECTED, 0)
    assert f"overlayspawner: [{code}]" in done.stderr
    done = run(shell, payload, ["env"], OVERLAYSPAWNER_SPEC=spec, PATH=path)
    assert not [line for line in done.stdout.splitlines() if line.startswith("OVERLAYSPAWNER")]


@pytest.mark.parametrize("noise", ["tracer: flushed 0 spans (ok)", "it's", "$(exit 3)", "exit 3"])
def test_an_image_whose_python_talks(shell: list[str], payload: Path, bin_dir: Path, noise: str) -> None:
    """Tracers and coverage tools print at start or end, also of an isolated Python."""
    printed = f"{noise}\n# overlayspawner 1\nexport X='y'\n# overlayspawner end\n{noise}"
    text = f"#!/bin/sh\ncat <<'END'\n{printed}\nEND\n"
    script(bin_dir / "python3.98", text)
    script(bin_dir / "jupyterhub-singleuser", "#!/usr/bin/env python3.98\n")
    path = f"{bin_dir}:/usr/bin:/bin"
    done = run(shell, payload, ["sh", "-c", 'echo "X=$X"'], OVERLAYSPAWNER_SPEC='{"v": 1}', PATH=path)
    assert (done.stdout, done.stderr, done.returncode) == ("X=y\n", "", 0)


def test_what_is_cut_off_is_not_evaluated(shell: list[str], payload: Path, bin_dir: Path) -> None:
    script(bin_dir / "python3.98", "#!/bin/sh\nprintf '# overlayspawner 1\\nexport X='\n")
    script(bin_dir / "jupyterhub-singleuser", "#!/usr/bin/env python3.98\n")
    path = f"{bin_dir}:/usr/bin:/bin"
    done = run(shell, payload, ["sh", "-c", 'echo "X=$X"'], OVERLAYSPAWNER_SPEC='{"v": 1}', PATH=path)
    assert (done.stdout, done.returncode) == ("X=\n", 0)
    assert "[bootstrap-failed]" in done.stderr


def test_the_exit_status_is_the_command_s(shell: list[str], payload: Path) -> None:
    assert run(shell, payload, ["sh", "-c", "exit 42"]).returncode == 42


# Runs the launcher, then prints what it left in its variables.
SHOW = ["sh", "-c", 'echo "${OVERLAYSPAWNER_RUNTIME:+opened}"']


def start(
    shell: list[str],
    payload: Path,
    bin_dir: Path,
    tmp_path: Path,
    spec: str = '{"v": 1}',
    python: str = sys.executable,
    **env: str,
) -> subprocess.CompletedProcess[str]:
    """Start with a home, as the user that runs the tests."""
    script(bin_dir / "jupyterhub-singleuser", f"#!{python}\n")
    for name in ("home", "run"):
        (tmp_path / name).mkdir(exist_ok=True)
    env = {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run"), **env}
    shell = [*as_user(), *shell]
    return run(shell, payload, SHOW, OVERLAYSPAWNER_SPEC=spec, PATH=f"{bin_dir}:/usr/bin:/bin", **env)


DAMAGES = ["none", "empty", "garbage", "truncated", "headless", "one bit", "other format", "raises", "gone"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_zip_stands_in_for_a_damaged_start(
    shell: list[str], payload: Path, bin_dir: Path, tmp_path: Path, damage: str
) -> None:
    path = payload / "start.bin"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage != "none":
        # All parts but the sources are removed, so that what is damaged is what is read.
        modules = start_bin.start_modules(payload_zip.payload_sources())
        size = (payload / "overlay.pyz").stat().st_size
        content = start_bin.make_start(modules, size, {})
        bit = bytes([content[-9000] ^ 1])
        damaged = {
            "empty": b"",
            "garbage": b"\xff" * 900,
            "truncated": content[:-500],
            "headless": content[30:],
            "one bit": content[:-9000] + bit + content[-8999:],
            "other format": marshal.dumps((size, b"abc", b"", []), 2),
            "raises": start_bin.make_start(_raising(modules, only=9), size, {}),
        }
        path.write_bytes(damaged[damage])
    done = start(shell, payload, bin_dir, tmp_path)
    assert done.stdout == "opened\n", done.stderr
    assert (tmp_path / "home/.overlay/default/overlay.json").is_file()


def _raising(modules: start_bin.Modules, only: int | None = None) -> start_bin.Modules:
    """The same modules, but they, or one of them, can't be imported."""
    text = "raise ImportError('this text must not be run')\n"
    return [
        (name, path, package, text if only in (None, number) else old)
        for number, (name, path, package, old) in enumerate(modules)
    ]


def _only(payload: Path, modules: start_bin.Modules, compiled: dict[bytes, bytes]) -> None:
    """Leave a start nothing but these sources and this bytecode: the zip is one in name and size only."""
    path = payload / "overlay.pyz"
    size = path.stat().st_size
    path.write_bytes(b"x" * size)
    (payload / "start.bin").write_bytes(start_bin.make_start(modules, size, compiled))


@pytest.mark.parametrize("python", [sys.executable, *other_pythons()])
def test_each_python_uses_its_own_bytecode(payload: Path, bin_dir: Path, tmp_path: Path, python: str) -> None:
    modules = start_bin.start_modules(payload_zip.payload_sources())
    compiled = {
        made.magic: made.packed
        for made in (bytecode.compile_with(p, modules) for p in [sys.executable, *other_pythons()])
    }
    _only(payload, _raising(modules), compiled)
    for _ in ("create", "warm"):
        done = start([SHELLS[0]], payload, bin_dir, tmp_path, python=python)
        assert (done.stdout, done.returncode) == ("opened\n", 0), done.stderr
    assert (tmp_path / "home/.overlay/default/overlay.json").is_file()


def _say_at_the_end(payload: Path, expression: str) -> None:
    """Have the launcher's program print something on standard error when all is done."""
    program = (payload / "launcher.sh").read_text()
    last = "main(sys.argv[2:])"
    assert program.count(last) == 1
    (payload / "launcher.sh").write_text(
        program.replace(last, f"{last}; print({expression}, file=sys.stderr)")
    )


@pytest.mark.parametrize("python", [sys.executable, *other_pythons()])
def test_a_python_without_bytecode_uses_the_sources(
    payload: Path, bin_dir: Path, tmp_path: Path, python: str
) -> None:
    modules = start_bin.start_modules(payload_zip.payload_sources())
    _only(payload, modules, {b"\x01\x02\r\n": start_bin.pack(b"of another Python")})
    _say_at_the_end(payload, "main.__code__.co_filename")
    done = start([SHELLS[0]], payload, bin_dir, tmp_path, python=python)
    assert done.stdout == "opened\n", done.stderr
    # where a traceback would look for it
    assert done.stderr.splitlines()[-1] == f"{payload}/overlay.pyz/overlayspawner/payload/bootstrap.py"


@pytest.mark.parametrize("damage", ["no bytecode", "one bit", "truncated", "not packed", "other code"])
def test_the_zip_stands_in_for_damaged_bytecode(
    payload: Path, bin_dir: Path, tmp_path: Path, damage: str
) -> None:
    """Also where the sources would do: they lie in the same file."""
    modules = start_bin.start_modules(payload_zip.payload_sources())
    [(magic, packed)] = start_bin.own(modules).items()
    *rest, (name, path, package, _) = modules
    idle = start_bin.own([*rest, (name, path, package, "def main(arguments): pass\n")])[magic]
    bad = {
        "no bytecode": start_bin.pack(b"c" * 99),
        "one bit": packed[:5000] + bytes([packed[5000] ^ 1]) + packed[5001:],
        "truncated": packed[:-100],
        "not packed": marshal.dumps(modules, 2),
        "other code": idle[:-4] + packed[-4:],  # only the checksum tells
    }[damage]
    size = (payload / "overlay.pyz").stat().st_size
    (payload / "start.bin").write_bytes(start_bin.make_start(_raising(modules), size, {magic: bad}))
    done = start([SHELLS[0]], payload, bin_dir, tmp_path)
    assert done.stdout == "opened\n", done.stderr


def test_a_start_needs_nothing_but_start_bin(
    shell: list[str], payload: Path, bin_dir: Path, tmp_path: Path
) -> None:
    """Else the zip is searched, which costs as much as all of the start."""
    cache = '__import__("zipimport")._zip_directory_cache'
    _say_at_the_end(payload, f'list({cache}), {{"json", "re"}} & set(sys.modules)')
    for _ in ("create", "warm"):
        done = start(shell, payload, bin_dir, tmp_path)
        assert done.stdout == "opened\n", done.stderr
        assert done.stderr.splitlines()[-1] == "[] set()"
