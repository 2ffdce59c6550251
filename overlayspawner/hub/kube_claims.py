"""Storage claims of starts that fail: what Kubernetes says about them, and that none stays half-made.

KubeSpawner makes a user's claim before the pod, and leaves it when the start fails. One that waits for a
storage class that does not exist would then wait for ever, also after the administrator has named another
class: a claim can't be changed. It holds nothing, so it is removed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from aiohttp import ClientError
from kubernetes_asyncio.client import V1DeleteOptions, V1Preconditions
from kubernetes_asyncio.client.exceptions import ApiException

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds for one request."""

_GONE_WITHIN = 15.0  # seconds; the cluster keeps a claim until it knows that no pod uses it


async def is_absent(api: Any, namespace: str, name: str) -> bool:
    """Return whether there is no such claim; ``False`` also where nobody can tell."""
    try:
        await _read(api, namespace, name)
    except ApiException as e:
        return bool(e.status == 404)
    except (ClientError, OSError, asyncio.TimeoutError):
        return False
    return False


async def what_is_said(api: Any, namespace: str, name: str) -> str:
    """Return the last warning about a claim, ``""`` where there is none or it can't be had."""
    selector = f"involvedObject.kind=PersistentVolumeClaim,involvedObject.name={name}"
    try:
        found = await asyncio.wait_for(
            api.list_namespaced_event(namespace, field_selector=selector), PATIENCE
        )
    except (ApiException, ClientError, OSError, asyncio.TimeoutError):
        return ""
    told = [e.message for e in found.items if e.type == "Warning" and e.message]
    return str(told[-1]) if told else ""


def users_of(name: str, namespace: str, pods: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of the pods that mount a claim."""
    out = []
    for pod in pods:
        metadata = pod.get("metadata") or {}
        volumes = (pod.get("spec") or {}).get("volumes") or ()
        claims = {(v.get("persistentVolumeClaim") or {}).get("claimName") for v in volumes}
        if metadata.get("namespace") == namespace and name in claims:
            out.append(str(metadata.get("name")))
    return out


async def remove_unbound(api: Any, namespace: str, name: str) -> bool:
    """Remove a claim that never had a volume, and wait until it is gone; return whether it was removed.

    Never raises for what the API says: a claim that stays does no harm to anybody else.
    """
    try:
        claim = await _read(api, namespace, name)
        if claim.status.phase != "Pending" or claim.spec.volume_name:
            return False
        # Exactly this one, as it was seen: one that has got a volume in between stays.
        seen = V1Preconditions(uid=claim.metadata.uid, resource_version=claim.metadata.resource_version)
        await asyncio.wait_for(
            api.delete_namespaced_persistent_volume_claim(
                name, namespace, body=V1DeleteOptions(preconditions=seen)
            ),
            PATIENCE,
        )
        log.info("Removed the storage claim %s/%s, which never got a volume.", namespace, name)
        end = time.monotonic() + _GONE_WITHIN
        while time.monotonic() < end:
            await _read(api, namespace, name)
            await asyncio.sleep(0.2)
    except ApiException as e:
        if e.status == 404:
            return True
        if e.status != 409:  # it has changed, and is somebody's
            log.warning("Can't remove the storage claim %s/%s: %s", namespace, name, e.reason)
    except (ClientError, OSError, asyncio.TimeoutError) as e:
        log.warning("Can't remove the storage claim %s/%s: %s", namespace, name, e or type(e).__name__)
    return False


async def _read(api: Any, namespace: str, name: str) -> Any:
    return await asyncio.wait_for(
        api.read_namespaced_persistent_volume_claim(name=name, namespace=namespace), PATIENCE
    )
