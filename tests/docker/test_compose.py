"""Our class composes with what administrators set and with what images do at their start."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.client import Server
from tests.support.hub import RunningHub, SpawnFailed
from tests.support.images import image
from tests.support.index import LocalIndex

pytestmark = [pytest.mark.engine, pytest.mark.beside]

HOME = "/home/jovyan"


def works(server: Server, *, home: str = HOME) -> None:
    """Check that there is an overlay, that it takes a package, and that a kernel sees it."""
    status = server.overlay("status")
    assert status["mode"] == "normal", status
    assert status["path"].startswith(home), status
    server.install("tinyleaf")
    cell = server.run_cell("import tinyleaf; print(tinyleaf.__file__)")
    assert cell.text.startswith(f"{home}/"), cell


def command_line(hub: RunningHub, user: str) -> list[str]:
    """Return the command line of the single-user server's process."""
    script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done; true"
    result = hub.engine.container(user).exec_run(["/bin/sh", "-c", script], user="0")
    return [line for line in result.output.decode().splitlines() if "jupyterhub-singleuser" in line]


def test_entrypoint_is_the_server(hub: RunningHub) -> None:
    """The image has an entry point that takes options and an empty command."""
    hub.configure("entry", image=image("entrypoint"))
    works(hub.start_server("entry"))


def test_entrypoint_is_the_server_and_args(hub: RunningHub) -> None:
    hub.configure("entryargs", image=image("entrypoint"), args=["--ServerApp.max_body_size=123456789"])
    works(hub.start_server("entryargs"))
    assert any("--ServerApp.max_body_size=123456789" in line for line in command_line(hub, "entryargs"))


def test_no_python(hub: RunningHub) -> None:
    """No Python in the image: its own server starts, and the log says why there is no overlay."""
    hub.configure("nopython", image=image("nopython"))
    server = hub.start_server("nopython")
    assert "not written in Python" in server.get("").text
    log = hub.engine.container("nopython").logs().decode()
    assert "overlayspawner: [no-python]" in log


def test_arguments_and_environment(hub: RunningHub) -> None:
    hub.configure(
        "args",
        args=["--ServerApp.max_body_size=123456789"],
        environment={"FROM_THE_ADMIN": "a 'quoted' value with $HOME\nand lines"},
        default_url="/tree",
    )
    server = hub.start_server("args")
    assert any("--ServerApp.max_body_size=123456789" in line for line in command_line(hub, "args"))
    cell = server.run_cell("import os; print(repr(os.environ['FROM_THE_ADMIN']))")
    assert cell.text == repr("a 'quoted' value with $HOME\nand lines") + "\n"
    assert server.get("").url.split("?")[0].endswith("/user/args/tree")
    works(server)


def test_notebook_dir(hub: RunningHub) -> None:
    hub.configure("nbdir", notebook_dir="/var/tmp")
    server = hub.start_server("nbdir")
    assert server.put_text("here.txt", "x\n").status_code == 201
    found = hub.engine.container("nbdir").exec_run(["cat", "/var/tmp/here.txt"])
    assert found.output == b"x\n", found.output
    works(server)


def test_command_of_the_administrator(hub: RunningHub) -> None:
    hub.configure("command", cmd=["start-singleuser.py"])
    works(hub.start_server("command"))
    hub.configure("plaincommand", cmd=["jupyterhub-singleuser"], args=["--ServerApp.max_body_size=1000000"])
    works(hub.start_server("plaincommand"))


def test_post_start_cmd(hub: RunningHub) -> None:
    hub.configure("poststart", post_start_cmd="touch /tmp/post-start-was-here")
    works(hub.start_server("poststart"))
    assert (
        hub.engine.container("poststart").exec_run(["test", "-e", "/tmp/post-start-was-here"]).exit_code == 0
    )


def test_root_start(hub: RunningHub) -> None:
    """docker-stacks as root: NB_UID and CHOWN_HOME; the overlay belongs to the final user."""
    volume = hub.engine.make_volume("root-start")
    hub.configure(
        "rootstart",
        extra_create_kwargs={"user": "root"},
        environment={"NB_UID": "1234", "NB_GID": "100", "CHOWN_HOME": "yes"},
        volumes={volume: HOME},
    )
    server = hub.start_server("rootstart")
    assert server.run_cell("import os; print(os.getuid())").text == "1234\n"
    works(server)
    owners = hub.engine.container("rootstart").exec_run(
        ["find", f"{HOME}/.overlay", "!", "-uid", "1234"], user="0"
    )
    assert owners.output == b""
    hub.stop_server("rootstart")
    server = hub.start_server("rootstart")
    assert server.run_cell("import tinyleaf; print(tinyleaf.__version__)").text == "2.0\n"


def test_root_start_as_another_user(hub: RunningHub) -> None:
    volume = hub.engine.make_volume("root-nbuser")
    hub.configure(
        "nbuser",
        extra_create_kwargs={"user": "root"},
        environment={"NB_USER": "rosa", "NB_UID": "1235", "NB_GID": "100", "CHOWN_HOME": "yes"},
        volumes={volume: "/home/rosa"},
        notebook_dir="/home/rosa",
    )
    server = hub.start_server("nbuser")
    assert (
        server.run_cell("import os; print(os.getuid(), os.path.expanduser('~'))").text == "1235 /home/rosa\n"
    )
    works(server, home="/home/rosa")


def test_root_that_stays_root(hub: RunningHub) -> None:
    volume = hub.engine.make_volume("stay-root")
    hub.configure(
        "stayroot",
        extra_create_kwargs={"user": "root"},
        environment={"NB_UID": "0", "NB_USER": "root"},
        args=["--allow-root"],
        volumes={volume: "/root"},
        notebook_dir="/root",
    )
    server = hub.start_server("stayroot")
    assert server.run_cell("import os; print(os.getuid())").text == "0\n"
    works(server, home="/root")


def test_any_uid(hub: RunningHub) -> None:
    """A uid that the image does not know, as some platforms give: no name, a home it can't write to."""
    hub.configure("anyuid", extra_create_kwargs={"user": "54321:0"})
    server = hub.start_server("anyuid")
    assert server.get("lab").status_code == 200
    assert server.run_cell("1+1").result == "2"


def test_named_servers(index: LocalIndex) -> None:
    config = "c.JupyterHub.allow_named_servers = True"
    with RunningHub(config, image=image("stacks"), index=index) as own:
        first = own.start_server("many", "one")
        second = own.start_server("many", "two")
        works(first)
        # one home, one overlay: the other server sees the package at once
        cell = second.run_cell("import tinyleaf; print(tinyleaf.__version__)")
        assert cell.text == "2.0\n", cell
        own.stop_server("many", "one")
        second.install("tinydata")
        own.stop_server("many", "two")


@pytest.mark.parametrize("kind", ["stacks", "venv"])
def test_internal_ssl(index: LocalIndex, kind: str) -> None:
    config = """
c.JupyterHub.internal_ssl = True
c.ConfigurableHTTPProxy.api_url = harness["proxy_api"].replace("http:", "https:")
c.JupyterHub.trusted_alt_names = [f"IP:{harness['hub_ip']}"]
# the hub runs outside of Docker's network, where containers have no names
c.DockerSpawner.use_internal_hostname = False
c.Spawner.ssl_alt_names = ["IP:127.0.0.1"]
c.DockerSpawner.move_certs_image = "{debian}"
""".replace("{debian}", image("debian"))
    with RunningHub(config, image=image(kind), index=index) as own:
        try:
            server = own.start_server("secret")
        except SpawnFailed as e:
            # DockerSpawner does not wait for the end of the container that brings the certificates
            running = re.search(r"/containers/([0-9a-f]{64}).*cannot remove a running container", str(e))
            if not running:
                raise
            own.engine.client.containers.get(running[1]).remove(force=True)
            server = own.start_server("secret")
        works(server, home="/home")


def test_disabled(hub: RunningHub) -> None:
    hub.configure("disabled", overlay_enabled=False)
    server = hub.start_server("disabled")
    attributes = hub.engine.container("disabled").attrs
    assert not any(m["Destination"].startswith("/opt/overlayspawner") for m in attributes["Mounts"])
    assert not any(item.startswith("OVERLAYSPAWNER") for item in attributes["Config"]["Env"])
    assert attributes["Config"]["Entrypoint"] == ["tini", "-g", "--", "start.sh"]
    assert server.get("overlay/v1/status").status_code == 404
    assert server.run_cell("import sys; print(sys.prefix)").text == "/opt/conda\n"


ENVIRONMENTS = """
import os, json
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{pid}/cmdline") as cmdline, open(f"/proc/{pid}/environ") as environ:
            words, variables = cmdline.read().split("\\0"), environ.read().split("\\0")
    except OSError:
        continue
    if "python" in words[0] and any(word.endswith("/jupyterhub-singleuser") for word in words):
        print(json.dumps(dict(item.split("=", 1) for item in variables if item)))
"""


def test_the_servers_environment_is_the_images(hub: RunningHub) -> None:
    """The server runs on the base alone, and what it starts besides our kernels sees no trace of us."""
    server = hub.start_server("clean")
    result = hub.engine.container("clean").exec_run(["/opt/conda/bin/python", "-c", ENVIRONMENTS])
    (environment,) = [json.loads(line) for line in result.output.decode().splitlines()]
    assert not {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "OVERLAYSPAWNER_SPEC"} & set(environment)
    assert environment["PATH"].startswith("/opt/conda/bin:")
    cell = server.run_cell("import json, os; print(json.dumps(dict(os.environ)))", "python3-base")
    marks = ("OVERLAYSPAWNER", ".overlay/", "/overlayspawner-", "/opt/overlayspawner")
    everything = json.loads(cell.text).items()
    own = {name: value for name, value in everything if any(mark in name + value for mark in marks)}
    # the one place of ours outside the home, which every program gets from the server: sockets and the like
    assert set(own) <= {"JUPYTER_RUNTIME_DIR"}, own


def test_extension_of_the_administrator_is_kept(hub: RunningHub) -> None:
    """JUPYTER_CONFIG_PATH and JUPYTER_PATH that an administrator sets go on working."""
    volume = hub.engine.make_volume("config")
    spec = json.dumps({"argv": ["cat"], "display_name": "Theirs", "language": "none"})
    hub.engine.put(
        volume,
        image("stacks"),
        "/mnt",
        {
            "kernels/theirs/kernel.json": spec,
            "jupyter_server_config.json": '{"ServerApp": {"allow_origin": "https://theirs.example"}}',
        },
    )
    hub.configure(
        "theirs",
        volumes={volume: "/srv/jupyter"},
        environment={"JUPYTER_PATH": "/srv/jupyter", "JUPYTER_CONFIG_PATH": "/srv/jupyter"},
    )
    server = hub.start_server("theirs")
    assert "theirs" in server.get("api/kernelspecs").json()["kernelspecs"]
    assert server.get("api/status").headers["Access-Control-Allow-Origin"] == "https://theirs.example"
    works(server)
