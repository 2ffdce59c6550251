"""What a user has elsewhere, read as requirements: ``~/.local``, an environment made by hand, a file.

Only reads, and runs nothing: an environment is known by its ``.dist-info`` directories, whatever Python it
was made for and whether or not that still starts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from typing import Any, Optional

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, by_name, listing, needs
from overlayspawner.payload.requirements import Requirement, normalise, packaging
from overlayspawner.payload.source_files import (
    MAX_FILE,
    MAX_LEFT_OUT,
    Source,
    local_path,
    read_file,
    want_editable,
)
from overlayspawner.payload.tables import table

__all__ = ["MAX_FILE", "MAX_LEFT_OUT", "TOOLS", "Source", "applies", "fits", "lines_of", "older", "read"]

TOOLS = frozenset({"pip", "setuptools", "wheel", "distribute"})
"""What every environment has of itself."""

_GROUPS = re.compile(r"^(?P<path>.+?)\[(?P<groups>[A-Za-z0-9._, -]*)\]$")
_SITE = re.compile(r"^python(\d+)\.(\d+)t?$")


def read(text: str, *, user_site: str, home: str) -> Source:
    """Read a source.

    Parameters
    ----------
    text:
        ``user-site``, or the path of an environment, of a directory of packages or of a file. A
        ``pyproject.toml`` or ``uv.lock`` may be followed by groups: ``pyproject.toml[dev,test]``.
    user_site:
        The directory of packages in ``~/.local`` for the image's Python.
    home:
        What ``~`` stands for.

    Raises
    ------
    OverlayError
        ``bad-request`` when there is nothing of the kind, or nothing that could be read.
    """
    if text == "user-site":
        if not os.path.isdir(user_site):
            raise OverlayError("bad-request", f"There are no packages in {user_site}.")
        return _environment([user_site], f"the packages in {user_site}", home=home)
    path, groups = text, []
    match = _GROUPS.match(text)
    if match and not os.path.lexists(text):
        path = match["path"]
        groups = [normalise(g.strip()) for g in match["groups"].split(",") if g.strip()]
    if path == "~" or path.startswith("~/"):
        path = home + path[1:]
    path = os.path.abspath(path)
    if os.path.isdir(path):
        sites = site_dirs(path)
        if sites:
            return _environment(sites, f"the environment {path}", prefix=path, home=home)
        if os.path.basename(path) in ("site-packages", "dist-packages"):
            return _environment([path], f"the packages in {path}", home=home)
        inside = [n for n in ("pyproject.toml", "requirements.txt") if os.path.isfile(os.path.join(path, n))]
        if not inside:
            raise OverlayError(
                "bad-request",
                f"{path} is neither an environment nor a project.",
                "Name a directory made by venv, virtualenv or conda, or a file such as requirements.txt.",
            )
        path = os.path.join(path, inside[0])
    if not os.path.isfile(path):
        raise OverlayError("bad-request", f"There is no file or directory {path}.")
    return read_file(path, groups, home)


# -- environments ---------------------------------------------------------------------------------------


def site_dirs(prefix: str) -> list[str]:
    """Return the directories of packages below a prefix; of several Pythons, the newest one's."""
    found: dict[tuple[int, int], list[str]] = {}
    seen: set[str] = set()
    for lib in ("lib", "lib64"):
        try:
            names = os.listdir(os.path.join(prefix, lib))
        except OSError:
            continue
        for name in names:
            match = _SITE.match(name)
            site = os.path.join(prefix, lib, name, "site-packages")
            # lib64 is most often a link to lib
            real = os.path.realpath(site)
            if match and os.path.isdir(site) and real not in seen:
                seen.add(real)
                found.setdefault((int(match[1]), int(match[2])), []).append(site)
    return found[max(found)] if found else []


def _environment(sites: Iterable[str], title: str, *, home: str, prefix: str = "") -> Source:
    source = Source(title)
    found = by_name(dist for site in sites for dist in listing(site))
    conda = prefix != "" and os.path.isdir(os.path.join(prefix, "conda-meta"))
    theirs = {n for n, d in found.items() if conda and (d.read("INSTALLER") or "").strip() in ("", "conda")}
    mine = {n: d for n, d in found.items() if n not in theirs and n not in TOOLS}
    if theirs:
        source.leave_out(
            f"{len(theirs)} packages",
            "Conda installed them, not pip.",
            "Install by name what you need of them.",
        )
    source.versions = {name: dist.version for name, dist in mine.items()}
    for name in sorted(roots(mine)):
        _want(source, mine[name], home)
    return source


def roots(dists: dict[str, Dist]) -> set[str]:
    """Return the names that someone asked for: marked so by an installer, or needed by no other."""
    needed: set[str] = set()
    for name in dists:
        needed |= needs([(name, ())], _once(dists, name)) - {name}
    marked = {name for name, dist in dists.items() if dist.read("REQUESTED") is not None}
    return marked | (set(dists) - needed) | _circles(dists, needed, marked)


def _once(dists: dict[str, Dist], name: str) -> Any:
    """Look no further than at what one distribution needs itself."""
    return lambda other: dists.get(other) if other == name else None


def _circles(dists: dict[str, Dist], needed: set[str], marked: set[str]) -> set[str]:
    """Return one of each ring of packages that need each other and that nothing else asks for."""
    covered = needs([(n, ()) for n in marked | (set(dists) - needed)], dists.get)
    out: set[str] = set()
    for name in sorted(dists):
        if name not in covered:
            out.add(name)
            covered |= needs([(name, ())], dists.get)
    return out


def lines_of(dist: Dist, home: str) -> list[Requirement]:
    """Return the line that gives a distribution as it is; none where its origin is gone."""
    source = Source(dist.name)
    _want(source, dist, home)
    line = source.wanted[0] if source.wanted else None
    if line is not None and line.is_plain:
        source.wanted = []
        source.want(f"{dist.name}=={dist.version}", otherwise=dist.name)
    return source.wanted


def _want(source: Source, dist: Dist, home: str) -> None:
    """Turn a distribution into a line: its origin where it was no index, else its name."""
    origin = direct_url(dist)
    if origin is None and not _is_link(dist):
        source.want(dist.name)
        return
    url = str((origin or {}).get("url") or "")
    editable = origin is None or bool(table(origin, "dir_info").get("editable"))
    if editable:
        path = _egg_link(dist) if origin is None else local_path(url)
        if path and os.path.isdir(path):
            want_editable(source, path, dist.name, home)
        else:
            source.leave_out(dist.name, f"It was installed from {path or url}, which is gone.")
        return
    vcs = table(origin or {}, "vcs_info")
    if vcs:
        at = vcs.get("commit_id") or vcs.get("requested_revision") or ""
        url = f"{vcs.get('vcs', 'git')}+{url}" + (f"@{at}" if at else "")
    sub = (origin or {}).get("subdirectory")
    if sub:
        url += f"#subdirectory={sub}"
    path = local_path(url)
    if path and not os.path.exists(path):
        # the wheel it came from was thrown away; the index may have it too
        source.want(dist.name)
    else:
        # the second: a URL with credentials is not written into a file
        source.want(f"{dist.name} @ {url}", otherwise=dist.name)


def direct_url(dist: Dist) -> Optional[dict[str, Any]]:
    """Return what ``direct_url.json`` says (PEP 610); ``None`` for a package from an index."""
    text = dist.read("direct_url.json")
    try:
        data = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) and isinstance(data.get("url"), str) else None


def _is_link(dist: Dist) -> bool:
    return os.path.dirname(dist.path) != dist.site


def _egg_link(dist: Dist) -> str:
    """Return the project of an old ``setup.py develop``: its metadata lies beside the sources."""
    return os.path.dirname(dist.path)


def fits(version: str, requirement: Requirement) -> bool:
    """Whether a version meets a line; without ``packaging`` only a bare name is sure to be met."""
    if requirement.url:
        return False
    if requirement.is_plain:
        return True
    library = packaging()
    try:
        specifier = library.requirements.Requirement(requirement.text).specifier
        return bool(specifier.contains(version, prereleases=True))
    except Exception:
        return False


def applies(requirement: Requirement) -> bool:
    """Whether a line's marker is true on this Python."""
    library = packaging()
    if not requirement.marker or library is None:
        return True
    try:
        marker = library.requirements.Requirement(requirement.text).marker
        return marker is None or bool(marker.evaluate())
    except Exception:
        return True


def older(version: str, other: str) -> bool:
    """Whether a version is older than another; unknown counts as not."""
    try:
        import packaging.version as library
    except Exception:
        try:
            from pip._vendor.packaging import version as library  # type: ignore[no-redef,unused-ignore]
        except Exception:
            return False
    try:
        return bool(library.Version(version) < library.Version(other))
    except Exception:
        return False
