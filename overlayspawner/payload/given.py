"""What a command line names: requirements, files of them, projects, groups; read as pip reads them.

Only the command line comes here: what arrives over REST may not name files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from overlayspawner.payload import lock_files, source_files
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.requirements import Requirement, normalise, parse

_EXTRAS = re.compile(r"^(?P<path>[^\[\]]+)(?P<extras>\[[A-Za-z0-9._, -]*\])?$")
_GROUP = re.compile(r"^(?:(?P<path>.+):)?(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)$")


@dataclass
class Given:
    """What was named.

    Parameters
    ----------
    requirements:
        To be installed.
    constraints:
        Limits of versions, and hashes of files, that hold for this one change.
    """

    requirements: list[Requirement] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)


def read(
    words: Sequence[str] = (),
    *,
    files: Sequence[str] = (),
    constraints: Sequence[str] = (),
    editables: Sequence[str] = (),
    groups: Sequence[str] = (),
    home: str,
) -> Given:
    """Read what was named.

    Parameters
    ----------
    words:
        Requirements, URLs, wheels, and directories of projects: ``.``, ``./project[extra]``.
    files:
        ``requirements.txt``, ``pyproject.toml``, ``pylock.toml``, ``uv.lock``, ``environment.yml``.
    constraints:
        Files of constraints.
    editables:
        Projects that are used from where they lie, and repositories.
    groups:
        Dependency groups of the ``pyproject.toml`` here: ``NAME``, or ``PATH:NAME``.
    home:
        What lies in it is written relative to it: another image may have it at another path.

    Raises
    ------
    OverlayError
        ``bad-request`` for what can't be read, ``bad-requirement`` and ``option-not-allowed`` for what is in
        it and can't be followed.
    """
    out = Given()
    for word in words:
        if word.startswith(("./", "../", "/", "~/")) and not _is_there(word):
            raise OverlayError("bad-requirement", f"There is no file or directory {word}.")
        out.requirements.append(_project(word, home) if _is_project(word) else parse(word))
    out.requirements += [_editable(text, home) for text in editables]
    for path in files:
        _file(out, path, [], home)
    for text in groups:
        match = _GROUP.match(text)
        if not match:
            raise OverlayError("bad-request", f"{text!r} is not the name of a dependency group.")
        _group(out, match["path"] or "pyproject.toml", normalise(match["name"]), home)
    for path in constraints:
        out.constraints += source_files.read_constraints(path)
    return out


def _file(out: Given, path: str, groups: list[str], home: str) -> None:
    if not os.path.isfile(path):
        raise OverlayError("bad-request", f"There is no file {path}.")
    found = source_files.read_file(os.path.abspath(path), groups, home)
    for item in found.left_out:
        line = item["requirement"]
        if line.startswith("group ") or item["reason"] == lock_files.ITSELF:
            continue  # nobody asked for it
        # half of a file is not what was asked for
        code = "option-not-allowed" if line.startswith("-") else "bad-requirement"
        raise OverlayError(code, f"{line} in {path}: {item['reason']}", item["hint"])
    out.requirements += found.wanted
    out.constraints += [*found.constraints, *found.hashes]


def _group(out: Given, path: str, group: str, home: str) -> None:
    if not os.path.isfile(path):
        raise OverlayError(
            "bad-request", f"There is no file {path}.", f"Name it: --group path/to/pyproject.toml:{group}"
        )
    found = source_files.Source(path)
    for line in source_files.group_of(os.path.abspath(path), group):
        found.want(line)
    for item in found.left_out:
        raise OverlayError(
            "bad-requirement", f"{item['requirement']} in {path}: {item['reason']}", item["hint"]
        )
    out.requirements += found.wanted


def _is_there(word: str) -> bool:
    match = _EXTRAS.match(word)
    return any(os.path.exists(os.path.expanduser(path)) for path in (word, match["path"] if match else word))


def _is_project(word: str) -> bool:
    """Whether a word is the path of a directory, as pip tells it: it has a slash or is a dot."""
    match = _EXTRAS.match(word)
    path = match["path"] if match else ""
    looks = path in (".", "..") or path.startswith("~") or (os.sep in path and "://" not in path)
    return looks and " @ " not in path and os.path.isdir(os.path.expanduser(path))


def _project(word: str, home: str) -> Requirement:
    match = _EXTRAS.match(word)
    assert match is not None, "asked before"
    path = os.path.abspath(os.path.expanduser(match["path"]))
    name = _name(path)
    return parse(f"{name}{match['extras'] or ''} @ file://{source_files.portable(path, home)}", trusted=True)


def _editable(text: str, home: str) -> Requirement:
    if "://" in text:
        # a repository: there is no place of its own for its sources
        return parse(text)
    match = _EXTRAS.match(text)
    path = os.path.abspath(os.path.expanduser(match["path"] if match else text))
    if not os.path.isdir(path):
        raise OverlayError("bad-request", f"There is no directory {path}.")
    extras = (match["extras"] or "").replace(" ", "") if match else ""
    return parse(f"-e file://{source_files.portable(path, home)}#egg={_name(path)}{extras}", trusted=True)


_OF_PROJECTS = ("pyproject.toml", "setup.cfg", "setup.py")


def _name(path: str) -> str:
    name = source_files.project_name(path)
    if not name and not any(os.path.isfile(os.path.join(path, file)) for file in _OF_PROJECTS):
        raise OverlayError(
            "bad-request", f"There is no project in {path}: no pyproject.toml, setup.cfg or setup.py."
        )
    if not name:
        raise OverlayError(
            "bad-request",
            f"{path} does not tell its project's name.",
            "Say it: overlay install 'NAME @ file://PATH'",
        )
    return name
