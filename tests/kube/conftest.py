"""Fixtures of the tests on a real cluster."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from tests.support.hub import RunningHub
from tests.support.images import image
from tests.support.index import LocalIndex
from tests.support.kube import ROLE, Cluster, Namespace, start_cluster, stop_cluster

CONFIG = """
c.KubeSpawner.namespace = {namespace!r}
c.KubeSpawner.image = {image!r}
c.KubeSpawner.image_pull_policy = "Never"
c.KubeSpawner.cmd = ["jupyterhub-singleuser"]
c.KubeSpawner.storage_pvc_ensure = True
c.KubeSpawner.storage_capacity = "1Gi"
c.KubeSpawner.storage_class = {namespace!r}
HOME = {{"name": "home", "persistentVolumeClaim": {{"claimName": "{{pvc_name}}"}}}}
MOUNT = {{"name": "home", "mountPath": "/home/jovyan"}}
c.KubeSpawner.volumes = [HOME]
c.KubeSpawner.volume_mounts = [MOUNT]
c.KubeSpawner.pvc_name_template = "claim-{{username}}"
c.KubeSpawner.fs_gid = 100
c.KubeSpawner.uid = 1000
# as the pod security standard "restricted" asks for
c.KubeSpawner.container_security_context = {{
    "runAsNonRoot": True, "capabilities": {{"drop": ["ALL"]}}, "seccompProfile": {{"type": "RuntimeDefault"}}
}}
c.KubeSpawner.delete_grace_period = 0
c.Spawner.poll_interval = 2
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120  # on a busy machine too
c.JupyterHub.allow_named_servers = True

PROFILES = {{
    "normal": {{}},
    "companion": {{
        "extra_containers": [
            {{"name": "more", "image": {image!r}, "imagePullPolicy": "Never", "command": ["sleep", "3600"]}}
        ],
        # the image's own command, which we could not know
        "cmd": [],
        "overlay_cmd": ["start-notebook.py"],
        "args": ["--debug"],
    }},
    "unknown-command": {{"cmd": []}},
    "plain": {{"overlay_enabled": False}},
    "read-only": {{
        "container_security_context": {{"readOnlyRootFilesystem": True}},
        "volumes": [HOME, {{"name": "tmp", "emptyDir": {{}}}}],
        "volume_mounts": [{{**MOUNT, "readOnly": True}}, {{"name": "tmp", "mountPath": "/tmp"}}],
    }},
    "dies": {{
        "cmd": ["sh", "-c", "echo my last words with $SOME_TOKEN; exit 3"],
        "environment": {{"SOME_TOKEN": "s3cret-of-the-environment"}},
    }},
    "hungry": {{"mem_limit": "64M", "cmd": ["sh", "-c", "head -c 500000000 /dev/zero | tail"]}},
    "no-image": {{"image": "no-such-image:1"}},
    "no-registry": {{"image": "127.0.0.1:1/some:1", "image_pull_policy": "IfNotPresent"}},
    "not-ready": {{
        "extra_container_config": {{
            "readinessProbe": {{"exec": {{"command": ["ls", "/not-there"]}}, "periodSeconds": 1}}
        }},
    }},
    "too-much-to-say": {{"overlay_constraints": ["some-name<" + str(n) for n in range(10_000)]}},
    "scarce": {{"storage_class": "scarce"}},
    "too-large": {{"cpu_guarantee": 1000}},
    "no-storage": {{"storage_class": "no-such-class"}},
    "no-volume": {{"volumes": [HOME, {{"name": "x", "configMap": {{"name": "no-such-map"}}}}],
                  "volume_mounts": [MOUNT, {{"name": "x", "mountPath": "/x"}}]}},
    "greedy": {{"extra_resource_limits": {{"example.org/gpu": 1}}}},
    "elsewhere": {{"namespace": {elsewhere!r}, "volumes": [], "volume_mounts": []}},
    "elsewhere-named": {{
        "namespace": {elsewhere!r}, "volumes": [], "volume_mounts": [], "overlay_secret_name": "mine",
    }},
}}
c.KubeSpawner.profile_list = [
    {{"slug": name, "display_name": name, "kubespawner_override": override}}
    for name, override in PROFILES.items()
]
"""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster that KUBECONFIG names; else one that is started, and stopped afterwards."""
    running, ours = start_cluster()
    yield running
    if ours:
        stop_cluster()


@pytest.fixture(scope="session")
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    with Namespace(cluster, volumes=16) as made:
        yield made


@pytest.fixture(scope="session")
def elsewhere(namespace: Namespace) -> Iterator[Namespace]:
    """A namespace where the hub may not make Secrets."""
    resources = ["pods", "persistentvolumeclaims", "services"]
    rules = [{**ROLE[0], "resources": resources}, ROLE[1]]
    with Namespace(namespace.cluster, volumes=0, rules=rules, hub_of=namespace.name) as made:
        yield made


@pytest.fixture(scope="session")
def hub(
    namespace: Namespace, elsewhere: Namespace, hub_kubeconfig: str, index: LocalIndex
) -> Iterator[RunningHub]:
    places = {"namespace": namespace.name, "elsewhere": elsewhere.name}
    config = textwrap.dedent(CONFIG).format(image=image("stacks"), **places)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", hub_kubeconfig)
        with RunningHub(config, spawner="overlay-kube", index=index) as running:
            yield running


@pytest.fixture(scope="session")
def hub_kubeconfig(namespace: Namespace) -> str:
    """A kubeconfig with the hub's rights."""
    return namespace.hub_kubeconfig()
