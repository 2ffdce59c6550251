"""The command line as a user runs it: its own process, a home, an index, a pipe or a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from overlayspawner.payload import bootstrap, cli, cli_context, files
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import CODES, SPEC_ENV, Spec
from overlayspawner.payload.probe import probe
from tests.support.index import LocalIndex
from tests.support.tty import on_a_terminal

pytestmark = pytest.mark.slow

Overlay = Callable[..., "subprocess.CompletedProcess[str]"]


def env_python(home: Path) -> str:
    (python,) = (home / ".overlay" / "default" / "envs").glob("*/bin/python")
    return str(python)


def tree(home: Path) -> dict[str, bytes]:
    ignored = ("lease.json", "lock", ".lock", "stubs.json")
    # uv's cache beside the overlay may grow, whatever becomes of the change; so may the kept stubs
    paths = (
        p
        for p in sorted((home / ".overlay" / "default").rglob("*"))
        if p.is_file() and p.name not in ignored and "/.overlay/stubs/" not in str(p)
    )
    return {str(p): p.read_bytes() for p in paths}


def test_a_day(overlay: Overlay, home: Path) -> None:
    assert overlay("list").stdout == ""
    assert not list(home.iterdir())  # looking makes nothing
    done = overlay("install", "tinytree", "tinyscript==1.0")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "tinytree 2.0" in done.stdout and "tinyleaf 2.0" in done.stdout
    code = "import tinytree, tinyleaf; print(tinytree.__version__)"
    assert subprocess.check_output([env_python(home), "-c", code], text=True) == "2.0\n"

    rows = [line.split() for line in overlay("list").stdout.splitlines()]
    assert rows == [["tinyleaf", "2.0"], ["tinyscript", "1.0", "requested"], ["tinytree", "2.0", "requested"]]
    assert "nothing to change" in overlay("sync").stdout

    done = overlay("install", "tinyleaf<2")
    assert done.returncode == 0 and "Restart running kernels" in done.stdout
    done = overlay("uninstall", "tinyleaf")
    assert done.returncode == 0 and "tinyleaf stays installed: it is needed by tinytree" in done.stdout
    assert overlay("upgrade").returncode == 0
    assert "tinytree  2.0" in re.sub(" +", "  ", overlay("list").stdout)
    assert overlay("uninstall", "tinytree").returncode == 0
    assert overlay("list").stdout.split() == ["tinyscript", "1.0", "requested"]

    words = [line.split("  ")[-1] for line in overlay("history").stdout.splitlines()]
    assert words == [
        "uninstall tinytree",
        "upgrade tinyleaf tinyscript tinytree",
        "uninstall tinyleaf",
        "install tinyleaf<2",
        "install tinytree tinyscript==1.0",
    ]
    status = overlay("status").stdout
    assert str(home / ".overlay" / "default") in status and "normal" in status
    examined = overlay("doctor")
    assert examined.returncode == 0 and "BAD" not in examined.stdout, examined.stdout


def test_searching_and_what_is_outdated(overlay: Overlay, home: Path) -> None:
    assert overlay("list", "--outdated").stdout == "" and not list(home.iterdir())
    found = overlay("search", "tinyleaf")
    assert found.returncode == 0 and "A test package called tinyleaf." in found.stdout, found
    assert overlay("search", "scikit", "learn").stdout.split()[0] == "scikit-learn"
    assert json.loads(overlay("search", "--json", "tinyleaf").stdout)["index"] == "found"
    assert "owned" in overlay("search", "tinyhtml").stdout
    assert overlay("install", "tinytree==1.0", "tinyscript").returncode == 0
    assert overlay("list", "--outdated").stdout == ""
    requirements = home / ".overlay" / "default" / "requirements.txt"
    requirements.write_text(requirements.read_text().replace("tinytree==1.0", "tinytree"))
    assert overlay("list", "--outdated").stdout.split() == ["tinytree", "1.0", "2.0"]
    updates = json.loads(overlay("list", "--outdated", "--json").stdout)["updates"]
    assert updates == [{"name": "tinytree", "version": "1.0", "newest": "2.0"}]
    assert overlay("list", "--outdated", "--scope", "base").returncode == 2
    dead = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    done = overlay("list", "--outdated", **dead)
    assert (done.returncode, done.stdout) == (1, "") and "did not answer" in done.stderr
    done = overlay("search", "tinyscript2", **dead)
    assert done.returncode == 0 and "did not answer" in done.stderr
    assert done.stdout.split()[:4] == ["tinyscript", "1.0", "installed", "A"]


def test_undo_restore_and_history(overlay: Overlay, home: Path) -> None:
    overlay("install", "tinytree==1.0")
    overlay("install", "tinytree==2.0", "tinydata")
    assert "change 2" in overlay("status").stdout
    done = overlay("undo")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "tinytree  1.0" in re.sub(" +", "  ", overlay("list").stdout)
    assert "Restart running kernels" in done.stdout
    done = overlay("undo", "--json")
    assert json.loads(done.stdout)["revision"]["undoes"] == 1
    assert overlay("list").stdout == ""
    done = overlay("undo")
    assert (done.returncode, "[cannot-undo]" in done.stderr) == (1, True)
    assert overlay("restore", "2").returncode == 0
    assert "tinytree  2.0" in re.sub(" +", "  ", overlay("list").stdout)
    assert overlay("restore", "0").returncode == 0
    assert overlay("list").stdout == ""

    rows = [re.split("  +", line) for line in overlay("history").stdout.splitlines()]
    assert [row[0] for row in rows] == ["6", "5", "4", "3", "2", "1"]
    assert [row[3] for row in rows[2:]] == [
        "undo 1",
        "undo 2",
        "install tinytree==2.0 tinydata",
        "install tinytree==1.0",
    ]
    assert {row[2] for row in rows} == {"command line"}
    assert all(re.fullmatch(r"[0-9-]{10}T[0-9:]{8}Z", row[1]) for row in rows)
    assert "BAD" not in overlay("doctor").stdout


def test_starting_over(overlay: Overlay, environ: dict[str, str], home: Path, pyz: str) -> None:
    overlay("install", "tinyleaf")
    done = overlay("reset", "--yes")
    (folder,) = (home / ".overlay").glob("default.reset-*")
    assert (done.returncode, done.stderr, str(folder) in done.stdout) == (0, "", True)
    assert overlay("list").stdout == "" and overlay("doctor").returncode == 0
    assert overlay("history").stdout.endswith(f"reset (moved to {folder})\n")
    assert json.loads(overlay("status", "--json").stdout)["undoable"] == {"revision": 1, "offline": True}
    done = overlay("undo")
    assert done.returncode == 0, done
    assert overlay("list").stdout.split() == ["tinyleaf", "2.0", "requested"]
    code = "import tinyleaf; print(tinyleaf.__version__)"
    assert subprocess.check_output([env_python(home), "-c", code], text=True) == "2.0\n"
    examined = overlay("doctor")
    assert "BAD" not in examined.stdout, examined.stdout
    assert "undo (a reset)" in overlay("history").stdout
    # what came before the reset can be undone then
    assert overlay("undo").returncode == 0 and overlay("list").stdout == ""

    for answer, code in (("n\n", 1), ("\n", 1), ("yes\n", 0)):
        before = tree(home)
        master, slave = pty.openpty()
        command = [sys.executable, "-I", pyz, "cli", "reset"]
        process = subprocess.Popen(command, env=environ, stdin=slave, stderr=slave, stdout=subprocess.PIPE)
        os.close(slave)
        os.write(master, answer.encode())
        assert process.wait(60) == code
        os.close(master)
        assert (tree(home) == before) is (code == 1)


def test_safe_mode_for_the_next_start(overlay: Overlay, home: Path) -> None:
    assert overlay("safe").returncode == 0
    assert "next start" in overlay("status").stdout
    assert json.loads(overlay("safe", "--off", "--json").stdout) == {"mode": "normal"}
    assert "next start" not in overlay("status").stdout
    overlay("safe")
    overlay("install", "tinyleaf")  # no start: it is still asked for
    base = probe()
    assert bootstrap.open_storage(Spec(), base, str(home)).mode == "safe"
    assert bootstrap.open_storage(Spec(), base, str(home)).mode == "normal"


def test_repairing_in_safe_mode(
    open_overlay: Callable[..., Context], overlay: Overlay, home: Path, index: LocalIndex
) -> None:
    overlay("install", "tinytree")
    context = open_overlay(index_url=index.url, safe=True)
    command = [os.path.join(context.runtime, "bin", "overlay")]
    environ = {"HOME": str(home), "PATH": "/usr/bin:/bin"}

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *argv], env=environ, capture_output=True, text=True, timeout=60)

    assert "safe" in run("status").stdout and "tinytree" in run("list").stdout
    assert run("doctor").returncode == 0
    kernels = os.path.join(context.runtime, "share/jupyter/kernels")
    before = sorted(os.walk(kernels))
    done = run("uninstall", "tinytree")
    assert done.returncode == 0, done
    assert run("undo").returncode == 0 and "tinytree" in run("list").stdout
    assert sorted(os.walk(kernels)) == before  # this server's kernels stay the image's
    assert run("reset", "--yes").returncode == 0 and run("list").stdout == ""
    assert os.listdir(home) == [".overlay"]


def test_a_file_of_requirements(overlay: Overlay, home: Path, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("# mine\ntinyleaf==1.1  # the old one\n\ntinydata\n")
    assert overlay("install", "-r", "more.txt", "tinyscript").returncode == 0
    assert (home / ".overlay/default/requirements.txt").read_text().split() == [
        "tinyscript",
        "tinyleaf==1.1",
        "tinydata",
    ]
    (tmp_path / "limits.txt").write_text("tinytree<2\n")
    done = overlay("plan", "--json", "-r", "more.txt", "tinytree", "-c", "limits.txt")
    new = {item["name"]: item["version"] for item in json.loads(done.stdout)["new"]}
    assert new == {"tinytree": "1.0"}, done.stderr
    (tmp_path / "odd.txt").write_text("tinypre\n--index-url=http://evil/\n")
    done = overlay("install", "-r", "odd.txt")
    assert (done.returncode, "option-not-allowed" in done.stderr) == (2, True)
    assert overlay("install", "-r", "missing.txt").returncode == 2


def test_json(overlay: Overlay) -> None:
    done = overlay("install", "--json", "tinytree==1.0")
    result = json.loads(done.stdout)
    assert [p["name"] for p in result["plan"]["new"]] == ["tinyleaf", "tinytree"]
    assert (result["revision"]["id"], result["revision"]["changed"], done.stderr) == (1, True, "")
    (tree_,) = [p for p in json.loads(overlay("list", "--json").stdout)["packages"] if p["requested"]]
    assert (tree_["name"], tree_["version"], tree_["where"]) == ("tinytree", "1.0", "overlay")
    assert json.loads(overlay("status", "--json").stdout)["base"]["changed"] is False
    assert json.loads(overlay("history", "--json").stdout)["revisions"][0]["action"] == "install"
    checks = json.loads(overlay("doctor", "--json").stdout)["checks"]
    assert all(check["ok"] for check in checks) and len(checks) > 5
    error = json.loads(overlay("uninstall", "--json", "tinynowhere").stdout)
    assert error["code"] == "not-installed" and set(error) >= {"code", "message", "hint"}
    base = json.loads(overlay("list", "--json", "--scope", "base").stdout)["packages"]
    assert "jupyterhub" in {p["name"] for p in base}


@pytest.mark.parametrize(
    ("argv", "code", "word"),
    [
        (("explode",), 2, "usage"),
        (("install",), 2, "bad-request"),
        (("install", "--index-url=http://evil/", "tinyleaf"), 2, "usage"),
        (("install", "--", "--index-url=http://evil/"), 2, "option-not-allowed"),
        (("install", "tiny leaf"), 2, "bad-requirement"),
        (("install", "tinyleaf", "=="), 2, "bad-requirement"),
        (("uninstall",), 2, "usage"),
        (("uninstall", "tinyleaf==2.0"), 2, "bad-requirement"),
        (("list", "--scope", "moon"), 2, "usage"),
        (("install", "tinynowhere"), 1, "no-such-package"),
        (("install", "tinyleaf>=99"), 1, "no-matching-version"),
        (("install", "tinyleft", "tinyright"), 1, "conflict"),
        (("install", "tinyrefuse"), 1, "build-failed"),
        (("uninstall", "tinynowhere"), 1, "not-installed"),
        (("uninstall", "jupyterhub"), 1, "in-base"),
        (("undo", "one"), 2, "usage"),
        (("undo", "--", "-1"), 2, "usage"),
        (("undo", "99"), 1, "cannot-undo"),
        (("restore", "1.5"), 2, "usage"),
        (("reset",), 2, "bad-request"),
        (("reset", "--json"), 2, "bad-request"),
        (("reset", "now"), 2, "usage"),
        (("import", "nowhere"), 2, "bad-request"),
        (("safe", "3"), 2, "usage"),
    ],
)
def test_failures_change_nothing_and_say_why(
    overlay: Overlay, used_home: Path, argv: tuple[str, ...], code: int, word: str
) -> None:
    before = tree(used_home)
    assert len(before) > 5
    done = overlay(*argv, HOME=str(used_home))
    assert done.returncode == code, done
    said = done.stdout if "--json" in argv else done.stderr
    assert word in said and done.stdout + done.stderr == said and "Traceback" not in said
    assert word == "usage" or word in CODES
    assert tree(used_home) == before


def test_quiet_in_a_pipe_and_progress_in_a_terminal(
    overlay: Overlay, environ: dict[str, str], pyz: str, tmp_path: Path
) -> None:
    piped = overlay("install", "tinyleaf")
    assert piped.stderr == "" and piped.stdout == "Installed tinyleaf 2.0.\n"
    rc, shown = on_a_terminal([sys.executable, "-I", pyz, "cli", "install", "tinytree"], environ, columns=60)
    assert rc == 0
    assert "\r\x1b[J" in shown and "Installed tinytree 2.0." in shown
    lines = re.split(r"\r(?:\x1b\[\d+A)?\x1b\[J|\r\n", shown)
    assert max(len(line) for line in lines) <= 60


def test_a_reader_that_has_enough(overlay: Overlay, environ: dict[str, str], pyz: str) -> None:
    overlay("install", "tinyleaf")
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-I", pyz, "cli", "list"]
    done = subprocess.run(command, env=environ, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_control_c_ends_cleanly(
    environ: dict[str, str], home: Path, pyz: str, index: LocalIndex, overlay: Overlay
) -> None:
    overlay("install", "tinyleaf")
    before = tree(home)
    seen = len(index.requests)
    command = [sys.executable, "-I", pyz, "cli", "install", "tinytree"]
    hanging = {**environ, "PIP_INDEX_URL": index.prefixed("hang")}
    process = subprocess.Popen(
        command, env=hanging, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while len(index.requests) == seen:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "[cancelled]" in err and "Traceback" not in err
    assert tree(home) == before
    assert overlay("install", "tinytree").returncode == 0


def test_in_a_container_whose_environment_still_holds_the_spec(overlay: Overlay, home: Path) -> None:
    spec = Spec(name="other", path=".packages/{name}", mounts=[{"path": str(home), "ro": False}]).to_json()
    assert overlay("install", "tinyleaf", **{SPEC_ENV: spec}).returncode == 0
    assert (home / ".packages/other/requirements.txt").read_text() == "tinyleaf\n"
    done = overlay("status", **{SPEC_ENV: "{"})
    assert (done.returncode, "[bad-spec]" in done.stderr) == (1, True)


def test_without_a_home(overlay: Overlay, tmp_path: Path) -> None:
    done = overlay("install", "tinyleaf", HOME=str(tmp_path / "nowhere"))
    assert done.returncode == 1 and "Traceback" not in done.stderr and done.stderr.startswith("overlay: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be root")
def test_root_makes_nothing_in_another_user_s_home(overlay: Overlay, home: Path) -> None:
    os.chown(home, 12345, 12345)
    done = overlay("install", "tinyleaf")
    assert (done.returncode, "[root-start]" in done.stderr) == (1, True)
    assert not list(home.iterdir())


def test_with_the_overlay_s_own_python(
    overlay: Overlay, environ: dict[str, str], home: Path, pyz: str
) -> None:
    overlay("install", "tinyleaf")
    command = [env_python(home), "-I", pyz, "cli", "list"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["tinyleaf", "2.0", "requested"]), done
    # without one file there is nothing to go on with
    module = os.path.join(os.path.dirname(cli.__file__), "__main__.py")
    command = [env_python(home), "-I", module, "cli", "list"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "image's Python" in done.stderr


def test_in_a_server_s_terminal_and_after_its_end(
    open_overlay: Callable[..., Context], overlay: Overlay, home: Path, index: LocalIndex
) -> None:
    context = open_overlay(index_url=index.url)
    command = [os.path.join(context.runtime, "bin", "overlay")]
    environ = {"HOME": str(home), "PATH": "/usr/bin:/bin"}  # the index is in the spec alone
    done = subprocess.run(
        [*command, "install", "tinyleaf"], env=environ, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "Installed tinyleaf 2.0.\n"), done
    files.remove_tree(os.path.join(context.runtime, "server.json"))
    done = subprocess.run([*command, "list"], env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["tinyleaf", "2.0", "requested"]


# -- doctor -------------------------------------------------------------------------------------------


def bad(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    checks = json.loads(done.stdout)["checks"]
    found = {check["name"]: check["message"] for check in checks if not check["ok"]}
    assert done.returncode == (1 if found else 0)
    assert all(check["hint"] for check in checks if not check["ok"])
    return found


@pytest.fixture
def site(overlay: Overlay, home: Path) -> Path:
    """The env's site-packages, with tinytree and tinyleaf installed."""
    assert overlay("install", "tinytree").returncode == 0
    (found,) = (home / ".overlay/default/envs").glob("*/lib/python*/site-packages")
    return found


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (lambda site: (site / "tinyleaf-2.0.dist-info/INSTALLER").unlink(), "incomplete"),
        (lambda site: (site / "tinyleaf-2.0.dist-info/RECORD").unlink(), "incomplete"),
        (lambda site: (site / "~inyleaf").mkdir(), "incomplete"),
        (lambda site: (site / "tinyleaf.py").unlink(), "files"),
        (lambda site: (site.parents[2] / ".overlay/stage-left").mkdir(), "unfinished"),
        (lambda site: (site.parents[2] / ".overlay/journal.json").write_text("{}"), "unfinished"),
        (
            lambda site: (site.parents[4] / "requirements.txt").write_text("tinytree\ntinydata>=1\n"),
            "requirements",
        ),
        (lambda site: (site.parents[4] / "requirements.txt").write_text("tinytree<2\n"), "requirements"),
        (lambda site: (site.parents[4] / "requirements.txt").write_text("--pre\n"), "requirements"),
        (lambda site: (site / "exits.pth").write_text("import sys; sys.exit('boo')\n"), "interpreter"),
        (lambda site: (site.parents[2] / "pyvenv.cfg").unlink(), "env"),
        (lambda site: (site.parents[2] / "bin/python").unlink(), "env"),
    ],
)
def test_the_doctor_finds(
    overlay: Overlay, home: Path, site: Path, damage: Callable[[Path], object], check: str
) -> None:
    assert bad(overlay("doctor", "--json")) == {}
    damage(site)
    before = tree(home)
    assert set(bad(overlay("doctor", "--json"))) == {check}
    assert tree(home) == before


def test_the_doctor_repairs_what_was_interrupted(overlay: Overlay, site: Path) -> None:
    state = site.parents[2] / ".overlay"
    (state / "stage-left").mkdir()
    done = overlay("doctor", "--fix")
    assert done.returncode == 0, done.stdout
    assert not (state / "stage-left").exists()


def test_the_doctor_mends_a_damaged_env(overlay: Overlay, site: Path, home: Path) -> None:
    env = site.parents[2]
    (env / "bin/python").unlink()
    (site / "mine.txt").write_text("kept\n")
    done = overlay("doctor", "--fix")
    assert done.returncode == 0 and "was mended" in done.stdout, done
    assert (
        subprocess.check_output([env_python_of(env), "-c", "import tinytree; print(1)"], text=True) == "1\n"
    )
    assert (site / "mine.txt").exists()


def env_python_of(env: Path) -> str:
    return str(env / "bin" / "python")


def test_the_doctor_says_who_is_writing(overlay: Overlay, site: Path, home: Path) -> None:
    from overlayspawner.payload import lease

    base = probe()
    found = bootstrap.open_storage(Spec(), base, str(home))
    from overlayspawner.payload.overlay import Env

    with lease.acquire(Env(found.env, base.version), who="a test"):
        done = overlay("doctor")
        assert done.returncode == 0 and "a test is changing the overlay" in done.stdout
        busy = overlay("install", "tinydata")
        assert (busy.returncode, "[busy]" in busy.stderr) == (1, True)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_mistake_of_ours_shows_no_traceback(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(runtime: str, **options: object) -> Context:
        raise RuntimeError("at https://me:hunter2@example.org/")

    monkeypatch.setattr(cli_context, "find", broken)
    assert cli.main(["status", *options]) == 1
    out, err = capsys.readouterr()
    text = out + err
    assert "Traceback" not in text and "hunter2" not in text
    assert "RuntimeError in test_cli.py, line" in text and "internal" in text


def test_a_plan(overlay: Overlay, home: Path) -> None:
    # without an overlay there is none to make: looking makes nothing
    done = overlay("plan", "tinytree")
    assert done.returncode == 1 and "[no-overlay]" in done.stderr
    assert not list(home.iterdir())
    assert overlay("install", "tinydata", "tinyleaf<2").returncode == 0
    before = tree(home)
    done = overlay("plan", "tinyscript", "tinyleaf>=2", "--uninstall", "tinydata")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [re.sub(" +", " ", line) for line in done.stdout.splitlines()]
    assert "Removes tinydata 1.0." in lines
    assert "- tinydata 1.0" in lines
    assert any(re.fullmatch(r"\+ tinyleaf 2\.0 \d+ (bytes|kB) instead of 1\.1", line) for line in lines)
    assert any(re.fullmatch(r"\+ tinyscript 1\.0 \d+ (bytes|kB)", line) for line in lines)
    done = overlay("plan", "--json", "tinysdist", "--upgrade", "tinyleaf")
    found = json.loads(done.stdout)
    assert found["builds"] == [{"name": "tinysdist", "version": "1.0"}]
    assert {item["name"] for item in found["new"]} >= {"tinysdist"}
    for argv, code, text in (
        (["plan"], 2, "bad-request"),
        (["plan", "tiny leaf"], 2, "bad-requirement"),
        (["plan", "tinynowhere"], 1, "no-such-package"),
        (["plan", "--uninstall", "tinytree"], 1, "not-installed"),
        (["plan", "--pre"], 2, "unrecognized"),
    ):
        done = overlay(*argv)
        assert done.returncode == code and text in done.stderr, (argv, done)
        assert "Traceback" not in done.stderr
    assert tree(home) == before
