"""A plan tells what a change then does, whichever installer there is, and leaves everything as it was."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from overlayspawner.payload import lease, planning
from overlayspawner.payload.apply import apply
from overlayspawner.payload.change import pending
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.installer.uv import Uv
from overlayspawner.payload.overlay import Overlay
from overlayspawner.payload.planning import plan
from overlayspawner.payload.probe import Base
from tests.support.envs import make_base, make_context, snapshot, uv_on_path  # noqa: F401  (a fixture)
from tests.support.index import LocalIndex
from tests.support.wheels import make_sdist, make_wheel

# What is decided here is decided on what an installer answers, by the same code for both: `make test` goes
# through it with uv, and with pip where pip itself has a part in it. `make test-all` does all with both.
PIP_TOO = {
    "test_the_change_does_what_the_plan_said[new with needs]",
    "test_the_change_does_what_the_plan_said[hides and breaks]",
    "test_the_change_does_what_the_plan_said[upgrade of a dependency]",
    "test_the_change_does_what_the_plan_said[all three]",
    "test_the_change_does_what_the_plan_said[wheel and source]",
    "test_what_is_source_code_only_is_not_run",
    "test_an_upgrade_to_source_code",
    "test_a_project_from_a_url_that_is_installed_already",
    "test_a_url_with_credentials_that_is_installed_already",
    "test_it_is_refused_like_the_change",
    "test_an_index_that_does_not_answer",
    "test_cancelled",
}

ALIKE = ("new", "satisfied_by_base", "shadows", "breaks", "removes", "needs_restart")
"""What a plan and the change after it have in common; sizes are another matter."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """``tinyleaf`` 1.1, what needs it, and what needs something that the image lacks."""
    wheels = tmp_path_factory.mktemp("wheels")
    return make_base(
        tmp_path_factory.mktemp("base") / "image",
        [
            make_wheel(wheels, "tinyleaf", "1.1"),
            make_wheel(wheels, "tinytree", "1.0", requires=["tinyleaf<2"]),
            make_wheel(
                wheels,
                "basetool",
                "1.0",
                requires=[
                    "tinyleaf<2,>=1",
                    'tinyleaf!=2.0; python_version < "3"',
                    'tinyleaf!=2.0; extra == "old"',
                ],
            ),
            make_wheel(wheels, "basebroken", "1.0", requires=["tinyleaf<1", "tinydata>=7"]),
        ],
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalIndex]:
    """The usual index, and source distributions that leave a mark when any of their code runs."""
    folder = tmp_path_factory.mktemp("shop")
    code = f"open({str(folder / 'ran')!r}, 'a').close()"
    with LocalIndex(folder) as running:
        running.add(make_sdist(folder, "tinymark", "1.0", runs=code))
        running.add(make_wheel(folder, "tinyneeds", "1.0", requires=["tinymark>=1", "tinydata"]))
        running.add(make_wheel(folder, "tinynewer", "1.0"))
        running.add(make_sdist(folder, "tinynewer", "2.0", runs=code))
        running.add(make_wheel(folder, "tinyboth", "1.0"))
        running.add(make_sdist(folder, "tinyboth", "1.0", runs=code))
        running.add(make_wheel(folder, "tinyuser", "1.0", requires=["tinyleaf<2"]))
        yield running


@pytest.fixture
def ctx(
    tmp_path: Path,
    image: Base,
    shop: LocalIndex,
    uv_on_path: None,  # noqa: F811
    installer: str,
) -> Context:
    made = make_context(tmp_path / "home", image, installer=installer, index_url=shop.url)
    (tmp_path / "run").mkdir()
    made.runtime = str(tmp_path / "run")
    return made


def everything(ctx: Context) -> dict[str, str]:
    """All that is in the home, but for the installer's cache."""
    return snapshot(ctx.home, without=[".overlay/.cache"])


def names(items: list[dict[str, Any]]) -> dict[str, str]:
    return {item["name"]: item["version"] for item in items}


def alike(found: dict[str, Any]) -> dict[str, Any]:
    out = {key: found[key] for key in ALIKE}
    out["new"] = [{key: value for key, value in item.items() if key != "size"} for item in found["new"]]
    return out


REQUESTS: list[tuple[str, list[str], dict[str, list[str]]]] = [
    ("new", [], {"install": ["tinydata"]}),
    ("new with needs", ["tinydata"], {"install": ["tinyforest>=1", "tinyscript"]}),
    ("of the image", [], {"install": ["basetool"]}),
    ("extras", [], {"install": ["tinyextra[leaf]"]}),
    ("extras that hide", [], {"install": ["tinyextra[tree]", "tinyleaf==1.0"]}),
    ("hides and breaks", ["tinydata"], {"install": ["tinyleaf>=2"]}),
    ("older", [], {"install": ["tinyleaf==1.0"]}),
    ("what needed it goes", ["tinyuser"], {"uninstall": ["tinyuser"], "install": ["tinyleaf>=2"]}),
    ("replaces", ["tinyleaf>=2"], {"install": ["tinyleaf==1.0"]}),
    ("back to the image", ["tinyleaf>=2"], {"install": ["tinyleaf<2"]}),
    ("upgrade of a dependency", ["tinydata"], {"upgrade": ["tinyleaf"]}),
    ("upgrade of the newest", ["tinydata"], {"upgrade": ["tinydata"]}),
    ("only adds", ["tinydata"], {"install": ["tinyns-one"]}),
    ("has to take something away", ["tinyleaf==1.0"], {"install": ["tinytree"]}),
    ("uninstall", ["tinytree>=2", "tinydata"], {"uninstall": ["tinytree"]}),
    ("uninstall what the image has", ["tinyleaf>=2"], {"uninstall": ["tinyleaf"]}),
    ("both", ["tinydata", "tinyscript"], {"uninstall": ["tinydata"], "install": ["tinyns-two"]}),
    ("all three", ["tinydata", "tinyleaf>=2"],
     {"uninstall": ["tinydata"], "install": ["tinyns-two"], "upgrade": ["tinyleaf"]}),
    ("not the newest", [], {"install": ["tinypast", "tinyyanked", "tinypre"]}),
    ("wheel and source", [], {"install": ["tinyboth"]}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "request_"), [row[1:] for row in REQUESTS], ids=[row[0] for row in REQUESTS]
)
def test_the_change_does_what_the_plan_said(
    ctx: Context, first: list[str], request_: dict[str, list[str]]
) -> None:
    if first:
        apply(ctx, "install", install=first, force=True)
    before = everything(ctx)
    told = plan(ctx, **request_)
    assert everything(ctx) == before
    assert told["builds"] == told["blocked"] == []
    action = "install" if "install" in request_ else next(iter(request_))
    done = apply(ctx, action, force=True, **request_)["plan"]
    assert alike(told) == alike(done)
    assert told["frees"] == done["frees"]
    if ctx.spec.installer == "uv":
        # the index tells the size of every file
        assert all(item["size"] for item in told["new"])
        assert told["bytes"] == sum(item["size"] for item in told["new"])
    else:
        assert told["bytes"] == (None if told["new"] else 0)


def test_the_table_has_every_kind_of_plan(ctx: Context) -> None:
    plan_of = {row[0]: row[2] for row in REQUESTS}
    found = plan(ctx, **plan_of["hides and breaks"])
    assert found["shadows"] == [{"name": "tinyleaf", "version": "2.0", "hidden": "1.1", "where": "base"}]
    by = {"name": "tinyleaf", "version": "2.0"}
    # neither the marker's nor the extra's line, nor what was missing before
    assert found["breaks"] == [
        {"name": "basetool", "version": "1.0", "requires": "tinyleaf<2,>=1", "where": "base", "by": by},
        {"name": "tinytree", "version": "1.0", "requires": "tinyleaf<2", "where": "base", "by": by},
    ]
    assert "tinyleaf 2.0 will hide the image's 1.1." in found["sentences"]
    needs = "basetool 1.0 of the image needs tinyleaf<2,>=1 and may stop working."
    assert needs in found["sentences"]
    assert names(plan(ctx, install=["tinyextra[leaf]"])["satisfied_by_base"]) == {"tinyleaf": "1.1"}


def test_a_break_in_the_overlay_is_told(ctx: Context) -> None:
    apply(ctx, "install", install=["tinyuser"])
    # taken out by hand, so that nothing holds it
    Path(ctx.require()[0].requirements).write_text("")
    found = plan(ctx, install=["tinyleaf>=2"])
    assert [item["name"] for item in found["breaks"] if item["where"] == "overlay"] == ["tinyuser"]
    done = apply(ctx, "install", install=["tinyleaf>=2"], force=True)["plan"]
    assert done["breaks"] == found["breaks"]


def test_what_is_source_code_only_is_not_run(ctx: Context, shop: LocalIndex) -> None:
    ran = shop.directory / "ran"
    before = everything(ctx)
    found = plan(ctx, install=["tinymark"])
    assert names(found["new"]) == {"tinymark": "1.0"}
    assert found["builds"] == [{"name": "tinymark", "version": "1.0"}]
    assert any("tinymark 1.0 must be built: this runs its code." in text for text in found["sentences"])
    # what a wheel needs
    found = plan(ctx, install=["tinyneeds"])
    assert names(found["new"]) == {"tinyneeds": "1.0", "tinymark": "1.0", "tinydata": "1.0"}
    assert names(found["builds"]) == {"tinymark": "1.0"}
    # a newer version without a wheel is what a change would take
    found = plan(ctx, install=["tinynewer"])
    assert names(found["new"]) == names(found["builds"]) == {"tinynewer": "2.0"}
    assert plan(ctx, install=["tinynewer<2"])["builds"] == []
    assert plan(ctx, install=["tinyboth"])["builds"] == []
    assert names(plan(ctx, install=["tinyrefuse"])["builds"]) == {"tinyrefuse": "1.0"}
    # URLs: a folder of sources, an archive
    source = f"thing @ {shop.root}/files/tinymark-1.0.tar.gz"
    found = plan(ctx, install=[source, "tinydata"])
    assert found["builds"] == [{"name": "thing", "version": None}]
    assert names(found["new"]) == {"tinydata": "1.0"} and found["bytes"] is None
    assert not ran.exists()
    assert everything(ctx) == before
    done = apply(ctx, "install", install=["tinyneeds", "tinynewer"])["plan"]
    assert names(done["new"]) == {
        "tinyneeds": "1.0",
        "tinymark": "1.0",
        "tinydata": "1.0",
        "tinynewer": "2.0",
    }
    assert ran.exists()  # it can be seen
    ran.unlink()
    # once it is there, it is looked at as what it is
    found = plan(ctx, install=["tinyscript"])
    assert names(found["new"]) == {"tinyscript": "1.0"} and found["builds"] == []
    assert not ran.exists()


def test_an_upgrade_to_source_code(ctx: Context, shop: LocalIndex) -> None:
    apply(ctx, "install", install=["tinynewer<2"])
    Path(ctx.require()[0].requirements).write_text("tinynewer\n")
    found = plan(ctx, upgrade=["tinynewer"])
    assert names(found["builds"]) == names(found["new"]) == {"tinynewer": "2.0"}
    assert not (shop.directory / "ran").exists()


def test_a_project_from_a_url_that_is_installed_already(ctx: Context, shop: LocalIndex) -> None:
    apply(ctx, "install", install=[f"tinysdist @ {shop.root}/files/tinysdist-1.0.tar.gz"])
    found = plan(ctx, install=["tinyleaf>=2"])
    assert names(found["new"]) == {"tinyleaf": "2.0"} and found["builds"] == []
    wheel = f"{shop.root}/files/tinydata-1.0-py3-none-any.whl"
    assert names(plan(ctx, install=[wheel])["new"]) == {"tinydata": "1.0"}


def test_a_url_with_credentials_that_is_installed_already(
    ctx: Context, shop: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_USER", shop.user)
    monkeypatch.setenv("SHOP_PASSWORD", quote(shop.password, safe=""))
    host = shop.root.partition("//")[2]
    line = f"tinysdist @ http://${{SHOP_USER}}:${{SHOP_PASSWORD}}@{host}/auth/files/tinysdist-1.0.tar.gz"
    found = plan(ctx, install=[line])
    assert found["builds"] == [{"name": "tinysdist", "version": None}]
    apply(ctx, "install", install=[line])
    found = plan(ctx, install=["tinyleaf>=2"])
    assert names(found["new"]) == {"tinyleaf": "2.0"} and found["builds"] == []
    found = plan(ctx, install=[f"tinysdist @ {shop.root}/files/tinymark-1.0.tar.gz"])
    assert names(found["builds"]) == {"tinysdist": None}


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"install": ["tinynowhere"]}, "no-such-package"),
        ({"install": ["tinylost"]}, "no-such-package"),
        ({"install": ["tinyleaf==9"]}, "no-matching-version"),
        ({"install": ["tinymark==9"]}, "no-matching-version"),
        ({"install": ["tinyleft", "tinyright"]}, "conflict"),
        ({"install": ["tinyfuture"]}, "no-matching-version"),
        ({"uninstall": ["basetool"]}, "in-base"),
        ({"uninstall": ["tinynowhere"]}, "not-installed"),
        ({"upgrade": ["tinynowhere"]}, "not-installed"),
        ({"install": ["--pre"]}, "option-not-allowed"),
        ({"install": ["tiny leaf"]}, "bad-requirement"),
        ({"uninstall": ["tinyleaf==1"]}, "bad-requirement"),
        ({}, "bad-request"),
    ],
    ids=str,
)
def test_it_is_refused_like_the_change(ctx: Context, wanted: dict[str, list[str]], code: str) -> None:
    before = everything(ctx)
    with pytest.raises(OverlayError) as e:
        plan(ctx, **wanted)
    assert e.value.code == code, e.value.log
    assert everything(ctx) == before
    if wanted:
        with pytest.raises(OverlayError) as e:
            apply(ctx, next(iter(wanted)), **wanted)
        assert e.value.code == code


def test_what_is_new_may_not_contradict_the_other_lines(ctx: Context) -> None:
    apply(ctx, "install", install=["tinyleaf<2", "tinyscript"])
    for ask in (plan, lambda ctx, **wanted: apply(ctx, "install", **wanted)):
        with pytest.raises(OverlayError) as e:
            ask(ctx, install=["tinyright"])
        assert e.value.code == "conflict"


def test_an_index_that_does_not_answer(ctx: Context, shop: LocalIndex) -> None:
    ctx.spec.index_url = shop.prefixed("500")
    with pytest.raises(OverlayError) as e:
        plan(ctx, install=["tinydata"])
    assert e.value.code == "index-unreachable"


def test_the_administrator_has_a_say(ctx: Context) -> None:
    ctx.spec.requirements = ["tinyleaf<2"]
    with pytest.raises(OverlayError) as e:
        plan(ctx, install=["tinyleaf>=2"])
    assert e.value.code in ("conflict", "no-matching-version")
    ctx.spec.constraints = ["tinypre<2", "tinynewer<2"]
    assert names(plan(ctx, install=["tinynewer"])["new"]) == {"tinynewer": "1.0"}


def test_an_isolated_overlay(ctx: Context, tmp_path: Path) -> None:
    own = make_context(
        tmp_path / "other", ctx.base, installer=ctx.spec.installer, index_url=ctx.spec.index_url
    )
    own.overlay = Overlay(str(tmp_path / "isolated"), kind="isolated")
    own.env = own.overlay.create(ctx.base)
    found = plan(own, install=["tinyleaf<2", "tinydata"])
    assert names(found["new"]) == {"tinyleaf": "1.1", "tinydata": "1.0"}
    assert found["shadows"] == found["breaks"] == found["satisfied_by_base"] == []
    assert alike(found) == alike(apply(own, "install", install=["tinyleaf<2", "tinydata"])["plan"])


def test_two_at_once(ctx: Context) -> None:
    apply(ctx, "install", install=["tinydata"])
    before = everything(ctx)
    wanted = ["tinyforest", "tinyscript", "tinyleaf>=2", "tinyneeds"]
    expected = [{**plan(ctx, install=[line]), "free": 0} for line in wanted]
    found: dict[int, dict[str, Any]] = {}

    def one(n: int) -> None:
        found[n] = {**plan(ctx, install=[wanted[n]]), "free": 0}

    threads = [threading.Thread(target=one, args=(n,)) for n in range(len(wanted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(len(wanted))] == expected
    assert everything(ctx) == before
    # what is kept is kept for the next one only
    assert sorted(os.listdir(os.path.join(ctx.runtime, planning.FOLDER)))[0] == "lock"
    assert not [n for n in os.listdir(os.path.join(ctx.runtime, planning.FOLDER)) if n.startswith("stage")]


def test_a_second_one_leaves_the_first_one_s_stubs_alone(ctx: Context) -> None:
    folder = os.path.join(ctx.runtime, planning.FOLDER)
    os.mkdir(folder)
    with open(os.path.join(folder, "lock"), "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        assert names(plan(ctx, install=["tinydata"])["new"]) == {"tinydata": "1.0"}
        assert os.listdir(folder) == ["lock"]
    plan(ctx, install=["tinydata"])
    assert "lock" in os.listdir(folder)


def test_while_another_holds_the_lease(ctx: Context) -> None:
    _, env = ctx.require()
    with lease.acquire(env, who="another"):
        assert names(plan(ctx, install=["tinydata"])["new"]) == {"tinydata": "1.0"}


def test_a_change_that_is_not_finished(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    _, env = ctx.require()
    monkeypatch.setattr(planning, "PATIENCE", 0.2)
    monkeypatch.setattr(planning, "pending", lambda env: True)
    with pytest.raises(OverlayError) as e:
        plan(ctx, install=["tinydata"])
    assert e.value.code == "busy"
    assert not pending(env)


def test_cancelled(ctx: Context, shop: LocalIndex) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(OverlayError) as e:
        plan(ctx, install=["tinydata"], cancel=cancel)
    assert e.value.code == "cancelled"
    ctx.spec.index_url = shop.prefixed("hang")
    cancel = threading.Event()
    threading.Timer(1, cancel.set).start()
    begun = time.monotonic()
    with pytest.raises(OverlayError) as e:
        plan(ctx, install=["tinydata"], cancel=cancel)
    assert e.value.code == "cancelled" and time.monotonic() - begun < 20


# -- with uv only: nothing of it depends on the installer -------------------------------------------------


@pytest.fixture
def quick(tmp_path: Path, image: Base, shop: LocalIndex, uv_on_path: None) -> Context:  # noqa: F811
    made = make_context(tmp_path / "home", image, installer="uv", index_url=shop.url)
    (tmp_path / "run").mkdir()
    made.runtime = str(tmp_path / "run")
    return made


def test_the_overlay_changes_meanwhile(quick: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    real, looks = Uv.preview, []

    def meanwhile(self: Uv, *rest: Any, **how: Any) -> Any:
        found = real(self, *rest, **how)
        looks.append(1)
        if len(looks) == 1:
            apply(quick, "install", install=["tinydata"])
        return found

    monkeypatch.setattr(Uv, "preview", meanwhile)
    found = plan(quick, install=["tinydata", "tinyscript"])
    assert len(looks) == 2
    assert names(found["new"]) == {"tinyscript": "1.0"}


def test_it_changes_all_the_time(quick: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay, _ = quick.require()
    real = Uv.preview

    def meanwhile(self: Uv, *rest: Any, **how: Any) -> Any:
        with open(overlay.requirements, "a") as f:
            f.write("# a line\n")
        return real(self, *rest, **how)

    monkeypatch.setattr(Uv, "preview", meanwhile)
    with pytest.raises(OverlayError) as e:
        plan(quick, install=["tinydata"])
    assert e.value.code == "busy"


@pytest.mark.slow
def test_many_plans_while_changes_run(quick: Context) -> None:
    stop = threading.Event()
    wrong: list[Any] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                found = plan(quick, install=["tinyscript"])
            except OverlayError as e:
                if e.code != "busy":
                    wrong.append((e.code, e.message, e.log))
            else:
                if names(found["new"]) != {"tinyscript": "1.0"}:
                    wrong.append(found)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for line in ("tinyleaf>=2", "tinyleaf==1.0", "tinyforest", "tinydata"):
            wanted = [line] if line != "tinyforest" else ["tinyforest", "tinyleaf"]
            apply(quick, "install", install=wanted, force=True)
        apply(quick, "uninstall", uninstall=["tinydata"])
    finally:
        stop.set()
        thread.join()
    assert not wrong


def test_a_home_that_cannot_be_written_to(quick: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(quick, "install", install=["tinydata"])
    overlay, env = quick.require()
    touched = []
    from overlayspawner.payload import files

    real = files.step

    def step(name: str) -> None:
        if overlay.path in name.partition(" ")[2]:
            touched.append(name)
        real(name)

    monkeypatch.setattr(files, "step", step)
    plan(quick, install=["tinyforest"])
    plan(quick, uninstall=["tinydata"])
    assert touched == []
    assert set(overlay_dists(env)) == {"tinydata"}


def test_the_lines_of_other_versions_of_uv_only_tell_less(
    quick: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overlayspawner.payload.installer import uv_preview

    monkeypatch.setattr(uv_preview, "_EDGE", uv_preview.re.compile("never"))
    monkeypatch.setattr(uv_preview, "_CHOSEN", uv_preview.re.compile("never"))
    found = plan(quick, install=["tinyforest", "tinymark"])
    assert names(found["new"]) == {"tinyforest": "1.0", "tinymark": "1.0"}
    assert names(found["builds"]) == {"tinymark": "1.0"}
    # nothing that reads TOML, as with Python 3.9
    monkeypatch.setattr(uv_preview, "_files", lambda *rest, **how: {})
    found = plan(quick, install=["tinydata"])
    assert [item["size"] for item in found["new"]] == [None] and found["bytes"] is None
    with pytest.raises(OverlayError) as e:
        plan(quick, install=["tinymark"])
    assert e.value.code == "no-matching-version"


def test_what_uv_says_to_itself_is_not_passed_on(quick: Context) -> None:
    told: list[str] = []
    apply(quick, "install", install=["tinyleaf>=2"], force=True)
    made = plan(quick, install=["tinyleaf==1.0"], on_event=lambda event: told.append(event["message"]))
    assert made["new"]
    # the version that is there does not fit, of which uv tells in several lines
    text = "\n".join(told)
    assert "Would install" in text
    assert "Installed" not in text and "Requested" not in text and quick.spec.index_url not in text, text
