"""An overlay as text that other tools understand: lists, locks, projects. Pure: facts in, text out.

No credentials come out: what a URL holds of them is replaced by ``${VARIABLE}``, which pip and uv read from
the environment. What only exists on this machine is left out, and said in the notes. Images and commands are
made by :mod:`overlayspawner.payload.export_image`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Optional
from urllib.parse import urlsplit, urlunsplit

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.procs import redact
from overlayspawner.payload.pylock import Locked
from overlayspawner.payload.requirements import Requirement, Requirements, parse

FILES = {
    "requirements": "requirements.txt",
    "pylock": "pylock.toml",
    "pyproject": "pyproject.toml",
    "dockerfile": "Dockerfile",
    "docker": "overlay-docker.sh",
    "podman": "overlay-podman.sh",
    "apptainer": "overlay-apptainer.sh",
}
"""Format → name of the file that it usually is in."""

VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
_KEPT = ("egg", "subdirectory", "md5", "sha1", "sha224", "sha256", "sha384", "sha512")
_PYPI = ("pypi.org", "files.pythonhosted.org")
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%{} -]+")
"""The characters of RFC 3986, and those of a line that names one."""


@dataclass
class Facts:
    """All that an export is made from.

    Parameters
    ----------
    name, kind:
        The overlay's.
    text:
        The user's requirements file.
    administrator:
        The administrator's lines.
    packages:
        What the overlay holds, with where it came from, by name.
    hidden:
        What of it hides a package of the image: name to the image's version.
    image_needs:
        Packages of the image that the overlay's need: name to version.
    missing:
        Lines that are not realised at the moment.
    image:
        What the image is called; ``""`` when nobody knows.
    python, machine:
        The image's Python, ``X.Y.Z``, and its architecture.
    executable:
        The image's Python, as a path.
    sites:
        Its directories of packages, where it is a virtual environment: one made of it would not see them.
    system_site:
        Whether an environment made of it shall see the Python below it.
    pip:
        Version of the image's pip, ``""`` where it has none.
    managed:
        Whether the image forbids pip to change its Python (PEP 668).
    user:
        Number of the user that this server runs as.
    writable:
        Whether this user may change the image's Python.
    index_url, extra_index_urls, trusted_hosts:
        Where packages come from; ``""`` and nothing for PyPI.
    """

    name: str = "default"
    kind: str = "overlay"
    text: str = ""
    administrator: list[str] = field(default_factory=list)
    packages: dict[str, Locked] = field(default_factory=dict)
    hidden: dict[str, str] = field(default_factory=dict)
    image_needs: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    image: str = ""
    python: str = ""
    machine: str = ""
    executable: str = "python3"
    sites: list[str] = field(default_factory=list)
    system_site: bool = True
    pip: str = "24.0"
    managed: bool = False
    user: str = "1000"
    writable: bool = True
    index_url: str = ""
    extra_index_urls: list[str] = field(default_factory=list)
    trusted_hosts: list[str] = field(default_factory=list)

    @property
    def short(self) -> str:
        """``X.Y`` of the image's Python."""
        return ".".join(self.python.split(".")[:2])


def export(facts: Facts, form: str, *, pinned: bool = False) -> dict[str, object]:
    """Return ``{format, filename, content, notes}``.

    Parameters
    ----------
    form:
        One of :data:`FILES`.
    pinned:
        Exact versions instead of the lines as they were written; all but ``requirements`` and ``pyproject``
        have them anyway.

    Raises
    ------
    OverlayError
        ``bad-request`` for another format.
    """
    from overlayspawner.payload import export_image

    if form not in FILES:
        raise OverlayError("bad-request", f"The format is one of {', '.join(FILES)}.")
    notes: list[str] = []
    facts = _sane(facts, notes)
    if form == "pylock":
        content = _pylock(facts, notes)
    elif form == "requirements":
        content = _pinned(facts, notes) if pinned else _requirements(facts, notes)
    elif form == "pyproject":
        content = _pyproject(facts, notes, pinned)
    elif form == "dockerfile":
        content = export_image.dockerfile(facts, notes)
    else:
        content = export_image.line(facts, form, notes)
    if facts.missing:
        notes.append(f"Asked for, but not installed at the moment: {', '.join(map(redact, facts.missing))}.")
    names = variables([content])
    if names:
        notes.append(f"Set {', '.join(names)} in the environment: credentials are not exported.")
    return {"format": form, "filename": FILES[form], "content": content, "notes": list(dict.fromkeys(notes))}


def _sane(facts: Facts, notes: list[str]) -> Facts:
    """Return the facts without packages whose names or versions are none.

    They come from the names of directories, which can be called anything, and end up in lines of files.
    """

    def fits(name: str, version: str) -> bool:
        try:
            return parse(f"{name}=={version}").name == name
        except OverlayError:
            return False

    packages = {name: item for name, item in facts.packages.items() if fits(name, item.version)}
    if len(packages) < len(facts.packages):
        notes.append("A package is left out, because what it is called is no name: see `overlay doctor`.")
    return replace(
        facts,
        name="".join(c for c in facts.name if c.isprintable()),
        packages=packages,
        hidden={name: v for name, v in facts.hidden.items() if fits(name, v)},
        trusted_hosts=[host for host in facts.trusted_hosts if re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", host)],
        image_needs={name: v for name, v in facts.image_needs.items() if fits(name, v)},
    )


# -- without credentials, without this machine -------------------------------------------------------------


def clean_url(url: str, prefix: str) -> str:
    """Return a URL with variables in the place of what may be a secret: its user, password and query.

    Parameters
    ----------
    prefix:
        What the names of these variables begin with.

    Raises
    ------
    ValueError
        It is no URL.
    """
    word = re.sub(r"[^A-Z0-9]+", "_", prefix.upper()).strip("_")
    word = word if word[:1].isalpha() else f"P{word}"

    def variable(text: str, name: str) -> str:
        return text if not text or VARIABLE.fullmatch(text) else f"${{{word}_{name}}}"

    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if user not in ("git", "hg"):
        name, colon, password = user.partition(":")
        user = variable(name, "USER" if colon else "TOKEN") + colon + variable(password, "PASSWORD")
    fragment = "&".join(part for part in parts.fragment.split("&") if part.partition("=")[0] in _KEPT)
    query = variable(parts.query, "QUERY")
    return urlunsplit((parts.scheme, f"{user}{at}{host}", parts.path, query, fragment))


def variables(lines: Iterable[str]) -> list[str]:
    """Return the names of the variables in lines that come from the environment of who uses them.

    What each environment has of its own is not handed on.
    """
    found = {name for line in lines for name in VARIABLE.findall(line)}
    return sorted(name for name in found if not re.match(r"(HOME|IFS|IMAGE|PATH|PWD|USER)$|LD_|PYTHON", name))


def bare(url: str) -> str:
    """Return what :func:`clean_url` gave without the variables."""
    return re.sub(r"(\$\{[A-Z][A-Z0-9_]*\}:?)+@|\?\$\{[A-Z][A-Z0-9_]*\}", "", url)


def is_local(url: str) -> bool:
    """Whether a URL or path means something on this machine only."""
    return "://" not in url or url.split("://", 1)[0].lower() in ("file", "git+file")


def portable(requirement: Requirement, notes: list[str]) -> str:
    """Return a requirement as it can be used elsewhere, ``""`` where it can't; a note says why."""
    url = requirement.url
    what = requirement.name or "A project"
    if not url:
        return requirement.text
    if is_local(url):
        notes.append(f"{what} lies in a file or folder of this server ({redact(url)}): it is left out.")
        return ""
    try:
        url = clean_url(url, requirement.name or "url")
    except ValueError:
        return ""
    if requirement.editable:
        notes.append(f"{what} is editable here; elsewhere it is installed as it is at its origin.")
    if not requirement.name:
        return url
    extras = f"[{','.join(requirement.extras)}]" if requirement.extras else ""
    marker = f" ; {requirement.marker}" if requirement.marker else ""
    return f"{requirement.name}{extras} @ {url}{marker}"


def wanted(facts: Facts, notes: list[str]) -> list[str]:
    """Return the lines of user and administrator as they can be used elsewhere."""
    lines = [portable(entry, notes) for entry in Requirements(facts.text).entries()]
    lines += [portable(entry, notes) for entry in _administrators(facts)]
    return list(dict.fromkeys(line for line in lines if line))


def _administrators(facts: Facts) -> Iterator[Requirement]:
    for line in facts.administrator:
        try:
            yield parse(line, trusted=True)
        except OverlayError:
            continue  # each change says so


# -- exact versions ---------------------------------------------------------------------------------------


def pins(facts: Facts, notes: list[str], *, hashes: bool = False) -> list[str]:
    """Return a line for each package of the overlay, in exactly its version.

    Parameters
    ----------
    hashes:
        Add the digests of its files; only where all have some, because pip refuses a part of them.
    """
    asked = {entry.name: entry for entry in Requirements(facts.text).entries() if entry.url}
    found: list[tuple[Locked, str]] = []
    for name, item in sorted(facts.packages.items()):
        line = _pin(item, asked.get(name), notes)
        if line:
            found.append((item, line))
    compiled = [item.name for item, _ in found if item.compiled]
    if compiled:
        notes.append(
            f"Compiled here, and again elsewhere, which needs the same tools: {', '.join(compiled)}."
        )
    unknown = [item.name for item, _ in found if not item.hashes or "vcs" in item.sources]
    if not hashes:
        return [line for _, line in found]
    if unknown:
        notes.append(f"No hashes, because they are not known for all: {', '.join(unknown)}.")
        return [line for _, line in found]
    return [
        line + "".join(f" \\\n    --hash=sha256:{digest}" for digest in dict.fromkeys(item.hashes))
        for item, line in found
    ]


def _pin(item: Locked, line: Optional[Requirement], notes: list[str]) -> str:
    if not item.direct:
        return item.pin(hashes=False)
    sources = item.sources
    if "directory" in sources:
        notes.append(
            f"{item.name} {item.version} was installed from a folder of this server: it is left out."
        )
        return ""
    source = sources.get("vcs") or sources["archive"]
    url = str(source.get("url") or "")
    if is_local(url) or any(c.isspace() or not c.isprintable() for c in url):
        notes.append(f"{item.name} {item.version} was installed from a file of this server: it is left out.")
        return ""
    try:
        url = _as_asked(url, line)
    except ValueError:
        return ""
    inside = f"subdirectory={source['subdirectory']}" if source.get("subdirectory") else ""
    if "vcs" in sources:
        full = f"{source.get('type', 'git')}+{url}@{source.get('commit-id', '')}"
        text = full + (f"#{inside}" if inside else "")
    else:
        digest = source.get("hashes", {}).get("sha256")
        parts = [f"sha256={digest}" if digest else "", inside]
        fragment = "&".join(part for part in parts if part)
        text = url + (f"#{fragment}" if fragment else "")
    try:
        # what an installation recorded of itself is checked like what a user writes
        if _URL.fullmatch(text):
            return parse(f"{item.name} @ {text}", trusted=True).text
        raise OverlayError("bad-requirement")
    except OverlayError:
        notes.append(f"{item.name} {item.version} came from an address that can't be used: it is left out.")
        return ""


def _as_asked(url: str, line: Optional[Requirement]) -> str:
    """Return a URL, which has no credentials in a lock, with the variables of the line that asked for it."""
    if line is None:
        return url
    asked = urlsplit(clean_url(line.url, line.name))
    parts = urlsplit(url)
    if asked.netloc.rpartition("@")[2] != parts.netloc.rpartition("@")[2]:
        return url
    same = asked.path == parts.path
    return urlunsplit((parts.scheme, asked.netloc, parts.path, asked.query if same else "", ""))


def of_image(facts: Facts) -> list[str]:
    """Return a line for each package that was asked for and that the image gives."""
    names = Requirements(facts.text).names() | {entry.name for entry in _administrators(facts)}
    return [f"{name}=={version}" for name, version in sorted(facts.image_needs.items()) if name in names]


def about(facts: Facts) -> list[str]:
    """Return what every file says at its beginning."""
    return [f'The overlay "{facts.name}", exported by overlayspawner.']


def told(
    facts: Facts, notes: list[str], *, same_image: bool = False, without_asked: bool = False
) -> list[str]:
    """Note what exact versions mean elsewhere; return the image's part as lines for a comment.

    Parameters
    ----------
    same_image:
        The image's part is there.
    without_asked:
        What of it was asked for is told elsewhere (:func:`of_image`).
    """
    notes.append(f"These versions were chosen for Python {facts.short} on {facts.machine or 'this machine'}.")
    for name, version in sorted(facts.hidden.items()):
        item = facts.packages.get(name)
        if item is not None:
            notes.append(f"{name} {item.version} is used instead of the image's {version}.")
    if not facts.image_needs or same_image:
        return []
    written = of_image(facts) if without_asked else []
    listed = [f"{name}=={version}" for name, version in sorted(facts.image_needs.items())]
    listed = [line for line in listed if line not in written]
    if not listed:
        return []
    few = ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if listed[3:] else "")
    notes.append(f"The image gives what is needed besides ({few}): only a comment of this file names it.")
    return ["Of the image, and needed by these packages:", *(f"  {line}" for line in listed)]


def sources(facts: Facts, notes: list[str]) -> tuple[str, list[str]]:
    """Return the index and more indexes without credentials; ``""`` and nothing for PyPI."""

    def clean(url: str, prefix: str) -> str:
        try:
            out = clean_url(url, prefix)
        except ValueError:
            return ""
        # a line of a file, or a word of a command: nothing else may come of it
        return out if re.fullmatch(r"[!-~]+", out) and "://" in out else ""

    first = clean(facts.index_url, "index") if facts.index_url else ""
    more = [clean(url, f"index_{n}") for n, url in enumerate(facts.extra_index_urls, 2)]
    more = [url for url in more if url]
    if first and urlsplit(first).hostname in _PYPI:
        first = ""
    hosts = dict.fromkeys(str(urlsplit(url).hostname) for url in [first, *more] if url)
    if hosts:
        notes.append(
            f"The packages come from {', '.join(hosts)}; where that can't be reached, use another index."
        )
    return first, more


# -- the formats ------------------------------------------------------------------------------------------


def _comment(lines: Iterable[str]) -> list[str]:
    return [f"# {line}".rstrip() for line in lines]


def _from(facts: Facts, notes: list[str]) -> list[str]:
    first, more = sources(facts, notes)
    return _comment(f"Installed from {bare(url)}" for url in [first, *more] if url)


def _requirements(facts: Facts, notes: list[str]) -> str:
    lines = [*_comment(about(facts)), *_from(facts, notes)]
    for text in Requirements(facts.text).lines:
        line = Requirements(text)
        if line.ignored():
            notes.append(f"Left out, because it is no requirement: {redact(text.strip())[:120]}")
        for entry in line.entries():
            lines.append(portable(entry, notes))
        if text.strip().startswith("#"):
            lines.append(redact(text.strip()))
    admin = [portable(entry, notes) for entry in _administrators(facts)]
    if any(admin):
        lines += ["# The administrator's:", *admin]
    return "".join(line + "\n" for line in lines if line)


def _pinned(facts: Facts, notes: list[str]) -> str:
    lines = [*_comment(about(facts)), *_from(facts, notes)]
    exact = pins(facts, notes, hashes=True)
    hashes = any("--hash" in line for line in exact)
    if not hashes:
        exact += of_image(facts)
    elif facts.image_needs:
        notes.append("With hashes, pip refuses what is in no line: on another image, install with --no-deps.")
    lines += exact
    return "\n".join([*lines, *_comment(told(facts, notes, without_asked=not hashes))]) + "\n"


def _pyproject(facts: Facts, notes: list[str], pinned: bool) -> str:
    lines = [*pins(facts, notes), *of_image(facts)] if pinned else wanted(facts, notes)
    image = told(facts, notes, without_asked=True) if pinned else []
    head = _from(facts, notes)
    dependencies = []
    for line in lines:
        if "://" in line and " @ " not in line:
            notes.append(f"Left out, because a project can't name it without its package's name: {line}")
            continue
        if VARIABLE.search(line):
            notes.append(f"Variables are not read in this file; write the value, or leave it out: {line}")
        dependencies.append(line)
    name = re.sub(r"[^a-z0-9]+", "-", f"overlay-{facts.name}".lower()).strip("-")
    out = [*_comment(about(facts)), *head, *_comment(image), "[project]"]
    out += [f'name = "{name}"', 'version = "0"', f'requires-python = ">={facts.short}"', "dependencies = ["]
    out += [f"    {json.dumps(line, ensure_ascii=False)}," for line in dependencies]
    out += ["]", "", "[build-system]", 'requires = ["setuptools>=61"]']
    out += ['build-backend = "setuptools.build_meta"', ""]
    out += ["[tool.setuptools]", "# a list of packages, without modules of its own", "py-modules = []"]
    return "\n".join(out) + "\n"


def _pylock(facts: Facts, notes: list[str]) -> str:
    taken = []
    for name, item in sorted(facts.packages.items()):
        why = _unlockable(item)
        if why:
            notes.append(f"{name} {item.version} is left out: {why}.")
        else:
            taken.append(item)
    hosts = {urlsplit(url).hostname for item in taken for url in _urls(item)} - {*_PYPI, None}
    if hosts:
        notes.append(f"Files are downloaded from {', '.join(sorted(map(str, hosts)))}.")
    lines = [*_comment(about(facts)), *_comment(told(facts, notes)), 'lock-version = "1.0"']
    lines += [f'requires-python = "=={facts.short}.*"', 'created-by = "overlayspawner"']
    if not taken:
        lines.append("packages = []")
    return "\n".join([*lines, *(item.text() for item in taken)]) + "\n"


def _urls(item: Locked) -> Iterator[str]:
    for source in item.sources.values():
        for entry in source if isinstance(source, list) else [source]:
            yield str(entry.get("url") or "")


def _unlockable(item: Locked) -> str:
    """Say why a package can't be in a lock for others, or return ``""``."""
    if not item.sources:
        return "nobody knows where it came from"
    if "directory" in item.sources:
        return "it was installed from a folder of this server"
    if any(is_local(url) for url in _urls(item)):
        return "it was installed from a file of this server"
    entries = [e for s in item.sources.values() for e in (s if isinstance(s, list) else [s])]
    if "vcs" not in item.sources and not all(entry.get("hashes") for entry in entries):
        return "the hash of its file is not known"
    return ""
