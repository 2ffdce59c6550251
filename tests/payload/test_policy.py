"""Rules about packages: what they mean, and that every way into an overlay keeps to them."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import (
    adopt,
    gate,
    importing,
    mend,
    planning,
    policy,
    reinstall,
    report,
    requirements,
    restore,
    revisions,
)
from overlayspawner.payload.apply import apply
from overlayspawner.payload.change import pending
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError, split_rule
from overlayspawner.payload.dists import Dist, overlay_dists
from overlayspawner.payload.policy import Policy
from overlayspawner.payload.probe import Base
from overlayspawner.payload.undo import undo
from tests.support.envs import (
    base,  # noqa: F401  (a fixture)
    env_snapshot,
    make_base,
    make_context,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.index import LocalIndex
from tests.support.terminal import open_terminal, tool

# -- what rules mean --------------------------------------------------------------------------------------


# What is decided here is decided on what an installer answers, by the same code for both: `make test` goes
# through it with uv, and with pip where pip itself has a part in it. `make test-all` does all with both.
PIP_TOO = {
    "test_a_refused_dependency",
    "test_a_plan_says_beforehand_what_is_refused",
    "test_a_rule_with_a_version",
    "test_a_restore_takes_another_version_where_the_lock_s_is_refused",
    "test_a_change_that_is_too_large_is_refused_before_it_is_made",
}


@pytest.mark.parametrize(
    ("rule", "name", "version", "matches"),
    [
        ("numpy", "numpy", "1.0", True),
        ("numpy", "numpy-financial", "1.0", False),
        ("NumPy", "numpy", "1.0", True),
        ("zope.interface", "zope-interface", "1.0", True),
        ("zope__interface", "zope-interface", "1.0", True),
        ("jupyter*", "jupyter", "1.0", True),
        ("jupyter*", "jupyterlab-git", "1.0", True),
        ("jupyter_*", "jupyter-client", "1.0", True),
        ("jupyter_*", "jupyterlab", "1.0", False),
        ("*-stubs", "pandas-stubs", "1.0", True),
        ("tiny?eaf", "tinyleaf", "1.0", True),
        ("tiny?eaf", "tinyeaf", "1.0", False),
        ("*", "anything", "1.0", True),
        ("torch<2", "torch", "1.13.1", True),
        ("torch<2", "torch", "2.0", False),
        ("torch < 2 , != 1.5", "torch", "1.4", True),
        ("torch<2,!=1.5", "torch", "1.5", False),
        ("torch==2.*", "torch", "2.4.1", True),
        ("torch==2.4", "torch", "2.4+cu121", True),
        ("torch>=2", "torch", "3.0rc1", True),
        ("torch<3", "torch", "2.0rc1", True),
        ("tiny*>=2", "tinyleaf", "2.0", True),
        ("tiny*>=2", "tinyleaf", "1.1", False),
        ("*>=2", "tinyleaf", "1.1", False),
    ],
)
def test_what_a_rule_matches(rule: str, name: str, version: str, matches: bool) -> None:
    denied = Policy(deny=[rule]).refusal(name, version)
    assert denied == ({"name": name, "version": version, "rule": rule} if matches else None)
    allowed = Policy(allow=[rule]).refusal(name, version)
    assert allowed == (None if matches else {"name": name, "version": version, "rule": ""})


RULES = ("tinyleaf", "tinyleaf<2", "tiny*", "*", "other", "tinyleaf>=2")


def test_the_two_lists_together() -> None:
    """What deny matches is out; else what allow matches is in; an empty list of allow is none."""
    lists = [()] + [c for n in (1, 2) for c in itertools.combinations(RULES, n)]
    for allow, deny in itertools.product(lists, lists):
        for version in ("1.0", "2.0"):
            one = [Policy(deny=[rule]).refusal("tinyleaf", version) is not None for rule in (*allow, *deny)]
            in_allow, in_deny = any(one[: len(allow)]), any(one[len(allow) :])
            refused = Policy(allow, deny).refusal("tinyleaf", version)
            assert (refused is not None) == (in_deny or (bool(allow) and not in_allow)), (allow, deny)
            if refused is not None:
                assert (refused["rule"] in deny) == in_deny


@pytest.mark.parametrize(
    ("allow", "deny", "refused"),
    [
        ([], [], False),
        ([], ["tinyleaf"], True),
        ([], ["tinyleaf<2"], False),  # another version may be had
        (["tinyleaf<2"], [], False),
        (["other"], [], True),
        (["tiny*"], ["*leaf"], True),
    ],
)
def test_a_name_alone(allow: list[str], deny: list[str], refused: bool) -> None:
    assert (Policy(allow, deny).refusal("tinyleaf") is not None) == refused


BAD_RULES = (
    "", " ", "torch[cuda]", "torch; python_version>'3'", "torch @ https://example.org/x.whl", "--pre",
    "-torch", "torch<", "torch<<2", "torch 2", "torch<2 other", "a b", "to/rch", "t\u00f6rch", "torch<2;",
    "[a-z]*", "x\ny", "torch==*", "torch~=1",
)  # fmt: skip


@pytest.mark.parametrize("rule", BAD_RULES)
@pytest.mark.parametrize("setting", ["allow", "deny"])
def test_what_is_no_rule_lets_nothing_in(rule: str, setting: str) -> None:
    with pytest.raises(OverlayError) as e:
        Policy(**{setting: ["numpy", rule]})
    assert (e.value.code, e.value.status) == ("policy", 403)
    assert repr(rule) in e.value.message
    assert f"overlay_{setting}" in e.value.hint


def test_rules_are_taken_apart_without_packaging() -> None:
    assert split_rule(" Torch_Audio <2, != 1.5 ") == ("torch-audio", "<2,!=1.5")
    assert split_rule("*") == ("*", "")


def test_without_packaging_what_cant_be_compared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "packaging", lambda: None)
    for version in ("1.0", "2.0", ""):
        assert Policy(deny=["torch<2"]).refusal("torch", version) is not None
        assert Policy(allow=["torch<2"]).refusal("torch", version) is not None
        assert Policy(allow=["torch<2", "torch"]).refusal("torch", version) is None
        assert Policy(deny=["torch<2"]).refusal("other", version) is None


def test_a_version_that_is_none_is_refused() -> None:
    assert Policy(deny=["torch<2"]).refusal("torch", "not-a-version") is not None
    assert Policy(allow=["torch<2"]).refusal("torch", "not-a-version") is not None
    assert Policy(deny=["torch"], allow=["*"]).refusal("other", "not-a-version") is None


def test_sentences() -> None:
    rules = Policy(allow=["torch<3"], deny=["torch<2"])
    found = rules.blocked([("torch", "3.0"), ("torch", "1.0"), ("numpy", "2.0"), ("torch", "2.5")])
    assert [(item["name"], item["version"]) for item in found] == [
        ("numpy", "2.0"),
        ("torch", "1.0"),
        ("torch", "3.0"),
    ]
    unknown, old, new = found
    assert rules.sentence(unknown) == "numpy 2.0 is not among the packages that this hub allows."
    assert rules.sentence(old) == "torch 1.0 is refused by the rule torch<2 of this hub."
    assert rules.sentence(old, "vision") == (
        "torch 1.0, which vision needs, is refused by the rule torch<2 of this hub."
    )
    assert rules.sentence(new) == "torch 3.0 is not among the packages that this hub allows (only torch<3)."
    nothing = Policy(deny=["*"]).refusal("torch")
    assert nothing is not None
    assert rules.sentence(nothing) == "torch is refused by the rule * of this hub."


def test_lines_are_refused_by_their_words_only_where_these_tell() -> None:
    rules = Policy(deny=["tinyleaf<2", "tinydata"])

    def refused(line: str, there: dict[str, Dist] | None = None, anew: bool = False) -> bool:
        return bool(gate.refused(rules, [requirements.parse(line)], there or {}, anew=anew))

    assert refused("tinydata")
    assert refused("TinyData[x]>=2")
    assert refused("tinydata @ https://example.org/tinydata-1.0-py3-none-any.whl")
    assert not refused("tinydata; python_version < '3'")
    assert refused("tinyleaf==1.0") and refused("tinyleaf === 1.0")
    assert not refused("tinyleaf==2.0")
    assert not refused("tinyleaf") and not refused("tinyleaf<2") and not refused("tinyleaf==1.*")
    there = {"tinydata": Dist("tinydata", "1.0", "/x", "/")}
    assert not refused("tinydata", there)
    assert refused("tinydata>=2", there)
    assert refused("tinydata", there, anew=True)


# -- changes ----------------------------------------------------------------------------------------------


@pytest.fixture
def ctx(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    installer: str,
) -> Iterator[Context]:
    """An empty overlay; afterwards no stage is left."""
    made = make_context(tmp_path / "home", base, installer=installer, index_url=index.url)
    yield made
    _, env = made.require()
    assert not [n for n in os.listdir(env.state) if n.startswith("stage-")]
    assert not pending(env)


def rules(ctx: Context, *, allow: tuple[str, ...] = (), deny: tuple[str, ...] = (), size: int = 0) -> None:
    """Change what the hub says."""
    ctx.spec.allow, ctx.spec.deny, ctx.spec.max_size = list(allow), list(deny), size


def install(ctx: Context, *lines: str) -> dict[str, Any]:
    return dict(apply(ctx, "install", install=lines)["plan"])


def versions(ctx: Context) -> dict[str, str]:
    return {name: dist.version for name, dist in overlay_dists(ctx.require()[1]).items()}


def lines(ctx: Context) -> list[str]:
    return Path(ctx.require()[0].requirements).read_text().splitlines()


def fails(ctx: Context, action: str = "install", code: str = "policy", **wanted: Any) -> OverlayError:
    """Expect an error that leaves everything as it was."""
    overlay, _ = ctx.require()
    before, known = env_snapshot(ctx), revisions.ids(overlay)
    with pytest.raises(OverlayError) as e:
        apply(ctx, action, **wanted)
    assert env_snapshot(ctx) == before
    assert revisions.ids(overlay) == known
    assert (e.value.code, e.value.status) == (code, 403), e.value.message
    assert e.value.hint
    return e.value


def test_what_is_asked_for_by_a_refused_name_is_not_even_looked_for(ctx: Context) -> None:
    rules(ctx, deny=("tiny_leaf", "tinydata"))
    phases: list[str] = []
    ctx.spec.index_url = "http://127.0.0.1:9/simple"  # nobody answers there
    error = fails(ctx, install=["TinyData>=1"], on_event=lambda e: phases.append(e["phase"]))
    assert error.message == "tinydata is refused by the rule tinydata of this hub. Nothing was changed."
    assert phases == []
    assert "not among" not in error.message
    rules(ctx, allow=("tinyleaf",))
    assert "tinydata is not among the packages" in fails(ctx, install=["tinyleaf>1", "tinydata"]).message
    rules(ctx, deny=("tinydata<2",))
    assert "tinydata 1.0 is refused" in fails(ctx, install=["tinydata==1.0"]).message


def test_a_refused_dependency(ctx: Context) -> None:
    rules(ctx, deny=("tinyleaf",))
    seen: list[dict[str, Any]] = []
    error = fails(ctx, install=["tinyforest"], on_event=seen.append)
    why = "tinyleaf 2.0, which tinytree needs, is refused by the rule tinyleaf of this hub."
    assert error.message == why + " Nothing was changed."
    plans = [event["plan"] for event in seen if "plan" in event]
    assert [plan["blocked"] for plan in plans] == [
        [{"name": "tinyleaf", "version": "2.0", "rule": "tinyleaf"}]
    ]
    # the image's own copy is no affair of the rule
    assert install(ctx, "tinytree<2")["blocked"] == []
    assert versions(ctx) == {"tinytree": "1.0"}


def test_a_plan_says_beforehand_what_is_refused(ctx: Context) -> None:
    rules(ctx, deny=("tinyleaf>=2",))
    made = planning.plan(ctx, install=["tinytree>=2"])
    assert made["blocked"] == [{"name": "tinyleaf", "version": "2.0", "rule": "tinyleaf>=2"}]
    assert made["sentences"][0] == "tinyleaf 2.0 is refused by the rule tinyleaf>=2 of this hub."
    assert planning.plan(ctx, install=["tinyscript"])["blocked"] == []


def test_an_allow_list_is_about_dependencies_too(ctx: Context) -> None:
    rules(ctx, allow=("tinyforest", "tinyleaf"))
    assert "tinytree 2.0, which tinyforest needs, is not among" in fails(ctx, install=["tinyforest"]).message
    rules(ctx, allow=("tinyforest", "tinyleaf", "*tree>=2"))
    install(ctx, "tinyforest")
    assert versions(ctx) == {"tinyforest": "1.0", "tinyleaf": "2.0", "tinytree": "2.0"}


def test_a_rule_with_a_version(ctx: Context) -> None:
    rules(ctx, deny=("tinyleaf>=2",))
    assert "tinyleaf 2.0 is refused by the rule tinyleaf>=2" in fails(ctx, install=["tinyleaf>=1.2"]).message
    install(ctx, "tinyleaf<1.1")
    assert versions(ctx) == {"tinyleaf": "1.0"}


def test_deny_wins(ctx: Context) -> None:
    rules(ctx, allow=("tiny*",), deny=("tinyd*",))
    assert "by the rule tinyd*" in fails(ctx, install=["tinydata"]).message
    install(ctx, "tinyscript")


def test_what_the_image_has_and_what_is_installed_is_left_alone(ctx: Context) -> None:
    install(ctx, "tinyforest")
    before = versions(ctx)
    rules(ctx, deny=("*leaf", "basetool", "tinyforest"))
    plan = install(ctx, "basetool", "tinyscript")
    assert [p["name"] for p in plan["new"]] == ["tinyscript"]
    assert apply(ctx, "sync")["revision"]["changed"] is False
    install(ctx, "tinyforest>=1")
    assert versions(ctx) == {**before, "tinyscript": "1.0"}
    assert restore.restore(ctx)["plan"]["failed"] == []
    apply(ctx, "uninstall", uninstall=["tinyforest"])
    assert "tinyforest" in fails(ctx, install=["tinyforest"]).message


def test_an_upgrade(ctx: Context) -> None:
    install(ctx, "tinyleaf==1.0")
    Path(ctx.require()[0].requirements).write_text("tinyleaf\n")
    apply(ctx, "sync")
    install(ctx, "tinyscript")
    rules(ctx, deny=("tinyleaf>1.1",))
    assert "tinyleaf 2.0" in fails(ctx, "upgrade", upgrade=["tinyleaf"]).message
    rules(ctx, deny=("tinyleaf",))
    fails(ctx, "upgrade", upgrade=["tinyleaf"])
    # "everything" is everything that may be upgraded
    assert report.upgradable(ctx) == ["tinyscript"]
    rules(ctx, deny=("*",))
    with pytest.raises(OverlayError) as e:
        report.upgradable(ctx)
    assert e.value.code == "policy"


def test_a_sync(ctx: Context) -> None:
    rules(ctx, deny=("tinydata", "tinyleaf"))
    file = Path(ctx.require()[0].requirements)
    file.write_text("tinyscript\ntinydata\n")
    assert "tinydata is refused" in fails(ctx, "sync").message
    file.write_text("tinyscript\ntinytree>=2\n")
    assert "tinyleaf 2.0, which tinytree needs" in fails(ctx, "sync").message
    file.write_text("tinyscript\ntinytree\n")
    assert "tinyleaf 2.0" in fails(ctx, "sync").message  # what was added by hand is no exception
    file.write_text("tinyscript\n")
    apply(ctx, "sync")
    assert versions(ctx) == {"tinyscript": "1.0"}


def test_the_administrators_own_requirements(ctx: Context) -> None:
    rules(ctx, allow=("tinyscript",))
    ctx.spec.requirements = ["tinydata"]
    assert "tinydata 1.0 is not among" in fails(ctx, install=["tinyscript"]).message
    ctx.spec.requirements = ["tinyleaf"]  # which the image has
    install(ctx, "tinyscript")


def test_rules_that_cant_be_understood_let_nothing_in_and_all_out(ctx: Context) -> None:
    install(ctx, "tinyscript", "tinydata")
    rules(ctx, deny=("no rule at all",))
    error = fails(ctx, install=["tinyleaf>=2"])
    assert "'no rule at all'" in error.message and "overlay_deny" in error.hint
    fails(ctx, "sync")
    apply(ctx, "uninstall", uninstall=["tinydata"])
    assert versions(ctx) == {"tinyscript": "1.0"}
    assert gate.notices(ctx) == []


# -- restore, undo, import, repair ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Another image: another key, and nothing in it."""
    return make_base(tmp_path_factory.mktemp("other") / "image")


def on(ctx: Context, base: Base, **spec: Any) -> Context:  # noqa: F811
    """The same home with another image."""
    wanted = {"installer": ctx.spec.installer, "index_url": ctx.spec.index_url, **spec}
    return make_context(Path(ctx.home), base, **wanted)


def test_a_restore_lists_what_is_refused_and_installs_the_rest(ctx: Context, other_base: Base) -> None:
    install(ctx, "tinyscript", "tinydata", "tinyforest", "tinymany")
    there = on(ctx, other_base, deny=["tinydata", "tinytree"])
    plan = restore.restore(there)["plan"]
    assert versions(there) == {"tinyscript": "1.0", "tinymany": "1.0"}
    assert [(item["requirement"], item["code"]) for item in plan["failed"]] == [
        ("tinydata", "policy"),
        ("tinyforest", "policy"),
    ]
    assert plan["failed"][0]["reason"] == "tinydata is refused by the rule tinydata of this hub."
    assert plan["failed"][1]["reason"] == (
        "tinytree 2.0, which tinyforest needs, is refused by the rule tinytree of this hub."
    )
    assert all(item["hint"] for item in plan["failed"])
    assert plan["blocked"] == []
    assert set(lines(there)) == {"tinydata", "tinyforest", "tinymany", "tinyscript"}
    state = restore.state(there)
    assert state is not None and state["state"] == "partial"
    # what was left out holds up no later change
    install(there, "tinyleaf<2")
    assert versions(there) == {"tinyscript": "1.0", "tinymany": "1.0", "tinyleaf": "1.1"}


def test_a_restore_takes_another_version_where_the_lock_s_is_refused(ctx: Context, other_base: Base) -> None:
    install(ctx, "tinyleaf==1.0", "tinytree<2")
    Path(ctx.require()[0].requirements).write_text("tinyleaf\ntinytree<2\n")
    apply(ctx, "sync")
    assert versions(ctx)["tinyleaf"] == "1.0"
    there = on(ctx, other_base, deny=["tinyleaf<1.1"])
    assert restore.restore(there)["plan"]["failed"] == []
    assert versions(there) == {"tinyleaf": "1.1", "tinytree": "1.0"}


def test_a_restore_of_nothing_that_may_come(ctx: Context, other_base: Base) -> None:
    install(ctx, "tinyforest")
    there = on(ctx, other_base, deny=["tinyleaf"])
    with pytest.raises(OverlayError) as e:
        restore.restore(there)
    assert e.value.code == "not-restored"
    assert "tinyleaf 2.0, which tinyforest needs, is refused" in e.value.message
    notice = restore.restore_notice(there)
    assert notice is not None and notice["code"] == "restore-partial"
    assert versions(there) == {}


def test_an_undo_brings_nothing_back_that_is_refused(ctx: Context) -> None:
    install(ctx, "tinydata", "tinyscript")
    apply(ctx, "uninstall", uninstall=["tinydata"])
    rules(ctx, deny=("tinydata",))
    before = env_snapshot(ctx)
    with pytest.raises(OverlayError) as e:
        undo(ctx)
    assert (e.value.code, e.value.status) == ("policy", 403)
    assert env_snapshot(ctx) == before
    shutil.rmtree(os.path.join(ctx.require()[1].state, "set-aside"))
    failed = undo(ctx)["plan"]["failed"]  # by a download: a restore of what may come
    assert [(item["requirement"], item["code"]) for item in failed] == [("tinydata", "policy")]
    assert versions(ctx) == {"tinyscript": "1.0"}
    rules(ctx)
    restore.restore(ctx)
    assert versions(ctx) == {"tinydata": "1.0", "tinyscript": "1.0"}


def test_an_import_leaves_out_what_is_refused(ctx: Context, tmp_path: Path) -> None:
    listed = tmp_path / "requirements.txt"
    listed.write_text("tinyscript\ntinydata\ntinyforest\n")
    rules(ctx, deny=("tinydata", "tinytree"))
    result = importing.import_packages(ctx, str(listed))
    assert versions(ctx) == {"tinyscript": "1.0"}
    left = {item["requirement"]: item["reason"] for item in result["left_out"]}
    assert "by the rule tinydata" in left["tinydata"] and "by the rule tinytree" in left["tinyforest"]
    assert lines(ctx) == ["tinyscript"]


def test_a_damaged_package_that_is_refused_is_not_installed_again(ctx: Context) -> None:
    install(ctx, "tinydata", "tinyscript")
    _, env = ctx.require()
    os.unlink(os.path.join(env.site_packages, "tinydata", "__init__.py"))
    os.unlink(os.path.join(env.site_packages, "tinyscript.py"))
    rules(ctx, deny=("tinydata",))
    with pytest.raises(OverlayError) as e:
        reinstall.reinstall(ctx, ["tinydata"])
    assert e.value.code == "policy"
    from overlayspawner.payload import doctor

    told = doctor._mend_packages(ctx, *ctx.require(), lambda text: None)
    assert [line for line in told if "tinydata is" in line or "tinydata 1.0 is refused" in line]
    assert "Installed tinyscript 1.0 again." in told
    assert os.path.exists(os.path.join(env.site_packages, "tinyscript.py"))
    assert not os.path.exists(os.path.join(env.site_packages, "tinydata", "__init__.py"))


# -- size -------------------------------------------------------------------------------------------------


def test_a_change_that_is_too_large_is_refused_before_it_is_made(ctx: Context) -> None:
    install(ctx, "tinydata")
    rules(ctx, size=3_000_000)
    error = fails(ctx, code="size-limit", install=["tinybig"])
    assert "would hold 4 MB, and this hub allows 3 MB" in error.message
    install(ctx, "tinymany")
    rules(ctx, size=5_000_000)
    install(ctx, "tinybig")


def test_over_the_limit_there_is_a_way_down(ctx: Context) -> None:
    install(ctx, "tinybig", "tinydata", "tinyleaf==2.0")
    rules(ctx, size=1)
    fails(ctx, code="size-limit", install=["tinyscript"])
    apply(ctx, "uninstall", uninstall=["tinydata"])
    # less than before is no reason to refuse, although it is too much
    apply(ctx, "uninstall", uninstall=["tinybig"], install=["tinyscript"])
    assert versions(ctx) == {"tinyleaf": "2.0", "tinyscript": "1.0"}
    with pytest.raises(OverlayError) as e:
        undo(ctx)  # brings back 4 MB
    assert e.value.code == "size-limit"


# -- other tools ------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    monkeypatch: pytest.MonkeyPatch,
) -> Context:
    """A server's runtime dir with its commands; the environment is that of a terminal."""
    deny = ["tinydata", "tinytree>=2", "tinybad"]
    made = make_context(tmp_path / "home", base, index_url=index.url, deny=deny)
    return open_terminal(made, tmp_path, index.url, monkeypatch)


@pytest.mark.parametrize(
    "argv",
    [
        ["pip", "install", "tinydata"],
        ["pip", "install", "-r", "wanted.txt"],
        ["pip", "install", "tinytree==2.0"],
        ["uv", "pip", "install", "TinyData"],
        ["uv", "pip", "install", "--no-deps", "tinydata"],
        ["uv", "pip", "sync", "wanted.txt"],
    ],
)
def test_the_commands_refuse_before_they_run(terminal: Context, argv: list[str]) -> None:
    Path(terminal.home, "wanted.txt").write_text("tinyscript\ntinydata\n")
    shown = tool(terminal, *argv, ok=False)
    assert "is refused by the rule" in shown and "[policy]" in shown
    assert "Traceback" not in shown and "Collecting" not in shown
    assert versions(terminal) == {} and lines(terminal) == []


def test_the_commands_let_through_what_they_must(terminal: Context) -> None:
    plain = os.path.join(terminal.runtime, "plain", "pip")
    tool(terminal, plain, "install", "-q", "tinydata")
    tool(terminal, "pip", "install", "-q", "tinydata", "tinyscript")  # it is there already
    assert "is refused" in tool(terminal, "pip", "install", "--force-reinstall", "tinydata", ok=False)
    tool(terminal, "pip", "uninstall", "-q", "-y", "tinydata")
    assert versions(terminal) == {"tinyscript": "1.0"}


def test_a_dependency_that_pip_brings_is_told(terminal: Context) -> None:
    shown = tool(terminal, "pip", "install", "tinyforest")
    assert "overlay: tinytree 2.0 is refused by the rule tinytree>=2 of this hub." in shown
    latest = revisions.latest(terminal.require()[0])
    assert latest is not None
    assert latest["plan"]["blocked"] == [{"name": "tinytree", "version": "2.0", "rule": "tinytree>=2"}]
    assert json.dumps(latest)


def test_a_bare_pip_cant_be_stopped_but_there_is_a_notice(terminal: Context) -> None:
    _, env = terminal.require()
    assert mend.notices(terminal) == []
    tool(terminal, env.python, "-m", "pip", "install", "-q", "tinydata", "tinyscript")
    adopt.adopt(terminal)
    assert sorted(lines(terminal)) == ["tinydata", "tinyscript"]
    (notice,) = mend.notices(terminal)
    assert notice["code"] == "against-policy"
    assert notice["message"] == "tinydata 1.0 is refused by the rule tinydata of this hub."
    assert notice["hint"]
    apply(terminal, "uninstall", uninstall=["tinydata"])
    assert mend.notices(terminal) == []
