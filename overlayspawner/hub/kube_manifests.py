"""From the pod that KubeSpawner is about to create to the one with an overlay. Pure.

It works on the final manifest, as JSON, behind all that an administrator may have set (``extra_pod_config``,
profiles, ``modify_pod_hook``): nothing is replaced, and what is mounted is known for certain. What is added
is allowed by the *restricted* pod security standard: a Secret as a read-only volume; no container, no right.
"""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from overlayspawner.hub import boot
from overlayspawner.hub.config import Mount, Settings, build_spec, is_under
from overlayspawner.payload.contract import PAYLOAD_DIR, SPEC_ENV, Spec, notice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from overlayspawner.hub.choice import Choice
    from overlayspawner.hub.payload_zip import Payload

PAYLOAD_LABEL = "overlayspawner.payload"
"""Label of our Secrets; its value is the payload's short id."""

MANAGED_BY = "app.kubernetes.io/managed-by"

NOTEBOOK = "notebook"
"""Name that KubeSpawner gives to the server's container."""

MAX_SECRET_BYTES = 1 << 20
"""What a Secret holds, counted before base64."""

VOLUME = "overlayspawner-payload"

# Where the payload can be mounted when the administrator mounts something over the first place.
_PLACES = (PAYLOAD_DIR, "/usr/local/lib/overlayspawner", "/overlayspawner")

# Volumes that are gone with the pod, or that nobody writes to.
_NOT_PERSISTENT = ("emptyDir", "ephemeral", "secret", "configMap", "projected", "downwardAPI", "image")
_READ_ONLY = ("secret", "configMap", "projected", "downwardAPI", "image")


def secret_name(payload: Payload) -> str:
    """Return the name of a payload's Secret."""
    return f"overlayspawner-payload-{payload.short_id}"


def secret_data(payload: Payload) -> dict[str, str]:
    """Return a payload's files, and the mark that all of them are there, in base64."""
    mark, content = payload.mark()
    files = {**payload.contents(), mark: content}
    return {name: base64.b64encode(data).decode() for name, data in sorted(files.items())}


def secret_manifest(
    payload: Payload, *, name: str = "", namespace: str = "", labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the manifest of the Secret that holds a payload.

    Parameters
    ----------
    payload:
        What it holds.
    name:
        Its name, if it is not to be named by the payload's hash. Then it has no label of ours, so that nobody
        removes it.
    namespace:
        Left out when empty.
    labels:
        More labels.
    """
    ours = {MANAGED_BY: "overlayspawner"}
    if not name:
        ours[PAYLOAD_LABEL] = payload.short_id
    metadata: dict[str, Any] = {"name": name or secret_name(payload), "labels": {**(labels or {}), **ours}}
    if namespace:
        metadata["namespace"] = namespace
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "immutable": True,
        "data": secret_data(payload),
    }


def secrets_in_use(pods: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the names of all Secrets that pods mount."""
    used = set()
    for pod in pods:
        for volume in (pod.get("spec") or {}).get("volumes") or ():
            name = (volume.get("secret") or {}).get("secretName")
            if name:
                used.add(str(name))
    return used


def unused_secrets(
    secrets: Iterable[Mapping[str, Any]], *, keep: str, used: set[str], now: float, youngest: float
) -> list[str]:
    """Return the names of payload Secrets that may be deleted.

    Parameters
    ----------
    secrets:
        Manifests, of which only the metadata counts.
    keep:
        Name of the one of this hub.
    used:
        Names of those that pods mount.
    now:
        Seconds since the epoch.
    youngest:
        Seconds for which a Secret is left alone: another hub may be about to create a pod with it.
    """
    out = []
    for secret in secrets:
        metadata = secret.get("metadata") or {}
        name = str(metadata.get("name") or "")
        if name == keep or name in used or PAYLOAD_LABEL not in (metadata.get("labels") or {}):
            continue
        created = _seconds(metadata.get("creationTimestamp"))
        if created is not None and now - created >= youngest:
            out.append(name)
    return out


def _seconds(timestamp: object) -> float | None:
    from datetime import datetime

    try:
        return datetime.fromisoformat(str(timestamp).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


class Body(dict[str, Any]):
    """A pod's manifest, with what KubeSpawner asks of the pods that it creates."""

    @property
    def metadata(self) -> SimpleNamespace:
        """The pod's metadata."""
        return SimpleNamespace(name=self["metadata"]["name"])

    def to_str(self) -> str:
        """Return it for a log: without the values of variables, among which is the server's token."""
        shown = copy.deepcopy(dict(self))
        for kind in ("initContainers", "containers"):
            for container in shown["spec"].get(kind) or ():
                for variable in container.get("env") or ():
                    if "value" in variable:
                        variable["value"] = "[hidden]"
        return json.dumps(shown, indent=1, default=str)


@dataclass
class PodPlan:
    """How a pod is to be created.

    Parameters
    ----------
    pod:
        The manifest.
    plain:
        The one without the overlay.
    spec:
        The spec in it, ``None`` when the server runs without an overlay.
    environment:
        What the server's container is given by value.
    notices:
        What the user should know.
    """

    pod: dict[str, Any]
    plain: dict[str, Any]
    spec: Spec | None
    environment: dict[str, str]
    notices: list[dict[str, str]] = field(default_factory=list)


def notebook_of(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return the container of a manifest that is the server's: by its name, else the first.

    Raises
    ------
    ValueError
        The pod has no container.
    """
    containers = (pod.get("spec") or {}).get("containers") or []
    for container in containers:
        if container.get("name") == NOTEBOOK:
            return container  # type: ignore[no-any-return]
    if not containers:
        raise ValueError("the pod has no container")
    return containers[0]  # type: ignore[no-any-return]


def mounts_of(pod: Mapping[str, Any], container: Mapping[str, Any]) -> list[Mount]:
    """Return what is mounted into a container, our own payload left out."""
    volumes = {v.get("name"): v for v in (pod.get("spec") or {}).get("volumes") or ()}
    out = []
    for mount in container.get("volumeMounts") or ():
        volume = volumes.get(mount.get("name")) or {}
        kind = next((k for k, value in volume.items() if k != "name" and value is not None), "emptyDir")
        details = volume.get(kind) or {}
        read_only = bool(mount.get("readOnly") or details.get("readOnly") or kind in _READ_ONLY)
        source = str(details.get("claimName") or mount.get("name") or "")
        out.append(Mount(str(mount.get("mountPath", "")), read_only, source, kind not in _NOT_PERSISTENT))
    return out


def compose_pod(
    pod: Mapping[str, Any],
    *,
    settings: Settings,
    secret: str,
    command: list[str] | None = None,
    fields: Mapping[str, str] | None = None,
    choice: Choice | None = None,
    start_timeout: float = 60.0,
) -> PodPlan:
    """Return how to create a pod with the overlay in it.

    Parameters
    ----------
    pod:
        The manifest that KubeSpawner made, as JSON.
    settings:
        The overlay's.
    secret:
        Name of the Secret that holds the payload.
    command:
        The image's own command with its arguments, for a pod that names none.
    fields:
        What ``overlay_path`` may name.
    choice:
        What is different in this start.
    start_timeout:
        Seconds the hub waits for the server.

    Raises
    ------
    OverlayError
        ``bad-spec``: the spec is too large, or ``overlay_path`` can't be read.
    """
    out = copy.deepcopy(dict(pod))
    container = notebook_of(out)
    environment = {e["name"]: str(e["value"]) for e in container.get("env") or () if e.get("value")}
    # The kubelet then keeps the end of what a container printed that ended with an error: no right is needed
    # to read it.
    container.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    plain = copy.deepcopy(out)
    mounts = mounts_of(out, container)
    entrypoint = [str(word) for word in container.get("command") or ()]
    arguments = [str(word) for word in container.get("args") or ()]
    if not entrypoint and not arguments:
        arguments = list(command or ())
    wrapped = boot.wrap_container(entrypoint, arguments)
    place = payload_place(mounts)
    if wrapped.notice or not place:
        return PodPlan(out, plain, None, environment, [_why_plain(place)])
    spec = build_spec(
        settings,
        fields=fields,
        mounts=mounts,
        choice=choice,
        start_timeout=start_timeout,
        image=str(container.get("image") or ""),
    )
    volume = _free_name({v.get("name") for v in out["spec"].get("volumes") or ()})
    if place != _mounted_payload(mounts):
        _add_payload(out["spec"], container, volume, secret, place)
    if wrapped.entrypoint is not None:
        container["command"] = boot.wrap(entrypoint, place)
    elif arguments:
        container["args"] = boot.wrap(arguments, place)
    # The kubelet replaces $(NAME) and $$ in values; in JSON the sign can be written in another way.
    value = spec.to_json().replace("$", "\\u0024")
    container["env"] = [e for e in container.get("env") or () if e.get("name") != SPEC_ENV]
    container["env"].append({"name": SPEC_ENV, "value": value})
    return PodPlan(out, plain, spec, environment)


def _why_plain(place: str) -> dict[str, str]:
    if not place:
        return notice(
            "payload-missing",
            "The overlay has no place in this pod: volumes are mounted over all of them.",
            f"Ask your administrator to leave one of these free: {', '.join(_PLACES)}.",
        )
    return notice(
        "no-command",
        "The command of this image is not known, so the server starts without the overlay.",
        "Ask your administrator to set cmd, or overlay_cmd for this image.",
    )


def _mounted_payload(mounts: Iterable[Mount]) -> str:
    """Return where an administrator has mounted the payload, ``""`` for nowhere."""
    return next((PAYLOAD_DIR for m in mounts if m.path.rstrip("/") == PAYLOAD_DIR), "")


def payload_place(mounts: list[Mount]) -> str:
    """Return where the payload is mounted: a place that is in no other volume, ``""`` when there is none.

    A directory would have to be made in that volume, which may be read-only or the user's.
    """
    if _mounted_payload(mounts):
        return PAYLOAD_DIR
    for place in _PLACES:
        if not any(is_under(place, m.path) or is_under(m.path, place) for m in mounts):
            return place
    return ""


def _free_name(taken: set[Any]) -> str:
    name, number = VOLUME, 1
    while name in taken:
        number += 1
        name = f"{VOLUME}-{number}"
    return name


def _add_payload(
    spec: dict[str, Any], container: dict[str, Any], volume: str, secret: str, place: str
) -> None:
    # Optional: a Secret that is missing after all leaves an empty directory, and the server starts without
    # the overlay. Otherwise the pod would wait for it for ever.
    source = {"secretName": secret, "defaultMode": 0o444, "optional": True}
    spec["volumes"] = [*(spec.get("volumes") or ()), {"name": volume, "secret": source}]
    mount = {"name": volume, "mountPath": place, "readOnly": True}
    container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]
