"""From settings to the spec, and the rules of the home volume."""

from __future__ import annotations

import json

import pytest

from overlayspawner.hub.choice import Choice
from overlayspawner.hub.config import (
    Mount,
    Settings,
    build_spec,
    home_volume_problem,
    is_under,
    settings_from,
    spec_hash,
)
from overlayspawner.payload.contract import MAX_SPEC_BYTES, OverlayError, Spec
from overlayspawner.payload.policy import Policy


def test_the_defaults_are_the_contract_s() -> None:
    spec = build_spec(settings_from({}))
    assert spec.to_dict() == Spec().to_dict()


def test_what_is_set_arrives() -> None:
    settings = settings_from(
        {
            "name": "teaching",
            "requirements": ("numpy>=2", "  ", " pandas "),
            "constraints": "numpy<3\n\nscipy<2\n",
            "deny": {"b", "a"},
            "max_size": 5_000_000_000,
            "only_binary": True,
            "exclude_newer": "7 days",
            "kernel": "add",
            "start_deadline": 3,
            "job_timeout": 600,
            "job_silence": 0,
            "index_url": None,
        }
    )
    spec = Spec.from_json(build_spec(settings, mounts=[Mount("/home/a", True, "v")]).to_json())
    assert spec.name == "teaching" and spec.path == ".overlay/teaching"
    assert spec.requirements == ["numpy>=2", "pandas"]
    assert spec.constraints == ["numpy<3", "scipy<2"]
    assert spec.deny == ["a", "b"]
    assert (spec.only_binary, spec.exclude_newer) == ([":all:"], "7 days")
    assert (spec.max_size, spec.kernel, spec.deadline) == (5_000_000_000, "add", 3.0)
    assert (spec.job_timeout, spec.job_silence) == (600.0, 0.0)
    assert spec.mounts == [{"path": "/home/a", "ro": True}]


@pytest.mark.parametrize(
    "key, value",
    [
        ("name", "../x"),
        ("name", ""),
        ("name", "a/b"),
        ("name", ".hidden"),
        ("name", "x\n"),
        ("path", ""),
        ("path", 3),
        ("kind", "none"),
        ("lifetime", ""),
        ("installer", "conda"),
        ("kernel", True),
        ("restore", "later"),
        ("user_site", "yes"),
        ("requirements", 5),
        ("requirements", ["a", 1]),
        ("fetch_uv", "no"),
        ("max_size", -1),
        ("only_binary", 1),
        ("only_binary", ["torch<2"]),
        ("only_binary", ["torch*"]),
        ("exclude_newer", "soon"),
        ("exclude_newer", "1 month"),
        ("exclude_newer", 7),
        ("max_size", "big"),
        ("max_size", True),
        ("start_deadline", 0),
        ("start_deadline", "soon"),
        ("job_timeout", -1),
        ("job_timeout", float("inf")),
        ("job_silence", float("nan")),
        ("job_silence", "long"),
        ("allow", ["numpy", "torch[cuda]"]),
        ("deny", ["numpy", "torch <"]),
        ("deny", "numpy torch"),
        ("deny", ["torch; python_version > '3'"]),
        ("allow", ["torch~=1"]),
        ("deny", ["git+https://example.org/x"]),
        ("allow", ["--pre"]),
        ("deny", [3]),
    ],
)
def test_a_wrong_value_is_named(key: str, value: object) -> None:
    with pytest.raises(OverlayError) as caught:
        settings_from({key: value})
    assert caught.value.code == "bad-spec"
    assert f"overlay_{key}" in caught.value.message


def test_rules_about_packages_reach_the_container_as_they_were_written() -> None:
    settings = settings_from({"allow": ["NumPy", "jupyter_*", " torch < 3, != 2.5 "], "deny": {"*-dev", "a"}})
    spec = Spec.from_json(build_spec(settings).to_json())
    assert spec.allow == ["NumPy", "jupyter_*", "torch < 3, != 2.5"]
    assert spec.deny == ["*-dev", "a"]
    # and there they are understood
    rules = Policy(spec.allow, spec.deny)
    assert rules.refusal("jupyter-client", "8.0") is None
    assert rules.refusal("torch", "2.5") is not None
    assert rules.refusal("jupyter-dev", "8.0") is not None


def test_a_wrong_rule_is_named() -> None:
    with pytest.raises(OverlayError) as caught:
        settings_from({"deny": ["numpy", "torch <"]})
    assert "overlay_deny is 'torch <'" in caught.value.message
    assert caught.value.status == 500


def test_the_path_has_fields() -> None:
    settings = Settings(name="a", path="/data/{username}/x/../{name}/")
    assert build_spec(settings, fields={"username": "bob"}).path == "/data/bob/a"
    for path in ("{nobody}", "{0}", "{", "{name.__class__}x{y}"):
        with pytest.raises(OverlayError, match="overlay_path"):
            build_spec(Settings(path=path), fields={"username": "bob"})


def test_too_large_a_spec_is_refused() -> None:
    fits = build_spec(Settings(requirements=["x" * 100] * 1000))
    assert len(fits.to_json()) < MAX_SPEC_BYTES
    with pytest.raises(OverlayError) as caught:
        build_spec(Settings(requirements=["x" * 100] * 1300)).to_json()
    assert caught.value.code == "bad-spec"


def test_the_hash_is_about_settings_and_payload_only() -> None:
    plain = build_spec(Settings())
    once = build_spec(Settings(), choice=Choice("reset", "n"), start_timeout=9, notices=[{"code": "x"}])
    assert (once.safe, once.reset, once.nonce, once.start_timeout) == (False, True, "n", 9.0)
    assert spec_hash(plain, "p") == spec_hash(once, "p")
    assert spec_hash(plain, "p") != spec_hash(plain, "q")
    assert spec_hash(plain, "p") != spec_hash(build_spec(Settings(kernel="add")), "p")
    secret = build_spec(Settings(index_url="https://me:secret@example.org/simple"))
    assert "secret" not in spec_hash(secret, "p") and "secret" in json.dumps(secret.to_dict())


@pytest.mark.parametrize(
    "path, parent, yes",
    [
        ("/home/a", "/home/a", True),
        ("/home/a/", "/home/a", True),
        ("/home/a/work", "/home/a", True),
        ("/home/ab", "/home/a", False),
        ("/home", "/home/a", False),
        ("/x", "/", True),
    ],
)
def test_is_under(path: str, parent: str, yes: bool) -> None:
    assert is_under(path, parent) is yes


HOME = "/home/jovyan"


@pytest.mark.parametrize(
    "mounts, more, why",
    [
        ([], {}, ""),
        ([Mount("/data", False, "data")], {}, ""),
        ([Mount("/home/other", False, "x")], {}, ""),
        ([Mount(HOME, False, "x")], {}, "mounted already"),
        ([Mount(HOME + "/", False, "x")], {}, "mounted already"),
        ([Mount(HOME + "/work", False, "x")], {}, "mounted already"),
        ([Mount("/home", True, "x")], {}, "mounted already"),
        ([Mount(HOME + "/scratch", False, "", False)], {}, "mounted already"),
        ([Mount("/data", False, "vol")], {}, "already used for /data"),
        ([], {"user_overridden": True}, "user is overridden"),
        ([], {"base_under_home": True}, "Python lies under"),
        ([], {"home": ""}, "not known"),
        ([], {"home": "/"}, "not known"),
        ([], {"home_in_image": False}, "does not exist"),
    ],
)
def test_when_the_home_volume_is_mounted(mounts: list[Mount], more: dict[str, object], why: str) -> None:
    arguments: dict[str, object] = {
        "home": HOME,
        "mounts": mounts,
        "user_overridden": False,
        "base_under_home": False,
        **more,
    }
    problem = home_volume_problem("vol", **arguments)  # type: ignore[arg-type]
    assert why in problem
    assert bool(problem) is bool(why)
