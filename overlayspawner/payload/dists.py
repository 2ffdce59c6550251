"""The distributions that are there: a cheap listing from directory names, details on demand.

A name and a version are read from the name of a metadata directory. METADATA and RECORD are opened only for
what is asked about, and what was read is kept for as long as the metadata directory stays as it is.
"""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.once import Once
from overlayspawner.payload.overlay import Env
from overlayspawner.payload.probe import Base
from overlayspawner.payload.requirements import Requirements, normalise, packaging, parse

SCOPES = ("overlay", "base", "user-site")
_METADATA = (".dist-info", ".egg-info", ".egg-link")


@dataclass(frozen=True)
class Dist:
    """One installed distribution.

    Parameters
    ----------
    name:
        Normalised.
    version:
        As its metadata directory tells.
    path:
        The ``.dist-info`` directory, ``.egg-info`` directory or file.
    site:
        The directory on ``sys.path`` that holds it.
    """

    name: str
    version: str
    path: str
    site: str

    @property
    def entry(self) -> str:
        """The name of its metadata directory or file."""
        return self.path.rpartition("/")[2]

    @property
    def is_egg(self) -> bool:
        """Whether it has the metadata of setuptools' old ways, which list no files."""
        return not self.path.endswith(".dist-info")

    def metadata_file(self) -> str:
        """Return the path of its METADATA or PKG-INFO."""
        if not self.is_egg:
            return os.path.join(self.path, "METADATA")
        return os.path.join(self.path, "PKG-INFO") if os.path.isdir(self.path) else self.path

    def read(self, name: str) -> str | None:
        """Return the text of a file in the metadata directory, or ``None``."""
        try:
            with open(os.path.join(self.path, name), encoding="utf-8", errors="surrogateescape") as f:
                return f.read()
        except OSError:
            return None


@dataclass
class Details:
    """What takes opening files to know.

    Parameters
    ----------
    summary:
        One line about it.
    requires:
        Its ``Requires-Dist`` lines.
    size:
        Bytes of its files, as RECORD tells; 0 where nothing does.
    """

    summary: str = ""
    requires: list[str] = field(default_factory=list)
    size: int = 0


def listing(site: str, without: Collection[str] = ()) -> list[Dist]:
    """Return the distributions of one directory, sorted by name; an unreadable directory has none.

    Parameters
    ----------
    without:
        Names of directory entries that are left out.
    """
    try:
        entries = os.listdir(site)
    except OSError:
        return []
    names = tuple([entry for entry in entries if entry.endswith(_METADATA) and entry not in without])
    # all is in the names, and a change lists the same directories several times
    eggs = [entry for entry in names if not entry.endswith(".dist-info")]
    return list(_listed.__wrapped__(site, names) if eggs else _listed(site, names))


@functools.lru_cache(maxsize=16)
def _listed(site: str, names: tuple[str, ...]) -> tuple[Dist, ...]:
    out: dict[str, Dist] = {}
    for entry in sorted(names):
        dist = from_entry(site, entry)
        # a leftover of an interrupted tool may stand beside the real one: dist-info beats egg-info
        if dist is not None and (dist.name not in out or (out[dist.name].is_egg and not dist.is_egg)):
            out[dist.name] = dist
    return tuple(sorted(out.values(), key=lambda d: d.name))


def from_entry(site: str, entry: str) -> Dist | None:
    """Return the distribution that a name in a directory of packages stands for, or ``None``."""
    if entry.endswith(".dist-info"):
        return _from_dist_info(site, entry)
    if not entry.endswith((".egg-info", ".egg-link")):
        return None
    path = os.path.join(site, entry)
    if entry.endswith(".egg-info"):
        parts = entry[: -len(".egg-info")].split("-")
        version = parts[1] if len(parts) > 1 else _egg_version(path)
        return Dist(normalise(parts[0]), version, path, site) if parts[0] else None
    elif entry.endswith(".egg-link"):
        name = entry[: -len(".egg-link")]
        try:
            with open(path, encoding="utf-8") as f:
                target = f.readline().strip()
        except (OSError, UnicodeDecodeError):
            return None
        egg = os.path.join(target, name.replace("-", "_") + ".egg-info")
        if os.path.isdir(egg):
            return Dist(normalise(name), _egg_version(egg), egg, site)
    return None


@functools.lru_cache(maxsize=8192)
def _from_dist_info(site: str, entry: str) -> Dist | None:
    name, _, version = entry[: -len(".dist-info")].partition("-")
    if name and version and not name.startswith("~"):
        return Dist(normalise(name), version, os.path.join(site, entry), site)
    return None


def _egg_version(path: str) -> str:
    info = os.path.join(path, "PKG-INFO") if os.path.isdir(path) else path
    return next((value for key, value in _headers(info) if key == "version"), "0")


def by_name(dists: Iterable[Dist]) -> dict[str, Dist]:
    """Return the distributions by name; the first of a name wins, as on ``sys.path``."""
    out: dict[str, Dist] = {}
    for dist in dists:
        out.setdefault(dist.name, dist)
    return out


def overlay_dists(env: Env) -> dict[str, Dist]:
    """Return the overlay's own distributions by name."""
    return by_name(listing(env.site_packages))


def base_dists(ctx: Context) -> dict[str, Dist]:
    """Return the distributions of the image that the overlay sees, by name: none for an isolated one."""
    if ctx.overlay is not None and ctx.overlay.kind != "overlay":
        return {}
    return image_dists(ctx.base)


def image_dists(base: Base) -> dict[str, Dist]:
    """Return the distributions of the image by name, whatever an overlay sees of them."""
    return by_name(dist for site in base.site_dirs for dist in listing(site))


def user_site(ctx: Context) -> str:
    """Return the directory of packages in ``~/.local``."""
    root = os.environ.get("PYTHONUSERBASE") or os.path.join(ctx.home, ".local")
    return os.path.join(root, "lib", "python" + ctx.base.version, "site-packages")


def _headers(path: str) -> list[tuple[str, str]]:
    """Read the headers of a METADATA file: lower-case name and value, continuation lines dropped."""
    out: list[tuple[str, str]] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            for line in f:
                if not line.strip():
                    break
                key, colon, value = line.partition(":")
                if colon and not line[0].isspace():
                    out.append((key.strip().lower(), value.strip()))
    except OSError:
        pass
    return out


_abouts: Once[tuple[str, list[str]]] = Once()
_details: Once[Details] = Once()


def details(dist: Dist) -> Details:
    """Return what the metadata of a distribution says; read once for as long as it does not change."""
    mark = _mark(dist)
    if mark is None:
        return Details()

    def read() -> Details:
        summary, lines = _about(dist, mark)
        return Details(summary, lines, sum(size for _, size in record(dist)))

    return _details.get(dist.path, mark, read)


def requires(dist: Dist) -> list[str]:
    """Return the ``Requires-Dist`` lines alone: RECORD, which is long, is not opened for them."""
    mark = _mark(dist)
    return [] if mark is None else _about(dist, mark)[1]


def summary_of(dist: Dist) -> str:
    """Return the summary alone."""
    mark = _mark(dist)
    return "" if mark is None else _about(dist, mark)[0]


def _mark(dist: Dist) -> tuple[int, int] | None:
    """Return what changes with the names in a metadata directory; ``None`` without one."""
    try:
        info = os.stat(dist.path)
    except OSError:
        return None
    return info.st_ino, info.st_mtime_ns


def _about(dist: Dist, mark: tuple[int, int]) -> tuple[str, list[str]]:
    """Return its summary, and its ``Requires-Dist`` lines."""

    def read() -> tuple[str, list[str]]:
        headers = _headers(dist.metadata_file())
        lines = [value for key, value in headers if key == "requires-dist"]
        return dict(headers).get("summary", ""), lines + (_egg_requires(dist) if dist.is_egg else [])

    return _abouts.get(dist.path, mark, read)


def _egg_requires(dist: Dist) -> list[str]:
    """Turn ``requires.txt`` with its ``[extra:marker]`` sections into ``Requires-Dist`` lines."""
    out: list[str] = []
    suffix = ""
    for line in (dist.read("requires.txt") or "").splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            extra, _, marker = line[1:-1].partition(":")
            parts = [f'extra == "{extra}"'] if extra else []
            parts += [f"({marker})"] if marker else []
            suffix = "; " + " and ".join(parts) if parts else ""
        elif line and not line.startswith("#"):
            out.append(line + suffix)
    return out


def record_rows(dist: Dist) -> list[list[str]] | None:
    """Return the rows of RECORD; ``None`` when there is none, or one that is damaged.

    A crash of the machine leaves files full of zeros. Such a RECORD must not stop what reads all of them.
    """
    text = dist.read("RECORD")
    if text is None or "\0" in text:
        return None
    try:
        return list(csv.reader(text.splitlines()))
    except csv.Error:
        return None


def _size(text: str) -> int:
    # int() takes no more than 4,300 digits, and isdigit() more than int() does
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def record(dist: Dist) -> list[tuple[str, int]]:
    """Return the files a distribution lists: path as written (relative to its site directory) and size."""
    rows = record_rows(dist)
    if rows is not None:
        return [(row[0], _size(row[2]) if len(row) > 2 else 0) for row in rows if row and row[0]]
    text = dist.read("installed-files.txt")
    if text is None:
        return []
    # setuptools wrote these relative to the metadata directory
    base = os.path.basename(dist.path)
    return [
        (os.path.normpath(os.path.join(base, line.strip())), 0) for line in text.splitlines() if line.strip()
    ]


def needs(
    roots: Iterable[tuple[str, Iterable[str]]],
    find: Callable[[str], Dist | None],
    *,
    on_edge: Callable[[str, Any], None] | None = None,
) -> set[str]:
    """Walk dependencies and return the names reached, roots included.

    Where ``packaging`` is missing, every marker counts as true: rather one package too many than one too few.

    Parameters
    ----------
    roots:
        Names to start from, each with its extras.
    find:
        Returns the distribution of a name, or ``None``.
    on_edge:
        Called for each requirement met with the name and its ``SpecifierSet`` (``None`` if unknown).
    """
    library = packaging()
    seen: set[tuple[str, tuple[str, ...]]] = set()
    out: set[str] = set()
    todo = [(name, tuple(sorted(extras))) for name, extras in roots]
    while todo:
        item = todo.pop()
        if item in seen:
            continue
        seen.add(item)
        name, extras = item
        out.add(name)
        dist = find(name)
        if dist is None:
            continue
        for text in requires(dist):
            found = _requirement(library, text, extras)
            if found is None:
                continue
            target, wanted, specifier = found
            if on_edge is not None:
                on_edge(target, specifier)
            todo.append((target, wanted))
    return out


def _requirement(library: Any, text: str, extras: tuple[str, ...]) -> tuple[str, tuple[str, ...], Any] | None:
    """Name, extras and specifiers of a ``Requires-Dist`` line, or ``None`` where it does not apply."""
    if library is None:
        try:
            plain = parse(text, trusted=True)
        except OverlayError:
            return None
        return plain.name, plain.extras, None
    try:
        requirement = library.requirements.Requirement(text)
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            return None
    except Exception:
        return None  # metadata that no tool understands requires nothing
    wanted = tuple(sorted(normalise(extra) for extra in requirement.extras))
    return normalise(requirement.name), wanted, requirement.specifier


def packages(ctx: Context, scope: str = "overlay") -> list[dict[str, object]]:
    """Return the packages of a scope in the shape of the REST interface.

    Parameters
    ----------
    scope:
        ``overlay``, ``base`` or ``user-site``.

    Raises
    ------
    OverlayError
        ``bad-request`` for another scope, ``no-overlay`` for the overlay of a server without one.
    """
    if scope not in SCOPES:
        raise OverlayError("bad-request", f"scope is {scope!r}, not one of {', '.join(SCOPES)}.")
    requested = Requirements.read(ctx.overlay.requirements).names() if ctx.overlay is not None else set()
    # of a line that is no requirement each change tells: packages can be looked at all the same
    administrator = Requirements("\n".join(ctx.spec.requirements)).names()
    base = base_dists(ctx)
    hidden = base
    if scope == "overlay":
        _, env = ctx.require()
        found = overlay_dists(env)
    elif scope == "base":
        found, hidden = base, {}
    else:
        found = by_name(listing(user_site(ctx)))
    out: list[dict[str, object]] = []
    for name, dist in sorted(found.items()):
        more = details(dist)
        shadowed = hidden.get(name)
        out.append(
            {
                "name": name,
                "version": dist.version,
                "where": scope,
                "requested": name in requested,
                "administrator": name in administrator,
                "shadows": shadowed.version if shadowed is not None else None,
                "size": more.size,
                "summary": more.summary,
            }
        )
    return out
