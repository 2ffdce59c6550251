"""What pip would do: its report over wheels, and over stand-ins for what its log calls source code."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist
from overlayspawner.payload.installer.index import limits_of
from overlayspawner.payload.installer.preview import ROUNDS, Planned, StandIns, source_file, too_many
from overlayspawner.payload.requirements import normalise, packaging
from overlayspawner.payload.stage import Stage

if TYPE_CHECKING:
    from overlayspawner.payload.installer.pip import Pip

_SOURCE = re.compile(
    r"Skipping link: No sources permitted for (\S+): (\S+)"
    r"(?: \(from [^()]*\))?(?: \(requires-python:([^()]*)\))?"
)
_WHEEL = re.compile(r"Found link \S+?/([^/\s#]+)-([^-/\s#]+)(?:-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl[\s#]")
_MISSING = re.compile(r"No matching distribution found for ([A-Za-z0-9][A-Za-z0-9._-]*)")


def preview(
    pip: Pip,
    ctx: Context,
    requirements: Sequence[str],
    stage: Stage,
    *,
    visible: Sequence[Dist],
    upgrade: Sequence[str] = (),
    **how: Any,
) -> list[Planned]:
    """See :meth:`Installer.preview <overlayspawner.payload.installer.Installer.preview>`."""
    stand_ins = StandIns(os.path.join(stage.path, "stand-ins"))
    log = os.path.join(stage.path, "pip.log")
    limits = limits_of(ctx)

    def sources() -> set[tuple[str, str]]:
        return {item for item in _sources(log, ctx.base.version) if not limits.wheel_only(item[0])}

    for _ in range(ROUNDS):
        # what is set to be built from source could be looked at in no other way
        more = {"PIP_NO_BINARY": ""}
        if stand_ins.known:
            more["PIP_FIND_LINKS"] = stand_ins.folder
        try:
            items = pip.report(
                ctx, requirements, stage, visible=visible, upgrade=upgrade, build=False, more=more, **how
            )
        except OverlayError as e:
            names = {normalise(name) for name in _MISSING.findall(e.log)}
            found = sources() if names else set()
            if not stand_ins.add({item for item in found if item[0] in names}):
                raise
            continue
        versions = {normalise(i["metadata"]["name"]): str(i["metadata"]["version"]) for i in items}
        there = {**{dist.name: dist.version for dist in visible if dist.name in upgrade}, **versions}
        newer = {item for item in sources() if _newer(item, there)}
        if not stand_ins.add(newer):
            return [_planned(item, stand_ins) for item in items]
    raise too_many()


def _planned(item: dict[str, Any], stand_ins: StandIns) -> Planned:
    meta = item["metadata"]
    name, version = normalise(meta["name"]), str(meta["version"])
    url = str((item.get("download_info") or {}).get("url") or "") if item.get("is_direct") else ""
    requires = tuple(" ".join(str(line).split()) for line in meta.get("requires_dist") or ())
    return Planned(name, version, requires, url, None, (name, version) in stand_ins.known)


def _sources(log: str, python: str) -> set[tuple[str, str]]:
    """Return names and versions that pip saw as source code for this Python, and not as a wheel."""
    wheels: set[tuple[str, str]] = set()
    found: set[tuple[str, str]] = set()
    with open(log, encoding="utf-8", errors="replace") as f:
        for line in f:
            match = _WHEEL.search(line)
            if match:
                wheels.add((normalise(unquote(match[1])), unquote(match[2])))
                continue
            match = _SOURCE.search(line)
            if match and _fits(match[3] or "", python):
                name = normalise(match[1])
                version = source_file(unquote(os.path.basename(urlsplit(match[2]).path)), name)
                found.add((name, version))
    return {item for item in found - wheels if item[1]}


def _fits(wanted: str, python: str) -> bool:
    library = packaging()
    try:
        return not wanted or library is None or library.specifiers.SpecifierSet(wanted).contains(python)
    except Exception:
        return True


def _newer(item: tuple[str, str], there: dict[str, str]) -> bool:
    name, version = item
    library = packaging()
    if library is None or name not in there:
        return False
    try:
        return bool(library.version.Version(version) > library.version.Version(there[name]))
    except Exception:
        return False
