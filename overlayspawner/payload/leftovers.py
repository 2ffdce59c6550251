"""What interrupted tools leave in an env, told by the marks they leave.

``renamed``
    pip moves what it replaces to a name that starts with ``~`` and deletes it at the end.
``partial``
    A metadata directory without ``INSTALLER`` (uv writes it last), ``RECORD`` (pip writes it last) or
    ``METADATA``: a tool that is run again may call such a package installed.
``orphan``
    Files and folders that no distribution lists. Perhaps put there on purpose, so that they are only told of.
"""

from __future__ import annotations

import os
from typing import Any

from overlayspawner.payload import files
from overlayspawner.payload.dists import Dist, listing, record
from overlayspawner.payload.moves import KEPT
from overlayspawner.payload.overlay import BASE_PTH, Env
from overlayspawner.payload.requirements import normalise

_MARKS = ("METADATA", "RECORD", "INSTALLER")
_PIP_LEADS = "-~.=%0123456789"
"""What pip puts between the ``~`` and the rest of a name."""


def is_partial(dist: Dist) -> bool:
    """Whether an installation of it was broken off: at most three ``stat`` calls."""
    if not dist.path.endswith(".dist-info"):
        return False
    return not all(os.path.isfile(os.path.join(dist.path, name)) for name in _MARKS)


def leftovers(env: Env, *, deep: bool = False) -> list[dict[str, Any]]:
    """Return what interrupted tools left.

    Parameters
    ----------
    deep:
        Look for ``orphan`` too: opens the RECORD of every distribution.

    Returns
    -------
    list
        ``{"kind", "name", "path", "original"}`` each: kind as above, normalised name of the distribution (or
        ``""``), path, and for ``renamed`` the path it had when that is there again, else ``""``.
    """
    site = env.site_packages
    try:
        names = sorted(os.listdir(site))
    except OSError:
        return []
    out: list[dict[str, Any]] = []
    for name in names:
        if name.startswith("~"):
            out.append(
                {
                    "kind": "renamed",
                    "name": "",
                    "path": os.path.join(site, name),
                    "original": _original(site, name, names),
                }
            )
    dists = listing(site)
    for dist in dists:
        if is_partial(dist):
            out.append({"kind": "partial", "name": dist.name, "path": dist.path, "original": ""})
    if deep:
        out += [
            {"kind": "orphan", "name": normalise(name.split(".")[0]), "path": os.path.join(site, name)}
            | {"original": ""}
            for name in _orphans(names, dists)
        ]
    return out


def _original(site: str, name: str, names: list[str]) -> str:
    """Return the path that a renamed entry had, if something stands there again."""
    rest = name.lstrip(_PIP_LEADS)
    lost = len(name) - len(rest)
    for other in names:
        # as many characters are replaced as were there
        if len(other) == len(name) and not other.startswith("~") and other[lost:] == rest and rest:
            return os.path.join(site, other)
    # a replaced version's metadata has another name than the new one's
    if name.endswith(".dist-info"):
        stem = rest.split("-")[0]
        for other in names:
            if other.endswith(".dist-info") and not other.startswith("~"):
                head = other.split("-")[0]
                if stem and len(head) == lost + len(stem) and head.endswith(stem):
                    return os.path.join(site, other)
    return ""


def _orphans(names: list[str], dists: list[Dist]) -> list[str]:
    known = {BASE_PTH, "__pycache__"}
    for dist in dists:
        known.add(os.path.basename(dist.path))
        known |= {path.split("/", 1)[0] for path, _ in record(dist)}
    return [
        name
        for name in names
        if name not in known
        and not name.startswith(("~", ".", "_virtualenv"))
        and not name.endswith((".dist-info", ".egg-info", ".egg-link", ".pth"))
    ]


def clear(env: Env) -> list[str]:
    """Set aside what pip renamed where the real thing is there again; return the names of what was moved.

    The caller holds the lease.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    moved = []
    for item in leftovers(env):
        if item["kind"] == "renamed" and item["original"]:
            moved.append(os.path.basename(item["path"]))
            set_aside(env, item["path"])
    return moved


def set_aside(env: Env, path: str) -> None:
    """Move something to where files are kept that are nobody's.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    kept = os.path.join(env.state, KEPT)
    folder = os.path.join(kept, "leftover-" + os.urandom(4).hex())
    files.mkdir(kept)
    files.mkdir(folder)
    files.rename(path, os.path.join(folder, os.path.basename(path)))
