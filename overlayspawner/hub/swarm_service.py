"""From the service that SwarmSpawner would create to the one with an overlay; and why it does not start.

Pure. A service's container is described in other words than a plain container: what they mean is the same, so
the work is left to ``compose``, between two translations.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from overlayspawner.hub import engine_reasons, failure
from overlayspawner.hub.compose import mounts_of
from overlayspawner.hub.deaths import Death
from overlayspawner.hub.image_facts import parse_env
from overlayspawner.hub.kube_manifests import payload_place
from overlayspawner.hub.output import clean, redact
from overlayspawner.payload.contract import SPEC_ENV

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from overlayspawner.hub.compose import Plan

MAX_CHARS = 600
"""How much of a message of the engine is shown."""


def container_spec(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of the container in the arguments of ``create_service``."""
    return dict((kwargs.get("task_template") or {}).get("ContainerSpec") or {})


def as_container(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``create_service`` as those of ``create_container`` that mean the same."""
    spec = container_spec(kwargs)
    return {
        "image": spec.get("Image") or "",
        "entrypoint": list(spec.get("Command") or ()) or None,
        "command": list(spec.get("Args") or ()),
        "environment": list(spec.get("Env") or ()),
        "user": spec.get("User"),
        "labels": dict(spec.get("Labels") or {}),
        "tty": bool(spec.get("TTY")),
        "host_config": {"Mounts": copy.deepcopy(list(spec.get("Mounts") or ()))},
    }


def place(kwargs: Mapping[str, Any]) -> str:
    """Return where the payload goes: a directory that is on no mount, ``""`` when there is none."""
    return payload_place(mounts_of(as_container(kwargs)["host_config"]))


def as_service(
    kwargs: Mapping[str, Any],
    plan: Plan,
    *,
    configs: Mapping[str, tuple[str, str]],
    directory: str,
    volume: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the arguments of ``create_service`` with the overlay.

    Parameters
    ----------
    kwargs:
        The arguments that SwarmSpawner made.
    plan:
        What ``compose`` made of them, translated by :func:`as_container`.
    configs:
        The payload's files, each with id and name of its config object; empty: it can't be delivered, and the
        command finds out by itself.
    directory:
        Where they go.
    volume:
        ``VolumeOptions`` of the home volume.
    """
    container = plan.kwargs
    spec = container_spec(kwargs)
    spec["Args"] = container["command"]
    if container.get("entrypoint"):
        spec["Command"] = container["entrypoint"]
    spec["Labels"] = container["labels"]
    environment = container["environment"]
    if isinstance(environment, dict):
        spec["Env"] = [
            name if value is None else f"{name}={_no_template(value) if name == SPEC_ENV else value}"
            for name, value in environment.items()
        ]
        own = [_reference(f"{directory}/{file}", *config) for file, config in configs.items()]
        spec["Configs"] = [*(spec.get("Configs") or ()), *own]
    if plan.home_volume:
        spec["Mounts"] = [*(spec.get("Mounts") or ()), home_mount(plan.home_volume, plan.home, volume)]
    return _with_spec(kwargs, spec)


def _reference(path: str, identity: str, name: str) -> dict[str, Any]:
    file = {"Name": path, "UID": "0", "GID": "0", "Mode": 0o444}
    return {"ConfigID": identity, "ConfigName": name, "File": file}


def with_home(
    kwargs: Mapping[str, Any], name: str, home: str, volume: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the arguments of ``create_service`` with nothing but the home volume added."""
    spec = container_spec(kwargs)
    spec["Mounts"] = [*(spec.get("Mounts") or ()), home_mount(name, home, volume)]
    return _with_spec(kwargs, spec)


def home_mount(name: str, home: str, volume: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the mount of a home volume, which the node makes where it is absent."""
    return {
        "Type": "volume",
        "Source": name,
        "Target": home,
        "ReadOnly": False,
        "VolumeOptions": dict(volume or {}),
    }


def _with_spec(kwargs: Mapping[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "task_template": {**kwargs["task_template"], "ContainerSpec": spec}}


def _no_template(text: str) -> str:
    """Return JSON in which the engine finds no template to fill in: ``{{`` is only ever within a string."""
    return str(text).replace("{{", "{\\u007b")


# -- why a service does not start ---------------------------------------------------------------------------

CODES = {
    "no-node": "No node of the swarm can run the server.",
    "image": "The image can't be had.",
    "mount": "A volume can't be mounted.",
    "network": "The network can't be had.",
    "settings": "The swarm refuses the service's settings.",
    "not-a-manager": "The hub's Docker is no manager of a swarm.",
    "command": "The server's command can't be run.",
    "exited": "The server ended while it started.",
    "out-of-memory": "The server needed more memory than it may have.",
    "rejected": "The node refuses the server.",
    "gone": "The service was removed while it started.",
    "slow": "The node has not got the server to run in time.",
}
"""Stable codes: they are in the hub's log, and are the ``reason`` of its metrics."""

_HINTS = {
    "no-node": "Try again later. An administrator finds more with: docker service ps",
    "image": "Check the image's name, and whether the nodes have it or may pull it.",
    "mount": "An administrator has to look at the mounts of the service, and at what the nodes have.",
    "network": "An administrator has to make it (an overlay network) or to change network_name.",
    "settings": "An administrator has to change the service's settings.",
    "not-a-manager": "An administrator has to run the hub on a manager of the swarm (docker swarm init).",
    "rejected": "An administrator finds more with: docker service ps",
    "gone": "Try again; if it happens again, ask your administrator.",
    "slow": "It may be pulling the image: try again later. An administrator may raise start_timeout.",
}


@dataclass(frozen=True)
class Reason:
    """Why a start fails, or may fail.

    Parameters
    ----------
    code:
        One of :data:`CODES`.
    message:
        A sentence.
    fatal:
        No waiting will mend it.
    ended:
        The server's own program ran and ended: it may have printed why.
    """

    code: str
    message: str
    fatal: bool = False
    ended: bool = False

    @property
    def hint(self) -> str:
        """What to do."""
        return _HINTS.get(self.code, "")


_TEXTS = (
    ("not-a-manager", r"not a swarm manager|not part of a swarm|swarm does not have a leader"),
    ("image", r"no such image|pull access denied|manifest|repository|invalid reference|unauthorized"),
    (
        "network",
        r"network \S+ not found|network \S+ cannot be used|could not find network|swarm-scoped network",
    ),
    ("mount", r"mount|volume|plugin"),
)


def code_of(text: str, otherwise: str) -> str:
    """Return the code for what the engine says."""
    for code, pattern in _TEXTS:
        if re.search(pattern, text, re.IGNORECASE):
            return code
    return otherwise


def of_tasks(tasks: Iterable[Mapping[str, Any]]) -> Reason | None:
    """Return why a service's tasks say that its start fails, ``None`` when nothing is wrong so far.

    A service's tasks are its attempts. The engine makes a new one when one fails or ends: that is the
    end all the same, because whoever waits for the server would wait for each of them.
    """
    rejected = 0
    reason = None
    for task in sorted(tasks, key=lambda t: str(t.get("CreatedAt"))):
        status = task.get("Status") or {}
        state, said = status.get("State"), words(status.get("Err"))
        if state in ("failed", "complete", "shutdown"):
            return _of_end(state, status, said)
        if state in ("rejected", "orphaned"):
            # On another node it may work: only when that was refused too, it is over.
            rejected += 1
            code = code_of(said, "rejected")
            reason = Reason(code, _named_volume(f"{CODES[code]} The node says: {said}"), fatal=rejected > 1)
        elif state == "pending" and said:
            code = "mount" if "plugin" in said else "no-node"
            reason = Reason(code, f"{CODES['no-node']} The swarm says: {said}")
        elif state in ("starting", "running"):
            reason = None
    return reason


def of_slowness(tasks: Iterable[Mapping[str, Any]]) -> Reason | None:
    """Return why a start takes so long in which nothing is wrong, ``None`` where its container runs."""
    tasks = list(tasks)
    if not tasks or running(tasks):
        return None
    return Reason("slow", CODES["slow"])


def _of_end(state: str, status: Mapping[str, Any], said: str) -> Reason:
    death = Death((status.get("ContainerStatus") or {}).get("ExitCode"))
    if said.startswith("starting container failed"):
        code = (
            "command" if engine_reasons.of_text(said, "start") in ("architecture", "command") else "rejected"
        )
        return Reason(code, f"{CODES[code]} The node says: {said}", fatal=True)
    if state == "shutdown":
        return Reason("gone", "The swarm stopped the server while it started.", fatal=True)
    return Reason(failure.label_of(death), failure.describe(death), fatal=True, ended=True)


def running(tasks: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a task runs."""
    return any((t.get("Status") or {}).get("State") == "running" for t in tasks)


def of_refusal(text: str) -> Reason:
    """Return why the engine refuses a service."""
    said = words(text)
    code = code_of(said, "settings")
    return Reason(code, _named_volume(f"{CODES[code]} Docker says: {said}"), fatal=True)


def _named_volume(message: str) -> str:
    if "must be an absolute path" not in message:
        return message
    return (
        f"{message}. (SwarmSpawner takes all of volumes for directories of the nodes: named volumes belong "
        "into the mounts of extra_container_spec.)"
    )


def words(text: object, secrets: Iterable[str] = ()) -> str:
    """Return what the engine says, for people: one line, cut, without secrets."""
    out = redact(" ".join(clean(str(text or "")).split()), secrets)
    out = re.sub(r"^rpc error: code = \w+ desc = ", "", out)
    return out if len(out) <= MAX_CHARS else out[: MAX_CHARS - 2] + " …"


def environment_of(kwargs: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment in the arguments of ``create_service``."""
    return parse_env(container_spec(kwargs).get("Env"))
