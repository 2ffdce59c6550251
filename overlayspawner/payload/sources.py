"""What a user has elsewhere, read as requirements: ``~/.local``, an environment made by hand, a file.

Only reads, and runs nothing: an environment is known by its ``.dist-info`` directories, whatever Python it
was made for and whether or not that still starts.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Optional

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, by_name, listing, needs
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import Requirement, normalise, packaging, parse

MAX_FILE = 4_000_000
"""Bytes of a file of requirements that are read at most."""

MAX_DEPTH = 5
"""How many files may include one another."""

MAX_LEFT_OUT = 200
"""Things that are left out and named; of more, only the number is told."""

TOOLS = frozenset({"pip", "setuptools", "wheel", "distribute"})
"""What every environment has of itself."""

_GROUPS = re.compile(r"^(?P<path>.+?)\[(?P<groups>[A-Za-z0-9._, -]*)\]$")
_SITE = re.compile(r"^python(\d+)\.(\d+)t?$")


@dataclass
class Source:
    """What was found at a place.

    Parameters
    ----------
    title:
        What it is, for messages.
    wanted:
        What was asked for there, as far as that can be told.
    versions:
        The versions that are there: normalised name → version.
    left_out:
        ``{requirement, reason, hint}`` for each thing that is not taken along.
    explicit:
        The lines were written by hand, and their versions are meant.
    """

    title: str
    wanted: list[Requirement] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    left_out: list[dict[str, str]] = field(default_factory=list)
    explicit: bool = False
    _more: int = 0

    def leave_out(self, requirement: str, reason: str, hint: str = "") -> None:
        """Note that something is not taken along, and why."""
        if len(self.left_out) >= MAX_LEFT_OUT:
            # a text that is no list at all: nobody reads all of its lines here
            self._more += 1
            hint = "Is this the right file?"
            more = {"requirement": f"{self._more} more", "reason": "They are left out too.", "hint": hint}
            self.left_out[MAX_LEFT_OUT:] = [more]
            return
        self.left_out.append({"requirement": redact(requirement)[:200], "reason": reason, "hint": hint})

    def want(self, line: str, *, otherwise: str = "", editable: bool = False) -> None:
        """Take a line along, or ``otherwise`` where it is no requirement that an overlay can hold."""
        try:
            self.wanted.append(parse(line, trusted=editable))
        except OverlayError as e:
            if otherwise:
                self.want(otherwise)
            else:
                self.leave_out(line, e.message, e.hint)


def read(text: str, *, user_site: str, home: str) -> Source:
    """Read a source.

    Parameters
    ----------
    text:
        ``user-site``, or the path of an environment, of a directory of packages or of a file. A
        ``pyproject.toml`` may be followed by groups: ``pyproject.toml[dev,test]``.
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
    return _file(path, groups, home)


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
    editable = origin is None or bool(_table(origin, "dir_info").get("editable"))
    if editable:
        path = _egg_link(dist) if origin is None else _local(url)
        if path and os.path.isdir(path):
            _want_editable(source, path, dist.name, home)
        else:
            source.leave_out(dist.name, f"It was installed from {path or url}, which is gone.")
        return
    vcs = _table(origin or {}, "vcs_info")
    if vcs:
        at = vcs.get("commit_id") or vcs.get("requested_revision") or ""
        url = f"{vcs.get('vcs', 'git')}+{url}" + (f"@{at}" if at else "")
    sub = (origin or {}).get("subdirectory")
    if sub:
        url += f"#subdirectory={sub}"
    path = _local(url)
    if path and not os.path.exists(path):
        # the wheel it came from was thrown away; the index may have it too
        source.want(dist.name)
    else:
        # the second: a URL with credentials is not written into a file
        source.want(f"{dist.name} @ {url}", otherwise=dist.name)


def _want_editable(source: Source, path: str, name: str, home: str) -> None:
    """Take a project along that is used from where it lies; a home may have another path later."""
    from urllib.parse import quote

    url = quote(path)
    if path.startswith(home + os.sep):
        url = "${HOME}" + quote(path[len(home) :])
    source.want(f"-e file://{url}#egg={name}", editable=True)


def direct_url(dist: Dist) -> Optional[dict[str, Any]]:
    """Return what ``direct_url.json`` says (PEP 610); ``None`` for a package from an index."""
    text = dist.read("direct_url.json")
    try:
        data = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) and isinstance(data.get("url"), str) else None


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _local(url: str) -> str:
    from urllib.parse import unquote, urlsplit

    return unquote(urlsplit(url).path) if url.startswith("file:") else ""


def _is_link(dist: Dist) -> bool:
    return os.path.dirname(dist.path) != dist.site


def _egg_link(dist: Dist) -> str:
    """Return the project of an old ``setup.py develop``: its metadata lies beside the sources."""
    return os.path.dirname(dist.path)


# -- files ----------------------------------------------------------------------------------------------


def _file(path: str, groups: list[str], home: str) -> Source:
    name = os.path.basename(path)
    source = Source(f"the file {path}", explicit=True)
    if name.endswith((".yml", ".yaml")):
        _conda_yaml(source, _text(path))
    elif name.startswith("pylock.") and name.endswith(".toml"):
        _pylock(source, _toml(path))
    elif name.endswith(".toml"):
        _pyproject(source, _toml(path), groups)
    else:
        _requirements(source, path, home, 0, set())
    return source


def _text(path: str) -> str:
    try:
        with open(path, "rb") as f:
            raw = f.read(MAX_FILE + 1)
    except OSError as e:
        raise OverlayError("bad-request", f"{path} can't be read: {e.strerror}.") from None
    if len(raw) > MAX_FILE:
        raise OverlayError("bad-request", f"{path} is larger than {MAX_FILE:,} bytes.")
    if b"\0" in raw:
        raise OverlayError("bad-request", f"{path} is not a text file.")
    return raw.decode("utf-8-sig", "replace")


def _requirements(source: Source, path: str, home: str, depth: int, seen: set[str]) -> None:
    """Read pip's format; what is no requirement is left out and named."""
    if os.path.realpath(path) in seen:
        return
    seen.add(os.path.realpath(path))
    text = re.sub(r"\\\r?\n", " ", _text(path))
    for raw in text.splitlines():
        line = re.sub(r"(^|\s+)#.*$", "", raw).strip()
        if not line:
            continue
        included = re.match(r"^(?:-r|--requirement)[ =]*(.+)$", line)
        editable = re.match(r"^(?:-e|--editable)[ =]+(.+)$", line)
        if included:
            target = os.path.join(os.path.dirname(path), included[1].strip())
            if depth >= MAX_DEPTH:
                source.leave_out(line, "Too many files include one another.")
            elif not os.path.isfile(target):
                source.leave_out(line, f"There is no file {target}.")
            else:
                _requirements(source, target, home, depth + 1, seen)
        elif editable:
            where = editable[1].strip()
            local = os.path.normpath(os.path.join(os.path.dirname(path), where))
            name = _project_name(local)
            if name:
                _want_editable(source, local, name, home)
            elif os.path.isdir(local):
                source.leave_out(
                    line, "The project's name can't be told.", f"Run in a terminal: pip install -e {local}"
                )
            else:
                # a repository: credentials in its URL are refused like everyone's
                source.want(where)
        elif line.startswith("-"):
            source.leave_out(
                line, "It is an option of pip, no requirement.", "Options come from the administrator."
            )
        else:
            if line.startswith(("./", "../")):
                # relative to the file, as what is used from where it lies
                line = os.path.normpath(os.path.join(os.path.dirname(path), line))
            # hashes belong to one file of one version; the overlay's own lock has them
            source.want(re.sub(r"\s+--(?:hash|config-settings|global-option)[= ]\S+", "", line))


def _project_name(folder: str) -> str:
    """Return the name of a project's directory; ``""`` where it does not say or there is none."""
    try:
        name = _table(_toml(os.path.join(folder, "pyproject.toml")), "project").get("name")
    except OverlayError:
        return ""
    return normalise(name) if isinstance(name, str) else ""


def _toml(path: str) -> dict[str, Any]:
    text = _text(path)
    reader = _toml_reader()
    if reader is None:
        raise OverlayError("not-available", "This image's Python can't read TOML files.")
    try:
        data = reader.loads(text)
    except (ValueError, RecursionError) as e:
        raise OverlayError("bad-request", f"{path} is no valid TOML: {e}") from None
    return dict(data)


def _toml_reader() -> Any:
    """Return a module that reads TOML: the standard one from Python 3.11 on, else the image's or pip's."""
    for name in ("tomllib", "tomli", "pip._vendor.tomli"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _strings(value: object) -> list[str]:
    return [item for item in _list(value) if isinstance(item, str)]


def _pyproject(source: Source, data: dict[str, Any], groups: list[str]) -> None:
    project = _table(data, "project")
    known = {normalise(k): v for k, v in _table(data, "dependency-groups").items()}
    extras = {normalise(k): v for k, v in _table(project, "optional-dependencies").items()}
    for line in _strings(project.get("dependencies")):
        source.want(line)
    if "dependencies" in _strings(project.get("dynamic")):
        source.leave_out("dependencies", "The project works them out when it is built.")
    for group in groups:
        if group not in known and group not in extras:
            names = ", ".join(sorted({*known, *extras})) or "none"
            raise OverlayError("bad-request", f"There is no group {group!r}; there is {names}.")
        for line in [*_group(known, group, ()), *_strings(extras.get(group))]:
            source.want(line)
    for group in sorted(set(known) - set(groups)):
        source.leave_out(
            f"group {group}", "Groups are taken along when they are named: pyproject.toml[NAME]."
        )


def _group(known: dict[str, Any], group: str, above: tuple[str, ...]) -> list[str]:
    """Return the lines of a dependency group, with those that it includes (PEP 735)."""
    if group in above:
        raise OverlayError("bad-request", f"The dependency group {group!r} includes itself.")
    out: list[str] = []
    for item in _list(known.get(group)):
        if isinstance(item, str):
            out.append(item)
        elif isinstance(item, dict) and isinstance(item.get("include-group"), str):
            out += _group(known, normalise(item["include-group"]), (*above, group))
    return out


def _pylock(source: Source, data: dict[str, Any]) -> None:
    for item in _list(data.get("packages")):
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            continue
        version, marker = item.get("version"), item.get("marker")
        if not isinstance(version, str):
            source.leave_out(item["name"], "The lock names no version: it came from a directory or a URL.")
            continue
        source.versions[normalise(item["name"])] = version
        source.want(f"{item['name']}=={version}" + (f" ; {marker}" if isinstance(marker, str) else ""))


def _conda_yaml(source: Source, text: str) -> None:
    """Read the list ``pip:`` of an ``environment.yml``: plain texts, for which no YAML reader is needed."""
    depth = -1
    conda = 0
    inside = False
    for raw in text.splitlines():
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        bare = line.strip()
        if not bare:
            continue
        indent = len(line) - len(line.lstrip())
        if depth >= 0 and (indent <= depth or not bare.startswith("-")):
            depth = -1
        if not line.startswith((" ", "-")):
            inside = bare == "dependencies:"
        elif depth >= 0:
            item = bare[1:].strip().strip("'\"")
            if item.startswith("-"):
                source.leave_out(item, "It is an option of pip, no requirement.")
            else:
                source.want(item)
        elif inside and re.match(r"^-\s*pip\s*:$", bare):
            depth = indent
        elif inside and bare.startswith("-"):
            conda += not re.match(r"^-\s*['\"]?(python|pip)\b", bare)
    if conda:
        source.leave_out(
            f"{conda} packages", "They are conda's, not pip's.", "Install by name what you need of them."
        )


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
