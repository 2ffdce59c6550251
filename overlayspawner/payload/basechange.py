"""The image's packages have changed below an env that stays: what broke, and what is no longer needed.

For the same base key and another base lock. It costs opening the metadata of the overlay's packages, so that
it is done in the server's background, once for each new lock and again for as long as something is broken.
Nothing is mended here: that is a restore, on request.

A home at another path is found here too (:mod:`~overlayspawner.payload.relocate`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from overlayspawner.payload import files, report
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError, notice
from overlayspawner.payload.dists import Dist, base_dists, listing, needs, overlay_dists, user_site
from overlayspawner.payload.lockfile import compiled_here
from overlayspawner.payload.mark import Mark
from overlayspawner.payload.overlay import Env
from overlayspawner.payload.relocate import moved_from, relocate
from overlayspawner.payload.requirements import Requirement, Requirements, packaging, parse

__all__ = ["Found", "check", "look", "relocate"]

SCHEMA = 1
_SHOWN = 5


class Found:
    """What a look at the packages gave.

    Attributes
    ----------
    broken:
        Sentences: what needs what, and what there is.
    spare:
        The overlay's copies that the base has as well, equal or newer, and that fit.
    compiled:
        The overlay's distributions that were compiled in the image of that time.
    """

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.spare: list[str] = []
        self.compiled: list[str] = []


def check(ctx: Context) -> list[dict[str, str]]:
    """Return notices about a changed base and a moved home. Never raises.

    The first look at an env says what was so before; only what is new after that is told.
    """
    try:
        _, env = ctx.require()
        out = _moved(env)
        before = _read(env)
        lock = ctx.base_lock or ctx.base.lock()
        if before is None:
            last = report.last_revision(ctx)
            before = {"lock": ((last or {}).get("base") or {}).get("lock") or lock, "known": None, "open": []}
        if before["lock"] == lock and before["known"] is not None and not before["open"]:
            return out
        found = look(ctx)
        changed = before["lock"] != lock
        # at the first look nothing is known of the time before: what is broken then is told if it may be new
        known = before["known"] if before["known"] is not None else [] if changed else found.broken
        now = [sentence for sentence in found.broken if sentence not in known]
        known = [sentence for sentence in found.broken if sentence in known]
        after = {"lock": lock, "known": known, "open": now}
        if after != before:
            _write(env, after)
        if now or changed:
            out += _tell(now, found if changed else Found())
    except (OSError, OverlayError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return out


def _tell(broken: list[str], found: Found) -> list[dict[str, str]]:
    text = ["The image's packages have changed."]
    hints = []
    if broken:
        text.append(f"What no longer fits: {_some(broken)}.")
        hints.append("Run `overlay restore` to repair that.")
    if found.compiled:
        text.append(
            f"Compiled in the image of that time, and perhaps to be built again: {_some(found.compiled)}."
        )
        hints.append("What can't be imported any more: uninstall it, then install it again.")
    if found.spare:
        text.append(f"The image now has these as well, so that your copies could go: {_some(found.spare)}.")
        hints.append(f"To drop copies: overlay uninstall {' '.join(found.spare[:_SHOWN])}.")
    if len(text) == 1:
        return []
    return [notice("base-changed", " ".join(text), " ".join(hints))]


def _moved(env: Env) -> list[dict[str, str]]:
    old = moved_from(env)
    if not old:
        return []
    return [
        notice(
            "home-moved",
            f"The overlay was at {old} before; commands that it installed still name that path.",
            "Run `overlay doctor --fix`.",
        )
    ]


def look(ctx: Context) -> Found:
    """Compare the overlay's packages and lines with what the base has now.

    Raises
    ------
    OverlayError
        ``no-overlay``.
    """
    overlay, env = ctx.require()
    base, own = base_dists(ctx), overlay_dists(env)
    visible = {**base, **own}
    out = Found()
    wanted: dict[str, list[Any]] = {}
    for name, dist in sorted(own.items()):
        for needed, specifier in _needs(dist):
            wanted.setdefault(needed, []).append(specifier)
            if needed not in own:
                out.broken += _misses(name, needed, specifier, visible.get(needed))
        if compiled_here(dist):
            out.compiled.append(name)
    lines = Requirements.read(overlay.requirements).entries()
    lines += [parse(line, trusted=True) for line in ctx.spec.requirements]
    given_up = {item.get("requirement") for item in Mark.read(env).failed}
    for line in lines:
        wanted.setdefault(line.name, []).append(_specifier(line))
        if line.name and line.name not in visible and line.text not in given_up and _applies(line):
            out.broken.append(f"{line.text} is asked for and is not there any more")
    out.spare = _spare(ctx, own, base, wanted)
    return out


def _needs(dist: Dist) -> list[tuple[str, Any]]:
    """Return what a distribution needs whatever its extras are: names and specifiers."""
    out: list[tuple[str, Any]] = []
    needs([(dist.name, ())], {dist.name: dist}.get, on_edge=lambda name, spec: out.append((name, spec)))
    return out


def _misses(name: str, needed: str, specifier: Any, there: Optional[Dist]) -> list[str]:
    if there is None:
        return [f"{name} needs {needed}{specifier or ''}, which is not there any more"]
    if not _fits(there.version, [specifier]):
        return [f"{name} needs {needed}{specifier}, the image has {there.version}"]
    return []


def _spare(
    ctx: Context, own: Mapping[str, Dist], base: Mapping[str, Dist], wanted: Mapping[str, list[Any]]
) -> list[str]:
    library = packaging()
    if library is None:
        return []
    local = {dist.name for dist in listing(user_site(ctx))}
    out = []
    for name, dist in sorted(own.items()):
        if name not in base or name in local or dist.read("direct_url.json") is not None:
            continue
        try:
            newer = library.version.Version(base[name].version) >= library.version.Version(dist.version)
        except ValueError:
            continue
        if newer and _fits(base[name].version, wanted.get(name, [])):
            # the image's copy may need what the image's packages are made for, and the overlay hides
            hidden = [
                need
                for need, spec in _needs(base[name])
                if need in own and not _fits(own[need].version, [spec])
            ]
            if not hidden:
                out.append(name)
    return out


def _specifier(line: Requirement) -> Any:
    library = packaging()
    if library is None or line.url:
        return None
    try:
        return library.requirements.Requirement(line.text).specifier
    except ValueError:
        return None


def _applies(line: Requirement) -> bool:
    library = packaging()
    if library is None or not line.marker:
        return True
    try:
        return bool(library.requirements.Requirement(line.text).marker.evaluate())
    except Exception:
        return False


def _fits(version: str, specifiers: Iterable[Any]) -> bool:
    """Whether a version meets all specifiers; where nothing can tell, it does."""
    try:
        return all(spec is None or spec.contains(version, prereleases=True) for spec in specifiers)
    except Exception:
        return True


def path(env: Env) -> str:
    """Return the file that says what was seen last."""
    return os.path.join(env.state, "base.json")


def _read(env: Env) -> Optional[dict[str, Any]]:
    try:
        with open(path(env), encoding="utf-8") as f:
            data = json.load(f)
        if data["schema"] != SCHEMA or not isinstance(data["known"], list):
            return None
        return {
            "lock": str(data["lock"]),
            "known": [str(item) for item in data["known"]],
            "open": [str(item) for item in data["open"]],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(env: Env, data: Mapping[str, Any]) -> None:
    if os.path.islink(env.state):
        return
    try:
        text = json.dumps({"schema": SCHEMA, **data}, indent=1) + "\n"
        files.write_atomic(path(env), text, sync=False)
    except OSError:
        pass  # the next look compares with what was seen before


def _some(items: list[str]) -> str:
    more = len(items) - _SHOWN
    return "; ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
