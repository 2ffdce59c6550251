"""Sequences of everything that can happen to an overlay, found by hypothesis; a model says what must be true.

``OVERLAYSPAWNER_SEQUENCES=N`` runs N sequences with new random choices instead of the usual few.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from overlayspawner.payload import adopt, change, dists, lease, restore, undo
from overlayspawner.payload.apply import apply
from overlayspawner.payload.context import Context
from overlayspawner.payload.probe import Base
from overlayspawner.payload.requirements import Requirements
from tests.support.doctor import complaints, leftovers
from tests.support.envs import (
    base,  # noqa: F401  (a fixture)
    make_base,
    make_context,
    uv_on_path,  # noqa: F401  (a fixture)
)
from tests.support.faults import in_child
from tests.support.index import LocalIndex, make_wheel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# project → what it needs. Each has 1.0 and 2.0.
NEEDS: dict[str, list[str]] = {
    "seqone": [],
    "seqtwo": [],
    "seqleaf": [],
    "seqtree": ["seqleaf"],
    "seqforest": ["seqtree", "seqtwo"],
}
NAMES = sorted(NEEDS)
VERSIONS = ["", "==1.0", "==2.0"]

State = tuple[tuple[str, ...], dict[str, str]]


def closure(names: set[str]) -> set[str]:
    """Return the names and all that they need."""
    out: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in out:
            out.add(name)
            todo += NEEDS[name]
    return out


class Machine(RuleBasedStateMachine):
    """One overlay on two bases, and what is known about it."""

    bases: list[Base]
    index: LocalIndex
    wheels: Path
    cache: Path

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="seq-", dir=self.cache))
        self.which = 0
        self.lines: dict[str, str] = {}
        self.comments: list[str] = []
        self.before: list[State] = []
        """What each change that can be undone in this env began with."""
        self.done = 0

    def teardown(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)

    # -- what there is ----------------------------------------------------------------------------------

    @property
    def ctx(self) -> Context:
        """A fresh look, as each server and each command has."""
        os.environ["HOME"] = str(self.home)
        return make_context(self.home, self.bases[self.which], index_url=self.index.url)

    def state(self) -> State:
        """Return the requirement lines and the installed versions."""
        overlay, env = self.ctx.require()
        lines = tuple(sorted(r.text for r in Requirements.read(overlay.requirements).entries()))
        return lines, {name: dist.version for name, dist in dists.overlay_dists(env).items()}

    def change(self, act: Any) -> None:
        """Make a change that may be undone."""
        before = self.state()
        if act()["revision"]["changed"]:
            self.before.append(before)
        self.done += 1

    # -- what can happen --------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), version=st.sampled_from(VERSIONS))
    def install(self, name: str, version: str) -> None:
        self.change(lambda: apply(self.ctx, "install", install=[name + version]))
        # a name alone does not take away what was said about the version
        if version or name not in self.lines:
            self.lines[name] = version

    @precondition(lambda self: self.lines)
    @rule(data=st.data())
    def uninstall(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.lines)))
        self.change(lambda: apply(self.ctx, "uninstall", uninstall=[name]))
        del self.lines[name]

    @precondition(lambda self: self.lines)
    @rule(data=st.data())
    def upgrade(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.lines)))
        self.change(lambda: apply(self.ctx, "upgrade", upgrade=[name]))
        _, there = self.state()
        assert there[name] == (self.lines[name][2:] or "2.0")

    @precondition(lambda self: self.before)
    @rule()
    def undo(self) -> None:
        lines, there = self.before.pop()
        undo.undo(self.ctx)
        assert self.state() == (lines, there)
        self.read_lines()

    @precondition(lambda self: {"seqone", "seqtwo"} - closure(set(self.lines)))
    @rule(data=st.data(), version=st.sampled_from(["1.0", "2.0"]))
    def pip_install(self, data: st.DataObject, version: str) -> None:
        """What ``python -m pip install NAME`` leaves, found later."""
        name = data.draw(st.sampled_from(sorted({"seqone", "seqtwo"} - closure(set(self.lines)))))
        ctx = self.ctx
        _, env = ctx.require()
        site = Path(env.site_packages)
        with zipfile.ZipFile(self.wheels / f"{name}-{version}-py3-none-any.whl") as archive:
            archive.extractall(site)
        info = site / f"{name}-{version}.dist-info"
        (info / "INSTALLER").write_text("pip\n")
        (info / "REQUESTED").touch()
        with (info / "RECORD").open("a") as f:
            f.write(f"{info.name}/INSTALLER,,\n{info.name}/REQUESTED,,\n")
        before = self.state()
        before[1].pop(name)
        assert adopt.needed(ctx)
        assert adopt.adopt(ctx)["revision"]["changed"]
        self.before.append(before)
        self.read_lines()
        assert name in self.lines

    @precondition(lambda self: self.leaves())
    @rule(data=st.data())
    def pip_uninstall(self, data: st.DataObject) -> None:
        """What ``python -m pip uninstall NAME`` leaves, found later."""
        name = data.draw(st.sampled_from(self.leaves()))
        ctx = self.ctx
        _, env = ctx.require()
        before = self.state()
        dist = dists.overlay_dists(env)[name]
        for path, _ in dists.record(dist):
            Path(dist.site, path).unlink(missing_ok=True)
        shutil.rmtree(dist.path)
        assert adopt.adopt(ctx)["revision"]["changed"]
        self.before.append(before)
        del self.lines[name]

    def leaves(self) -> list[str]:
        """Packages that were asked for, that nothing needs, and that need nothing."""
        if not self.lines:
            return []
        needed = {other for name in closure(set(self.lines)) for other in NEEDS[name]}
        return sorted(name for name in self.lines if name not in needed and not NEEDS[name])

    @rule(name=st.sampled_from(NAMES), version=st.sampled_from(VERSIONS), keep=st.booleans())
    def edit(self, name: str, version: str, keep: bool) -> None:
        """The user edits the file, with a comment, and then wants it to be so."""
        overlay, _ = self.ctx.require()
        path = Path(overlay.requirements)
        rows = [row for row in path.read_text().splitlines() if not row.startswith(name)]
        self.lines.pop(name, None)
        if keep:
            comment = f"# because of {uuid.uuid4().hex[:6]}"
            self.comments.append(comment)
            rows += [comment, name + version]
            self.lines[name] = version
        path.write_text("\n".join(rows) + "\n")
        apply(self.ctx, "sync")
        # what the user wrote by hand is no part of a change, and so does not go with one
        self.before.clear()

    @rule()
    def other_image(self) -> None:
        """The next server runs another image; its env is brought up in the background."""
        _, other = self.ctx.require()
        untouched = self.state()[1]
        self.which = 1 - self.which
        self.before.clear()
        if restore.wanted(self.ctx):
            restore.restore(self.ctx)
        assert restore.wanted(self.ctx) is None
        assert {n: d.version for n, d in dists.overlay_dists(other).items()} == untouched

    @rule(
        name=st.sampled_from(NAMES),
        version=st.sampled_from(VERSIONS),
        step=st.integers(1, 40),
        how=st.sampled_from(["kill", "kill", "ENOSPC", "EIO"]),
        again=st.integers(0, 12),
    )
    def stopped_install(self, name: str, version: str, step: int, how: str, again: int) -> None:
        self.stopped(
            lambda root: apply(self.ctx, "install", install=[name + version]), f"commit@{step}:{how}", again
        )

    @precondition(lambda self: self.lines)
    @rule(
        data=st.data(),
        step=st.integers(1, 30),
        how=st.sampled_from(["kill", "kill", "ENOSPC", "EIO"]),
        again=st.integers(0, 12),
    )
    def stopped_uninstall(self, data: st.DataObject, step: int, how: str, again: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.lines)))
        self.stopped(
            lambda root: apply(self.ctx, "uninstall", uninstall=[name]), f"commit@{step}:{how}", again
        )

    @precondition(lambda self: self.before)
    @rule(step=st.integers(1, 30), how=st.sampled_from(["kill", "ENOSPC"]), again=st.integers(0, 12))
    def stopped_undo(self, step: int, how: str, again: int) -> None:
        old, count = self.state(), self.revisions()
        target = self.before[-1]
        in_child(lambda root: undo.undo(self.ctx), "", f"commit@{step}:{how}")
        self.mend(again)
        if self.revisions() == count:
            assert self.state() == old
        else:
            assert self.state() == target
            self.before.pop()
        self.read_lines()

    def stopped(self, act: Any, fault: str, again: int) -> None:
        """Make a change in a process that fails or dies; the next mends, perhaps at the second attempt."""
        old, count = self.state(), self.revisions()
        out = in_child(act, "", fault)
        assert out.state != "crashed", out.detail
        self.mend(again)
        new = self.state()
        if self.revisions() == count:
            assert new == old, (fault, out)
        else:
            self.before.append(old)
        self.read_lines()

    def mend(self, again: int) -> None:
        """Do what the next writer does first; where ``again`` is not 0, one before it dies at that write."""

        def act(root: str) -> None:
            overlay, env = self.ctx.require()
            with lease.acquire(env, wait=5) as held:
                change.repair(overlay, env, held)

        if again:
            in_child(act, "", f"repair@{again}:kill")
        act("")

    def revisions(self) -> int:
        """How many changes were made."""
        overlay, _ = self.ctx.require()
        return len([name for name in os.listdir(overlay.revisions) if name.endswith(".json")])

    def read_lines(self) -> None:
        """Take over what the file says, where the model can't know which way it went."""
        overlay, _ = self.ctx.require()
        entries = Requirements.read(overlay.requirements).entries()
        self.lines = {r.name: r.text[len(r.name) :] for r in entries}

    # -- what must be true ------------------------------------------------------------------------------

    @invariant()
    def the_requirements_are_what_was_asked_for(self) -> None:
        overlay, _ = self.ctx.require()
        found = Requirements.read(overlay.requirements)
        assert found.ignored() == []
        entries = found.entries()
        assert {r.name for r in entries} == set(self.lines)
        assert len(entries) == len(self.lines), "a line is there twice"
        for r in entries:
            assert r.text[len(r.name) :] == self.lines[r.name]

    @invariant()
    def comments_stay(self) -> None:
        overlay, _ = self.ctx.require()
        rows = Path(overlay.requirements).read_text().splitlines()
        assert [row for row in rows if row.startswith("#")] == self.comments

    @invariant()
    def the_env_is_what_the_requirements_need(self) -> None:
        _, there = self.state()
        assert set(there) == closure(set(self.lines))
        for name, version in self.lines.items():
            assert not version or there[name] == version[2:]

    @invariant()
    def nothing_is_wrong(self) -> None:
        ctx = self.ctx
        overlay, _ = ctx.require()
        assert complaints(ctx) == {}
        assert leftovers(overlay) == []
        # one that died after the change, before it had noted what is there: nobody else did anything
        if adopt.needed(ctx):
            assert not adopt.adopt(ctx)["revision"]["changed"]
            assert not adopt.needed(ctx)
        for name in os.listdir(overlay.revisions):
            if name.endswith(".json"):
                json.loads(Path(overlay.revisions, name).read_text())


def test_sequences(
    tmp_path: Path,
    base: Base,  # noqa: F811
    uv_on_path: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PYTHONPATH", "PYTHONUSERBASE", "PIP_CONFIG_FILE", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    wheels = tmp_path / "wheels"
    with LocalIndex(wheels, recipes=False) as index:
        for name, needs in NEEDS.items():
            for version in ("1.0", "2.0"):
                files = {
                    f"{name}/__init__.py": f"__version__ = {version!r}\n",
                    f"{name}/v{version[0]}.py": "",
                }
                index.add(make_wheel(wheels, name, version, requires=needs, files=files))
        Machine.bases = [base, make_base(tmp_path / "other-image")]
        Machine.index, Machine.wheels, Machine.cache = index, wheels, tmp_path
        many = int(os.environ.get("OVERLAYSPAWNER_SEQUENCES", "0"))
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Machine,
            settings=settings(
                max_examples=many or 6,
                stateful_step_count=25 if many else 15,
                deadline=None,
                derandomize=not many,
                database=None,
                # making a failure shorter takes minutes; with N it is worth it
                phases=list(Phase) if many else [Phase.generate],
                print_blob=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
