"""What can be wrong with an overlay, and the repair of what can be repaired.

Each check looks and changes nothing. Only here whole trees are walked: whoever runs the doctor waits for it.
"""

from __future__ import annotations

import os
from typing import Any

from overlayspawner.payload import change, dists, files, lease, procs
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.requirements import Requirements

LITTLE_SPACE = 50_000_000
"""Bytes below which the storage counts as nearly full."""

PYTHON_TIMEOUT = 30.0
"""Seconds the overlay's interpreter may take to start."""

SHOWN = 5
"""Items named in one message."""

Check = dict[str, Any]


def examine(context: Context) -> list[Check]:
    """Look for problems.

    Returns
    -------
    list
        ``{name, ok, message, hint}`` for each check, in the order in which they matter. A check that would
        mean nothing because an earlier one failed is left out.
    """
    overlay = context.overlay
    if overlay is None:
        why = context.notices[-1]["message"] if context.notices else "Nothing was installed yet."
        return [_check("overlay", context.mode == "normal", f"There is no overlay. {why}")]
    checks = [_check("overlay", True, f"It is at {overlay.path}."), _storage(overlay)]
    env = overlay.env(context.base)
    if not os.path.lexists(env.path):
        checks.append(
            _check(
                "env",
                False,
                "This image has no environment yet.",
                "Restart your server, or run: overlay sync",
            )
        )
        return checks
    if not env.usable():
        checks.append(
            _check(
                "env",
                False,
                f"The environment {env.path} is damaged: {_what_is_missing(env)}.",
                "Run: overlay doctor --fix (it is moved aside and built again from requirements.txt)",
            )
        )
        return checks
    checks.append(_check("env", True, f"It is at {env.path}."))
    for look in (_interpreter, _unfinished, _incomplete, _files, _requirements, _writer):
        checks.append(look(context, overlay, env))
    return checks


def fix(context: Context) -> list[str]:
    """Repair what can be repaired; return what was done, a sentence each.

    Raises
    ------
    OverlayError
        ``busy`` when another server is changing the overlay, or why a repair failed.
    """
    done: list[str] = []
    overlay = context.overlay
    if overlay is None:
        return done
    env = overlay.env(context.base)
    if os.path.lexists(env.path) and not env.usable():
        done += _rebuild(context, overlay, env)
    if not env.usable():
        return done
    context.env = env
    with lease.acquire(env, who="doctor") as held:
        state = change.repair(overlay, env, held)
    if state != "clean":
        done.append(f"A change that was interrupted is {state}.")
    return done


def _rebuild(context: Context, overlay: Overlay, env: Env) -> list[str]:
    from overlayspawner.payload.apply import apply

    aside = f"{env.path}.broken-{os.urandom(4).hex()}"
    try:
        files.rename(env.path, aside)
        overlay.create(context.base)
    except OSError as e:
        raise lease.storage_error(e) from e
    done = [f"The damaged environment was moved to {aside}; delete it when you need nothing of it."]
    context.env = env
    apply(context, "sync", who="doctor")
    done.append("A new one was built from requirements.txt.")
    return done


def _check(name: str, ok: bool, message: str, hint: str = "") -> Check:
    return {"name": name, "ok": ok, "message": message, "hint": "" if ok else hint}


def _some(items: list[str]) -> str:
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")


def _storage(overlay: Overlay) -> Check:
    probe = os.path.join(overlay.path, f".doctor-{os.urandom(4).hex()}")
    try:
        files.write_atomic(probe, b"\0" * 4096)
        files.unlink(probe)
    except OSError as e:
        error = lease.storage_error(e)
        files.remove_tree(probe)
        return _check("storage", False, f"{overlay.path} can't be written to: {e.strerror}.", error.hint)
    stat = os.statvfs(overlay.path)
    free = stat.f_bavail * stat.f_frsize
    if free < LITTLE_SPACE:
        return _check(
            "storage",
            False,
            f"Only {free // 1000:,} kB are free.",
            "Delete files you no longer need: Python itself fails in strange ways on a full disk.",
        )
    return _check("storage", True, f"It can be written to; {free // 1_000_000:,} MB are free.")


def _what_is_missing(env: Env) -> str:
    if not os.path.isfile(os.path.join(env.path, "pyvenv.cfg")):
        return "pyvenv.cfg is missing"
    if not os.path.isdir(env.site_packages):
        return "its directory of packages is missing"
    if os.path.islink(env.python) and not os.path.exists(env.python):
        return f"its interpreter {os.readlink(env.python)} does not exist in this image"
    return "its interpreter can't be run"


def _interpreter(context: Context, overlay: Overlay, env: Env) -> Check:
    lines: list[str] = []
    try:
        result = procs.run(
            # not isolated: what a package's .pth files do at start is part of the question
            [env.python, "-c", "import sys; print(sys.prefix, sys.version_info[0], sys.version_info[1])"],
            timeout=PYTHON_TIMEOUT,
            on_line=lines.append,
        )
    except OSError as e:
        return _check(
            "interpreter", False, f"{env.python} can't be run: {e.strerror}.", "Run: overlay doctor --fix"
        )
    expected = f"{env.path} {context.base.version.replace('.', ' ')}"
    if result.rc != 0 or result.timed_out:
        said = lines[-1] if lines else "it said nothing"
        return _check(
            "interpreter",
            False,
            f"The overlay's Python does not start ({said}).",
            "A package with a .pth file is the usual cause; uninstall what you installed last.",
        )
    if expected not in lines:
        return _check(
            "interpreter",
            os.path.realpath(env.path) == os.path.realpath((lines or [""])[-1].split(" ")[0]),
            f"The overlay's Python says it is {(lines or ['nothing'])[-1]}.",
            "Run: overlay doctor --fix",
        )
    return _check("interpreter", True, f"Python {context.base.version} starts.")


def _unfinished(context: Context, overlay: Overlay, env: Env) -> Check:
    if lease.holder(env):
        return _check("unfinished", True, "A change is going on right now.")
    try:
        left = [n for n in os.listdir(env.state) if n.startswith(change.STAGES) or n.endswith(".tmp")]
    except OSError:
        left = []
    if change.pending(env):
        return _check(
            "unfinished",
            False,
            "A change was interrupted in the middle.",
            "Run: overlay doctor --fix (the next change repairs it too)",
        )
    if left:
        return _check("unfinished", False, f"Left behind: {_some(left)}.", "Run: overlay doctor --fix")
    return _check("unfinished", True, "No change was interrupted.")


def _incomplete(context: Context, overlay: Overlay, env: Env) -> Check:
    """Find what interrupted tools leave: uv writes INSTALLER last, pip renames to ``~name`` first."""
    bad = [f"{d.name} {d.version}" for d in dists.listing(env.site_packages) if _is_partial(d)]
    try:
        bad += sorted(n for n in os.listdir(env.site_packages) if n.startswith("~"))
    except OSError:
        pass
    if bad:
        return _check(
            "incomplete",
            False,
            f"Not completely installed: {_some(bad)}.",
            "Uninstall and install these again.",
        )
    return _check("incomplete", True, "All packages are completely installed.")


def _is_partial(dist: dists.Dist) -> bool:
    return not dist.is_egg and (dist.read("INSTALLER") is None or dists.record_rows(dist) is None)


def _files(context: Context, overlay: Overlay, env: Env) -> Check:
    bad: list[str] = []
    for dist in dists.listing(env.site_packages):
        if _is_partial(dist):
            continue  # said already
        missing = 0
        for path, _ in dists.record(dist):
            full = os.path.normpath(os.path.join(dist.site, path))
            # compiled files come and go
            if not path.endswith(".pyc") and not os.path.lexists(full):
                missing += 1
        if missing:
            bad.append(f"{dist.name} ({missing} files)")
    if bad:
        return _check(
            "files", False, f"Files are missing: {_some(bad)}.", "Uninstall and install these again."
        )
    return _check("files", True, "All files of the packages are there.")


def _requirements(context: Context, overlay: Overlay, env: Env) -> Check:
    try:
        wanted = Requirements.read(overlay.requirements)
    except OSError as e:
        return _check("requirements", False, f"{overlay.requirements} can't be read: {e.strerror}.")
    odd = wanted.ignored()
    if odd:
        shown = _some([procs.redact(line) for line in odd])
        return _check(
            "requirements",
            False,
            f"Lines of requirements.txt that are no requirements: {shown}.",
            "Correct the file.",
        )
    there = {**dists.base_dists(context), **dists.overlay_dists(env)}
    library = _packaging()
    missing = []
    for entry in wanted.entries():
        dist = there.get(entry.name)
        if entry.name and not _satisfied(library, entry.text, dist.version if dist else None):
            missing.append(entry.name)
    if missing:
        return _check(
            "requirements",
            False,
            f"In requirements.txt but not installed: {_some(missing)}.",
            "Run: overlay sync",
        )
    return _check("requirements", True, "What requirements.txt asks for is there.")


def _packaging() -> Any:
    from overlayspawner.payload.requirements import packaging

    return packaging()


def _satisfied(library: Any, text: str, version: str | None) -> bool:
    """Whether a requirement is met; by name alone where ``packaging`` is missing."""
    if library is None:
        return version is not None
    try:
        requirement = library.requirements.Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            return True
        return version is not None and requirement.specifier.contains(version, prereleases=True)
    except Exception:
        return version is not None  # a bare URL


def _writer(context: Context, overlay: Overlay, env: Env) -> Check:
    try:
        who = lease.holder(env)
    except OverlayError as e:
        return _check("lease", False, e.message, e.hint)
    if who:
        return _check("lease", True, f"{who} is changing the overlay right now.")
    return _check("lease", True, "Nobody is changing the overlay.")
