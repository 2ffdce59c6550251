"""What a plan means, in sentences for people. Pure.

Only what needs a decision, or comes as a surprise, is said; what is merely new is in the plan's lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from overlayspawner.payload.limits import WHEELS
from overlayspawner.payload.procs import redact

UNITS = ("bytes", "kB", "MB")


def sentences(plan: Mapping[str, Any]) -> list[str]:
    """Return what people should know of a plan before they agree to it, and after it was done.

    Parameters
    ----------
    plan:
        See :mod:`overlayspawner.payload.plan`.
    """
    out = [refusal(item) for item in plan["blocked"]]
    out += [_shadow(item) for item in plan["shadows"]]
    out += [_break(item) for item in plan["breaks"]]
    out += [str(item["message"]) for item in plan["splits"]]
    out += [
        f"{_called(item)} must be built: this runs its code. What it needs is known only then."
        for item in plan["builds"]
    ]
    out += [_removal(item) for item in plan["removes"]]
    if plan["new"]:
        number = len(plan["new"])
        what = "1 package" if number == 1 else f"{number} packages"
        size = f", {amount(plan['bytes'])}" if plan["bytes"] else ""
        out.append(f"Brings {what}{size}.")
        if plan["free"] is not None and (plan["bytes"] or 0) > plan["free"]:
            out.append(no_room(plan["bytes"], plan["free"]))
    elif not plan["removes"]:
        has = [_called(item) for item in plan["satisfied_by_base"] if item["requested"]]
        out.append(f"The image has {', '.join(has)} already." if has else "Nothing has to be installed.")
    if plan["needs_restart"]:
        out.append("Kernels that run have to be restarted to use what changes.")
    return out


def refusal(item: Mapping[str, Any], needed_by: str = "", only: Sequence[str] = ()) -> str:
    """Say why something is refused.

    Parameters
    ----------
    item:
        ``{name, version, rule}``, see :mod:`overlayspawner.payload.policy`.
    needed_by:
        What asks for it, where the user did not.
    only:
        The rules that let in other versions of it.
    """
    what = _called(item) + (f", which {needed_by} needs," if needed_by else "")
    if item["rule"]:
        return f"{what} is refused by the rule {item['rule']} of this hub."
    other = f" (only {', '.join(only)})" if only else ""
    return f"{what} is not among the packages that this hub allows{other}."


def source_sentence(requirement: Any) -> str:
    """Say that a line names source code where only wheels may come."""
    what = requirement.name or redact(requirement.url)
    needs_name = "" if requirement.name else " or could be, since it has no name in front (NAME @ URL)"
    return (
        f"{what} would be built from source code, which the rule '{WHEELS}' of this hub refuses{needs_name}."
    )


def limits_sentence(names: Sequence[str], rule: str, what: str) -> str:
    """Say which packages a limit of the hub keeps out.

    Parameters
    ----------
    names:
        With their versions.
    rule, what:
        What the limit is called, and what is true of them.
    """
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{shown} {what}, which the rule '{rule}' of this hub refuses."


def no_room(needed: int, free: int) -> str:
    """Say that the storage is too small."""
    return f"It needs {amount(needed)}, and {amount(free)} are free."


def would_break(item: Mapping[str, Any]) -> str:
    """Say what would stop working; an entry of a plan's ``breaks``."""
    return _break(item)


def amount(number: int) -> str:
    """Return a number of bytes as people read it."""
    value = float(number)
    for unit in UNITS:
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def _called(item: Mapping[str, Any]) -> str:
    return f"{item['name']} {item['version'] or ''}".rstrip()


def _shadow(item: Mapping[str, Any]) -> str:
    if item["where"] == "base":
        return f"{_called(item)} will hide the image's {item['hidden']}."
    return f"{_called(item)} will hide {item['hidden']} in ~/.local."


def _break(item: Mapping[str, Any]) -> str:
    whose = f"{_called(item)} of the image" if item["where"] == "base" else _called(item)
    return f"{whose} needs {item['requires']} and may stop working."


def _removal(item: Mapping[str, Any]) -> str:
    why = "" if item["reason"] == "uninstalled" else ", which nothing needs any more"
    reveals = f"; the image's {item['reveals']} is used again" if item["reveals"] else ""
    return f"Removes {_called(item)}{why}{reveals}."
