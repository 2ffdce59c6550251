"""Changing an overlay: one suite for uv and pip, with a real index and a real venv as base."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import revisions
from overlayspawner.payload.apply import apply
from overlayspawner.payload.change import pending
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError, Spec
from overlayspawner.payload.dists import packages
from overlayspawner.payload.lease import acquire
from overlayspawner.payload.probe import Base
from tests.support.envs import (
    ROOT,
    base,  # noqa: F401  (a fixture)
    env_snapshot,
    make_context,
    put,
    run_python,
    snapshot,
    stamps,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.faults import LONG
from tests.support.index import LocalIndex
from tests.support.wheels import make_wheel


@pytest.fixture(scope="module", autouse=True)
def image_stays(base: Base) -> Iterator[None]:  # noqa: F811
    """In the end the image holds what it held; :func:`ctx` says which test has touched it."""
    before = snapshot(base.prefix)
    yield
    assert snapshot(base.prefix) == before


@pytest.fixture
def ctx(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    installer: str,
) -> Iterator[Context]:
    """An empty overlay; afterwards the image is what it was, and no stage is left."""
    before = stamps(base.prefix)
    made = make_context(tmp_path / "home", base, installer=installer, index_url=index.url)
    yield made
    assert stamps(base.prefix) == before
    _, env = made.require()
    if os.path.isdir(env.state):
        assert not [n for n in os.listdir(env.state) if n.startswith("stage-")]
        assert not pending(env)


def install(ctx: Context, *lines: str) -> dict[str, Any]:
    return dict(apply(ctx, "install", install=lines)["plan"])


def uninstall(ctx: Context, *names: str) -> dict[str, Any]:
    return dict(apply(ctx, "uninstall", uninstall=names)["plan"])


def names(items: list[dict[str, Any]]) -> dict[str, str]:
    return {item["name"]: item["version"] for item in items}


def requirements(ctx: Context) -> str:
    overlay, _ = ctx.require()
    return Path(overlay.requirements).read_text()


def fails(ctx: Context, action: str = "install", **wanted: Any) -> OverlayError:
    """Expect an error that leaves everything as it was."""
    overlay, _ = ctx.require()
    before, known = env_snapshot(ctx), revisions.ids(overlay)
    with pytest.raises(OverlayError) as e:
        apply(ctx, action, **wanted)
    assert env_snapshot(ctx) == before
    assert revisions.ids(overlay) == known
    return e.value


def test_a_new_package_with_what_it_needs(ctx: Context) -> None:
    events: list[dict[str, Any]] = []
    result = apply(ctx, "install", install=["tinyforest"], on_event=events.append)
    plan = result["plan"]
    assert names(plan["new"]) == {"tinyforest": "1.0", "tinytree": "2.0", "tinyleaf": "2.0"}
    assert {p["name"] for p in plan["new"] if p["requested"]} == {"tinyforest"}
    assert plan["bytes"] > 0
    assert requirements(ctx) == "tinyforest\n"
    assert run_python(ctx, "import tinyforest, tinytree, tinyleaf; print(tinyleaf.__version__)") == "2.0"
    phases = [event["phase"] for event in events]
    assert phases[0] == "resolving"
    assert phases[-2:] == ["committing", "done"]
    assert result["revision"]["id"] == 1
    assert result["revision"]["changed"]


def test_the_revision_says_what_happened(ctx: Context) -> None:
    install(ctx, "tinyleaf>=2")
    overlay, env = ctx.require()
    revision = revisions.read(overlay, 1)
    assert revision is not None
    assert revision["action"] == "install"
    assert revision["argv"] == ["install", "tinyleaf>=2"]
    assert revision["requirements"] == {"before": [], "after": ["tinyleaf>=2"]}
    assert revision["base"] == {"key": ctx.base.key, "lock": ctx.base_lock}
    assert names(revision["plan"]["new"]) == {"tinyleaf": "2.0"}
    assert revision["files"]
    for path, inode, size in revision["files"]:
        info = os.lstat(os.path.join(env.path, path))
        assert (info.st_ino, info.st_size) == (inode, size)
    placed = {path for path, _, _ in revision["files"]}
    assert f"lib/python{env.version}/site-packages/tinyleaf.py" in placed


def test_what_the_image_has_is_not_installed_again(ctx: Context) -> None:
    before = env_snapshot(ctx)
    plan = install(ctx, "basetool")
    assert plan["new"] == []
    assert names(plan["satisfied_by_base"])["basetool"] == "1.0"
    assert {**env_snapshot(ctx), "requirements": ""} == before
    assert requirements(ctx) == "basetool\n"
    plan = install(ctx, "tinyextra[leaf]")
    assert names(plan["new"]) == {"tinyextra": "1.0"}
    assert names(plan["satisfied_by_base"]) == {"tinyleaf": "1.1"}


def test_a_newer_version_than_the_image_has_hides_it(ctx: Context) -> None:
    plan = install(ctx, "tinytree")
    assert plan["shadows"] == [{"name": "tinyleaf", "version": "2.0", "hidden": "1.1", "where": "base"}]
    assert plan["needs_restart"]
    shown = {p["name"]: p for p in packages(ctx)}
    assert shown["tinyleaf"]["shadows"] == "1.1"
    assert shown["tinyleaf"]["requested"] is False
    assert shown["tinytree"]["requested"] is True
    assert run_python(ctx, "import tinyleaf; print(tinyleaf.__version__)") == "2.0"


def test_an_older_version_than_the_image_has(ctx: Context) -> None:
    plan = install(ctx, "tinyleaf==1.0")
    assert names(plan["shadows"]) == {"tinyleaf": "1.0"}
    assert run_python(ctx, "import tinyleaf; print(tinyleaf.__version__)") == "1.0"


def test_the_image_serves_again_when_its_version_fits_again(ctx: Context) -> None:
    install(ctx, "tinyforest")
    plan = install(ctx, "tinyextra[tree]")
    assert names(plan["new"]) == {"tinyextra": "1.0", "tinytree": "1.0"}
    assert plan["removes"] == [
        {"name": "tinyleaf", "version": "2.0", "reason": "unneeded", "reveals": "1.1"},
    ]
    where = run_python(ctx, "import tinyleaf; print(tinyleaf.__file__)")
    assert where.startswith(ctx.base.prefix)


def test_extras(ctx: Context) -> None:
    assert names(install(ctx, "tinyextra")["new"]) == {"tinyextra": "1.0"}
    assert names(install(ctx, "tinyextra[tree]")["new"]) == {"tinytree": "1.0"}
    assert requirements(ctx) == "tinyextra[tree]\n"


def test_a_replaced_package_leaves_nothing_of_the_old_one(ctx: Context) -> None:
    install(ctx, "tinyleaf==1.0")
    plan = install(ctx, "tinyleaf==2.0")
    assert plan["new"][0]["replaces"] == "1.0"
    assert plan["needs_restart"]
    assert requirements(ctx) == "tinyleaf==2.0\n"
    _, env = ctx.require()
    infos = [n for n in os.listdir(env.site_packages) if n.endswith(".dist-info")]
    assert infos == ["tinyleaf-2.0.dist-info"]
    assert run_python(ctx, "import tinyleaf; print(tinyleaf.__version__)") == "2.0"


def test_uninstalling_leaves_what_was_before(ctx: Context) -> None:
    before = env_snapshot(ctx)
    install(ctx, "tinyforest", "tinydata", "tinyscript")
    plan = uninstall(ctx, "tinyforest")
    assert {p["name"]: p["reason"] for p in plan["removes"]} == {
        "tinyforest": "uninstalled",
        "tinytree": "unneeded",
        "tinyleaf": "unneeded",
    }
    assert {p["name"]: p["reveals"] for p in plan["removes"]}["tinyleaf"] == "1.1"
    uninstall(ctx, "tinydata", "tinyscript")
    assert env_snapshot(ctx) == before


def test_uninstalling_after_python_has_compiled(ctx: Context) -> None:
    before = env_snapshot(ctx)
    install(ctx, "tinydata", "tinyleaf==2.0", "tinyns-one")
    _, env = ctx.require()
    code = "import tinydata, tinyleaf, tinyns.one"
    subprocess.run([env.python, "-I", "-c", code], check=True)
    assert list(Path(env.site_packages).rglob("*.pyc"))
    uninstall(ctx, "tinydata", "tinyleaf", "tinyns-one")
    assert env_snapshot(ctx) == before


def test_what_others_need_stays(ctx: Context) -> None:
    install(ctx, "tinyforest", "tinyleaf>=2")
    error = fails(ctx, "uninstall", uninstall=["tinytree"])
    assert error.code == "conflict"
    assert "tinyforest" in error.message
    plan = uninstall(ctx, "tinyleaf")
    assert plan["removes"] == []
    assert requirements(ctx) == "tinyforest\n"
    assert {p["name"] for p in packages(ctx)} == {"tinyforest", "tinytree", "tinyleaf"}


def test_what_is_not_ours_is_not_uninstalled(ctx: Context) -> None:
    assert fails(ctx, "uninstall", uninstall=["basetool"]).code == "in-base"
    assert fails(ctx, "uninstall", uninstall=["tinyforest"]).code == "not-installed"


def test_namespace_packages_share_a_folder(ctx: Context) -> None:
    install(ctx, "tinyns-one")
    install(ctx, "tinyns-two")
    assert run_python(ctx, "import tinyns.one, tinyns.two; print(tinyns.one.N + tinyns.two.N)") == "3"
    uninstall(ctx, "tinyns-one")
    assert run_python(ctx, "import tinyns.two; print(tinyns.two.N)") == "2"


def test_a_file_that_two_packages_bring_stays_with_the_other(
    ctx: Context, index: LocalIndex, tmp_path: Path
) -> None:
    for name in ("shared-one", "shared-two"):
        if name not in index.projects:
            files = {"sharedpkg/__init__.py": "", f"sharedpkg/{name[7:]}.py": "", f"{name[7:]}_top.py": ""}
            index.add(make_wheel(tmp_path / "w", name, "1.0", files=files), project=name)
    install(ctx, "shared-one", "shared-two")
    uninstall(ctx, "shared-one")
    _, env = ctx.require()
    assert sorted(
        n for n in os.listdir(os.path.join(env.site_packages, "sharedpkg")) if n.endswith(".py")
    ) == [
        "__init__.py",
        "two.py",
    ]


def test_scripts_run_in_the_env(ctx: Context) -> None:
    install(ctx, "tinyscript")
    _, env = ctx.require()
    script = os.path.join(env.bin, "tinyscript-hello")
    with open(script) as f:
        # a long path takes a way round through sh, on the second line
        assert env.python in f.readline() + f.readline()
    out = subprocess.run([script], capture_output=True, text=True, check=True).stdout
    assert out == f"hello from {env.path}\n"


def test_data_files(ctx: Context) -> None:
    install(ctx, "tinydata")
    _, env = ctx.require()
    assert Path(env.path, "share", "tinydata", "data.txt").read_text() == "data\n"


def test_an_sdist_is_built(ctx: Context) -> None:
    assert names(install(ctx, "tinysdist")["new"]) == {"tinysdist": "1.0"}
    assert run_python(ctx, "import tinysdist; print(tinysdist.__version__)") == "1.0"


def test_a_wheel_by_url(ctx: Context, index: LocalIndex) -> None:
    url = f"{index.root}/files/tinyleaf-2.0-py3-none-any.whl"
    assert names(install(ctx, url)["new"]) == {"tinyleaf": "2.0"}
    assert requirements(ctx) == f"tinyleaf @ {url}\n"
    assert apply(ctx, "sync")["plan"]["new"] == []
    uninstall(ctx, "tinyleaf")
    assert requirements(ctx) == ""


def test_a_wheel_by_path(ctx: Context, tmp_path: Path) -> None:
    path = make_wheel(tmp_path / "wheels", "mine", "3.0")
    assert names(install(ctx, str(path))["new"]) == {"mine": "3.0"}
    assert requirements(ctx) == f"mine @ file://{path}\n"
    assert names(install(ctx, "tinyscript")["new"]) == {"tinyscript": "1.0"}


def test_all_lines_are_resolved_each_time(ctx: Context) -> None:
    install(ctx, "tinytree<2", "tinyleaf")
    assert fails(ctx, install=["tinyleaf>=2"]).code == "conflict"
    plan = install(ctx, "tinyforest")
    assert names(plan["new"]) == {"tinyforest": "1.0"}


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        (["tinynowhere"], {"no-such-package"}),
        (["tinyleaf==9"], {"no-matching-version"}),
        (["tinylost"], {"no-such-package", "no-matching-version"}),
        (["tinyfuture"], {"no-matching-version"}),
        (["tinyrefuse"], {"build-failed"}),
        (["tinytruncated"], {"bad-package"}),
        (["tinywronghash"], {"bad-package"}),
        (["tinyhtmlname"], {"bad-package"}),
        (["tinyleft", "tinyright"], {"conflict"}),
        (["tinyscript", "tinyrefuse"], {"build-failed"}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_a_failure_leaves_all_as_it_was(ctx: Context, lines: list[str], codes: set[str]) -> None:
    install(ctx, "tinytree<2")
    error = fails(ctx, install=lines)
    assert error.code in codes
    assert error.log


@pytest.mark.parametrize(
    ("action", "wanted", "code"),
    [
        ("install", {"install": ["--index-url=http://x"]}, "option-not-allowed"),
        ("install", {"install": ["-r /etc/passwd"]}, "option-not-allowed"),
        ("install", {"install": ["!"]}, "bad-requirement"),
        ("install", {"install": "tinyleaf"}, "bad-requirement"),
        ("install", {"install": [3]}, "bad-requirement"),
        ("install", {}, "bad-request"),
        ("uninstall", {"uninstall": ["tinyleaf>1"]}, "bad-requirement"),
        ("uninstall", {"uninstall": ["-y"]}, "option-not-allowed"),
        ("explode", {"install": ["tinyleaf"]}, "unknown-action"),
    ],
)
@pytest.mark.parametrize("installer", ["pip"], indirect=True)
def test_bad_requests(ctx: Context, action: str, wanted: dict[str, Any], code: str) -> None:
    assert fails(ctx, action, **wanted).code == code


def test_nothing_to_do_is_no_revision(ctx: Context) -> None:
    assert apply(ctx, "sync")["revision"] == {"id": 0, "changed": False}
    install(ctx, "tinyscript")
    result = apply(ctx, "install", install=["tinyscript"])
    assert result["revision"]["id"] == 1
    assert result["revision"]["changed"] is False
    overlay, _ = ctx.require()
    assert revisions.ids(overlay) == [1]


def test_upgrading_takes_what_was_meant_only(ctx: Context) -> None:
    install(ctx, "tinytree==1.0", "tinyextra", "tinypre", "tinyleaf<3")
    before = {p["name"]: p["version"] for p in packages(ctx)}
    assert before == {"tinytree": "1.0", "tinyextra": "1.0", "tinypre": "1.0"}
    overlay, _ = ctx.require()
    Path(overlay.requirements).write_text("tinytree\ntinyextra\ntinypre\n")
    assert apply(ctx, "sync")["plan"]["new"] == []
    plan = apply(ctx, "upgrade", upgrade=["tinytree"])["plan"]
    assert names(plan["new"]) == {"tinytree": "2.0", "tinyleaf": "2.0"}
    assert requirements(ctx) == "tinytree\ntinyextra\ntinypre\n"


def test_upgrading_what_the_image_has_asks_for_it(ctx: Context) -> None:
    plan = apply(ctx, "upgrade", upgrade=["tinyleaf"])["plan"]
    assert names(plan["new"]) == {"tinyleaf": "2.0"}
    assert requirements(ctx) == "tinyleaf>=2.0\n"


def test_what_is_not_there_cannot_be_upgraded(ctx: Context) -> None:
    assert fails(ctx, "upgrade", upgrade=["tinyforest"]).code == "not-installed"
    assert packages(ctx) == []


def test_sync_installs_what_was_written_by_hand(ctx: Context) -> None:
    overlay, _ = ctx.require()
    text = "# by hand\ntinyscript  # handy\n--pre\n"
    Path(overlay.requirements).write_text(text)
    events: list[dict[str, Any]] = []
    plan = apply(ctx, "sync", on_event=events.append)["plan"]
    assert names(plan["new"]) == {"tinyscript": "1.0"}
    assert requirements(ctx) == text
    assert any("--pre" in event["message"] for event in events)


def test_the_administrators_requirements(ctx: Context) -> None:
    ctx.spec.requirements = ["tinyscript", "tinyleaf<2"]
    plan = install(ctx, "tinyforest")
    assert names(plan["new"]) == {"tinyforest": "1.0", "tinytree": "1.0", "tinyscript": "1.0"}
    assert requirements(ctx) == "tinyforest\n"
    error = fails(ctx, "uninstall", uninstall=["tinyscript"])
    assert error.code == "conflict"


def test_constraints(ctx: Context) -> None:
    ctx.spec.constraints = ["tinyleaf<2"]
    assert names(install(ctx, "tinyforest")["new"]) == {"tinyforest": "1.0", "tinytree": "1.0"}
    assert fails(ctx, install=["tinyleaf>=2"]).code in ("conflict", "no-matching-version")


def test_the_user_site_satisfies_nothing(ctx: Context, tmp_path: Path) -> None:
    site = Path(ctx.home, ".local", "lib", f"python{ctx.base.version}", "site-packages")
    put(site, make_wheel(tmp_path / "local", "tinyscript", "0.9"))
    plan = install(ctx, "tinyscript")
    assert names(plan["new"]) == {"tinyscript": "1.0"}
    assert plan["shadows"] == [
        {"name": "tinyscript", "version": "1.0", "hidden": "0.9", "where": "user-site"},
    ]
    assert [p["name"] for p in packages(ctx, "user-site")] == ["tinyscript"]


def test_settings_for_other_environments_have_no_say(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_TARGET", "PIP_PREFIX", "PYTHONPATH", "UV_TARGET", "UV_PREFIX", "PYTHONUSERBASE"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")
    monkeypatch.setenv("UV_SYSTEM_PYTHON", "1")
    monkeypatch.delenv("PIP_CONFIG_FILE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "pip").mkdir(parents=True)
    (tmp_path / "config" / "pip" / "pip.conf").write_text("[install]\nuser = true\nno-deps = true\n")
    plan = install(ctx, "tinyforest")
    assert len(plan["new"]) == 3
    assert not (tmp_path / "elsewhere").exists()


def test_cancelling(ctx: Context) -> None:
    cancel = threading.Event()

    def on_event(event: dict[str, Any]) -> None:
        if event["phase"] in ("downloading", "staging") or "tinyforest" in event["message"]:
            cancel.set()

    error = fails(ctx, install=["tinyforest"], on_event=on_event, cancel=cancel)
    assert error.code == "cancelled"
    assert cancel.is_set()


def test_another_writer_has_to_wait(ctx: Context) -> None:
    _, env = ctx.require()
    with acquire(env, who="the other server"):
        error = fails(ctx, install=["tinyleaf"])
    assert error.code == "busy"
    assert "the other server" in error.message


def test_no_overlay_no_change(base: Base, tmp_path: Path) -> None:  # noqa: F811
    ctx = Context(spec=Spec(), base=base, home=str(tmp_path), runtime="", payload="")
    with pytest.raises(OverlayError) as e:
        apply(ctx, "install", install=["tinyleaf"])
    assert e.value.code == "no-overlay"


def test_what_belongs_to_the_env_is_not_replaced(ctx: Context, index: LocalIndex, tmp_path: Path) -> None:
    if "hostile" not in index.projects:
        path = make_wheel(
            tmp_path / "w",
            "hostile",
            "1.0",
            data={
                "bin/pip": "#!/bin/sh\necho owned\n",
                "pyvenv.cfg": "home = /nowhere\n",
                "pip.conf": "[global]\nindex-url = http://example.org\n",
                ".overlay/journal.json": "{}",
                "share/hostile.txt": "harmless",
            },
        )
        index.add(path)
    _, env = ctx.require()
    own = [os.path.join(env.path, p) for p in ("pyvenv.cfg", "pip.conf", "bin/pip")]
    before = [Path(p).read_text() for p in own]
    install(ctx, "hostile")
    assert [Path(p).read_text() for p in own] == before
    assert not pending(env)
    assert run_python(ctx, "print('fine')") == "fine"
    assert Path(env.path, "share", "hostile.txt").exists()
    uninstall(ctx, "hostile")
    assert [Path(p).read_text() for p in own] == before
    assert not Path(env.path, "share", "hostile.txt").exists()


def test_a_package_cannot_bring_a_python(ctx: Context, index: LocalIndex, tmp_path: Path) -> None:
    if "brings-python" not in index.projects:
        data = {"bin/python": "#!/bin/sh\necho owned\n"}
        index.add(make_wheel(tmp_path / "w", "brings-python", "1.0", data=data), project="brings-python")
    _, env = ctx.require()
    before = os.readlink(env.python)
    try:
        install(ctx, "brings-python")
    except OverlayError as e:
        assert e.code == "bad-package"
    assert os.readlink(env.python) == before
    assert run_python(ctx, "print('fine')") == "fine"


def test_credentials_of_the_index_stay_out_of_everything(ctx: Context, index: LocalIndex) -> None:
    ctx.spec.index_url = index.prefixed("auth", credentials=True)
    events: list[dict[str, Any]] = []
    apply(ctx, "install", install=["tinyscript"], on_event=events.append)
    with pytest.raises(OverlayError) as e:
        apply(ctx, "install", install=["tinynowhere"], on_event=events.append)
    overlay, env = ctx.require()
    secret = index.password.replace("/", "%2F").replace("@", "%40").replace("+", "%2B")
    assert secret in ctx.spec.index_url
    texts = [json.dumps(events), json.dumps(e.value.to_dict())]
    for root in (overlay.revisions, env.state, env.site_packages):
        for path in Path(root).rglob("*"):
            if path.is_file():
                texts.append(path.read_text(errors="replace"))
    assert [text for text in texts if secret in text or index.password in text] == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB; only root can have one."""
    path = tmp_path / "small"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(path)], check=False).returncode:
        pytest.skip("no permission to mount a small file system")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk(ctx: Context, base: Base, small_disk: Path) -> None:  # noqa: F811
    small = make_context(
        small_disk / "home", base, installer=ctx.spec.installer, index_url=ctx.spec.index_url
    )
    install(small, "tinyleaf==1.0")
    assert fails(small, install=["tinybig", "tinyscript"]).code == "disk-full"
    # what the attempt has downloaded does not go on filling the disk
    assert names(install(small, "tinyscript")["new"]) == {"tinyscript": "1.0"}
    (small_disk / "filler").write_bytes(b"")
    with contextlib.suppress(OSError), (small_disk / "filler").open("ab", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)
    assert fails(small, install=["tinydata"]).code == "disk-full"
    (small_disk / "filler").unlink()
    assert names(install(small, "tinydata")["new"]) == {"tinydata": "1.0"}


APPLY = """
import json, sys
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
ctx = Context.load(sys.argv[1])
try:
    print(apply(ctx, "install", install=sys.argv[2:])["revision"]["id"])
except OverlayError as e:
    print(e.code)
"""


def in_process(ctx: Context, runtime: Path, *lines: str, fault: str = "") -> subprocess.Popen[str]:
    runtime.mkdir(exist_ok=True)
    (runtime / "server.json").write_text(ctx.to_json())
    return subprocess.Popen(
        [sys.executable, "-c", APPLY, str(runtime), *lines],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OVERLAYSPAWNER_FAULT": fault},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_servers_at_once(ctx: Context, tmp_path: Path) -> None:
    running = [in_process(ctx, tmp_path / str(n), line) for n, line in enumerate(("tinyscript", "tinydata"))]
    out = sorted(process.communicate()[0].strip() for process in running)
    assert out in (["1", "2"], ["1", "busy"])
    found = {p["name"] for p in packages(ctx)}
    assert len(found) == sum(word != "busy" for word in out)
    assert found == set(requirements(ctx).split())
    run_python(ctx, "import " + ", ".join(found))


@pytest.mark.slow
@pytest.mark.parametrize("installer", ["uv"], indirect=True)
def test_killed_at_every_step_of_the_commit(ctx: Context, base: Base, tmp_path: Path) -> None:  # noqa: F811
    """Whatever moment it dies at, the next writer finds all old or all new, and goes on from there.

    Every step of a commit is what tests/payload/faults is about; here it is each third with a real installer.
    """
    states = set()
    for step in range(1, 100, 1 if LONG else 3):
        home = tmp_path / f"home{step}"
        victim = make_context(home, base, installer="uv", index_url=ctx.spec.index_url)
        install(victim, "tinytree<2", "tinyleaf<2")
        old = env_snapshot(victim)
        process = in_process(
            victim, tmp_path / "run", "tinyforest", "tinytree>=2", "tinyleaf>=2", fault=f"commit@{step}:kill"
        )
        out, err = process.communicate()
        if process.returncode == 0:
            assert out == "2\n"
            break
        assert process.returncode == -9, err
        apply(victim, "sync")
        now = env_snapshot(victim)
        if now == old:
            states.add("old")
        else:
            states.add("new")
            assert requirements(victim) == "tinytree>=2\ntinyleaf>=2\ntinyforest\n"
            found = {p["name"]: p["version"] for p in packages(victim)}
            assert found == {"tinyforest": "1.0", "tinytree": "2.0", "tinyleaf": "2.0"}
        install(victim, "tinyscript")
    else:
        pytest.fail("the change never came to its end")
    assert states == {"old", "new"}


@pytest.mark.parametrize("installer", ["uv"], indirect=True)
@pytest.mark.parametrize("step", [3, 9, 14, 20, 26])
def test_killed_before_the_commit(ctx: Context, tmp_path: Path, step: int) -> None:
    before = env_snapshot(ctx)
    process = in_process(ctx, tmp_path / "run", "tinyforest", fault=f"{step}:kill")
    process.communicate()
    assert process.returncode == -9
    assert env_snapshot(ctx) == before
    assert len(install(ctx, "tinyforest")["new"]) == 3
