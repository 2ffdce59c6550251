"""What is created in a cluster: pods and Secrets as KubeSpawner makes them, and what we add."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from kubernetes_asyncio.client import ApiClient
from kubespawner.objects import make_pod

from overlayspawner.hub import kube_manifests as ours
from overlayspawner.hub import kube_secret, payload_zip
from overlayspawner.hub.choice import Choice
from overlayspawner.hub.config import Mount, Settings
from overlayspawner.payload.contract import PAYLOAD_DIR, SPEC_ENV, OverlayError, Spec

CLAIM = {"name": "home", "persistentVolumeClaim": {"claimName": "claim-a"}}
SECRET = "overlayspawner-payload-x"


def manifest(**more: Any) -> dict[str, Any]:
    """Return a pod's manifest as KubeSpawner makes it and the API gets it."""
    values: dict[str, Any] = {
        "name": "jupyter-a",
        "image": "some/image",
        "cmd": ["jupyterhub-singleuser", "--debug"],
        "port": 8888,
        "env": {"JUPYTERHUB_API_TOKEN": "secret-of-a"},
        "volumes": [CLAIM],
        "volume_mounts": [{"name": "home", "mountPath": "/home/jovyan"}],
        **more,
    }
    client = ApiClient.__new__(ApiClient)  # its constructor wants an event loop
    made: dict[str, Any] = client.sanitize_for_serialization(make_pod(**values))
    return made


def compose(pod: dict[str, Any], **more: Any) -> ours.PodPlan:
    return ours.compose_pod(pod, **{"settings": Settings(), "secret": SECRET, **more})


def spec_of(plan: ours.PodPlan) -> dict[str, Any]:
    variables = {e["name"]: e for e in ours.notebook_of(plan.pod)["env"]}
    spec: dict[str, Any] = json.loads(variables[SPEC_ENV]["value"])
    return spec


def test_what_is_added_and_that_nothing_else_is() -> None:
    before = manifest()
    given = copy.deepcopy(before)
    plan = compose(given)
    assert given == before
    container = ours.notebook_of(plan.pod)
    assert container["args"][0:2] == ["/bin/sh", "-c"]
    assert container["args"][-2:] == ["jupyterhub-singleuser", "--debug"]
    assert container["volumeMounts"][-1] == {
        "name": ours.VOLUME,
        "mountPath": PAYLOAD_DIR,
        "readOnly": True,
    }
    # any user may read it, and a Secret that is gone doesn't keep the pod from starting
    assert plan.pod["spec"]["volumes"][-1] == {
        "name": ours.VOLUME,
        "secret": {"secretName": SECRET, "defaultMode": 0o444, "optional": True},
    }
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    # and all the rest is what it was
    after = copy.deepcopy(plan.pod)
    rest = ours.notebook_of(after)
    del rest["terminationMessagePolicy"]
    rest["args"] = ["jupyterhub-singleuser", "--debug"]
    rest["volumeMounts"].pop()
    after["spec"]["volumes"].pop()
    assert rest["env"].pop()["name"] == SPEC_ENV
    assert after == before


def test_without_an_overlay_only_the_reason_of_an_end_is_kept() -> None:
    before = manifest()
    plain = compose(before).plain
    assert ours.notebook_of(plain).pop("terminationMessagePolicy") == "FallbackToLogsOnError"
    assert plain == before


def test_what_an_administrator_set_stays() -> None:
    pod = manifest(extra_container_config={"terminationMessagePolicy": "File"})
    assert ours.notebook_of(compose(pod).pod)["terminationMessagePolicy"] == "File"


@pytest.mark.parametrize(
    ("container", "command", "expected"),
    [
        # an entrypoint that runs what it is given
        ({"command": ["tini", "--"], "args": ["start.sh"]}, None, ("args", ["start.sh"])),
        # one that takes options
        ({"command": ["jupyterhub-singleuser"], "args": ["--debug"]}, None, ("command", None)),
        ({"command": ["jupyterhub-singleuser"]}, None, ("command", None)),
        # the image's own command, named by the administrator
        ({}, ["start-notebook.py", "--a"], ("args", ["start-notebook.py", "--a"])),
    ],
)
def test_commands(container: dict[str, Any], command: list[str] | None, expected: tuple[str, Any]) -> None:
    pod = manifest(cmd=None)
    notebook = ours.notebook_of(pod)
    notebook.update(container)
    plan = compose(pod, command=command)
    key, words = expected
    wrapped = ours.notebook_of(plan.pod)[key]
    assert wrapped[:2] == ["/bin/sh", "-c"]
    assert wrapped[4:] == (words or container["command"])
    assert plan.spec is not None and not plan.notices
    if key == "command":
        assert ours.notebook_of(plan.pod).get("args") == container.get("args")


@pytest.mark.parametrize("args", [None, ["--debug"]])
def test_a_command_that_nobody_knows_is_left_alone(args: list[str] | None) -> None:
    plan = compose(manifest(cmd=args))
    assert plan.spec is None
    assert plan.pod == plan.plain
    assert [n["code"] for n in plan.notices] == ["no-command"] and "overlay_cmd" in plan.notices[0]["hint"]


def test_only_the_notebook_s_container_is_touched() -> None:
    extra = [{"name": "backup", "image": "x", "args": ["run"]}]
    pod = manifest(extra_containers=extra, init_containers=[{"name": "prepare", "image": "y"}])
    pod["spec"]["containers"].reverse()  # as a modify_pod_hook may
    plan = compose(pod)
    others = [c for c in plan.pod["spec"]["containers"] if c["name"] != ours.NOTEBOOK]
    assert others == extra
    assert plan.pod["spec"]["initContainers"] == pod["spec"]["initContainers"]
    assert ours.notebook_of(plan.pod)["name"] == ours.NOTEBOOK


def test_a_container_with_another_name() -> None:
    pod = manifest()
    pod["spec"]["containers"][0]["name"] = "lab"
    assert compose(pod).spec is not None


@pytest.mark.parametrize("value", ["$(HOME)", "a$$b", "${X}"])
def test_kubernetes_replaces_nothing_in_the_spec(value: str) -> None:
    """It replaces ``$(NAME)`` and ``$$`` in the values of variables."""
    plan = compose(manifest(), settings=Settings(index_url=f"https://example.org/{value}/"))
    text = next(e["value"] for e in ours.notebook_of(plan.pod)["env"] if e["name"] == SPEC_ENV)
    assert "$" not in text
    spec = Spec.from_dict(json.loads(text))
    assert spec.index_url == f"https://example.org/{value}/"


def test_kubernetes_replaces_nothing_in_the_command() -> None:
    words = ours.notebook_of(compose(manifest()).pod)["args"]
    assert not any("$(" in word or "$$" in word for word in words)


def test_a_spec_of_somebody_else_is_replaced() -> None:
    plan = compose(manifest(env={SPEC_ENV: "theirs", "A": "b"}))
    names = [e["name"] for e in ours.notebook_of(plan.pod)["env"]]
    assert names.count(SPEC_ENV) == 1 and "A" in names
    assert spec_of(plan)["name"] == "default"


@pytest.mark.parametrize(
    ("volume", "mount", "expected"),
    [
        (CLAIM, {}, Mount("/m", False, "claim-a", True)),
        (CLAIM, {"readOnly": True, "subPath": "a"}, Mount("/m", True, "claim-a", True)),
        (
            {"name": "home", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}},
            {},
            Mount("/m", True, "c", True),
        ),
        ({"name": "home", "nfs": {"server": "s", "path": "/"}}, {}, Mount("/m", False, "home", True)),
        ({"name": "home", "hostPath": {"path": "/x"}}, {}, Mount("/m", False, "home", True)),
        ({"name": "home", "emptyDir": {}}, {}, Mount("/m", False, "home", False)),
        ({"name": "home", "ephemeral": {"x": 1}}, {}, Mount("/m", False, "home", False)),
        ({"name": "home", "secret": {"secretName": "s"}}, {}, Mount("/m", True, "home", False)),
        ({"name": "home", "configMap": {"name": "s"}}, {}, Mount("/m", True, "home", False)),
        ({"name": "home"}, {}, Mount("/m", False, "home", False)),
    ],
)
def test_mounts(volume: dict[str, Any], mount: dict[str, Any], expected: Mount) -> None:
    pod = manifest(volumes=[volume], volume_mounts=[{"name": "home", "mountPath": "/m", **mount}])
    assert ours.mounts_of(pod, ours.notebook_of(pod)) == [expected]


def test_the_container_is_told_what_is_persistent() -> None:
    files = {"name": "files", "secret": {"secretName": "s"}}
    pod = manifest(
        volumes=[CLAIM, files],
        volume_mounts=[
            {"name": "home", "mountPath": "/home/jovyan/work"},
            {"name": "files", "mountPath": "/home/jovyan/.condarc", "subPath": ".condarc"},
        ],
    )
    assert spec_of(compose(pod))["mounts"] == [{"path": "/home/jovyan/work", "ro": False}]


@pytest.mark.parametrize(
    ("taken", "place"),
    [
        ("/opt", "/usr/local/lib/overlayspawner"),
        ("/opt/overlayspawner/more", "/usr/local/lib/overlayspawner"),
        ("/opt/overlays", PAYLOAD_DIR),
    ],
)
def test_the_payload_is_in_no_volume_of_somebody_else(taken: str, place: str) -> None:
    plan = compose(manifest(volume_mounts=[{"name": "home", "mountPath": taken}]))
    container = ours.notebook_of(plan.pod)
    assert container["volumeMounts"][-1]["mountPath"] == place
    assert f"OVERLAYSPAWNER_PAYLOAD={place};" in container["args"][2]


def test_a_payload_that_the_administrator_mounts() -> None:
    plan = compose(manifest(volume_mounts=[{"name": "home", "mountPath": PAYLOAD_DIR}]))
    assert len(ours.notebook_of(plan.pod)["volumeMounts"]) == 1
    assert [v["name"] for v in plan.pod["spec"]["volumes"]] == ["home"]
    assert plan.spec is not None


def test_no_place_is_left() -> None:
    mounts = [{"name": "home", "mountPath": p} for p in ("/opt", "/usr/local", "/overlayspawner")]
    plan = compose(manifest(volume_mounts=mounts))
    assert plan.spec is None and plan.pod == plan.plain
    assert plan.notices[0]["code"] == "payload-missing"


def test_a_volume_s_name_that_is_taken() -> None:
    volumes = [CLAIM, {"name": ours.VOLUME, "emptyDir": {}}]
    plan = compose(manifest(volumes=volumes))
    assert plan.pod["spec"]["volumes"][-1]["name"] == f"{ours.VOLUME}-2"
    assert ours.notebook_of(plan.pod)["volumeMounts"][-1]["name"] == f"{ours.VOLUME}-2"


def test_a_choice_goes_along() -> None:
    spec = spec_of(compose(manifest(), choice=Choice("reset", "once")))
    assert (spec["reset"], spec["safe"], spec["nonce"]) == (True, False, "once")


def test_bad_settings() -> None:
    with pytest.raises(OverlayError, match="overlay_path"):
        compose(manifest(), settings=Settings(path="{unknown}"))


def test_no_secret_in_the_log() -> None:
    """KubeSpawner logs a pod that can't be created."""
    secret = {"name": "S3", "value": "secret-of-a"}
    preparing = [{"name": "prepare", "image": "x", "env": [secret]}]
    body = ours.Body(compose(manifest(init_containers=preparing)).pod)
    assert body.metadata.name == "jupyter-a"
    text = body.to_str()
    assert "secret-of-a" not in text and "JUPYTERHUB_API_TOKEN" in text
    assert "secret-of-a" in json.dumps(body)


# -- Secrets ------------------------------------------------------------------------------------------


def test_the_secret() -> None:
    payload = payload_zip.build()
    secret = ours.secret_manifest(payload, namespace="n", labels={"app": "jupyterhub"})
    assert secret["metadata"] == {
        "name": f"overlayspawner-payload-{payload.short_id}",
        "namespace": "n",
        "labels": {
            "app": "jupyterhub",
            "app.kubernetes.io/managed-by": "overlayspawner",
            "overlayspawner.payload": payload.short_id,
        },
    }
    assert secret["immutable"] is True
    mark, content = payload.mark()
    files = {**payload.contents(), mark: content}
    assert {k: base64.b64decode(v) for k, v in secret["data"].items()} == files
    assert sum(map(len, files.values())) < ours.MAX_SECRET_BYTES
    assert len(json.dumps(secret)) < 1.5 * ours.MAX_SECRET_BYTES  # what etcd takes in one request


def test_an_administrator_s_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert kube_secret.main(["mine", "--namespace", "users"]) == 0
    secret = json.loads(capsys.readouterr().out)
    assert secret["metadata"]["name"] == "mine" and secret["metadata"]["namespace"] == "users"
    assert ours.PAYLOAD_LABEL not in secret["metadata"]["labels"]
    assert secret["data"] == ours.secret_data(payload_zip.build())


def test_which_secrets_go() -> None:
    def secret(name: str, created: str, label: str = "x") -> dict[str, Any]:
        labels = {ours.PAYLOAD_LABEL: label} if label else {}
        return {"metadata": {"name": name, "creationTimestamp": created, "labels": labels}}

    old, young = "2026-01-01T00:00:00Z", "2026-01-01T11:30:00Z"
    secrets = [
        secret("ours", old),
        secret("used", old),
        secret("young", young),
        secret("somebody-s", old, label=""),
        secret("odd", "no date"),
        secret("gone", old),
    ]
    pods = [
        {"spec": {"volumes": [{"name": "x", "secret": {"secretName": "used"}}, {"name": "y"}]}},
        {"spec": {}},
    ]
    used = ours.secrets_in_use(pods)
    assert used == {"used"}
    now = 1767268800.0  # 2026-01-01T12:00:00Z
    assert ours.unused_secrets(secrets, keep="ours", used=used, now=now, youngest=3600) == ["gone"]
