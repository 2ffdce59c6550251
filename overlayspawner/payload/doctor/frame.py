"""The env itself: the files that make a directory a venv, its interpreter, unfinished changes."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Optional

from overlayspawner.payload import change, files, lease, procs, space
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.doctor.common import FIX, Check, aside, check, some
from overlayspawner.payload.moves import SET_ASIDE
from overlayspawner.payload.overlay import BASE_PTH, Env, Overlay, make_env

PYTHON_TIMEOUT = 30.0
"""Seconds the overlay's interpreter may take to start."""

_TEMPORARY = (change.STAGES, ".new-", ".doctor-")
_OLD = 60.0
"""Seconds after which a temporary file counts as left behind."""


def env_check(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """Whether the env is there and whole, as far as looking tells."""
    if not os.path.lexists(env.path):
        return check(
            "env", False, "This image has no environment yet.", f"Restart your server, or run: {_FIX_COMMAND}"
        )
    if not os.path.isdir(env.path):
        return check("env", False, f"{env.path} is no directory.", _REBUILD)
    if not os.path.isdir(env.site_packages):
        return check("env", False, f"{env.path} is damaged: its directory of packages is missing.", _REBUILD)
    bad = damaged(ctx, overlay, env)
    if bad:
        return check("env", False, f"{env.path} is damaged: {some(bad)}.", FIX)
    return check("env", True, f"It is at {env.path}.")


_FIX_COMMAND = "overlay doctor --fix"
_REBUILD = f"{FIX} (it is moved aside and built again from what you asked for)"


def damaged(ctx: Context, overlay: Overlay, env: Env) -> list[str]:
    """Return what is wrong with the files that make the env a venv, in words."""
    base = ctx.base
    out = []
    if os.path.lexists(env.state) and not os.path.isdir(env.state):
        out.append(f"{env.state} is no directory")
    settings = _settings(os.path.join(env.path, "pyvenv.cfg"))
    if settings is None:
        out.append("pyvenv.cfg is missing or empty")
    elif settings.get("home") != os.path.dirname(base.interpreter):
        out.append("pyvenv.cfg names another Python")
    for path in _interpreters(env):
        if not os.path.lexists(path):
            out.append(f"{os.path.basename(path)} is missing")
        elif not os.path.exists(path):
            out.append(f"{os.path.basename(path)} leads to a Python that does not exist in this image")
        elif not _is_interpreter(path):
            out.append(f"{os.path.basename(path)} can't be run")
    for path in _scripts(overlay, env, ctx):
        if _is_empty(path):
            out.append(f"{os.path.basename(path)} is missing or empty")
    return out


def _interpreters(env: Env) -> list[str]:
    return [env.python, os.path.join(env.bin, "python3"), os.path.join(env.bin, "python" + env.version)]


def _scripts(overlay: Overlay, env: Env, ctx: Context) -> list[str]:
    out = [os.path.join(env.bin, "pip"), os.path.join(env.bin, "pip3"), os.path.join(env.path, "pip.conf")]
    if overlay.kind == "overlay" and ctx.base.is_venv:
        out.append(os.path.join(env.site_packages, BASE_PTH))
    return out


def _settings(path: str) -> Optional[dict[str, str]]:
    """Return what ``pyvenv.cfg`` says, or ``None`` when it says nothing."""
    try:
        if not os.path.isfile(path):
            return None
        with open(path, encoding="utf-8") as f:
            lines = [line.partition("=") for line in f.read(65_536).splitlines()]
    except (OSError, UnicodeDecodeError):
        return None
    found = {key.strip().lower(): value.strip() for key, equals, value in lines if equals}
    return found if "home" in found else None


def _is_interpreter(path: str) -> bool:
    """Whether it is the link that we make, to something that runs."""
    return os.path.islink(path) and os.path.isfile(path) and os.access(path, os.X_OK)


def _is_empty(path: str) -> bool:
    """Whether a small file of ours holds nothing, or no text: a crash leaves zeros or other bytes."""
    try:
        if not os.path.isfile(path):
            return True  # opening a pipe would never end
        with open(path, "rb") as f:
            text = f.read(65_536).decode()
    except (OSError, UnicodeDecodeError):
        return True
    return not text.strip("\0 \r\n\t") or "\0" in text


def mend_env(ctx: Context, overlay: Overlay) -> list[str]:
    """Make the env a venv again, or a new one where nothing is left of it.

    Raises
    ------
    OverlayError
        ``busy`` when another server changes it, or what the storage says.
    """
    env = overlay.env(ctx.base)
    done: list[str] = []
    try:
        if os.path.lexists(env.path) and not (os.path.isdir(env.path) and os.path.isdir(env.site_packages)):
            if os.path.isdir(env.state):
                lease.acquire(env, who="doctor").release()
            done.append(f"What was left of the environment was moved to {aside(env.path)}.")
        if not os.path.lexists(env.path):
            overlay.create(ctx.base)
            done.append("A new environment was made.")
        elif damaged(ctx, overlay, env):
            done += _mend_frame(ctx, overlay, env)
    except OSError as e:
        raise lease.storage_error(e) from e
    return done


def _mend_frame(ctx: Context, overlay: Overlay, env: Env) -> list[str]:
    """Put the files of a new env in the place of those that are damaged. Packages stay."""
    if os.path.lexists(env.state) and not os.path.isdir(env.state):
        aside(env.state)
    files.mkdir(env.state)
    bad = damaged(ctx, overlay, env)
    with lease.acquire(env, who="doctor"):
        fresh = Env(os.path.join(overlay.envs, f".new-mend-{os.urandom(4).hex()}"), env.version)
        try:
            make_env(fresh.path, env.path, ctx.base, kind=overlay.kind)
            files.mkdir(env.bin)
            settings = _settings(os.path.join(env.path, "pyvenv.cfg")) or {}
            if settings.get("home") != os.path.dirname(ctx.base.interpreter):
                _replace(fresh, env, os.path.join(env.path, "pyvenv.cfg"))
            for path in _interpreters(env):
                if not _is_interpreter(path):
                    _replace(fresh, env, path)
            for path in _scripts(overlay, env, ctx):
                if _is_empty(path):
                    _replace(fresh, env, path)
        finally:
            files.remove_tree(fresh.path)
    return [f"The environment was mended: {some(bad)}."]


def _replace(fresh: Env, env: Env, path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        aside(path)
    files.rename(os.path.join(fresh.path, os.path.relpath(path, env.path)), path)


def interpreter(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """Whether the overlay's Python starts and is what it should be."""
    lines: list[str] = []
    try:
        result = procs.run(
            # not isolated: what a package's .pth files do at start is part of the question
            [env.python, "-c", "import sys; print(sys.prefix, sys.version_info[0], sys.version_info[1])"],
            timeout=PYTHON_TIMEOUT,
            on_line=lines.append,
        )
    except OSError as e:
        return check("interpreter", False, f"{env.python} can't be run: {e.strerror}.", FIX)
    if result.timed_out:
        return check("interpreter", False, "The overlay's Python does not get ready.", _PTH + _suspects(env))
    if result.rc != 0:
        said = lines[-1] if lines else f"it ended with {result.rc} and said nothing"
        return check(
            "interpreter", False, f"The overlay's Python does not start ({said}).", _PTH + _suspects(env)
        )
    expected = f"{env.path} {ctx.base.version.replace('.', ' ')}"
    said = lines[-1] if lines else "nothing"
    if expected not in lines and os.path.realpath(said.split(" ")[0]) != os.path.realpath(env.path):
        return check("interpreter", False, f"The overlay's Python says it is {said}.", FIX)
    return check("interpreter", True, f"Python {ctx.base.version} starts.")


_PTH = "A package with a .pth file is the usual cause; uninstall what you installed last"


def _suspects(env: Env) -> str:
    """Name the ``.pth`` files that run code at every start."""
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(env.site_packages)):
            if name.endswith(".pth") and name != BASE_PTH:
                with open(os.path.join(env.site_packages, name), "rb") as f:
                    if any(
                        line.startswith((b"import ", b"import\t")) for line in f.read(65_536).splitlines()
                    ):
                        found.append(name)
    return f". Such files here: {some(found)}." if found else "."


def unfinished(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """Whether a change was interrupted, or left something behind."""
    if lease.holder(env):
        return check("unfinished", True, "A change is going on right now.")
    if change.pending(env):
        return check(
            "unfinished",
            False,
            "A change was interrupted in the middle.",
            f"{FIX} (the next change repairs it too)",
        )
    left = [os.path.basename(path) for path in left_behind(overlay, env)]
    if left:
        return check("unfinished", False, f"Left behind: {some(left)}.", FIX)
    return check("unfinished", True, "No change was interrupted.")


def left_behind(overlay: Overlay, env: Env) -> list[str]:
    """Return the temporary files of writers that are gone.

    Outside the env, which one lease guards, they may be another server's of this very moment: those count
    after a minute.
    """
    out = []
    folders = (env.state, overlay.path, overlay.revisions, overlay.envs)
    for folder in [folder for folder in folders if not os.path.islink(folder)]:  # not what is the user's
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(folder)):
                path = os.path.join(folder, name)
                if not (name.endswith(".tmp") or name.startswith(_TEMPORARY)):
                    continue
                if folder == env.state or time.time() - os.lstat(path).st_mtime > _OLD:
                    out.append(path)
    return out


def mend_unfinished(ctx: Context, overlay: Overlay, env: Env, held: lease.Lease) -> list[str]:
    """Finish or undo what was interrupted, and clear up."""
    left = left_behind(overlay, env)
    state = change.repair(overlay, env, held)
    done = [] if state == "clean" else [f"A change that was interrupted is {state}."]
    with lease.overlay_lock(overlay):
        for path in left:
            files.remove_tree(path)
    if left:
        done.append(f"What was left behind was deleted: {some([os.path.basename(p) for p in left])}.")
    return done


def kept(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """Whether more is kept for undoing than should be."""
    try:
        count = len(os.listdir(os.path.join(env.state, SET_ASIDE)))
    except OSError:
        count = 0
    if count > space.KEEP:
        return check(
            "kept", False, f"The replaced files of {count} changes are kept; {space.KEEP} would do.", FIX
        )
    changes = "1 change" if count == 1 else f"{count} changes"
    return check("kept", True, f"The replaced files of {changes} are kept for undoing.")


def mend_kept(ctx: Context, overlay: Overlay, env: Env, held: lease.Lease) -> list[str]:
    """Delete the oldest of what is kept for undoing."""
    if kept(ctx, overlay, env)["ok"]:
        return []
    space.prune(overlay, env)
    return ["The oldest replaced files were deleted: these changes can't be undone offline any more."]


def writer(ctx: Context, overlay: Overlay, env: Env) -> Check:
    """Who is changing the overlay, and whether one server can keep another from it."""
    try:
        who = lease.holder(env)
    except (OverlayError, OSError) as e:
        return check("lease", False, f"Who changes the overlay can't be told: {e}", FIX)
    if who:
        return check("lease", True, f"{who} is changing the overlay right now.")
    works = getattr(lease, "locks_work", None)
    if works is not None and not works(env):
        return check(
            "lease",
            True,
            "This storage can't lock files: change the overlay from one server at a time. Nobody does now.",
        )
    return check("lease", True, "Nobody is changing the overlay.")
