"""What the image's packages need is kept where that is possible; else it is asked, and remembered."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import constraints, forced, planning, space
from overlayspawner.payload.adopt import adopt
from overlayspawner.payload.apply import apply
from overlayspawner.payload.constraints import Rule
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, overlay_dists
from overlayspawner.payload.importing import import_packages
from overlayspawner.payload.installer.pip import Pip
from overlayspawner.payload.installer.uv import Uv
from overlayspawner.payload.overlay import Overlay
from overlayspawner.payload.planning import plan
from overlayspawner.payload.probe import Base
from overlayspawner.payload.restore import restore
from overlayspawner.payload.undo import undo
from tests.support.envs import (
    make_base,
    make_context,
    put,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.index import LocalIndex
from tests.support.wheels import make_wheel

# What is decided here is decided on what an installer answers, by the same code for both: `make test` goes
# through it with uv, and with pip where pip itself has a part in it. `make test-all` does all with both.
PIP_TOO = {
    "test_versions_are_chosen_that_break_nothing",
    "test_what_would_break_something_is_refused",
    "test_constraints_of_the_hub_and_of_pip_hold_as_before",
    "test_what_pip_did_is_taken_for_agreed_to",
    "test_what_has_to_be_built_may_bring_more",
    "test_a_plan_leaves_nothing_of_the_second_look",
}

BREAK = {
    "name": "frame",
    "version": "3.1",
    "requires": "array>=2.0.2",
    "where": "base",
    "by": {"name": "array", "version": "1.26"},
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """``frame`` needs ``array``, which is the image's as well; ``jupyterlab`` has its own wishes."""
    wheels = tmp_path_factory.mktemp("wheels")
    return make_base(
        tmp_path_factory.mktemp("base") / "image",
        [
            make_wheel(wheels, "array", "2.3"),
            make_wheel(wheels, "frame", "3.1", requires=["array>=2.0.2"]),
            make_wheel(wheels, "template", "2.0"),
            make_wheel(wheels, "jupyterlab", "4.0", requires=["template<3"]),
        ],
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalIndex]:
    folder = tmp_path_factory.mktemp("shop")
    with LocalIndex(folder, recipes=False) as running:
        for version in ("1.20", "1.26", "2.3", "2.9", "3.0"):
            running.add(make_wheel(folder, "array", version))
        running.add(make_wheel(folder, "frame", "3.1", requires=["array>=2.0.2"]))
        running.add(make_wheel(folder, "frame", "2.0", requires=["array<2"]))
        for version in ("2.0", "3.0"):
            running.add(make_wheel(folder, "template", version))
        # its newest version wants what would break `frame`
        running.add(make_wheel(folder, "learn", "1.0", requires=["array>=2"]))
        running.add(make_wheel(folder, "learn", "2.0", requires=["array<2"]))
        running.add(make_wheel(folder, "oldlib", "1.0", requires=["array<2"]))
        running.add(make_wheel(folder, "leaf", "1.0"))
        running.add(make_wheel(folder, "leaf", "2.0"))
        yield running


@pytest.fixture
def ctx(
    tmp_path: Path,
    image: Base,
    shop: LocalIndex,
    uv_on_path: None,  # noqa: F811
    installer: str,
) -> Context:
    return make_context(tmp_path / "home", image, installer=installer, index_url=shop.url)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The constraints of each resolution."""
    out: list[list[str]] = []
    for cls in (Uv, Pip):

        def watched(self: Any, *args: Any, stage: Any = cls.stage, **how: Any) -> None:
            out.append(list(how.get("constraints", ())))
            stage(self, *args, **how)

        monkeypatch.setattr(cls, "stage", watched)
    return out


def install(ctx: Context, *lines: str, **how: Any) -> dict[str, Any]:
    return dict(apply(ctx, "install", install=lines, **how)["plan"])


def refused(ctx: Context, *lines: str, **how: Any) -> OverlayError:
    with pytest.raises(OverlayError) as e:
        install(ctx, *lines, **how)
    return e.value


def versions(ctx: Context) -> dict[str, str]:
    return {name: dist.version for name, dist in overlay_dists(ctx.require()[1]).items()}


def lines(ctx: Context) -> list[str]:
    return Path(ctx.require()[0].requirements).read_text().split("\n")[:-1]


def anew(ctx: Context) -> None:
    """Lose the env, as on another image: requirements stay."""
    overlay, env = ctx.require()
    shutil.rmtree(env.path)
    shutil.rmtree(os.path.join(overlay.path, "locks"), ignore_errors=True)
    ctx.env = overlay.create(ctx.base)


# -- prevention -------------------------------------------------------------------------------------------


def test_versions_are_chosen_that_break_nothing(ctx: Context, runs: list[list[str]]) -> None:
    done = install(ctx, "learn")
    assert versions(ctx) == {"learn": "1.0"}
    assert done["breaks"] == done["choices"] == []
    assert len(runs) == 1 and "array>=2.0.2" in runs[0]
    assert plan(ctx, install=["leaf"])["choices"] == []


def test_what_would_break_something_is_refused(ctx: Context, runs: list[list[str]]) -> None:
    told: list[dict[str, Any]] = []
    error = refused(ctx, "array<2", on_event=told.append)
    assert (error.code, error.status) == ("would-break", 409)
    assert error.message.startswith("frame 3.1 of the image needs array>=2.0.2 and may stop working.")
    assert [bool(limits) for limits in runs] == [True, False]
    assert versions(ctx) == {} and lines(ctx) == []
    seen = next(event["plan"] for event in told if event.get("plan"))
    assert seen["breaks"] == [BREAK]
    found = plan(ctx, install=["array<2"])
    assert found["breaks"] == [BREAK]
    assert [item["choice"] for item in found["choices"]] == ["cancel", "force", "change"]
    assert found["choices"][2] == {
        "choice": "change",
        "install": ["array"],
        "message": "array 2.3 of the image fits.",
    }
    assert found["choices"][:2] == seen["choices"]
    # by way of something else
    assert refused(ctx, "learn>=2").code == "would-break"
    found = plan(ctx, install=["learn>=2", "leaf"])
    assert found["choices"][2]["install"] == ["learn", "leaf"]
    assert found["choices"][2]["message"] == "learn 1.0 fits."
    # of this there is no other
    assert [c["choice"] for c in plan(ctx, install=["oldlib"])["choices"]] == ["cancel", "force"]


def test_after_the_quick_way_too(ctx: Context, runs: list[list[str]]) -> None:
    install(ctx, "leaf")
    runs.clear()
    install(ctx, "learn")
    assert versions(ctx) == {"leaf": "2.0", "learn": "1.0"} and len(runs) == 1
    runs.clear()
    assert refused(ctx, "oldlib").code == "would-break"
    assert [bool(limits) for limits in runs] == [True, False]


def test_what_is_hidden_and_breaks_nothing_is_not_asked_about(ctx: Context) -> None:
    done = install(ctx, "array==2.9")
    assert done["choices"] == [] and "array 2.9 will hide the image's 2.3." in done["sentences"]
    # a package of the image that is replaced asks for nothing any more
    done = install(ctx, "frame<3", "array<2")
    assert versions(ctx) == {"frame": "2.0", "array": "1.26"}
    assert done["breaks"] == done["choices"] == []


def test_what_the_server_needs_is_its_own_affair(ctx: Context, runs: list[list[str]]) -> None:
    done = install(ctx, "template>=3")
    assert versions(ctx) == {"template": "3.0"} and done["breaks"] == [] and len(runs) == 1


def test_an_isolated_overlay_has_no_image(ctx: Context, runs: list[list[str]], tmp_path: Path) -> None:
    ctx.overlay = Overlay(str(tmp_path / "isolated"), kind="isolated")
    ctx.env = ctx.overlay.create(ctx.base)
    install(ctx, "array<2", "template")
    assert versions(ctx) == {"array": "1.26", "template": "3.0"} and runs == [[]]


def test_constraints_of_the_hub_and_of_pip_hold_as_before(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "limits.txt").write_text("leaf<2\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "limits.txt"))
    ctx.spec.constraints = ["template<3"]
    for _ in range(2):
        found = plan(ctx, install=["leaf", "template"])
        assert {item["name"]: item["version"] for item in found["new"]} == {"leaf": "1.0"}
    install(ctx, "leaf", "template")
    assert versions(ctx) == {"leaf": "1.0"}


# -- what is agreed to ------------------------------------------------------------------------------------


def test_it_is_installed_anyway_and_remembered(ctx: Context, runs: list[list[str]]) -> None:
    done = install(ctx, "array<2", "leaf", force=True)
    assert done["breaks"] == [BREAK] and versions(ctx) == {"array": "1.26", "leaf": "2.0"}
    overlay, _ = ctx.require()
    assert forced.read(overlay) == {"array<2": ["array"]}
    assert lines(ctx) == ["array<2", "leaf"]
    # later changes find nothing to ask about, and need one attempt
    runs.clear()
    install(ctx, "learn")
    assert versions(ctx)["learn"] == "2.0" and len(runs) == 1
    apply(ctx, "sync")
    # another env
    anew(ctx)
    assert apply(ctx, "sync")["plan"]["breaks"] == [BREAK]
    anew(ctx)
    install(ctx, "leaf")
    anew(ctx)
    runs.clear()
    out = restore(ctx)["plan"]
    assert out["failed"] == [] and versions(ctx)["array"] == "1.26"
    assert len(runs) == 1


def test_a_line_that_goes_is_forgotten(ctx: Context) -> None:
    overlay, _ = ctx.require()
    install(ctx, "array<2", force=True)
    apply(ctx, "uninstall", uninstall=["array"])
    assert forced.read(overlay) == {}
    assert refused(ctx, "array<2").code == "would-break"
    install(ctx, "array<2", force=True)
    install(ctx, "array>=2.9")
    assert forced.read(overlay) == {} and versions(ctx) == {"array": "3.0"}
    assert refused(ctx, "array<2").code == "would-break"
    # one in its place that is no better
    install(ctx, "array<2", force=True)
    install(ctx, "array<1.25")
    assert versions(ctx) == {"array": "1.20"} and forced.read(overlay) == {"array<1.25": ["array"]}


def test_a_line_that_is_edited_is_another_one(ctx: Context) -> None:
    overlay, _ = ctx.require()
    install(ctx, "array<2", force=True)
    Path(overlay.requirements).write_text("array<1.25\n")
    anew(ctx)
    with pytest.raises(OverlayError) as e:
        apply(ctx, "sync")
    assert e.value.code == "would-break"
    apply(ctx, "sync", force=True)
    assert forced.read(overlay)["array<1.25"] == ["array"]


def test_undo_asks_nobody(ctx: Context) -> None:
    install(ctx, "array<2", force=True)
    undo(ctx)
    assert versions(ctx) == {}
    undo(ctx, 2)
    assert versions(ctx) == {"array": "1.26"} and lines(ctx) == ["array<2"]
    undo(ctx, 3)
    # it is asked for anew
    assert refused(ctx, "array<2").code == "would-break"
    # and by a download
    _, env = ctx.require()
    shutil.rmtree(os.path.join(env.state, "set-aside"))
    restore(ctx, 1)
    assert versions(ctx) == {"array": "1.26"}


def test_an_uninstallation_asks_nobody(ctx: Context) -> None:
    install(ctx, "frame<3", "array<2")
    done = apply(ctx, "uninstall", uninstall=["frame"])["plan"]
    assert [item["name"] for item in done["breaks"]] in ([], ["frame"])
    assert versions(ctx) == {"array": "1.26"}


def test_the_administrator_is_not_asked(ctx: Context) -> None:
    ctx.spec.requirements = ["array<2"]
    install(ctx, "leaf")
    assert versions(ctx) == {"array": "1.26", "leaf": "2.0"}
    anew(ctx)
    assert restore(ctx)["plan"]["failed"] == [] and versions(ctx)["array"] == "1.26"


def test_what_pip_did_is_taken_for_agreed_to(ctx: Context, shop: LocalIndex) -> None:
    overlay, env = ctx.require()
    put(Path(env.site_packages), shop.directory / "array-1.26-py3-none-any.whl")
    Path(env.site_packages, "array-1.26.dist-info", "INSTALLER").write_text("pip\n")
    adopt(ctx, argv=["pip", "install", "array<2"])
    assert lines(ctx) == ["array<2"] and forced.read(overlay) == {"array<2": ["array"]}
    anew(ctx)
    assert restore(ctx)["plan"]["failed"] == [] and versions(ctx)["array"] == "1.26"


def test_a_restore_leaves_out_what_would_break_this_image(ctx: Context) -> None:
    overlay, _ = ctx.require()
    Path(overlay.requirements).write_text("leaf\narray<2\nlearn\n")
    out = restore(ctx)["plan"]
    assert versions(ctx) == {"leaf": "2.0", "learn": "1.0"}
    (item,) = out["failed"]
    assert (item["requirement"], item["code"]) == ("array<2", "would-break")
    assert "frame 3.1 of the image needs array>=2.0.2" in item["reason"]
    # the line stays, and nothing waits for it
    assert lines(ctx) == ["leaf", "array<2", "learn"]
    install(ctx, "array<2", force=True)
    anew(ctx)
    assert restore(ctx)["plan"]["failed"] == [] and versions(ctx)["array"] == "1.26"


def test_a_lock_of_another_image_makes_room(
    ctx: Context, tmp_path: Path, shop: LocalIndex, runs: list[list[str]]
) -> None:
    how = {"installer": ctx.spec.installer, "index_url": shop.url}
    bare = make_base(tmp_path / "bare", pip=ctx.spec.installer == "pip")
    install(make_context(tmp_path / "home", bare, **how), "learn", "array<2")
    Path(ctx.require()[0].requirements).write_text("learn\narray\n")
    assert restore(ctx)["plan"]["failed"] == []
    assert versions(ctx) == {"learn": "1.0"}
    # the other versions stay, at once
    second = make_context(tmp_path / "second", bare, **how)
    install(second, "leaf<2", "array<2")
    Path(second.require()[0].requirements).write_text("leaf\narray\n")
    third = make_context(tmp_path / "second", ctx.base, **how)
    runs.clear()
    assert restore(third)["plan"]["failed"] == []
    assert versions(third) == {"leaf": "1.0"} and len(runs) == 1


def test_an_import_leaves_out_what_would_break(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("array<2\nlearn\n")
    out = import_packages(ctx, str(tmp_path / "requirements.txt"))
    assert versions(ctx) == {"learn": "1.0"}
    assert [item["requirement"] for item in out["left_out"]] == ["array<2"]


# -- the plan that was agreed to --------------------------------------------------------------------------


def test_what_comes_is_what_was_agreed_to(ctx: Context, shop: LocalIndex, tmp_path: Path) -> None:
    found = plan(ctx, install=["array<2"])
    error = refused(ctx, "array<2", expect=found["expect"])
    assert error.code == "would-break"
    expect = {**found["expect"], "new": {"array": "1.20"}}
    told: list[dict[str, Any]] = []
    error = refused(ctx, "array<2", force=True, expect=expect, on_event=told.append)
    assert (error.code, error.status) == ("plan-changed", 409) and versions(ctx) == {}
    now = next(event["plan"] for event in told if event.get("plan"))
    assert now["expect"]["new"] == {"array": "1.26"}
    assert (
        refused(ctx, "array<2", force=True, expect={**found["expect"], "breaks": []}).code == "plan-changed"
    )
    assert json.loads(json.dumps(found["expect"])) == found["expect"]
    install(ctx, "array<2", force=True, expect=json.loads(json.dumps(found["expect"])))
    found = plan(ctx, uninstall=["array"])
    with pytest.raises(OverlayError) as e:
        apply(ctx, "uninstall", uninstall=["array"], expect={**found["expect"], "removes": {}})
    assert e.value.code == "plan-changed"
    apply(ctx, "uninstall", uninstall=["array"], expect=found["expect"])
    assert versions(ctx) == {}


def test_what_has_to_be_built_may_bring_more(ctx: Context, index: LocalIndex) -> None:
    ctx.spec.index_url = index.url
    found = plan(ctx, install=["tinysdist"])
    assert found["expect"] == {**found["expect"], "new": {"tinysdist": "1.0"}, "open": True}
    assert refused(ctx, "tinysdist", expect={**found["expect"], "open": False}).code == "plan-changed"
    install(ctx, "tinysdist", expect=found["expect"])
    assert set(versions(ctx)) == {"tinysdist", "tinyleaf"}


def test_room_is_looked_for_first(ctx: Context, shop: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "free", lambda env: 100)
    found = plan(ctx, install=["leaf"])
    assert found["free"] == 100
    if ctx.spec.installer == "uv":  # pip does not tell sizes
        assert any(text.endswith("and 100 bytes are free.") for text in found["sentences"])
    seen = len(shop.requests)
    expect = {**found["expect"], "bytes": 300_000_000}
    error = refused(ctx, "leaf", expect=expect)
    assert (error.code, error.status) == ("disk-full", 507)
    assert error.message.startswith("It needs 300 MB, and 100 bytes are free.")
    assert len(shop.requests) == seen
    install(ctx, "leaf", expect={**expect, "bytes": None})


# -- which packages have a say ----------------------------------------------------------------------------


def told(tmp_path: Path, *packages: tuple[str, str, list[str]], asked: tuple[str, ...] = ()) -> set[str]:
    """The rules of an image with these packages, as ``owner: requirement``."""
    site = tmp_path / "site"
    found: dict[str, Dist] = {}
    for name, version, needed in packages:
        put(site, make_wheel(tmp_path, name, version, requires=needed))
        path = site / f"{name.replace('-', '_')}-{version}.dist-info"
        if name in asked:
            (path / "REQUESTED").touch()
            (path / "INSTALLER").write_text("pip\n")
        found[name] = Dist(name, version, str(path), str(site))
    return {f"{rule.owner}: {rule.text}" for rule in constraints.of(found)}


SERVER: list[tuple[str, str, list[str]]] = [
    ("jupyterlab", "4.0", ["jinja2<4", "jupyter-server>=2", "ipykernel>=6"]),
    ("jupyter-server", "2.0", ["jinja2<4", "nbconvert>=7", "tornado>=6"]),
    ("nbconvert", "7.0", ["jinja2>=3", "bleach<7"]),
    ("jinja2", "3.1", ["markupsafe>=2"]),
    ("bleach", "6.0", []),
    ("markupsafe", "2.1", []),
    ("tornado", "6.4", []),
    ("ipykernel", "6.0", ["traitlets>=5", "tornado>=6"]),
    ("traitlets", "5.0", []),
]


def test_what_only_the_server_reaches_has_none(tmp_path: Path) -> None:
    assert told(tmp_path, *SERVER) == {"ipykernel: traitlets>=5", "ipykernel: tornado>=6"}


def test_what_both_need_has_one(tmp_path: Path) -> None:
    found = told(tmp_path, *SERVER, ("bokeh", "3.0", ["jinja2>=2.9"]))
    assert found == {
        "ipykernel: traitlets>=5",
        "ipykernel: tornado>=6",
        "bokeh: jinja2>=2.9",
        "jinja2: markupsafe>=2",
    }


def test_what_the_image_s_maker_asked_for_has_one(tmp_path: Path) -> None:
    assert "nbconvert: bleach<7" in told(tmp_path, *SERVER, asked=("nbconvert", "jupyterlab"))


def test_what_leads_to_the_server_has_none_itself(tmp_path: Path) -> None:
    found = told(
        tmp_path,
        *SERVER,
        ("lab-ext", "1.0", ["jupyterlab>=4", "widgets<9", "tornado<7"]),
        ("widgets", "8.0", ["comm>=0.1"]),
        ("comm", "0.2", []),
    )
    assert "widgets: comm>=0.1" in found
    assert not [text for text in found if text.startswith("lab-ext")]


def test_markers_extras_urls_and_what_is_unmet(tmp_path: Path) -> None:
    found = told(
        tmp_path,
        ("one", "1.0", [
            "two[fast]>=1", 'two<1; python_version < "3"', 'two<2; extra == "old"', "two @ https://h/two.whl",
            "gone>=1", "three>=5", "not a requirement at all", "four",
        ]),
        ("two", "1.5", ['three<4; extra == "fast"', 'three<3; extra == "slow"']),
        ("three", "3.5", []),
        ("four", "1.0", []),
    )  # fmt: skip
    assert found == {"one: two[fast]>=1", "two: three<4"}


def test_a_clause_that_names_a_pre_release_is_none_for_installers(tmp_path: Path) -> None:
    site = tmp_path / "site"
    put(site, make_wheel(tmp_path, "one", "1.0", requires=["two>=1.0rc1,<3"]))
    put(site, make_wheel(tmp_path, "two", "2.0"))
    found = {
        n: Dist(n, v, f"{site}/{n}-{v}.dist-info", str(site)) for n, v in (("one", "1.0"), ("two", "2.0"))
    }
    (rule,) = constraints.of(found)
    assert rule.limit == "<3" and constraints.admits(rule.specifier, "1.0rc1")


def test_limits_are_those_of_what_stays_and_is_met() -> None:
    rules = [
        Rule("a", "n>=2", "n", ">=2", ">=2"),
        Rule("b", "n<9", "n", "<9", "<9"),
        Rule("b", "m>=1.0rc1", "m", ">=1.0rc1", ""),
    ]

    def dist(name: str, version: str) -> dict[str, Dist]:
        return {name: Dist(name, version, "", "")}

    assert constraints.limits(rules, {}) == {"n": ["n>=2", "n<9"]}
    assert constraints.limits(rules, dist("a", "1")) == {"n": ["n<9"]}
    assert constraints.limits(rules, dist("n", "1")) == {"n": ["n<9"]}
    assert constraints.limits(rules, {}, {"n"}) == {}


def test_they_are_worked_out_once_for_each_image(ctx: Context, tmp_path: Path, monkeypatch: Any) -> None:
    base = make_base(tmp_path / "other", [make_wheel(tmp_path, "one", "1.0", requires=["two>=1"])], pip=False)
    site = Path(base.site_dirs[-1])
    put(site, make_wheel(tmp_path, "two", "2.0"))
    ctx.base, ctx.runtime = base, str(tmp_path)
    times = []
    work = constraints.of
    monkeypatch.setattr(constraints, "of", lambda dists: times.append(1) or work(dists))
    assert [rule.text for rule in constraints.rules(ctx)] == ["two>=1"]
    assert constraints.rules(ctx) is constraints.rules(ctx) and len(times) == 1
    # another program of this container
    constraints._known.clear()
    assert [rule.text for rule in constraints.rules(ctx)] == ["two>=1"] and len(times) == 1
    put(site, make_wheel(tmp_path, "three", "1.0", requires=["two<3"]))
    assert len(constraints.rules(ctx)) == 2 and len(times) == 2
    (tmp_path / constraints.FILE).write_text("{")
    constraints._known.clear()
    assert len(constraints.rules(ctx)) == 2


def test_a_damaged_memory_is_none(ctx: Context) -> None:
    overlay, _ = ctx.require()
    os.makedirs(overlay.revisions, exist_ok=True)
    for text in (
        "",
        "[]",
        '{"schema": 1}',
        '{"schema": 2, "forced": []}',
        '{"schema": 1, "forced": [1]}',
        "\0",
    ):
        Path(forced.path(overlay)).write_text(text)
        assert forced.read(overlay) == {}
    install(ctx, "array<2", force=True)
    assert forced.read(overlay) == {"array<2": ["array"]}


def test_a_plan_leaves_nothing_of_the_second_look(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    ctx.runtime = str(tmp_path / "run")
    found = [plan(ctx, install=["array<2"]) for _ in range(2)]
    assert {**found[0], "free": 0} == {**found[1], "free": 0}
    assert set(os.listdir(os.path.join(ctx.runtime, planning.FOLDER))) <= {"lock", "stubs", "stubs.json"}
