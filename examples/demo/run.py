"""Run a JupyterHub to try, until Ctrl-C.

    make demo                        or: .venv/bin/python examples/demo/run.py
    PORT=8010 make demo              on another port of 127.0.0.1
    ENGINE=local make demo           servers as processes on this machine, no containers
    IMAGE=quay.io/… make demo        another image

Prints the address, a user and a password. Ctrl-C stops the hub, its proxy and the servers, and leaves only
the user's volume (or, without containers, the user's folder in `.cache/demo`).
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "demo"
STOCK_IMAGE = "quay.io/jupyter/base-notebook"
USER = "demo"
PREFIX = "overlay-demo"
START_SECONDS = 60
STOP_SECONDS = 60

# Where a machine's administrator puts certificates of their own, which stock images can't know.
OWN_CERTIFICATES = Path("/usr/local/share/ca-certificates")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
CERTIFICATES_INSIDE = "/etc/ssl/certs/demo-host.crt"


def say(text: str) -> None:
    print(f"demo: {text}", flush=True)


def fail(text: str) -> NoReturn:
    say(text)
    raise SystemExit(1)


def stop_on_signal(*_: object) -> NoReturn:
    """Leave by an exception, so that all that was started is stopped on the way out."""
    raise KeyboardInterrupt


def only_one() -> Any:
    """Take the lock that a running demo holds; returns the open file, or ends the program."""
    CACHE.mkdir(parents=True, exist_ok=True)
    lock = open(CACHE / "lock", "a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        where = lock.read().strip() or "its address is in its own terminal"
        fail(f"a demo runs already ({where}); stop it first, with Ctrl-C in its terminal")
    lock.truncate(0)
    return lock


def check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            fail(f"port {port} of 127.0.0.1 can't be used ({error.strerror}): `make demo PORT=8010` moves it")


def free_port(address: str) -> int:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            fail(f"the hub can't listen on {address}, where containers would look for it: {error.strerror}")
        return int(probe.getsockname()[1])


def output_of(*command: str) -> str:
    """What a command prints; empty when it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def find_engine() -> str:
    """`docker`, or `local` where no engine can be had."""
    asked = os.environ.get("ENGINE", "docker")
    if asked == "local":
        return asked
    if asked != "docker":
        fail(f"the demo knows ENGINE=docker and ENGINE=local, not {asked!r}")
    if subprocess.run([str(ROOT / "scripts" / "engine.sh")], check=False).returncode == 0:
        return "docker"
    say("no container engine can be had here, so servers run as local processes (ENGINE=local)")
    return "local"


def bridge_address() -> str:
    """This machine's address on Docker's default bridge, at which containers reach it."""
    found = output_of("docker", "network", "inspect", "--format", "{{json .IPAM.Config}}", "bridge")
    for item in json.loads(found or "null") or []:
        network = ipaddress.ip_network(item.get("Subnet", "::/0"))
        if network.version == 4:
            # Docker leaves the gateway out until the bridge has had a container; it is the first address.
            return str(item.get("Gateway") or network.network_address + 1)
    fail("Docker's bridge has no address of this machine, so containers could not reach the hub")


def find_image() -> str:
    """The stock image where a registry answers, else one that is built here and like it."""
    image = os.environ.get("IMAGE", "")
    wanted = image or STOCK_IMAGE
    if output_of("docker", "image", "inspect", "--format", "{{.Id}}", wanted):
        return wanted
    say(f"getting the image {wanted} (some minutes, about 1 GB)")
    pull = subprocess.run(["docker", "pull", wanted], stderr=subprocess.PIPE, text=True, check=False)
    if pull.returncode == 0:
        return wanted
    if image:
        fail(f"the image {image} can't be had: {pull.stderr.strip()}")
    say("no registry gives it to this machine: taking one built here (three minutes the first time)")
    build = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "images" / "build.py"), "stacks"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if build.returncode != 0:
        fail("the image could not be built; what went wrong is above")
    return build.stdout.split()[-1]


def find_proxy() -> list[str]:
    """The command of configurable-http-proxy: npm's, or PyPI's where there is no Node."""
    local = ROOT / ".cache" / "node" / "node_modules" / ".bin" / "configurable-http-proxy"
    if not local.exists() and shutil.which("node") and shutil.which("npm"):
        subprocess.run([str(ROOT / "scripts" / "tools.sh"), "proxy"], check=False)
    if local.exists() and shutil.which("node"):
        return [str(local)]
    installed = shutil.which("configurable-http-proxy")
    if installed:
        return [installed]
    python_proxy = ROOT / ".cache" / "python-proxy"
    command = python_proxy / "bin" / "configurable-http-proxy"
    if not command.exists():
        say("there is no Node here: installing the proxy that is written in Python")
        pip = [str(python_proxy / "bin" / "python"), "-m", "pip", "install", "-qq"]
        for step in ([sys.executable, "-m", "venv", str(python_proxy)], [*pip, "configurable-http-proxy"]):
            if subprocess.run(step, check=False).returncode != 0:
                fail("the proxy could not be installed; what went wrong is above")
    return [str(command)]


def build_panel() -> None:
    """The panel in JupyterLab, where it can be built; all else works without."""
    command = [str(ROOT / "scripts" / "labextension.sh")]
    if subprocess.run(command, check=False).returncode != 0:
        say("going on without the panel in JupyterLab; `make labextension` says what it lacks")


def host_package_settings() -> tuple[dict[str, str], dict[str, str]]:
    """Volumes and environment that let pip and uv in a container install as this machine does."""
    volumes: dict[str, str] = {}
    names = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "UV_INDEX_URL", "UV_DEFAULT_INDEX")
    # An index that is a folder here is not there inside.
    environment = {name: os.environ[name] for name in names if "file:" not in os.environ.get(name, "file:")}
    if OWN_CERTIFICATES.is_dir() and any(OWN_CERTIFICATES.rglob("*.crt")) and CERTIFICATES.exists():
        volumes[str(CERTIFICATES)] = CERTIFICATES_INSIDE
        for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            environment[name] = CERTIFICATES_INSIDE
    return volumes, environment


def settings(engine: str, port: int, scratch: str) -> dict[str, Any]:
    """All values that the hub's configuration file leaves open."""
    demo: dict[str, Any] = {
        "port": port,
        "proxy": find_proxy(),
        "proxy_api_port": free_port("127.0.0.1"),
        "user": USER,
        "password": secrets.token_urlsafe(9),
        "prefix": PREFIX,
        "image": "",
        "hub_ip": "127.0.0.1",
        "read_only_volumes": {},
        "environment": {},
        "homes": str(CACHE / "homes"),
        "payload_dir": str(Path(scratch) / "payload"),
        # Jupyter refuses to run as root unless told that this is meant.
        "args": ["--allow-root"] if os.geteuid() == 0 else [],
    }
    if engine == "docker":
        demo["hub_ip"] = bridge_address()
        demo["read_only_volumes"], demo["environment"] = host_package_settings()
        demo["image"] = find_image()
    demo["hub_port"] = free_port(demo["hub_ip"])
    return demo


def wait_for(url: str, hub: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the hub answers; ends the program, with the log's end, when it stops or never does."""
    until = time.monotonic() + START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < until and hub.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), opener.open(url, timeout=5):
            return
        time.sleep(0.2)
    print("".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-20:]))
    what = "does not answer" if hub.poll() is None else "stopped at once"
    fail(f"the hub {what}; the end of its log is above, all of it in {log}")


def stop(hub: subprocess.Popen[bytes]) -> None:
    """Let the hub stop its servers and its proxy; then end what is left of its process group."""
    if hub.poll() is None:
        say("stopping the servers, the hub and its proxy")
        # To the hub alone: it needs its proxy and its servers while it stops them.
        hub.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            hub.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(hub.pid, signal.SIGKILL)
    hub.wait()


def our_volumes() -> set[str]:
    """Names of the volumes in which our code is delivered to containers; users' homes are not among them."""
    return {
        name
        for label in ("overlayspawner.payload", "overlayspawner.uv")
        for name in output_of("docker", "volume", "ls", "--quiet", "--filter", f"label={label}").split()
    }


def tidy_engine(before: set[str]) -> None:
    """Remove the demo's container, should one be left, and the volumes that only our code is in."""
    left = output_of("docker", "ps", "--all", "--quiet", "--filter", f"name=^/?{PREFIX}-{USER}$")
    for container in left.split():
        output_of("docker", "rm", "--force", container)
    for volume in our_volumes() - before:
        # Docker refuses one that another hub's container uses, which is right.
        output_of("docker", "volume", "rm", volume)


def tell(engine: str, demo: dict[str, Any], log: Path) -> None:
    gone = "It is a new process" if engine == "local" else "Its container is removed and a new one made"
    where = f"the folder {demo['homes']}/{USER}" if engine == "local" else f"the volume {PREFIX}-home-{USER}"
    print(
        f"""
address:  http://127.0.0.1:{demo["port"]}
user:     {USER}
password: {demo["password"]}

To try: log in, open the tab Packages at the left of JupyterLab, install humanize there; or run
        `%pip install humanize` in a notebook. Then `import humanize`.
        In File > Hub Control Panel, stop the server and start it again.
        {gone}: the package is still there.
Kept:   {where}
Log:    {log}
Stop:   Ctrl-C
""",
        flush=True,
    )


def main() -> None:
    port_text = os.environ.get("PORT") or "8000"
    if not port_text.isdigit() or not 0 < int(port_text) < 65536:
        fail(f"PORT={port_text} is no port number")
    port = int(port_text)
    lock = only_one()
    check_port(port)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_on_signal)

    engine = find_engine()
    build_panel()
    with tempfile.TemporaryDirectory(prefix="overlay-demo-") as scratch:
        demo = settings(engine, port, scratch)
        if engine == "local":
            Path(demo["homes"]).mkdir(parents=True, exist_ok=True)
        before = our_volumes() if engine == "docker" else set()
        log = CACHE / "hub.log"
        config = HERE / ("jupyterhub_config_local.py" if engine == "local" else "jupyterhub_config.py")
        environment = {
            **os.environ,
            "OVERLAYSPAWNER_DEMO": json.dumps(demo),
            # Local servers and the proxy are found beside this Python.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        say("starting the hub")
        with open(log, "wb") as stream:
            hub = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(config)],
                cwd=scratch,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # A group of its own, so that Ctrl-C reaches this program only, which stops things in order.
                start_new_session=True,
                # The hub holds the lock too: should this program be killed, the next demo says so.
                pass_fds=(lock.fileno(),),
            )
        try:
            lock.write(f"http://127.0.0.1:{port}, hub process {hub.pid}\n")
            lock.flush()
            wait_for(f"http://127.0.0.1:{port}/hub/health", hub, log)
            tell(engine, demo, log)
            hub.wait()
            fail(f"the hub has stopped; its log is {log}")
        finally:
            # A second Ctrl-C must not interrupt the stopping half-way.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            stop(hub)
            if engine == "docker":
                tidy_engine(before)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("stopped")
