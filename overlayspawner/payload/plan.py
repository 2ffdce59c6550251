"""What a change does, as data: computed from what was there and what is staged. Pure.

The dict that :func:`build` returns is public (REST, revisions). Each list holds dicts:

``new``
    ``{name, version, size, requested, replaces}``: comes into the overlay; ``replaces`` is the overlay's
    own earlier version, or ``None``.
``satisfied_by_base``
    ``{name, version, requested}``: asked for or needed, and the image has it.
``shadows``
    ``{name, version, hidden, where}``: hides version ``hidden`` of ``base`` or ``user-site``.
``removes``
    ``{name, version, reason, reveals}``: leaves the overlay because it was ``uninstalled`` or is
    ``unneeded``; ``reveals`` is the image's version that becomes visible, or ``None``.
``splits``
    ``{package, name, version, regular, lost, install, message}``: torn apart between overlay and image.
``breaks``
    ``{name, version, requires, where, by}``: a distribution of ``base`` or ``overlay`` that stays, and that
    one of its requirements which is met now, but not by ``by``: ``{name, version}``, the version ``None``
    where nothing is left of it.
``builds``
    ``{name, version}``: comes as source code only, and has to be built, which runs its code. Known before a
    change only.
``blocked``
    ``{name, version, rule}``: what the hub's rules refuse; filled by :mod:`overlayspawner.payload.gate`.
``bytes``, ``frees``
    What comes and what goes, in bytes. Before a change, ``size`` and ``bytes`` are those of the files to
    download, and ``None`` where the index doesn't tell; afterwards those of the files that were installed.
``free``
    What the storage has left for that; ``None`` where nothing tells, or nothing comes.
``choices``
    What can be done where it breaks something that nobody agreed to; else nothing. See
    :mod:`overlayspawner.payload.consent`.
``expect``
    What a request to do just this sends along; see :func:`expected`.
``sentences``
    What people should know of all this; see :mod:`overlayspawner.payload.sentences`.
``needs_restart``
    Whether a kernel that runs may have something loaded that changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from overlayspawner.payload.sentences import sentences

BEFORE = ("free", "choices", "expect")
"""Fields that only matter before a change; a revision has none of them."""


@dataclass(frozen=True)
class Item:
    """A distribution as the plan sees it.

    Parameters
    ----------
    version:
        Its version.
    size:
        Bytes; ``None`` where nobody knows yet.
    """

    version: str
    size: Optional[int] = 0


def build(
    *,
    new: Mapping[str, Item],
    overlay: Mapping[str, Item],
    base: Mapping[str, str],
    user_site: Optional[Mapping[str, str]] = None,
    requested: Iterable[str] = (),
    needed: Iterable[str] = (),
    uninstalled: Iterable[str] = (),
    unneeded: Iterable[str] = (),
    splits: Iterable[dict[str, Any]] = (),
    breaks: Iterable[dict[str, Any]] = (),
    builds: Iterable[dict[str, Any]] = (),
    blocked: Iterable[dict[str, Any]] = (),
    free: Optional[int] = None,
) -> dict[str, Any]:
    """Return a plan.

    Parameters
    ----------
    new:
        What is staged, by normalised name.
    overlay, base, user_site:
        What is there now.
    requested:
        Names that the user or the administrator asks for.
    needed:
        Names asked for now, or needed by what is new.
    uninstalled, unneeded:
        Names that leave the overlay.
    splits:
        Packages that would be torn apart; see :mod:`overlayspawner.payload.splits`.
    breaks:
        What would miss something; see :mod:`overlayspawner.payload.breaks`.
    builds:
        What has to be built.
    blocked:
        What the hub's rules refuse.
    free:
        Bytes that the storage has left.
    """
    asked = set(requested)
    local = user_site or {}
    removed = [(name, "uninstalled") for name in uninstalled]
    removed += [(name, "unneeded") for name in unneeded if name not in set(uninstalled)]
    replaced = [name for name in new if name in overlay]
    shadows = []
    for name, item in sorted(new.items()):
        for where, there in (("base", base), ("user-site", local)):
            if name in there:
                shadows.append({"name": name, "version": item.version, "hidden": there[name], "where": where})
    builds = list(builds)
    # of what has no version not even that is known
    sizes = [*(item.size for item in new.values()), *(0 if b["version"] else None for b in builds)]
    out: dict[str, Any] = {
        "new": [
            {
                "name": name,
                "version": item.version,
                "size": item.size,
                "requested": name in asked,
                "replaces": overlay[name].version if name in overlay else None,
            }
            for name, item in sorted(new.items())
        ],
        "satisfied_by_base": [
            {"name": name, "version": base[name], "requested": name in asked}
            for name in sorted(set(needed))
            if name in base and name not in new and name not in overlay
        ],
        "shadows": shadows,
        "breaks": list(breaks),
        "splits": list(splits),
        "builds": builds,
        "removes": [
            {
                "name": name,
                "version": overlay[name].version,
                "reason": reason,
                "reveals": base.get(name, local.get(name)),
            }
            for name, reason in sorted(removed)
            if name in overlay
        ],
        "bytes": None if None in sizes else sum(size or 0 for size in sizes),
        "frees": sum(
            overlay[name].size or 0 for name in {*replaced, *(name for name, _ in removed)} if name in overlay
        ),
        "needs_restart": bool(replaced or removed or shadows),
        "blocked": list(blocked),
        "free": free,
        "choices": [],
    }
    out["expect"] = expected(out)
    out["sentences"] = sentences(out)
    return out


def is_empty(plan: Mapping[str, Any]) -> bool:
    """Whether a plan changes no file."""
    return not plan["new"] and not plan["removes"]


def expected(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is agreed to with a plan.

    Returns
    -------
    dict
        ``new`` and ``removes``: names to versions; ``breaks``: who would miss what, ``["pandas", "numpy"]``
        each; ``bytes``, as in the plan; ``open``: whether more may come, because something has to be built
        first to know what it needs.
    """
    pairs = {(item["name"], item["by"]["name"]) for item in plan["breaks"]}
    return {
        "new": {item["name"]: item["version"] for item in plan["new"]},
        "removes": {item["name"]: item["version"] for item in plan["removes"]},
        "breaks": sorted([name, by] for name, by in pairs),
        "bytes": plan["bytes"],
        "open": bool(plan["builds"]),
    }


def differs(plan: Mapping[str, Any], expect: Mapping[str, Any]) -> bool:
    """Whether a plan does something else than what was agreed to with another one."""
    now = expected(plan)
    new, asked = now["new"], dict(expect.get("new") or {})
    if expect.get("open"):
        new = {name: version for name, version in new.items() if name in asked}
    agreed = [list(pair) for pair in expect.get("breaks") or ()]
    return (
        new != asked
        or now["removes"] != dict(expect.get("removes") or {})
        or any(pair not in agreed for pair in now["breaks"])
    )
