"""The command line's ``run``, ``create`` and ``completion``, its help, and how tables look on a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from overlayspawner.payload import cli
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import SPEC_ENV, Spec
from tests.support.index import LocalIndex
from tests.support.tty import on_a_terminal

pytestmark = pytest.mark.slow

Overlay = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def used(overlay: Overlay, used_home: Path) -> Overlay:
    """Run ``overlay`` in a home that has something installed, and stays as it is."""

    def run(*argv: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return overlay(*argv, **{"HOME": str(used_home), **extra})

    return run


# -- run ----------------------------------------------------------------------------------------------


def test_a_program_runs_in_the_overlay_without_a_server(used: Overlay, used_home: Path) -> None:
    code = "import sys, os, tinydata; print(tinydata.__file__); print(sys.prefix, os.environ['VIRTUAL_ENV'])"
    done = used("run", "python", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    file, places = done.stdout.splitlines()
    assert file.startswith(f"{used_home}/.overlay/default/envs/")
    assert len(set(places.split())) == 1
    # what has our options' names is the program's
    shown = used("run", "python", "-c", "import sys; print(sys.argv[1:])", "--json", "-q", "--", "--help")
    assert shown.stdout == "['--json', '-q', '--', '--help']\n"
    assert used("run", "--", "sh", "-c", "exit 7").returncode == 7


def test_a_script_of_the_image_sees_the_overlay(used: Overlay, tmp_path: Path) -> None:
    """``pytest`` of the image names the image's Python, which sees nothing of the user's packages."""
    (tmp_path / "test_mine.py").write_text("import tinydata\n\ndef test_it():\n    assert tinydata\n")
    shown = used("run", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py")
    assert shown.returncode == 0 and "1 passed" in shown.stdout, shown
    # the image's own pip would install into the image
    done = used("run", "sh", "-c", "command -v pip python")
    assert all("/.overlay/default/envs/" in line for line in done.stdout.splitlines())


def test_variables_that_lead_elsewhere_are_not_handed_on(used: Overlay) -> None:
    code = "import os; print([n for n in ('PIP_USER', 'PIP_TARGET', 'KEPT') if n in os.environ])"
    done = used("run", "python", "-c", code, PIP_USER="1", PIP_TARGET="/x", KEPT="1")
    assert done.stdout == "['KEPT']\n"


@pytest.mark.parametrize(
    ("argv", "code", "word"),
    [
        ((), 2, "[bad-request]"),
        (("no-such-program",), 127, "no-such-program: there is no such program"),
        (("./nowhere/at-all",), 127, "there is no such program"),
        (("/etc/passwd",), 126, "can't be run"),
    ],
)
def test_what_can_not_be_run(used: Overlay, argv: tuple[str, ...], code: int, word: str) -> None:
    done = used("run", *argv)
    assert (done.returncode, word in done.stderr) == (code, True), done


def test_without_an_overlay_it_says_how_to_make_one(overlay: Overlay, home: Path) -> None:
    done = overlay("run", "python")
    assert done.returncode == 1
    assert "[no-overlay]" in done.stderr and "overlay create" in done.stderr
    assert not list(home.iterdir())


def test_signals_are_the_programs_own(used_home: Path, environ: dict[str, str], pyz: str) -> None:
    command = [sys.executable, "-I", pyz, "cli", "run", "python", "-c"]
    env = {**environ, "HOME": str(used_home)}
    code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    process = subprocess.Popen([*command, code], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid  # in our place, not beside us
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
    # a pipe's end ends a program quietly, as it would without us
    pipe = ["sh", "-c", '"$@" | head -n 1', "sh", sys.executable, "-I", pyz, "cli", "run", "yes"]
    done = subprocess.run(pipe, env=env, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("y\n", "")


def test_in_a_server_it_has_the_servers_commands(
    open_overlay: Callable[..., Context], index: LocalIndex, home: Path
) -> None:
    context = open_overlay(index_url=index.url)
    command = [os.path.join(context.runtime, "bin", "overlay"), "run", "sh", "-c", 'echo "$PATH"']
    environ = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    shown = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60).stdout
    assert context.env is not None
    assert shown.startswith(f"{context.runtime}/bin:{context.env.bin}:{context.runtime}/wrappers:/usr/bin")


# -- create -------------------------------------------------------------------------------------------


def test_an_overlay_is_made_once(overlay: Overlay, home: Path) -> None:
    done = overlay("create")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Made the overlay default (overlay) in {home}/.overlay/default" in done.stdout
    files = sorted(str(p) for p in home.rglob("*"))
    done = overlay("create")
    assert done.returncode == 0 and "is there already" in done.stdout
    found = json.loads(overlay("create", "--json").stdout)
    assert (found["overlay"], found["kind"], found["created"]) == ("default", "overlay", False)
    assert sorted(str(p) for p in home.rglob("*")) == files
    assert overlay("run", "python", "-c", "import pytest").returncode == 0
    assert overlay("create", "--kind", "isolated").returncode == 2


def test_another_one_sees_nothing_of_the_image(overlay: Overlay, home: Path, tmp_path: Path) -> None:
    made = json.loads(overlay("create", "teaching", "--kind", "isolated", "--json").stdout)
    assert (made["path"], made["created"]) == (f"{home}/.overlay/teaching", True)
    assert overlay("-n", "teaching", "run", "python", "-c", "import pytest").returncode == 1
    assert overlay("install", "-n", "teaching", "tinydata").returncode == 0
    assert overlay("-n", "teaching", "list", "--quiet").stdout == "tinydata\n"
    assert overlay("-n", "teaching", "run", "python", "-c", "import tinydata").returncode == 0
    assert overlay("list").stdout == ""
    # and one at another place
    assert overlay("create", str(tmp_path / "data" / "mine")).returncode == 0
    status = json.loads(overlay("-n", str(tmp_path / "data" / "mine"), "status", "--json").stdout)
    assert (status["overlay"], status["path"]) == ("mine", str(tmp_path / "data" / "mine"))
    for name in ("..", "a b", "-x", "naïve"):
        assert overlay("create", "--", name).returncode == 2, name
    assert [name for name in os.listdir(home / ".overlay") if name[0] not in ".s"] == ["teaching"]


def test_another_overlay_keeps_the_hubs_rules(overlay: Overlay) -> None:
    spec = {SPEC_ENV: Spec(deny=["tinydata"]).to_json()}
    assert overlay("create", "other", **spec).returncode == 0
    done = overlay("-n", "other", "install", "tinydata", **spec)
    assert (done.returncode, "[policy]" in done.stderr) == (1, True)


def test_for_another_image_it_says_what_to_do(overlay: Overlay, home: Path) -> None:
    assert overlay("create").returncode == 0
    (envs,) = (home / ".overlay/default").glob("envs")
    (mine,) = [p for p in envs.iterdir() if not p.name.startswith(".")]
    mine.rename(envs / "cpython-3.8-x86_64-glibc-00000000")
    done = overlay("run", "python")
    assert done.returncode == 1 and "overlay restore" in done.stderr
    done = overlay("create")
    assert done.returncode == 0 and "overlay restore" in done.stdout
    assert overlay("run", "python", "-c", "pass").returncode == 0


# -- as a whole ---------------------------------------------------------------------------------------


def test_help(overlay: Overlay) -> None:
    plain = overlay()
    assert plain.returncode == 0 and plain.stdout.startswith("usage: overlay") and plain.stderr == ""
    assert overlay("--help").stdout == overlay("help").stdout == plain.stdout
    assert overlay("help", "list").stdout == overlay("list", "--help").stdout
    assert overlay("--bogus").returncode == 2
    for name, parser in cli.commands(cli._parser()).items():
        text = parser.format_help()
        assert "Examples:\n" in text, name
        assert re.search(rf"^  (eval .*)?overlay .*\b{name}\b", text, re.MULTILINE), name


@pytest.mark.parametrize(
    ("word", "meant"), [("instal", "install"), ("rm", "uninstall"), ("histroy", "history"), ("qqq", "--help")]
)
def test_a_command_that_is_not_there(word: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word]) == 2
    assert re.search(rf"overlay {meant}\b", capsys.readouterr().err)
    assert cli.main(["--json", "-n", "list", word, "x"]) == 2
    shown = capsys.readouterr()
    assert re.search(rf"overlay {meant}\b", json.loads(shown.out)["hint"]) and not shown.err


@pytest.mark.parametrize(
    "words",
    [
        ["list", "--bogus"],
        ["list", "--scope", "x"],
        ["undo", "x"],
        ["search"],
        ["install", "-U", "x"],
        ["run", "-x"],
        ["completion", "powershell"],
    ],
)
def test_a_mistake_in_a_command_is_a_document_too(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--json", *words]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["code"] == "bad-request" and not shown.err
    assert cli.main(words) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"usage: overlay {words[0]} ") and not shown.out
    assert ("overlay upgrade NAME" in shown.err) is ("-U" in words)


def test_tables_fit_the_terminal(
    used_home: Path,
    environ: dict[str, str],
    pyz: str,
    used: Overlay,
) -> None:
    env = {**environ, "HOME": str(used_home), "TERM": "xterm"}
    command = [sys.executable, "-I", pyz, "cli"]
    for words in (["list", "--scope", "base"], ["history"], ["list"]):
        rc, shown = on_a_terminal([*command, *words], env, 70)
        assert rc == 0
        rows = [re.sub(r"\x1b\[\d*m", "", line) for line in shown.splitlines()]
        assert len(rows) > 1 and max(map(len, rows)) <= 70, rows
        assert "\x1b[1m" in shown, "the heading is bold"
        assert rows[0].split()[0] in ("Package", "No.")
    columns = {row.index(" 1.0") for row in rows if row.startswith("tinydata")}
    assert columns and columns == {rows[0].index("Version") - 1}
    rc, shown = on_a_terminal([*command, "list"], {**env, "NO_COLOR": "1"}, 70)
    assert rc == 0 and "\x1b" not in shown
    piped = used("list", TERM="xterm").stdout
    assert piped == "tinydata  1.0  requested\n"


def test_only_what_was_asked_for_is_printed(used: Overlay) -> None:
    assert used("list", "--quiet").stdout == "tinydata\n"
    assert used("history", "-q").stdout == "1\n"
    assert used("doctor", "-q").stdout == ""
    assert used("plan", "-q", "tinyleaf").stdout == ""
    failed = used("install", "-q", "tinynowhere")
    assert (failed.returncode, failed.stdout, "[no-such-package]" in failed.stderr) == (1, "", True)


def test_the_json_documents_have_the_shapes_that_are_told(used: Overlay) -> None:
    shapes = {name: p.get_default("shape") for name, p in cli.commands(cli._parser()).items()}
    asked = {
        "list": (),
        "status": (),
        "history": (),
        "doctor": (),
        "clean": (),
        "create": (),
        "plan": ("tinyleaf",),
    }
    for name, more in asked.items():
        found = json.loads(used(name, "--json", *more).stdout)
        told = re.sub(r": \[[^\]]*\]", "", shapes[name].replace(": [text]", "")).strip("{}").split(", ")
        assert set(told) - {"..."} <= set(found), name
        assert "..." in told or set(told) == set(found), name


def test_the_other_shells_scripts_have_everything(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = cli.commands(cli._parser())
    for shell in ("zsh", "fish"):
        assert cli.main(["completion", shell]) == 0
        script = capsys.readouterr().out
        for name, parser in verbs.items():
            assert re.search(rf"^ *(?:{name}\)|complete .* -a {name} )", script, re.MULTILINE), (shell, name)
            options = [o for a in parser._actions for o in a.option_strings if o.startswith("--")]
            assert all(option in script or f"-l {option[2:]} " in script for option in options)
        assert "overlay list --quiet" in script and "overlay history --quiet" in script


COMPLETE = """
PATH=$1:$PATH; shift
eval "$(overlay completion bash)"
for line; do
    COMP_WORDS=($line); [[ $line != *' ' ]] || COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=(); _overlay; echo "${COMPREPLY[*]}"
done
"""


def test_bash_completes(used_home: Path, environ: dict[str, str], pyz: str, tmp_path: Path) -> None:
    script = tmp_path / "bin" / "overlay"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{pyz}" cli "$@"\n')
    script.chmod(0o755)
    lines = {
        "overlay un": "uninstall undo",
        "overlay -n list cre": "create",
        "overlay uninstall ": "tinydata",
        "overlay undo ": "1",
        "overlay list --scope ": "overlay base user-site",
        "overlay doctor --f": "--fix",
        "overlay install -r ": "",
        "overlay clean ca": "cache",
    }
    done = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE, "bash", str(script.parent), *lines],
        env={**environ, "HOME": str(used_home)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout.splitlines(), done.stderr) == (list(lines.values()), "")


# -- files that are named -----------------------------------------------------------------------------


def test_a_pipe_is_written_to_and_a_file_keeps_its_permissions(used: Overlay, tmp_path: Path) -> None:
    """A device was replaced by a file: as root, ``-o /dev/null`` took that away from all programs."""
    for command, runs in ((["export", "-q", "-o"], 0), (["pyz", "-q"], 0o111)):
        plain, pipe = tmp_path / "plain", tmp_path / f"pipe-{command[0]}"
        plain.write_text("old")
        plain.chmod(0o600)
        assert used(*command, "plain").returncode == 0
        assert plain.stat().st_mode & 0o777 == 0o600 | runs
        os.mkfifo(pipe)
        with (tmp_path / "got").open("wb") as got:
            reader = subprocess.Popen(["cat", str(pipe)], stdout=got)
        done = used(*command, pipe.name)
        if not pipe.is_fifo():
            reader.kill()
        reader.wait()
        assert done.returncode == 0 and pipe.is_fifo()
        assert (tmp_path / "got").read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("command", [["export", "-o"], ["pyz"]])
def test_where_no_file_can_be(used: Overlay, tmp_path: Path, command: list[str]) -> None:
    done = used(*command, "no/where")
    assert done.returncode == 2
    assert "no/where can't be written: No such file or directory. [bad-request]" in done.stderr
    if command[0] == "export":
        assert "is a directory. [bad-request]" in used(*command, ".").stderr.lower()
        assert used("export", "-q").stdout == used("export", "-q", "-o", "-").stdout
    assert list(tmp_path.glob("**/*.tmp")) == []


# -- names that are mistyped --------------------------------------------------------------------------


def test_a_mistyped_name_makes_no_overlay(used: Overlay, used_home: Path) -> None:
    for words in (["list"], ["uninstall", "x"], ["reset", "--yes"], ["sync"], ["safe"]):
        done = used("-n", "teeching", *words)
        assert done.returncode == 1 and "[no-overlay]" in done.stderr, words
    assert "teeching" not in os.listdir(used_home / ".overlay")


def test_a_directory_of_other_things_is_no_place_for_an_overlay(overlay: Overlay, tmp_path: Path) -> None:
    """Its README was written over, and a reset moved all of it."""
    project = tmp_path / "project"
    (project / "envs").mkdir(parents=True)
    (project / "README.md").write_text("mine")
    for words in (
        ["create", "./project"],
        ["-n", "./project", "install", "tinydata"],
        ["-n", "./project", "reset", "--yes"],
    ):
        done = overlay(*words)
        assert done.returncode == 2 and "holds other things" in done.stderr
    assert sorted(p.name for p in tmp_path.glob("project*/*")) == ["README.md", "envs"]
    assert (project / "README.md").read_text() == "mine"
    assert "project/README.md is a file" in overlay("create", "./project/README.md").stderr
    (tmp_path / "volume" / "lost+found").mkdir(parents=True)
    assert overlay("create", "./volume").returncode == 0
    assert overlay("-n", "./volume", "list").returncode == 0


def test_a_path_that_the_hub_names_keeps_the_users_files(
    open_overlay: Callable[..., Context], home: Path
) -> None:
    (home / "mine").mkdir()
    (home / "mine" / "README.md").write_text("mine")
    assert open_overlay(path="mine").env is not None
    assert (home / "mine" / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("install", "./nope-1.0-py3-none-any.whl"), "There is no file or directory ./nope"),
        (("install", "."), "There is no project in "),
        (("run", "mine.py"), "overlay run python mine.py"),
    ],
)
def test_words_for_what_is_tried(used: Overlay, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "mine.py").write_text("")
    assert said in used(*words).stderr


def test_only_what_is_to_be_known_is_printed(overlay: Overlay) -> None:
    """A package that uv had already was announced by a line about its preparation."""
    overlay("install", "tinydata")
    overlay("uninstall", "tinydata")
    assert overlay("install", "tinydata").stdout == "Installed tinydata 1.0.\n"
