"""A real hub with OverlayKubeSpawner, with the rights of zero-to-jupyterhub's, on a real cluster."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from overlayspawner.hub import kube_manifests, kube_secrets
from tests.support.hub import RunningHub, SpawnFailed, in_parallel
from tests.support.images import image
from tests.support.index import LocalIndex
from tests.support.kube import ROLE, Cluster, Namespace, until

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
    "no-image": {{"image": "no-such-image:1"}},
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


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    with Namespace(cluster) as made:
        yield made


@pytest.fixture(scope="module")
def elsewhere(namespace: Namespace) -> Iterator[Namespace]:
    """A namespace where the hub may not make Secrets."""
    resources = ["pods", "persistentvolumeclaims", "services"]
    rules = [{**ROLE[0], "resources": resources}, ROLE[1]]
    with Namespace(namespace.cluster, volumes=0, rules=rules, hub_of=namespace.name) as made:
        yield made


@pytest.fixture(scope="module")
def hub(
    namespace: Namespace, elsewhere: Namespace, hub_kubeconfig: str, index: LocalIndex
) -> Iterator[RunningHub]:
    places = {"namespace": namespace.name, "elsewhere": elsewhere.name}
    config = textwrap.dedent(CONFIG).format(image=image("stacks"), **places)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", hub_kubeconfig)
        with RunningHub(config, spawner="overlay-kube", index=index) as running:
            yield running


def notebook(pod: Any) -> Any:
    return next(c for c in pod.spec.containers if c.name == "notebook")


def start(hub: RunningHub, user: str, profile: str, name: str = "") -> list[str]:
    """Start a server with a profile, and return what the spawn page shows."""
    hub.start_server(user, name, {"profile": profile}, wait=False)
    return [str(event.get("message")) for event in hub.wait_ready(user, name)]


def test_packages_outlive_the_pod(hub: RunningHub, namespace: Namespace) -> None:
    hub.start_server("walker", options={"profile": "companion"}, wait=False)
    events = hub.wait_ready("walker")
    messages = [str(event.get("message")) for event in events]
    # Kubernetes' own words, for pages of the administrator's in their raw form too
    assert "Started container notebook" in messages, messages
    assert any("raw_event" in event for event in events)
    numbers = [event["progress"] for event in events]
    assert numbers == sorted(numbers) and events[-1]["ready"], events
    server = hub.server("walker")
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
    assert notebook(pod).args[-2:] == ["start-notebook.py", "--debug"]
    secrets = namespace.secrets()
    assert [name for name in secrets if name.startswith("overlayspawner-payload-")] == list(secrets)
    assert len(secrets) == 1 and next(iter(secrets.values())).immutable
    namespace.cluster.call("delete_namespaced_pod", pod.metadata.name, namespace.name, grace_period_seconds=0)
    until(lambda: "" not in hub.model("walker")["servers"], 60, "the hub has not noticed")
    hub.start_server("walker")
    assert namespace.pod("walker").metadata.uid != pod.metadata.uid
    assert not server.run_cell("import tinytree").error
    assert server.packages("overlay")["tinytree"]["requested"] is True
    assert namespace.secrets().keys() == secrets.keys()
    hub.stop_server("walker")

    hub.start_server("walker", options={"overlay": "safe"})
    status = server.overlay("status")
    assert status["mode"] == "safe" and "safe-mode" in {n["code"] for n in status["notices"]}
    assert "ModuleNotFoundError" in server.run_cell("import tinytree").error
    hub.stop_server("walker")


def test_profiles_and_named_servers(hub: RunningHub, namespace: Namespace) -> None:
    messages = start(hub, "chooser", "unknown-command")
    assert any("overlay_cmd" in message for message in messages), messages
    assert hub.server("chooser").get("overlay/v1/status").status_code == 404
    assert not notebook(namespace.pod("chooser")).args
    hub.stop_server("chooser")

    start(hub, "chooser", "plain", "second")
    pod = namespace.pod("chooser--second")
    assert notebook(pod).args[0] == "jupyterhub-singleuser"
    assert notebook(pod).termination_message_policy == "File"
    assert not [v.name for v in pod.spec.volumes if v.name.startswith("overlayspawner")]
    hub.stop_server("chooser", "second")


def test_a_root_and_a_home_that_are_read_only(hub: RunningHub) -> None:
    start(hub, "stuck", "read-only")
    status = hub.server("stuck").overlay("status")
    assert "home-unwritable" in {n["code"] for n in status["notices"]}, status
    assert hub.server("stuck").run_cell("print(1)").text == "1\n"
    hub.stop_server("stuck")


def test_reasons(hub: RunningHub, namespace: Namespace) -> None:
    """Starts that fail, each for another reason: all are told, none stops the hub, and no pod is left."""
    quota = {"metadata": {"name": "gpus"}, "spec": {"hard": {"requests.example.org/gpu": "0"}}}
    namespace.cluster.call("create_namespaced_resource_quota", namespace.name, quota)
    expected = {
        "dies": r"(?s)exit code 3.*overlay=safe.*my last words with \[hidden\]",
        "no-image": "image can't be had.*ErrImageNeverPull",
        "too-large": "no room for the server.*Insufficient cpu",
        "no-storage": "storage claim can't be had.*no-such-class",
        "no-volume": "volume can't be mounted.*no-such-map",
        "greedy": "quota is used up.*exceeded quota",
    }

    def fail(profile: str) -> str:
        with pytest.raises(SpawnFailed) as failed:
            start(hub, f"x-{profile}", profile)
        return str(failed.value)

    for profile in expected:
        if profile != "dies":
            hub.configure(f"x-{profile}", start_timeout=20)

    texts = in_parallel(*(lambda p=p: fail(p) for p in expected))
    for text, (profile, pattern) in zip(texts, expected.items()):
        assert re.search(pattern, text), (profile, text)
        assert "s3cret" not in text
        code = {"dies": "exited", "no-image": "image"}.get(profile)
        assert code is None or f"[{code}]" in hub.log()
    assert hub.running
    until(lambda: not namespace.pods(), 60, "a pod is left")


def test_a_hub_that_may_make_no_secrets(hub: RunningHub, elsewhere: Namespace) -> None:
    """Servers start without an overlay, until the administrator has made a Secret and named it."""
    messages = start(hub, "foreign", "elsewhere")
    assert any("without the overlay" in message for message in messages), messages
    assert "overlay_secret_name" in hub.log()
    assert hub.server("foreign").get("overlay/v1/status").status_code == 404
    hub.stop_server("foreign")

    command = [sys.executable, "-m", "overlayspawner.hub.kube_secret", "mine"]
    manifest = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    elsewhere.cluster.call("create_namespaced_secret", elsewhere.name, manifest)
    start(hub, "foreign", "elsewhere-named")
    status = hub.server("foreign").overlay("status")
    assert status["mode"] == "normal" and "not-persistent" in {n["code"] for n in status["notices"]}
    hub.stop_server("foreign")


@pytest.fixture(scope="module")
def hub_kubeconfig(namespace: Namespace) -> str:
    """A kubeconfig with the hub's rights."""
    return namespace.hub_kubeconfig()


async def test_secrets(namespace: Namespace, hub_kubeconfig: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made once by any number of hubs; old ones go when no pod mounts them; a stranger's is not used."""
    from kubernetes_asyncio import client, config

    def old(name: str) -> dict[str, Any]:
        labels = {kube_manifests.PAYLOAD_LABEL: name, kube_manifests.MANAGED_BY: "overlayspawner"}
        data = {"overlay.pyz": base64.b64encode(b"old").decode()}
        return {"metadata": {"name": name, "labels": labels}, "data": data}

    configuration = client.Configuration()
    await config.load_kube_config(config_file=hub_kubeconfig, client_configuration=configuration)
    async with client.ApiClient(configuration) as connection:
        api = client.CoreV1Api(connection)
        stores = [kube_secrets.SecretStore() for _ in range(4)]
        name = stores[0].name
        if name in [s.metadata.name for s in (await api.list_namespaced_secret(namespace.name)).items]:
            await api.delete_namespaced_secret(name, namespace.name)
        labels = {"app": "jupyterhub"}
        made = await asyncio.gather(*(s.ensure(api, namespace.name, labels) for s in stores for _ in "ab"))
        assert set(made) == {name}
        secret = await api.read_namespaced_secret(name, namespace.name)
        assert secret.immutable and secret.metadata.labels["app"] == "jupyterhub"

        for other in ("old-unused", "old-used"):
            await api.create_namespaced_secret(namespace.name, old(other))
        volume = {"name": "x", "secret": {"secretName": "old-used"}}
        container = {"name": "x", "image": image("stacks"), "imagePullPolicy": "Never", "command": ["true"]}
        pod = {"metadata": {"name": "other"}, "spec": {"containers": [container], "volumes": [volume]}}
        await api.create_namespaced_pod(namespace.name, pod)
        assert await stores[0].remove_old(api, namespace.name) == []  # both are young
        monkeypatch.setattr(kube_secrets, "_YOUNGEST", -60.0)  # clocks differ
        assert await stores[1].remove_old(api, namespace.name) == ["old-unused"]
        assert await stores[1].remove_old(api, namespace.name) == []  # it has just looked
        await api.delete_namespaced_pod("other", namespace.name, grace_period_seconds=0)

        await api.delete_namespaced_secret(name, namespace.name)
        await api.create_namespaced_secret(namespace.name, {**old(name), "metadata": {"name": name}})
        with pytest.raises(ValueError, match="something else"):
            await kube_secrets.SecretStore().ensure(api, namespace.name)
        await api.delete_namespaced_secret(name, namespace.name)
        await api.delete_namespaced_secret("old-used", namespace.name)
