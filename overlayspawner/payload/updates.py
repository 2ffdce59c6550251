"""Newer versions of what the user asked for, that could be had. Only reads.

What a line of ``requirements.txt`` or a constraint of the hub does not admit is left out: an upgrade would
not bring it either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timezone
from typing import Any, Optional

from overlayspawner.payload.catalogue import Catalogue, Project
from overlayspawner.payload.context import Context
from overlayspawner.payload.dists import Dist, overlay_dists
from overlayspawner.payload.installer.versions import admits, is_pre, key
from overlayspawner.payload.requirements import Requirements
from overlayspawner.payload.sources import applies

FRESH = 3600.0
"""Seconds for which the index's answer about a package is good."""

AT_ONCE = 8
"""Requests to the index at the same time."""

PATIENCE = 45.0
"""Seconds that all requests together may take."""

MOST = 500
"""Packages that are asked about."""

GIVE_UP = 8
"""Packages about which an index may fail to answer before it is asked no more."""

_Version = tuple[str, bool]
"""A version, and whether it is a pre-release."""


class Updates:
    """Remembers what the index had, for all threads.

    Parameters
    ----------
    catalogue:
        Asks it.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, list[_Version]]] = {}

    def find(self, ctx: Context) -> dict[str, Any]:
        """Return what could be upgraded, in the shape of the REST interface.

        Raises
        ------
        OverlayError
            ``no-overlay``; ``policy``: a rule of the hub can't be understood.
        """
        there = dict(_asked(ctx))
        with self._lock:
            failed = self._ask([name for name in there if not self._fresh(name)])
            known = {name: self._known[name] for name in there if name in self._known}
        out = []
        for name, (dist, specifiers) in sorted(there.items()):
            _, versions = known.get(name, (0.0, []))
            fitting = _candidates(versions, specifiers)
            if fitting and key(fitting[0]) > key(dist.version):
                out.append({"name": name, "version": dist.version, "newest": fitting[0]})
        oldest = min((when for when, _ in known.values()), default=None)
        return {"updates": out, "checked": _iso(oldest), "unreachable": failed}

    def _fresh(self, name: str) -> bool:
        return name in self._known and time.time() - self._known[name][0] < FRESH

    def _ask(self, names: list[str]) -> bool:
        """Ask about packages; return whether any answer is missing."""
        failures: list[str] = []
        late = threading.Event()

        def one(name: str) -> None:
            if late.is_set() or len(failures) >= GIVE_UP:
                failures.append(name)
                return
            project = self._catalogue.project(name)
            if project.state in ("found", "missing"):
                self._known[name] = (time.time(), _usable(project))
            else:
                failures.append(name)

        if not names:
            return False
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="overlay-updates")
        futures = [pool.submit(one, name) for name in names[:MOST]]
        done, undone = wait(futures, PATIENCE)
        late.set()
        pool.shutdown(wait=False)
        for future in done:
            future.result()
        return bool(failures or undone or names[MOST:])


def _asked(ctx: Context) -> Iterator[tuple[str, tuple[Dist, list[str]]]]:
    """Name, distribution and specifiers of what was asked for and came from an index."""
    overlay, env = ctx.require()
    lines = [*Requirements.read(overlay.requirements).entries()]
    # of a line of the administrator's that is no requirement each change tells
    lines += Requirements("\n".join(ctx.spec.requirements)).entries()
    specifiers: dict[str, list[str]] = {}
    for line in lines:
        if line.name and not line.url and applies(line):
            specifiers.setdefault(line.name, []).append(line.specifier)
    for limit in Requirements("\n".join(ctx.spec.constraints)).entries():
        if limit.name in specifiers and applies(limit):
            specifiers[limit.name].append(limit.specifier)
    for name, dist in overlay_dists(env).items():
        # what came from a URL or a folder has another history than what an index has under this name
        if name in specifiers and dist.read("direct_url.json") is None:
            yield name, (dist, specifiers[name])


def _usable(project: Project) -> list[_Version]:
    """Return the versions that may come, the newest first."""
    fine = [offer for offer in project.offers if offer.fits is not False and not offer.yanked]
    return [(offer.version, offer.prerelease) for offer in fine]


def _candidates(versions: list[_Version], specifiers: list[str]) -> list[str]:
    """Return those that lines admit; pre-releases only if there is nothing else, or if a line names one."""
    named = (part.lstrip("<>=!~ ") for specifier in specifiers for part in specifier.split(","))
    pre = any(map(is_pre, named)) or all(pre for _, pre in versions)
    there = [version for version, is_one in versions if pre or not is_one]
    return [v for v in there if all(admits(specifier, v) for specifier in specifiers)]


def _iso(when: Optional[float]) -> Optional[str]:
    return None if when is None else datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
