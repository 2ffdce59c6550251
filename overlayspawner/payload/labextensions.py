"""Which extensions for JupyterLab an overlay may bring into pages. Pure.

JupyterLab reads the ``package.json`` of each extension at each page, and one that it can't make sense of
makes the page an error 500. So nothing of an overlay is given to it as it is: :func:`read` takes out what it
needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from overlayspawner.payload.contract import notice

CODE = "labextension-left-out"

MAX_PACKAGE_JSON = 1 << 20
"""Bytes of a ``package.json``; real ones have some thousand."""

OURS = "overlayspawner"
"""Name of the panel, which no package replaces."""

# Parts of an application that the server runs: they fit no other version of it.
_PARTS = "@jupyter-notebook/"

# Extensions whose part in the server lies in a package of another name, without their saying so.
_SERVER_PARTS = {
    "@jupyter/collaboration-extension": "jupyter_server_ydoc",
    "@jupyter/docprovider-extension": "jupyter_server_ydoc",
}

_NAME = re.compile(r"(@[A-Za-z0-9][\w.~-]{0,99}/)?[A-Za-z0-9][\w.~-]{0,199}\Z", re.ASCII)
_LOAD = re.compile(r"(\./)?[\w@+~-][\w@+~.-]*(/[\w@+~-][\w@+~.-]*)*\Z", re.ASCII)
_MODULE = re.compile(r"[\w@+~./-]{1,200}\Z", re.ASCII)
_SEMVER = re.compile(
    r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]{1,100}))?(?:\+[0-9A-Za-z.-]*)?\Z", re.ASCII
)
_COMPARATOR = re.compile(
    r"(\^|~>?|>=|<=|>|<|=)?\s*v?(\d{1,9}|[xX*])(?:\.(\d{1,9}|[xX*]))?(?:\.(\d{1,9}|[xX*]))?(?:[-+][^\s|]*)?",
    re.ASCII,
)


class Damaged(ValueError):
    """A ``package.json`` that JupyterLab could not use; the message says why."""


@dataclass(frozen=True)
class Extension:
    """One extension, as far as JupyterLab needs to know it.

    Parameters
    ----------
    name, version:
        As in npm.
    package:
        What is put into the generated ``package.json``.
    load:
        The file that a page loads first, relative to the extension's folder.
    needs:
        npm package → versions, of what JupyterLab itself provides.
    server:
        What it says about its part in the server: the name of a Python package, or ``""``.
    """

    name: str
    version: str
    package: dict[str, Any]
    load: str
    needs: dict[str, str]
    server: str = ""


@dataclass(frozen=True)
class Lab:
    """The JupyterLab of the image.

    Parameters
    ----------
    version:
        Its version.
    majors:
        npm package that extensions share with it → major version.
    """

    version: str
    majors: Mapping[str, int]


def read(text: str, folder: str) -> Extension:
    """Read a ``package.json``.

    Parameters
    ----------
    text:
        Its content.
    folder:
        Where it lies, below ``labextensions``: JupyterLab looks there for the name in the file.

    Raises
    ------
    Damaged
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise Damaged("its package.json is damaged") from None
    lab = data.get("jupyterlab") if isinstance(data, dict) else None
    build = lab.get("_build") if isinstance(lab, dict) else None
    if not isinstance(data, dict) or not isinstance(lab, dict) or not isinstance(build, dict):
        raise Damaged("its package.json does not describe an extension that is built")
    name, version, load = data.get("name"), data.get("version"), build.get("load")
    if name != folder or not isinstance(name, str) or not _NAME.match(name):
        raise Damaged("its package.json names another extension")
    if not isinstance(version, str) or not _SEMVER.match(version):
        raise Damaged("its package.json names no version")
    # built on Windows, some have backslashes
    load = load.replace("\\", "/") if isinstance(load, str) else ""
    if not _LOAD.match(load) or len(load) > 300:
        raise Damaged("its package.json names no file to load")
    kept = {key: data[key][:1000] for key in ("description", "license") if isinstance(data.get(key), str)}
    needs = _texts(data.get("dependencies"))
    shared = lab.get("sharedPackages")
    for key, how in (shared if isinstance(shared, dict) else {}).items():
        if how is False or (isinstance(how, dict) and how.get("singleton") is False):
            needs.pop(key, None)  # it brings its own
    built: dict[str, Any] = {"load": load}
    for key in ("extension", "mimeExtension", "style"):
        if isinstance(build.get(key), str) and _MODULE.match(build[key]):
            built[key] = build[key]
    if isinstance(build.get("entrypoints"), list):
        built["entrypoints"] = [str(item) for item in build["entrypoints"][:50]]
    about: dict[str, Any] = {"_build": built}
    disabled = lab.get("disabledExtensions")
    if isinstance(disabled, list):
        # an extension may replace others of JupyterLab, but not the panel by which it is uninstalled
        about["disabledExtensions"] = [
            item for item in disabled if isinstance(item, str) and item.partition(":")[0] != OURS
        ]
    package = {"name": name, "version": version, **kept, "dependencies": needs, "jupyterlab": about}
    return Extension(name, version, package, load, needs, _server_part(lab) or _SERVER_PARTS.get(name, ""))


def _texts(data: object) -> dict[str, str]:
    found = data.items() if isinstance(data, dict) else ()
    return {key: value for key, value in found if isinstance(value, str) and len(value) <= 300}


def _server_part(lab: Mapping[str, Any]) -> str:
    found: Any = lab.get("discovery")
    for key in ("server", "base"):
        found = found.get(key) if isinstance(found, dict) else None
        if key == "server" and not found:
            return ""
    name = found.get("name") if isinstance(found, dict) else None
    return name[:100] if isinstance(name, str) and name else "a server extension"


def allows(versions: str, major: int) -> bool:
    """Whether a range of versions, in npm's words, has any of a major version; yes where in doubt.

    Only the major version counts: JupyterLab shares its packages with an extension whatever the rest is, and
    extensions that ask for a newer minor version mostly work.
    """
    return any(_allows(part.strip(), major) for part in versions.split("||"))


def _allows(part: str, major: int) -> bool:
    low, high, at = 0, major, 0
    hyphen = re.fullmatch(r"(\S+)\s+-\s+(\S+)", part)
    if hyphen:
        part = f">={hyphen[1]} <={hyphen[2]}"
    while at < len(part):
        found = _COMPARATOR.match(part, at)
        if not found or (found.end() < len(part) and not part[found.end()].isspace()):
            return True  # a tag, a URL, a workspace: nothing is known
        at = found.end()
        while at < len(part) and part[at].isspace():
            at += 1
        sign, first, *rest = found.groups()
        if not first.isdigit():
            continue
        number = int(first)
        if sign in (">", ">="):
            low = max(low, number)
        elif sign == "<":
            below = all(value is None or value == "0" for value in rest)
            high = min(high, number - 1 if below else number)
        elif sign == "<=":
            high = min(high, number)
        else:
            low, high = max(low, number), min(high, number)
    return low <= major <= high


def misfit(extension: Extension, lab: Lab) -> str:
    """Return what an extension asks of JupyterLab that this one is not, or ``""``."""
    for name, versions in sorted(extension.needs.items()):
        major = lab.majors.get(name)
        if major is not None and not allows(versions, major):
            return f"{name} {versions}"
    return ""


def order(version: str) -> tuple[Any, ...]:
    """Return what sorts versions of npm; what is none comes first."""
    found = _SEMVER.match(version)
    if not found:
        return (-1,)
    parts = [
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in (found[4] or "").split(".") if part
    ]
    return (*(int(found[i]) for i in (1, 2, 3)), not parts, parts)


def why_not(
    extension: Extension,
    lab: Lab,
    *,
    image: Optional[str] = None,
    modules: Collection[str] = (),
    loaded: Collection[str] = (),
    installed: Collection[str] = (),
) -> tuple[str, str] | None:
    """Say why an extension is left out, and what to do about it; ``None`` when it is not.

    Parameters
    ----------
    image:
        The version that is there without the overlay.
    modules:
        The server extensions of its Python package.
    loaded:
        Those that the server has loaded.
    installed:
        Normalised names of the image's Python packages.
    """
    if extension.name == OURS:
        return "it would replace the panel *Packages*", "Uninstall it: the hub brings the panel."
    asked = misfit(extension, lab)
    if asked:
        return (
            f"it was made for another JupyterLab than {lab.version}: it asks for {asked}",
            "Install a version that was made for this JupyterLab, or uninstall it.",
        )
    missing = sorted(module for module in modules if module not in loaded)
    part = re.sub(r"[-_.]+", "-", extension.server).lower()
    if not modules and part and part not in installed and extension.server not in loaded:
        missing = [extension.server]
    if missing:
        return (
            f"it needs a server extension ({', '.join(missing)}), and the server loads only the image's",
            "Ask your administrator to add the package to the image.",
        )
    if image is not None and (order(image) > order(extension.version) or extension.name.startswith(_PARTS)):
        newer = "newer " if order(image) > order(extension.version) else ""
        return f"it would replace the image's {newer}version {image}", "Uninstall it: the image's is used."
    return None


def told(name: str, package: str, version: str, why: str, hint: str) -> dict[str, str]:
    """Return the notice about an extension that is left out.

    Parameters
    ----------
    name:
        The extension.
    package:
        The Python package that brought it, or ``""``.
    version:
        That package's version.
    """
    of = f" (from {package} {version})" if package else ""
    text = f"The JupyterLab extension {name}{of} is not loaded: {why}."
    return notice(CODE, _plain(text), _plain(hint))


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:600])
