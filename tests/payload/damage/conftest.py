"""A home with an overlay that was used, and what a container's start does with it, as an ordinary user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from overlayspawner.hub import boot, payload_zip
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import Spec
from overlayspawner.payload.overlay import BASE_PTH, Env
from tests.support.user import as_user

STATE = ("journal", "lease.json", "lock", "snapshot.json", "restore.json", "base.json")
"""Files that an env's ``.overlay`` may hold."""


class Started:
    """What a start left: the server's view of its overlay, and what the log says."""

    def __init__(self, context: Context, log: str) -> None:
        self.context = context
        self.log = log

    def codes(self) -> dict[str, str]:
        """Return code → message, of the start and of its kernels."""
        found = {n["code"]: n["message"] for n in self.context.notices}
        for path in (Path(self.context.runtime) / "notices").iterdir():
            data = json.loads(path.read_text())
            found[data["code"]] = data["message"]
        return found


class Damaged:
    """A home, a payload, and a Python to start a server on.

    Parameters
    ----------
    root:
        A directory of its own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.overlay = self.home / ".overlay" / "default"
        for name in ("home", "run", "bin", "payload"):
            (root / name).mkdir()
        for name, data in payload_zip.build().contents().items():
            (root / "payload" / name).write_bytes(data)
        (root / "payload" / "COMPLETE").write_text("")
        single = root / "bin" / "jupyterhub-singleuser"
        single.write_text(f"#!{sys.executable}\n")
        single.chmod(0o755)

    def start(self, **spec: Any) -> Started:
        """Start a "server" through the launcher; fail unless its command ran, unchanged."""
        command = boot.wrap(["sh", "-c", 'echo "$1 $OVERLAYSPAWNER_RUNTIME"', "x", "a b"])
        command[2] = boot.boot(str(self.root / "payload"))
        done = subprocess.run(
            [*as_user(), *command],
            env={
                "HOME": str(self.home),
                "PATH": f"{self.root / 'bin'}:/usr/bin:/bin",
                "XDG_RUNTIME_DIR": str(self.root / "run"),
                "OVERLAYSPAWNER_SPEC": Spec(**spec).to_json(),
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert "bootstrap-failed" not in done.stderr
        assert done.stdout.startswith("a b /"), done.stderr
        return Started(Context.load(done.stdout[4:].strip()), done.stderr)

    @property
    def env(self) -> Env:
        (path,) = (p for p in (self.overlay / "envs").iterdir() if not p.name.startswith("."))
        return Env(str(path), f"{sys.version_info[0]}.{sys.version_info[1]}")

    def use(self) -> None:
        """Fill the overlay as if it had been used."""
        env = self.env
        site = Path(env.site_packages)
        (site / "mine.py").write_text("x = 42\n")
        (site / "mine-1.0.dist-info").mkdir()
        (site / "mine-1.0.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n"
        )
        (site / "mine-1.0.dist-info" / "RECORD").write_text("mine.py,,\nmine-1.0.dist-info/RECORD,,\n")
        (self.overlay / "requirements.txt").write_text("mine\n")
        (self.overlay / "revisions" / "000001.json").write_text(
            '{"schema": 1, "id": 1, "action": "install"}\n'
        )
        Path(env.lock_file).write_text('lock-version = "1.0"\n')
        for name in STATE:
            (Path(env.state) / name).write_text("{}\n")

    def kernel(self, started: Started, code: str) -> str:
        """Start the kernel ``python3`` as a server would; return what the code prints."""
        runtime = Path(started.context.runtime)
        spec = json.loads((runtime / "share/jupyter/kernels/python3/kernel.json").read_text())
        spec["argv"] = [*as_user(), *spec["argv"]]
        kernels = self.root / f"kernels-{uuid.uuid4().hex}"
        (kernels / "python3").mkdir(parents=True)
        (kernels / "python3" / "kernel.json").write_text(json.dumps(spec))
        manager = KernelManager(
            kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernels)])
        )
        out: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                out.append(message["content"]["text"])

        manager.start_kernel(env={**os.environ, "HOME": str(self.home), "PYTHONNOUSERSITE": "1"})
        client = manager.client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=60)
            reply = client.execute_interactive(code, output_hook=hook, timeout=60)
            assert reply["content"]["status"] == "ok", reply["content"]
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
        return "".join(out)


def remove(path: Path) -> None:
    """Take away what is there, without following links."""
    if path.is_dir() and not path.is_symlink():
        for entry in path.iterdir():
            remove(entry)
        path.rmdir()
    elif os.path.lexists(path):
        path.unlink()


def _put(data: bytes, mode: int = 0o644) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        remove(path)
        path.write_bytes(data)
        path.chmod(mode)

    return do


def _truncate(path: Path) -> None:
    if path.is_dir():
        return _put(b"")(path)
    data = path.read_bytes()
    return _put(data[: len(data) // 2])(path)


def _directory(path: Path) -> None:
    remove(path)
    path.mkdir()


def _unreadable(path: Path) -> None:
    if path.is_symlink():
        _put(b"#!/bin/sh\n")(path)
    path.chmod(0)


def _link(target: str) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        remove(path)
        path.symlink_to(target.format(name=path.name))

    return do


def _pipe(path: Path) -> None:
    remove(path)
    os.mkfifo(path)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": _put(b""),
    "truncated": _truncate,
    "garbage": _put(bytes(range(256)) * 8),
    "garbage that can be run": _put(b"\x7fELF" + bytes(range(256)), 0o755),
    "zeros": _put(b"\0" * 300),
    "gone": remove,
    "a directory": _directory,
    "mode 000": _unreadable,
    "a dangling link": _link("/nonexistent/{name}"),
    "a loop of links": _link("{name}"),
    # not to /, which the root of a user namespace may write to
    "a link to a stranger's": _link("/proc/1"),
    "a pipe": _pipe,
}


def ours(home: Damaged) -> dict[str, Path]:
    """Return our files by name."""
    overlay, env = home.overlay, home.env
    root = Path(env.path)
    found = {
        "overlay.json": overlay / "overlay.json",
        "requirements.txt": overlay / "requirements.txt",
        "README.md": overlay / "README.md",
        "revisions": overlay / "revisions",
        "a revision": overlay / "revisions" / "000001.json",
        "pyvenv.cfg": root / "pyvenv.cfg",
        "python": Path(env.python),
        "pip": root / "bin" / "pip",
        "bin": root / "bin",
        "pip.conf": root / "pip.conf",
        ".pth": Path(env.site_packages) / BASE_PTH,
        "site-packages": Path(env.site_packages),
        "lib": root / "lib",
        "lock": Path(env.lock_file),
        "state": Path(env.state),
        "env": root,
        "envs": overlay / "envs",
        "overlay": overlay,
        ".overlay": overlay.parent,
    }
    for name in STATE:
        found[f"state/{name}"] = Path(env.state) / name
    return found


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[Damaged]:
    home = Damaged(tmp_path)
    assert home.start().context.mode == "normal"
    home.use()
    yield home
    for path in tmp_path.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
