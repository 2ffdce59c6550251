"""Kubernetes' own schemas of newer versions than the cluster of the tests, and the pod security standards."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

VERSIONS = tuple(f"1.{minor}" for minor in range(28, 35))
"""The versions of Kubernetes that are checked."""


@lru_cache(maxsize=64)
def _validator(version: str, kind: str, api: str) -> Any:
    import jsonschema
    from kubernetes_validate import utils
    from referencing import Registry, Resource

    assert f"{version}.0" in utils.all_versions(), f"no schemas of Kubernetes {version}"
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    group, _, number = api.rpartition("/")
    name = f"{kind.lower()}-{group.split('.')[0]}-{number}" if group else f"{kind.lower()}-{number}"
    schema = utils.schema_contents(f"{folder}/{name}.json", version)
    registry: Any = Registry()
    for contents in (schema, _definitions(folder, version)):
        registry = Resource.from_contents(contents) @ registry
    return jsonschema.validators.Draft202012Validator(schema, registry=registry)


@lru_cache(maxsize=16)
def _definitions(folder: str, version: str) -> Any:
    from kubernetes_validate import utils

    return utils.schema_contents(f"{folder}/_definitions.json", version)


def faults(item: dict[str, Any], version: str) -> list[str]:
    """Return what is wrong with an object in the eyes of a version of Kubernetes, field names included.

    Parameters
    ----------
    item:
        As it is sent to the API.
    version:
        One of :data:`VERSIONS`.
    """
    found = _validator(version, item["kind"], item["apiVersion"]).iter_errors(item)
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}"[:300] for error in found]


# The types of volumes that "restricted" allows; https://kubernetes.io/docs/concepts/security/pod-security-standards/
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def unrestricted(pod: dict[str, Any]) -> list[str]:
    """Return what the pod security standard *restricted* forbids in a pod; it includes *baseline*."""
    spec = pod["spec"]
    out = [f"spec.{name}" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    for volume in spec.get("volumes") or ():
        out += [f"volume {volume['name']}: {kind}" for kind in volume.keys() - _VOLUMES - {"name"}]
    common = spec.get("securityContext") or {}
    out += [f"sysctl {item['name']}" for item in common.get("sysctls") or ()]
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        own = container.get("securityContext") or {}
        name, capabilities = container["name"], own.get("capabilities") or {}
        profile = own.get("seccompProfile") or common.get("seccompProfile") or {}
        wrong = {
            "privileged": own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is not False,
            "runAsNonRoot": own.get("runAsNonRoot", common.get("runAsNonRoot")) is not True,
            "runAsUser": own.get("runAsUser", common.get("runAsUser")) == 0,
            "seccompProfile": profile.get("type") not in ("RuntimeDefault", "Localhost"),
            "capabilities.drop": "ALL" not in (capabilities.get("drop") or ()),
            "capabilities.add": set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"},
            "procMount": own.get("procMount", "Default") != "Default",
            "hostPort": any(port.get("hostPort") for port in container.get("ports") or ()),
        }
        out += [f"{name}: {what}" for what, bad in wrong.items() if bad]
    return out
