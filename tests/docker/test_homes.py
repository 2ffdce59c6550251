"""Homes that stop a stock server or its kernels: here the server starts, its page loads, a kernel answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import unpacked
from tests.index.recipes import old_distributions
from tests.support.client import Server
from tests.support.hub import RunningHub
from tests.support.images import image

pytestmark = [pytest.mark.engine, pytest.mark.beside]

HOME = "/home/jovyan"
SITE = ".local/lib/python3.11/site-packages"


def starts(hub: RunningHub, user: str) -> Server:
    """Start a server and check what has to work whatever the home is like."""
    server = hub.start_server(user)
    page = server.get("lab")
    assert page.status_code == 200, page.text[:2000]
    assert "jupyter-config-data" in page.text
    assert server.get("api/contents").status_code == 200
    cell = server.run_cell("1+1")
    assert cell.result == "2", cell
    return server


def with_home(hub: RunningHub, user: str, *, mode: str = "rw") -> str:
    """Mount a volume of the user's own at the home, and return its name."""
    volume = hub.engine.make_volume(f"home-of-{user}")
    hub.configure(user, volumes={volume: {"bind": HOME, "mode": mode}})
    return volume


def fails_in_stock(hub: RunningHub, volume: str, command: str = "jupyterhub-singleuser --version") -> None:
    """Check that the home does stop a stock server, so that a test on it can fail."""
    script = f"cd {HOME}; export HOME={HOME} PATH=/opt/conda/bin:$PATH; if {command}; then echo fine; fi"
    said = hub.engine.run_in(volume, HOME, image("stacks"), script)
    assert "fine" not in said, said


def test_sound(hub: RunningHub) -> None:
    assert starts(hub, "sound").overlay("status")["mode"] == "normal"


@pytest.fixture
def full_home(hub: RunningHub) -> Iterator[str]:
    """A volume of 1 MB with nothing free; kept mounted, because a tmpfs forgets when nobody holds it."""
    volume = hub.engine.make_volume(
        "home-of-full",
        driver="local",
        driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000,gid=100,mode=0755"},
    )
    keeper = hub.engine.client.containers.run(
        image("stacks"),
        entrypoint=["sleep", "infinity"],
        name=f"{hub.prefix}-keeper",
        volumes={volume: {"bind": HOME, "mode": "rw"}},
        detach=True,
    )
    done = keeper.exec_run(["/bin/sh", "-c", f"cat /dev/zero > {HOME}/big; echo x > {HOME}/more"])
    assert b"No space left" in done.output, done.output
    try:
        yield volume
    finally:
        keeper.remove(force=True)


def test_full(hub: RunningHub, full_home: str) -> None:
    hub.configure("full", volumes={full_home: {"bind": HOME, "mode": "rw"}})
    server = starts(hub, "full")
    assert "home-full" in server.notices()
    hub.stop_server("full")
    # a stock server dies at its second start at the latest, when it writes ~/.jupyter/migrated
    server = starts(hub, "full")
    assert hub.engine.container("full").exec_run(["stat", "-c", "%s", f"{HOME}/big"]).exit_code == 0


def test_full_becomes_free_again(hub: RunningHub, full_home: str) -> None:
    hub.configure("freed", volumes={full_home: {"bind": HOME, "mode": "rw"}})
    server = starts(hub, "freed")
    assert server.overlay("status")["mode"] == "degraded"
    assert hub.engine.container("freed").exec_run(["rm", f"{HOME}/big"]).exit_code == 0
    hub.stop_server("freed")
    server = starts(hub, "freed")
    assert server.overlay("status")["mode"] == "normal"
    server.install("tinyleaf")


def test_read_only(hub: RunningHub) -> None:
    with_home(hub, "readonly", mode="ro")
    server = starts(hub, "readonly")
    assert "home-unwritable" in server.notices()


def test_owned_by_root(hub: RunningHub) -> None:
    volume = with_home(hub, "rooted")
    hub.engine.run_in(volume, HOME, image("stacks"), f"chown -R 0:0 {HOME}; chmod 0755 {HOME}")
    server = starts(hub, "rooted")
    assert "home-unwritable" in server.notices()


@pytest.mark.parametrize("name", ["traitlets", "sqlalchemy", "jupyter_client"])
def test_old_release_in_user_site(hub: RunningHub, tmp_path: Path, name: str) -> None:
    user = name.replace("_", "")
    volume = with_home(hub, user)
    wheel = next(path for path in old_distributions(tmp_path) if path.name.startswith(f"{name}-"))
    hub.engine.put(volume, image("stacks"), HOME, unpacked(wheel, SITE))
    fails_in_stock(hub, volume)
    starts(hub, user)


def test_all_old_releases_at_once(hub: RunningHub, tmp_path: Path) -> None:
    volume = with_home(hub, "allold")
    for wheel in old_distributions(tmp_path):
        hub.engine.put(volume, image("stacks"), HOME, unpacked(wheel, SITE))
    starts(hub, "allold")


@pytest.mark.network
def test_real_old_releases(hub: RunningHub, tmp_path: Path) -> None:
    volume = with_home(hub, "realold")
    for what in ("traitlets==4.3.3", "sqlalchemy==1.3.24", "jupyter_client==6.1.12"):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "-q",
                "--no-deps",
                "--target",
                str(tmp_path / "site"),
                what,
            ],
            check=True,
            # compiled parts of this machine's own Python are of no use in the image
            env={**os.environ, "DISABLE_SQLALCHEMY_CEXT": "1"},
        )
    site = tmp_path / "site"
    files: dict[str, str | bytes] = {
        f"{SITE}/{path.relative_to(site)}": path.read_bytes() for path in site.rglob("*") if path.is_file()
    }
    hub.engine.put(volume, image("stacks"), HOME, files)
    fails_in_stock(hub, volume)
    starts(hub, "realold")


def test_exiting_tornado(hub: RunningHub) -> None:
    volume = with_home(hub, "tornado")
    hub.engine.put(volume, image("stacks"), HOME, {f"{SITE}/tornado.py": "raise SystemExit('bye')\n"})
    fails_in_stock(hub, volume)
    server = starts(hub, "tornado")
    assert "kernel-rescued" in server.notices()


def test_exiting_pth(hub: RunningHub) -> None:
    volume = with_home(hub, "pth")
    hub.engine.put(volume, image("stacks"), HOME, {f"{SITE}/bye.pth": "import os; os._exit(3)\n"})
    fails_in_stock(hub, volume)
    server = starts(hub, "pth")
    notices = {item["code"]: item["message"] for item in server.overlay("status")["notices"]}
    assert "bye.pth" in notices["kernel-base"]


def test_exiting_pth_in_the_overlay(hub: RunningHub) -> None:
    server = hub.start_server("ownpth")
    cell = server.run_cell(
        "import sysconfig\n"
        "with open(sysconfig.get_path('purelib') + '/bye.pth', 'w') as file:\n"
        "    file.write('import os; os._exit(3)')"
    )
    assert not cell.error, cell
    assert server.run_cell("1+1").result == "2"
    hub.stop_server("ownpth")
    starts(hub, "ownpth")


def test_dangling_user_kernel(hub: RunningHub) -> None:
    volume = with_home(hub, "dangling")
    spec = '{"argv": ["/nonexistent/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], '
    spec += '"display_name": "Gone", "language": "python"}'
    hub.engine.put(volume, image("stacks"), HOME, {".local/share/jupyter/kernels/python3/kernel.json": spec})
    server = starts(hub, "dangling")
    assert server.run_cell("import sys; print(sys.prefix)").text.startswith(f"{HOME}/.overlay/default/envs/")


def test_read_only_root_file_system(hub: RunningHub) -> None:
    hub.configure("fixed", extra_host_config={"read_only": True, "tmpfs": {"/tmp": ""}})
    server = starts(hub, "fixed")
    assert server.overlay("status")["mode"] == "normal"
    server.install("tinyleaf")
    assert server.run_cell("import tinyleaf; print(tinyleaf.__version__)").text == "2.0\n"


def test_damaged_overlay(hub: RunningHub) -> None:
    server = starts(hub, "damaged")
    server.install("tinyleaf")
    done = hub.engine.container("damaged").exec_run(
        [
            "/bin/sh",
            "-ec",
            f"cd {HOME}/.overlay/default; rm envs/*/pyvenv.cfg; echo '{{' > overlay.json",
        ]
    )
    assert done.exit_code == 0, done.output
    hub.stop_server("damaged")
    server = starts(hub, "damaged")
    log = hub.engine.container("damaged").logs().decode(errors="replace")
    assert re.search(r"\[env-broken\] .*pyvenv\.cfg", log), log
    # the server mends it in the background, and nothing has to be installed again
    while server.overlay("status")["mode"] != "normal":
        time.sleep(0.2)
    assert not server.run_cell("import tinyleaf").error
    requirements = hub.engine.container("damaged").exec_run(
        ["cat", f"{HOME}/.overlay/default/requirements.txt"]
    )
    assert b"tinyleaf" in requirements.output


def test_overlay_is_a_file(hub: RunningHub) -> None:
    volume = with_home(hub, "file")
    hub.engine.put(volume, image("stacks"), HOME, {".overlay": "mine\n"})
    server = starts(hub, "file")
    assert server.overlay("status")["mode"] == "degraded"
    assert hub.engine.container("file").exec_run(["cat", f"{HOME}/.overlay"]).output == b"mine\n"
