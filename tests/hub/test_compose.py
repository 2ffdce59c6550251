"""What becomes of the arguments with which a container would be created."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import docker
import pytest

from overlayspawner.hub import boot
from overlayspawner.hub.compose import SPEC_LABEL, compose, mounts_of
from overlayspawner.hub.config import Mount, Settings
from overlayspawner.hub.delivery import Bundle
from overlayspawner.hub.image_facts import ImageFacts, facts_from_config, parse_env, passwd_home
from overlayspawner.hub.resume import reason_to_keep
from overlayspawner.payload.contract import SPEC_ENV

PAYLOAD = Bundle("overlayspawner-payload-1", "l", "1", "/opt/overlayspawner", dict, b"")
FACTS = ImageFacts(
    id="sha256:1",
    env={"HOME": "/home/jovyan", "NB_USER": "jovyan", "PATH": "/opt/conda/bin:/home/jovyan/.local/bin"},
    entrypoint=("tini", "--"),
    cmd=("start.sh",),
    user="1000",
    paths={"/home/jovyan": True},
)


def host_config(**kwargs: Any) -> dict[str, Any]:
    """Return what docker-py makes of a host configuration."""
    return docker.APIClient(version="1.41").create_host_config(**kwargs)  # type: ignore[no-any-return]


def plan(kwargs: dict[str, Any] | None = None, facts: ImageFacts = FACTS, **more: Any) -> Any:
    arguments = {
        "command": ["start.sh", "--x"],
        "environment": {"A": "1"},
        "host_config": {},
        **(kwargs or {}),
    }
    defaults = {"settings": Settings(), "bundles": [PAYLOAD], "payload_id": "p", "home_volume": "home-of-a"}
    return compose(arguments, facts=facts, **{**defaults, **more})


def spec_of(made: Any) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(made.kwargs["environment"][SPEC_ENV])
    return spec


def test_the_plain_case() -> None:
    made = plan()
    assert made.kwargs["command"] == boot.wrap(["start.sh", "--x"])
    assert "entrypoint" not in made.kwargs
    assert made.kwargs["host_config"]["Binds"] == [
        "home-of-a:/home/jovyan:rw",
        "overlayspawner-payload-1:/opt/overlayspawner:ro,nocopy",
    ]
    assert made.kwargs["environment"]["A"] == "1"
    assert spec_of(made)["mounts"] == [{"path": "/home/jovyan", "ro": False}]
    assert made.kwargs["labels"] == {SPEC_LABEL: made.hash}
    assert made.home_persistent


def test_the_image_s_name_is_told() -> None:
    digest = "quay.io/jupyter/base@sha256:" + "0" * 64
    known = replace(FACTS, digests=("other@sha256:1", digest))
    for name, told in {
        "quay.io/jupyter/base:2026": digest,
        "quay.io/jupyter/base": digest,
        "quay.io:443/jupyter/base": "quay.io:443/jupyter/base",
        "mine:1": "mine:1",
        digest: digest,
    }.items():
        made = plan({"image": name}, known)
        assert spec_of(made)["image"] == told
        # the same settings on another image: no reason to make a container anew
        assert made.hash == plan({"image": "x"}).hash
    info = {"Id": "sha256:1", "Config": {}, "RepoDigests": [digest]}
    assert facts_from_config(info).digests == (digest,)


def test_what_came_in_is_not_changed() -> None:
    kwargs = {"command": ["x"], "environment": {}, "host_config": {"Binds": ["a:/b"]}, "labels": {"l": "1"}}
    before = json.dumps(kwargs)
    plan(kwargs)
    assert json.dumps(kwargs) == before


@pytest.mark.parametrize(
    "config, mounts",
    [
        ({"binds": {"data": {"bind": "/home/jovyan/work", "mode": "rw"}}}, [("/home/jovyan/work", False)]),
        ({"binds": ["/srv/x:/home/jovyan:ro"]}, [("/home/jovyan", True)]),
        ({"binds": ["v:/home:z"]}, [("/home", False)]),
        (
            {"mounts": [docker.types.Mount("/home/jovyan", "v", type="volume", read_only=True)]},
            [("/home/jovyan", True)],
        ),
        ({"mounts": [docker.types.Mount("/home/jovyan/t", None, type="tmpfs")]}, []),
        ({"tmpfs": {"/home/jovyan": "size=1m"}}, []),
    ],
)
def test_what_the_administrator_mounts_at_the_home_stays_alone(
    config: dict[str, Any], mounts: list[tuple[str, bool]]
) -> None:
    given = host_config(**config)
    made = plan({"host_config": given})
    binds = made.kwargs["host_config"]["Binds"]
    assert binds == [*given.get("Binds", []), "overlayspawner-payload-1:/opt/overlayspawner:ro,nocopy"]
    assert made.home_problem
    assert [(m["path"], m["ro"]) for m in spec_of(made)["mounts"]] == mounts


def test_an_anonymous_volume_is_not_persistent() -> None:
    made = plan({"volumes": ["/home/jovyan/work", "/data"]})
    assert spec_of(made)["mounts"] == []
    assert "mounted already" in made.home_problem


@pytest.mark.parametrize(
    "kwargs",
    [{"user": "root"}, {"user": 0}, {"user": "1000:100"}, {"environment": {"NB_USER": "alice"}}],
)
def test_no_home_volume_for_another_user(kwargs: dict[str, Any]) -> None:
    assert "overridden" in plan(kwargs).home_problem


def test_the_home_volume_is_mounted_where_the_settings_repeat_the_image() -> None:
    assert plan({"user": "1000", "environment": {"NB_USER": "jovyan"}}).home_problem == ""


def test_no_home_volume_over_the_image_s_python() -> None:
    paths = {**FACTS.paths, "/home/jovyan/.local/bin/jupyterhub-singleuser": False}
    assert "Python" in plan(facts=replace(FACTS, paths=paths)).home_problem


def test_an_unknown_home_is_told() -> None:
    made = plan(facts=replace(FACTS, env={}, user="4711"))
    assert made.home_volume == ""
    assert [n["code"] for n in spec_of(made)["notices"]] == ["home-unknown"]
    assert not made.home_persistent


def test_home_of_the_environment_comes_first() -> None:
    made = plan({"environment": ["HOME=/srv/h"]}, facts=replace(FACTS, paths={"/srv/h": True}))
    assert made.kwargs["host_config"]["Binds"][0] == "home-of-a:/srv/h:rw"


@pytest.mark.parametrize(
    "kwargs, facts, entrypoint, command",
    [
        ({"command": []}, FACTS, boot.wrap(["tini", "--"]), []),
        ({"command": ["--debug"]}, FACTS, boot.wrap(["tini", "--"]), ["--debug"]),
        ({"command": ["x"], "entrypoint": ["sh"]}, FACTS, boot.wrap(["sh"]), ["x"]),
        ({"command": "run 'a b'", "entrypoint": []}, FACTS, [], boot.wrap(["run", "a b"])),
        ({"command": ["--x"], "entrypoint": "my-entry -y"}, FACTS, boot.wrap(["my-entry", "-y"]), ["--x"]),
    ],
)
def test_the_entrypoint_that_is_in_effect_is_respected(
    kwargs: dict[str, Any], facts: ImageFacts, entrypoint: list[str], command: list[str]
) -> None:
    made = plan(kwargs, facts)
    assert made.kwargs.get("entrypoint", []) == entrypoint
    assert made.kwargs["command"] == command


def test_without_a_shell_the_container_starts_plain_and_the_hub_says_so() -> None:
    made = plan(facts=replace(FACTS, shell=False))
    assert made.kwargs["command"] == ["start.sh", "--x"]
    assert SPEC_ENV not in made.kwargs["environment"]
    assert [n["code"] for n in made.notices] == ["no-shell"]


def test_labels_and_environment_may_be_lists() -> None:
    made = plan({"labels": ["a"], "environment": ["B=2=3", "C"]})
    assert made.kwargs["labels"]["a"] == ""
    assert made.kwargs["environment"]["B"] == "2=3"


def test_variables_that_are_taken_away_stay_away() -> None:
    """docker-py: ``None``, or a name without a value, takes a variable of the image away."""
    for environment in ({"JUPYTER_PORT": None, "A": "b"}, ["JUPYTER_PORT", "A=b"]):
        made = plan({"environment": environment}).kwargs["environment"]
        assert made.pop("OVERLAYSPAWNER_SPEC").startswith("{")
        assert made == {"JUPYTER_PORT": None, "A": "b"}


def test_binds_are_read_whatever_their_form() -> None:
    binds = ["/host/a:/x", "/host:with:/y:ro,z", "/anonymous"]
    assert mounts_of({"Binds": binds}) == [
        Mount("/x", False, "/host/a"),
        Mount("/y", True, "/host:with"),
        Mount("/anonymous", False, ""),
    ]


def test_facts_of_odd_images() -> None:
    facts = facts_from_config({"Id": "1", "Config": {"Cmd": None, "Entrypoint": "run it", "Env": None}})
    assert (facts.cmd, facts.entrypoint, dict(facts.env)) == ((), ("/bin/sh", "-c", "run it"), {})
    assert facts_from_config({"Id": "1"}).home() == ""
    assert parse_env(["A", "B=", "C=1=2"]) == {"A": "", "B": "", "C": "1=2"}


@pytest.mark.parametrize(
    "user, home",
    [("", "/root"), ("0", "/root"), ("jo", "/home/jo"), ("1000:100", "/home/jo"), ("7", ""), ("no", "")],
)
def test_the_home_in_passwd(user: str, home: str) -> None:
    text = "root:x:0:0:root:/root:/bin/sh\nbroken\njo:x:1000:100::/home/jo:/bin/bash\n"
    assert passwd_home(text, user) == home


# -- whether an existing container may go ------------------------------------------------------------------


def existing(**more: Any) -> dict[str, Any]:
    binds = ["home-of-a:/home/jovyan:rw", "overlayspawner-payload-0:/opt/overlayspawner:ro"]
    return {"HostConfig": {"Binds": binds}, "Mounts": [], **more}


def changes(*paths: str) -> list[dict[str, Any]]:
    return [{"Path": p, "Kind": 0} for p in paths]


@pytest.mark.parametrize(
    "obj, diff, why",
    [
        (existing(), None, ""),
        (existing(), changes("/tmp", "/tmp/x", "/run", "/run/y", "/etc", "/etc/passwd", "/certs"), ""),
        (existing(), changes("/opt", "/opt/overlayspawner", "/home", "/home/jovyan"), ""),
        (
            existing(),
            changes("/opt", "/opt/conda", "/opt/conda/__pycache__", "/opt/conda/__pycache__/a.pyc"),
            "",
        ),
        (existing(), changes("/opt", "/opt/conda", "/opt/conda/new.py"), "/opt/conda/new.py"),
        (existing(), changes("/usr", "/usr/bin", "/usr/bin/htop"), "/usr/bin/htop"),
        (existing(HostConfig={"Binds": ["other:/home/jovyan"]}), None, "other things"),
        (
            existing(Mounts=[{"Type": "volume", "Name": "f00", "Destination": "/data"}]),
            None,
            "anonymous volume at /data",
        ),
        (
            existing(Mounts=[{"Type": "volume", "Name": "home-of-a", "Destination": "/home/jovyan"}]),
            None,
            "",
        ),
    ],
)
def test_a_container_goes_only_when_nothing_is_lost(
    obj: dict[str, Any], diff: list[dict[str, Any]] | None, why: str
) -> None:
    reason = reason_to_keep(obj, plan(), diff)
    assert why in reason
    assert bool(reason) is bool(why)


def test_a_container_with_its_home_inside_stays() -> None:
    assert "home" in reason_to_keep({"HostConfig": {}}, plan(home_volume=""), None)
