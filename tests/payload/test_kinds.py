"""Kinds and lifetimes: what an isolated env sees, where an ephemeral one lives, what stays on a change."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import bootstrap, kernelspec, runtime
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import Spec
from overlayspawner.payload.installer import uv
from overlayspawner.payload.overlay import make_local
from overlayspawner.payload.probe import Base
from overlayspawner.payload.restore import restore, wanted
from tests.payload.test_kernel import Kernel, notices, specs
from tests.support.envs import (
    base,  # noqa: F401  (a fixture)
    put,
    run_python,
    snapshot,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.index import LocalIndex
from tests.support.wheels import make_wheel

CELLS = [(kind, lifetime) for kind in ("overlay", "isolated") for lifetime in ("persistent", "ephemeral")]

Open = Callable[..., Context]


@pytest.fixture
def start(
    home: Path,
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Open:
    """Open the overlay of one home, as each start of a server would; containers have folders of their own."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)

    def do(container: str = "one", *, base: Base = base, **spec: object) -> Context:
        place = tmp_path / container
        place.mkdir(exist_ok=True)
        monkeypatch.setenv("TMPDIR", str(place))
        environ = {"HOME": str(home), "TMPDIR": str(place), "PATH": os.environ["PATH"]}
        values: dict[str, Any] = {"index_url": index.url, "installer": "uv", **spec}
        return bootstrap.open_context(Spec(**values), environ=environ, base=base)

    return do


def install(ctx: Context, *lines: str) -> dict[str, str]:
    plan = apply(ctx, "install", install=lines)["plan"]
    return {item["name"]: item["version"] for item in plan["new"]}


@pytest.mark.parametrize(("kind", "lifetime"), CELLS)
def test_all_four(start: Open, home: Path, tmp_path: Path, kind: str, lifetime: str) -> None:
    ctx = start(kind=kind, lifetime=lifetime)
    overlay, env = ctx.require()
    assert ctx.notices == []
    place = home if lifetime == "persistent" else tmp_path / "one"
    assert env.path.startswith(f"{place}/")
    # the base has tinyleaf 1.1
    new = install(ctx, "tinytree<2", "tinyleaf<2")
    assert new == ({"tinytree": "1.0"} if kind == "overlay" else {"tinytree": "1.0", "tinyleaf": "1.1"})
    assert run_python(ctx, "import tinytree, tinyleaf; print(tinyleaf.__version__)") == "1.1"
    seen = run_python(ctx, "import importlib.util as u; print(u.find_spec('basetool') is not None)")
    assert seen == str(kind == "overlay")
    # what the user asked for is in the home, whatever the lifetime
    assert Path(home, ".overlay/default/requirements.txt").read_text() == "tinytree<2\ntinyleaf<2\n"
    assert os.listdir(overlay.revisions)
    assert (home / ".overlay/default/envs").exists() == (lifetime == "persistent")
    # another process of this server sees the same env
    assert Context.load(ctx.runtime).require()[1].path == env.path
    assert Context.load(ctx.runtime).require()[0].env(ctx.base).path == env.path
    again = start("two", kind=kind, lifetime=lifetime).require()[1]
    if lifetime == "persistent":
        assert again.path == env.path
    else:
        assert again.path.startswith(f"{tmp_path}/two/")
        assert "tinytree" not in os.listdir(again.site_packages)
    apply(ctx, "uninstall", uninstall=["tinytree"])
    assert "tinytree" not in os.listdir(env.site_packages)


def test_changing_kind_and_lifetime_keeps_what_there_was(start: Open, home: Path) -> None:
    first = start()
    install(first, "tinyscript")
    envs = home / ".overlay/default/envs"
    before = snapshot(envs)
    start(lifetime="ephemeral")
    assert snapshot(envs) == before
    isolated = start(kind="isolated").require()[1]
    assert isolated.path != first.require()[1].path
    assert {name: now for name, now in snapshot(envs).items() if name in before} == before
    back = start().require()[1]
    assert back.path == first.require()[1].path
    assert Path(back.bin, "tinyscript-hello").exists()


def test_a_directory_of_ones_own(start: Open, tmp_path: Path) -> None:
    env = start(lifetime="ephemeral").require()[1]
    root = Path(env.path).parent.parent
    assert root.parent == tmp_path / "one"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    # two servers of one user on one machine
    assert start(lifetime="ephemeral").require()[1].path != env.path


def test_never_in_the_home(home: Path, tmp_path: Path) -> None:
    inside = home / "tmp"
    inside.mkdir()
    path = make_local({"TMPDIR": str(inside)}, str(home))
    try:
        assert not path.startswith(str(home))
    finally:
        os.rmdir(path)


def test_where_no_program_runs_comes_last(tmp_path: Path) -> None:
    place = tmp_path / "noexec"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "noexec,size=1m", "tmpfs", str(place)], check=False
    ).returncode:
        pytest.skip("no permission to mount")
    try:
        path = make_local({"TMPDIR": str(place)}, "/nonexistent")
        assert not path.startswith(str(place))
        os.rmdir(path)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_ephemeral_downloads_stay_out_of_the_home(
    start: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = start(lifetime="ephemeral")
    assert uv.cache_dir(ctx).startswith(f"{tmp_path}/one/")
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("UV_CACHE_DIR", str(shared))
    assert uv.cache_dir(ctx) == str(shared)


def test_what_a_dead_server_left_is_removed(start: Open, tmp_path: Path) -> None:
    dead, alive, mine = (start(lifetime="ephemeral") for _ in range(3))
    locals_ = [ctx.require()[0].local for ctx in (dead, alive, mine)]
    locks = [runtime.hold(local) for local in locals_]
    assert None not in locks
    os.close(locks[0])  # type: ignore[arg-type]
    try:
        runtime.sweep(locals_[2])
        assert [os.path.isdir(local) for local in locals_] == [False, True, True]
    finally:
        os.close(locks[1])  # type: ignore[arg-type]
        os.close(locks[2])  # type: ignore[arg-type]


def test_two_ephemeral_servers_share_what_was_asked_for(start: Open, home: Path) -> None:
    """Each changes an env of its own; the file and the history are the same."""
    one, two = start("one", lifetime="ephemeral"), start("two", lifetime="ephemeral")
    threads = [
        threading.Thread(target=install, args=(ctx, line))
        for ctx, line in ((one, "tinyscript"), (two, "tinydata"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (home / ".overlay/default/requirements.txt").read_text().split()
    assert sorted(lines) == ["tinydata", "tinyscript"]
    assert len(os.listdir(one.require()[0].revisions)) >= 2
    for ctx in (one, two):
        if wanted(ctx):  # who came second may have found the other's line, and installed both
            restore(ctx)
        assert wanted(ctx) is None
        run_python(ctx, "import tinyscript, tinydata")


def test_a_new_container_has_the_versions_of_the_last(start: Open, index: LocalIndex) -> None:
    install(start("one", lifetime="ephemeral"), "tinytree==1.0", "tinyleaf<1.1")
    ctx = start("two", lifetime="ephemeral")
    Path(ctx.require()[0].requirements).write_text("tinytree\n")
    assert wanted(ctx)
    restore(ctx)
    # what was asked for allows 2.0; what was there was 1.0
    assert run_python(ctx, "import tinytree; print(tinytree.__version__)") == "1.0"


def test_nothing_persistent_at_all(start: Open) -> None:
    ctx = start(lifetime="ephemeral", mounts=[])
    assert ctx.mode == "normal"
    assert ctx.notices == []
    assert [n["code"] for n in start(mounts=[]).notices] == ["not-persistent"]


def test_nothing_outside_an_isolated_env_satisfies_or_is_hidden(start: Open, home: Path, base: Base) -> None:  # noqa: F811
    local = home / f".local/lib/python{base.version}/site-packages"
    put(local, make_wheel(home / "wheels", "tinyleaf", "0.9"))
    plan = apply(start(kind="isolated"), "install", install=["tinyleaf"])["plan"]
    assert plan["satisfied_by_base"] == []
    assert plan["shadows"] == []


@pytest.mark.slow
def test_pip_as_the_installer(start: Open) -> None:
    ctx = start(kind="isolated", installer="pip")
    assert install(ctx, "tinyforest") == {"tinyforest": "1.0", "tinytree": "2.0", "tinyleaf": "2.0"}
    assert run_python(ctx, "import tinyforest, tinyleaf; print(tinyleaf.__version__)") == "2.0"


@pytest.mark.parametrize("kind", ["overlay", "isolated"])
def test_the_command_pip(start: Open, index: LocalIndex, kind: str) -> None:
    ctx = start(kind=kind)
    _, env = ctx.require()
    pip = os.path.join(env.bin, "pip")

    def run(*arguments: str) -> str:
        environ = {
            **os.environ,
            "PIP_INDEX_URL": index.url,
            "PIP_USER": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        done = subprocess.run([pip, *arguments], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("install", "tinyscript")
    assert Path(env.site_packages, "tinyscript-1.0.dist-info").is_dir()
    listed = run("list", "--format=freeze").split()
    assert ("basetool==1.0" in listed) == (kind == "overlay")
    assert "tinyscript==1.0" in listed


# -- kernels ----------------------------------------------------------------------------------------------


@pytest.fixture
def ipykernel(index: LocalIndex, tmp_path: Path) -> str:
    """A package of the index with which an isolated env has a kernel: the development environment's."""
    import ipykernel

    site = str(Path(ipykernel.__file__).parent.parent)
    if "ipykernel" not in index.projects:
        files = {
            "ipykernel_launcher.py": "from ipykernel import kernelapp\nkernelapp.launch_new_instance()\n",
            "ipykernel_stack.pth": site + "\n",
        }
        path = make_wheel(tmp_path / "wheels", "ipykernel", "99.0", files=files)
        index.add(path)
    return "ipykernel"


@pytest.fixture
def jupyter_base(base: Base) -> Base:  # noqa: F811
    """The development environment as an image: it has Jupyter."""
    from overlayspawner.payload.probe import probe

    return probe()


def test_a_kernel_appears_and_goes(start: Open, ipykernel: str) -> None:
    ctx = start(kind="isolated")
    assert set(specs(ctx)) == {"python3"}
    assert set(notices(ctx)) == {"no-kernel"}
    install(ctx, ipykernel)
    # another process than the server, such as `overlay install` in a terminal
    kernelspec.refresh(Context.load(ctx.runtime))
    assert set(specs(ctx)) == {"python3", "python3-base"}
    assert notices(ctx) == {}
    apply(ctx, "uninstall", uninstall=[ipykernel])
    kernelspec.refresh(ctx)
    assert set(specs(ctx)) == {"python3"}
    assert set(notices(ctx)) == {"no-kernel"}


def test_refreshing_writes_nothing_that_is_right(start: Open) -> None:
    ctx = start()
    before = snapshot(ctx.runtime)
    inodes = {p: p.stat().st_ino for p in Path(ctx.runtime).rglob("*")}
    kernelspec.refresh(ctx)
    assert snapshot(ctx.runtime) == before
    assert {p: p.stat().st_ino for p in Path(ctx.runtime).rglob("*")} == inodes
    # and where there is nothing left of the runtime dir it does no harm
    ctx.runtime += "-gone"
    kernelspec.refresh(ctx)


@pytest.mark.slow
def test_a_kernel_of_ones_own(start: Open, home: Path, ipykernel: str, jupyter_base: Base) -> None:
    ctx = start(kind="isolated", base=jupyter_base)
    _, env = ctx.require()
    where = "import sys; print(sys.prefix)"
    with Kernel(ctx, home) as kernel:
        kernel.start()
        assert kernel.run(where).strip() == jupyter_base.prefix
        # and yet its commands act on the env
        assert kernel.run("!command -v python").strip() == env.python
        install(ctx, ipykernel)
        kernelspec.refresh(ctx)
        kernel.manager.restart_kernel(now=True)
        kernel.client.wait_for_ready(timeout=60)
        assert kernel.run(where).strip() == env.path
    assert notices(ctx) == {}


@pytest.mark.slow
def test_a_kernel_of_ones_own_that_is_broken(
    start: Open, home: Path, ipykernel: str, jupyter_base: Base
) -> None:
    ctx = start(kind="isolated", base=jupyter_base)
    _, env = ctx.require()
    install(ctx, ipykernel)
    kernelspec.refresh(ctx)
    bad = Path(env.site_packages, "traitlets.py")
    bad.write_text("raise ImportError('too old')\n")
    with Kernel(ctx, home) as kernel:
        kernel.start()
        assert kernel.run("import sys; print(sys.prefix)").strip() == jupyter_base.prefix
    found = notices(ctx)
    assert set(found) == {"kernel-base"}
    assert str(bad) in found["kernel-base"]["message"]
    assert os.listdir(ctx.runtime + "/starting") == []


def test_wrappers_are_for_what_sees_the_image(start: Open, jupyter_base: Base) -> None:
    assert runtime.write_wrappers(start(kind="isolated", base=jupyter_base)) == 0
    assert runtime.write_wrappers(start("two", base=jupyter_base)) > 0


def test_the_context_in_json(start: Open) -> None:
    ctx = start(kind="isolated", lifetime="ephemeral")
    data = json.loads(Path(ctx.runtime, "server.json").read_text())
    assert data["local"] == ctx.require()[0].local
    assert Context.load(ctx.runtime).to_json() == ctx.to_json()
