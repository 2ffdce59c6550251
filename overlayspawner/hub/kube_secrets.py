"""The Secrets that bring the payload into pods: made where they are absent, removed when nobody uses them.

Needs to create, get, list and delete Secrets and to list pods, which the hub of zero-to-jupyterhub may do. It
may not change Secrets, and need not: one is immutable and named by the hash of what it holds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import ClientError
from kubernetes_asyncio.client.exceptions import ApiException

from overlayspawner.hub import kube_manifests, kube_reasons, payload_zip

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

REQUEST_TIMEOUT = 20.0
"""Seconds for one request: some of them carry a megabyte."""

_KNOWN_FOR = 2.0  # seconds for which a Secret that was there is believed to be there still: a burst of starts
_LOOK_EVERY = 3600.0  # seconds between looks for old Secrets in one namespace
_YOUNGEST = 3600.0  # seconds for which a Secret of another payload is left alone

# Names and labels only: the content of a handful of Secrets would be megabytes.
_ONLY_METADATA = "application/json;as=PartialObjectMetadata{};v=v1;g=meta.k8s.io"


class SecretStore:
    """Our Secrets in the namespaces of one cluster, for all spawners of a hub. Used in one event loop."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], float] = {}
        self._verified: dict[tuple[str, str], str] = {}  # their uids
        self._looked: dict[str, float] = {}
        self._making: dict[tuple[str, str], asyncio.Future[None]] = {}

    @property
    def name(self) -> str:
        """The Secret's name."""
        return kube_manifests.secret_name(payload_zip.build())

    async def ensure(self, api: Any, namespace: str, labels: Mapping[str, str] | None = None) -> str:
        """Make the payload's Secret where it is absent, and return its name.

        Parameters
        ----------
        api:
            A ``CoreV1Api``.
        namespace:
            Where; a pod can only mount Secrets of its own.
        labels:
            More labels for a new one.

        Raises
        ------
        kubernetes_asyncio.client.exceptions.ApiException
            The API refuses.
        OSError, asyncio.TimeoutError, aiohttp.ClientError
            It does not answer.
        ValueError
            There is a Secret of this name that holds something else.
        """
        await payload_zip.built()
        name = self.name
        key = (namespace, name)
        if time.monotonic() - self._known.get(key, -_KNOWN_FOR) < _KNOWN_FOR:
            return name
        if key not in self._making:
            # one for all spawns that wait for it: each request would carry a megabyte
            making = self._making[key] = asyncio.ensure_future(self._make(api, namespace, name, labels))
            making.add_done_callback(partial(self._made, key))
        await asyncio.shield(self._making[key])
        self._known[key] = time.monotonic()
        return name

    def _made(self, key: tuple[str, str], making: asyncio.Future[None]) -> None:
        self._making.pop(key, None)
        if not making.cancelled():
            making.exception()  # nobody may be left to look at it

    async def _make(self, api: Any, namespace: str, name: str, labels: Mapping[str, str] | None) -> None:
        if await self._is_there(api, namespace, name):
            return
        payload = payload_zip.build()
        body = kube_manifests.secret_manifest(payload, namespace=namespace, labels=labels)
        request = {"_request_timeout": REQUEST_TIMEOUT}
        try:
            there = await api.create_namespaced_secret(namespace, body, **request)
        except ApiException as e:
            if e.status != 409:
                raise
            # Anybody who may make Secrets here could have taken the name, to run code in all users' servers.
            there = await api.read_namespaced_secret(name, namespace, **request)
            if not there.immutable or (there.data or {}) != body["data"]:
                raise ValueError(
                    f"the Secret {namespace}/{name} holds something else than its name says, or can change"
                ) from None
        else:
            log.info("Made the Secret %s/%s with the overlay's payload.", namespace, name)
        self._verified[namespace, name] = there.metadata.uid

    async def _is_there(self, api: Any, namespace: str, name: str) -> bool:
        """Return whether a Secret that was looked into is still the same.

        Another hub may have removed it as an old one, and a user's namespace may have been made anew.
        """
        verified = self._verified.pop((namespace, name), None)
        if verified is None:
            return False
        path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        try:
            found = await _get(api, path, accept=_ONLY_METADATA.format(""))
        except ApiException as e:
            if e.status != 404:
                raise
            return False
        if (found.get("metadata") or {}).get("uid") != verified:
            return False
        self._verified[namespace, name] = verified
        return True

    async def remove_old(self, api: Any, namespace: str) -> list[str]:
        """Remove Secrets of other payloads that no pod uses, once in a while; return their names.

        Never raises for what the API says: there is always a next time.
        """
        if time.monotonic() - self._looked.get(namespace, -_LOOK_EVERY) < _LOOK_EVERY:
            return []
        self._looked[namespace] = time.monotonic()
        removed = []
        try:
            for name in await self._unused(api, namespace):
                try:
                    await api.delete_namespaced_secret(name, namespace, _request_timeout=REQUEST_TIMEOUT)
                except ApiException as e:
                    if e.status != 404:
                        raise
                else:
                    removed.append(name)
        except (ApiException, ClientError, OSError, asyncio.TimeoutError, ValueError) as e:
            log.warning("Can't look for old Secrets in %s: %s", namespace, getattr(e, "reason", None) or e)
        if removed:
            log.info("Removed unused Secrets from %s: %s", namespace, ", ".join(removed))
        return removed

    async def _unused(self, api: Any, namespace: str) -> list[str]:
        secrets = await _items(
            api,
            f"/api/v1/namespaces/{namespace}/secrets",
            label=f"{kube_manifests.PAYLOAD_LABEL},{kube_manifests.MANAGED_BY}=overlayspawner",
            accept=_ONLY_METADATA.format("List"),
        )
        if not any((s.get("metadata") or {}).get("name") != self.name for s in secrets):
            return []
        # All pods of the namespace, not only those of this hub.
        pods = await _items(api, f"/api/v1/namespaces/{namespace}/pods")
        return kube_manifests.unused_secrets(
            secrets,
            keep=self.name,
            used=kube_manifests.secrets_in_use(pods),
            now=time.time(),
            youngest=_YOUNGEST,
        )


async def _items(api: Any, path: str, *, label: str = "", accept: str = "application/json") -> list[Any]:
    """Return the items of a list, as the API gives them."""
    data = await _get(api, path, label=label, accept=accept)
    items = data.get("items")
    return items if isinstance(items, list) else []


async def _get(api: Any, path: str, *, label: str = "", accept: str = "application/json") -> dict[str, Any]:
    """Return what the API gives at a path."""
    response = await api.api_client.call_api(
        path,
        "GET",
        query_params=[("labelSelector", label)] if label else [],
        header_params={"Accept": accept},
        auth_settings=["BearerToken"],
        _preload_content=False,
        _return_http_data_only=True,
        _request_timeout=REQUEST_TIMEOUT,
    )
    text = await response.read()
    if response.status != 200:  # nobody else has looked: the answer comes as it is
        raise ApiException(status=response.status, reason=kube_reasons.words(kube_reasons.refusal_text(text)))
    data = json.loads(text)
    return data if isinstance(data, dict) else {}
