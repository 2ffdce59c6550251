"""Images with their Python in different places, and containers of them that are started as a hub does it.

What they are is said in the Dockerfiles of ``tests/images``. The conda-like one is made from wheels.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.hub import boot, bundles
from overlayspawner.hub.delivery import fill
from overlayspawner.payload.contract import PAYLOAD_DIR, SPEC_ENV, UV_DIR, Spec
from tests.support.engine import Engine
from tests.support.images import BUILD, image
from tests.support.index import LocalIndex


@dataclass(frozen=True)
class Layout:
    """One way in which an image can have its Python.

    Parameters
    ----------
    image:
        Name of the test image.
    python:
        The interpreter that the single-user server runs on.
    home:
        The user's home directory: ``HOME``.
    user:
        As for ``docker run --user``, with a home directory that is not what ``/etc/passwd`` says; empty for
        the image's own.
    wheels:
        The image whose wheels hold what a kernel needs.
    """

    image: str
    python: str
    home: str
    wheels: str
    user: str = ""


LAYOUTS = {
    "py39": Layout("py39", "/usr/bin/python3.9", "/data/elsewhere", "py39", "1000:1000"),
    # nobody in /etc/passwd has this number
    "py313": Layout("py313", "/usr/bin/python3.13", "/data/nobody", "py313", "4321:0"),
    "py314": Layout("py314", "/opt/venv/bin/python", "/home/user", "py314"),
    "usrlocal": Layout("usrlocal", "/usr/local/bin/python3.11", "/home/user", "usrlocal"),
    "conda": Layout("conda", "/opt/conda/bin/python", "/home/jovyan", "stacks"),
    "purevenv": Layout("purevenv", "/opt/venv/bin/python", "/home/user", "venv"),
}


class Box:
    """A running container with an overlay, and what a user does in it."""

    def __init__(self, container: Any, layout: Layout) -> None:
        self.container = container
        self.layout = layout
        self.runtime = self.sh("echo /tmp/overlayspawner-*/server.json").strip().removesuffix("/server.json")

    def log(self) -> str:
        """Return what the container printed."""
        return str(self.container.logs().decode(errors="replace"))

    def sh(self, script: str) -> str:
        """Run a shell script as the container's user; return its standard output."""
        done = self.container.exec_run(
            ["/bin/sh", "-c", script],
            user=self.layout.user,
            environment={"HOME": self.layout.home},
            demux=True,
        )
        out, err = ((part or b"").decode(errors="replace") for part in done.output)
        assert done.exit_code == 0, f"{script}\n{out}\n{err}\n{self.log()}"
        return out

    def run(self, python: str, code: str, *options: str) -> Any:
        """Run code in a Python; return the JSON that it prints."""
        done = self.container.exec_run(
            [python, *(options or ("-I",)), "-c", code],
            user=self.layout.user,
            environment={"HOME": self.layout.home},
            demux=True,
        )
        out, err = ((part or b"").decode(errors="replace") for part in done.output)
        assert done.exit_code == 0, f"{code}\n{out}\n{err}"
        return json.loads(out.splitlines()[-1])

    def base(self, code: str) -> Any:
        """Run code in the image's Python."""
        return self.run(self.layout.python, code)

    def env(self, code: str) -> Any:
        """Run code in the overlay's Python."""
        return self.run(f"{self.env_path}/bin/python", code)

    @functools.cached_property
    def server(self) -> dict[str, Any]:
        """What the start found."""
        found: dict[str, Any] = json.loads(self.sh(f"cat {self.runtime}/server.json"))
        return found

    @property
    def env_path(self) -> str:
        """The env of this server."""
        return str(self.server["env"])

    def overlay(self, *words: str, code: int = 0) -> Any:
        """Run the command ``overlay``; return its answer."""
        done = self.container.exec_run(
            [f"{self.runtime}/bin/overlay", words[0], "--json", *words[1:]],
            user=self.layout.user,
            environment={"HOME": self.layout.home},
            demux=True,
        )
        out, err = ((part or b"").decode(errors="replace") for part in done.output)
        assert done.exit_code == code, f"{words}: {done.exit_code}\n{out}\n{err}"
        return json.loads(out)

    def new(self, *words: str) -> dict[str, str]:
        """Run ``overlay``; return what it has installed."""
        return {item["name"]: item["version"] for item in self.overlay(*words)["plan"]["new"]}

    def problems(self) -> list[str]:
        """Return what ``overlay doctor`` does not like."""
        done = self.sh(f"{self.runtime}/bin/overlay doctor --json || true")
        return [
            f"{check['name']}: {check['message']}" for check in json.loads(done)["checks"] if not check["ok"]
        ]

    def notices(self) -> list[str]:
        """Return the codes of all notices."""
        return sorted(n["code"] for n in self.overlay("status")["notices"])

    def kernel(self, code: str, name: str = "python3") -> str:
        """Start a kernel as the server would, run code in it, and return what it prints."""
        script = KERNEL.format(kernels=f"{self.runtime}/share/jupyter/kernels", name=name, code=code)
        return str(self.base(script))


KERNEL = """
import json
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
km = KernelManager(kernel_name={name!r}, kernel_spec_manager=KernelSpecManager(kernel_dirs=[{kernels!r}]))
km.start_kernel()
kc = km.client()
kc.start_channels()
try:
    kc.wait_for_ready(timeout=60)
    out = []
    hook = lambda m: out.append(m["content"].get("text") or str(m["content"].get("evalue") or ""))
    kc.execute_interactive({code!r}, output_hook=hook, timeout=60)
finally:
    kc.stop_channels()
    km.shutdown_kernel(now=True)
print(json.dumps("".join(out).strip()))
"""


class Yard:
    """Makes homes and containers; everything is removed in the end."""

    def __init__(self, index: LocalIndex) -> None:
        self.index = index
        self.engine = Engine(f"ovl-layout-{uuid.uuid4().hex[:8]}")
        self._mounts: dict[str, dict[str, str]] = {}

    def _delivered(self, tag: str) -> dict[str, dict[str, str]]:
        uv = bundles.find_uv()
        assert uv is not None, "the development environment has uv"
        for directory, bundle in ((PAYLOAD_DIR, bundles.payload_bundle()), (UV_DIR, uv.bundle())):
            own = dataclasses.replace(
                bundle, volume=f"{self.engine.prefix}-{Path(directory).name}", label="overlayspawner.test"
            )
            if own.volume not in self._mounts:
                self.engine.client.volumes.create(own.volume)
                fill(self.engine.client.api, own, tag)
                self._mounts[own.volume] = {"bind": directory, "mode": "ro"}
        return self._mounts

    def home(self, layout: Layout, name: str = "home") -> str:
        """Make a volume that belongs to the user of a layout."""
        volume = self.engine.make_volume(f"{name}-{uuid.uuid4().hex[:6]}")
        owner = layout.user or "1000"
        self.engine.run_in(volume, "/v", image(layout.image), f"chown {owner} /v")
        return volume

    def start(
        self, layout: Layout, home: str = "", *, variable: bool = True, uv: bool = True, **spec: Any
    ) -> Box:
        """Start a container of a layout on a home (a volume), and wait until its command runs.

        ``variable=False`` leaves out the variable ``HOME`` that a layout with a user of its own needs,
        ``uv=False`` the hub's uv.
        """
        tag = image(layout.image)
        delivered = self._delivered(tag)
        if not uv:
            delivered = {name: mount for name, mount in delivered.items() if mount["bind"] != UV_DIR}
        mounts = [{"path": layout.home, "ro": False}] if home else []
        made = Spec(mounts=mounts, **{"index_url": self.index.container_url, **spec})
        container = self.engine.client.containers.run(
            tag,
            boot.wrap(["sh", "-c", "echo started; exec sleep 900"]),
            detach=True,
            init=True,
            name=f"{self.engine.prefix}-{uuid.uuid4().hex[:6]}",
            user=layout.user or None,
            environment={
                SPEC_ENV: made.to_json(),
                "PIP_TRUSTED_HOST": self.index.container_host,
                **({"HOME": layout.home} if layout.user and variable else {}),
            },
            volumes={**delivered, **({home: {"bind": layout.home, "mode": "rw"}} if home else {})},
        )
        for line in container.logs(stream=True, follow=True):
            if line.startswith(b"started"):
                break
        return Box(container, layout)

    def stop(self, box: Box) -> None:
        """Throw a container away."""
        box.container.remove(force=True)


@pytest.fixture(scope="session")
def kernel_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalIndex]:
    """An index that also has what a kernel needs, for each of the Pythons."""
    with LocalIndex(tmp_path_factory.mktemp("layouts-index")) as index:
        for name in sorted({layout.wheels for layout in LAYOUTS.values()}):
            argv = [sys.executable, str(BUILD), "--wheels", name]
            folder = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
            for path in sorted(Path(folder).glob("*.whl")):
                if path.name not in index.files:
                    index.add(path, requires_python=_requires_python(path))
        yield index


def _requires_python(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode()).get("Requires-Python") or ""


@pytest.fixture(scope="session")
def yard(kernel_index: LocalIndex) -> Iterator[Yard]:
    made = Yard(kernel_index)
    yield made
    made.engine.clean()
