"""The format of locks: ``pylock.toml`` (PEP 751), read and written without a library of our own. Pure.

No credentials pass through here in either direction: URLs lose their user, query and fragment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.once import Once, identity
from overlayspawner.payload.requirements import normalise

SOURCES = ("wheels", "sdist", "archive", "vcs", "directory")
_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
_VERSION = re.compile(r"^[A-Za-z0-9.!+_-]*\Z")
_SHA256 = re.compile(r"^[0-9a-f]{64}\Z")
_PLAIN = re.compile(r"[ !#-\[\]-~]*\Z")
"""Texts that are the same between quotes: nearly all."""
_LARGEST = 16_000_000
"""A file of more bytes than this is no lock."""


@dataclass
class Locked:
    """One package of a lock.

    Parameters
    ----------
    name, version:
        Normalised name, exact version.
    sources:
        The tables of PEP 751 that say where it comes from: ``wheels``, ``sdist``, ``archive``, ``vcs``,
        ``directory``.
    compiled:
        It was compiled in the image of that time, so that its files may not fit another one.
    """

    name: str
    version: str
    sources: dict[str, Any] = field(default_factory=dict)
    compiled: bool = False
    _text: str = field(default="", init=False, repr=False, compare=False)

    @property
    def hashes(self) -> list[str]:
        """The SHA-256 digests of the files it may come from."""
        found = list(self.sources.get("wheels") or [])
        found += [self.sources[key] for key in ("sdist", "archive") if key in self.sources]
        return [item["hashes"]["sha256"] for item in found if item.get("hashes", {}).get("sha256")]

    @property
    def direct(self) -> bool:
        """Whether it comes from a URL or a folder, not from an index."""
        return any(key in self.sources for key in ("archive", "vcs", "directory"))

    def pin(self, *, hashes: bool = True) -> str:
        """Return the line that asks for exactly this version, and these files."""
        line = f"{self.name}=={self.version}"
        return line + "".join(f" --hash=sha256:{d}" for d in self.hashes) if hashes else line

    def text(self) -> str:
        """Return its table in a lock, made once: it may not be changed any more."""
        if not self._text:
            lines = ["", "[[packages]]", f"name = {_value(self.name)}", f"version = {_value(self.version)}"]
            lines += [f"{key} = {_value(self.sources[key])}" for key in SOURCES if key in self.sources]
            marks = []
            if not self.hashes and not {"vcs", "directory"} & set(self.sources):
                marks.append('hash = "unknown"')
            if self.compiled:
                marks.append("compiled = true")
            if marks:
                lines += ["[packages.tool.overlayspawner]", *marks]
            self._text = "\n".join(lines)
        return self._text


@dataclass
class Lock:
    """What a lock file says.

    Parameters
    ----------
    base:
        ``{"key", "lock"}`` of the base it was made on.
    python:
        ``X.Y.Z``.
    revision:
        The change after which it was written.
    packages:
        By name.
    """

    base: dict[str, str] = field(default_factory=dict)
    python: str = ""
    revision: int = 0
    packages: dict[str, Locked] = field(default_factory=dict)

    def copy(self) -> Lock:
        """Return a copy whose tables may be changed."""
        return Lock(dict(self.base), self.python, self.revision, dict(self.packages))


def loads(text: str) -> dict[str, Any]:
    """Read TOML with what this Python has: ``tomllib``, ``tomli``, or pip's copy of it.

    Raises
    ------
    OverlayError
        ``damaged-file`` when it is no TOML, ``not-available`` where nothing can read it.
    """
    import importlib

    for name in ("tomllib", "tomli", "pip._vendor.tomli"):
        try:
            reader = importlib.import_module(name)
        except Exception:  # noqa: S112  # a broken copy is as good as none
            continue
        try:
            return dict(reader.loads(text))
        except (ValueError, RecursionError) as e:
            raise OverlayError("damaged-file", f"The lock is no valid TOML: {e}") from None
    raise OverlayError(
        "not-available",
        "This Python can't read TOML: neither tomllib nor tomli was found.",
        "Use an image with Python 3.11 or later, or with pip or tomli.",
        status=501,
    )


def read(file: str) -> Lock:
    """Read a lock.

    Raises
    ------
    OSError
        There is none.
    OverlayError
        See :func:`loads`; ``damaged-file`` also when it is no lock.
    """
    with open(file, encoding="utf-8", errors="replace") as f:
        found = _known.get(file, identity(f.fileno()), lambda: _parse(loads(f.read(_LARGEST))))
    return found.copy()


_known: Once[Lock] = Once()


def remember(file: str, lock: Lock) -> None:
    """Keep what was just written to a file, so that the next :func:`read` need not parse it."""
    _known.put(file, lock.copy())


def _parse(data: dict[str, Any]) -> Lock:
    try:
        own = _table(_table(data.get("tool")).get("overlayspawner"))
        revision = own.get("revision", 0)
        out = Lock(
            base={str(key): str(value) for key, value in _table(own.get("base")).items()},
            python=str(own.get("python", "")),
            revision=revision if isinstance(revision, int) else 0,
        )
        for item in data.get("packages") or []:
            mine = _table(_table(item.get("tool")).get("overlayspawner"))
            name, version = normalise(str(item["name"])), str(item.get("version", ""))
            if not _NAME.match(name) or not _VERSION.match(version):
                raise ValueError(f"{name!r} {version!r} is no package")  # lines for installers are made of it
            sources = clean({key: item[key] for key in SOURCES if key in item})
            out.packages[name] = Locked(name, version, sources, bool(mine.get("compiled")))
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise OverlayError("damaged-file", f"The lock can't be understood: {e}") from None
    return out


# -- credentials ----------------------------------------------------------------------------------------


def clean(sources: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables of PEP 751 with what we keep of them: no credentials in URLs, real digests."""
    out: dict[str, Any] = {}
    for key in SOURCES:
        value = sources.get(key)
        if isinstance(value, list):
            out[key] = [_clean_item(item) for item in value if isinstance(item, Mapping)]
        elif isinstance(value, Mapping):
            out[key] = _clean_item(value)
    return out


def _clean_item(item: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key in (
        "type",
        "name",
        "url",
        "path",
        "editable",
        "size",
        "requested-revision",
        "commit-id",
        "subdirectory",
    ):
        value = item.get(key)
        if isinstance(value, str):
            out[key] = without_credentials(value) if key in ("url", "path") else value
        elif isinstance(value, (bool, int)):
            out[key] = value
    digests = item.get("hashes")
    digest = str(digests.get("sha256", "")).lower() if isinstance(digests, Mapping) else ""
    if _SHA256.match(digest):
        out["hashes"] = {"sha256": digest}
    return out


def without_credentials(url: str) -> str:
    """Return a URL without what may be a secret: its user, its query, its fragment.

    Tokens come in each of these. A name alone that everybody uses for a Git server (``git``) stays.
    """
    if "://" not in url:
        return url.partition("?")[0]
    try:
        parts = urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        netloc = f"{user}@{host}" if user in ("git", "hg") else host
        return urlunsplit((parts.scheme, netloc, parts.path, "", ""))
    except ValueError:
        return ""


# -- TOML -----------------------------------------------------------------------------------------------


def dumps(lock: Lock) -> str:
    """Return the text of a lock."""
    short = ".".join(lock.python.split(".")[:2])
    lines = [
        "# Written by overlayspawner after each change; changes made by hand are lost.",
        'lock-version = "1.0"',
        *([f"requires-python = {_value(f'=={short}.*')}"] if short else []),
        'created-by = "overlayspawner"',
    ]
    lines += [item.text() for _, item in sorted(lock.packages.items())]
    lines += [
        "",
        "[tool.overlayspawner]",
        f"base = {_value(lock.base)}",
        f"python = {_value(lock.python)}",
        f"revision = {lock.revision}",
    ]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, str) and _PLAIN.match(value):
        return f'"{value}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(v)}" for key, v in value.items()) + " }"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    # JSON's strings are TOML's, but for one character
    text = str(value).encode("utf-8", "replace").decode()
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _table(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
