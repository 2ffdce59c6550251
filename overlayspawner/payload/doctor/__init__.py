"""What can be wrong with an overlay, and the repair of what can be repaired.

Each check looks and changes nothing. Only here whole trees are walked: whoever runs the doctor waits for it.
Nothing is deleted that somebody could miss: what is damaged is moved aside, and said to be.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Optional

from overlayspawner.payload import adopt, dists, gate, lease, swap
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.doctor import content, frame, moved, records, surroundings
from overlayspawner.payload.doctor.common import FIX, Check, Say, Walk, aside, check
from overlayspawner.payload.overlay import Env, Overlay

__all__ = ["NOT", "Check", "examine", "fix"]

NOT = "Not repaired: "
"""Start of a sentence about something that was tried in vain."""


def examine(context: Context, *, say: Optional[Say] = None) -> list[Check]:
    """Look for problems.

    Parameters
    ----------
    say:
        Told what is being looked at, where that takes long.

    Returns
    -------
    list
        ``{name, ok, message, hint}`` for each check, in the order in which they matter. A check that would
        mean nothing because an earlier one failed is left out.
    """
    overlay = context.overlay or _found(context)
    if overlay is None:
        return [_no_overlay(context)]
    checks = [check("overlay", True, f"It is at {overlay.path}."), surroundings.storage(overlay)]
    if swap.pending(overlay.path):
        # half of one and half of the other: there is no sense in looking any closer
        return [*checks, check("unfinished", False, "A reset was interrupted in the middle.", FIX)]
    env = overlay.env(context.base)
    checks.append(frame.env_check(context, overlay, env))
    if not os.path.isdir(env.site_packages):
        if os.path.isdir(overlay.path):
            checks.append(records.own_files(context, overlay, env))
        return checks
    if checks[-1]["ok"]:
        checks.append(frame.interpreter(context, overlay, env))
    # what is checked of an env that has one need not be said again by the checks that follow
    seen = copy.copy(context)
    seen.env = env
    checks += [
        moved.home(seen, overlay, env),
        frame.unfinished(seen, overlay, env),
        records.own_files(seen, overlay, env),
        content.incomplete(seen, overlay, env),
        content.missing_files(seen, overlay, env),
    ]
    if say is not None:
        say("Looking at all files.")
    walk = Walk(overlay, env, say)
    checks += [
        content.bytecode(env, walk),
        content.links(env, walk),
        surroundings.owner(overlay, env, walk),
        surroundings.shared(overlay, env),
        surroundings.clock(env, walk),
    ]
    for look in (
        records.requirements,
        content.lock,
        frame.kept,
        surroundings.user_site,
        surroundings.pip_settings,
        surroundings.python_path,
        surroundings.fetched_uv,
        frame.writer,
    ):
        checks.append(look(seen, overlay, env))
    return checks


def _no_overlay(context: Context) -> Check:
    place = _place(context)
    if place and os.path.lexists(place) and not os.path.isdir(place):
        return check("overlay", False, f"{place} is no directory.", f"{FIX} (it is moved aside)")
    why = context.notices[-1]["message"] if context.notices else "Nothing was installed yet."
    return check("overlay", context.mode == "normal", f"There is no overlay. {why}", "See what it says.")


def _found(context: Context) -> Optional[Overlay]:
    """Return the overlay of a server that runs without it: in safe mode, or where it could not be opened."""
    place = _place(context)
    if not place or context.spec.lifetime != "persistent" or not os.path.isdir(place):
        return None
    return Overlay(place, name=context.spec.name, kind=context.spec.kind)


def _place(context: Context) -> str:
    """Return where the overlay would be; ``""`` where it may not be touched."""
    from overlayspawner.payload.storage import overlay_path

    try:
        if not context.home or (os.geteuid() == 0 and os.stat(context.home).st_uid != 0):
            return ""
    except OSError:
        return ""
    return overlay_path(context.spec, context.home)


def fix(context: Context, *, say: Optional[Say] = None) -> list[str]:
    """Repair what can be repaired; return what was done, a sentence each.

    What could not be repaired is said too, in a sentence that starts with :data:`NOT`.

    Parameters
    ----------
    context:
        Knows the overlay and its env afterwards.
    say:
        Told what is being done.

    Raises
    ------
    OverlayError
        ``busy`` when another server is changing the overlay; the storage can't be written to.
    """
    done: list[str] = []
    overlay = context.overlay or _found(context)
    if overlay is None:
        overlay = _make(context)
        if overlay is None:
            return []
        done.append(f"What stood in the place of {overlay.path} was moved aside.")
    context.overlay = overlay
    try:
        if swap.mend(overlay):
            done.append("A reset that was interrupted is finished or undone.")
    except OSError as e:
        raise lease.storage_error(e) from e
    env = overlay.env(context.base)
    tell = say or (lambda text: None)
    done += records.mend_overlay(context, overlay)
    if os.path.isdir(env.state):
        done += records.mend_state(context, overlay, env)
    done += frame.mend_env(context, overlay)
    if not env.usable():
        return done
    context.env = env
    done += _tried(lambda: moved.mend(context, overlay, env))
    tell("Looking at all files.")
    with lease.acquire(env, who="doctor", wait=lease.PATIENCE) as held:
        try:
            done += frame.mend_unfinished(context, overlay, env, held)
            done += frame.mend_kept(context, overlay, env, held)
            done += content.mend_renamed(env)
            walk = Walk(overlay, env, say)
            done += content.mend_bytecode(walk)
            done += content.mend_links(env, walk)
            done += surroundings.mend_shared(overlay, env)
            done += surroundings.mend_fetched_uv(context)
        except OSError as e:
            raise lease.storage_error(e) from e
    done += _tried(lambda: _mend_packages(context, overlay, env, tell))
    with lease.acquire(env, who="doctor", wait=lease.PATIENCE):
        done += content.mend_lock(context, overlay, env)
    done += _tried(lambda: moved.tell_server(context))
    return done


def _make(context: Context) -> Optional[Overlay]:
    """Return the overlay where something else stood in its place: that is moved aside."""
    place = _place(context)
    if not place or not os.path.lexists(place) or os.path.isdir(place):
        return None
    spec = context.spec
    overlay = Overlay(place, name=spec.name, kind=spec.kind, lifetime=spec.lifetime)
    try:
        aside(place)
        if spec.lifetime == "ephemeral":
            return None  # the next start makes it: its env lies in the container
        overlay.create(context.base)
    except OSError as e:
        raise lease.storage_error(e) from e
    return overlay


def _tried(mend: Callable[[], list[str]]) -> list[str]:
    """Do what the network or a package may refuse; that does not keep the rest from being repaired."""
    try:
        return mend()
    except OverlayError as e:
        if e.code in ("busy", "cancelled"):
            raise
        return [f"{NOT}{e.message} {e.hint}".rstrip()]


def _mend_packages(context: Context, overlay: Overlay, env: Env, tell: Say) -> list[str]:
    from overlayspawner.payload.reinstall import reinstall

    argv = ["doctor", "--fix"]
    done: list[str] = []
    if adopt.needed(context):
        adopt.adopt(context, who="doctor")

    def on_event(event: dict[str, object]) -> None:
        tell(str(event.get("message")))

    there = dists.overlay_dists(env)
    damaged = [name for name in content.damaged(env) if name in there]
    against, why = gate.told(context, [(name, there[name].version) for name in damaged])
    done += [f"{NOT}{sentence}" for sentence in why]
    names = [name for name in damaged if name not in {item["name"] for item in against}]
    if names:
        result = reinstall(context, names, who="doctor", argv=argv, on_event=on_event)
        done += [f"Installed {item['name']} {item['version']} again." for item in result["plan"]["new"]]
    done += adopt.mend(context, who="doctor", on_event=on_event, argv=argv)
    if records.lost(context, overlay, env):
        from overlayspawner.payload.restore import restore

        result = restore(context, None, who="doctor", argv=argv, on_event=on_event)
        new = [f"{item['name']} {item['version']}" for item in result["plan"]["new"]]
        done += [f"Installed again what was missing: {', '.join(new)}."] if new else []
    return done
