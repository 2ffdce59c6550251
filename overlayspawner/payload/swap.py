"""Puts one folder's content in the place of an overlay's, all or nothing: what a reset and its undoing share.

Everything is a rename on one file system. A journal (``OVERLAY/swap.json``) says first what is going to be
moved; whoever finds it later finishes the work. What stands in the way is moved aside, nothing is deleted::

    journal → what is there goes out, name by name → what replaces it comes in → journal gone

The overlay's directory stays where it is: it may be a mount point or a link, and servers have it open.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from overlayspawner.payload import files
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.lease import Lease, acquire, overlay_lock, storage_error
from overlayspawner.payload.overlay import Env, Overlay

JOURNAL = "swap.json"
SCHEMA = 1

STAGE = ".swap-"
"""Start of the name of a folder in which what comes in is prepared."""

KEPT = (".lock", "starts.json", "next-start.json", JOURNAL, ".reset", ".cache")
"""What stays where it is: what tells starts and writers apart, and a cache that any content can use."""


def content(path: str) -> list[str]:
    """Return the names of what belongs to an overlay, or to one that was moved aside.

    The envs come first: when they are gone, nobody begins a change of what is left.

    Raises
    ------
    OSError
        It can't be listed.
    """
    names = [n for n in os.listdir(path) if n not in KEPT and not n.startswith(STAGE) and n[-4:] != ".tmp"]
    return sorted(names, key=lambda name: (name != "envs", name))


def pending(path: str) -> bool:
    """Whether a swap was begun and not finished: one ``stat``."""
    return os.path.lexists(os.path.join(path, JOURNAL))


class Moves:
    """What goes out and what comes in.

    Parameters
    ----------
    overlay:
        Whose content is replaced.
    away:
        The folder that takes what goes out; made when it is needed.
    coming:
        The folder from which the new content comes.
    local:
        ``[path, away, coming]`` of an env that lives outside the overlay.
    """

    def __init__(
        self, overlay: Overlay, away: str, coming: str, local: Iterable[tuple[str, str, str]] = ()
    ) -> None:
        self.overlay = overlay
        self.away = away
        self.coming = coming
        out, back = content(overlay.path), content(coming)
        self.out = [(os.path.join(overlay.path, n), os.path.join(away, n)) for n in out]
        self.out += [(path, there) for path, there, _ in local]
        self.back = [(os.path.join(coming, n), os.path.join(overlay.path, n)) for n in back]
        self.back += [(new, path) for path, _, new in local]

    def run(self, leases: list[Lease]) -> None:
        """Make the moves.

        Raises
        ------
        OSError
            The storage failed, and all is as it was (or the next writer makes the moves).
        """
        path = os.path.join(self.overlay.path, JOURNAL)
        data = {
            "schema": SCHEMA,
            "away": self._relative(self.away),
            "coming": self._relative(self.coming),
            "out": [[self._relative(a), self._relative(b)] for a, b in self.out],
            "back": [[self._relative(a), self._relative(b)] for a, b in self.back],
        }
        files.mark("swap")
        files.write_atomic(path, json.dumps(data) + "\n", 0o600)
        files.fsync_dir(self.overlay.path)
        try:
            _make(self.overlay.path, self.away, self.coming, self.out, self.back)
        except BaseException:
            with contextlib.suppress(OSError):  # else the journal stays, and the next writer goes forward
                _unmake(self.overlay.path, self.away, self.coming, self.out, self.back)
                files.unlink(path)
            raise
        for lease in leases:
            for old, new in (*self.out, *self.back):
                if lease.path.startswith(old + os.sep):
                    lease.path = new + lease.path[len(old) :]
                    break
        # All is done. A journal that can't be removed now is found, and means nothing any more.
        with contextlib.suppress(OSError):
            files.unlink(path)
            files.fsync_dir(self.overlay.path)

    def _relative(self, path: str) -> str:
        return _relative(self.overlay, path)


def begin(overlay: Overlay, temporary: Iterable[str]) -> None:
    """Say what is going to be made in preparation of a swap, so that whoever comes after a crash removes it.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    data = {"schema": SCHEMA, "temporary": [_relative(overlay, path) for path in temporary]}
    files.mark("swap")
    _sweep(overlay.path)
    files.write_atomic(os.path.join(overlay.path, JOURNAL), json.dumps(data) + "\n", 0o600)


def _sweep(path: str) -> None:
    """Remove journals that were being written when their writer died; only for who holds the leases."""
    for name in os.listdir(path):
        if name.startswith(JOURNAL + ".") and name.endswith(".tmp"):
            files.remove_tree(os.path.join(path, name))


def abandon(overlay: Overlay, temporary: Iterable[str]) -> None:
    """Remove what was prepared for a swap that failed, unless the next writer has to finish it."""
    data = _read(os.path.join(overlay.path, JOURNAL))
    if data is not None and "out" in data:
        return
    for path in temporary:
        files.remove_tree(path)
    files.remove_tree(os.path.join(overlay.path, JOURNAL))


def _relative(overlay: Overlay, path: str) -> str:
    # relative, since another image may mount the storage elsewhere; what is outside vanishes with its
    # container, and is not looked for in another
    root = os.path.dirname(overlay.path)
    return os.path.relpath(path, overlay.path) if path.startswith(root + os.sep) else path


def _read(path: str) -> dict[str, Any] | None:
    """Return a journal, ``None`` where there is none; what is no journal is empty."""
    try:
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return data if isinstance(data, dict) and data.get("schema") == SCHEMA else {}


def _make(root: str, away: str, coming: str, out: list[tuple[str, str]], back: list[tuple[str, str]]) -> None:
    if not os.path.isdir(away):
        parent = os.path.dirname(away)
        files.mkdir(parent)
        files.mkdir(away)
        files.fsync_dir(parent)
    for here, there in out:
        if not os.path.lexists(there) and os.path.lexists(here):
            files.rename(here, there)
    files.fsync_dir(away)
    files.fsync_dir(root)
    for there, here in back:
        if not os.path.lexists(there):
            continue
        if os.path.lexists(here):
            # came in between, from a server that started: kept, not deleted
            name = f"{os.path.basename(here)}-found-{os.urandom(4).hex()}"
            files.rename(here, os.path.join(away, name))
        files.rename(there, here)
    files.fsync_dir(root)
    files.rmdir(coming)


def _unmake(
    root: str, away: str, coming: str, out: list[tuple[str, str]], back: list[tuple[str, str]]
) -> None:
    if back and not os.path.isdir(coming):
        files.mkdir(coming)
    for there, here in reversed(back):
        if os.path.lexists(here) and not os.path.lexists(there) and _went_out(here, out):
            files.rename(here, there)
    for here, there in reversed(out):
        if os.path.lexists(there) and not os.path.lexists(here):
            files.rename(there, here)
    files.rmdir(away)
    files.fsync_dir(root)


def _went_out(here: str, out: list[tuple[str, str]]) -> bool:
    """Whether what stands here can't be the old one: that is where it was moved to, or there was none."""
    places = dict(out)
    return here not in places or os.path.lexists(places[here])


def mend(overlay: Overlay) -> bool:
    """Finish a swap that was interrupted; return whether there was one.

    Raises
    ------
    OverlayError
        ``busy`` while whoever began it is still at work; the storage's errors.
    """
    path = os.path.join(overlay.path, JOURNAL)
    if not os.path.lexists(path):
        return False
    files.mark("mend")

    def full(text: str) -> str:
        return os.path.normpath(os.path.join(overlay.path, text))

    try:
        data = _read(path)
        if data is None:
            return False
        try:
            temporary = [full(p) for p in data.get("temporary", [])]
            out = [(full(a), full(b)) for a, b in data.get("out", [])]
            back = [(full(a), full(b)) for a, b in data.get("back", [])]
            away, coming = (full(data[k]) if "out" in data else "" for k in ("away", "coming"))
            known = bool(data)
        except (KeyError, TypeError, ValueError):
            known = False
        if not known:
            # Journals appear whole. One that is no journal was damaged by something else.
            files.rename(path, f"{path}.damaged-{os.urandom(4).hex()}")
            return False
        with leases_of([overlay.path, *([away, coming] if away else [])], "mending a reset"):
            if _read(path) != data:
                return True  # whoever was at work has finished
            if away:
                _make(overlay.path, away, coming, out, back)
            for name in temporary:
                files.remove_tree(name)
            files.unlink(path)
            files.fsync_dir(overlay.path)
            _sweep(overlay.path)
    except OSError as e:
        raise storage_error(e) from e
    return True


@contextlib.contextmanager
def leases_of(folders: Iterable[str], who: str, envs: Iterable[Env] = ()) -> Iterator[list[Lease]]:
    """Hold the leases of all envs below some folders, and the overlay's own lock (of the first folder).

    An env that is too damaged to have a lease can't be changed by anybody else either.

    Parameters
    ----------
    folders:
        Overlays, or what was moved aside from one.
    who:
        See :func:`lease.acquire`.
    envs:
        More envs.

    Raises
    ------
    OverlayError
        ``busy``: another server is changing one of them.
    """
    folders = list(folders)
    wanted = {env.path: env for env in envs}
    for folder in folders:
        for path in _env_dirs(os.path.join(folder, "envs")):
            wanted.setdefault(path, Env(path, ""))
    held: list[Lease] = []
    with contextlib.ExitStack() as stack:
        for env in wanted.values():
            if not os.path.isdir(env.path):
                continue
            try:
                held.append(stack.enter_context(acquire(env, who=who)))
            except OverlayError as e:
                if e.code == "busy":
                    raise
        stack.enter_context(overlay_lock(Overlay(folders[0])))
        yield held


def _env_dirs(envs: str) -> list[str]:
    try:
        names = sorted(os.listdir(envs))
    except OSError:
        return []
    return [os.path.join(envs, n) for n in names if os.path.isdir(os.path.join(envs, n, ".overlay"))]
