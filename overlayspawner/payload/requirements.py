"""What the user asked for: one requirement a line (PEP 508), and the file that holds the lines. Pure.

Requirement lines come from forms, REST calls and command lines, and end up in a file that an installer reads.
An installer takes options there too (another index, another file to include), so that whatever is not
plainly a requirement is refused here. The refusals do not depend on ``packaging``, which not every image has.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

from overlayspawner.payload.contract import OverlayError

MAX_LENGTH = 2_000

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_CLAUSE = r"(?:===|==|~=|!=|<=|>=|<|>)\s*[^\s,;()=<>!~@#'\"\\]+"
_PEP508 = re.compile(
    rf"^(?P<name>{_NAME})\s*(?:\[(?P<extras>[^\[\]]*)\])?\s*"
    rf"(?:@\s*(?P<url>\S+)(?:\s+(?=;)|$)|(?P<spec>\(\s*{_CLAUSE}(?:\s*,\s*{_CLAUSE})*\s*\)"
    rf"|{_CLAUSE}(?:\s*,\s*{_CLAUSE})*\s*,?)?)\s*(?:;\s*(?P<marker>.+))?$",
    re.ASCII,
)
_EXTRA = re.compile(rf"^{_NAME}$", re.ASCII)
_BEGINS = re.compile(rf"^{_NAME}(?![:\w])", re.ASCII)
_VCS = (
    "git+https",
    "git+http",
    "git+ssh",
    "git+git",
    "git+file",
    "hg+https",
    "hg+http",
    "hg+ssh",
    "svn+https",
    "bzr+https",
)
_URL = re.compile(rf"^(?:https?|file|{'|'.join(re.escape(v) for v in _VCS)})://\S+$", re.IGNORECASE)
_WHEEL_PATH = re.compile(r"^(?:/|\./|\.\./|~/)[^\s;#]*\.whl$|^file://[^\s;]+\.whl$")
_WHEEL_NAME = re.compile(
    rf"^(?P<name>{_NAME}?)-(?P<version>[^-]+)(?:-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl$", re.ASCII
)
_EDITABLE = re.compile(r"^(?:-e|--editable)(?:\s+|=)(?P<target>[^\s\-]\S*)$")
_OPTION_TAIL = re.compile(r"\s-{1,2}[A-Za-z]")
_VARIABLE = re.compile(r"\$\{[A-Z][A-Z0-9_]*\}")
_BREAKS = "\x7f\x85\u2028\u2029"
"""What ``str.splitlines`` or a tool may take for the end of a line, besides the ASCII control characters."""
_COMMENT = re.compile(r"(?:^|(?<!\s)\s+)#.*$")
"""It begins at the first of several spaces: else a long row of them is looked at once for each of them."""

_HINT = "Write a package's name, for example: humanize, humanize>=4 or humanize[extra]==4.9."


def normalise(name: str) -> str:
    """Return a name as PEP 503 compares them: lower case, runs of ``-_.`` as one hyphen."""
    return re.sub(r"[-_.]+", "-", name).lower()


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a tool's version, to compare it with others."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("+")[0].split("."))


class Requirement:
    """One requirement.

    Parameters
    ----------
    text:
        The line as it goes into the file and to the installer.
    name:
        Normalised; ``""`` for a URL that doesn't tell.
    extras, specifier, url, marker:
        Its parts, ``()`` or ``""`` when absent.
    editable:
        It is a project that is used from where it lies (``-e``); ``url`` says where.
    """

    def __init__(
        self,
        text: str,
        name: str,
        *,
        extras: tuple[str, ...] = (),
        specifier: str = "",
        url: str = "",
        marker: str = "",
        editable: bool = False,
    ) -> None:
        self.text = text
        self.name = name
        self.extras = extras
        self.specifier = specifier
        self.url = url
        self.marker = marker
        self.editable = editable

    def __repr__(self) -> str:
        return f"Requirement({self.text!r})"

    @property
    def key(self) -> str:
        """What two lines about the same thing have in common."""
        return self.name or self.url

    @property
    def is_plain(self) -> bool:
        """Whether it is a name and nothing else."""
        return not (self.extras or self.specifier or self.url or self.marker)


def packaging() -> Any:
    """Return the ``packaging`` package, the image's or pip's own copy, or ``None``."""
    try:
        import packaging as found
        import packaging.requirements  # noqa: F401  # brings markers, specifiers and version along
    except Exception:
        try:
            from pip._vendor import packaging as found  # type: ignore[no-redef,unused-ignore]
            from pip._vendor.packaging import requirements  # noqa: F401
        except Exception:
            return None
    return found


def parse(text: object, *, trusted: bool = False) -> Requirement:
    """Read one requirement.

    Parameters
    ----------
    text:
        A PEP 508 requirement, a bare URL (``https://…``, ``git+https://…``) or the path of a wheel.
    trusted:
        It comes from the administrator or the user's own file: credentials in its URL are accepted, and
        projects that are used from where they lie (``-e file://${HOME}/project#egg=name``).

    Raises
    ------
    OverlayError
        ``option-not-allowed`` for options and for anything that could become a second line,
        ``bad-requirement`` for everything else that is not a requirement.
    """
    if not isinstance(text, str):
        raise OverlayError("bad-requirement", "A requirement must be text.", _HINT)
    shown = _shown(text)
    if any(c in _BREAKS or (c < " " and c != "\t") for c in text):
        raise OverlayError(
            "option-not-allowed", f"{shown} holds a line break or another control character.", _HINT
        )
    if not trusted and any("\ud800" <= c <= "\udfff" for c in text):
        # half a character, which can't be written into any file
        raise OverlayError("bad-requirement", f"{shown} is not text.", _HINT)
    line = text.strip()
    if not line:
        raise OverlayError("bad-requirement", "A requirement is empty.", _HINT)
    if len(line) > MAX_LENGTH:
        raise OverlayError("bad-requirement", f"{shown} is longer than {MAX_LENGTH:,} characters.", _HINT)
    editable = _EDITABLE.match(line) if trusted else None
    if editable is not None:
        return _from_editable(editable["target"])
    if line.startswith("-") or _OPTION_TAIL.search(line):
        raise OverlayError(
            "option-not-allowed",
            f"{shown} holds an option of the installer; only requirements are accepted here.",
            _HINT,
        )
    if _WHEEL_PATH.match(line):
        return _from_wheel(line)
    if _URL.match(line):
        return _from_url(line, trusted)
    return _from_pep508(line, trusted)


def parse_all(texts: object) -> list[Requirement]:
    """Read a list of requirements; see :func:`parse`. Those that were read already stay as they are."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise OverlayError("bad-requirement", "Requirements must be a list of texts.", _HINT)
    return [text if isinstance(text, Requirement) else parse(text) for text in texts]


def parse_name(text: object) -> str:
    """Read the name of a package and return it normalised.

    Raises
    ------
    OverlayError
        ``option-not-allowed`` or ``bad-requirement``, as :func:`parse`; also for more than a name.
    """
    requirement = parse(text)
    if not requirement.is_plain:
        raise OverlayError(
            "bad-requirement", f"{_shown(requirement.text)} is more than a name.", "Write the name only."
        )
    return requirement.name


def _shown(text: str) -> str:
    from overlayspawner.payload.procs import redact

    short = redact(text)
    return repr(short if len(short) <= 120 else short[:117] + "...")


def _from_wheel(line: str) -> Requirement:
    path = unquote(urlsplit(line).path) if line.startswith("file:") else os.path.expanduser(line)
    match = _WHEEL_NAME.match(os.path.basename(path))
    if not match:
        raise OverlayError("bad-requirement", f"{_shown(line)} is not the name of a wheel.", _HINT)
    from urllib.request import pathname2url

    name = normalise(match["name"])
    url = "file://" + pathname2url(os.path.abspath(path))
    return Requirement(f"{name} @ {url}", name, url=url)


def _from_url(line: str, trusted: bool) -> Requirement:
    _check_url(line, trusted)
    parts = urlsplit(line)
    match = _WHEEL_NAME.match(unquote(parts.path.rsplit("/", 1)[-1]))
    name = match["name"] if match else ""
    if not name:
        egg = re.search(rf"(?:^|&)egg=({_NAME})", parts.fragment, re.ASCII)
        name = egg[1] if egg else ""
    if name:
        return Requirement(f"{normalise(name)} @ {line}", normalise(name), url=line)
    return Requirement(line, "", url=line)


def _from_editable(target: str) -> Requirement:
    """Read what follows ``-e``: the absolute path of a project, or a URL.

    A relative path would mean another place for each tool and each caller.
    """
    if not (_URL.match(target) or target.startswith(("/", "~/", "${"))):
        raise OverlayError(
            "bad-requirement",
            f"{_shown('-e ' + target)} is neither an absolute path nor a URL.",
            "Write for example: -e file://${HOME}/project#egg=name",
        )
    if target.startswith("~/"):
        target = "${HOME}" + target[1:]
    egg = re.search(rf"#(?:.*&)?egg=({_NAME})", target, re.ASCII)
    name = normalise(egg[1]) if egg else ""
    extras = re.search(r"\[([A-Za-z0-9._,-]*)\]$", target, re.ASCII) if egg else None
    named = tuple(normalise(e) for e in extras[1].split(",") if e) if extras else ()
    return Requirement(f"-e {target}", name, extras=named, url=target, editable=True)


@functools.lru_cache(maxsize=2048)
def _from_pep508(line: str, trusted: bool) -> Requirement:
    # a change reads the same lines many times
    match = _PEP508.match(line)
    if not match:
        raise OverlayError("bad-requirement", f"{_shown(line)} is not a requirement.", _HINT)
    url = match["url"] or ""
    if url:
        if not _URL.match(url):
            raise OverlayError("bad-requirement", f"{_shown(line)} names neither a version nor a URL.", _HINT)
        _check_url(url, trusted)
    extras = tuple(e.strip() for e in (match["extras"] or "").split(",") if e.strip())
    for extra in extras:
        if not _EXTRA.match(extra):
            raise OverlayError("bad-requirement", f"{extra!r} is not the name of an extra.", _HINT)
    library = packaging()
    if library is not None:
        try:
            library.requirements.Requirement(line)
        except ValueError as e:
            reason = str(e).splitlines()[0] if str(e) else "not a requirement"
            raise OverlayError("bad-requirement", f"{_shown(line)}: {reason}.", _HINT) from None
        except Exception:
            raise OverlayError("bad-requirement", f"{_shown(line)} is not a requirement.", _HINT) from None
    return Requirement(
        line,
        normalise(match["name"]),
        extras=tuple(normalise(e) for e in extras),
        specifier=(match["spec"] or "").strip("() "),
        url=url,
        marker=(match["marker"] or "").strip(),
    )


def _check_url(url: str, trusted: bool) -> None:
    try:
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        parts.port  # noqa: B018  # raises where it is none
    except ValueError:
        raise OverlayError("bad-requirement", f"{_shown(url)} is not a URL.", _HINT) from None
    if "+" in parts.scheme and (parts.netloc.startswith("-") or "@-" in parts.netloc + parts.path):
        # a host or a revision that Git or Mercurial would take for one of their options
        raise OverlayError("option-not-allowed", f"{_shown(url)} holds an option.", _HINT)
    if not parts.netloc and parts.scheme not in ("file", "git+file"):
        raise OverlayError("bad-requirement", f"{_shown(url)} names no server.", _HINT)
    secret = _VARIABLE.sub("", user).strip(":")
    if secret and secret not in ("git", "hg") and not trusted:
        raise OverlayError(
            "bad-requirement",
            f"{_shown(url)} holds credentials, which would be written into files.",
            "Put them into environment variables and write https://${NAME}:${TOKEN}@server/….",
        )


class Requirements:
    """A requirements file: its lines, comments and all.

    Parameters
    ----------
    text:
        The file's content.
    """

    def __init__(self, text: str = "") -> None:
        # some editors begin a file with a byte order mark; no installer minds when it is gone
        self.lines = text.removeprefix("\ufeff").splitlines()

    @classmethod
    def read(cls, path: str) -> Requirements:
        """Read a file; one that is missing is empty.

        Raises
        ------
        OSError
            It can't be read.
        """
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as f:
                return cls(f.read())
        except FileNotFoundError:
            return cls()

    def to_text(self) -> str:
        """Return the content to write."""
        return "".join(line + "\n" for line in self.lines)

    def entries(self) -> list[Requirement]:
        """Return the requirements, one a line; what is not one is in :meth:`ignored`."""
        return [requirement for _, requirement in self._parsed() if requirement is not None]

    def ignored(self) -> list[str]:
        """Return the lines that are neither requirements nor comments: options, mistakes."""
        return [self.lines[n].strip() for n, requirement in self._parsed() if requirement is None]

    def unclear(self) -> dict[str, str]:
        """Return those of the :meth:`ignored` lines that begin with a name, by that: ``thing=1.0``."""
        found = ((_BEGINS.match(line), line) for line in self.ignored())
        return {normalise(match[0]): line for match, line in found if match}

    def names(self) -> set[str]:
        """Return the normalised names of what is asked for."""
        return {requirement.name for requirement in self.entries() if requirement.name}

    def with_added(self, requirement: Requirement) -> Requirements:
        """Return a copy in which ``requirement`` replaces the lines about its package, or is the last."""
        out = Requirements()
        placed = False
        about = {n for n, entry in self._parsed() if entry is not None and entry.key == requirement.key}
        for n, line in enumerate(self.lines):
            if n not in about:
                out.lines.append(line)
            elif not placed:
                comment = _COMMENT.search(line)
                out.lines.append(requirement.text + (comment[0].rstrip() if comment else ""))
                placed = True
        if not placed:
            out.lines.append(requirement.text)
        return out

    def with_asked(self, requirements: Iterable[Requirement]) -> Requirements:
        """Return a copy with all lines of a request: they replace those that are there, not each other.

        One package may be named twice: for different Pythons, or with two limits that both hold.
        """
        out = self
        seen: dict[str, set[str]] = {}
        for requirement in requirements:
            texts = seen.setdefault(requirement.key, set())
            if not texts:
                out = out.with_added(requirement)
            elif requirement.text not in texts:
                after = max(n for n, e in out._parsed() if e is not None and e.key == requirement.key) + 1
                lines = [*out.lines[:after], requirement.text, *out.lines[after:]]
                out = Requirements()
                out.lines = lines
            texts.add(requirement.text)
        return out

    def with_removed(self, name: str) -> Requirements:
        """Return a copy without the lines about a package (normalised name)."""
        about = {n for n, entry in self._parsed() if entry is not None and entry.key == name}
        out = Requirements()
        out.lines = [line for n, line in enumerate(self.lines) if n not in about]
        return out

    def _parsed(self) -> list[tuple[int, Requirement | None]]:
        """The number of each line that says something, with its requirement or ``None``."""
        out: list[tuple[int, Requirement | None]] = []
        for n, line in enumerate(self.lines):
            bare = _COMMENT.sub("", line).strip()
            if not bare:
                continue
            try:
                # The file is the user's own: what stands there is theirs to write, secrets too.
                out.append((n, parse(bare, trusted=True)))
            except OverlayError:
                out.append((n, None))
        return out
