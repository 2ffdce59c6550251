"""Resolving under the hub's limits, and telling that it was these where nothing could be found.

Both tools leave out what they may not take and then find nothing, or something else. Which limit it was, and
what it kept out, is told by asking once more without it. That is done only after a failure, and runs no
package's code.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from overlayspawner.payload import gate
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.installer.index import limits_of
from overlayspawner.payload.limits import WHEELS, is_source
from overlayspawner.payload.requirements import parse
from overlayspawner.payload.sentences import limits_sentence, source_sentence

if TYPE_CHECKING:
    from overlayspawner.payload.context import Context
    from overlayspawner.payload.dists import Dist
    from overlayspawner.payload.installer import Installer
    from overlayspawner.payload.installer.preview import Planned
    from overlayspawner.payload.stage import Stage

_ASK = ("no-such-package", "no-matching-version", "conflict", "build-failed", "installer-failed")
"""Errors that a limit may be the cause of."""

_NO_TIMES = ("is missing an upload date", "does not provide upload-time")


def buildable(ctx: Context, lines: Sequence[str], visible: Sequence[Dist]) -> list[str]:
    """Return the lines with which nothing is built that may not be.

    A line that names source code is replaced by the name where what it names is there already: the tools
    would look at the source again, and one of them builds it although it is told not to.

    Raises
    ------
    OverlayError
        ``policy`` where something would have to be built.
    """
    limits = limits_of(ctx)
    if not (limits.all_wheels or limits.names):
        return list(lines)
    there = {dist.name: dist for dist in visible}
    out, refused = [], []
    for line in lines:
        entry = parse(line, trusted=True)
        if is_source(entry) and (limits.wheel_only(entry.name)):
            dist = there.get(entry.name)
            dists = [dist] if dist is not None else [] if entry.name else list(visible)
            dist = next((item for item in dists if gate.comes_from(entry, item)), None)
            if dist is None:
                refused.append(source_sentence(entry))
                continue
            line = dist.name
        out.append(line)
    if refused:
        raise gate.error(refused)
    return out


def because(
    error: OverlayError, installer: Installer, ctx: Context, lines: list[str], stage: Stage, **how: Any
) -> OverlayError:
    """Return the error that names the limit which is to blame; ``error`` itself where none is.

    Parameters
    ----------
    error:
        What the installer failed with.
    lines, stage, how:
        What it was called with. The stage is emptied.
    """
    spec = ctx.spec
    if error.code not in _ASK or how.get("offline") or not (spec.only_binary or spec.exclude_newer):
        return error
    keys = ("visible", "upgrade", "constraints", "cancel")
    asked = {key: how[key] for key in keys if key in how}

    def without(*fields: str) -> list[Planned]:
        other = copy.copy(ctx)
        other.spec = copy.copy(spec)
        for field in fields:
            setattr(other.spec, field, type(getattr(spec, field))())
        stage.clear()
        try:
            return installer.preview(other, lines, stage, **asked)
        except OverlayError:
            return []

    limits = limits_of(ctx)
    if limits.hub:
        came = without("exclude_newer")
        if came or _no_times(error):
            return _too_new(error, limits.newer, came)
    if spec.only_binary:
        came = without("only_binary", "exclude_newer")
        built = [
            f"{item.name} {item.version}" for item in came if item.build and limits.wheel_only(item.name)
        ]
        if built:
            verb = "come" if len(built) > 1 else "comes"
            return _with(gate.error([limits_sentence(built, WHEELS, f"{verb} as source code only")]), error)
    return error


def _no_times(error: OverlayError) -> bool:
    return any(words in error.log for words in _NO_TIMES)


def _too_new(error: OverlayError, rule: str, came: Sequence[Planned]) -> OverlayError:
    names = [f"{item.name} {item.version}" for item in came]
    if _no_times(error):
        return OverlayError(
            "no-upload-times",
            f"The package index does not say when its files were uploaded, and the rule '{rule}' of this hub "
            "lets in only what is known to be older. Nothing was changed.",
            "Ask your administrator for an index that tells upload times (PEP 700), or for another rule.",
            status=502,
            log=error.log,
        )
    what = "would come, and not all of it is old enough" if len(names) > 1 else "is too new"
    return _with(gate.error([limits_sentence(names, rule, what)]), error)


def _with(new: OverlayError, old: OverlayError) -> OverlayError:
    new.log = old.log
    return new
