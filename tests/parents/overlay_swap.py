"""A plugin for the parents' suites: puts another class in the place of a parent before tests are collected.

``OVERLAY_SWAP`` is ``ours``, ``control`` (an empty subclass of the parent, with the name of ours) or empty.
``OVERLAY_PATIENCE=N``: kubespawner's fixtures sleep N times as long between their looks at a pod, of which
they take a limited number: they are made for quiet machines. ``OVERLAY_PRESENT=1``: a Kubernetes node runs
the images that it has, without asking for newer ones, and gives every pod a share of the processor.
``OVERLAY_PORT=N``: services are published on a port of the node: not every kernel has what a swarm's own
addresses need.
It runs in the suite's own environment, and imports nothing of this project but the spawners.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from types import SimpleNamespace
from typing import Any

# where the suites import a parent from → its name, and ours
PLACES = {
    "dockerspawner": {
        "DockerSpawner": "overlayspawner.hub.docker:OverlayDockerSpawner",
        "SwarmSpawner": "overlayspawner.hub.swarm:OverlaySwarmSpawner",
        "SystemUserSpawner": "overlayspawner.hub.system_user:OverlaySystemUserSpawner",
    },
    "kubespawner": {"KubeSpawner": "overlayspawner.hub.kube:OverlayKubeSpawner"},
}


def swap(place: str, parent: str, how: str) -> None:
    """Put our class (``ours``), or an empty subclass (``control``), in the place of a module's spawner."""
    module = importlib.import_module(place)
    stock = getattr(module, parent)
    where, _, name = PLACES[place][parent].partition(":")
    cls = type(name, (stock,), {}) if how == "control" else getattr(importlib.import_module(where), name)
    for home in (module, importlib.import_module(stock.__module__)):
        setattr(home, parent, cls)


def use_what_is_present() -> None:
    """Have a node start the images that it has."""
    from kubernetes_asyncio.client import rest

    inner = rest.RESTClientObject.request

    async def request(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        body = kwargs.get("body")
        if method == "POST" and url.endswith("/pods") and isinstance(body, dict):
            spec = body["spec"]
            for container in [*spec.get("containers", []), *spec.get("initContainers", [])]:
                container.setdefault("imagePullPolicy", "IfNotPresent")
                # what asks for nothing gets next to nothing while the machine has other work
                container.setdefault("resources", {}).setdefault("requests", {}).setdefault("cpu", "200m")
        return await inner(self, method, url, *args, **kwargs)

    rest.RESTClientObject.request = request


def pytest_collection_modifyitems() -> None:
    """Have the fixtures wait longer."""
    patience = float(os.environ.get("OVERLAY_PATIENCE", "1"))
    fixtures: Any = sys.modules.get("conftest")
    if patience == 1 or fixtures is None:
        return

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds * patience)

    fixtures.asyncio = SimpleNamespace(**{**vars(asyncio), "sleep": sleep})


def publish(port: int) -> None:
    """Have services published on a port of their node."""
    from dockerspawner import SwarmSpawner

    SwarmSpawner._extra_endpoint_spec_default = lambda self: {"ports": {port: (8888, "tcp", "host")}}


if os.environ.get("OVERLAY_PORT"):
    publish(int(os.environ["OVERLAY_PORT"]))
if os.environ.get("OVERLAY_PRESENT"):
    use_what_is_present()
if os.environ.get("OVERLAY_SWAP"):
    swap(*os.environ["OVERLAY_SWAP_PLACE"].split(":"), os.environ["OVERLAY_SWAP"])
