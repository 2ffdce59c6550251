"""What the image's packages ask of others: the versions that a change should not leave.

Only packages that notebooks use count. The server runs on the image alone and never sees an overlay, so that
what its applications want (``jinja2<3``) is nothing to a kernel. Which is which is told by who needs whom:
what can be reached from server applications only is theirs; what anything else needs as well is the
notebooks'.

Worked out once for each state of the image: kept in memory, and for the command line in the runtime dir.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from overlayspawner.payload import files
from overlayspawner.payload.context import Context
from overlayspawner.payload.dists import Dist, base_dists, requires
from overlayspawner.payload.requirements import normalise, packaging

SCHEMA = 1
"""Version of ``constraints.json``; another way of working them out is another version."""

FILE = "constraints.json"
"""In the runtime dir."""

_SERVER = re.compile(
    r"^(?:jupyterhub|jupyterlab|notebook|nbclassic|notebook-shim|jupyter-lsp|jupyter-events|terminado|nbgitpuller"
    r"|jupyter-ydoc|jupyter-resource-usage|overlayspawner|jupyter-server|voila"
    r"|(?:jupyterhub|jupyter-server|jupyter-collaboration)-.*|jupyterlab-(?!widgets$|pygments$).*)$"
)
"""Normalised names of what runs in the server or beside it, never in a kernel."""

_KERNEL = frozenset({"ipykernel", "ipython", "ipywidgets", "xeus-python"})
"""Needed by server applications too, and what notebooks run in nevertheless."""


class Rule(NamedTuple):
    """One requirement of a package of the image.

    Parameters
    ----------
    owner:
        The package.
    text:
        What it asks for, as its metadata says.
    target, specifier:
        The package that it asks for, normalised, and the versions.
    limit:
        The versions as a constraint: without clauses that would let pre-releases in.
    """

    owner: str
    text: str
    target: str
    specifier: str
    limit: str


def rules(ctx: Context) -> tuple[Rule, ...]:
    """Return what the image's packages for notebooks ask for, and have; nothing for an isolated overlay."""
    if ctx.overlay is not None and ctx.overlay.kind != "overlay":
        return ()
    # told anew, which takes no time: the image's packages may change while its server runs
    lock = ctx.base.lock()
    key = ctx.base.executable
    found = _known.get(key)
    if found is None or found[0] != lock:
        told = _read(ctx.runtime, lock)
        if told is None:
            told = tuple(of(base_dists(ctx)))
            _write(ctx.runtime, lock, told)
        found = _known[key] = (lock, told)
    return found[1]


_known: dict[str, tuple[str, tuple[Rule, ...]]] = {}


def limits(
    rules: Iterable[Rule], overlay: Mapping[str, Dist], without: Collection[str] = ()
) -> dict[str, list[str]]:
    """Return the constraints for a change, by the package that they are about.

    Parameters
    ----------
    overlay:
        What the overlay has and keeps. A package of the image that it hides asks for nothing, and a
        requirement that it leaves unmet already is not this change's affair.
    without:
        Packages of which any version was agreed to.
    """
    out: dict[str, list[str]] = {}
    for rule in rules:
        if not rule.limit or rule.owner in overlay or rule.target in without:
            continue
        there = overlay.get(rule.target)
        if there is None or admits(rule.specifier, there.version):
            lines = out.setdefault(rule.target, [])
            line = f"{rule.target}{rule.limit}"
            if line not in lines:
                lines.append(line)
    return out


def unmet(rules: Iterable[Rule], target: str, comes: Mapping[str, Dist]) -> bool:
    """Whether the image's packages miss a package in the version that an overlay holds.

    Parameters
    ----------
    comes:
        What the overlay holds.
    """
    there = comes.get(target)
    return there is not None and any(
        rule.target == target and rule.owner not in comes and not admits(rule.specifier, there.version)
        for rule in rules
    )


def admits(specifier: Any, version: str) -> bool:
    """Whether a version is among those that are asked for; where nothing can tell, it is.

    Parameters
    ----------
    specifier:
        Text, or a ``SpecifierSet``; ``None`` for any version.
    """
    library = packaging()
    if library is None or specifier is None:
        return True
    try:
        wanted = library.specifiers.SpecifierSet(specifier) if isinstance(specifier, str) else specifier
        return bool(wanted.contains(version, prereleases=True))
    except Exception:
        return True


def of(dists: Mapping[str, Dist]) -> Iterator[Rule]:
    """Work out the rules of an image.

    Parameters
    ----------
    dists:
        All its packages.
    """
    library = packaging()
    if library is None:
        return
    graph = _Graph(library, dists)
    server = {name for name in dists if _SERVER.match(name)}
    behind = graph.reached(server)
    roots = {
        name
        for name, dist in dists.items()
        if name not in server and (name not in behind or name in _KERNEL or _asked_for(dist))
    }
    for owner, extras in sorted(graph.reached(roots, stop=server).items()):
        needed = graph.needs(owner, extras)
        if any(target in server for target, *_ in needed):
            continue  # an extension of the server
        for target, requirement, text in needed:
            if requirement.url or not requirement.specifier or target == owner:
                continue
            # what is unmet in the image itself protects nothing
            if target in dists and requirement.specifier.contains(dists[target].version, prereleases=True):
                yield Rule(owner, text, target, str(requirement.specifier), _limit(requirement.specifier))


def _limit(specifier: Any) -> str:
    """Return the clauses that name no pre-release: to an installer, one that does asks for pre-releases."""
    clauses = []
    for clause in specifier:
        if not clause.prereleases:
            clauses.append(str(clause))
    return ",".join(sorted(clauses))


def _asked_for(dist: Dist) -> bool:
    """Whether whoever made the image asked for it by name, as pip notes. uv notes so of everything."""
    if not os.path.exists(os.path.join(dist.path, "REQUESTED")):
        return False
    return (dist.read("INSTALLER") or "").strip() == "pip"


class _Graph:
    """Who needs whom, with the extras that they ask of each other."""

    def __init__(self, library: Any, dists: Mapping[str, Dist]) -> None:
        self._library = library
        self._dists = dists
        self._lines: dict[str, list[tuple[str, Any, str]]] = {}

    def reached(self, roots: Iterable[str], stop: Collection[str] = ()) -> dict[str, set[str]]:
        """Return the packages reached, roots included, each with its extras.

        Parameters
        ----------
        stop:
            Names that are not entered.
        """
        out: dict[str, set[str]] = {}
        todo = [(name, "") for name in roots]
        while todo:
            name, extra = todo.pop()
            if name in stop or name not in self._dists or extra in out.get(name, ()):
                continue
            out.setdefault(name, set()).add(extra)
            for target, requirement, _ in self.needs(name, {extra}):
                todo.append((target, ""))
                todo += [(target, normalise(wanted)) for wanted in requirement.extras]
        return out

    def needs(self, name: str, extras: Collection[str]) -> list[tuple[str, Any, str]]:
        """Return the names that a package needs here, with the requirements, read and as they stand."""
        if name not in self._lines:
            self._lines[name] = list(self._parsed(name))
        out = []
        for target, requirement, text in self._lines[name]:
            marker = requirement.marker
            # metadata that no tool understands requires nothing
            with contextlib.suppress(Exception):
                if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                    out.append((target, requirement, text))
        return out

    def _parsed(self, name: str) -> Iterator[tuple[str, Any, str]]:
        for text in requires(self._dists[name]):
            with contextlib.suppress(Exception):
                requirement = self._library.requirements.Requirement(text)
                yield normalise(requirement.name), requirement, text.partition(";")[0].strip()


def _read(runtime: str, lock: str) -> tuple[Rule, ...] | None:
    if not runtime:
        return None
    try:
        with open(os.path.join(runtime, FILE), encoding="utf-8") as f:
            data = json.load(f)
        if data["schema"] != SCHEMA or data["lock"] != lock:
            return None
        return tuple(Rule(*map(str, item)) for item in data["rules"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(runtime: str, lock: str, found: tuple[Rule, ...]) -> None:
    if not runtime:
        return
    text = json.dumps({"schema": SCHEMA, "lock": lock, "rules": found}, separators=(",", ":"))
    try:
        files.write_atomic(os.path.join(runtime, FILE), text + "\n", 0o600, sync=False)
    except OSError:
        pass  # the next program works them out again
