"""A real Kubernetes cluster for tests, and a namespace in it with the rights that a hub has."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "kube.sh"

# What zero-to-jupyterhub's chart gives to its hub, and no more.
ROLE = [
    {
        "apiGroups": [""],
        "resources": ["pods", "persistentvolumeclaims", "secrets", "services"],
        "verbs": ["get", "watch", "list", "create", "delete"],
    },
    {"apiGroups": [""], "resources": ["events"], "verbs": ["get", "watch", "list"]},
]


class Cluster:
    """A cluster, as its administrator sees it.

    Parameters
    ----------
    kubeconfig:
        The file that says where it is.
    """

    def __init__(self, kubeconfig: str) -> None:
        self.kubeconfig = kubeconfig

    def call(self, method: str, *args: Any, api: str = "CoreV1Api", **kwargs: Any) -> Any:
        """Call a method of a client, and return what it returns."""
        from kubernetes_asyncio import client, config

        async def call() -> Any:
            configuration = client.Configuration()
            await config.load_kube_config(config_file=self.kubeconfig, client_configuration=configuration)
            async with client.ApiClient(configuration) as connection:
                return await getattr(getattr(client, api)(connection), method)(*args, **kwargs)

        return asyncio.run(call())

    def remove_namespace(self, name: str) -> None:
        """Remove a namespace; its pods first, and at once: an old kubelet takes a minute for each."""
        for pod in self.call("list_namespaced_pod", name).items:
            self.call("delete_namespaced_pod", pod.metadata.name, name, grace_period_seconds=0)
        until(lambda: not self.call("list_namespaced_pod", name).items, 90, "pods are still there")
        self.call("delete_namespace", name)


class Namespace:
    """A namespace of its own, with volumes for some users and a service account for a hub; a context manager.

    Parameters
    ----------
    cluster:
        Where.
    volumes:
        How many persistent volumes there are: directories of this machine that belong to root and that a
        group may write to, as volumes do with ``fsGroup``.
    rules:
        The rules of the hub's Role.
    hub_of:
        The namespace of the hub's service account, when it is another one.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        volumes: int = 8,
        rules: list[dict[str, Any]] | None = None,
        hub_of: str = "",
    ) -> None:
        self.cluster = cluster
        self.name = f"ovltest-{uuid.uuid4().hex[:8]}"
        self._rules = ROLE if rules is None else rules
        self._volumes = volumes
        self._hub_of = hub_of or self.name
        self._directory = tempfile.TemporaryDirectory(prefix="overlay-kube-")
        self.directory = Path(self._directory.name)

    def __enter__(self) -> Namespace:
        call, name = self.cluster.call, self.name
        call("create_namespace", {"metadata": {"name": name}})
        self.directory.chmod(0o755)
        for number in range(self._volumes):
            place = self.directory / f"volume{number}"
            place.mkdir()
            os.chown(place, 0, 100)
            place.chmod(0o2775)
            call(
                "create_persistent_volume",
                {
                    "metadata": {"name": f"{name}-{number}", "labels": {"overlayspawner-test": name}},
                    "spec": {
                        "capacity": {"storage": "1Gi"},
                        "accessModes": ["ReadWriteOnce"],
                        "storageClassName": name,
                        "hostPath": {"path": str(place)},
                    },
                },
            )
        if self._hub_of == name:
            call("create_namespaced_service_account", name, {"metadata": {"name": "hub"}})
        rbac = {"api": "RbacAuthorizationV1Api"}
        call("create_namespaced_role", name, {"metadata": {"name": "hub"}, "rules": self._rules}, **rbac)
        call(
            "create_namespaced_role_binding",
            name,
            {
                "metadata": {"name": "hub"},
                "subjects": [{"kind": "ServiceAccount", "name": "hub", "namespace": self._hub_of}],
                "roleRef": {"kind": "Role", "name": "hub", "apiGroup": "rbac.authorization.k8s.io"},
            },
            **rbac,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.cluster.remove_namespace(self.name)
            for number in range(self._volumes):
                self.cluster.call("delete_persistent_volume", f"{self.name}-{number}")
        finally:
            self._directory.cleanup()

    def hub_kubeconfig(self) -> str:
        """Write a kubeconfig with the hub's own rights, and return where it is."""
        token = self.cluster.call(
            "create_namespaced_service_account_token",
            "hub",
            self.name,
            {"spec": {"expirationSeconds": 7200, "audiences": None}},
        ).status.token
        import yaml

        config = yaml.safe_load(Path(self.cluster.kubeconfig).read_text())
        config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
        target = self.directory / "kubeconfig"
        target.touch(mode=0o600)
        target.write_text(json.dumps(config))
        return str(target)

    def pods(self) -> list[Any]:
        """Return the pods."""
        return list(self.cluster.call("list_namespaced_pod", self.name).items)

    def pod(self, user: str) -> Any:
        """Return a user's pod."""
        return self.cluster.call("read_namespaced_pod", f"jupyter-{user}", self.name)

    def secrets(self) -> dict[str, Any]:
        """Return the Secrets that are no service account's: name → Secret."""
        found = self.cluster.call("list_namespaced_secret", self.name).items
        return {s.metadata.name: s for s in found if s.type == "Opaque"}

    def claims(self) -> list[str]:
        """Return the names of the storage claims."""
        found = self.cluster.call("list_namespaced_persistent_volume_claim", self.name).items
        return sorted(claim.metadata.name for claim in found)

    def home(self, user: str) -> Path:
        """Return the directory that a user's claim is bound to."""
        claim = self.cluster.call("read_namespaced_persistent_volume_claim", f"claim-{user}", self.name)
        return self.directory / f"volume{claim.spec.volume_name.rpartition('-')[2]}"


def notebook(pod: Any) -> Any:
    """Return the container of a pod that is the server's."""
    return next(c for c in pod.spec.containers if c.name == "notebook")


def until(condition: Callable[[], Any], timeout: float, sentence: str) -> Any:
    """Wait until a condition holds, and return its value.

    Raises
    ------
    AssertionError
        With the sentence, after ``timeout`` seconds.
    """
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{sentence} after {timeout:g} s"
        time.sleep(0.3)


def start_cluster() -> tuple[Cluster, bool]:
    """Return the cluster that KUBECONFIG names, or one that is started here, and whether it was.

    Raises
    ------
    AssertionError
        None can be had; the script says what to do.
    """
    done = subprocess.run([str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"no Kubernetes for the tests:\n{done.stderr}"
    return Cluster(done.stdout.strip().splitlines()[-1]), "started" in done.stderr


def stop_cluster() -> None:
    """Stop a cluster that :func:`start_cluster` started."""
    subprocess.run([str(SCRIPT), "stop"], check=False)
