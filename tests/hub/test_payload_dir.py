"""The payload as a directory: who may write to it, and how long it stays."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.hub import boot, payload_dir, payload_zip
from overlayspawner.payload.contract import SPEC_ENV, OverlayError, Spec

PRINT = "import os; print(os.environ['OVERLAYSPAWNER_RUNTIME'])"

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")


def deliver(parent: Path) -> str:
    return payload_dir.deliver(str(parent))[0]


def versions(parent: Path) -> list[str]:
    return sorted(name for name in os.listdir(parent) if name != ".in-use")


def test_the_payload_is_put_there_once(tmp_path: Path) -> None:
    parent = tmp_path / "a" / "b"
    directory = Path(deliver(parent))
    payload = payload_zip.build()
    assert directory.name == payload.short_id
    assert (directory / "overlay.pyz").read_bytes() == payload.zip
    for path in (parent, directory, directory / "launcher.sh"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o022 == 0 and mode & 0o044 == 0o044, (path, oct(mode))
    before = (directory / "overlay.pyz").stat()
    assert deliver(parent) == str(directory)
    assert (directory / "overlay.pyz").stat().st_ino == before.st_ino
    assert versions(parent) == [directory.name]


@pytest.mark.parametrize("damage", ["COMPLETE", "launcher.sh COMPLETE"])
def test_a_half_delivered_payload_is_completed(tmp_path: Path, damage: str) -> None:
    directory = Path(deliver(tmp_path))
    for name in damage.split():
        (directory / name).unlink()
    assert deliver(tmp_path) == str(directory)
    assert sorted(os.listdir(directory)) == ["COMPLETE", "launcher.sh", "overlay.pyz", "start.bin"]
    assert versions(tmp_path) == [directory.name]


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(OverlayError, match="Others than the hub's user may write"):
        deliver(tmp_path)
    tmp_path.chmod(0o755)
    directory = Path(deliver(tmp_path))
    directory.chmod(0o775)
    with pytest.raises(OverlayError, match="Others than the hub's user may write"):
        deliver(tmp_path)


def test_a_directory_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OverlayError, match="can't be used") as caught:
        deliver(tmp_path / "file" / "x")
    assert "overlay_payload_dir" in caught.value.hint


def test_what_leads_to_it_is_looked_at_too(tmp_path: Path) -> None:
    parent = tmp_path / "open" / "inner" / "payload"
    deliver(parent)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(OverlayError, match=r"open can be written to by others"):
        deliver(parent)
    # as in /tmp: nobody can take away what is ours
    (tmp_path / "open").chmod(0o1777)
    deliver(parent)
    # but it must not be the directory itself, where others could add what is missing
    parent.chmod(0o1777)
    with pytest.raises(OverlayError, match=r"payload can be written to by others"):
        deliver(parent)


@root_only
def test_what_belongs_to_another_user_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    os.chown(theirs, 12345, 12345)
    for parent in (theirs, theirs / "payload"):
        with pytest.raises(OverlayError, match="theirs belongs to another user"):
            deliver(parent)
    assert os.listdir(theirs) == []


@root_only
def test_a_link_is_followed_only_where_nobody_else_made_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    link = tmp_path / "link"
    link.symlink_to("real/../real/deep")
    (tmp_path / "real").mkdir(mode=0o755)
    assert Path(deliver(link / "payload")).parent == tmp_path / "real" / "deep" / "payload"
    os.lchown(link, 12345, 12345)
    with pytest.raises(
        OverlayError, match=r"link, on the way to .* is a symbolic link that another user made"
    ):
        deliver(link / "payload")
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(OverlayError, match="too many links"):
        deliver(loop)


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that all users of the machine can reach; pytest's own are closed to others."""
    directory = Path(tempfile.mkdtemp(prefix="overlay-public-", dir="/var/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def test_a_place_that_servers_can_not_read_is_said(public: Path) -> None:
    (public / "closed").mkdir(mode=0o750)
    group = (public / "closed").stat().st_gid
    parent = str(public / "closed" / "payload")
    with pytest.raises(OverlayError, match="closed is closed to them"):
        payload_dir.safe_directory(parent, payload_dir.Reader(12345, [12345]))
    assert payload_dir.safe_directory(parent, payload_dir.Reader(12345, [group])) == parent


def test_any_umask_leaves_it_readable(tmp_path: Path) -> None:
    code = (
        "import os, sys; from overlayspawner.hub import payload_dir as p; os.umask(0o077); "
        "print(p.deliver(sys.argv[1])[0])"
    )
    parent = tmp_path / "a" / "b"
    done = subprocess.run([sys.executable, "-c", code, str(parent)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    directory = Path(done.stdout.strip())
    for path in (parent.parent, parent, directory):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755, path
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o644 for f in directory.iterdir())
    assert stat.S_IMODE((parent / ".in-use").stat().st_mode) == 0o700


def old_version(parent: Path, name: str = "0123456789ab") -> Path:
    old = parent / name
    old.mkdir()
    (old / "overlay.pyz").write_text("old")
    return old


def test_a_version_stays_as_long_as_a_process_has_its_lease(tmp_path: Path) -> None:
    directory, lease = payload_dir.deliver(str(tmp_path), keep=False)
    # another version, as the same hub would have left it: what it had is now old
    old = old_version(tmp_path)
    leases = tmp_path / ".in-use"
    (held,) = leases.glob("*.[0-9a-f]*")
    held.rename(leases / f"{old.name}.{held.suffix[1:]}")
    server = subprocess.Popen(["/bin/sh", "-c", "read line"], stdin=subprocess.PIPE, pass_fds=[lease])
    with pytest.raises(OSError, match="Bad file descriptor"):  # nothing that its user could write to
        os.write(lease, b"x")
    os.close(lease)
    try:
        assert payload_dir.remove_old(str(tmp_path)) == []
        assert old.is_dir()
    finally:
        server.kill()
        server.wait()
    assert payload_dir.remove_old(str(tmp_path)) == [old.name]
    assert versions(tmp_path) == [Path(directory).name]
    assert os.listdir(leases) == [".lock"]


def test_what_was_put_there_by_hand_stays(tmp_path: Path) -> None:
    directory = Path(deliver(tmp_path))
    old = old_version(tmp_path)
    (tmp_path / ".in-use" / f"{old.name}.keep").touch()
    (tmp_path / "mine").mkdir()
    assert payload_dir.remove_old(str(tmp_path)) == []
    assert versions(tmp_path) == sorted([old.name, directory.name, "mine"])


def test_the_command_prints_a_script_that_runs_with_it(
    public: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert payload_dir.main([str(public), "/bin/echo", "it's", "me"]) == 0
    text = capsys.readouterr().out
    done = subprocess.run(["/bin/sh", "-c", text, "x", "arg"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("it's me arg\n", "")
    assert str(public / payload_zip.build().short_id) in text
    public.chmod(0o777)
    assert payload_dir.main([str(public)]) == 1
    assert "can be written to by others" in capsys.readouterr().err


@root_only
def test_it_runs_from_a_place_where_no_program_may(public: Path) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "noexec,nosuid,mode=0755", "overlay-test", public], check=True
    )
    try:
        directory = deliver(public)
        # as the system allows it: the launcher is read by sh, the zip by Python
        words = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", "env", "-i"]
        spec = Spec(path="/nonexistent/overlay").to_json()
        done = subprocess.run(
            [
                *words,
                f"{SPEC_ENV}={spec}",
                "PATH=/usr/bin:/bin",
                *boot.wrap(["python3", "-c", PRINT], directory),
            ],
            capture_output=True,
            text=True,
            cwd="/",
        )
        runtime = done.stdout.strip()
        assert runtime.startswith("/tmp/overlayspawner-"), done.stderr
        shutil.rmtree(runtime)
        assert "payload" not in done.stderr
    finally:
        subprocess.run(["umount", "--lazy", public], check=True)


def test_it_can_be_read_from_its_first_moment(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chmod = os.chmod

    def slow(path: str, mode: int, **options: Any) -> None:
        time.sleep(0.2)  # here another server that starts looks
        chmod(path, mode, **options)

    monkeypatch.setattr(os, "chmod", slow)
    reader = payload_dir.Reader(-1, ())
    parent = public / "a" / "b"
    with ThreadPoolExecutor(8) as pool:
        made = {place for place, _ in pool.map(lambda _: payload_dir.deliver(str(parent), reader), range(8))}
    assert made == {deliver(parent)}
    assert [path.name for path in public.rglob(".new-*")] == []


def test_several_hubs_share_it(tmp_path: Path) -> None:
    code = (
        "import os, sys; from overlayspawner.hub import payload_dir as p\n"
        "for _ in range(20):\n"
        "    directory, lease = p.deliver(sys.argv[1], keep=False)\n"
        "    p.remove_old(sys.argv[1])\n"
        "    assert sorted(os.listdir(directory)) == sorted(sys.argv[2:]), os.listdir(directory)\n"
        "    os.close(lease)\n"
    )
    old_version(tmp_path)
    files = ["COMPLETE", *payload_zip.build().contents()]
    hubs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), *files], stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for hub in hubs:
        _, err = hub.communicate(timeout=100)
        assert hub.returncode == 0, err
    assert versions(tmp_path) == [payload_zip.build().short_id]
