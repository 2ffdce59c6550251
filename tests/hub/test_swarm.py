"""What becomes of a service's description, and what its tasks say: no swarm is needed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from docker.types import ConfigReference, ContainerSpec, Mount, TaskTemplate

from overlayspawner.hub import payload_zip, swarm_configs, swarm_service
from overlayspawner.hub.compose import compose
from overlayspawner.hub.config import Settings
from overlayspawner.hub.image_facts import ImageFacts
from overlayspawner.payload.contract import PAYLOAD_DIR, SPEC_ENV

CONFIGS = {"overlay.pyz": ("id1", "ours-overlay.pyz"), "launcher.sh": ("id2", "ours-launcher.sh")}
FACTS = ImageFacts("sha256:x", env={"HOME": "/home/jovyan"}, entrypoint=("tini", "--"))
UNKNOWN = ImageFacts("")


def composed(
    facts: ImageFacts = FACTS, home_volume: str = "", settings: Settings | None = None, **spec: Any
) -> tuple[dict[str, Any], Any]:
    """Return the ContainerSpec that is created, and the plan."""
    spec = {"args": ["jupyterhub-singleuser"], "env": {"A": "1"}, **spec}
    kwargs = {"name": "s", "task_template": TaskTemplate(ContainerSpec("image:1", **spec), networks=["net"])}
    before = json.dumps(kwargs)
    directory = swarm_service.place(kwargs)
    plan = compose(
        swarm_service.as_container(kwargs),
        facts=facts,
        settings=settings or Settings(),
        bundles=[],
        payload_id="p",
        home_volume=home_volume,
        directory=directory,
    )
    out = swarm_service.as_service(
        kwargs, plan, configs=CONFIGS, directory=directory, volume={"Labels": {"mine": "yes"}}
    )
    assert json.dumps(kwargs) == before, "the arguments themselves were changed"
    assert out["name"] == "s" and out["task_template"]["Networks"] == [{"Target": "net"}]
    return out["task_template"]["ContainerSpec"], plan


def test_the_command_is_wrapped_and_the_entrypoint_left_alone() -> None:
    spec, _ = composed()
    assert spec["Args"][-1] == "jupyterhub-singleuser" and PAYLOAD_DIR in spec["Args"][2]
    assert spec["Command"] is None
    assert "A=1" in spec["Env"]


def test_an_administrators_configs_stay() -> None:
    theirs = ConfigReference("id0", "theirs", filename="/etc/theirs", mode=0o400)
    spec, _ = composed(configs=[theirs])
    assert spec["Configs"][0] == theirs
    assert [(c["ConfigID"], c["File"]["Name"], c["File"]["Mode"]) for c in spec["Configs"][1:]] == [
        ("id1", f"{PAYLOAD_DIR}/overlay.pyz", 0o444),
        ("id2", f"{PAYLOAD_DIR}/launcher.sh", 0o444),
    ]


def test_without_a_known_command_nothing_is_delivered() -> None:
    """The image is not on the hub's node, and no cmd is set: it runs what it runs by itself."""
    spec, plan = composed(UNKNOWN, args=[])
    assert [n["code"] for n in plan.notices] == ["no-command"]
    assert spec["Args"] == [] and "Configs" not in spec and spec["Env"] == ["A=1"]


def test_an_unknown_image_with_a_command_has_the_overlay() -> None:
    spec, plan = composed(UNKNOWN)
    assert plan.notices == [] and len(spec["Configs"]) == 2


def test_where_the_payloads_place_is_in_a_volume_it_goes_elsewhere() -> None:
    """The engine would make the directory in that volume."""
    spec, _ = composed(mounts=[Mount("/opt", "/srv", type="bind", read_only=True)])
    place = spec["Configs"][0]["File"]["Name"].rpartition("/")[0]
    assert place != PAYLOAD_DIR and place in spec["Args"][2]


def test_the_engine_finds_no_template_in_the_spec() -> None:
    """It fills in templates in environment variables, and refuses a service with one that it can't read."""
    spec, _ = composed(settings=Settings(index_url="https://x/{{nonsense}}"))
    (value,) = (line.partition("=")[2] for line in spec["Env"] if line.startswith(SPEC_ENV + "="))
    assert "{{" not in value
    assert json.loads(value)["index_url"] == "https://x/{{nonsense}}"


@pytest.mark.parametrize(
    ("mount", "told", "home_mounted"),
    [
        (None, [], True),
        (Mount("/home/jovyan", "/srv/a", type="bind"), [{"path": "/home/jovyan", "ro": False}], False),
        (Mount("/data", "shared", type="volume", read_only=True), [{"path": "/data", "ro": True}], True),
        (Mount("/home/jovyan/x", None, type="tmpfs"), [], False),
    ],
)
def test_mounts_of_services_are_known(mount: Any, told: list[Any], home_mounted: bool) -> None:
    mounts = [mount] if mount else []
    facts = ImageFacts("sha256:x", env={"HOME": "/home/jovyan"}, paths={"/home/jovyan": True})
    spec, plan = composed(facts, home_volume="home-of-a", mounts=mounts)
    ours = {
        "Type": "volume",
        "Source": "home-of-a",
        "Target": "/home/jovyan",
        "ReadOnly": False,
        "VolumeOptions": {"Labels": {"mine": "yes"}},
    }
    assert spec["Mounts"] == [*mounts, *([ours] if home_mounted else [])]
    home = [{"path": "/home/jovyan", "ro": False}] if home_mounted else []
    assert sorted(plan.spec.mounts or [], key=lambda m: m["path"]) == sorted(
        told + home, key=lambda m: m["path"]
    )


def task(state: str, err: str = "", code: int = 0, at: str = "1") -> dict[str, Any]:
    """Return a task, as the engine describes one."""
    return {"CreatedAt": at, "Status": {"State": state, "Err": err, "ContainerStatus": {"ExitCode": code}}}


NO_IMAGE = task("rejected", "No such image: x:1")


@pytest.mark.parametrize(
    ("tasks", "code", "fatal"),
    [
        ([], None, False),
        ([task("preparing")], None, False),
        ([task("pending")], None, False),
        ([task("running")], None, False),
        ([task("pending", "no suitable node (insufficient resources on 1 node)")], "no-node", False),
        ([task("pending", "no suitable node (missing plugin on 1 node)")], "mount", False),
        ([NO_IMAGE], "image", False),
        ([NO_IMAGE, task("running", at="2")], None, False),  # another node has it
        ([NO_IMAGE, NO_IMAGE], "image", True),
        ([task("rejected", "invalid mount config: bind source path does not exist: /x")], "mount", False),
        ([task("failed", "task: non-zero exit (3)", 3)], "exited", True),
        ([task("running", at="2"), task("failed", "task: non-zero exit (3)", 3)], "exited", True),
        ([task("complete")], "exited", True),
        ([task("failed", "task: non-zero exit (127)", 127)], "command", True),
        (
            [task("failed", "starting container failed: OCI runtime: exec: no such file or directory", 127)],
            "command",
            True,
        ),
    ],
)
def test_what_tasks_say(tasks: list[Any], code: str | None, fatal: bool) -> None:
    reason = swarm_service.of_tasks(tasks)
    assert (reason.code if reason else None, bool(reason and reason.fatal)) == (code, fatal)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ('This node is not a swarm manager. Use "docker swarm init" or …', "not-a-manager"),
        ("network nosuchnet not found", "network"),
        ("rpc error: code = InvalidArgument desc = port '80' is already in use", "settings"),
    ],
)
def test_refusals(said: str, code: str) -> None:
    reason = swarm_service.of_refusal(said)
    assert reason.code == code and reason.hint
    assert "rpc error" not in reason.message


def test_every_code_has_words() -> None:
    ended = {"command", "exited", "out-of-memory"}  # the tail of the log says what to do
    assert set(swarm_service.CODES) - ended == set(swarm_service._HINTS)


def test_each_file_of_the_payload_fits_into_a_config_object() -> None:
    """Half a megabyte: what older engines take."""
    assert all(0 < len(data) < 500 * 1024 for data in payload_zip.build().contents().values())
    assert all(len(f"{swarm_configs.prefix()}{name}") <= 64 for name in payload_zip.build().contents())
