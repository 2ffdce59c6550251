"""The doctor: each fault is made, explained, mended, and gone."""

from __future__ import annotations

import copy
import errno
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overlayspawner.payload import adopt, doctor, revisions, space
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError, Spec
from overlayspawner.payload.dists import overlay_dists, user_site
from overlayspawner.payload.doctor import surroundings
from overlayspawner.payload.follow import Follower
from overlayspawner.payload.lease import acquire
from overlayspawner.payload.overlay import Overlay
from overlayspawner.payload.probe import Base
from overlayspawner.payload.reset import reset
from overlayspawner.payload.restore import restore
from overlayspawner.payload.undo import undo
from tests.support.doctor import assert_clean, complaints, leftovers
from tests.support.envs import (
    base,  # noqa: F401  (a fixture)
    env_snapshot,
    make_context,
    put,
    run_child,
    run_python,
    snapshot,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.index import LocalIndex
from tests.support.wheels import make_wheel

IMPORTS = "import tinytree, tinyleaf, tinydata; print(tinytree.__version__, tinyleaf.__version__)"


@pytest.fixture
def ctx(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Context]:
    """An overlay with tinytree, tinyleaf and tinydata, in a home of its own."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for name in ("PYTHONPATH", "PYTHONUSERBASE", "PIP_CONFIG_FILE", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"):
        monkeypatch.delenv(name, raising=False)
    made = make_context(home, base, index_url=index.url)
    # not the newest: a repair must not bring another version
    apply(made, "install", install=["tinytree<2", "tinydata"])
    yield made


class Parts:
    """Where things are, for the damages below."""

    def __init__(self, ctx: Context) -> None:
        overlay, env = ctx.require()
        self.overlay = Path(overlay.path)
        self.env = Path(env.path)
        self.state = Path(env.state)
        self.site = Path(env.site_packages)
        self.bin = Path(env.bin)
        self.info = self.site / "tinytree-1.0.dist-info"

    def pyc(self, raw: Callable[[bytes], bytes]) -> None:
        cache = self.site / "__pycache__"
        cache.mkdir(exist_ok=True)
        import importlib.util
        import py_compile

        made = py_compile.compile(str(self.site / "tinytree.py"), doraise=True)
        assert made == importlib.util.cache_from_source(str(self.site / "tinytree.py"))
        path = Path(made)
        path.write_bytes(raw(path.read_bytes()))

    def replace(self, path: Path) -> None:
        """Put a file where a directory is."""
        shutil.rmtree(path)
        path.write_text("not a directory\n")

    def folder(self, path: Path) -> None:
        """Put a directory where a file is."""
        path.unlink(missing_ok=True)
        path.mkdir()
        (path / "inside").touch()

    def loop(self, path: Path) -> None:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.symlink_to(path.name)

    def old(self, path: Path) -> None:
        path.touch()
        os.utime(path, (1, 1))


GARBAGE = b"\x00\xff\x7f{" * 20

FAULTS: dict[str, tuple[Callable[[Parts], object], str]] = {
    # the env as a venv
    "env missing": (lambda p: shutil.rmtree(p.env), "env"),
    "env a file": (lambda p: p.replace(p.env), "env"),
    "env a loop": (lambda p: p.loop(p.env), "env"),
    "no site-packages": (lambda p: shutil.rmtree(p.site), "env"),
    "no pyvenv.cfg": (lambda p: (p.env / "pyvenv.cfg").unlink(), "env"),
    "pyvenv.cfg zeros": (lambda p: (p.env / "pyvenv.cfg").write_bytes(bytes(100)), "env"),
    "pyvenv.cfg of another": (lambda p: (p.env / "pyvenv.cfg").write_text("home = /nowhere\n"), "env"),
    "no interpreter": (lambda p: (p.bin / "python").unlink(), "env"),
    "interpreter dangling": (
        lambda p: ((p.bin / "python").unlink(), (p.bin / "python").symlink_to("/gone/python")),
        "env",
    ),
    "interpreter a directory": (lambda p: p.folder(p.bin / "python"), "env"),
    "no bin": (lambda p: shutil.rmtree(p.bin), "env"),
    "pip empty": (lambda p: (p.bin / "pip").write_text(""), "env"),
    "pip.conf gone": (lambda p: (p.env / "pip.conf").unlink(), "env"),
    "way to the base gone": (lambda p: (p.site / "zzz-overlayspawner-base.pth").unlink(), "env"),
    "state a file": (lambda p: p.replace(p.state), "env"),
    # interrupted work
    "stage left": (lambda p: (p.state / "stage-x" / "prefix").mkdir(parents=True), "unfinished"),
    "temporary file": (lambda p: (p.state / "x.tmp").touch(), "unfinished"),
    "old half-made env": (lambda p: p.old(p.env.parent / ".new-x"), "unfinished"),
    "old temporary file": (lambda p: p.old(p.overlay / "requirements.txt.1.tmp"), "unfinished"),
    # our own files
    "overlay.json garbage": (lambda p: (p.overlay / "overlay.json").write_bytes(GARBAGE), "records"),
    "overlay.json a directory": (lambda p: p.folder(p.overlay / "overlay.json"), "records"),
    "revisions a file": (lambda p: p.replace(p.overlay / "revisions"), "records"),
    "revision garbage": (lambda p: (p.overlay / "revisions" / "000009.json").write_bytes(GARBAGE), "records"),
    "revision cut": (
        lambda p: (p.overlay / "revisions" / "000001.json").write_text('{"schema": 1,'),
        "records",
    ),
    "last copy garbage": (
        lambda p: (p.overlay / "revisions" / "requirements.last").write_bytes(GARBAGE),
        "records",
    ),
    "snapshot garbage": (lambda p: (p.state / "snapshot.json").write_bytes(GARBAGE), "records"),
    "snapshot a loop": (lambda p: p.loop(p.state / "snapshot.json"), "records"),
    "restore.json garbage": (lambda p: (p.state / "restore.json").write_bytes(GARBAGE), "records"),
    "base.json garbage": (lambda p: (p.state / "base.json").write_bytes(GARBAGE), "records"),
    "lease garbage": (lambda p: (p.state / "lease.json").write_bytes(GARBAGE), "records"),
    "lock a directory": (lambda p: p.folder(p.state / "lock"), "records"),
    "overlay lock a directory": (lambda p: p.folder(p.overlay / ".lock"), "records"),
    "set-aside a file": (lambda p: p.replace(p.state / "set-aside"), "records"),
    # packages
    "INSTALLER gone": (lambda p: (p.info / "INSTALLER").unlink(), "incomplete"),
    "RECORD gone": (lambda p: (p.info / "RECORD").unlink(), "incomplete"),
    "RECORD zeros": (lambda p: (p.info / "RECORD").write_bytes(bytes(200)), "incomplete"),
    "METADATA empty": (lambda p: (p.info / "METADATA").write_text(""), "incomplete"),
    "pip's leftover": (lambda p: (p.site / "~inytree").mkdir(), "incomplete"),
    "module gone": (lambda p: (p.site / "tinytree.py").unlink(), "files"),
    "module empty": (lambda p: (p.site / "tinytree.py").write_text(""), "files"),
    "module zeros": (lambda p: zeros(p.site / "tinytree.py"), "files"),
    "data gone": (lambda p: (p.env / "share" / "tinydata" / "data.txt").unlink(), "files"),
    "bytecode short": (lambda p: p.pyc(lambda raw: raw[:9]), "bytecode"),
    "bytecode cut": (lambda p: p.pyc(lambda raw: raw[:-20]), "bytecode"),
    "bytecode with a wrong byte": (lambda p: p.pyc(lambda raw: raw[:20] + b"\xff" + raw[21:]), "bytecode"),
    "bytecode zeros": (lambda p: p.pyc(lambda raw: bytes(len(raw))), "bytecode"),
    "link to nowhere": (lambda p: (p.site / "data").symlink_to("/gone/data"), "links"),
    "pylock cut": (lambda p: (p.env / "pylock.toml").write_text("[[packages"), "lock"),
    # what was asked for
    "requirements garbage": (lambda p: (p.overlay / "requirements.txt").write_bytes(GARBAGE), "requirements"),
    "requirements gone": (lambda p: (p.overlay / "requirements.txt").unlink(), "requirements"),
    "requirements a loop": (lambda p: p.loop(p.overlay / "requirements.txt"), "requirements"),
    "requirements a directory": (lambda p: p.folder(p.overlay / "requirements.txt"), "requirements"),
    # around
    "open to all": (lambda p: p.site.chmod(0o777), "permissions"),
}


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_seen_and_mended(ctx: Context, fault: str) -> None:
    make, name = FAULTS[fault]
    assert_clean(ctx)
    parts = Parts(ctx)
    make(parts)
    seen = complaints(ctx)
    assert seen.get(name), seen
    before = snapshot(ctx.home)
    assert complaints(ctx).keys() == seen.keys()
    assert snapshot(ctx.home) == before, "looking changed something"
    done = doctor.fix(ctx)
    assert done and not [line for line in done if line.startswith(doctor.NOT)], done
    assert_clean(ctx)
    assert run_python(ctx, IMPORTS) == "1.0 1.1"
    assert Path(ctx.require()[0].requirements).read_text() == "tinytree<2\ntinydata\n"
    assert doctor.fix(ctx) == []


@pytest.mark.parametrize(("kind", "lifetime"), [("isolated", "persistent"), ("overlay", "ephemeral")])
@pytest.mark.parametrize("fault", ["no interpreter", "no site-packages", "pip empty"])
def test_other_kinds_and_lifetimes(
    ctx: Context,
    tmp_path: Path,
    base: Base,  # noqa: F811
    fault: str,
    kind: str,
    lifetime: str,
) -> None:
    overlay = Overlay(
        str(tmp_path / "other"),
        kind=kind,
        lifetime=lifetime,
        local=str(tmp_path / "local") if lifetime == "ephemeral" else "",
    )
    (tmp_path / "local").mkdir()
    other = copy.copy(ctx)
    other.spec = Spec(kind=kind, lifetime=lifetime, index_url=ctx.spec.index_url)
    other.overlay, other.env = overlay, overlay.create(base)
    apply(other, "install", install=["tinytree<2"])
    assert_clean(other)
    make, name = FAULTS[fault]
    make(Parts(other))
    assert name in complaints(other)
    doctor.fix(other)
    assert_clean(other)
    assert run_python(other, "import tinytree; print(tinytree.__version__)") == "1.0"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["module empty", "RECORD gone", "env missing"])
def test_with_pip(ctx: Context, fault: str) -> None:
    ctx.spec.installer = "pip"
    make, name = FAULTS[fault]
    make(Parts(ctx))
    assert name in complaints(ctx)
    doctor.fix(ctx)
    assert_clean(ctx)
    assert run_python(ctx, IMPORTS) == "1.0 1.1"


def test_clean_after_ordinary_changes(ctx: Context) -> None:
    overlay, env = ctx.require()
    assert doctor.fix(ctx) == []
    for change in (
        lambda: apply(ctx, "install", install=["tinyscript", "tinyns-one"]),
        lambda: apply(ctx, "uninstall", uninstall=["tinytree"]),
        lambda: apply(ctx, "upgrade", upgrade=["tinydata"]),
        lambda: undo(ctx),
        lambda: undo(ctx),
        lambda: restore(ctx, 1),
        lambda: pip(ctx, "install", "tinyextra"),
        lambda: pip(ctx, "uninstall", "-y", "tinyextra"),
        lambda: undo(ctx),
        lambda: reset(ctx),
        lambda: apply(ctx, "install", install=["tinyscript"]),
        lambda: (shutil.rmtree(env.path), overlay.create(ctx.base), restore(ctx)),
    ):
        change()
        assert_clean(ctx)


def pip(ctx: Context, *arguments: str) -> None:
    """Run the base's pip on the env, as a notebook does that knows nothing of us; then notice it."""
    _, env = ctx.require()
    command = [env.python, "-m", "pip", *arguments]
    if arguments[0] == "install":
        command += ["--index-url", ctx.spec.index_url]
    subprocess.run(command, check=True, capture_output=True)
    assert adopt.needed(ctx)
    adopt.adopt(ctx)


def test_what_was_damaged_is_kept(ctx: Context) -> None:
    parts = Parts(ctx)
    (parts.overlay / "requirements.txt").write_bytes(GARBAGE)
    (parts.state / "snapshot.json").write_bytes(GARBAGE)
    (parts.site / "~ine").mkdir()
    (parts.site / "~ine" / "mine.py").write_text("mine\n")
    doctor.fix(ctx)
    (kept,) = parts.overlay.glob("requirements.txt.damaged-*")
    assert kept.read_bytes() == GARBAGE
    assert list(parts.state.glob("snapshot.json.damaged-*"))
    assert list((parts.state / "kept").rglob("mine.py"))


def test_what_is_left_behind_is_seen(ctx: Context) -> None:
    overlay, env = ctx.require()
    Path(env.state, "stage-x").mkdir()
    Path(overlay.path, "requirements.txt.1.tmp").touch()
    assert len(leftovers(overlay)) == 2
    assert "unfinished" in complaints(ctx)
    doctor.fix(ctx)
    # a file of this very moment may be another server's
    assert leftovers(overlay) == ["requirements.txt.1.tmp"]


def test_several_faults_at_once(ctx: Context) -> None:
    parts = Parts(ctx)
    for name in ("no interpreter", "bytecode cut", "module gone", "overlay.json garbage", "pip's leftover"):
        FAULTS[name][0](parts)
    assert set(complaints(ctx)) >= {"env", "records", "incomplete", "files"}
    doctor.fix(ctx)
    assert_clean(ctx)
    assert run_python(ctx, IMPORTS) == "1.0 1.1"


def test_an_undo_does_not_bring_the_damage_back(ctx: Context) -> None:
    FAULTS["module gone"][0](Parts(ctx))
    doctor.fix(ctx)
    apply(ctx, "install", install=["tinyscript"])
    undo(ctx)
    assert run_python(ctx, IMPORTS) == "1.0 1.1"
    undo(ctx)
    assert overlay_dists(ctx.require()[1]) == {}
    assert_clean(ctx)


KILLED = """
import sys
from overlayspawner.payload.context import Context
from overlayspawner.payload.apply import apply
apply(Context.load(sys.argv[1]), "install", install=["tinyscript"])
"""


KILLED_RESET = """
import sys
from overlayspawner.payload.context import Context
from overlayspawner.payload.reset import reset
reset(Context.load(sys.argv[1]))
"""


@pytest.mark.parametrize("step", [3, 8])
def test_a_change_that_was_killed(ctx: Context, tmp_path: Path, step: int) -> None:
    (tmp_path / "server.json").write_text(ctx.to_json())
    done = run_child(KILLED, str(tmp_path), fault=f"commit@{step}:kill")
    assert done.returncode == -9, done.stderr
    assert "unfinished" in complaints(ctx)
    assert doctor.fix(ctx)
    assert_clean(ctx)


@pytest.mark.parametrize("step", [2, 8, 12])
def test_a_reset_that_was_killed(ctx: Context, tmp_path: Path, step: int) -> None:
    (tmp_path / "server.json").write_text(ctx.to_json())
    done = run_child(KILLED_RESET, str(tmp_path), fault=f"swap@{step}:kill")
    assert done.returncode == -9, done.stderr
    overlay, env = ctx.require()
    for path in Path(overlay.path).glob("*.tmp"):
        os.utime(path, (1, 1))  # of this very moment it might be another server's
    assert "unfinished" in complaints(ctx)
    doctor.fix(ctx)
    assert_clean(ctx)
    there = set(overlay_dists(env))
    assert there in (set(), {"tinytree", "tinydata"})
    assert Path(overlay.requirements).read_text() == ("tinytree<2\ntinydata\n" if there else "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_storage_that_is_small_or_runs_no_programs(
    ctx: Context,
    tmp_path: Path,
    base: Base,  # noqa: F811
) -> None:
    place = tmp_path / "mounted"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "noexec,size=200m", "none", place], check=False
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        there = make_context(place / "home", base, index_url=ctx.spec.index_url)
        assert "noexec" in complaints(there)["storage"]
        subprocess.run(["mount", "-o", "remount,exec,size=2m", place], check=True)
        assert "kB are free" in complaints(there)["storage"]
        subprocess.run(["mount", "-o", "remount,exec,size=200m,nr_inodes=900", place], check=True)
        assert "more files" in complaints(there)["storage"]
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_storage_without_locks(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (check,) = [c for c in doctor.examine(ctx) if c["name"] == "lease"]
    assert check["ok"] and "can't lock files" in check["message"]


def test_a_hand_edit_is_no_damage(ctx: Context) -> None:
    overlay, _ = ctx.require()
    Path(overlay.requirements).write_text("tinytree<2\ntinydata\ntinyscript\n")
    assert "tinyscript" in complaints(ctx)["requirements"]
    assert doctor.fix(ctx) == []
    assert "tinyscript" not in overlay_dists(ctx.require()[1])


def test_without_an_index_the_rest_is_mended(ctx: Context, index: LocalIndex) -> None:
    parts = Parts(ctx)
    FAULTS["module gone"][0](parts)
    FAULTS["no interpreter"][0](parts)
    (parts.state / "stage-x").mkdir()
    for path in (parts.overlay, parts.overlay.parent):
        shutil.rmtree(path / ".cache", ignore_errors=True)
    ctx.spec.index_url = index.prefixed("500")
    done = doctor.fix(ctx)
    (failed,) = [line for line in done if line.startswith(doctor.NOT)]
    assert "index" in failed
    assert set(complaints(ctx)) == {"files"}
    ctx.spec.index_url = index.url
    doctor.fix(ctx)
    assert_clean(ctx)


def test_a_version_that_is_gone_gives_way_to_another(ctx: Context) -> None:
    parts = Parts(ctx)
    parts.info.rename(parts.site / "tinytree-0.7.dist-info")
    shutil.rmtree(parts.overlay.parent / ".cache", ignore_errors=True)
    (parts.site / "tinytree.py").unlink()
    doctor.fix(ctx)
    assert_clean(ctx)
    assert overlay_dists(ctx.require()[1])["tinytree"].version == "1.0"


def test_too_much_is_kept(ctx: Context) -> None:
    _, env = ctx.require()
    for n in range(space.KEEP + 3):
        Path(env.state, "set-aside", f"{n:06d}-x").mkdir(parents=True)
    assert "kept" in complaints(ctx)
    doctor.fix(ctx)
    assert_clean(ctx)


def test_an_overlay_that_is_a_file(ctx: Context) -> None:
    overlay, _ = ctx.require()
    shutil.rmtree(overlay.path)
    Path(overlay.path).write_text("a file of mine\n")
    fresh = Context(
        spec=ctx.spec, base=ctx.base, home=ctx.home, runtime="", payload="", mode="degraded",
        base_lock=ctx.base_lock,
    )  # fmt: skip
    assert "overlay" in complaints(fresh)
    assert doctor.fix(fresh)
    assert_clean(fresh)
    (kept,) = Path(overlay.path).parent.glob("default.damaged-*")
    assert kept.read_text() == "a file of mine\n"


def test_somebody_is_writing(ctx: Context) -> None:
    _, env = ctx.require()
    before = env_snapshot(ctx)
    with acquire(env, who="another server"):
        found = {c["name"]: c for c in doctor.examine(ctx)}
        assert "another server" in found["lease"]["message"] and found["lease"]["ok"]
        with pytest.raises(OverlayError) as e:
            doctor.fix(ctx)
    assert e.value.code == "busy" and env_snapshot(ctx) == before


def test_a_pth_that_stops_python(ctx: Context) -> None:
    _, env = ctx.require()
    Path(env.site_packages, "exits.pth").write_text("import sys; sys.exit('boo')\n")
    (check,) = [c for c in doctor.examine(ctx) if c["name"] == "interpreter"]
    assert not check["ok"] and "boo" in check["message"] and "exits.pth" in check["hint"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_parts_of_another_user(ctx: Context) -> None:
    _, env = ctx.require()
    os.chown(env.site_packages, 12345, 12345)
    os.chown(os.path.join(env.site_packages, "tinytree.py"), 12345, 12345)
    (check,) = [c for c in doctor.examine(ctx) if c["name"] == "owner"]
    assert not check["ok"] and f"chown -R -h 0:0 '{env.site_packages}'" in check["hint"]
    assert "tinytree.py" not in check["hint"]


def test_packages_in_the_user_site(ctx: Context, tmp_path: Path) -> None:
    site = Path(user_site(ctx))
    put(site, make_wheel(tmp_path, "basetool", "9.0"))
    (check,) = [c for c in doctor.examine(ctx) if c["name"] == "user-site"]
    assert check["ok"] and "basetool 9.0 hides 1.0" in check["message"]
    apply(ctx, "install", install=["tinyextra[leaf]"])
    apply(ctx, "uninstall", uninstall=["tinytree"])
    _, env = ctx.require()
    put(Path(env.site_packages), make_wheel(tmp_path, "needy", "1.0", requires=["basetool<2"]))
    assert "basetool" in complaints(ctx)["user-site"]


@pytest.mark.parametrize("where", [".config/pip/pip.conf", ".pip/pip.conf"])
def test_pip_is_told_to_install_elsewhere(ctx: Context, where: str) -> None:
    path = Path(ctx.home) / where
    path.parent.mkdir(parents=True)
    path.write_text("[global]\nuser = true\n")
    assert_clean(ctx)
    path.write_text("[install]\ntarget = /elsewhere\n")
    assert str(path) in complaints(ctx)["pip-settings"]


def test_python_path(ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    assert_clean(ctx)
    put(tmp_path / "lib", make_wheel(tmp_path, "tinydata", "0.1"))
    assert "tinydata 0.1" in complaints(ctx)["python-path"]


def test_clocks(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    _, env = ctx.require()
    ahead = time.time() + 30 * 86_400
    os.utime(os.path.join(env.site_packages, "tinytree.py"), (ahead, ahead))
    (check,) = [c for c in doctor.examine(ctx) if c["name"] == "clock"]
    assert check["ok"] and "30 days ahead" in check["message"]
    monkeypatch.setattr(surroundings.time, "time", lambda: 1_000_000_000.0)
    assert "ahead of" in complaints(ctx)["storage"]


def test_the_running_server_hears_of_a_repair(
    open_overlay: Callable[..., Context], index: LocalIndex, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    _, env = open_overlay(index_url=index.url).require()
    (Path(env.path) / "bin" / "python").unlink()
    broken = open_overlay(index_url=index.url)
    assert broken.mode == "degraded" and broken.env is None
    assert [n["code"] for n in broken.notices] == ["env-broken"]
    server = Context.load(broken.runtime)
    follower = Follower(server)
    assert follower.look() is False
    server.notices.append({"code": "adopted", "message": "", "hint": ""})
    done = doctor.fix(broken)
    assert "server" in done[-1]
    assert follower.look() is True and follower.look() is False
    assert server.mode == "normal" and server.env is not None and server.env.path == env.path
    assert [n["code"] for n in server.notices] == ["adopted"]
    seen = Context.load(broken.runtime)
    assert seen.mode == "normal" and seen.env is not None and seen.env.path == env.path
    assert seen.notices == []
    kernel = Path(broken.runtime) / "kernel.sh"
    assert env.path in kernel.read_text()


def test_a_home_at_another_path(ctx: Context, base: Base) -> None:  # noqa: F811
    apply(ctx, "install", install=["tinyscript"])
    new = Path(ctx.home).with_name("elsewhere")
    Path(ctx.home).rename(new)
    there = make_context(new, base, index_url=ctx.spec.index_url)
    assert "place" in complaints(there)
    assert doctor.fix(there)
    assert_clean(there)
    script = os.path.join(there.require()[1].bin, "tinyscript-hello")
    assert str(new) in subprocess.check_output([script], text=True)
    undo(there)
    assert "tinyscript" not in overlay_dists(there.require()[1])


def test_in_safe_mode_the_overlay_can_be_repaired(
    open_overlay: Callable[..., Context], index: LocalIndex, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    _, env = open_overlay(index_url=index.url).require()
    (Path(env.path) / "bin" / "python").unlink()
    safe = open_overlay(index_url=index.url, safe=True)
    assert safe.mode == "safe" and safe.overlay is None
    assert "env" in complaints(safe)
    assert doctor.fix(safe)
    assert_clean(safe)
    # this server was started without it, and stays so
    assert Context.load(safe.runtime).env is None


def test_revisions_are_counted_on_after_a_damaged_one(ctx: Context) -> None:
    overlay, _ = ctx.require()
    Path(revisions.path(overlay, 1)).write_bytes(GARBAGE)
    doctor.fix(ctx)
    apply(ctx, "install", install=["tinyscript"])
    assert_clean(ctx)
