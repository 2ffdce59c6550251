"""Links in the places of our own files: nothing is written or deleted at their other end.

A user may have made them by accident (a home that was put together from another one), or, where something of
ours runs as root, on purpose.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import bootstrap, change, doctor, lease, space
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError, Spec
from overlayspawner.payload.overlay import Env
from overlayspawner.payload.probe import Base
from overlayspawner.payload.restore import restore
from overlayspawner.payload.storage import open_storage
from overlayspawner.payload.undo import undo
from tests.support.envs import base, snapshot, uv_on_path  # noqa: F401  (fixtures)
from tests.support.index import LocalIndex

STATE_FILES = ("journal", "lease.json", "lock", "snapshot.json", "restore.json", "base.json", "reserve-0")
STATE_FOLDERS = ("set-aside", "kept", "spare", "stage-1")
OVERLAY_FILES = (
    *("overlay.json", "README.md", ".lock", "starts.json", "next-start.json", "swap.json"),
    *("revisions/requirements.last", "revisions/000001.json"),
)
OVERLAY_FOLDERS = ("revisions", "locks", "envs", ".cache")
FILES = [*(f"state/{name}" for name in STATE_FILES), *OVERLAY_FILES]
FOLDERS = [*(f"state/{name}" for name in STATE_FOLDERS), "state", *OVERLAY_FOLDERS]


def place(ctx: Context, name: str) -> Path:
    """Return where our file or folder of a name is."""
    overlay, env = ctx.require()
    if name == "state":
        return Path(env.state)
    if name.startswith("state/"):
        return Path(env.state, name[6:])
    return Path(overlay.path, name)


def make_work(folder: Path, env: Env) -> None:
    """Make a folder of the user's that has in it whatever one of ours could be tempted to clear up."""
    folder.mkdir()
    for name in ("stage-1", ".new-x", ".doctor-x", "set-aside", "empty", "spare", "pip-unpack-x"):
        (folder / name).mkdir()
    for number in range(1, space.KEEP + 5):
        thesis = folder / f"{number:06}-chapter"
        thesis.mkdir()
        (thesis / "text.md").write_text("mine")
    for name in (
        *("a.tmp", "requirements.txt.0123abcd.tmp", "x.json.1.89abcdef.tmp", "swap.json.1.tmp", "stage-2"),
        *("journal", "journal.json", "lease.json", "lock", "snapshot.json", "restore.json", "base.json"),
        *("requirements.last", "requirements.txt", "pylock.toml", "000001.json", "reserve-0"),
        f"{os.path.basename(env.path)}.toml",
    ):
        (folder / name).write_text("mine\n")


@pytest.fixture
def start(
    home: Path,
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], Context]:
    """Open the overlay, as each start of a server does."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    run = tmp_path / "run"
    run.mkdir()

    def do() -> Context:
        environ = {"HOME": str(home), "XDG_RUNTIME_DIR": str(run), "PATH": os.environ["PATH"]}
        return bootstrap.open_context(Spec(index_url=index.url, installer="uv"), environ=environ, base=base)

    return do


def operations(start: Callable[[], Context]) -> list[tuple[str, Callable[[], Any]]]:
    """Return what is done to an overlay, each as far as it gets."""

    def repair() -> None:
        overlay, env = start().require()
        with lease.acquire(env) as held:
            change.repair(overlay, env, held)
            space.prune(overlay, env)

    return [
        ("start", start),
        ("look", lambda: doctor.examine(start())),
        ("repair", repair),
        ("install", lambda: apply(start(), "install", install=["tinytree==2.0", "tinydata"])),
        ("undo", lambda: undo(start())),
        ("uninstall", lambda: apply(start(), "uninstall", uninstall=["tinyscript"])),
        ("restore", lambda: restore(start())),
        ("mend", lambda: doctor.fix(start())),
        ("install after", lambda: apply(start(), "install", install=["tinymany"])),
    ]


def check(start: Callable[[], Context], work: Path, link: Path) -> None:
    """Do everything; fail where anything in the folder has changed, or where the doctor does not help."""
    before = snapshot(work)
    wrong: list[str] = []
    said: dict[str, OverlayError] = {}
    moved_on = link.name == "envs"  # users move large folders to other disks: a new env goes there
    for what, act in operations(start):
        try:
            act()
        except OverlayError as e:
            said[what] = e
        after = snapshot(work)
        names = set(before) if moved_on else {*before, *after}
        wrong += [f"{what}: {path}" for path in sorted(names) if before.get(path) != after.get(path)]
        before = {path: seen for path, seen in before.items() if path in after} if moved_on else after
    assert wrong == [], said
    assert not said.keys() & {"start", "look", "mend", "install after"}, said
    for what, e in said.items():
        assert e.code == "damaged-file" and str(link) in e.message, (what, e)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_the_users_is_left_alone(start: Callable[[], Context], home: Path, name: str) -> None:
    ctx = start()
    apply(ctx, "install", install=["tinytree==1.0", "tinyscript"])
    work = home / "work"
    make_work(work, ctx.require()[1])
    path = place(ctx, name)
    if os.path.lexists(path):
        path.rename(home / "was-there")
    path.symlink_to(work)
    check(start, work, path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("there", ["a file", "nothing yet"])
def test_a_file_of_the_users_is_left_alone(
    start: Callable[[], Context], home: Path, name: str, there: str
) -> None:
    ctx = start()
    apply(ctx, "install", install=["tinytree==1.0", "tinyscript"])
    work = home / "work"
    work.mkdir()
    target = work / "thesis"
    path = place(ctx, name)
    if there == "a file":
        # the most tempting one: what looks like ours
        target.write_bytes(path.read_bytes() if path.is_file() else b"mine\n")
    if os.path.lexists(path):
        path.rename(home / "was-there")
    path.symlink_to(target)
    check(start, work, path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could reach what is not the user's")
@pytest.mark.parametrize(
    "name", ["envs", "revisions", "locks", "env", "state", "bin", "lib", "site-packages"]
)
def test_root_follows_no_link_out_of_a_users_home(
    home: Path,
    tmp_path: Path,
    base: Base,  # noqa: F811
    name: str,
) -> None:
    assert open_storage(Spec(), base, str(home)).mode == "normal"
    overlay = home / ".overlay" / "default"
    (env,) = (overlay / "envs").iterdir()
    packages = Path(Env(str(env), base.version).site_packages)
    path = {
        "env": env,
        "state": env / ".overlay",
        "bin": env / "bin",
        "lib": env / "lib",
        "site-packages": packages,
    }.get(name, overlay / name)
    for folder, _, names in os.walk(home):
        for entry in [folder, *(os.path.join(folder, n) for n in names)]:
            os.chown(entry, 1234, 1234, follow_symlinks=False)
    assert open_storage(Spec(), base, str(home)).mode == "normal"
    theirs = tmp_path / "root's"
    theirs.mkdir()
    if path.exists():
        path.rename(theirs / "inside")  # whole, so that nothing but the link is wrong
    else:
        (theirs / "inside").mkdir()
    path.symlink_to(theirs / "inside")
    before = snapshot(theirs)
    found = open_storage(Spec(), base, str(home))
    assert (found.mode, found.env, found.overlay) == ("degraded", "", "")
    assert [n["code"] for n in found.notices] == ["damaged-file"]
    assert str(path) in found.notices[0]["message"]
    assert snapshot(theirs) == before
