"""Why a pod does not start, in plain sentences. Pure: reads what Kubernetes says about it.

Sources: the pod's own status, its events, refusals of the API, and what a container printed last
(``terminationMessagePolicy``), which is untrusted: it is cut, cleaned, and shown as plain text. No more
rights are needed than KubeSpawner has.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from overlayspawner.hub import failure
from overlayspawner.hub.deaths import Death
from overlayspawner.hub.kube_manifests import NOTEBOOK
from overlayspawner.hub.output import clean, one_line, redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_CHARS = 600
"""How much of a message of Kubernetes is shown."""

MAX_TAIL_LINES, MAX_TAIL_CHARS = 40, 4000

CODES = {
    "image": "The image can't be had.",
    "unschedulable": "The cluster has no room for the server.",
    "storage": "The storage claim can't be had.",
    "mount": "A volume can't be mounted.",
    "pod-settings": "The pod's settings can't be followed on this node or with this image.",
    "quota": "The namespace's quota is used up.",
    "forbidden": "The cluster's rules refuse the pod, or the hub has no right to make it.",
    "cluster": "The Kubernetes API does not answer, or failed.",
    "evicted": "The cluster ended the pod.",
    "companion": "Another container of the pod failed.",
    "readiness": "The pod runs, but does not become ready.",
    "command": "The server's command can't be run.",
    "out-of-memory": "The server needed more memory than it may have.",
    "exited": "The server ended while it started.",
}
"""Stable codes: they are in the hub's log, and are the ``reason`` of its metrics."""

_HINTS = {
    "image": "Check the image's name, and whether the cluster's nodes may pull it.",
    "unschedulable": "Try again later, or choose a smaller server.",
    "storage": "An administrator finds more with: kubectl describe pvc",
    "mount": "An administrator finds more with: kubectl describe pod",
    "pod-settings": "An administrator has to change the pod's settings.",
    "quota": "Stop other servers, or ask an administrator for a larger quota.",
    "forbidden": "An administrator has to change the pod's settings or the hub's Role.",
    "cluster": "Try again in a moment.",
    "evicted": "Try again; if it happens again, ask your administrator.",
    "companion": "An administrator finds more in this container's log.",
    "readiness": "An administrator has to look at the readiness probes of the pod's containers.",
}

_WAITING = {
    "ErrImagePull": "image",
    "ImagePullBackOff": "image",
    "InvalidImageName": "image",
    "ErrImageNeverPull": "image",
    "ImageInspectError": "image",
    "RegistryUnavailable": "image",
    "CreateContainerConfigError": "pod-settings",
    "CreateContainerError": "pod-settings",
    "RunContainerError": "command",
    "PreStartHookError": "pod-settings",
    "PostStartHookError": "pod-settings",
}
# What no waiting will mend.
_HOPELESS = ("InvalidImageName", "ErrImageNeverPull")

_EVENTS = {
    "FailedScheduling": "unschedulable",
    "NotTriggerScaleUp": "unschedulable",
    "FailedMount": "mount",
    "FailedAttachVolume": "mount",
    "FailedMapVolume": "mount",
    "VolumeResizeFailed": "storage",
    "ProvisioningFailed": "storage",
    "FailedBinding": "storage",
    "InspectFailed": "image",
    "ErrImageNeverPull": "image",
    "FailedCreatePodSandBox": "pod-settings",
    "FailedPostStartHook": "pod-settings",
    "Evicted": "evicted",
    "Preempted": "evicted",
    "Preempting": "evicted",
    "TaintManagerEviction": "evicted",
    "NodeNotReady": "evicted",
    "Unhealthy": "readiness",
}
_CLAIM = re.compile(r"persistentvolumeclaim|persistent volume|pvc", re.IGNORECASE)
_ADMISSION = re.compile(r"admission webhook .* denied|violates PodSecurity", re.IGNORECASE)
# Newer versions go on behind it, with the error.
_BACK_OFF = re.compile(r'(Back-off pulling image "[^"]*"|Error: (ErrImagePull|ImagePullBackOff))\s*$')
_PULLING = re.compile(r"pull|image", re.IGNORECASE)


@dataclass(frozen=True)
class Reason:
    """Why a server is not up.

    Parameters
    ----------
    code:
        One of :data:`CODES`.
    message:
        What happened, one sentence, perhaps with Kubernetes' own words.
    fatal:
        Whether waiting is of no use.
    tail:
        What the server printed last. Not yet without secrets.
    safe:
        Whether what the user installed may be the reason.
    """

    code: str
    message: str
    fatal: bool = False
    tail: str = ""
    safe: bool = False

    @property
    def hint(self) -> str:
        """What to do about it, or ``""``."""
        return _HINTS.get(self.code, "")


def words(text: object, secrets: Iterable[str] = ()) -> str:
    """Return a message of Kubernetes in one line, bounded, without secrets."""
    return one_line(text, secrets, limit=MAX_CHARS)


def tail(text: object, secrets: Iterable[str] = ()) -> str:
    """Return the last lines of what a container printed: cleaned, bounded, without secrets."""
    kept = [line.rstrip() for line in redact(clean(str(text or "")), secrets).split("\n") if line.strip()]
    return "\n".join(kept[-MAX_TAIL_LINES:])[-MAX_TAIL_CHARS:]


def of_pod(pod: Mapping[str, Any]) -> Reason | None:
    """Return what keeps a pod from running, or has ended it; ``None`` while all is well.

    Parameters
    ----------
    pod:
        As the API gives it.
    """
    status = pod.get("status") or {}
    if status.get("phase") == "Failed" and status.get("reason"):
        return _told("evicted", f"{status['reason']}: {status.get('message') or ''}", fatal=True)
    policy = (pod.get("spec") or {}).get("restartPolicy") or "Always"
    over = status.get("phase") == "Failed"  # nothing is started again
    statuses = status.get("containerStatuses") or []
    ours = [c for c in statuses if c.get("name") == NOTEBOOK] or statuses[:1]
    others = [*(status.get("initContainerStatuses") or ()), *(c for c in statuses if c not in ours)]
    reasons = [*(_of_container(c, policy) for c in ours), *(_of_companion(c, fatal=over) for c in others)]
    for reason in reasons:
        if reason is not None:
            return reason
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _unscheduled(condition.get("message"))
    return None


def _of_container(container: Mapping[str, Any], policy: str) -> Reason | None:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    ended = state.get("terminated")
    restarts = int(container.get("restartCount") or 0)
    if ended is not None:
        again = policy == "Always" or (policy == "OnFailure" and ended.get("exitCode") != 0)
        # Once may have been an accident, and the kubelet starts it again at once.
        return _of_death(ended, fatal=not again or restarts > 0)
    reason = str(waiting.get("reason") or "")
    if reason == "CrashLoopBackOff":
        return _of_death((container.get("lastState") or {}).get("terminated") or {}, fatal=True)
    if reason in _WAITING:
        return _told(_WAITING[reason], f"{reason}: {waiting.get('message') or ''}", fatal=reason in _HOPELESS)
    return None


def _of_death(ended: Mapping[str, Any], *, fatal: bool) -> Reason:
    code = ended.get("exitCode")
    why, message = str(ended.get("reason") or ""), str(ended.get("message") or "")
    if why in ("ContainerCannotRun", "StartError"):
        return _told("command", message, fatal=fatal)
    death = Death(int(code) if code is not None else None, out_of_memory=why == "OOMKilled")
    return Reason(failure.label_of(death), failure.describe(death), fatal, message, safe=True)


def _of_companion(container: Mapping[str, Any], *, fatal: bool = False) -> Reason | None:
    state = container.get("state") or {}
    name = container.get("name")
    waiting, ended = state.get("waiting") or {}, state.get("terminated")
    if ended is not None and ended.get("exitCode"):
        return _told("companion", f"{name} ended with exit code {ended['exitCode']}", fatal=fatal)
    reason = str(waiting.get("reason") or "")
    if reason == "CrashLoopBackOff":
        return _told("companion", f"{name} ends with an error each time it is started")
    if reason in _WAITING:
        return _told(_WAITING[reason], f"{name}: {reason}: {waiting.get('message') or ''}")
    return None


def _unscheduled(message: object) -> Reason:
    text = str(message or "")
    return _told("storage" if _CLAIM.search(text) else "unschedulable", text)


def _told(code: str, message: str, *, fatal: bool = False) -> Reason:
    own = words(message).rstrip(" :")
    return Reason(code, f"{CODES[code]} Kubernetes says: {own}" if own else CODES[code], fatal)


def of_unready(pod: Mapping[str, Any]) -> Reason | None:
    """Return what is to be said of a pod that runs and is not ready at the end of all patience."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    names = [
        str(c.get("name")) for c in statuses if not c.get("ready") and "running" in (c.get("state") or {})
    ]
    if not names:
        return None
    return Reason("readiness", f"{CODES['readiness']} Not ready yet: {', '.join(names)}.", fatal=True)


def more_telling(reason: Reason, before: Reason | None) -> Reason:
    """Return the one of two reasons that says more: a kubelet that waits to pull again does not say why."""
    bare = reason.code == "image" and _BACK_OFF.search(reason.message)
    return before if bare and before is not None and before.code == "image" else reason


def of_event(event: Mapping[str, Any]) -> Reason | None:
    """Return what a pod's event tells about a start that is held up, ``None`` if it does not.

    Parameters
    ----------
    event:
        As the API gives it.
    """
    if event.get("type") != "Warning":
        return None
    why, message = str(event.get("reason") or ""), str(event.get("message") or "")
    if why == "FailedScheduling":
        return _unscheduled(message)
    if why in ("Failed", "BackOff"):
        # also said of containers that end, which the pod's status tells better
        return _told("image", message) if _PULLING.search(message) else None
    return _told(_EVENTS[why], message) if why in _EVENTS else None


def of_refusal(status: int, body: object) -> Reason:
    """Return why the API refused to make something.

    Parameters
    ----------
    status:
        The HTTP status.
    body:
        The answer's body, a ``Status`` object in JSON, or anything.
    """
    message = refusal_text(body)
    if "exceeded quota" in message or "failed quota" in message:
        return _told("quota", message, fatal=True)
    if status in (403, 422) and "persistentvolumeclaim" in message.lower():
        return _told("storage", message, fatal=True)
    if status in (401, 403) or _ADMISSION.search(message):
        return _told("forbidden", message, fatal=True)
    if status in (400, 409, 422):
        return _told("pod-settings", message, fatal=True)
    return _told("cluster", message or f"HTTP {status}", fatal=True)


def refusal_text(body: object) -> str:
    """Return the message of an answer of the API."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        data = json.loads(text)
    except ValueError:
        return text
    return str(data.get("message") or "") if isinstance(data, dict) else text
