"""A namespace for each user: the hub makes it, and the Secret in it."""

from __future__ import annotations

import pytest

from tests.support.hub import RunningHub
from tests.support.images import image
from tests.support.index import LocalIndex
from tests.support.kube import Cluster, until

pytestmark = [
    pytest.mark.engine,
    pytest.mark.kube,
    pytest.mark.timeout(300),
]

CONFIG = """
c.KubeSpawner.enable_user_namespaces = True
c.KubeSpawner.user_namespace_template = harness["prefix"] + "-{{username}}"
c.KubeSpawner.image = {image!r}
c.KubeSpawner.image_pull_policy = "Never"
c.KubeSpawner.cmd = ["jupyterhub-singleuser"]
c.KubeSpawner.delete_grace_period = 0
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
"""


def test_the_secret_comes_with_the_namespace(
    cluster: Cluster, index: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", cluster.kubeconfig)  # it may make namespaces
    config = CONFIG.format(image=image("stacks"))
    with RunningHub(config, spawner="overlay-kube", index=index) as hub:
        name = f"{hub.prefix}-settler"

        def secrets() -> set[str]:
            found = cluster.call("list_namespaced_secret", name).items
            return {s.metadata.uid for s in found if s.metadata.name.startswith("overlayspawner-payload-")}

        try:
            hub.start_server("settler")
            status = hub.server("settler").overlay("status")
            assert status["mode"] == "normal" and "not-persistent" in {n["code"] for n in status["notices"]}
            (before,) = secrets()
            hub.stop_server("settler")
            # as if an administrator had cleaned up
            cluster.call("delete_collection_namespaced_secret", name, label_selector="overlayspawner.payload")
            hub.start_server("settler")
            assert hub.server("settler").overlay("status")["mode"] == "normal"
            assert secrets() and before not in secrets()
            hub.stop_server("settler")
            until(lambda: not cluster.call("list_namespaced_pod", name).items, 60, "a pod is left")
        finally:
            cluster.call("delete_namespace", name)
