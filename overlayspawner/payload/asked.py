"""What a command of pip or uv asked for, read from its arguments. Pure but for the files that ``-r`` names.

pip leaves no trace of extras and version limits that somebody asked for, nor of what the image had already.
The arguments tell. What they don't tell (a project's directory) is told by the installed metadata.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Optional

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.requirements import Requirement, Requirements, normalise, parse

VERBS = ("install", "uninstall", "sync")

# Options that take a value in the next word. Those of pip and of `uv pip` in one list: where the two differ a
# letter (`-p`, `-P`, `-b`, `-t`) only one of them knows it.
_TAKE_A_VALUE = """
--abi --allow-insecure-host --build-constraint --build-constraints --build-option --cache-dir --cert
--client-cert --color --config-file --config-setting --config-settings --config-settings-package
--constraint --constraints --default-index --default-timeout --directory --editable --exclude-newer
--exclude-newer-package --excludes --exists-action --extra --extra-index-url --find-links --fork-strategy
--global-option --group --implementation --index --index-strategy --index-url --install-option
--keyring-provider --link-mode --local-log --log --log-file --no-binary --no-build-isolation-package
--no-sources-package --only-binary --override --overrides --platform --prefix --prerelease --progress-bar
--project --proxy --pypi-url --python --python-fetch --python-platform --python-preference
--python-version --refresh-package --reinstall-package --report --requirement --requirements --resolution
--resume-retries --retries --root --root-user-action --src --source --target --timeout --torch-backend
--trusted-host --upgrade-package --upgrade-strategy --uploaded-prior-to --use-deprecated --use-feature
"""
_VALUES = frozenset(_TAKE_A_VALUE.split())
_SHORT_VALUES = "bcefiprtCP"
_LONG = {
    "-b": "--build-constraints",
    "-c": "--constraint",
    "-e": "--editable",
    "-f": "--find-links",
    "-h": "--help",
    "-i": "--index-url",
    "-p": "--python",
    "-q": "--quiet",
    "-r": "--requirement",
    "-t": "--target",
    "-v": "--verbose",
    "-y": "--yes",
    "-C": "--config-settings",
    "-P": "--upgrade-package",
    "-U": "--upgrade",
}
_SAME = {"--requirements": "--requirement", "--constraints": "--constraint"}

ELSEWHERE = frozenset(
    {"--target", "--prefix", "--root", "--python", "--user", "--system", "--dry-run", "--help", "--version"}
)
"""Options that aim a command at something else than the overlay, or keep it from changing anything."""

_MAX_NESTED = 5
"""How deep requirement files that name others are followed."""


class Command:
    """A command line of pip or uv, taken apart.

    Parameters
    ----------
    tool:
        ``pip`` or ``uv``.
    verb:
        One of :data:`VERBS`, or ``""`` for everything else.
    operands:
        The words that are neither options nor their values.
    options:
        The long names of the options given, with their values (``""`` for those without one).
    """

    def __init__(self, tool: str, verb: str, operands: list[str], options: dict[str, list[str]]) -> None:
        self.tool = tool
        self.verb = verb
        self.operands = operands
        self.options = options

    def __repr__(self) -> str:
        return f"Command({self.tool!r}, {self.verb!r}, {self.operands!r}, {self.options!r})"

    def aims_here(self, environ: Mapping[str, str], env_path: str) -> bool:
        """Whether it changes the overlay's env.

        Parameters
        ----------
        environ:
            What it runs with. pip acts on the env whose Python runs it; uv on the one that
            ``VIRTUAL_ENV`` names.
        env_path:
            The overlay's env.
        """
        if not self.verb or ELSEWHERE & set(self.options):
            return False
        if self.tool == "pip":
            return True
        named = environ.get("VIRTUAL_ENV", "")
        return bool(named) and os.path.realpath(named) == os.path.realpath(env_path)

    def requirements(self, folder: str = "") -> list[Requirement]:
        """Return what an installation asked for; what is not plainly a requirement is left out.

        Parameters
        ----------
        folder:
            The directory it ran in; the current one when empty.
        """
        if self.verb == "uninstall":
            return []
        folder = folder or os.getcwd()
        out: list[Requirement] = []
        listed = list(self.options.get("--requirement", ()))
        if self.verb == "sync":  # its operands are files
            listed += self.operands
        else:
            for word in self.operands:
                _add(out, word)
        for word in self.options.get("--editable", ()):
            _add(out, "-e " + word)
        for name in listed:
            out += _read(os.path.join(folder, name))
        return out

    def names(self, folder: str = "") -> list[str]:
        """Return the normalised names an uninstallation asked for."""
        if self.verb != "uninstall":
            return []
        out: list[Requirement] = []
        for word in self.operands:
            _add(out, word)
        for name in self.options.get("--requirement", ()):
            out += _read(os.path.join(folder or os.getcwd(), name))
        return [r.name for r in out if r.name]


def read(argv: Sequence[str]) -> Command:
    """Take a command line apart.

    Parameters
    ----------
    argv:
        ``["pip", "install", …]`` or ``["uv", "pip", "install", …]``; the first word may be a path.
    """
    tool = os.path.basename(argv[0]) if argv else ""
    tool = "uv" if tool == "uv" else "pip"
    words, options = _split(argv[1:])
    if tool == "uv":
        # `uv sync`, `uv add` and the like act on a project of the user's
        words = words[1:] if words[:1] == ["pip"] else []
    verb = words[0] if words and words[0] in VERBS and (tool, words[0]) != ("pip", "sync") else ""
    return Command(tool, verb, words[1:] if verb else words, options)


def _split(argv: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    words: list[str] = []
    options: dict[str, list[str]] = {}
    todo = list(argv)
    while todo:
        word = todo.pop(0)
        if word == "--":
            words += todo
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            name = _full(name)
            if not equals and name in _VALUES:
                value = todo.pop(0) if todo else ""
            options.setdefault(_SAME.get(name, name), []).append(value)
        elif word.startswith("-") and len(word) > 1:
            _short(word[1:], todo, options)
        else:
            words.append(word)
    return words, options


def _short(letters: str, todo: list[str], options: dict[str, list[str]]) -> None:
    """Read ``-U``, ``-Uq``, ``-rFILE``, ``-r FILE``."""
    for n, letter in enumerate(letters):
        name = _LONG.get("-" + letter, "-" + letter)
        value = ""
        if letter in _SHORT_VALUES:
            value = letters[n + 1 :].lstrip("=") or (todo.pop(0) if todo else "")
        options.setdefault(name, []).append(value)
        if letter in _SHORT_VALUES:
            return


def _full(name: str) -> str:
    """pip takes any beginning of an option's name that is clear."""
    if name in _VALUES or len(name) < 5:
        return name
    found = [known for known in _VALUES if known.startswith(name)]
    return found[0] if len(found) == 1 else name


def _add(out: list[Requirement], text: str) -> None:
    requirement = _parse(text)
    if requirement is not None:
        out.append(requirement)


def _parse(text: str) -> Optional[Requirement]:
    try:
        return parse(text, trusted=True)
    except OverlayError:
        return None  # a directory, say: the installed metadata tells where it came from


def _read(path: str, depth: int = 0) -> list[Requirement]:
    """Read a requirements file as an installer would, with continued lines and the files it names."""
    try:
        text = Requirements.read(path).to_text()
    except (OSError, UnicodeError):
        return []
    out: list[Requirement] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        line = re.sub(r"(?:^|\s+)#.*$", "", line).strip()
        nested = re.match(r"(?:-r\s*|--requirement[ =]\s*)(\S+)$", line)
        if nested:
            if depth < _MAX_NESTED:
                out += _read(os.path.join(os.path.dirname(path), nested[1]), depth + 1)
            continue
        if not line.startswith("-"):
            line = re.split(r"(?<!\s)\s+--", line, maxsplit=1)[0]  # hashes
        _add(out, line)
    return out


def from_report(report: object) -> dict[str, str]:
    """Return the URLs of pip's report: normalised name to line, for what was asked for by URL.

    Parameters
    ----------
    report:
        pip's installation report (its JSON as a dict); anything else gives nothing.
    """
    out: dict[str, str] = {}
    items = report.get("install") if isinstance(report, dict) else None
    for item in items if isinstance(items, list) else []:
        try:
            if item.get("is_direct") and item.get("requested"):
                name = normalise(item["metadata"]["name"])
                line = direct_line(name, item["download_info"])
                if line:
                    out[name] = line
        except (KeyError, TypeError, AttributeError):
            continue
    return out


def requested(report: object) -> set[str]:
    """Return the normalised names that pip's report calls asked for."""
    items = report.get("install") if isinstance(report, dict) else None
    out = set()
    for item in items if isinstance(items, list) else []:
        try:
            if item.get("requested"):
                out.add(normalise(item["metadata"]["name"]))
        except (KeyError, TypeError, AttributeError):
            continue
    return out


def direct_line(name: str, info: Mapping[str, object], home: str = "") -> str:
    """Return the line for a distribution that came from a URL, as PEP 610 data tells; ``""`` if it can't.

    Parameters
    ----------
    name:
        Normalised.
    info:
        ``direct_url.json``.
    home:
        Replaced by ``${HOME}`` in the path of a project that is used from where it lies.
    """
    url = str(info.get("url") or "").partition("#")[0]
    if not url:
        return ""
    folder = str(info.get("subdirectory") or "")
    vcs = info.get("vcs_info")
    if isinstance(vcs, dict):
        revision = str(vcs.get("requested_revision") or "")
        line = f"{name} @ {vcs.get('vcs')}+{url}" + (f"@{revision}" if revision else "")
        return line + (f"#subdirectory={folder}" if folder else "")
    local = info.get("dir_info")
    if isinstance(local, dict) and local.get("editable"):
        start = "file://" + home.rstrip("/")
        if home and url.startswith(start + "/"):
            url = "file://${HOME}" + url[len(start) :]
        return f"-e {url}#egg={name}"
    return f"{name} @ {url}" + (f"#subdirectory={folder}" if folder else "")
