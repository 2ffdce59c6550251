"""KubeSpawner on the cluster that KUBECONFIG names, else on one that is started."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.adapter import ContainerAdapter
from tests.support.kube import Namespace, notebook, start_cluster, stop_cluster

CONFIG = """
c.KubeSpawner.namespace = {namespace!r}
c.KubeSpawner.image = {image!r}
c.KubeSpawner.image_pull_policy = "Never"
c.KubeSpawner.cmd = ["jupyterhub-singleuser"]
c.KubeSpawner.storage_pvc_ensure = True
c.KubeSpawner.storage_capacity = "1Gi"
c.KubeSpawner.storage_class = {namespace!r}
c.KubeSpawner.pvc_name_template = "claim-{{username}}"
c.KubeSpawner.volumes = [{{"name": "home", "persistentVolumeClaim": {{"claimName": "{{pvc_name}}"}}}}]
c.KubeSpawner.volume_mounts = [{{"name": "home", "mountPath": {home!r}}}]
c.KubeSpawner.uid = 1000
c.KubeSpawner.fs_gid = 100
c.KubeSpawner.delete_grace_period = 0  # old kubelets take a minute for any other
c.Spawner.poll_interval = 2
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
"""


class Kube(ContainerAdapter):
    """Kubernetes, with the rights that the hub of zero-to-jupyterhub has."""

    name = "kube"

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Have a cluster, a namespace with volumes in it, and a kubeconfig with the hub's rights."""
        cluster, ours = start_cluster()
        try:
            with Namespace(cluster, volumes=4) as self.namespace, pytest.MonkeyPatch.context() as patch:
                patch.setenv("KUBECONFIG", self.namespace.hub_kubeconfig())
                yield
        finally:
            if ours:
                stop_cluster()

    def hub_options(self) -> dict[str, Any]:
        """Return the usual configuration of KubeSpawner; its images are those of the Docker that runs."""
        base = self.bases[0]
        config = CONFIG.format(namespace=self.namespace.name, image=base.image, home=base.home)
        return {**super().hub_options(), "config": config, "image": "", "spawner": "overlay-kube"}

    def use_home(self, user: str) -> Path:
        """Mount a directory of the node, which is this machine."""
        directory = self.directory / user
        volume = {"name": "home", "hostPath": {"path": str(directory)}}
        self.configure(user, volumes=[volume], storage_pvc_ensure=False)
        return directory

    def owner(self, user: str) -> tuple[int, int]:
        """Return whom the pods run as."""
        return 1000, 100

    def instance(self, user: str) -> str:
        """Return the pod's identity."""
        found = [pod for pod in self.namespace.pods() if pod.metadata.name == f"jupyter-{user}"]
        return str(found[0].metadata.uid) if found else ""

    def runs_on(self, user: str) -> str:
        """Return the image that the kubelet tells, by its name, if that is still what is called so."""
        pod = self.namespace.pod(user)
        (status,) = (s for s in pod.status.container_statuses if s.name == notebook(pod).name)
        tag = str(notebook(pod).image)
        command = ["docker", "image", "inspect", "--format={{.Id}}", tag]
        known = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return tag if not known or status.image_id.endswith(known) else str(status.image_id)

    def left_over(self) -> list[str]:
        """Pods, services, claims of no user, and Secrets other than the payload's."""
        call, name = self.namespace.cluster.call, self.namespace.name
        services = call("list_namespaced_service", name).items
        return [
            *(f"pod {pod.metadata.name}" for pod in self.namespace.pods()),
            *(f"service {service.metadata.name}" for service in services),
            *(f"claim {claim}" for claim in self.namespace.claims() if not claim.startswith("claim-")),
            *(f"secret {s}" for s in self.namespace.secrets() if not s.startswith("overlayspawner-payload-")),
        ]
