"""The packages of an env: broken-off installations, missing and empty files, compiled modules, dead links."""

from __future__ import annotations

import marshal
import os
from importlib.util import MAGIC_NUMBER
from typing import Optional

from overlayspawner.payload import adopt, dists, files, leftovers, lockfile
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.doctor.common import FIX, Check, Say, Walk, check, some
from overlayspawner.payload.overlay import Env, Overlay

_HEADER = 16
"""Bytes before the code in a compiled module."""


def incomplete(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """Whether an interrupted tool left something half done."""
    bad = [f"{d.name} {d.version}" for d in dists.listing(env.site_packages) if is_partial(d)]
    bad += sorted(os.path.basename(item["path"]) for item in _renamed(env))
    bad += [f"{name} (its metadata is gone)" for name in adopt.missing(ctx)]
    if bad:
        return check("incomplete", False, f"Not completely installed: {some(bad)}.", FIX)
    return check("incomplete", True, "All packages are completely installed.")


def is_partial(dist: dists.Dist) -> bool:
    """Whether a distribution's own metadata is damaged."""
    if dist.is_egg:
        return False
    return leftovers.is_partial(dist) or dists.record_rows(dist) is None or _is_blank(dist.metadata_file())


def _renamed(env: Env) -> list[dict[str, str]]:
    return [item for item in leftovers.leftovers(env) if item["kind"] == "renamed"]


def mend_renamed(env: Env) -> list[str]:
    """Set aside what pip had renamed to ``~name`` when it was interrupted. The caller holds the lease."""
    found = _renamed(env)
    for item in found:
        leftovers.set_aside(env, item["path"])
    if not found:
        return []
    names = some([os.path.basename(item["path"]) for item in found])
    return [f"What an interrupted pip had left was set aside: {names}."]


def missing_files(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """Whether all files of all packages are there, and hold something."""
    bad = broken(env)
    if bad:
        shown = [f"{name} ({count} files)" for name, count in sorted(bad.items())]
        return check("files", False, f"Files are missing or empty: {some(shown)}.", FIX)
    return check("files", True, "All files of the packages are there.")


def broken(env: Env) -> dict[str, int]:
    """Return how many files each damaged distribution lacks. Partial ones are left out: another check's."""
    out: dict[str, int] = {}
    for dist in dists.listing(env.site_packages):
        if is_partial(dist):
            continue
        count = sum(_is_bad(env, dist, path, size) for path, size in dists.record(dist))
        if count:
            out[dist.name] = count
    return out


def _is_bad(env: Env, dist: dists.Dist, path: str, size: int) -> bool:
    full = os.path.normpath(os.path.join(dist.site, path))
    # compiled files come and go; what lies outside the env is no file of ours
    if path.endswith(".pyc") or not full.startswith(env.path + os.sep):
        return False
    try:
        info = os.stat(full)
    except OSError:
        # also for a link that leads nowhere
        return True
    if size and not info.st_size:
        return True
    # a machine that crashes leaves files of the right size that hold zeros
    return bool(size) and path.endswith(".py") and info.st_size == size and _is_blank(full)


def _is_blank(path: str) -> bool:
    try:
        with open(path, "rb") as f:
            return not f.read(512).strip(b"\0")
    except OSError:
        return True


def damaged(env: Env) -> list[str]:
    """Return the names of the distributions that have to be installed again."""
    partial = [d.name for d in dists.listing(env.site_packages) if is_partial(d)]
    return sorted({*partial, *broken(env)})


def bytecode(env: Env, walk: Walk) -> Check:
    """Whether all compiled modules are whole: Python fails at a truncated one for ever."""
    bad = bad_bytecode(walk)
    if bad:
        shown = some([os.path.relpath(path, env.path) for path in bad])
        return check("bytecode", False, f"Compiled modules are damaged: {shown}.", FIX)
    return check("bytecode", True, f"{len(walk.compiled)} compiled modules are whole.")


def bad_bytecode(walk: Walk, say: Optional[Say] = None) -> list[str]:
    """Return the compiled modules that can't be read; those of another Python are judged by length only."""
    out = []
    for n, path in enumerate(walk.compiled):
        if say is not None and n and n % 10_000 == 0:
            say(f"{n:,} compiled modules looked at.")
        if _is_bad_pyc(path):
            out.append(path)
    return out


def _is_bad_pyc(path: str) -> bool:
    try:
        with open(path, "rb") as f:
            raw = f.read()
    except OSError:
        return False
    if len(raw) <= _HEADER:
        return True
    if raw[:4] != MAGIC_NUMBER:
        # some other Python's, or no compiled module at all; Python looks at it no further either
        return not raw.strip(b"\0")
    try:
        marshal.loads(raw[_HEADER:])  # noqa: S302  # what Python itself does with it; the code is not run
    except Exception:  # one wrong byte may give anything: SystemError, MemoryError
        return True
    return False


def mend_bytecode(walk: Walk) -> list[str]:
    """Remove damaged compiled modules: Python makes them again."""
    bad = bad_bytecode(walk)
    for path in bad:
        files.unlink(path)
    return [f"{len(bad)} damaged compiled modules were removed."] if bad else []


def links(env: Env, walk: Walk) -> Check:
    """Whether all links among the packages lead somewhere."""
    if walk.dangling:
        shown = some([os.path.relpath(path, env.path) for path in walk.dangling])
        return check("links", False, f"Links that lead nowhere: {shown}.", FIX)
    return check("links", True, "No link leads nowhere.")


def mend_links(env: Env, walk: Walk) -> list[str]:
    """Set aside links that lead nowhere. The caller holds the lease."""
    for path in walk.dangling:
        leftovers.set_aside(env, path)
    return [f"{len(walk.dangling)} links that lead nowhere were set aside."] if walk.dangling else []


def lock(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """Whether the lock can be read; one that is behind is written again by the next change."""
    if unreadable_locks(overlay, env):
        return check("lock", False, "pylock.toml is damaged.", FIX)
    if not lock_fits(overlay, env):
        return check("lock", True, "pylock.toml is that of an earlier change.")
    return check("lock", True, "pylock.toml says what is installed.")


def unreadable_locks(overlay: Overlay, env: Env) -> list[str]:
    """Return the copies of the lock that are there and none."""
    out = []
    for path in (env.lock_file, lockfile.path(overlay, env)):
        try:
            lockfile.read(path)
        except FileNotFoundError:
            continue
        except (OSError, OverlayError):
            out.append(path)
    return out


def lock_fits(overlay: Overlay, env: Env) -> bool:
    """Whether the lock is that of the latest change, and lists the packages that are there."""
    if lockfile.stale(overlay, env):
        return False
    found = lockfile.find(overlay, env)
    there = {name: dist.version for name, dist in dists.overlay_dists(env).items()}
    return {name: item.version for name, item in found.packages.items()} == there if found else not there


def mend_lock(ctx: Context, overlay: Overlay, env: Env) -> list[str]:
    """Write the lock again. The caller holds the lease."""
    bad = unreadable_locks(overlay, env)
    for path in bad:
        if os.path.isdir(path) and not os.path.islink(path):
            leftovers.set_aside(env, path)
    if not bad and lock_fits(overlay, env):
        return []
    return ["pylock.toml was written again."] if lockfile.write(ctx, env) else []
