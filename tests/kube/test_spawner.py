"""OverlayKubeSpawner where no cluster is needed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace

import pytest

from overlayspawner import OverlayKubeSpawner
from overlayspawner.hub import kube_claims


def test_it_needs_nothing_of_docker() -> None:
    """The hub's image of zero-to-jupyterhub has KubeSpawner, and no DockerSpawner."""
    code = (
        "import sys; sys.modules.update(docker=None, dockerspawner=None)\n"
        "from overlayspawner import OverlayKubeSpawner; print(OverlayKubeSpawner.__mro__[2].__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "KubeSpawner\n", done.stderr


async def test_a_pod_is_gone_when_it_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that has just begun to look again knows no pods at all: they are not gone."""
    for name in ("load_config", "shared_client"):  # nobody is asked
        monkeypatch.setattr(f"kubespawner.spawner.{name}", lambda *_, **__: None)
    spawner = OverlayKubeSpawner(_mock=True)
    pod = {"metadata": {"name": spawner.pod_name}, "spec": {}, "status": {"phase": "Pending"}}
    reflector = SimpleNamespace(first_load_future=asyncio.Future(), pods={})
    monkeypatch.setattr(OverlayKubeSpawner, "reflectors", {("pods", spawner.namespace): reflector})
    spawner._overlay_seen = True
    assert spawner._overlay_pod() is None
    for _ in range(3):
        assert spawner._overlay_look(overdue=False) is None
    reflector.pods[f"{spawner.namespace}/{spawner.pod_name}"] = pod
    assert spawner._overlay_pod() is None, "it is not done yet"
    reflector.first_load_future.set_result(None)
    assert spawner._overlay_look(overdue=False) is None
    reflector.pods.clear()
    told = [spawner._overlay_look(overdue=False) for _ in range(4)]
    assert told[:3] == [None] * 3 and told[3] is not None and told[3].code == "evicted"


def test_who_uses_a_claim() -> None:
    def pod(name: str, namespace: str, claim: str) -> dict[str, object]:
        volumes = [
            {"name": "a", "emptyDir": {}},
            {"name": "b", "persistentVolumeClaim": {"claimName": claim}},
        ]
        return {"metadata": {"name": name, "namespace": namespace}, "spec": {"volumes": volumes}}

    pods = [pod("a", "n", "mine"), pod("b", "other", "mine"), pod("c", "n", "theirs"), {}]
    assert kube_claims.users_of("mine", "n", pods) == ["a"]
