"""Files that name what somebody wants: requirements, ``pyproject.toml``, locks, conda's YAML.

Only reads. What can't be taken along is named with the reason.
"""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import Requirement, normalise, parse
from overlayspawner.payload.uvlock import UvLock
from overlayspawner.payload.uvlock import source as origin

_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==\s*([^\s*,;]+)\s*(?:;|$)")

_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")

ITSELF = "It is the project itself."
"""Why a lock's own project is left out: nobody asked for it."""

MAX_FILE = 4_000_000
"""Bytes of a file of requirements that are read at most."""

MAX_DEPTH = 5
"""How many files may include one another."""

MAX_LEFT_OUT = 200
"""Things that are left out and named; of more, only the number is told."""


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
    constraints:
        Lines that restrict versions without asking for anything.
    hashes:
        ``name==version --hash=sha256:…``: which files the file's author had.
    """

    title: str
    wanted: list[Requirement] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    left_out: list[dict[str, str]] = field(default_factory=list)
    explicit: bool = False
    constraints: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
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


def read_file(path: str, groups: list[str], home: str) -> Source:
    """Read a file by what its name says it is.

    Parameters
    ----------
    groups:
        Dependency groups and extras of a ``pyproject.toml`` or a ``uv.lock``, normalised.
    home:
        What ``~`` stands for.

    Raises
    ------
    OverlayError
        ``bad-request`` when it can't be read or understood, ``not-available`` without a reader of TOML.
    """
    name = os.path.basename(path)
    source = Source(f"the file {path}", explicit=True)
    if name.endswith((".yml", ".yaml")):
        _conda_yaml(source, _text(path))
    elif name.startswith("pylock.") and name.endswith(".toml"):
        _pylock(source, _toml(path))
    elif name == "uv.lock":
        _uv_lock(source, UvLock(_toml(path), path), groups)
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
        limiting = re.match(r"^(?:-c|--constraint)[ =]*(.+)$", line)
        editable = re.match(r"^(?:-e|--editable)[ =]+(.+)$", line)
        if included:
            target = os.path.join(os.path.dirname(path), included[1].strip())
            if depth >= MAX_DEPTH:
                source.leave_out(line, "Too many files include one another.")
            elif not os.path.isfile(target):
                source.leave_out(line, f"There is no file {target}.")
            else:
                _requirements(source, target, home, depth + 1, seen)
        elif limiting:
            target = os.path.join(os.path.dirname(path), limiting[1].strip())
            if os.path.isfile(target):
                source.constraints += read_constraints(target)
            else:
                source.leave_out(line, f"There is no file {target}.")
        elif editable:
            where = editable[1].strip()
            local = os.path.normpath(os.path.join(os.path.dirname(path), where))
            name = project_name(local)
            if name:
                want_editable(source, local, name, home)
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
            # hashes belong to one file of one version: they are no part of what is asked for
            bare = re.sub(r"\s+--(?:hash|config-settings|global-option)[= ]\S+", "", line)
            if "://" not in bare:
                # in URLs the installers do it, so that no credentials get into files
                bare = _VARIABLE.sub(lambda match: os.environ.get(match[1], match[0]), bare)
            pinned = _PINNED.match(bare)
            if " --hash" in line and pinned is None and " @ " not in bare and "://" not in bare:
                source.leave_out(
                    bare, "A hash belongs to one version, which is not named.", "Write name==version."
                )
                continue
            source.want(bare)
            if pinned:
                _hash(source, pinned[1], pinned[2], re.findall(r"--hash[= ]sha256:(\S+)", line))


def read_constraints(path: str, depth: int = 0) -> list[str]:
    """Return the lines of a file of constraints, and of those it names; other options in it mean nothing.

    Parameters
    ----------
    depth:
        How many files have named one another already.

    Raises
    ------
    OverlayError
        ``bad-request`` when it can't be read, ``bad-requirement`` for a line that is no requirement.
    """
    out = []
    for raw in re.sub(r"\\\r?\n", " ", _text(path)).splitlines():
        line = re.sub(r"(^|\s+)#.*$", "", raw).strip()
        more = re.match(r"^(?:-[cr]|--constraint|--requirement)[ =]*(.+)$", line)
        if more and depth >= MAX_DEPTH:
            raise OverlayError("bad-request", f"{path}: too many files include one another.")
        if more:
            out += read_constraints(os.path.join(os.path.dirname(path), more[1].strip()), depth + 1)
        elif line and not line.startswith("-"):
            out.append(parse(re.sub(r"\s+--hash[= ]\S+", "", line)).text)
    return out


def _hash(source: Source, name: str, version: str, digests: list[str]) -> None:
    """Note the files of a version; where one has no SHA-256, any will do."""
    if digests and all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests):
        source.hashes.append(
            f"{normalise(name)}=={version}" + "".join(f" --hash=sha256:{digest}" for digest in digests)
        )


def project_name(folder: str) -> str:
    """Return the name of a project's directory; ``""`` where it does not say or there is none."""
    try:
        name = table(_toml(os.path.join(folder, "pyproject.toml")), "project").get("name")
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
    project = table(data, "project")
    known = {normalise(k): v for k, v in table(data, "dependency-groups").items()}
    extras = {normalise(k): v for k, v in table(project, "optional-dependencies").items()}
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


def group_of(path: str, group: str) -> list[str]:
    """Return the lines of one dependency group of a ``pyproject.toml``.

    Raises
    ------
    OverlayError
        ``bad-request`` when there is none of that name.
    """
    known = {normalise(k): v for k, v in table(_toml(path), "dependency-groups").items()}
    if group not in known:
        names = ", ".join(sorted(known)) or "none"
        raise OverlayError("bad-request", f"There is no group {group!r} in {path}; there is {names}.")
    return _group(known, group, ())


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
        files = [*_list(item.get("wheels")), item.get("sdist")]
        found = [str(table(file, "hashes").get("sha256")) for file in files if isinstance(file, dict)]
        _hash(source, item["name"], version, found)


def _uv_lock(source: Source, lock: UvLock, groups: list[str]) -> None:
    """Take the versions of a lock; the project itself is a matter of its own."""
    known = lock.groups()
    for group in groups:
        if group not in known:
            raise OverlayError(
                "bad-request", f"There is no group {group!r}; there is {', '.join(sorted(known)) or 'none'}."
            )
    for item in lock.needed(groups):
        name, version, where = normalise(item["name"]), item.get("version"), origin(item)
        if isinstance(where.get("git"), str):
            url, _, commit = where["git"].partition("#")
            url = url.partition("?")[0]
            source.want(f"{name} @ git+{url}@{commit}" if commit else f"{name} @ git+{url}")
        elif isinstance(where.get("url"), str):
            source.want(f"{name} @ {where['url']}")
        elif isinstance(where.get("path"), str):
            path = os.path.normpath(os.path.join(lock.folder, where["path"]))
            source.want(f"{name} @ file://{quote(path)}")
        elif "registry" in where and isinstance(version, str):
            source.versions[name] = version
            source.want(f"{name}=={version}")
            files = [*_list(item.get("wheels")), item.get("sdist")]
            found = [str(f.get("hash") or "").partition("sha256:")[2] for f in files if isinstance(f, dict)]
            _hash(source, name, version, found)
        else:
            source.leave_out(
                name, "It lies in a directory of its own.", "Install it with: overlay install -e PATH"
            )
    for item in lock.projects():
        if "editable" in origin(item):
            source.leave_out(
                normalise(item["name"]),
                ITSELF,
                "Install it with: overlay install -e PATH",
            )
    for group in sorted(known - set(groups)):
        source.leave_out(f"group {group}", "Groups are taken along when they are named: uv.lock[NAME].")


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


def want_editable(source: Source, path: str, name: str, home: str) -> None:
    """Take a project along that is used from where it lies; a home may have another path later."""
    url = quote(path)
    if path.startswith(home + os.sep):
        url = "${HOME}" + quote(path[len(home) :])
    source.want(f"-e file://{url}#egg={name}", editable=True)


def table(data: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a table of a document, empty where it has none."""
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def local_path(url: str) -> str:
    """Return the path that a ``file:`` URL names, or ``""``."""
    return unquote(urlsplit(url).path) if url.startswith("file:") else ""
