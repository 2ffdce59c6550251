"""The end of a change that was begun: finished, or undone, from its journal. Both can be repeated."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from typing import Any

from overlayspawner.payload import files, journal, space
from overlayspawner.payload.lease import Lease, overlay_lock
from overlayspawner.payload.moves import KEPT, SET_ASIDE, Brought
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.requirements import Requirements, parse

Entry = dict[str, Any]
"""A journal's content."""


def edited(before: Requirements, add: Iterable[str], remove: Iterable[str]) -> Requirements:
    """Return requirements with lines set and removed. Doing it twice is the same as once."""
    after = before
    for name in remove:
        after = after.with_removed(name)
    return after.with_asked(parse(text, trusted=True) for text in add)


def prepare_requirements(
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


def source(entry: Entry, path: str, place: str) -> str:
    """Return where a path that comes in comes from, relative to ``Env.state``."""
    return place or os.path.join(entry["stage"], path)


def finish(overlay: Overlay, env: Env, entry: Entry, lease: Lease) -> None:
    """Do what is left of a change whose revision is written.

    Raises
    ------
    OSError, OverlayError
        The storage failed, or the lease was lost; the journal stays.
    """
    with overlay_lock(overlay):
        lease.check()
        before = Requirements.read(overlay.requirements)
        after = edited(before, entry["add"], entry["remove"])
        prepare_requirements(overlay, before, after)(True)
        _remember(overlay, entry, after)
    purge(env, _modules(entry))
    _drop_hollow(env, entry)
    if not entry.get("keep", True):
        space.empty_place(env, f"{SET_ASIDE}/{entry['change']}")
    # what it came from is used up, but for compiled copies and empty directories
    used = {"/".join(place.split("/")[:2]) for kind, _, place in entry["steps"] if kind == "in" and place}
    for folder in used:
        for name in _list(os.path.join(env.state, folder)):
            _remove_hollow(os.path.join(env.state, folder, name))
        files.rmdir(os.path.join(env.state, folder))
    _close(env, entry)


def _remember(overlay: Overlay, entry: Entry, after: Requirements) -> None:
    """Keep the copy that later edits by hand are told from."""
    from overlayspawner.payload import merge

    action, add, remove = entry.get("action", ""), entry["add"], entry["remove"]
    done = merge.realised(merge.last(overlay), action, after, add, remove, entry.get("again"))
    merge.save(overlay, done)


def undo(env: Env, entry: Entry, lease: Lease, *, keep_stage: bool = False) -> None:
    """Take back what a change without a revision has done.

    Parameters
    ----------
    keep_stage:
        Leave the stage, for another try.

    Raises
    ------
    OSError, OverlayError
        The storage failed, or the lease was lost; the journal stays.
    """
    places = {path: place for kind, path, place in entry["steps"] if kind == "out"}
    lease.check()
    brought = _brought(env, entry)
    touched = set()
    for kind, path, place in reversed(entry["steps"]):
        lease.check()
        here = os.path.join(env.path, path)
        touched.add(os.path.dirname(here))
        if kind == "in":
            there = os.path.join(env.state, source(entry, path, place))
            touched.add(os.path.dirname(there))
            old = places.get(path)
            if brought is not None:
                _return_parts(env, brought, path, there)
            elif os.path.lexists(there) or not os.path.lexists(here):
                continue  # never went in, or is out again
            elif old is not None and not os.path.lexists(os.path.join(env.state, old)):
                continue  # what stands here is the old one
            else:
                _parents(there)
                files.rename(here, there)
        elif kind == "dir":
            _remove_hollow(here)
        else:
            there = os.path.join(env.state, place)
            if not os.path.lexists(there):
                continue
            if os.path.lexists(here):
                # Something that is not ours came in between. It is kept, not deleted.
                kept = os.path.join(env.state, KEPT, f"{entry['change']}-{os.path.basename(place)}-found")
                _parents(kept)
                files.rename(here, kept)
            _parents(here)
            files.rename(there, here)
    purge(env, _modules(entry))
    for folder in touched:
        files.fsync_dir(folder)
    _close(env, {**entry, "stage": ""} if keep_stage else entry)


def _return_parts(env: Env, brought: Brought, path: str, there: str) -> None:
    mine, whole = brought.parts(path)
    # file by file too where an undo that was killed has taken a part already
    at_once = whole and bool(mine) and not os.path.lexists(there)
    for part in [path] if at_once else mine:
        target = there + part[len(path) :]
        _parents(target)
        files.rename(os.path.join(env.path, part), target)
    if not at_once:
        _drop_empty(env, path, mine)


def _drop_empty(env: Env, path: str, gone: list[str]) -> None:
    """Remove the directories that files were taken out of, from the deepest up to ``path``."""
    purge(env, {part for part in gone if part.endswith(".py")})
    folders = set()
    for part in gone:
        while part != path:
            part = os.path.dirname(part)
            folders.add(part)
    for folder in sorted(folders, key=len, reverse=True):
        files.rmdir(os.path.join(env.path, folder))


def _brought(env: Env, entry: Entry) -> Brought | None:
    """Return what tells the change's files; ``None`` for a journal or a storage that can't.

    Some file systems give other inodes after each mount. One of a directory that is older shows it.
    """
    anchor = inode(os.path.join(env.state, str(entry.get("anchor", entry["stage"]))))
    if not entry.get("files") or not anchor or entry.get("stage_inode") != anchor:
        return None
    since = journal.since(env)
    if since is None:
        return None  # nothing was moved yet
    return Brought(env, entry["files"], since)


def inode(path: str) -> int:
    """Return the inode of a path, 0 where there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _modules(entry: Entry) -> set[str]:
    return {path for _, path, _ in entry["steps"] if path.endswith(".py")}


def _close(env: Env, entry: Entry) -> None:
    files.fsync_dir(env.site_packages)
    journal.clear(env)
    for folder in (SET_ASIDE, KEPT):
        files.rmdir(os.path.join(env.state, folder, entry["change"]))  # only if it is empty
    if entry["stage"]:
        files.remove_tree(os.path.join(env.state, entry["stage"].split("/")[0]))


def _parents(path: str) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _parents(parent)
        files.mkdir(parent)


def _drop_hollow(env: Env, entry: Entry) -> None:
    """Remove the directories that files were taken out of and that hold nothing any more.

    To Python an empty directory is a namespace package that can be imported.
    """
    site = os.path.relpath(env.site_packages, env.path)
    fixed = {"", "bin", "lib", os.path.dirname(site), site}
    folders = {os.path.dirname(path) for kind, path, _ in entry["steps"] if kind == "out"}
    for folder in sorted(folders, key=len, reverse=True):
        while folder not in fixed and _remove_hollow(os.path.join(env.path, folder)):
            folder = os.path.dirname(folder)


def _remove_hollow(path: str) -> bool:
    """Remove a directory that holds nothing but compiled copies without their modules."""
    if os.path.islink(path) or not os.path.isdir(path) or not is_hollow(path):
        return False
    files.remove_tree(path)
    return True


def is_hollow(path: str) -> bool:
    """Whether a directory holds no file that anyone could miss. The walk ends at the first such file."""
    try:
        names = os.listdir(path)
    except OSError:
        return False
    for name in names:
        full = os.path.join(path, name)
        if os.path.islink(full) or not os.path.isdir(full):
            if os.path.basename(path) != "__pycache__" or not name.endswith(".pyc"):
                return False
            if os.path.lexists(os.path.join(os.path.dirname(path), name.split(".")[0] + ".py")):
                return False
        elif not is_hollow(full):
            return False
    return True


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def purge(env: Env, modules: set[str]) -> None:
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
        names = _list(pycache)
        mine = [n for n in names if n.endswith(".pyc") and n.split(".")[0] in stems]
        for name in mine:
            files.unlink(os.path.join(pycache, name))
        if mine and len(mine) == len(names):
            files.rmdir(pycache)
        elif mine:
            files.fsync_dir(pycache)
