"""Where the parents' suites come from, and what they run in: environments, images, engines."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.support.images import image
from tests.support.kube import Cluster, start_cluster, stop_cluster

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "parents"
NODE_MODULES = ROOT / ".cache" / "node" / "node_modules"  # of `make proxy`
HUB = "jupyterhub>=5,<6"  # the helpers of dockerspawner's tests don't run with JupyterHub 6

# distribution → its repository, whose tags are versions, and what its tests ask for
REPOSITORIES = {
    "dockerspawner": ("dockerspawner", ["psutil", "pytest", "pytest-asyncio>=0.25"]),
    "jupyterhub-kubespawner": (
        "kubespawner",
        # the fixtures end with newer versions of both
        ["jupyterhub-kubespawner[test]", "kubernetes<36", "pytest<8.4"],
    ),
}


class Unavailable(Exception):
    """A suite can't be had or run on this machine; the message says why."""


def call(*command: str, **options: object) -> str:
    """Run a command, and return what it prints.

    Raises
    ------
    Unavailable
        It fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{' '.join(command[:4])} …: {words[-1] if words else done.returncode}")
    return str(done.stdout)


# -- sources and environments ---------------------------------------------------------------------------


def source(parent: str) -> Path:
    """Return the directory in which a parent's tests are run."""
    wanted = version(parent)
    repository, _ = REPOSITORIES[parent]
    tag, target = wanted, CACHE / f"{repository}-{wanted}"
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        place = os.environ.get("OVERLAYSPAWNER_PARENTS")
        clone = Path(place, repository) if place else Path(directory, "clone")
        if not place:
            url = f"https://github.com/jupyterhub/{repository}"
            call("git", "clone", "-q", "--depth=1", f"--branch={tag}", url, str(clone), timeout=120)
        tree = Path(directory, "tree")
        tree.mkdir()
        # not the package itself: it would be imported from here
        archive = subprocess.run(
            ["git", "-C", str(clone), "archive", tag, "tests", "pyproject.toml"],
            capture_output=True,
            check=False,
        )
        if archive.returncode:
            raise Unavailable(f"{clone} has no {tag}: {archive.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
        tree.rename(target)
    return target


def environment(parent: str) -> Path:
    """Return the Python of an environment, made when missing, with a parent and what its tests ask for."""
    wanted = [HUB, f"{parent}=={version(parent)}", *REPOSITORIES[parent][1]]
    key = hashlib.sha256("\n".join([*wanted, sys.version]).encode()).hexdigest()[:12]
    target = CACHE / f"env-{parent}-{key}"
    python = target / "bin" / "python"
    if not (target / "made").exists():
        shutil.rmtree(target, ignore_errors=True)
        print(f"making an environment for the tests of {parent}", flush=True)
        uv = [sys.executable, "-m", "uv"]
        call(*uv, "venv", "-q", "--python", sys.executable, str(target))
        call(*uv, "pip", "install", "-q", "--python", str(python), *wanted, "-e", str(ROOT))
        (target / "made").touch()
    return python


# -- images ---------------------------------------------------------------------------------------------

SINGLEUSER = "quay.io/jupyterhub/singleuser"
BUSYBOX = "busybox:1.29.1"
HUB_IMAGE = "quay.io/jupyterhub/jupyterhub:latest"
PYTHON_IMAGE = "python:3.12-slim"


def present(name: str) -> bool:
    """Return whether the engine has an image."""
    return (
        subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0
    )


@contextmanager
def images(*names: str) -> Iterator[None]:
    """Have the images that a suite names: pulled, else test images under their names while it runs."""
    ours = []
    try:
        for name in names:
            if present(name):
                continue
            with contextlib.suppress(subprocess.TimeoutExpired):
                pulled = subprocess.run(
                    ["docker", "pull", "-q", name], capture_output=True, timeout=300, check=False
                )
                if pulled.returncode == 0:
                    continue
            print(f"{name} can't be pulled: a test image takes its place", flush=True)
            if name == BUSYBOX:
                _make_busybox(name)
            elif name == HUB_IMAGE:
                _make_hub(name)
            else:
                call("docker", "tag", image("stacks"), name)
            ours.append(name)
        yield
    finally:
        for name in ours:
            subprocess.run(["docker", "rmi", "--force", name], capture_output=True, check=False)


def _make_busybox(name: str) -> None:
    # Debian's is used where there is one; it has to be linked statically
    program = shutil.which("busybox")
    if program is None:
        raise Unavailable(f"{name} can't be pulled, and there is no busybox here (Debian: busybox-static)")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory, "bin")
        folder.mkdir()
        shutil.copy(program, folder / "busybox")
        for applet in ("sh", "ls", "sleep", "true", "echo", "cat"):
            (folder / applet).symlink_to("busybox")
        tree = subprocess.run(["tar", "-C", directory, "-c", "."], capture_output=True, check=True).stdout
    subprocess.run(["docker", "import", "-", name], input=tree, capture_output=True, check=True)


def _make_hub(name: str) -> None:
    # as JupyterHub's own image: root, no script before the hub, and the proxy that knows internal SSL
    node = shutil.which("node")
    if node is None or not NODE_MODULES.is_dir():
        raise Unavailable(f"{name} can't be pulled, and there is no proxy here for it (make proxy)")
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(Path(node).resolve(), Path(directory, "node"))
        shutil.copytree(NODE_MODULES, Path(directory, "modules"), symlinks=True)
        Path(directory, "Dockerfile").write_text(
            f"FROM {image('stacks')}\nUSER root\nENTRYPOINT []\n"
            "COPY node /usr/local/bin/node\nCOPY modules /opt/proxy/node_modules\n"
            "ENV PATH=/opt/proxy/node_modules/.bin:$PATH\nRUN configurable-http-proxy --version\n"
        )
        call("docker", "build", "-q", "-t", name, directory)


# -- engines --------------------------------------------------------------------------------------------


@contextmanager
def docker() -> Iterator[dict[str, str]]:
    """The images of dockerspawner's tests."""
    call("docker", "version")
    python = environment("dockerspawner")
    default = call(
        str(python), "-c", "from dockerspawner import DockerSpawner as D; print(D().image)"
    ).split()[-1]
    with images(default, f"{SINGLEUSER}:4", f"{SINGLEUSER}:4.0", BUSYBOX):
        yield {}


@contextmanager
def swarm() -> Iterator[dict[str, str]]:
    """An engine that is a Swarm of one."""
    state = call("docker", "info", "--format", "{{.Swarm.LocalNodeState}}").strip()
    if state != "active":
        call("docker", "swarm", "init", "--advertise-addr", "127.0.0.1")
    try:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = str(probe.getsockname()[1])
        with docker() as variables:
            yield {**variables, "OVERLAY_PORT": port}
    finally:
        if state != "active":
            call("docker", "swarm", "leave", "--force")


@contextmanager
def system_user() -> Iterator[dict[str, str]]:
    """Whose server dockerspawner's tests start: who runs them, or, for root, a user made for it."""
    name = "overlay-parents"
    with docker() as variables:
        if os.geteuid() != 0:
            yield variables
            return
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            call("userdel", "--remove", name)
        call("useradd", "--create-home", "--home-dir", f"/home/{name}", name)
        try:
            yield {**variables, "LOGNAME": name}
        finally:
            subprocess.run(["userdel", "--remove", name], capture_output=True, check=False)


@contextmanager
def kube() -> Iterator[dict[str, str]]:
    """A cluster."""
    try:
        cluster, started = start_cluster()
    except AssertionError as e:
        raise Unavailable(str(e)) from None
    try:
        with images(HUB_IMAGE, PYTHON_IMAGE, f"{SINGLEUSER}:latest"):
            yield {
                "KUBECONFIG": cluster.kubeconfig,
                # a small cluster takes longer to clear up than the suite waits: that is done here
                "KUBESPAWNER_DEBUG_NAMESPACE": "1",
                "OVERLAY_PRESENT": "1",
                "OVERLAY_PATIENCE": "4",
            }
    finally:
        if started:
            stop_cluster()


@contextmanager
def kube_namespaces(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The two namespaces of kubespawner's tests: new for each run, so that none finds another's claims."""
    cluster = Cluster(environment["KUBECONFIG"])
    names = [f"overlay-parents-{uuid.uuid4().hex[:8]}-{which}" for which in "ab"]
    with _provided(cluster, names):
        yield {"KUBESPAWNER_TEST_NAMESPACE": names[0], "KUBESPAWNER_ANOTHER_NAMESPACE": names[1]}


@contextmanager
def _provided(cluster: Cluster, namespaces: list[str]) -> Iterator[None]:
    """Give namespaces volumes and names of services, as larger clusters do; clear them at the end."""
    stop = threading.Event()
    named = any(s.metadata.name == "kube-dns" for s in cluster.call("list_service_for_all_namespaces").items)
    targets = [_volumes, _ended_sandboxes, *([] if named else [_service_names])]
    jobs = [threading.Thread(target=t, args=(cluster, namespaces, stop), daemon=True) for t in targets]
    for job in jobs:
        job.start()
    try:
        yield
    finally:
        stop.set()
        for job in jobs:
            job.join()
        there = {space.metadata.name for space in cluster.call("list_namespace").items}
        for namespace in there.intersection(namespaces):
            cluster.remove_namespace(namespace)


def _volumes(cluster: Cluster, namespaces: list[str], stop: threading.Event) -> None:
    """Make a volume for each claim that none is bound to, until ``stop``; remove them then."""
    made: dict[str, tempfile.TemporaryDirectory[str]] = {}
    while not stop.wait(1.0):
        for namespace in namespaces:
            for claim in cluster.call("list_namespaced_persistent_volume_claim", namespace).items:
                volume = f"{namespace}-{claim.metadata.uid[:8]}"
                if claim.spec.volume_name or volume in made or claim.spec.storage_class_name:
                    continue
                made[volume] = tempfile.TemporaryDirectory(prefix="overlay-parents-")
                Path(made[volume].name).chmod(0o777)
                spec = {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "hostPath": {"path": made[volume].name},
                    "claimRef": {"namespace": namespace, "name": claim.metadata.name},
                }
                cluster.call("create_persistent_volume", {"metadata": {"name": volume}, "spec": spec})
    for volume, directory in made.items():
        cluster.call("delete_persistent_volume", volume)
        directory.cleanup()


def _service_names(cluster: Cluster, namespaces: list[str], stop: threading.Event) -> None:
    """Tell each container the addresses of the services' pods until ``stop``, for want of a DNS."""
    told: set[tuple[str, str]] = set()
    while not stop.wait(0.5):
        for namespace in namespaces:
            pods = cluster.call("list_namespaced_pod", namespace).items
            lines = _hosts(cluster.call("list_namespaced_service", namespace).items, pods)
            statuses = [status for pod in pods for status in pod.status.container_statuses or []]
            containers = [s.container_id.removeprefix("docker://") for s in statuses if s.container_id]
            for container, line in {(c, line) for c in containers for line in lines} - told:
                tell = ["docker", "exec", "-u", "0", container, "sh", "-c", f"echo {line} >> /etc/hosts"]
                if subprocess.run(tell, capture_output=True, check=False).returncode == 0:
                    told.add((container, line))


def _hosts(services: list[Any], pods: list[Any]) -> list[str]:
    """Return a line of ``/etc/hosts`` for each pod of each service."""
    lines = []
    for service in services:
        wanted = (service.spec.selector or {}).items()
        name = f"{service.metadata.name}.{service.metadata.namespace}"
        for pod in pods:
            if wanted and wanted <= (pod.metadata.labels or {}).items() and pod.status.pod_ip:
                lines.append(f"{pod.status.pod_ip} {name} {name}.svc.cluster.local")
    return lines


def _ended_sandboxes(cluster: Cluster, namespaces: list[str], stop: threading.Event) -> None:
    """Remove ended sandboxes: Kubernetes 1.20 does so once a minute, and a deleted pod stays until then."""
    listing = [
        "docker",
        "ps",
        "-aq",
        "--filter=status=exited",
        "--filter=label=io.kubernetes.docker.type=podsandbox",
    ]
    while not stop.wait(2.0):
        for namespace in namespaces:
            ours = f"--filter=label=io.kubernetes.pod.namespace={namespace}"
            ended = subprocess.run(
                [*listing, ours], capture_output=True, text=True, check=False
            ).stdout.split()
            if ended:
                subprocess.run(["docker", "rm", *ended], capture_output=True, check=False)
