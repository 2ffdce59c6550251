"""The commit: a journal, renames, and their undoing when something stops in the middle.

Everything that a change brings lies in a stage on the env's own file system, so that it goes into the env by
``rename`` alone. Before the first one a journal says what is going to be done::

    journal (fsync) → set aside / move in, path by path → revision → requirements.txt → journal gone

The revision file decides: with it, whoever repairs finishes the change; without it, the change is undone.
Both can be repeated from any point. New directories go in whole and old ones out whole, so that the number of
renames follows the number of packages rather than of files.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from overlayspawner.payload import files, revisions
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.lease import Lease, overlay_lock, storage_error
from overlayspawner.payload.moves import KEPT, SET_ASIDE, Brought, Ops
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.requirements import Requirements, parse

KEEP = 10
"""How many changes' replaced files are kept for undoing."""

STAGES = "stage-"
_JOURNAL = "journal.json"
_JOURNAL_SCHEMA = 1


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
        Name of the stage's prefix, relative to ``Env.state``; ``""`` when nothing comes in.
    ops:
        The renames.
    add, remove:
        Requirement lines to set and names whose lines go.
    revision:
        What the revision records besides what is known here.
    placed:
        Relative path, inode and size of each file that comes in.
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

    def run(self, lease: Lease) -> dict[str, Any]:
        """Make the change and return its revision.

        Raises
        ------
        OverlayError
            ``disk-full``, ``read-only`` or ``internal`` when the storage failed: all is as it was.
            ``busy`` when the lease was lost: whoever took it repairs.
        """
        journal = {
            "schema": _JOURNAL_SCHEMA,
            "change": self.name,
            "first": revisions.next_id(self.overlay),
            "stage": self.stage,
            "steps": self.ops.steps,
            "files": self.placed,
            "stage_inode": _inode(os.path.join(self.env.state, self.stage)),
            "add": self.add,
            "remove": self.remove,
        }
        files.mark("commit")
        try:
            self._make_places()
            # 0600: a line added by hand may hold a secret, and this file is only for ourselves
            files.write_atomic(_journal_path(self.env), json.dumps(journal) + "\n", 0o600)
            files.fsync_dir(self.env.state)
            revision = self._move(lease)
        except OverlayError:
            raise
        except BaseException as e:
            # also for KeyboardInterrupt: nothing may be left half done that can be undone at once
            with contextlib.suppress(OSError, OverlayError):
                _undo(self.env, journal, lease)
            if isinstance(e, OSError):
                raise storage_error(e) from e
            raise
        # From here on the change is made, whatever happens.
        with contextlib.suppress(OSError, OverlayError):
            _finish(self.overlay, self.env, journal, lease)
            prune(self.env)
        return revision

    def _make_places(self) -> None:
        for place in sorted({os.path.dirname(p) for _, _, p in self.ops.steps if p}):
            files.mkdir(os.path.join(self.env.state, os.path.dirname(place)))
            files.mkdir(os.path.join(self.env.state, place))

    def _move(self, lease: Lease) -> dict[str, Any]:
        env = self.env
        for kind, path, place in self.ops.steps:
            lease.check()
            here = os.path.join(env.path, path)
            if kind == "out":
                files.rename(here, os.path.join(env.state, place))
            else:
                files.rename(os.path.join(env.state, self.stage, path), here)
        _purge(env, self.ops.modules)
        for parent in {os.path.dirname(path) for _, path, _ in self.ops.steps}:
            files.fsync_dir(os.path.join(env.path, parent))
        with overlay_lock(self.overlay):
            lease.check()
            before = Requirements.read(self.overlay.requirements)
            after = edited(before, self.add, self.remove)
            from overlayspawner.payload.procs import redact

            data = {
                **self.revision,
                "requirements": {
                    "before": [redact(r.text) for r in before.entries()],
                    "after": [redact(r.text) for r in after.entries()],
                },
                "in_the_way": self.ops.in_the_way,
                "change": self.name,
                "aside": [[path, place] for kind, path, place in self.ops.steps if kind == "out"],
                "files": [list(item) for item in self.placed],
            }
            write = _prepare_requirements(self.overlay, before, after)
            try:
                revision = revisions.write(self.overlay, data)
            except BaseException:
                write(False)
                raise
            with contextlib.suppress(OSError):  # the next writer does it from the journal
                write(True)
        return revision


def edited(before: Requirements, add: Iterable[str], remove: Iterable[str]) -> Requirements:
    """Return requirements with lines set and removed. Doing it twice is the same as once."""
    after = before
    for name in remove:
        after = after.with_removed(name)
    for text in add:
        after = after.with_added(parse(text, trusted=True))
    return after


def _prepare_requirements(
    overlay: Overlay, before: Requirements, after: Requirements
) -> Callable[[bool], None]:
    """Write the new file beside the old one; what is returned puts it in place, or drops it."""
    if after.to_text() == before.to_text():
        return lambda keep: None
    # a user may keep the file elsewhere and link to it
    target = os.path.realpath(overlay.requirements)
    mode = _mode(target)
    tmp = files.write_temp(target, after.to_text(), 0o644 if mode is None else mode, exact=mode is not None)

    def done(keep: bool) -> None:
        if keep:
            files.rename(tmp, target)
            files.fsync_dir(os.path.dirname(target))
        else:
            files.discard(tmp)

    return done


def _mode(path: str) -> int | None:
    """Return a file's mode. A user who hid one from others has reasons, such as a secret in a line."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return None


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
        The storage can't be written to, or the lease was lost. Trying again later is safe.
    """
    files.mark("repair")
    state = "clean"
    path = _journal_path(env)
    try:
        try:
            with open(path, encoding="utf-8") as f:
                journal = json.load(f)
            known = journal["schema"] <= _JOURNAL_SCHEMA
            assert isinstance(journal["steps"], list)
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AssertionError):
            # Journals appear whole. One that is no journal was damaged by something else.
            files.rename(path, f"{path}.damaged-{os.urandom(4).hex()}")
        else:
            if not known:
                raise OverlayError(
                    "busy",
                    "A newer version of overlayspawner left a change unfinished here.",
                    "Start a server with that version once.",
                    status=409,
                )
            if revisions.find_change(overlay, journal["change"], journal["first"]) is not None:
                _finish(overlay, env, journal, lease)
                state = "finished"
            else:
                _undo(env, journal, lease)
                state = "undone"
        _sweep(env, lease)
    except OSError as e:
        raise storage_error(e) from e
    return state


def pending(env: Env) -> bool:
    """Whether an unfinished change waits for repair: one ``stat``."""
    return os.path.lexists(_journal_path(env))


def _journal_path(env: Env) -> str:
    return os.path.join(env.state, _JOURNAL)


def _finish(overlay: Overlay, env: Env, journal: dict[str, Any], lease: Lease) -> None:
    with overlay_lock(overlay):
        lease.check()
        before = Requirements.read(overlay.requirements)
        _prepare_requirements(overlay, before, edited(before, journal["add"], journal["remove"]))(True)
    _purge(env, {path for _, path, _ in journal["steps"] if path.endswith(".py")})
    _close(env, journal)


def _undo(env: Env, journal: dict[str, Any], lease: Lease) -> None:
    places = {path: place for kind, path, place in journal["steps"] if kind == "out"}
    stage = os.path.join(env.state, journal["stage"])
    brought = _brought(env, journal)
    for kind, path, place in reversed(journal["steps"]):
        lease.check()
        here = os.path.join(env.path, path)
        if kind == "in" and brought is not None:
            mine, whole = brought.parts(path)
            # file by file too where an undo that was killed has taken a part already
            at_once = whole and mine and not os.path.lexists(os.path.join(stage, path))
            for part in [path] if at_once else mine:
                _parents(os.path.join(stage, part))
                files.rename(os.path.join(env.path, part), os.path.join(stage, part))
            if not at_once:
                _drop_empty(env, path, mine)
        elif kind == "in":
            there = os.path.join(stage, path)
            old = places.get(path)
            if os.path.lexists(there) or not os.path.lexists(here):
                continue  # never went in, or is out again
            if old is not None and not os.path.lexists(os.path.join(env.state, old)):
                continue  # what stands here is the old one
            _parents(there)
            files.rename(here, there)
        else:
            there = os.path.join(env.state, place)
            if not os.path.lexists(there):
                continue
            if os.path.lexists(here):
                # Something that is not ours came in between. It is kept, not deleted.
                kept = os.path.join(env.state, KEPT, f"{journal['change']}-{os.path.basename(place)}-found")
                _parents(kept)
                files.rename(here, kept)
            _parents(here)
            files.rename(there, here)
    _purge(env, {path for _, path, _ in journal["steps"] if path.endswith(".py")})
    _close(env, journal)


def _drop_empty(env: Env, path: str, gone: list[str]) -> None:
    """Remove the directories that files were taken out of, from the deepest up to ``path``."""
    _purge(env, {part for part in gone if part.endswith(".py")})
    folders = set()
    for part in gone:
        while part != path:
            part = os.path.dirname(part)
            folders.add(part)
    for folder in sorted(folders, key=len, reverse=True):
        files.rmdir(os.path.join(env.path, folder))


def _brought(env: Env, journal: dict[str, Any]) -> Brought | None:
    """Return what tells the change's files; ``None`` for a journal or a storage that can't.

    Some file systems give other inodes after each mount. The stage's own shows it.
    """
    inode = _inode(os.path.join(env.state, journal["stage"]))
    if not journal.get("files") or not inode or journal.get("stage_inode") != inode:
        return None
    try:
        since = os.stat(_journal_path(env)).st_mtime_ns
    except FileNotFoundError:
        return None  # nothing was moved yet
    return Brought(env, journal["files"], since)


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _close(env: Env, journal: dict[str, Any]) -> None:
    files.fsync_dir(env.site_packages)
    files.unlink(_journal_path(env))
    files.fsync_dir(env.state)
    for folder in (SET_ASIDE, KEPT):
        files.rmdir(os.path.join(env.state, folder, journal["change"]))  # only if it is empty
    if journal["stage"]:
        files.remove_tree(os.path.join(env.state, journal["stage"].split("/")[0]))


def _parents(path: str) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _parents(parent)
        files.mkdir(parent)


def _purge(env: Env, modules: set[str]) -> None:
    """Remove the compiled copies of modules that were moved.

    Python takes a ``.pyc`` for current when the source has the size and the second it was compiled from: two
    versions of a module with the same size, unpacked in one second, would give the old code.
    """
    by_dir: dict[str, set[str]] = {}
    for path in modules:
        folder, name = os.path.split(path)
        by_dir.setdefault(folder, set()).add(name[:-3])
    for folder, stems in by_dir.items():
        pycache = os.path.join(env.path, folder, "__pycache__")
        try:
            names = os.listdir(pycache)
        except OSError:
            continue
        mine = [n for n in names if n.endswith(".pyc") and n.split(".")[0] in stems]
        for name in mine:
            files.unlink(os.path.join(pycache, name))
        if len(mine) == len(names):
            files.rmdir(pycache)


def _sweep(env: Env, lease: Lease) -> None:
    """Remove stages and temporary files of writers that are gone."""
    lease.check()
    for name in os.listdir(env.state):
        if name.startswith(STAGES) or name.endswith(".tmp"):
            files.remove_tree(os.path.join(env.state, name))


def prune(env: Env, keep: int = KEEP) -> None:
    """Delete the oldest set-aside files, all but those of the latest ``keep`` changes."""
    root = os.path.join(env.state, SET_ASIDE)
    try:
        names = sorted(os.listdir(root))
    except OSError:
        return
    for name in names[:-keep] if keep else names:
        files.remove_tree(os.path.join(root, name))
