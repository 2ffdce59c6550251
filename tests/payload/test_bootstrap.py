"""The start: what is made where, and that no home stops it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overlayspawner.payload import bootstrap, files, runtime
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import MAX_SPEC_BYTES, OverlayError, Spec
from overlayspawner.payload.probe import probe


def tree(path: Path) -> dict[str, bytes | str]:
    return {
        str(p.relative_to(path)): p.readlink().as_posix()
        if p.is_symlink()
        else (p.read_bytes() if p.is_file() else "")
        for p in sorted(path.rglob("*"))
    }


def test_a_first_start_makes_a_small_venv(open_overlay, home: Path) -> None:
    context = open_overlay()
    assert context.mode == "normal"
    assert context.notices == []
    overlay, env = context.require()
    assert overlay.path == str(home / ".overlay" / "default")
    made = [p for p in home.rglob("*") if not p.is_dir()]
    assert len(made) <= 30
    assert sum(p.lstat().st_size for p in made) <= 50_000
    out = subprocess.run(
        [env.python, "-c", "import sys, ipykernel; print(sys.prefix); print(ipykernel.__file__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert out[0] == env.path
    assert out[1].startswith(sys.prefix + os.sep)


def test_a_second_start_changes_nothing_in_the_home(open_overlay, home: Path) -> None:
    first = open_overlay()
    before = tree(home)
    second = open_overlay()
    assert tree(home) == before
    assert second.env.path == first.env.path
    assert second.runtime != first.runtime


def test_what_a_start_found_is_kept_privately(open_overlay) -> None:
    context = open_overlay(requirements=["six"])
    path = Path(context.runtime) / "server.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert Path(context.runtime).stat().st_mode & 0o777 == 0o700
    again = Context.load(context.runtime)
    assert again.to_json() == context.to_json()
    assert again.spec.requirements == ["six"]


@pytest.mark.parametrize(
    ("mounts", "where"),
    [
        (None, "home"),
        ([], "home"),
        ([{"path": "{home}", "ro": False}], "home"),
        ([{"path": "{above}", "ro": False}], "home"),
        ([{"path": "{home}/work", "ro": False}], "home/work"),
        ([{"path": "{home}/work/", "ro": False}, {"path": "{home}/data", "ro": True}], "home/work"),
        ([{"path": "{home}/a", "ro": False}, {"path": "{home}/b", "ro": False}], "home"),
        ([{"path": "{home}/data", "ro": True}], "home"),
        ([{"path": "{home}-other", "ro": False}], "home"),
        ([{"path": "/srv", "ro": False}], "home"),
    ],
)
def test_where_it_lives(home: Path, mounts: list | None, where: str) -> None:
    if mounts is not None:
        mounts = [{**m, "path": m["path"].format(home=home, above=home.parent)} for m in mounts]
    found = bootstrap.overlay_path(Spec(mounts=mounts), str(home))
    assert found == str(home.parent / where / ".overlay" / "default")


def test_an_absolute_path_and_a_tilde() -> None:
    assert bootstrap.overlay_path(Spec(path="/data/{name}", name="x"), "/h") == "/data/x"
    assert bootstrap.overlay_path(Spec(path="~/o/{name}"), "/h") == "/h/o/default"


@pytest.mark.parametrize(
    ("mounts", "lost"), [([], True), ([{"path": "/data", "ro": False}], True), (None, False)]
)
def test_it_says_when_packages_vanish_with_the_container(
    open_overlay, mounts: list | None, lost: bool
) -> None:
    context = open_overlay(mounts=mounts)
    assert context.mode == "normal"
    assert (["not-persistent"] if lost else []) == [n["code"] for n in context.notices]


def as_nobody(call) -> None:
    """Run a check in a child that has no rights of root."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            call()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_an_unwritable_home() -> None:
    def check() -> None:
        found = bootstrap.open_storage(Spec(), probe(), "/usr")
        assert found.mode == "degraded"
        assert found.bad_home
        assert [n["code"] for n in found.notices] == ["home-unwritable"]
        assert "/usr" in found.notices[0]["message"]

    as_nobody(check)


@pytest.mark.parametrize("step", range(1, 40))
@pytest.mark.parametrize("how", ["ENOSPC", "EIO", "EROFS"])
def test_a_storage_that_fails_at_any_step(
    home: Path, monkeypatch: pytest.MonkeyPatch, step: int, how: str
) -> None:
    monkeypatch.setattr(files, "_fault", f"{step}:{how}")
    monkeypatch.setattr(files, "_counting", True)
    monkeypatch.setattr(files, "_steps", 0)
    found = bootstrap.open_storage(Spec(), probe(), str(home))
    failed = files._steps >= step
    monkeypatch.setattr(files, "_fault", "")
    assert failed == bool(found.notices)
    if found.mode == "degraded":
        assert found.notices[0]["code"] == ("home-full" if how == "ENOSPC" else "home-unwritable")
    again = bootstrap.open_storage(Spec(), probe(), str(home))
    assert (again.mode, again.notices) == ("normal", [])
    assert not [p for p in home.rglob("*") if p.name.endswith(".tmp") or p.name.startswith(".new-")]


@pytest.mark.parametrize("what", ["file", "dangling link", "loop", "env is a file", "env is empty"])
def test_things_in_the_way(home: Path, what: str) -> None:
    overlay = home / ".overlay"
    if what == "file":
        overlay.write_text("mine")
    elif what == "dangling link":
        overlay.symlink_to(home / "nowhere" / "else")
    elif what == "loop":
        overlay.symlink_to(overlay)
    else:
        env = overlay / "default" / "envs" / probe().key
        env.parent.mkdir(parents=True)
        env.write_text("mine") if what == "env is a file" else env.mkdir()
    before = tree(home)
    found = bootstrap.open_storage(Spec(), probe(), str(home))
    assert found.mode == "degraded"
    assert len(found.notices) == 1
    assert tree(home) == before, "nothing of the user's is touched at a start"


def test_an_overlay_folder_on_another_disk(home: Path, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (home / ".overlay").symlink_to(tmp_path / "big")
    assert bootstrap.open_storage(Spec(), probe(), str(home)).mode == "normal"
    assert (tmp_path / "big" / "default" / "requirements.txt").exists()


def test_two_servers_that_start_at_once(home: Path) -> None:
    children = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            found = bootstrap.open_storage(Spec(), probe(), str(home))
            os._exit(0 if found.mode == "normal" else 1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 8
    envs = home / ".overlay" / "default" / "envs"
    assert [p.name for p in envs.iterdir()] == [probe().key]


def test_safe_mode_leaves_the_storage_alone(open_overlay, home: Path) -> None:
    context = open_overlay(safe=True)
    assert (context.mode, context.env) == ("safe", None)
    assert not (home / ".overlay").exists()
    with pytest.raises(OverlayError) as e:
        context.require()
    assert e.value.code == "no-overlay"


def test_the_runtime_dir_is_never_in_the_home(home: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(home / "run"), "TMPDIR": str(home)}
    (home / "run").mkdir()
    made = runtime.make_dir(environ, str(home))
    assert not made.startswith(str(home))
    runtime.remove(made)
    assert not os.path.exists(made)


def test_the_server_s_environment(open_overlay) -> None:
    context = open_overlay({"JUPYTER_PATH": "/image/share", "JUPYTER_RUNTIME_DIR": "/image/run"})
    variables = runtime.server_environment(
        context, {"JUPYTER_PATH": "/image/share", "JUPYTER_RUNTIME_DIR": "/r"}
    )
    assert variables["JUPYTER_PATH"] == context.runtime + "/share/jupyter:/image/share"
    assert "JUPYTER_RUNTIME_DIR" not in variables
    assert variables["PYTHONNOUSERSITE"] == "1"
    assert not {"PATH", "PYTHONPATH", "VIRTUAL_ENV"} & set(variables)
    assert context.restore_env == {
        "JUPYTER_CONFIG_PATH": None,
        "JUPYTER_PATH": "/image/share",
        "PYTHONNOUSERSITE": None,
    }


def start(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    lines = bootstrap.start(environ)
    done = subprocess.run(
        ["sh", "-c", "\n".join(lines) + "\nenv -0"], env=environ, capture_output=True, check=True
    )
    return dict(item.split("=", 1) for item in done.stdout.decode().split("\0") if item)


def test_start_sets_and_unsets(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "it's $HOME"
    run.mkdir()
    environ = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "XDG_RUNTIME_DIR": str(run),
        "OVERLAYSPAWNER_SPEC": Spec().to_json(),
    }
    after = start(environ, monkeypatch)
    assert "OVERLAYSPAWNER_SPEC" not in after
    assert after["OVERLAYSPAWNER_RUNTIME"].startswith(str(run))
    assert Context.load(after["OVERLAYSPAWNER_RUNTIME"]).mode == "normal"


def test_a_spec_in_a_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spec").write_text(Spec(name="other", path="o/{name}").to_json())
    environ = {"HOME": str(home), "PATH": "/usr/bin:/bin", "OVERLAYSPAWNER_SPEC_FILE": str(tmp_path / "spec")}
    after = start(environ, monkeypatch)
    context = Context.load(after["OVERLAYSPAWNER_RUNTIME"])
    assert context.overlay.path == str(home / "o" / "other")
    runtime.remove(context.runtime)


def test_a_storage_that_does_not_answer(home: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    os.mkfifo(home / "stuck")

    def hang(*args: object) -> None:
        with open(home / "stuck"):
            time.sleep(600)

    monkeypatch.setattr(bootstrap, "open_storage", hang)
    environ = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "OVERLAYSPAWNER_SPEC": Spec(deadline=0.2).to_json(),
    }
    after = start(environ, monkeypatch)
    context = Context.load(after["OVERLAYSPAWNER_RUNTIME"])
    assert (context.mode, [n["code"] for n in context.notices]) == ("degraded", ["deadline"])
    assert "[deadline]" in capfd.readouterr().err
    runtime.remove(context.runtime)


def test_why_a_storage_could_not_be_opened_is_in_the_log(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(bootstrap, "open_storage", fail)
    environ = {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "OVERLAYSPAWNER_SPEC": Spec().to_json(),
    }
    after = start(environ, monkeypatch)
    context = Context.load(after["OVERLAYSPAWNER_RUNTIME"])
    assert (context.mode, [n["code"] for n in context.notices]) == ("degraded", ["bootstrap-failed"])
    assert "RuntimeError: nobody thought of this" in capfd.readouterr().err


def test_a_place_without_space_is_passed_over(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(full)], check=False)
    if made.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        (full / "filler").write_bytes(b"x" * 4096)
        found = runtime.make_dir({"XDG_RUNTIME_DIR": str(full), "TMPDIR": str(tmp_path)}, "/nowhere")
        assert os.path.dirname(found) == str(tmp_path)
        assert os.listdir(full) == ["filler"]
    finally:
        subprocess.run(["umount", str(full)], check=True)


def test_whoever_started_us_may_ignore_that_children_end(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "OVERLAYSPAWNER_SPEC": Spec().to_json(),
    }
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        after = start(environ, monkeypatch)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert Context.load(after["OVERLAYSPAWNER_RUNTIME"]).mode == "normal"


def test_root_touches_nothing_in_the_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    environ = {"HOME": str(home), "OVERLAYSPAWNER_SPEC": Spec().to_json()}
    lines = bootstrap.start(environ)
    assert list(home.iterdir()) == []
    exported = dict(shlex.split(line)[1].split("=", 1) for line in lines)
    restore = json.loads(exported["OVERLAYSPAWNER_RESTORE"])
    assert restore["JUPYTER_CONFIG_PATH"] is None
    config = exported["JUPYTER_CONFIG_PATH"]
    assert os.stat(config).st_mode & 0o055 == 0o055, "the final user can read it"
    assert "OVERLAYSPAWNER_RUNTIME" not in exported
    runtime.remove(os.path.dirname(config))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "{}",
        '{"v": "1"}',
        '{"v": 1, "requirements": "six"}',
        '{"v": 1, "kind": "odd"}',
        "{" * 10_000,
    ],
)
def test_a_bad_spec(text: str) -> None:
    with pytest.raises((OverlayError, RecursionError)) as e:
        Spec.from_json(text)
    if isinstance(e.value, OverlayError):
        assert e.value.code == "bad-spec"


def test_a_spec_round_trips_and_ignores_what_it_does_not_know() -> None:
    spec = Spec(requirements=["a"], mounts=[{"path": "/h", "ro": True}], deadline=3.5)
    data = json.loads(spec.to_json())
    assert Spec.from_dict({**data, "new-in-version-2": 1}).to_dict() == spec.to_dict()


def test_a_spec_that_no_variable_can_hold() -> None:
    with pytest.raises(OverlayError) as e:
        Spec(constraints=["x" * MAX_SPEC_BYTES]).to_json()
    assert e.value.code == "bad-spec"


def test_only_runtime_dirs_without_a_server_are_swept(tmp_path: Path) -> None:
    """Whatever process ids say: two containers may share a folder for temporary files."""
    keep, gone, alive, foreign = (
        tmp_path / (runtime.PREFIX + n) for n in ("keep", "gone", "alive", "foreign")
    )
    for path in (keep, gone, alive, foreign):
        path.mkdir()
    os.close(runtime.hold(str(gone)))
    held = runtime.hold(str(alive))
    code = f"from overlayspawner.payload import runtime; print(runtime.sweep({str(keep)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in (keep, alive, foreign))
    os.close(held)
    assert runtime.sweep(str(keep)) == 1
    assert not alive.exists()


def test_a_runtime_dir_is_never_taken_for_one_without_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server that starts at the same time sweeps at the worst moments."""
    import fcntl

    keep, mine = (tmp_path / (runtime.PREFIX + name) for name in ("keep", "mine"))
    for path in (keep, mine):
        path.mkdir()
    swept = []
    lock, rename = fcntl.flock, os.rename
    code = f"from overlayspawner.payload import runtime; print(runtime.sweep({str(keep)!r}))"

    def sweep() -> None:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        swept.append(done.stdout.strip())

    def between(act):
        def do(*args):
            sweep()
            out = act(*args)
            sweep()
            return out

        return do

    monkeypatch.setattr(fcntl, "flock", between(lock))
    monkeypatch.setattr(os, "rename", between(rename))
    held = runtime.hold(str(mine))
    assert held is not None
    monkeypatch.undo()
    sweep()
    assert len(swept) >= 3 and set(swept) == {"0"}
    assert mine.is_dir()
    os.close(held)
    sweep()
    assert swept[-1] == "1"


def test_after_a_start_as_root_kernels_see_the_user_site(open_overlay) -> None:
    """What the root start changed for the server is not the image's."""
    changed = {"PYTHONNOUSERSITE": "1", "JUPYTER_CONFIG_PATH": "/ours:/image"}
    restore = json.dumps({"PYTHONNOUSERSITE": None, "JUPYTER_CONFIG_PATH": "/image"})
    context = open_overlay({**changed, "OVERLAYSPAWNER_RESTORE": restore})
    script = (Path(context.runtime) / "kernel.sh").read_text()
    assert "unset PYTHONNOUSERSITE" in script
    assert "export PYTHONNOUSERSITE" not in script
    assert context.restore_env["PYTHONNOUSERSITE"] is None
    assert context.restore_env["JUPYTER_CONFIG_PATH"] == "/image"


def test_wrappers_for_the_image_s_own_commands(open_overlay) -> None:
    context = open_overlay()
    count = runtime.write_wrappers(context)
    names = os.listdir(context.runtime + "/wrappers")
    assert len(names) == count
    assert "pytest" in names
    assert not [n for n in names if n.startswith(("pip", "python", "jupyter"))]
    out = subprocess.run(
        [context.runtime + "/wrappers/pytest", "--version"], capture_output=True, text=True, check=True
    )
    assert "pytest" in out.stdout


@pytest.mark.parametrize("link", [".overlay", ".overlay/default"])
@pytest.mark.parametrize(("uid", "mode"), [(0, "degraded"), (1000, "normal")])
def test_root_follows_no_link_out_of_the_home(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str, uid: int, mode: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (home / link).parent.mkdir(exist_ok=True)
    (home / link).symlink_to(elsewhere)
    if os.getuid() == 0:
        os.chown(home, 1000, 1000)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    found = bootstrap.open_storage(Spec(), probe(), str(home))
    assert found.mode == mode
    assert bool(os.listdir(elsewhere)) == (uid != 0)
    assert [n["code"] for n in found.notices] == ([] if uid else ["damaged-file"])


def test_root_follows_links_within_the_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "big-disk").mkdir()
    (home / ".overlay").symlink_to("big-disk")
    if os.getuid() == 0:
        os.chown(home, 1000, 1000)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert bootstrap.open_storage(Spec(), probe(), str(home)).mode == "normal"
    assert (home / "big-disk/default/overlay.json").is_file()
