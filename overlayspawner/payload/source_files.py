"""Files that name what somebody wants: requirements, ``pyproject.toml``, locks, conda's YAML.

Only reads. What can't be taken along is named with the reason.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from overlayspawner.payload import lock_files
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import Requirement, normalise, parse
from overlayspawner.payload.tables import items, strings, table
from overlayspawner.payload.uvlock import UvLock

_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==\s*([^\s*,;]+)\s*(?:;|$)")

_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")

# These begin at the first of several spaces: else a long row of them is looked at once for each of them,
# during which nothing else runs in a server.
_COMMENT = re.compile(r"(?:^|(?<!\s)\s+)#.*$")
_OPTIONS = re.compile(r"(?<!\s)\s+--(?:hash|config-settings|global-option)[= ]\S+")

MAX_FILE = 4_000_000
"""Bytes of a file of requirements that are read at most."""

MAX_DEPTH = 5
"""How many files may include one another."""

MAX_GROUPS = 100
"""How many dependency groups may include one another."""

MAX_DOTS = 100
"""Dots in a key of a TOML file: Python's reader takes the square of their number."""

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
    groups:
        Dependency groups and extras that can be named.
    """

    title: str
    wanted: list[Requirement] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    left_out: list[dict[str, str]] = field(default_factory=list)
    explicit: bool = False
    constraints: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
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

    def hash(self, name: str, version: str, digests: list[str]) -> None:
        """Note the files of a version; where one has no SHA-256, any will do."""
        if digests and all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests):
            files = "".join(f" --hash=sha256:{digest}" for digest in digests)
            self.hashes.append(f"{normalise(name)}=={version}{files}")

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
    source = Source(f"the file {path}", explicit=True)
    if not read_document(source, path, _text(path), groups):
        _requirements(source, path, home, 0, set())
    return source


def read_document(source: Source, path: str, text: str, groups: list[str]) -> bool:
    """Read a text by what its name says it is; return whether it is anything but pip's format.

    Raises
    ------
    OverlayError
        As :func:`read_file`.
    """
    name = os.path.basename(path)
    if name.endswith((".yml", ".yaml")):
        _conda_yaml(source, text)
    elif name.startswith("pylock.") and name.endswith(".toml"):
        lock_files.pylock(source, _parsed(path, text))
    elif name == "uv.lock":
        lock_files.uv_lock(source, UvLock(_parsed(path, text), path), groups)
    elif name.endswith(".toml"):
        _pyproject(source, _parsed(path, text), groups)
    else:
        return False
    return True


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


def lines_of(text: str) -> list[str]:
    """Return the lines of a text in pip's format that say something, continued ones joined."""
    text = re.sub(r"\\\r?\n", " ", text)
    return [line for raw in text.splitlines() if (line := _COMMENT.sub("", raw).strip())]


def _requirements(source: Source, path: str, home: str, depth: int, seen: set[str]) -> None:
    """Read pip's format; what is no requirement is left out and named."""
    if os.path.realpath(path) in seen:
        return
    seen.add(os.path.realpath(path))
    for line in lines_of(_text(path)):
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
        else:
            if line.startswith(("./", "../")):
                # relative to the file, as what is used from where it lies
                line = os.path.normpath(os.path.join(os.path.dirname(path), line))
            read_line(source, line, os.environ)


def read_line(source: Source, line: str, environ: Mapping[str, str]) -> None:
    """Read a line of pip's format that names no other file.

    Parameters
    ----------
    environ:
        The variables that it may mention.
    """
    if line.startswith("-"):
        source.leave_out(
            line, "It is an option of pip, no requirement.", "Options come from the administrator."
        )
        return
    # hashes belong to one file of one version: they are no part of what is asked for
    bare = _OPTIONS.sub("", line)
    if "://" not in bare:
        # in URLs the installers do it, so that no credentials get into files
        bare = _VARIABLE.sub(lambda match: environ.get(match[1], match[0]), bare)
    pinned = _PINNED.match(bare)
    if " --hash" in line and pinned is None and " @ " not in bare and "://" not in bare:
        source.leave_out(bare, "A hash belongs to one version, which is not named.", "Write name==version.")
        return
    source.want(bare)
    if pinned:
        source.hash(pinned[1], pinned[2], re.findall(r"--hash[= ]sha256:(\S+)", line))


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
    for line in lines_of(_text(path)):
        more = re.match(r"^(?:-[cr]|--constraint|--requirement)[ =]*(.+)$", line)
        if more and depth >= MAX_DEPTH:
            raise OverlayError("bad-request", f"{path}: too many files include one another.")
        if more:
            out += read_constraints(os.path.join(os.path.dirname(path), more[1].strip()), depth + 1)
        elif not line.startswith("-"):
            out.append(parse(re.sub(r"(?<!\s)\s+--hash[= ]\S+", "", line)).text)
    return out


def project_name(folder: str) -> str:
    """Return the name of a project's directory; ``""`` where it does not say or there is none."""
    try:
        name = table(_toml(os.path.join(folder, "pyproject.toml")), "project").get("name")
    except OverlayError:
        return ""
    return normalise(name) if isinstance(name, str) else ""


def _toml(path: str) -> dict[str, Any]:
    return _parsed(path, _text(path))


def _parsed(path: str, text: str) -> dict[str, Any]:
    reader = _toml_reader()
    if reader is None:
        raise OverlayError("not-available", "This image's Python can't read TOML files.")
    if any(line.partition("=")[0].count(".") > MAX_DOTS for line in text.splitlines()):
        raise OverlayError("bad-request", f"{path} has a line with more than {MAX_DOTS} dots in a key.")
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


def _pyproject(source: Source, data: dict[str, Any], groups: list[str]) -> None:
    project = table(data, "project")
    known = _groups(data)
    extras = {normalise(k): v for k, v in table(project, "optional-dependencies").items()}
    source.groups = sorted({*known, *extras})
    for line in strings(project.get("dependencies")):
        source.want(line)
    if "dependencies" in strings(project.get("dynamic")):
        source.leave_out("dependencies", "The project works them out when it is built.")
    for group in groups:
        if group not in known and group not in extras:
            names = ", ".join(source.groups) or "none"
            raise OverlayError("bad-request", f"There is no group {group!r}; there is {names}.")
        for line in [*_group(known, group, (), set()), *strings(extras.get(group))]:
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
    known = _groups(_toml(path))
    if group not in known:
        names = ", ".join(sorted(known)) or "none"
        raise OverlayError("bad-request", f"There is no group {group!r} in {path}; there is {names}.")
    return _group(known, group, (), set())


def _groups(data: dict[str, Any]) -> dict[str, Any]:
    """Return the dependency groups of a document, by normalised name."""
    return {normalise(name): value for name, value in table(data, "dependency-groups").items()}


def _group(known: dict[str, Any], group: str, above: tuple[str, ...], done: set[str]) -> list[str]:
    """Return the lines of a dependency group, with those that it includes (PEP 735), each group's once."""
    if group in above:
        raise OverlayError("bad-request", f"The dependency group {group!r} includes itself.")
    if len(above) >= MAX_GROUPS:
        raise OverlayError("bad-request", "Too many dependency groups include one another.")
    out: list[str] = []
    for item in items(known.get(group)):
        if isinstance(item, str):
            out.append(item)
        elif isinstance(item, dict) and isinstance(item.get("include-group"), str):
            inner = normalise(item["include-group"])
            if inner not in done:
                out += _group(known, inner, (*above, group), done)
    done.add(group)
    return out


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
    source.want(f"-e file://{portable(path, home)}#egg={name}", editable=True)


def portable(path: str, home: str) -> str:
    """Return a path for a ``file:`` URL; what lies in the home is told by the variable."""
    inside = home and path.startswith(home + os.sep)
    return "${HOME}" + quote(path[len(home) :]) if inside else quote(path)


def local_path(url: str) -> str:
    """Return the path that a ``file:`` URL names, or ``""``."""
    return unquote(urlsplit(url).path) if url.startswith("file:") else ""
