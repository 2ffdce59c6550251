"""Who contradicts whom: both sides of a conflict, from the words of uv and pip."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.installer.words import flat
from overlayspawner.payload.requirements import Requirement, normalise, parse

_NAME = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
_CLAUSE = r"(?:===?|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.!+*]+"
_SPEC = rf"(?:\s*{_CLAUSE}(?:\s*,\s*{_CLAUSE})*)"
_EXTRAS = r"(?:\[[^\]]*\])?"
_NEED = rf"{_NAME}{_EXTRAS}{_SPEC}?"
_PIP = re.compile(rf"^\s*({_NAME}){_EXTRAS} ([A-Za-z0-9.!+]+) depends on ({_NEED})", re.MULTILINE)
_PIP_ASKED = re.compile(rf"^\s*The user requested (?:\(constraint\) )?({_NEED})", re.MULTILINE)
_UV = re.compile(rf"({_NAME}){_EXTRAS}({_SPEC})? depends? on ({_NEED}(?: and {_NAME}{_SPEC})?)")
_UV_ASKED = re.compile(
    rf"(?<!that )you require ({_NAME}{_SPEC})|(?<=and )({_NAME}{_SPEC})(?=, we can conclude)"
)


@dataclass(frozen=True)
class Side:
    """One who asks for something.

    Parameters
    ----------
    who, version:
        A package, or ``""`` for a line; its version as far as it is known.
    need:
        What is needed: name and versions.
    """

    who: str
    version: str
    need: str

    @property
    def target(self) -> str:
        """The normalised name of what is needed."""
        match = re.match(_NAME, self.need)
        return normalise(match[0]) if match else ""


def sides(text: str) -> list[Side]:
    """Return all that a tool names: what depends on what, and what was asked for."""
    joined = flat(text)
    out: list[Side] = []
    for name, version, need in _PIP.findall(text):
        out.append(Side(normalise(name), version, _tidy(need)))
    for need in _PIP_ASKED.findall(text):
        out.append(Side("", "", _tidy(need)))
    if not out:
        for name, spec, needs in _UV.findall(joined):
            version = spec.strip()[2:] if spec.strip().startswith("==") else ""
            need, _, other = needs.partition(" and ")
            first = Side(normalise(name), version, _tidy(need))
            out.append(first)
            if other:
                # uv writes a limit of ours behind what a package needs, as if it were one more need
                second = Side(first.who, version, _tidy(other))
                out.append(Side("", "", second.need) if second.target == first.target else second)
        for first, second in _UV_ASKED.findall(joined):
            out.append(Side("", "", _tidy(first or second)))
    seen: dict[tuple[str, str], Side] = {}
    for side in out:
        if side.target in ("", "python") or side.who == side.target:
            continue
        known = seen.get((side.who, side.need))
        if known is None or (side.version and not known.version):
            seen[side.who, side.need] = side
    return list(seen.values())


def contradiction(found: Iterable[Side], lines: Iterable[str]) -> list[Side]:
    """Return the sides that are about one package; empty where there are no two.

    Parameters
    ----------
    found:
        What a tool names.
    lines:
        What is asked for besides: one side may be a line that the tool does not quote.
    """
    about: dict[str, list[Side]] = {}
    for side in found:
        about.setdefault(side.target, []).append(side)
    asked: dict[str, list[Side]] = {}
    for line in lines:
        entry = _parsed(line)
        if entry is not None and entry.specifier:
            need = f"{entry.name}{entry.specifier.replace(' ', '')}"
            asked.setdefault(entry.name, []).append(Side("", "", need))
    for target, group in about.items():
        known = {side.need.replace(" ", "") for side in group if not side.who}
        group += [side for side in asked.get(target, ()) if side.need not in known]
    best = [group for group in about.values() if len({side.need for side in group}) > 1]
    if not best:
        doubled = [group for group in asked.values() if len({side.need for side in group}) > 1]
        return doubled[0][:4] if doubled else []
    # the one with two packages, or a package and a line, says most
    best.sort(key=lambda group: (-len({side.who for side in group}), len(group)))
    return sorted(best[0], key=lambda side: (not side.who, side.who))[:4]


def told(side: Side, lines: Mapping[str, str], packages: Mapping[str, str]) -> str:
    """Return a side for people: ``tinyleft 1.0 needs tinyleaf<2``.

    Parameters
    ----------
    lines:
        What is to be said of a line, by the line without spaces.
    packages:
        What is to be added to a package, by its name.
    """
    if not side.who:
        return lines.get(side.need.replace(" ", ""), f"you ask for {side.need}")
    version = f" {side.version}" if side.version else ""
    return f"{side.who}{version}{packages.get(side.who, '')} needs {side.need}"


def _tidy(need: str) -> str:
    return re.sub(r"\s+", "", need).rstrip(".,;")


def _parsed(line: str) -> Requirement | None:
    try:
        entry = parse(line.partition(" --hash=")[0], trusted=True)
    except OverlayError:
        return None
    return entry if entry.name else None
