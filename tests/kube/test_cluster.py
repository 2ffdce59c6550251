"""A real hub with OverlayKubeSpawner, with the rights of zero-to-jupyterhub's, on a real cluster."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from tests.support.hub import RunningHub
from tests.support.images import image
from tests.support.index import LocalIndex
from tests.support.kube import Cluster, Namespace, until

pytestmark = [pytest.mark.engine, pytest.mark.kube, pytest.mark.timeout(300)]

HOME = "/home/jovyan"
CONFIG = """
c.KubeSpawner.namespace = {namespace!r}
c.KubeSpawner.image = {image!r}
c.KubeSpawner.image_pull_policy = "Never"
c.KubeSpawner.cmd = ["jupyterhub-singleuser"]
c.KubeSpawner.storage_pvc_ensure = True
c.KubeSpawner.storage_capacity = "1Gi"
c.KubeSpawner.storage_class = {namespace!r}
c.KubeSpawner.volumes = [{{"name": "home", "persistentVolumeClaim": {{"claimName": "{{pvc_name}}"}}}}]
c.KubeSpawner.volume_mounts = [{{"name": "home", "mountPath": "/home/jovyan"}}]
c.KubeSpawner.pvc_name_template = "claim-{{username}}"
c.KubeSpawner.fs_gid = 100
c.KubeSpawner.uid = 1000
c.KubeSpawner.container_security_context = {{
    "runAsNonRoot": True, "capabilities": {{"drop": ["ALL"]}}, "seccompProfile": {{"type": "RuntimeDefault"}}
}}
c.KubeSpawner.extra_containers = [
    {{"name": "companion", "image": {image!r}, "imagePullPolicy": "Never", "command": ["sleep", "3600"]}}
]
c.KubeSpawner.delete_grace_period = 0
c.Spawner.poll_interval = 2
c.Spawner.start_timeout = 60
"""


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    with Namespace(cluster) as made:
        yield made


@pytest.fixture(scope="module")
def hub(namespace: Namespace, index: LocalIndex) -> Iterator[RunningHub]:
    config = textwrap.dedent(CONFIG).format(namespace=namespace.name, image=image("stacks"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", namespace.hub_kubeconfig())
        with RunningHub(config, spawner="overlay-kube", index=index) as running:
            yield running


def test_packages_outlive_the_pod(hub: RunningHub, namespace: Namespace) -> None:
    server = hub.start_server("walker")
    status = server.overlay("status")
    assert status["mode"] == "normal", status
    assert status["path"] == f"{HOME}/.overlay/default"
    job = server.job("install", install=["tinytree"])
    assert job["state"] == "done", job
    cell = server.run_cell(
        "import tinytree, os; print(tinytree.__file__, 'OVERLAYSPAWNER_SPEC' in os.environ)"
    )
    assert f"{HOME}/.overlay/default/envs/" in cell.text and cell.text.endswith("False\n"), cell

    pod = namespace.pod("walker")
    namespace.cluster.call("delete_namespaced_pod", pod.metadata.name, namespace.name, grace_period_seconds=0)
    until(lambda: "" not in hub.model("walker")["servers"], 60, "the hub has not noticed")
    hub.start_server("walker")
    assert namespace.pod("walker").metadata.uid != pod.metadata.uid
    assert not server.run_cell("import tinytree").error
    assert server.packages("overlay")["tinytree"]["requested"] is True
