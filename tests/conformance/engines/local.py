"""OverlayLocalSpawner: processes of this machine, in the environment that the tests run in."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.conformance.adapter import Adapter, Base
from tests.support.hub import index_environment
from tests.support.system_users import SystemUsers, public_python

SIMPLE = """
c.OverlayLocalSpawner.overlay_local_simple = True
c.OverlayLocalSpawner.overlay_payload_dir = harness["directory"] + "/payload"
c.OverlayLocalSpawner.args = ["--allow-root"]
"""

SYSTEM = """
c.OverlayLocalSpawner.overlay_payload_dir = {payload!r}
c.OverlayLocalSpawner.cmd = [{command!r}]
"""


class Local(Adapter):
    """Local processes: of several users of this machine where root runs the tests, else all of one."""

    name = "local"
    users: SystemUsers | None = None

    @cached_property
    def bases(self) -> tuple[Base, Base]:  # type: ignore[override]
        """The environment of the tests, and a second one, with the first one's packages."""
        home = ""  # each user has another one
        prefix = str(public_python(self._place, whole=True).parent) if self.users else sys.prefix
        first = Base(prefix, f"{prefix}/bin/python", prefix, home)
        place = self._place / "second"
        subprocess.run([first.python, "-m", "venv", "--without-pip", str(place)], check=True)
        second = Base(str(place), f"{place}/bin/python", str(place), home)
        (site,) = place.glob("lib/python3*/site-packages")
        (packages,) = Path(prefix).glob("lib/python3*/site-packages")
        (site / "first.pth").write_text(f"import site; site.addsitedir({str(packages)!r})\n")
        (place / "share").symlink_to(Path(prefix) / "share")
        command = place / "bin" / "jupyterhub-singleuser"
        command.write_text(f"#!{second.python}\nfrom jupyterhub.singleuser import main\nmain()\n")
        command.chmod(0o755)
        return first, second

    @property
    def _place(self) -> Path:
        """A directory that all servers can get to."""
        return self.users.directory if self.users else self.directory

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Have the runtime dirs in a place of our own, where what is left over is seen."""
        with ExitStack() as stack:
            if os.geteuid() == 0 and shutil.which("useradd"):
                self.users = stack.enter_context(SystemUsers())
            self._runtime = Path(tempfile.mkdtemp(prefix="ovl-run-", dir=self._place))
            self._runtime.chmod(0o1777)
            yield

    def hub_options(self) -> dict[str, Any]:
        """Return what a machine with several users has, else what the demo without containers has."""
        environment = {**index_environment(self.index, False), "XDG_RUNTIME_DIR": str(self._runtime)}
        config = SIMPLE
        if self.users:
            programs = f"{self.bases[0].prefix}/bin"
            environment["PATH"] = f"{programs}:/usr/bin:/bin"
            payload = str(self.users.directory / "payload")
            config = SYSTEM.format(payload=payload, command=f"{programs}/jupyterhub-singleuser")
        return {"config": config, "spawner": "overlay-local", "docker": False, "environment": environment}

    def user(self, role: str) -> str:
        """Make a user of this machine."""
        return self.users.add().pw_name if self.users else role

    def use_base(self, user: str, base: Base) -> None:
        """Run another environment's command."""
        self.configure(user, cmd=[f"{base.prefix}/bin/jupyterhub-singleuser"])

    def use_home(self, user: str) -> Path:
        """The user's own, or set ``home_dir_template``."""
        if self.users:
            return Path(pwd.getpwnam(user).pw_dir)
        directory = self.directory / user
        self.configure(user, home_dir_template=str(directory))
        return directory

    def owner(self, user: str) -> tuple[int, int]:
        """Return the user, or who runs the tests."""
        if self.users:
            found = pwd.getpwnam(user)
            return found.pw_uid, found.pw_gid
        return os.geteuid(), os.getegid()

    def instance(self, user: str) -> str:
        """Return the process's number."""
        return "".join(self._server(user))

    def runs_on(self, user: str) -> str:
        """Return the environment whose interpreter runs."""
        (process,) = self._server(user)
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        return str(Path(words[0].decode()).parent.parent)

    def _server(self, user: str) -> list[str]:
        prefix = f"JUPYTERHUB_SERVICE_PREFIX=/user/{user}/"
        return [
            number
            for number, told in self._processes()
            if told == prefix and b"singleuser" in Path(f"/proc/{number}/cmdline").read_bytes()
        ]

    def left_over(self) -> list[str]:
        """Processes, and runtime dirs."""
        return [
            *(f"process {process}" for process, _ in self._processes()),
            *(f"runtime dir {path}" for path in self._runtime.glob("overlayspawner*")),
        ]

    def untouched(self, base: Base, code: str) -> str:
        """Run it in the environment itself."""
        return subprocess.run(
            [base.python, "-I", "-c", code], capture_output=True, text=True, check=True
        ).stdout

    def _processes(self) -> Iterator[tuple[str, str]]:
        """Yield this hub's servers and what they started: number, and the variable with the user's name."""
        mark = f"JUPYTERHUB_API_URL=http://127.0.0.1:{self._hub_port}/".encode()
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environ = (directory / "environ").read_bytes()
                if mark in environ:
                    names = [v for v in environ.split(b"\0") if v.startswith(b"JUPYTERHUB_SERVICE_PREFIX=")]
                    yield directory.name, b"".join(names).decode()

    @property
    def _hub_port(self) -> int:
        return int(json.loads((self.hub.directory / "harness.json").read_text())["hub_port"])
