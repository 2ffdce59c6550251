"""The commit: a journal, renames, and their undoing when something stops in the middle.

Everything that a change brings lies on the env's own file system, in a stage or set aside by an earlier
change, so that it goes into the env by ``rename`` alone. Before the first one a journal says what is going to
be done::

    files flushed → journal (flushed) → set aside / move in, path by path → revision → requirements.txt
    → journal cleared

The revision file decides: with it, whoever repairs finishes the change; without it, the change is undone.
Both can be repeated from any point. New directories go in whole and old ones out whole, so that the number of
renames follows the number of packages rather than of files.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from overlayspawner.payload import files, journal, links, revisions, rollback, snapshot, space
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.lease import Lease, overlay_lock, storage_error
from overlayspawner.payload.moves import KEPT, SET_ASIDE, Ops
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.requirements import Requirements
from overlayspawner.payload.rollback import edited

__all__ = ["STAGES", "Commit", "edited", "pending", "prune", "repair"]

STAGES = "stage-"

_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.tmp$")


@dataclass
class Commit:
    """A change that is ready to be made.

    Parameters
    ----------
    overlay, env:
        What is changed.
    name:
        Its unique name: directory name in ``set-aside``.
    stage:
        Name of the stage's prefix, relative to ``Env.state``; ``""`` when nothing comes out of one.
    ops:
        The renames.
    add, remove:
        Requirement lines to set and names whose lines go.
    revision:
        What the revision records besides what is known here: ``action``, ``argv``, ``who``, ``when`` …
    placed:
        Relative path, inode and size of each file that comes in.
    again:
        What is pending again afterwards; see :func:`overlayspawner.payload.merge.realised`.
    keep_stage:
        Whoever made the stage clears it away.
    """

    overlay: Overlay
    env: Env
    name: str
    stage: str
    ops: Ops
    add: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    revision: dict[str, Any] = field(default_factory=dict)
    placed: list[tuple[str, int, int]] = field(default_factory=list)
    again: dict[str, list[str]] = field(default_factory=dict)
    keep_stage: bool = False

    def run(self, lease: Lease) -> dict[str, Any]:
        """Make the change and return its revision.

        When space is short, what leaves is deleted at the end rather than kept: the revision's ``undo`` is
        ``None`` then, and ``"offline"`` else.

        Raises
        ------
        OverlayError
            ``disk-full``, ``read-only`` or ``internal`` when the storage failed: all is as it was.
            ``busy`` when the lease was lost: whoever took it repairs.
        """
        space.prepare(self.env)
        files.mark("commit")
        try:
            try:
                revision = self._attempt(lease, keep=not space.is_short(self.env))
            except OSError as e:
                if not space.is_full(e) or not space.spend(self.env) or pending(self.env):
                    raise
                revision = self._attempt(lease, keep=False)
        except OSError as e:
            lease.check()  # whoever took over has cleaned up: then it is no fault of the storage
            raise storage_error(e) from e
        # From here on the change is made, whatever happens.
        with contextlib.suppress(OSError, OverlayError):
            space.prune(self.overlay, self.env)
            space.prepare(self.env)
        _remember(self.env, self.ops.steps)
        return revision

    def _attempt(self, lease: Lease, *, keep: bool) -> dict[str, Any]:
        """Make the change, or leave all as it was and raise."""
        entry = self._entry(keep)
        try:
            self._make_places()
            if self.stage:
                prefix = os.path.join(self.env.state, self.stage)
                files.sync_tree(prefix, [path for path, _, _ in self.placed])
            lease.check()  # the journal is written in place: over another's, if this one was taken over
            journal.write(self.env, entry)
            revision = self._move(lease, keep)
        except BaseException:
            # also for KeyboardInterrupt: nothing may be left half done that can be undone at once
            if revisions.find_change(self.overlay, self.name, entry["first"]) is None:
                _try_twice(self.env, lambda: rollback.undo(self.env, entry, lease, keep_stage=True))
            else:
                _try_twice(self.env, lambda: rollback.finish(self.overlay, self.env, entry, lease))
            raise
        mine = {**entry, "stage": ""} if self.keep_stage else entry
        _try_twice(self.env, lambda: rollback.finish(self.overlay, self.env, mine, lease))
        return revision

    def _entry(self, keep: bool) -> dict[str, Any]:
        return {
            "change": self.name,
            "first": revisions.next_id(self.overlay),
            "stage": self.stage,
            "steps": self.ops.steps,
            "files": self.placed,
            "anchor": SET_ASIDE,
            "stage_inode": rollback.inode(os.path.join(self.env.state, SET_ASIDE)),
            "add": self.add,
            "remove": self.remove,
            "again": self.again,
            "action": self.revision.get("action", ""),
            "keep": keep,
        }

    def _make_places(self) -> None:
        for place in sorted({os.path.dirname(p) for kind, _, p in self.ops.steps if kind == "out"}):
            space.make_place(self.env, place)

    def _move(self, lease: Lease, keep: bool) -> dict[str, Any]:
        env = self.env
        touched = {os.path.dirname(os.path.join(env.path, path)) for _, path, _ in self.ops.steps}
        for kind, path, place in self.ops.steps:
            lease.check()
            here = os.path.join(env.path, path)
            if kind == "dir":
                files.mkdir(here)
                continue
            if kind == "out":
                there = os.path.join(env.state, place)
                files.rename(here, there)
            else:
                there = os.path.join(env.state, place or os.path.join(self.stage, path))
                files.rename(there, here)
            touched.add(os.path.dirname(there))
        rollback.purge(env, self.ops.modules)
        for folder in touched:
            files.fsync_dir(folder)
        with overlay_lock(self.overlay):
            lease.check()
            before = Requirements.read(self.overlay.requirements)
            after = edited(before, self.add, self.remove)
            write = rollback.prepare_requirements(self.overlay, before, after)
            try:
                revision = revisions.write(self.overlay, self._record(before, after, keep))
            except BaseException:
                write(False)
                raise
            with contextlib.suppress(OSError):  # the next writer does it from the journal
                write(True)
        return revision

    def _record(self, before: Requirements, after: Requirements, keep: bool) -> dict[str, Any]:
        from overlayspawner.payload import merge
        from overlayspawner.payload.procs import redact

        lines = {
            "before": [redact(r.text) for r in before.entries()],
            "after": [redact(r.text) for r in after.entries()],
        }
        last = merge.last(self.overlay)
        done = merge.realised(last, self.revision.get("action", ""), after, self.add, self.remove, self.again)
        effect = {
            "before": [redact(r.text) for r in last.entries()],
            "after": [redact(r.text) for r in Requirements(done).entries()],
        }
        return {
            "undo": "offline" if keep else None,
            **self.revision,
            "requirements": lines,
            # where edits by hand came into effect: the file does not tell what was so before
            **({"realised": effect} if effect != lines else {}),
            "kept": keep,
            "in_the_way": self.ops.in_the_way,
            "change": self.name,
            "aside": [[path, place] for kind, path, place in self.ops.steps if kind == "out"] if keep else [],
            "aside_bytes": self.ops.bytes_out if keep else 0,
            "files": [list(item) for item in self.placed],
        }


def _try_twice(env: Env, act: Callable[[], None]) -> None:
    """Do what may be left to the next writer; give up the reserve when there is no space for it."""
    for _ in range(2):
        try:
            act()
        except OSError as e:
            if space.is_full(e) and space.spend(env):
                continue
        except OverlayError:
            pass
        return


def repair(overlay: Overlay, env: Env, lease: Lease) -> str:
    """Finish or undo what another writer left unfinished, and clean up after it.

    Parameters
    ----------
    lease:
        The lease of ``env``: nobody else may repair.

    Returns
    -------
    str
        ``"clean"``, ``"finished"`` or ``"undone"``.

    Raises
    ------
    OverlayError
        The storage can't be written to, or the lease was lost. Trying again later is safe. ``damaged-file``:
        there are links where the overlay's own files should be.
    """
    files.mark("repair")
    links.refuse(links.of_overlay(overlay))
    try:
        try:
            state = _repair(overlay, env, lease)
        except OSError as e:
            if not space.is_full(e) or not space.spend(env):
                raise
            state = _repair(overlay, env, lease)
        _sweep(overlay, env, lease)
        _bring_back(overlay, lease)
    except OSError as e:
        raise storage_error(e) from e
    space.prepare(env)
    return state


def _repair(overlay: Overlay, env: Env, lease: Lease) -> str:
    try:
        entry = journal.read(env)
    except journal.Damaged:
        # A torn journal is told from this: it was damaged by something else.
        journal.set_aside(env)
        return "clean"
    if entry is None:
        return "clean"
    if revisions.find_change(overlay, entry["change"], entry["first"]) is not None:
        rollback.finish(overlay, env, entry, lease)
        _remember(env, entry["steps"])
        return "finished"
    rollback.undo(env, entry, lease)
    return "undone"


def _bring_back(overlay: Overlay, lease: Lease) -> None:
    """Write a ``requirements.txt`` that is missing: one that is lost is not one that asks for nothing."""
    from overlayspawner.payload import merge

    if not os.path.lexists(overlay.requirements):
        with overlay_lock(overlay):
            lease.check()
            merge.bring_back(overlay)


def _remember(env: Env, steps: Iterable[Sequence[str]]) -> None:
    """Note what the env holds now. Without it, the next look takes our own change for somebody else's."""
    with contextlib.suppress(OSError):
        snapshot.save(env, moved=[path for _, path, _ in steps])


def pending(env: Env) -> bool:
    """Whether an unfinished change waits for repair."""
    try:
        return journal.read(env) is not None
    except (journal.Damaged, OverlayError, OSError):
        return True


def prune(overlay: Overlay, env: Env, keep: int = space.KEEP) -> None:
    """Delete the oldest set-aside files; see :func:`overlayspawner.payload.space.prune`."""
    space.prune(overlay, env, keep=keep)


def _sweep(overlay: Overlay, env: Env, lease: Lease) -> None:
    """Remove stages and temporary files of writers that are gone."""
    lease.check()
    for name in os.listdir(env.state):
        if name.startswith(STAGES) or name.endswith(".tmp"):
            files.remove_tree(os.path.join(env.state, name))
    for folder in (SET_ASIDE, KEPT):
        root = os.path.join(env.state, folder)
        for name in os.listdir(root) if os.path.isdir(root) else []:
            files.rmdir(os.path.join(root, name))  # only if it is empty
    file = os.path.realpath(overlay.requirements)
    places = {overlay.revisions: "", os.path.dirname(file): os.path.basename(file)}
    left = [
        os.path.join(folder, name)
        for folder, start in places.items()
        if os.path.isdir(folder)
        for name in os.listdir(folder)
        if name.startswith(start) and _TEMPORARY.search(name)
    ]
    if left:
        with overlay_lock(overlay) as held:  # writers of other envs have it while they write there
            for path in left if held else []:
                files.unlink(path)
