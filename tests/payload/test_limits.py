"""Wheels only, nothing newer than a date: what it means, and that every way into an overlay keeps to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import importing, planning, reinstall, restore, revisions
from overlayspawner.payload.apply import apply
from overlayspawner.payload.change import pending
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError, cutoff
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.limits import Limits
from overlayspawner.payload.probe import Base
from overlayspawner.payload.requirements import parse
from overlayspawner.payload.undo import undo
from tests.support.envs import (
    env_snapshot,
    make_base,
    make_context,
    put,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.index import LocalIndex
from tests.support.terminal import open_terminal, tool
from tests.support.wheels import make_sdist, make_wheel

# What is decided here is decided on what an installer answers, by the same code for both: `make test` goes
# through it with uv, and with pip where pip itself has a part in it. `make test-all` does all with both.
PIP_TOO = {
    "test_wheels_only",
    "test_wheels_only_of_some",
    "test_source_code_by_url",
    "test_nothing_newer",
    "test_an_index_that_tells_no_times",
    "test_an_upgrade",
}

OLD, NEW, DATE = "2026-01-01T00:00:00Z", "2026-11-20T10:00:00.123Z", "2026-11-19"
LATE = ("tinyleaf-2.0", "tinytree-2.0", "tinydata-1.0")
PIP = "26.3"

# -- what they mean ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-19", "2026-11-19T00:00:00Z"),
        ("2026-11-19T12:30:00Z", "2026-11-19T12:30:00Z"),
        ("2026-11-19t12:30:00.25+02:00", "2026-11-19T10:30:00Z"),
        ("2026-11-19 00:30:00+01:00", "2026-11-18T23:30:00Z"),
        ("7 days", "2026-11-19T06:00:00Z"),
        ("1 week", "2026-11-19T06:00:00Z"),
        ("36 hours", "2026-11-24T18:00:00Z"),
        ("90m", "2026-11-26T04:30:00Z"),
        ("P7D", "2026-11-19T06:00:00Z"),
        ("p1dT12h", "2026-11-24T18:00:00Z"),
    ],
)
def test_a_moment(text: str, moment: str) -> None:
    assert cutoff(text, 1795672800.0) == moment  # 2026-11-26T06:00:00Z


BAD_MOMENTS = (
    "", "soon", "2026-11-31", "2026-11-19T12:30:00", "P1M", "1 month", "P", "PT", "-1 days",
    "9" * 30 + " days", "999999 weeks", "19.11.2026", "2026-11-19Z", "1e3 days", "\u0667 days",
)  # fmt: skip


@pytest.mark.parametrize("text", BAD_MOMENTS)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(OverlayError) as e:
        cutoff(text)
    assert e.value.code == "bad-spec" and e.value.hint


def test_a_users_limit_counts_where_it_is_stricter() -> None:
    assert Limits((), DATE, ["2026-11-01"]).before == "2026-11-01T00:00:00Z"
    assert Limits((), DATE, ["2026-11-25", "1 hour"]).before == "2026-11-19T00:00:00Z"
    assert Limits((), "", ["2026-11-25"]).before == "2026-11-25T00:00:00Z"
    assert not Limits()
    with pytest.raises(OverlayError) as e:
        Limits((), "soon")
    assert (e.value.code, e.value.status) == ("policy", 403)


def test_options() -> None:
    everything = Limits([":all:", "torch"], DATE)
    assert everything.for_uv() == ["--no-build", "--exclude-newer", "2026-11-19T00:00:00Z"]
    assert everything.for_pip("26.0") == [
        "--only-binary", ":all:", "--uploaded-prior-to", "2026-11-19T00:00:00Z"
    ]  # fmt: skip
    some = Limits(["Torch_Audio", "numpy"])
    assert some.for_uv() == ["--only-binary", "numpy", "--only-binary", "torch-audio"]
    assert some.for_pip("22.2") == ["--only-binary", "numpy,torch-audio"]
    with pytest.raises(OverlayError) as e:
        everything.for_pip("25.3")
    assert e.value.code == "cutoff-unsupported"
    assert "nothing newer than 2026-11-19" in e.value.message and "pip 25.3" in e.value.message
    # what the user has set for uv does not stop an old pip
    assert Limits((), "", ["2026-11-25"]).for_pip("25.3") == []


def test_which_lines_are_source_code() -> None:
    some, everything = Limits(["numpy"]), Limits([":all:"])
    for line, by_some in (
        ("numpy @ git+https://example.org/numpy", True),
        ("numpy @ https://example.org/numpy-2.tar.gz#sha256=00", True),
        ("other @ git+https://example.org/numpy", False),
        ("git+https://example.org/unnamed", True),  # it could be numpy
        ("-e file:///home/me/project#egg=other", False),
    ):
        assert some.refuses(parse(line, trusted=True)) is by_some, line
        assert everything.refuses(parse(line, trusted=True)), line
    for line in ("numpy", "numpy==2", "numpy @ https://example.org/numpy-2-py3-none-any.whl#sha256=00"):
        assert not some.refuses(parse(line)) and not everything.refuses(parse(line))


# -- changes ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalIndex]:
    """An index that says since when it has its files; and more packages that come as source code."""
    folder = tmp_path_factory.mktemp("timed")
    with LocalIndex(folder) as index:
        index.add(make_wheel(folder, "tinyboth", "1.0"))
        index.add(make_sdist(folder, "tinyboth", "2.0"))
        index.add(make_wheel(folder, "tinyneeds", "1.0", requires=["tinysdist"]))
        for name in index.files:
            index.uploaded(name, NEW if name.startswith(LATE) else OLD)
        yield index


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A base with tinyleaf 1.1 and a pip that knows upload times."""
    return _image(tmp_path_factory, "1.1")


def _image(tmp_path_factory: pytest.TempPathFactory, leaf: str) -> Base:
    made = make_base(tmp_path_factory.mktemp("base") / "image", pip=False)
    uv = os.path.join(os.path.dirname(sys.executable), "uv")
    install = [uv, "pip", "install", "-q", "--python", made.executable, f"pip=={PIP}"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no pip {PIP} to be had: {done.stderr[-300:]}")
    put(Path(made.site_dirs[-1]), make_wheel(tmp_path_factory.mktemp("wheels"), "tinyleaf", leaf))
    return made


@pytest.fixture
def ctx(
    tmp_path: Path,
    base: Base,
    timed: LocalIndex,
    uv_on_path: None,  # noqa: F811
    installer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Context]:
    """An empty overlay; afterwards no stage is left."""
    monkeypatch.delenv("UV_EXCLUDE_NEWER", raising=False)
    made = make_context(tmp_path / "home", base, installer=installer, index_url=timed.url)
    yield made
    _, env = made.require()
    assert not [n for n in os.listdir(env.state) if n.startswith("stage-")]
    assert not pending(env)


def install(ctx: Context, *lines: str) -> dict[str, Any]:
    return dict(apply(ctx, "install", install=lines)["plan"])


def versions(ctx: Context) -> dict[str, str]:
    return {name: dist.version for name, dist in overlay_dists(ctx.require()[1]).items()}


def fails(ctx: Context, *lines: str, code: str = "policy", status: int = 403) -> str:
    """Expect that neither a change nor a plan is to be had, and that everything is as it was."""
    before, known = env_snapshot(ctx), revisions.ids(ctx.require()[0])
    errors = []
    for act in (install, lambda ctx, *lines: planning.plan(ctx, install=lines)):
        with pytest.raises(OverlayError) as e:
            act(ctx, *lines)
        assert (e.value.code, e.value.status) == (code, status), e.value.message
        assert e.value.hint
        errors.append(e.value.message)
    assert errors[0] == errors[1]
    assert env_snapshot(ctx) == before
    assert revisions.ids(ctx.require()[0]) == known
    return errors[0]


def test_wheels_only(ctx: Context) -> None:
    install(ctx, "tinysdist")  # before there was the rule
    ctx.spec.only_binary = [":all:"]
    install(ctx, "tinyscript")  # what is there stays
    apply(ctx, "sync")
    assert versions(ctx) == {"tinysdist": "1.0", "tinyscript": "1.0"}
    apply(ctx, "uninstall", uninstall=["tinysdist"])
    why = "tinysdist 1.0 comes as source code only, which the rule 'wheels only' of this hub refuses."
    assert fails(ctx, "tinysdist") == f"{why} Nothing was changed."
    assert fails(ctx, "tinyneeds") == f"{why} Nothing was changed."
    # where there is a wheel, it is taken; the plan says so too
    assert [item["version"] for item in planning.plan(ctx, install=["tinyboth"])["new"]] == ["1.0"]
    assert install(ctx, "tinyboth")["builds"] == []
    assert versions(ctx)["tinyboth"] == "1.0"


def test_wheels_only_of_some(ctx: Context) -> None:
    ctx.spec.only_binary = ["TinyBoth", "tinyrefuse"]
    install(ctx, "tinysdist", "tinyboth")
    assert versions(ctx) == {"tinysdist": "1.0", "tinyboth": "1.0"}
    assert "tinyrefuse 1.0 comes as source code only" in fails(ctx, "tinyrefuse")


def test_source_code_by_url(ctx: Context, timed: LocalIndex) -> None:
    url = f"{timed.root}/files/tinysdist-1.0.tar.gz"
    install(ctx, f"tinysdist @ {url}")
    ctx.spec.only_binary = ["tinysdist"]
    install(ctx, "tinyscript", "tinydata")
    apply(ctx, "sync")
    asked = len(timed.requests)
    assert "tinysdist would be built from source code" in fails(ctx, f"tinysdist @ {url}?again")
    assert "or could be, since it has no name in front" in fails(ctx, f"{url}?again")
    assert len(timed.requests) == asked  # not even looked at
    ctx.spec.only_binary = [":all:"]
    install(ctx, "tinymany", f"tinyleaf @ {timed.root}/files/tinyleaf-1.0-py3-none-any.whl")
    assert versions(ctx)["tinysdist"] == "1.0"
    assert restore.restore(ctx)["plan"]["failed"] == []


def test_nothing_newer(ctx: Context) -> None:
    install(ctx, "tinydata")  # before there was the rule
    ctx.spec.exclude_newer = DATE
    assert install(ctx, "tinytree")["blocked"] == []
    assert versions(ctx) == {"tinydata": "1.0", "tinytree": "1.0"}  # and the image's tinyleaf 1.1
    apply(ctx, "uninstall", uninstall=["tinydata"])
    why = "tinydata 1.0 is too new, which the rule 'nothing newer than 2026-11-19' of this hub refuses."
    assert fails(ctx, "tinydata") == f"{why} Nothing was changed."
    assert "'nothing newer than 2026-11-19'" in fails(ctx, "tinytree>=2")
    assert "tinysdist" in planning.plan(ctx, install=["tinysdist"])["builds"][0]["name"]
    install(ctx, "tinysdist")
    ctx.spec.exclude_newer = "2026-11-20T10:00:01Z"
    assert planning.plan(ctx, install=["tinydata"])["new"][0]["version"] == "1.0"
    install(ctx, "tinydata")


def test_a_users_own_limit(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_EXCLUDE_NEWER", DATE)
    with pytest.raises(OverlayError) as e:
        install(ctx, "tinydata")
    assert e.value.code in ("no-matching-version", "no-such-package")  # no rule of the hub
    monkeypatch.setenv("UV_EXCLUDE_NEWER", "2099-01-01")
    ctx.spec.exclude_newer = DATE
    fails(ctx, "tinydata")


def test_an_index_that_tells_no_times(ctx: Context, index: LocalIndex) -> None:
    ctx.spec.index_url = index.url
    ctx.spec.exclude_newer = DATE
    why = fails(ctx, "tinyscript", code="no-upload-times", status=502)
    assert "does not say when its files were uploaded" in why and "nothing newer than 2026-11-19" in why


def test_an_upgrade(ctx: Context) -> None:
    install(ctx, "tinyleaf==1.0", "tinyscript")
    Path(ctx.require()[0].requirements).write_text("tinyleaf\ntinyscript\n")
    apply(ctx, "sync")
    ctx.spec.exclude_newer = DATE
    apply(ctx, "upgrade", upgrade=["tinyleaf"])
    assert versions(ctx).get("tinyleaf", "1.1") == "1.1"


# -- restore, undo, import, repair ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Another image, with the same pip."""
    return _image(tmp_path_factory, "1.0")


def test_a_restore_lists_what_may_not_come(ctx: Context, other_base: Base, timed: LocalIndex) -> None:
    url = f"{timed.root}/files/tinysdist-1.0.tar.gz"
    install(ctx, "tinyscript", "tinydata", "tinyboth", f"tinysdist @ {url}")
    there = make_context(
        Path(ctx.home), other_base, installer=ctx.spec.installer, index_url=timed.url,
        only_binary=[":all:"], exclude_newer=DATE,
    )  # fmt: skip
    plan = restore.restore(there)["plan"]
    assert versions(there) == {"tinyscript": "1.0", "tinyboth": "1.0"}
    failed = {item["requirement"].split(" ")[0]: (item["code"], item["reason"]) for item in plan["failed"]}
    assert set(failed) == {"tinydata", "tinysdist"}
    assert all(code == "policy" for code, _ in failed.values())
    assert "'nothing newer than 2026-11-19'" in failed["tinydata"][1]
    assert "'wheels only'" in failed["tinysdist"][1]


def test_an_undo_by_download_an_import_and_a_repair(ctx: Context, tmp_path: Path) -> None:
    install(ctx, "tinydata", "tinysdist", "tinyscript")
    apply(ctx, "uninstall", uninstall=["tinydata"])
    ctx.spec.only_binary, ctx.spec.exclude_newer = [":all:"], DATE
    _, env = ctx.require()
    subprocess.run(["rm", "-r", os.path.join(env.state, "set-aside")], check=True)
    plan = undo(ctx)["plan"]
    assert [(item["requirement"], item["code"]) for item in plan["failed"]] == [("tinydata", "policy")]
    os.unlink(os.path.join(env.site_packages, "tinysdist.py"))
    with pytest.raises(OverlayError) as e:
        reinstall.reinstall(ctx, ["tinysdist"])
    assert e.value.code == "policy" and "'wheels only'" in e.value.message
    listed = tmp_path / "requirements.txt"
    listed.write_text("tinymany\ntinyrefuse\n")
    left = importing.import_packages(ctx, str(listed))["left_out"]
    assert [(item["requirement"], "'wheels only'" in item["reason"]) for item in left] == [
        ("tinyrefuse", True)
    ]
    assert "tinymany" in versions(ctx)


def test_an_old_pip_installs_nothing_and_says_why(
    tmp_path: Path, timed: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    old = make_base(tmp_path / "image", pip=False)
    put(Path(old.site_dirs[-1]), make_wheel(tmp_path, "pip", "25.3"))  # never run
    ctx = make_context(tmp_path / "home", old, index_url=timed.url, exclude_newer=DATE)
    why = fails(ctx, "tinyscript", code="cutoff-unsupported", status=501)
    assert "'nothing newer than 2026-11-19'" in why and "pip 25.3" in why


# -- other tools ------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(tmp_path: Path, base: Base, timed: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A server's runtime dir with its commands; the environment is that of a terminal."""
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("UV_DEFAULT_INDEX", timed.url)
    made = make_context(
        tmp_path / "home", base, index_url=timed.url, only_binary=[":all:"], exclude_newer=DATE
    )
    return open_terminal(made, tmp_path, timed.url, monkeypatch)


@pytest.mark.parametrize(
    "argv",
    [
        ["pip", "install", "--no-binary", "tinyboth", "tinyboth"],
        ["pip", "install", "--no-binary=:all:", "tinyboth"],
        ["pip", "install", "--uploaded-prior-to=2026-12-01", "tinydata"],
        ["pip", "install", "tinysdist @ file:///nowhere/tinysdist-1.0.tar.gz"],
        ["pip", "install", "-e", "."],
        ["pip", "install", "."],
        ["uv", "pip", "install", "--no-deps", "--exclude-newer", "2026-12-01", "tinydata"],
        ["uv", "pip", "install", "--no-deps", "--exclude-newer-package", "tinydata=2026-12-01", "tinydata"],
        ["uv", "pip", "install", "tinydata"],
        ["uv", "pip", "install", "tinysdist"],
    ],
)
def test_the_commands_refuse(terminal: Context, argv: list[str]) -> None:
    shown = tool(terminal, *argv, ok=False)
    assert "[policy]" in shown and ("'wheels only'" in shown or "'nothing newer than 2026-11-19'" in shown)
    assert "Traceback" not in shown and "Collecting" not in shown
    assert versions(terminal) == {}


@pytest.mark.parametrize(
    "argv",
    [
        ["pip", "install", "-q", "WHAT"],
        ["uv", "pip", "install", "-q", "--no-deps", "WHAT"],
    ],
)
def test_the_commands_have_the_limits(
    terminal: Context, argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # what the user has set may not be looser
    monkeypatch.setenv("PIP_NO_BINARY", "tinyboth,tinysdist")
    monkeypatch.setenv("PIP_UPLOADED_PRIOR_TO", "2026-12-01T00:00:00Z")
    monkeypatch.setenv("UV_EXCLUDE_NEWER", "2026-12-01T00:00:00Z")
    for what in ("tinydata", "tinysdist"):
        tool(terminal, *[what if word == "WHAT" else word for word in argv], ok=False)
    tool(terminal, *["tinyboth" if word == "WHAT" else word for word in argv])
    assert versions(terminal) == {"tinyboth": "1.0"}
