"""pip and uv as terminals and notebooks find them: what they change is recorded, all else is theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from overlayspawner.payload import adopt, asked, lockfile, merge, revisions, runtime
from overlayspawner.payload.context import Context
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.lease import acquire, holder
from overlayspawner.payload.probe import Base
from tests.support.envs import base, make_context  # noqa: F401  (a fixture)
from tests.support.index import LocalIndex
from tests.support.terminal import open_terminal, tool
from tests.support.wheels import make_sdist

UV_FOLDER = os.path.dirname(sys.executable)


@pytest.fixture
def ctx(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    monkeypatch: pytest.MonkeyPatch,
) -> Context:
    """A server's runtime dir with its commands; the environment is that of a terminal."""
    made = make_context(tmp_path / "home", base, index_url=index.url)
    return open_terminal(made, tmp_path, index.url, monkeypatch)


def lines(ctx: Context) -> list[str]:
    overlay, _ = ctx.require()
    return Path(overlay.requirements).read_text().splitlines()


def actions(ctx: Context) -> list[str]:
    overlay, _ = ctx.require()
    return [str(r["action"]) for r in reversed(revisions.list_revisions(overlay))]


def test_pip_install_is_recorded_as_it_was_asked(ctx: Context) -> None:
    shown = tool(ctx, "pip", "install", "tinytree>=1,<3", "tinyleaf")
    assert "Successfully installed" in shown
    assert lines(ctx) == ["tinyleaf", "tinytree>=1,<3"]
    overlay, _ = ctx.require()
    revision = revisions.latest(overlay)
    assert revision is not None
    assert revision["argv"] == ["pip", "install", "tinytree>=1,<3", "tinyleaf"]
    assert revision["who"] == "pip command"
    assert not adopt.needed(ctx)
    assert not any(merge.pending(overlay).values())
    assert [n for n in os.listdir(ctx.runtime) if "report" in n] == []


def test_the_lock_has_the_hashes_that_pip_reports(ctx: Context) -> None:
    tool(ctx, "pip", "install", "tinytree>=1,<3")
    _, env = ctx.require()
    assert lockfile.read(env.lock_file).packages["tinytree"].hashes


def test_pip_uninstall_takes_the_line_along(ctx: Context) -> None:
    tool(ctx, "pip3", "install", "-q", "tinydata")
    tool(ctx, "pip", "uninstall", "-y", "tinydata")
    assert lines(ctx) == []
    assert actions(ctx) == ["adopt", "adopt"]


def test_a_requirements_file_with_hashes(ctx: Context) -> None:
    listed = Path(ctx.home) / "wanted.txt"
    listed.write_text("# for work\ntinydata>=1  # why\n-r more.txt\n")
    (Path(ctx.home) / "more.txt").write_text("tinymany\n")
    tool(ctx, "pip", "install", "-q", "-r", "wanted.txt")
    assert lines(ctx) == ["tinydata>=1", "tinymany"]


def test_a_url_is_recorded_by_what_pip_reports(ctx: Context, tmp_path: Path) -> None:
    sdist = make_sdist(tmp_path, "tinysource", "1.0")
    tool(ctx, "pip", "install", "-q", "--no-build-isolation", str(sdist))
    assert lines(ctx) == [f"tinysource @ file://{sdist}"]


def test_the_exit_code_is_the_tools_own(ctx: Context) -> None:
    before = actions(ctx)
    shown = tool(ctx, "pip", "install", "no-such-thing-anywhere", ok=False)
    assert "No matching distribution" in shown
    assert lines(ctx) == []
    assert actions(ctx) == before


def test_what_changes_nothing_passes_through(ctx: Context, tmp_path: Path) -> None:
    assert "tinyleaf" in tool(ctx, "pip", "list")
    tool(ctx, "pip", "install", "-q", "--target", str(tmp_path / "elsewhere"), "tinydata")
    assert (tmp_path / "elsewhere" / "tinydata").is_dir()
    tool(ctx, "pip", "install", "-q", "--dry-run", "tinydata")
    assert "uv" in tool(ctx, "uv", "--version")
    assert lines(ctx) == []
    assert actions(ctx) == []
    assert not adopt.needed(ctx)


def test_another_environment_is_not_ours(ctx: Context, tmp_path: Path) -> None:
    other = tmp_path / "other"
    tool(ctx, "uv", "venv", "-q", str(other))
    url = os.environ["PIP_INDEX_URL"]
    tool(ctx, "uv", "pip", "install", "-q", "--index-url", url, "tinydata", VIRTUAL_ENV=str(other))
    assert list(other.glob("lib/*/site-packages/tinydata"))
    assert lines(ctx) == []
    assert actions(ctx) == []


def test_uv_respects_the_image(ctx: Context) -> None:
    """Plain uv would copy tinyleaf 1.1, which the image has."""
    shown = tool(ctx, "uv", "pip", "install", "tinytree<2")
    assert " + tinytree==1.0" in shown
    _, env = ctx.require()
    assert set(overlay_dists(env)) == {"tinytree"}
    assert lines(ctx) == ["tinytree<2"]
    assert actions(ctx) == ["install"]
    overlay, _ = ctx.require()
    latest = revisions.latest(overlay)
    assert latest is not None
    assert latest["argv"] == ["uv", "pip", "install", "tinytree<2"]
    assert not adopt.needed(ctx)


def test_uv_with_options_of_its_own_runs_itself(ctx: Context) -> None:
    url = os.environ["PIP_INDEX_URL"]
    tool(ctx, "uv", "pip", "install", "--no-deps", "--index-url", url, "tinydata")
    assert lines(ctx) == ["tinydata"]
    assert actions(ctx) == ["adopt"]
    tool(ctx, "uv", "pip", "uninstall", "tinydata")
    assert lines(ctx) == []
    assert actions(ctx) == ["adopt", "adopt"]


def test_an_error_of_our_installer_is_said_plainly(ctx: Context) -> None:
    shown = tool(ctx, "uv", "pip", "install", "no-such-thing-anywhere", ok=False)
    assert "error: " in shown
    assert "Traceback" not in shown


def test_another_writer_makes_it_wait_then_give_up(ctx: Context) -> None:
    _, env = ctx.require()
    with acquire(env, who="the other one"):
        shown = tool(ctx, "pip", "install", "tinydata", ok=False)
    assert "the other one" in shown
    assert "Traceback" not in shown
    assert overlay_dists(env) == {}


def test_without_a_server_the_tool_works_plainly(ctx: Context) -> None:
    os.unlink(os.path.join(ctx.runtime, "server.json"))
    tool(ctx, "pip", "install", "-q", "tinydata")
    assert adopt.needed(ctx)
    assert lines(ctx) == []


def test_an_interrupted_pip_leaves_the_lease_free_and_nothing_unrecorded(
    ctx: Context, index: LocalIndex
) -> None:
    _, env = ctx.require()
    slow = index.prefixed("slow")
    argv = ["pip", "install", "-i", slow, "--no-cache-dir", "tinybig"]
    process = subprocess.Popen(
        ["/bin/sh", "-c", '"$@"', "sh", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:  # until it fetches
        if "Downloading" in line or "Collecting" in line:
            break
    assert holder(env) == "pip command" or _held(ctx)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    rest = process.stdout.read()
    assert process.wait(60) != 0
    assert "Traceback" not in rest
    with acquire(env, who="next"):
        pass
    assert not adopt.needed(ctx)
    assert lines(ctx) == []


def test_a_killed_wrapper_keeps_others_out_while_pip_runs(ctx: Context, index: LocalIndex) -> None:
    slow = index.prefixed("slow")
    argv = [os.path.join(ctx.runtime, "bin", "pip"), "install", "-i", slow, "--no-cache-dir", "tinybig"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "Downloading" in line or "Collecting" in line:
            break
    process.kill()
    process.wait()
    assert _held(ctx)
    process.stdout.read()  # pip goes on to its end
    _, env = ctx.require()
    with acquire(env, wait=10):
        pass
    adopt.adopt(ctx)
    assert lines(ctx) == ["tinybig"]


def _held(ctx: Context) -> bool:
    from overlayspawner.payload.contract import OverlayError

    _, env = ctx.require()
    try:
        with acquire(env):
            return False
    except OverlayError as e:
        return e.code == "busy"


@pytest.mark.parametrize(
    ("argv", "verb", "wanted"),
    [
        (["pip", "install", "-U", "a>=1", "b"], "install", ["a>=1", "b"]),
        (
            ["pip", "-q", "--proxy", "http://p", "install", "--log", "eager", "a"],
            "install",
            ["a"],
        ),
        (["pip", "install", "-Uqi", "http://x/simple", "--", "a"], "install", ["a"]),
        (["pip", "install", "--extra-index-url=http://x", "a[b]==1 ; python_version>'3'"], "install", None),
        (["pip", "install", "."], "install", []),
        (["pip", "uninstall", "-y", "a"], "uninstall", []),
        (["pip", "download", "install"], "", []),
        (["uv", "pip", "install", "-p", "3.11", "a"], "install", ["a"]),
        (["uv", "-q", "pip", "install", "-P", "x", "a"], "install", ["a"]),
        (["uv", "sync"], "", []),
        (["uv", "tool", "install", "a"], "", []),
        (["pip", "install", "--trusted", "host", "a"], "install", ["a"]),
    ],
)
def test_commands_are_taken_apart(argv: list[str], verb: str, wanted: list[str] | None) -> None:
    command = asked.read(argv)
    assert command.verb == verb
    if wanted is None:
        assert [r.name for r in command.requirements()] == ["a"]
    elif verb:
        assert [r.text for r in command.requirements()] == wanted


def test_only_what_may_change_something_takes_the_way_through_our_python(ctx: Context) -> None:
    plain = Path(ctx.runtime, "plain", "pip")
    plain.unlink()  # a new file: the old one must not be busy
    plain.write_text('#!/bin/sh\necho plain "$@"\n')
    plain.chmod(0o755)
    os.unlink(os.path.join(ctx.runtime, "server.json"))
    assert tool(ctx, "pip", "list") == "plain list\n"
    assert tool(ctx, "pip", "install", "x", OVERLAYSPAWNER_WRAPPED="1") == "plain install x\n"


@pytest.mark.parametrize("payload", ["gone", "empty", "folder"])
def test_without_our_payload_the_tool_works(ctx: Context, tmp_path: Path, payload: str) -> None:
    """An empty file ended well, with nothing installed."""
    path = tmp_path / "overlay.pyz"
    ctx.payload = str(path)
    path.write_text("not yet")
    plain = Path(ctx.runtime, "plain", "pip")
    runtime.write_commands(ctx, {"PATH": os.environ["PATH"]})
    plain.unlink()
    plain.write_text('#!/bin/sh\necho plain "$@"\n')
    plain.chmod(0o755)
    path.unlink()
    if payload == "empty":
        path.touch()
    elif payload == "folder":
        path.mkdir()
    assert tool(ctx, "pip", "install", "x") == "plain install x\n"


@pytest.mark.parametrize(
    "line", ["-e file://{home}/mine#egg=mine", "tinydata @ https://me:secret@127.0.0.1:9/x"]
)
def test_a_file_with_lines_that_only_a_user_may_write_is_uvs(ctx: Context, line: str) -> None:
    """Our own installer refuses them from others: that is no reason for a command to fail."""
    from overlayspawner.payload import wrapper

    file = Path(ctx.home, "more.txt")
    file.write_text(f"tinydata\n{line.format(home=ctx.home)}\n")
    assert not wrapper._is_ours(asked.read(["uv", "pip", "install", "-r", str(file)]))
    file.write_text("tinydata\n")
    assert wrapper._is_ours(asked.read(["uv", "pip", "install", "-r", str(file)]))
