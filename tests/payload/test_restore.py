"""Envs that are built again: another image, a damaged env, an earlier state. Real bases, a real index."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overlayspawner.payload import lockfile, mark, restore, revisions
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError, Spec
from overlayspawner.payload.dists import overlay_dists
from overlayspawner.payload.lease import acquire
from overlayspawner.payload.overlay import Overlay
from overlayspawner.payload.probe import Base
from tests.support.envs import (
    base,  # noqa: F401  (a fixture)
    env_snapshot,
    make_base,
    make_context,
    other_pythons,
    run_python,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.index import LocalIndex
from tests.support.wheels import make_wheel

# What is decided here is decided on what an installer answers, by the same code for both: `make test` goes
# through it with uv, and with pip where pip itself has a part in it. `make test-all` does all with both.
PIP_TOO = {
    "test_another_image_gets_the_packages_in_their_versions",
    "test_the_lock_decides_versions",
    "test_another_python",
    "test_what_cannot_be_had_is_listed_and_the_rest_installed",
    "test_nothing_at_all_can_be_had",
    "test_without_an_index_what_was_downloaded_before_is_enough",
    "test_a_file_that_is_another_one_is_refused",
    "test_files_that_are_missing_are_brought_back",
    "test_before_the_start_there_is_a_limit",
    "test_secrets_stay_out_of_the_mark",
}


@pytest.fixture(scope="module")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Another image: another key, and nothing in it."""
    return make_base(tmp_path_factory.mktemp("other") / "image")


@pytest.fixture
def here(
    tmp_path: Path,
    base: Base,  # noqa: F811
    index: LocalIndex,
    uv_on_path: None,  # noqa: F811
    installer: str,
) -> Iterator[Context]:
    """An empty overlay on the first image."""
    yield make_context(tmp_path / "home", base, installer=installer, index_url=index.url)


def on(ctx: Context, base: Base, **spec: Any) -> Context:  # noqa: F811
    """The same home with another image."""
    wanted = {"installer": ctx.spec.installer, "index_url": ctx.spec.index_url, **spec}
    return make_context(Path(ctx.home), base, **wanted)


def install(ctx: Context, *lines: str) -> dict[str, Any]:
    return apply(ctx, "install", install=lines)


def versions(ctx: Context) -> dict[str, str]:
    _, env = ctx.require()
    return {name: dist.version for name, dist in overlay_dists(env).items()}


def requirements(ctx: Context) -> list[str]:
    overlay, _ = ctx.require()
    return Path(overlay.requirements).read_text().splitlines()


def test_another_image_gets_the_packages_in_their_versions(here: Context, other_base: Base) -> None:
    install(here, "tinytree<2")
    install(here, "tinyscript")
    assert restore.wanted(here) is None
    first = env_snapshot(here)
    there = on(here, other_base)
    assert "not installed for this image" in str(restore.wanted(there))
    assert restore.state(there) == {
        "state": "pending",
        "failed": [],
        "why": restore.wanted(there),
        "error": None,
    }
    events: list[dict[str, Any]] = []
    result = restore.restore(there, on_event=events.append, who="me", argv=["overlay", "restore"])
    assert result["revision"]["action"] == "restore"
    assert result["revision"]["who"] == "me"
    assert result["revision"]["argv"] == ["overlay", "restore"]
    assert result["plan"]["failed"] == []
    # the first image gives tinyleaf 1.1; here it has to be brought along
    assert versions(there) == {"tinytree": "1.0", "tinyscript": "1.0", "tinyleaf": "1.1"}
    assert run_python(there, "import tinytree; print(tinytree.__version__)") == "1.0"
    assert {e["phase"] for e in events} >= {"resolving", "committing", "done"}
    assert restore.wanted(there) is None
    assert restore.state(there) == {"state": "done", "failed": [], "why": None, "error": None}
    # the first image's env was not touched, and going back takes nothing
    assert env_snapshot(here) == first
    assert restore.wanted(here) is None


def test_the_lock_decides_versions(
    here: Context, other_base: Base, index: LocalIndex, tmp_path: Path
) -> None:
    install(here, "tinypre")
    index.add(make_wheel(tmp_path, "tinypre", "1.5"))
    try:
        there = on(here, other_base)
        restore.restore(there)
        assert versions(there)["tinypre"] == "1.0"
    finally:
        index.projects["tinypre"].pop()
        del index.files["tinypre-1.5-py3-none-any.whl"]


@pytest.mark.parametrize("interpreter", other_pythons()[::3] or [""])  # a few minutes otherwise
def test_another_python(here: Context, tmp_path: Path, interpreter: str) -> None:
    if not interpreter:
        pytest.skip("this machine has one Python only")
    tag = "cp{}{}-none-any".format(*sys.version_info[:2])
    with LocalIndex(tmp_path / "own") as own:
        own.add(make_wheel(tmp_path, "tinyabi", "1.0", tag=tag))
        here.spec.index_url = own.url
        install(here, "tinyabi", "tinydata")
        # both get newer versions; the lock's of tinydata will do, that of tinyabi has nothing for this Python
        own.add(make_wheel(tmp_path, "tinyabi", "1.1"))
        own.add(make_wheel(tmp_path, "tinydata", "1.1"))
        before = env_snapshot(here)
        there = on(here, make_base(tmp_path / "image", interpreter=interpreter))
        _forget_cache(there)
        result = restore.restore(there)
        assert result["plan"]["failed"] == []
        assert versions(there)["tinyabi"] == "1.1"
        assert versions(there)["tinydata"] == "1.0"
        assert run_python(there, "import tinyabi, tinydata; print(tinyabi.__version__)") == "1.1"
        assert env_snapshot(here) == before
        assert restore.wanted(here) is None


def test_a_version_that_is_gone_makes_room_for_another(
    here: Context, other_base: Base, index: LocalIndex
) -> None:
    install(here, "tinytree<2", "tinyscript")
    gone = index.projects["tinytree"]
    kept = [file for file in gone if "-1.0-" not in file.path.name]
    overlay, _ = here.require()
    # the line allows another version, the lock does not
    Path(overlay.requirements).write_text("tinytree\ntinyscript\n")
    index.projects["tinytree"] = kept
    try:
        there = on(here, other_base)
        _forget_cache(there)
        result = restore.restore(there)
    finally:
        index.projects["tinytree"] = gone
    assert result["plan"]["failed"] == []
    assert versions(there)["tinytree"] == "2.0"
    assert versions(there)["tinyscript"] == "1.0"


def _forget_cache(ctx: Context) -> None:
    """An index is asked again only after a while; here it has changed meanwhile."""
    overlay, _ = ctx.require()
    shutil.rmtree(Path(overlay.path).parent / ".cache", ignore_errors=True)


def test_what_cannot_be_had_is_listed_and_the_rest_installed(here: Context, other_base: Base) -> None:
    overlay, _ = here.require()
    lines = ["tinyscript", "tinyfuture", "tinyleft", "tinyright", "nosuchpackage", "tinyrefuse", "tinydata"]
    Path(overlay.requirements).write_text("# mine\n" + "".join(f"{line}\n" for line in lines))
    there = on(here, other_base)
    result = restore.restore(there)
    failed = {item["requirement"]: item["code"] for item in result["plan"]["failed"]}
    assert failed == {
        "tinyfuture": "no-matching-version",
        "tinyright": "conflict",
        "nosuchpackage": "no-such-package",
        "tinyrefuse": "build-failed",
    }, result["plan"]["failed"]
    assert all(
        item["reason"] and "Nothing was changed" not in item["reason"] for item in result["plan"]["failed"]
    )
    assert set(versions(there)) >= {"tinyscript", "tinyleft", "tinydata"}
    assert requirements(there) == ["# mine", *lines]
    now = restore.state(there)
    assert now is not None
    assert now["state"] == "partial"
    assert restore.wanted(there) is None  # not again and again
    told = restore.restore_notice(there)
    assert told is not None
    assert told["code"] == "restore-partial"
    assert "nosuchpackage" in told["message"]
    # what can't be had here does not hold up other changes
    install(there, "tinyextra")
    assert "tinyextra" in versions(there)
    now = restore.state(there)
    assert now is not None
    assert {item["requirement"] for item in now["failed"]} == set(failed)
    # with the lines gone nothing is left to tell
    apply(there, "uninstall", uninstall=list(failed))
    assert restore.restore_notice(there) is None


def test_nothing_at_all_can_be_had(here: Context, other_base: Base) -> None:
    overlay, _ = here.require()
    Path(overlay.requirements).write_text("nosuchpackage\n")
    there = on(here, other_base)
    before = env_snapshot(there)
    with pytest.raises(OverlayError) as e:
        restore.restore(there)
    assert e.value.code == "not-restored"
    assert "nosuchpackage" not in e.value.hint
    assert env_snapshot(there) == before
    now = restore.state(there)
    assert now is not None
    assert [item["requirement"] for item in now["failed"]] == ["nosuchpackage"]


def test_an_index_that_does_not_answer_is_waited_for(
    here: Context, other_base: Base, index: LocalIndex
) -> None:
    install(here, "tinyscript", "tinytree")
    there = on(here, other_base, index_url=index.prefixed("reset"))
    _forget_cache(there)
    before = env_snapshot(there)
    with pytest.raises(OverlayError) as e:
        restore.restore(there)
    assert e.value.code == "index-unreachable"
    assert env_snapshot(there) == before
    now = restore.state(there)
    assert now is not None
    assert now["state"] == "waiting"
    told = restore.restore_notice(there)
    assert told is not None
    assert told["code"] == "restore-waiting"
    again = on(here, other_base)
    assert restore.wanted(again) is not None
    restore.restore(again)
    assert set(versions(again)) >= {"tinyscript", "tinytree"}
    assert restore.restore_notice(again) is None


def test_without_an_index_what_was_downloaded_before_is_enough(
    here: Context, other_base: Base, tmp_path: Path
) -> None:
    if here.spec.installer == "pip":
        pytest.skip("pip can't install anything without its index")
    with LocalIndex(tmp_path / "own") as own:
        here.spec.index_url = own.url
        install(here, "tinyscript", "tinyextra")
    there = on(here, other_base)
    restore.restore(there)
    assert versions(there) == {"tinyscript": "1.0", "tinyextra": "1.0"}
    assert restore.wanted(there) is None


def test_two_images_at_once(here: Context, other_base: Base) -> None:
    there = on(here, other_base)
    errors: list[BaseException] = []

    def change(ctx: Context, line: str) -> None:
        try:
            install(ctx, line)
        except BaseException as e:
            errors.append(e)

    threads = [
        threading.Thread(target=change, args=(here, "tinyscript")),
        threading.Thread(target=change, args=(there, "tinydata")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(requirements(here)) == ["tinydata", "tinyscript"]
    first, second = versions(here), versions(there)
    assert "tinyscript" in first
    assert "tinydata" in second
    for ctx, line in ((here, "tinydata"), (there, "tinyscript")):
        if line not in versions(ctx):
            assert line in str(restore.wanted(ctx))
            restore.restore(ctx)
        assert set(versions(ctx)) >= {"tinyscript", "tinydata"}
        assert restore.wanted(ctx) is None


def test_what_was_removed_on_one_image_leaves_the_other(here: Context, other_base: Base) -> None:
    install(here, "tinyscript", "tinytree")
    there = on(here, other_base)
    restore.restore(there)
    apply(there, "uninstall", uninstall=["tinytree"])
    assert "tinytree" in str(restore.wanted(here))
    restore.restore(here)
    assert "tinytree" not in versions(here)
    assert "tinyscript" in versions(here)
    assert restore.wanted(here) is None


def test_hand_edits_wait(here: Context) -> None:
    install(here, "tinyscript")
    overlay, _ = here.require()
    Path(overlay.requirements).write_text("tinyscript\ntinydata\n")
    assert restore.wanted(here) is None


def test_the_administrators_lines_are_wanted_at_once(here: Context, base: Base) -> None:  # noqa: F811
    install(here, "tinyscript")
    again = on(here, base, requirements=["tinydata"])
    assert "tinydata" in str(restore.wanted(again))
    restore.restore(again)
    assert "tinydata" in versions(again)
    assert requirements(again) == ["tinyscript"]
    assert restore.wanted(again) is None


def test_an_env_that_was_thrown_away_comes_back(here: Context, base: Base, index: LocalIndex) -> None:  # noqa: F811
    install(here, "tinytree<2", "tinyscript")
    before = versions(here)
    _, env = here.require()
    shutil.rmtree(env.path)
    again = on(here, base)
    assert restore.wanted(again) is not None
    restore.restore(again)
    assert versions(again) == before
    assert not lockfile.stale(*again.require())


def test_a_file_that_is_another_one_is_refused(
    here: Context,
    base: Base,  # noqa: F811
    index: LocalIndex,
    tmp_path: Path,
) -> None:
    _, env = here.require()
    index.add(make_wheel(tmp_path / "one", "tinyswapped", "1.0"))
    try:
        install(here, "tinyswapped", "tinyscript")
        index.projects.pop("tinyswapped")
        index.add(make_wheel(tmp_path / "two", "tinyswapped", "1.0", summary="Another one."))
        shutil.rmtree(env.path)
        _forget_cache(here)
        again = on(here, base)
        result = restore.restore(again)
    finally:
        index.projects.pop("tinyswapped")
    assert {item["requirement"]: item["code"] for item in result["plan"]["failed"]} == {
        "tinyswapped": "bad-package"
    }
    assert "tinyscript" in versions(again)
    assert "tinyswapped" not in versions(again)


def test_files_that_are_missing_are_brought_back(here: Context) -> None:
    install(here, "tinyscript", "tinydata")
    _, env = here.require()
    os.unlink(os.path.join(env.site_packages, "tinyscript.py"))
    restore.restore(here)
    assert os.path.exists(os.path.join(env.site_packages, "tinyscript.py"))
    os.unlink(os.path.join(overlay_dists(env)["tinydata"].path, "RECORD"))
    install(here, "tinyextra")
    assert os.path.exists(os.path.join(overlay_dists(env)["tinydata"].path, "RECORD"))


def test_a_lock_that_was_cut_short_turns_nothing_back(here: Context, base: Base) -> None:  # noqa: F811
    install(here, "tinyleaf==1.0", "tinyscript")
    overlay, env = here.require()
    old = {path: Path(path).read_text() for path in (env.lock_file, lockfile.path(overlay, env))}
    install(here, "tinyleaf")
    apply(here, "upgrade", upgrade=["tinyleaf"])
    for path, text in old.items():
        Path(path).write_text(text)
    assert versions(here)["tinyleaf"] == "2.0"
    restore.restore(here)
    assert versions(here)["tinyleaf"] == "2.0"
    for path, text in old.items():
        Path(path).write_text(text)
    shutil.rmtree(env.path)
    again = on(here, base)
    restore.restore(again)
    assert versions(again) == {"tinyleaf": "2.0", "tinyscript": "1.0"}


def test_back_to_an_earlier_state(here: Context) -> None:
    install(here, "tinytree<2")
    overlay, _ = here.require()
    with open(overlay.requirements, "a") as f:
        f.write("# a comment of mine\n")
    install(here, "tinyscript")
    install(here, "tinytree>=2")
    assert versions(here) == {"tinytree": "2.0", "tinyleaf": "2.0", "tinyscript": "1.0"}
    result = restore.restore(here, 1, labels={"undoes": 3, "undo": "download"})
    assert versions(here) == {"tinytree": "1.0"}
    assert requirements(here) == ["tinytree<2", "# a comment of mine"]
    assert result["revision"]["undoes"] == 3
    assert result["revision"]["undo"] == "download"
    assert result["revision"]["to"] == 1
    restore.restore(here, 3)
    assert versions(here) == {"tinytree": "2.0", "tinyleaf": "2.0", "tinyscript": "1.0"}
    assert sorted(requirements(here)) == ["# a comment of mine", "tinyscript", "tinytree>=2"]
    restore.restore(here, 0)
    assert versions(here) == {}
    assert requirements(here) == ["# a comment of mine"]
    with pytest.raises(OverlayError) as e:
        restore.restore(here, 99)
    assert e.value.code == "not-found"


def test_versions_after_a_change(here: Context) -> None:
    install(here, "tinyleaf==1.0")
    install(here, "tinyleaf==2.0")
    restore.restore(here, 1)
    assert versions(here) == {"tinyleaf": "1.0"}
    assert requirements(here) == ["tinyleaf==1.0"]


def test_before_the_start_there_is_a_limit(here: Context, other_base: Base, index: LocalIndex) -> None:
    install(here, "tinyscript")
    there = on(here, other_base, index_url=index.prefixed("hang"))
    _forget_cache(there)
    told = restore.before_start(there, 1.5)
    assert told is not None
    assert told["code"] == "restore-waiting"
    assert versions(there) == {}
    there = on(here, other_base)
    events: list[dict[str, Any]] = []
    assert restore.before_start(there, 120, on_event=events.append) is None
    assert "tinyscript" in versions(there)
    assert events
    assert restore.before_start(there, 120) is None


def test_a_damaged_mark_means_looking_again(here: Context) -> None:
    install(here, "tinyscript")
    _, env = here.require()
    for text in ("", "{", "[]", '{"schema": 1, "state": "odd"}', "\0\0"):
        Path(mark.path(env)).write_text(text)
        assert mark.Mark.read(env).fresh
    restore.restore(here)
    assert restore.wanted(here) is None
    assert json.loads(Path(mark.path(env)).read_text())["state"] == "done"


def test_secrets_stay_out_of_the_mark(here: Context, other_base: Base, index: LocalIndex) -> None:
    overlay, _ = here.require()
    secret = f"tinyleaf @ http://me:s3cret@127.0.0.1:{index.port}/files/tinyleaf-1.0-py3-none-any.whl"
    Path(overlay.requirements).write_text(secret + "\n")
    there = on(here, other_base)
    restore.restore(there)
    assert versions(there) == {"tinyleaf": "1.0"}
    for folder, _, names in os.walk(overlay.path):
        for name in names:
            path = os.path.join(folder, name)
            if name in ("requirements.txt", "requirements.last"):
                continue
            assert b"s3cret" not in Path(path).read_bytes(), path
    assert revisions.ids(overlay) == [1]


def ephemeral(ctx: Context, base: Base, local: Path) -> Context:  # noqa: F811
    """The same overlay in a container that keeps packages to itself."""
    home = Path(ctx.home)
    overlay = Overlay(str(home / ".overlay" / "default"), lifetime="ephemeral", local=str(local))
    local.mkdir(mode=0o700)
    return Context(
        spec=Spec(installer=ctx.spec.installer, index_url=ctx.spec.index_url, lifetime="ephemeral"),
        base=base,
        home=ctx.home,
        runtime="",
        payload=ctx.payload,
        overlay=overlay,
        env=overlay.create(base),
        base_lock=base.lock(),
    )


def test_each_container_of_an_ephemeral_overlay_builds_its_own(
    here: Context,
    base: Base,  # noqa: F811
    tmp_path: Path,
) -> None:
    first = ephemeral(here, base, tmp_path / "first")
    install(first, "tinytree<2", "tinyscript")
    shutil.rmtree(tmp_path / "first")
    second = ephemeral(here, base, tmp_path / "second")
    assert restore.wanted(second) is not None
    overlay, env = second.require()
    lock = lockfile.find(overlay, env)
    assert lock is not None
    assert lock.packages["tinyscript"].hashes
    restore.restore(second)
    assert versions(second) == {"tinytree": "1.0", "tinyscript": "1.0"}
    assert restore.wanted(second) is None
    # the persistent env beside it knows nothing of these packages, and would get them
    assert versions(here) == {}
    third = ephemeral(here, base, tmp_path / "third")
    assert restore.wanted(third) is not None


def test_one_that_was_killed_is_due_again(here: Context, other_base: Base) -> None:
    install(here, "tinyscript")
    there = on(here, other_base)
    _, env = there.require()
    mark.Mark.read(env).begin(env)
    told = restore.restore_notice(there)
    assert told is not None
    assert told["code"] == "restoring"
    assert restore.wanted(there) is not None
    restore.restore(there)
    assert restore.restore_notice(there) is None


def test_another_change_does_not_pass_for_a_restore(here: Context, other_base: Base) -> None:
    install(here, "tinyscript", "tinydata")
    there = on(here, other_base)
    apply(there, "uninstall", uninstall=["tinydata"])
    assert restore.wanted(there) is not None
    # one that resolves all lines does
    install(there, "tinyextra")
    assert set(versions(there)) >= {"tinyscript", "tinyextra"}
    assert restore.wanted(there) is None
    assert "tinyextra" in str(restore.wanted(here))
    restore.restore(here)
    assert set(versions(here)) == {"tinyscript", "tinyextra"}


def test_while_another_changes_the_env_nothing_is_marked(here: Context, other_base: Base) -> None:
    install(here, "tinyscript")
    there = on(here, other_base)
    _, env = there.require()
    with acquire(env), pytest.raises(OverlayError) as e:
        restore.restore(there)
    assert e.value.code == "busy"
    assert not os.path.exists(mark.path(env))
    assert "not installed" in str(restore.wanted(there))
