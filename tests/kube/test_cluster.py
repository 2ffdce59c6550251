"""A real hub with OverlayKubeSpawner, with the rights of zero-to-jupyterhub's, on a real cluster."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from overlayspawner.hub import kube_claims, kube_manifests, kube_secrets, payload_zip
from tests.support.hub import RunningHub, SpawnFailed, in_parallel
from tests.support.images import image
from tests.support.kube import Namespace, notebook, until

pytestmark = [
    pytest.mark.engine,
    pytest.mark.kube,
    pytest.mark.timeout(300),
]

# As long as it gets, and nothing that Kubernetes would take as a name.
SOMEBODY = "zoë.østergård@example.org+" + "x" * 60


def start(hub: RunningHub, user: str, profile: str, name: str = "") -> list[str]:
    """Start a server with a profile, and return what the spawn page shows."""
    hub.start_server(user, name, {"profile": profile}, wait=False)
    return [str(event.get("message")) for event in hub.wait_ready(user, name)]


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
    start(hub, SOMEBODY, "read-only")
    server = hub.server(SOMEBODY)
    status = server.overlay("status")
    assert "home-unwritable" in {n["code"] for n in status["notices"]}, status
    assert server.run_cell("print(1)").text == "1\n"
    hub.stop_server(SOMEBODY)


def test_reasons(hub: RunningHub, namespace: Namespace) -> None:
    """Starts that fail, each for another reason: all are told, none stops the hub, and no pod is left."""
    quota = {"metadata": {"name": "gpus"}, "spec": {"hard": {"requests.example.org/gpu": "0"}}}
    namespace.cluster.call("create_namespaced_resource_quota", namespace.name, quota)
    claims = "scarce.storageclass.storage.k8s.io/persistentvolumeclaims"
    quota = {"metadata": {"name": "disks"}, "spec": {"hard": {claims: "0"}}}
    namespace.cluster.call("create_namespaced_resource_quota", namespace.name, quota)
    expected = {
        "dies": r"(?s)exit code 3.*overlay=safe.*my last words with \[hidden\]",
        "hungry": "ran out of memory.*overlay=safe",
        "no-registry": "image can't be had.*127.0.0.1:1.*connection refused",
        "not-ready": "does not become ready",
        "too-much-to-say": "bytes; a variable holds 131,071",
        "scarce": "quota is used up.*persistentvolumeclaims.*exceeded quota",
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

    before = namespace.claims()
    for profile in expected:
        if profile not in ("dies", "hungry"):
            hub.configure(f"x-{profile}", start_timeout=20)

    texts = in_parallel(*(lambda p=p: fail(p) for p in expected))
    for text, (profile, pattern) in zip(texts, expected.items()):
        assert re.search(pattern, text), (profile, text)
        assert "s3cret" not in text
        code = {"dies": "exited", "no-image": "image"}.get(profile)
        assert code is None or f"[{code}]" in hub.log()
    assert hub.running
    until(lambda: not namespace.pods(), 60, "a pod is left")
    left = set(namespace.claims()) - set(before)
    # bound to an empty volume each, for the next start; none that waits for what will never come
    assert not left & {"claim-x-no-storage", "claim-x-scarce"}, left


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


@asynccontextmanager
async def connected(kubeconfig: str) -> AsyncIterator[Any]:
    """A client with somebody's rights."""
    from kubernetes_asyncio import client, config

    configuration = client.Configuration()
    await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
    async with client.ApiClient(configuration) as connection:
        yield client.CoreV1Api(connection)


async def test_secrets(namespace: Namespace, hub_kubeconfig: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made once by any number of hubs; old ones go when no pod mounts them; a stranger's is not used."""

    def old(name: str) -> dict[str, Any]:
        labels = {kube_manifests.PAYLOAD_LABEL: name, kube_manifests.MANAGED_BY: "overlayspawner"}
        data = {"overlay.pyz": base64.b64encode(b"old").decode()}
        return {"metadata": {"name": name, "labels": labels}, "data": data}

    async with connected(hub_kubeconfig) as api:
        stores = [kube_secrets.SecretStore() for _ in range(4)]
        name = stores[0].name
        if name in [s.metadata.name for s in (await api.list_namespaced_secret(namespace.name)).items]:
            await api.delete_namespaced_secret(name, namespace.name)
        labels = {"app": "jupyterhub"}
        made = await asyncio.gather(*(s.ensure(api, namespace.name, labels) for s in stores for _ in "ab"))
        assert set(made) == {name}
        secret = await api.read_namespaced_secret(name, namespace.name)
        assert secret.immutable and secret.metadata.labels["app"] == "jupyterhub"

        # one that somebody has removed in between, another hub for example, is made again at the next start
        monkeypatch.setattr(kube_secrets, "_KNOWN_FOR", 0.0)
        await api.delete_namespaced_secret(name, namespace.name)
        await stores[0].ensure(api, namespace.name)
        again = await api.read_namespaced_secret(name, namespace.name)
        assert again.metadata.uid != secret.metadata.uid
        await stores[0].ensure(api, namespace.name)
        assert (await api.read_namespaced_secret(name, namespace.name)).metadata.uid == again.metadata.uid

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
        # the right content, which may be changed after it was looked at
        loose = {**kube_manifests.secret_manifest(payload_zip.build()), "immutable": False}
        await api.create_namespaced_secret(namespace.name, loose)
        with pytest.raises(ValueError, match="can change"):
            await kube_secrets.SecretStore().ensure(api, namespace.name)
        await api.delete_namespaced_secret(name, namespace.name)
        await api.delete_namespaced_secret("old-used", namespace.name)


async def test_claims(namespace: Namespace, hub_kubeconfig: str) -> None:
    """One that never had a volume goes; one that has one stays, and so does one that is not there."""

    def claim(name: str, storage: str) -> dict[str, Any]:
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage,
            "resources": {"requests": {"storage": "1Gi"}},
        }
        return {"metadata": {"name": name}, "spec": spec}

    async with connected(hub_kubeconfig) as api:
        assert await kube_claims.is_absent(api, namespace.name, "waits")
        assert not await kube_claims.is_absent(api, "kube-system", "waits"), "the hub may not look there"
        for name, storage in (("waits", "no-such-class"), ("bound", namespace.name)):
            await api.create_namespaced_persistent_volume_claim(namespace.name, claim(name, storage))
        assert not await kube_claims.is_absent(api, namespace.name, "waits")
        said = bound = ""
        for _ in range(150):
            said = await kube_claims.what_is_said(api, namespace.name, "waits")
            claim_of = api.read_namespaced_persistent_volume_claim
            bound = (await claim_of("bound", namespace.name)).spec.volume_name or ""
            if said and bound:
                break
            await asyncio.sleep(0.2)
        assert "no-such-class" in said and bound
        assert await kube_claims.remove_unbound(api, namespace.name, "waits")
        assert not await kube_claims.remove_unbound(api, namespace.name, "bound")
        assert not await kube_claims.remove_unbound(api, "kube-system", "waits")
        left = (await api.list_namespaced_persistent_volume_claim(namespace.name)).items
        assert {"waits", "bound"} & {c.metadata.name for c in left} == {"bound"}
