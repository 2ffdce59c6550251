"""The envs of other images: which there are, and deleting one without what is the user's in it.

An env is renamed first. From then on it is nobody's: a server of its image makes a new one. Files that no
package lists are moved to ``OVERLAY/kept`` before the rest is deleted.
"""

from __future__ import annotations

import contextlib
import os
import re
import time

from overlayspawner.payload import files, lease
from overlayspawner.payload.change import pending
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import listing, record
from overlayspawner.payload.moves import KEPT
from overlayspawner.payload.overlay import BASE_PTH, Env, Overlay
from overlayspawner.payload.sizes import Frees

OLD = ".old-"
NEW = ".new-"
STALE = 3600
"""Seconds after which nobody works on an env that is being made any more: it takes milliseconds."""

_VERSION = re.compile(r"^python(\d+\.\d+t?)$")
_FRAME = ("pyvenv.cfg", "pip.conf", "pylock.toml", "bin/pip", "bin/pip3", "lib64")


def others(overlay: Overlay, env: Env) -> list[Env]:
    """Return the overlay's envs but the one that is used."""
    try:
        names = sorted(os.listdir(overlay.envs))
    except OSError:
        return []
    out = []
    for name in names:
        path = os.path.join(overlay.envs, name)
        if (
            name.startswith(".")
            or os.path.islink(path)
            or os.path.realpath(path) == os.path.realpath(env.path)
        ):
            continue
        found = _env(path)
        if found is not None:
            out.append(found)
    return out


def _env(path: str) -> Env | None:
    """Return the env that a directory is; ``None`` for anything else."""
    try:
        found = [match[1] for match in map(_VERSION.match, os.listdir(os.path.join(path, "lib"))) if match]
    except OSError:
        return None
    return Env(path, found[0]) if len(found) == 1 else None


def obstacle(env: Env) -> str:
    """Say why an env can't be deleted now; ``""`` where it can."""
    if pending(env):
        return "a change in it is unfinished; a server of that image finishes it"
    return ""


def leftovers(overlay: Overlay) -> list[str]:
    """Return what a clean-up or a start that was interrupted has left among the envs."""
    try:
        names = sorted(os.listdir(overlay.envs))
    except OSError:
        return []
    out = []
    for name in names:
        path = os.path.join(overlay.envs, name)
        with contextlib.suppress(OSError):
            if name.startswith(OLD) or (
                name.startswith(NEW) and os.lstat(path).st_mtime < time.time() - STALE
            ):
                out.append(path)
    return out


def remove(overlay: Overlay, path: str) -> tuple[int, str]:
    """Delete an env that nobody changes; return the bytes that are free now, and what was in the way.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    env = _env(path)
    if env is None:
        return 0, "it is no environment"
    try:
        held = lease.acquire(env, who="clean-up")
    except OverlayError as e:
        return 0, "another server is using it" if e.code == "busy" else e.message
    with held:
        why = obstacle(env)
        if why:
            return 0, why
        old = os.path.join(overlay.envs, f"{OLD}{os.path.basename(path)}-{os.urandom(4).hex()}")
        files.rename(path, old)
        files.fsync_dir(overlay.envs)
    return remove_old(overlay, old)


def remove_old(overlay: Overlay, path: str) -> tuple[int, str]:
    """Delete what is nobody's env any more, after moving what is the user's aside.

    Raises
    ------
    OSError
        The storage can't be written to: nothing is lost.
    """
    env = _env(path)
    unknown = _unknown(env) if env is not None else []
    if env is None and not os.path.basename(path).startswith(NEW):
        return 0, "it holds no environment; `overlay clean` does not know what it is"
    if unknown:
        try:
            _keep(overlay, path, unknown)
        except OSError as e:
            return 0, f"files that are not of a package can't be moved aside ({e.strerror})"
    frees = Frees()
    frees.add(path)
    files.step("clean " + path)
    files.remove_tree(path)
    return frees.bytes, ""


def _unknown(env: Env) -> list[str]:
    """Return the paths in an env that are of no package and not ours, relative; directories as a whole."""
    known = {os.path.relpath(os.path.join(env.site_packages, BASE_PTH), env.path), *_FRAME}
    site = os.path.relpath(env.site_packages, env.path)
    metadata = set()
    for dist in listing(env.site_packages):
        metadata.add(os.path.relpath(dist.path, env.path))
        known |= {os.path.normpath(os.path.join(site, path)) for path, _ in record(dist)}
    out: list[str] = []

    def walk(folder: str) -> None:
        for entry in sorted(os.scandir(os.path.join(env.path, folder)), key=lambda e: e.name):
            rel = os.path.normpath(os.path.join(folder, entry.name))
            if rel in known or rel in metadata:
                continue
            if entry.is_dir(follow_symlinks=False):
                if rel == ".overlay":
                    kept = os.path.join(env.path, rel, KEPT)
                    names = sorted(os.listdir(kept)) if os.path.isdir(kept) else []
                    out.extend(os.path.join(rel, KEPT, name) for name in names)
                else:
                    walk(rel)
            elif not _made(rel):
                out.append(rel)

    walk("")
    return out


def _made(rel: str) -> bool:
    """Whether a file can be made again by whoever made it: bytecode, an interpreter's name."""
    folder, name = os.path.split(rel)
    return (os.path.basename(folder) == "__pycache__" and name.endswith(".pyc")) or (
        folder == "bin" and name.startswith("python")
    )


def _keep(overlay: Overlay, path: str, unknown: list[str]) -> None:
    name = os.path.basename(path)[len(OLD) :]
    root = os.path.join(overlay.path, KEPT)
    files.mkdir(root)
    place = os.path.join(root, name)
    files.mkdir(place)
    for rel in unknown:
        folder = place
        for part in os.path.dirname(rel).split(os.sep):
            if part:
                folder = os.path.join(folder, part)
                files.mkdir(folder)
        files.rename(os.path.join(path, rel), os.path.join(place, rel))
    files.fsync_dir(root)
