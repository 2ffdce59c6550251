"""What is said about pods that don't start: from what Kubernetes says, without a cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest

from overlayspawner.hub import kube_reasons as ours


def pod(*, phase: str = "Pending", policy: str = "OnFailure", **status: Any) -> dict[str, Any]:
    return {"spec": {"restartPolicy": policy}, "status": {"phase": phase, **status}}


def container(
    state: dict[str, Any], name: str = "notebook", restarts: int = 0, **more: Any
) -> dict[str, Any]:
    return {"name": name, "state": state, "restartCount": restarts, "ready": False, **more}


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


UNSCHEDULED = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1 nodes are available: 1 Insufficient memory.",
}


@pytest.mark.parametrize(
    ("status", "code", "fatal", "text"),
    [
        (
            {"containerStatuses": [container(waiting("ImagePullBackOff", "Back-off"))]},
            "image",
            False,
            "Back-off",
        ),
        (
            {"containerStatuses": [container(waiting("ErrImagePull", "not found"))]},
            "image",
            False,
            "not found",
        ),
        ({"containerStatuses": [container(waiting("InvalidImageName"))]}, "image", True, "can't be had"),
        ({"containerStatuses": [container(waiting("ErrImageNeverPull"))]}, "image", True, "can't be had"),
        (
            {"containerStatuses": [container(waiting("CreateContainerConfigError", "will run as root"))]},
            "pod-settings",
            False,
            "will run as root",
        ),
        ({"conditions": [UNSCHEDULED]}, "unschedulable", False, "Insufficient memory"),
        (
            {"conditions": [{**UNSCHEDULED, "message": "pod has unbound immediate PersistentVolumeClaims"}]},
            "storage",
            False,
            "unbound",
        ),
        # once it may have been an accident; twice it is none
        ({"containerStatuses": [container(ended(1))]}, "exited", False, "exit code 1"),
        ({"containerStatuses": [container(ended(1), restarts=1)]}, "exited", True, "exit code 1"),
        ({"containerStatuses": [container(ended(0))]}, "exited", True, "without an error"),
        ({"containerStatuses": [container(ended(127), restarts=1)]}, "command", True, "not found"),
        (
            {"containerStatuses": [container(ended(137, "OOMKilled"), restarts=1)]},
            "out-of-memory",
            True,
            "memory",
        ),
        (
            {"containerStatuses": [container(ended(128, "StartError", 'exec: "x": not found'), restarts=1)]},
            "command",
            True,
            'exec: "x"',
        ),
        (
            {
                "containerStatuses": [
                    container(waiting("CrashLoopBackOff"), lastState=ended(3, message="last"))
                ]
            },
            "exited",
            True,
            "exit code 3",
        ),
        (
            {
                "containerStatuses": [
                    container({"running": {}}),
                    container(waiting("CrashLoopBackOff"), name="backup"),
                ]
            },
            "companion",
            False,
            "backup",
        ),
        ({"initContainerStatuses": [container(ended(2), name="prepare")]}, "companion", False, "prepare"),
        (
            {"phase": "Failed", "initContainerStatuses": [container(ended(2), name="prepare")]},
            "companion",
            True,
            "prepare",
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "low on memory"},
            "evicted",
            True,
            "low on memory",
        ),
    ],
)
def test_of_a_pod(status: dict[str, Any], code: str, fatal: bool, text: str) -> None:
    reason = ours.of_pod(pod(**status))
    assert reason is not None
    assert (reason.code, reason.fatal) == (code, fatal)
    assert text in reason.message
    assert reason.code in ours.CODES


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"containerStatuses": None, "conditions": None},
        {"containerStatuses": [container(waiting("ContainerCreating"))]},
        {"containerStatuses": [container({"running": {"startedAt": "now"}}, restarts=1, lastState=ended(1))]},
        {"conditions": [{"type": "PodScheduled", "status": "True"}]},
        {"initContainerStatuses": [container(ended(0), name="prepare")]},
    ],
)
def test_all_is_well(status: dict[str, Any]) -> None:
    assert ours.of_pod(pod(**status)) is None


def test_not_ready() -> None:
    started = {"running": {"startedAt": "now"}}
    reason = ours.of_unready(pod(containerStatuses=[container(started), container(ended(1), name="more")]))
    assert reason is not None and reason.code == "readiness" and reason.message.endswith("yet: notebook.")
    assert ours.of_unready(pod(containerStatuses=[container(waiting("ContainerCreating"))])) is None
    assert ours.of_unready(pod(containerStatuses=[{**container(started), "ready": True}])) is None
    assert ours.of_unready(pod()) is None


def test_a_policy_that_starts_nothing_again() -> None:
    reason = ours.of_pod(pod(policy="Never", containerStatuses=[container(ended(1, message="why"))]))
    assert reason is not None and reason.fatal and reason.tail == "why" and reason.safe


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"reason": "FailedScheduling", "message": "0/3 nodes are available"}, "unschedulable"),
        ({"reason": "FailedScheduling", "message": 'persistentvolumeclaim "a" not found'}, "storage"),
        ({"reason": "FailedMount", "message": 'MountVolume.SetUp failed: secret "x" not found'}, "mount"),
        ({"reason": "Failed", "message": 'Failed to pull image "x": not found'}, "image"),
        ({"reason": "BackOff", "message": 'Back-off pulling image "x"'}, "image"),
        ({"reason": "BackOff", "message": "Back-off restarting failed container"}, None),
        ({"reason": "Unhealthy", "message": "Readiness probe failed: x"}, "readiness"),
        ({"reason": "Preempting", "message": "by another"}, "evicted"),
        ({"reason": "SomethingNew", "message": "of a newer version"}, None),
        ({"reason": "FailedMount", "message": "x", "type": "Normal"}, None),
    ],
)
def test_of_an_event(event: dict[str, Any], code: str | None) -> None:
    reason = ours.of_event({"type": "Warning", **event})
    assert (reason.code if reason else None) == code
    if reason:
        assert not reason.fatal and event["message"] in reason.message


@pytest.mark.parametrize("bare", ['Back-off pulling image "x:1"', "Error: ErrImagePull"])
def test_why_an_image_can_t_be_had_is_not_forgotten(bare: str) -> None:
    refused = ours.of_event({"type": "Warning", "reason": "Failed", "message": "pull: connection refused"})
    again = ours.of_event({"type": "Warning", "reason": "Failed", "message": bare})
    newer = ours.of_event({"type": "Warning", "reason": "Failed", "message": f"{bare}: no such host"})
    mount = ours.of_event({"type": "Warning", "reason": "FailedMount", "message": "x"})
    assert refused and again and newer and mount
    assert ours.more_telling(again, refused) is refused
    assert ours.more_telling(newer, refused) is newer
    assert ours.more_telling(again, mount) is ours.more_telling(again, None) is again
    assert ours.more_telling(mount, refused) is mount


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, 'admission webhook "policy.example" denied the request: no tag latest', "forbidden"),
        (403, 'pods "jupyter-a" is forbidden: exceeded quota: small, requested: pods=1', "quota"),
        (403, 'persistentvolumeclaims "claim-a" is forbidden: exceeded quota: disks', "quota"),
        (403, 'persistentvolumeclaims is forbidden: User "hub" cannot create resource', "storage"),
        (422, 'PersistentVolumeClaim "claim-a" is invalid: spec.accessModes', "storage"),
        (403, 'pods "jupyter-a" is forbidden: violates PodSecurity "restricted:latest"', "forbidden"),
        (403, 'User "hub" cannot create resource "pods"', "forbidden"),
        (422, "spec.containers[0].image: Required value", "pod-settings"),
        (500, "etcdserver: request timed out", "cluster"),
        (503, "", "cluster"),
    ],
)
def test_of_a_refusal(status: int, message: str, code: str) -> None:
    for body in (json.dumps({"kind": "Status", "message": message}), message, message.encode()):
        reason = ours.of_refusal(status, body)
        assert reason.code == code
        assert message in reason.message
        assert reason.hint


def test_what_a_container_printed_is_not_trusted() -> None:
    text = (
        "\x1b[31m<b>one</b>\x00\n\n  two  \nJUPYTERHUB_API_TOKEN=abcdefgh\nhttps://me:pass@host/\nmine-s3cret"
    )
    shown = ours.tail(text, {"mine-s3cret"})
    assert shown.split("\n") == [
        "<b>one</b>",
        "  two",
        "JUPYTERHUB_API_TOKEN=[hidden]",
        "https://[hidden]@host/",
        "[hidden]",
    ]
    assert len(ours.tail("x" * 100_000)) == ours.MAX_TAIL_CHARS
    assert ours.tail("\n".join(map(str, range(1000)))).startswith("960")
    assert len(ours.words("y\n" * 10_000)) == ours.MAX_CHARS
    assert ours.words(None) == ""
