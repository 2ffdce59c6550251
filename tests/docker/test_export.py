"""Exports do what they are for: what they make has the overlay's packages, on a real engine."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.client import Server
from tests.support.hub import RunningHub
from tests.support.images import image
from tests.support.index import LocalIndex, make_wheel

pytestmark = [pytest.mark.engine, pytest.mark.beside]

CODE = (
    "import importlib.metadata as m, sys, tinyleaf, jupyterlab;"
    "print(tinyleaf.__version__, [m.version(n) for n in ('tinyextra', 'iniconfig')], sys.argv[1:])"
)


@pytest.fixture(scope="module", params=["stacks", "venv"])
def server(
    hub: RunningHub,
    request: pytest.FixtureRequest,
    index: LocalIndex,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server with an overlay, on an image whose Python is no venv, and on one whose Python is one."""
    user = f"exporter{request.param}"
    if "iniconfig" not in index.projects:
        index.add(make_wheel(tmp_path_factory.mktemp("wheels"), "iniconfig", "99.0"))
    hub.configure(user, image=image(request.param))
    running = hub.start_server(user)
    # the last one hides a package of the image
    running.install("tinyleaf<2", "tinyextra", "iniconfig>=99")
    yield running
    hub.stop_server(user)


def run(*argv: str, stdin: str = "") -> str:
    environ = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(
        argv, env=environ, input=stdin, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_line_rebuilds_it(hub: RunningHub, server: Server) -> None:
    made = server.overlay("export?format=docker")
    line = made["content"].rstrip("\n")
    assert "\n" not in line
    # nobody sits at a terminal here, and the container is to be known as this test's
    line = line.replace(" -it ", f" --name {hub.prefix}-export ", 1)
    words = shlex.join(["python", "-c", CODE, "it is", "$HOME"])
    assert run("sh", "-c", f"{line} {words}").strip() == "1.1 ['1.0', '99.0'] ['it is', '$HOME']"
    assert any("instead of the image's" in note for note in made["notes"])
    # podman's is the same line
    other = server.overlay("export?format=podman")["content"]
    assert other == "podman" + made["content"].removeprefix("docker")


def test_the_dockerfile_builds(hub: RunningHub, server: Server) -> None:
    text = server.overlay("export?format=dockerfile")["content"]
    tag = f"{hub.prefix}-export"
    try:
        run("docker", "build", "--quiet", "--force-rm", "--tag", tag, "-", stdin=text)
        # with the image's own start and user
        look = ["python", "-c", "import os; " + CODE + "; print(os.getuid())"]
        told = run("docker", "run", "--rm", "--name", f"{tag}-2", "--entrypoint", "", tag, *look)
        assert told.splitlines() == ["1.1 ['1.0', '99.0'] []", "1000"]
    finally:
        subprocess.run(["docker", "image", "rm", "--force", tag], capture_output=True, check=False)
