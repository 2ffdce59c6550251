"""OverlayLocalSpawner: processes of this machine, in the environment that the tests run in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.conformance.adapter import Adapter, Base
from tests.support.hub import index_environment

CONFIG = """
c.OverlayLocalSpawner.overlay_local_simple = True
c.OverlayLocalSpawner.overlay_payload_dir = harness["directory"] + "/payload"
c.OverlayLocalSpawner.args = ["--allow-root"]
"""


class Local(Adapter):
    """Local processes, all of them as the user who runs the tests."""

    name = "local"

    @cached_property
    def bases(self) -> tuple[Base, Base]:  # type: ignore[override]
        """The environment of the tests, and a second one, with the first one's packages."""
        home = ""  # each user has another one
        first = Base(sys.prefix, f"{sys.prefix}/bin/python", sys.prefix, home)
        place = self.directory / "second"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
        second = Base(str(place), f"{place}/bin/python", str(place), home)
        (site,) = place.glob("lib/python3*/site-packages")
        (packages,) = Path(sys.prefix).glob("lib/python3*/site-packages")
        (site / "first.pth").write_text(f"import site; site.addsitedir({str(packages)!r})\n")
        (place / "share").symlink_to(Path(sys.prefix) / "share")
        command = place / "bin" / "jupyterhub-singleuser"
        command.write_text(f"#!{second.python}\nfrom jupyterhub.singleuser import main\nmain()\n")
        command.chmod(0o755)
        return first, second

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Have the runtime dirs in a place of our own, where what is left over is seen."""
        self._runtime = Path(tempfile.mkdtemp(prefix="ovl-run-", dir=self.directory))
        yield

    def hub_options(self) -> dict[str, Any]:
        """Return what the demo without containers has."""
        environment = {**index_environment(self.index, False), "XDG_RUNTIME_DIR": str(self._runtime)}
        return {"config": CONFIG, "spawner": "overlay-local", "docker": False, "environment": environment}

    def use_base(self, user: str, base: Base) -> None:
        """Run another environment's command."""
        self.configure(user, cmd=[f"{base.prefix}/bin/jupyterhub-singleuser"])

    def use_home(self, user: str) -> Path:
        """Set ``home_dir_template``."""
        directory = self.directory / user
        self.configure(user, home_dir_template=str(directory))
        return directory

    def owner(self, user: str) -> tuple[int, int]:
        """Return who runs the tests."""
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
