"""A terminal of a server: the runtime dir's commands on the path, and how they are run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from overlayspawner.payload import runtime
from overlayspawner.payload.context import Context


def open_terminal(ctx: Context, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Context:
    """Make a server's runtime dir with its commands; the environment is then that of a terminal.

    Parameters
    ----------
    folder:
        Where the runtime dir is made.
    url:
        The index that the user has set for pip.
    """
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    ctx.runtime = str(folder / "runtime")
    os.mkdir(ctx.runtime, 0o700)
    (folder / "runtime" / "server.json").write_text(ctx.to_json())
    runtime.make_folders(ctx.runtime)
    # uv is where an image may have one
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    runtime.write_commands(ctx, {"PATH": path})
    monkeypatch.setenv("PATH", runtime.search_path(ctx, path))
    monkeypatch.setenv("VIRTUAL_ENV", ctx.require()[1].path)
    return ctx


def tool(ctx: Context, *argv: str, ok: bool = True, **environ: str) -> str:
    """Run a command as a shell would find it; return what it prints."""
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@"', "sh", *argv],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        cwd=ctx.home,
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout + done.stderr
