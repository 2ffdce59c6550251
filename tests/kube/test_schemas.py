"""What is created in a cluster, in the eyes of newer versions of Kubernetes than the one of the tests."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from overlayspawner.hub import kube_manifests as ours
from overlayspawner.hub import payload_zip
from tests.kube.test_manifests import CLAIM, compose, manifest
from tests.support.kube_schema import VERSIONS, faults, unrestricted

RESTRICTED: dict[str, Any] = {
    "uid": 1000,
    "fs_gid": 100,
    "allow_privilege_escalation": False,
    "container_security_context": {
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
        "readOnlyRootFilesystem": True,
    },
}
PODS: dict[str, dict[str, Any]] = {
    "usual": {},
    "restricted": RESTRICTED,
    "its own command": {"cmd": None, "extra_container_config": {"command": ["jupyterhub-singleuser"]}},
    "taken names": {"volumes": [CLAIM, {"name": ours.VOLUME, "emptyDir": {}}]},
    "more containers": {
        **RESTRICTED,
        "init_containers": [{"name": "prepare", "image": "x", "restartPolicy": "Always"}],
        "extra_containers": [{"name": "more", "image": "x", "env": [{"name": "A", "value": "b"}]}],
    },
}


@pytest.mark.parametrize("version", VERSIONS)
def test_pods_and_secrets(version: str) -> None:
    for name, values in PODS.items():
        pod = compose(manifest(**values)).pod
        assert not faults({"apiVersion": "v1", "kind": "Pod", **pod}, version), name
    secret = ours.secret_manifest(payload_zip.build(), namespace="n", labels={"app": "jupyterhub"})
    assert not faults(secret, version)


def test_a_wrong_field_is_found() -> None:
    pod = compose(manifest()).pod
    wrong = copy.deepcopy(pod)
    ours.notebook_of(wrong)["volumeMounts"][-1]["read_only"] = True
    assert "read_only" in str(faults({"apiVersion": "v1", "kind": "Pod", **wrong}, "1.34"))
    wrong = copy.deepcopy(pod)
    wrong["spec"]["volumes"][-1]["secret"]["defaultMode"] = "0444"
    assert "defaultMode" in str(faults({"apiVersion": "v1", "kind": "Pod", **wrong}, "1.34"))


def test_restricted_pods_stay_so() -> None:
    before = manifest(**RESTRICTED)
    assert not unrestricted(before)
    plan = compose(before)
    assert plan.spec is not None and not unrestricted(plan.pod)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"privileged": True}, "privileged"),
        ({"container_security_context": {}}, "seccompProfile"),
        ({"volumes": [{"name": "home", "hostPath": {"path": "/"}}]}, "hostPath"),
        ({"uid": 0}, "runAsUser"),
    ],
)
def test_what_restricted_forbids_is_found(change: dict[str, Any], found: str) -> None:
    assert found in str(unrestricted(manifest(**{**RESTRICTED, **change})))
