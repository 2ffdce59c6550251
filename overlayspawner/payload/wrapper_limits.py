"""The hub's limits for ``pip`` and ``uv`` of terminals: as variables, and no option that goes beyond them.

Variables stand before the tools' settings files. An option stands before the variable: one that asks for less
is the user's right, one that asks for more is refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from overlayspawner.payload import gate
from overlayspawner.payload.contract import OverlayError, cutoff
from overlayspawner.payload.installer.index import limits_of, pip_options
from overlayspawner.payload.limits import ALL, WHEELS, Limits
from overlayspawner.payload.requirements import normalise, parse
from overlayspawner.payload.sentences import limits_sentence

if TYPE_CHECKING:
    from overlayspawner.payload.asked import Command
    from overlayspawner.payload.context import Context

_TIMES = ("--exclude-newer", "--uploaded-prior-to")


def refuse(ctx: Context, command: Command) -> None:
    """Refuse a command with which more would come in than the hub allows.

    Raises
    ------
    OverlayError
        ``policy``; ``cutoff-unsupported`` for a pip that knows no upload times.
    """
    limits = limits_of(ctx)
    if command.tool == "pip" and limits.hub:
        from overlayspawner.payload.installer import pip

        found = pip.find(ctx)
        limits.for_pip(found.version if found is not None else "")
    sentences = _beyond(limits, command)
    if limits.all_wheels:
        # a project's directory: both tools build it, whatever they are told
        folders = [word for word in command.operands if command.verb == "install" and _is_folder(word)]
        folders += command.options.get("--editable", [])
        sentences += [limits_sentence([folder], WHEELS, "would be built") for folder in folders]
    if sentences:
        raise gate.error(sentences)


def _beyond(limits: Limits, command: Command) -> list[str]:
    out = []
    for value in command.options.get("--no-binary", ()):
        names = [name.strip() for name in value.split(",") if name.strip()]
        if any(name == ALL or limits.wheel_only(normalise(name)) for name in names if name != ":none:"):
            out.append(limits_sentence([f"--no-binary {value}"], WHEELS, "asks for source code"))
    if limits.hub:
        for option in _TIMES:
            for value in command.options.get(option, ()):
                if _later(value, limits.hub):
                    out.append(limits_sentence([f"{option} {value}"], limits.newer, "asks for newer files"))
        for value in command.options.get("--exclude-newer-package", ()):
            if _later(value.partition("=")[2], limits.hub):
                name = f"--exclude-newer-package {value}"
                out.append(limits_sentence([name], limits.newer, "asks for newer files"))
    return out


def _later(value: str, limit: str) -> bool:
    try:
        return cutoff(value) > limit
    except OverlayError:
        return True  # what can't be told is refused


def _is_folder(word: str) -> bool:
    try:
        parse(word)
    except OverlayError:
        return os.path.exists(word)
    return os.sep in word and os.path.isdir(word)


def variables(ctx: Context, command: Command) -> dict[str, str]:
    """Return the variables that tell a tool what it may take."""
    limits = limits_of(ctx)
    out: dict[str, str] = {}
    if command.tool == "uv":
        if limits.before:
            out["UV_EXCLUDE_NEWER"] = limits.before
            out["UV_EXCLUDE_NEWER_PACKAGE"] = ""
        return out
    own = pip_options(ctx, os.environ)
    if limits.before:
        out["PIP_UPLOADED_PRIOR_TO"] = limits.before
    if limits.all_wheels:
        out.update(PIP_ONLY_BINARY=ALL, PIP_NO_BINARY="")
    elif limits.names:
        out["PIP_ONLY_BINARY"] = ",".join(filter(None, [own.get("only-binary", ""), *sorted(limits.names)]))
        kept = [
            name
            for name in own.get("no-binary", "").replace(" ", ",").split(",")
            if name and name != ALL and not limits.wheel_only(normalise(name))
        ]
        out["PIP_NO_BINARY"] = ",".join(kept)
    return out


def arguments(ctx: Context, command: Command, plain: Sequence[str]) -> list[str]:
    """Return a command line with what no variable can tell: uv has none for building.

    Parameters
    ----------
    plain:
        The program and its arguments.
    """
    limits = limits_of(ctx)
    if command.tool != "uv" or "--no-build" in command.options or not (limits.all_wheels or limits.names):
        return list(plain)
    at = list(plain).index(command.verb, 2) + 1
    more = [f"--only-binary={name}" for name in ([ALL] if limits.all_wheels else sorted(limits.names))]
    return [*plain[:at], *more, *plain[at:]]
