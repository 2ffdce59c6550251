"""Explains why an installation failed: names the package, the version, the host; says what to do.

The code of an error comes from the tool's words (:mod:`~overlayspawner.payload.installer.errors`). Here its
sentences are made: from more of these words, from what is asked for and installed, and for a package or
version that can't be had also from the index, which is asked once more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Optional

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.installer import builds, conflicts, similar, words
from overlayspawner.payload.installer.asking import Index, host_of
from overlayspawner.payload.installer.errors import SAME, says
from overlayspawner.payload.installer.versions import known_versions, unavailable
from overlayspawner.payload.requirements import normalise

_NAME = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
_NOT_THERE = (
    re.compile(rf"Because ({_NAME}) was not found in"),
    re.compile(rf"(?:and|because) ({_NAME}) was not found in"),
    re.compile(
        rf"satisfies the requirement ({_NAME})(?:\[[^\]]*\])?[^(]*?(?: \(from [^()]*\))?"
        r" \(from versions: none\)"
    ),
)
_WANTED = (
    re.compile(
        rf"satisfies the requirement ({_NAME})(?:\[[^\]]*\])?\s*([^\s(;]*)[^(]*"
        r"\((?:from ([^()]*)\) \()?from versions: "
    ),
    re.compile(rf"there (?:is|are) no versions? of ({_NAME})\s*([=<>!~][^\s]*)?()"),
    re.compile(rf"({_NAME})(==\S+) has no (?:usable )?wheels()"),
    re.compile(rf"({_NAME})(==\S+) depends on Python()"),
    re.compile(rf"({_NAME})(==\S+) was yanked()"),
    re.compile(rf"only ({_NAME})(?:[=<>]\S+)? is available.*?you require \1([=<>!~]\S*?)(?:,|\s|$)()"),
)
_NEEDED_BY = re.compile(rf"({_NAME})(?:==(\S+))? depends? on ({_NAME})([=<>!~][^\s]*)?")
_FROM = re.compile(rf"satisfies the requirement ({_NAME})([^(]*)\(from ({_NAME})(?:->[^()]*)?\)")
_PACKAGE = (
    re.compile(rf"Failed to (?:download|install|fetch|extract|unzip)[^`]*`({_NAME})==([^`]+)`"),
    re.compile(rf"Failed to install: \S+ \(({_NAME})==(\S+)\)"),
    re.compile(rf"given name `({_NAME})`()"),
    re.compile(rf"Hash mismatch for `({_NAME})==([^`]+)`"),
    re.compile(rf"({_NAME})==(\S+?) has (?:an? )?invalid"),
    re.compile(rf"[Ww]heel '?({_NAME})'? located()"),
    re.compile(rf"Requested ({_NAME})(?:==(\S+))? from .* has inconsistent"),
    re.compile(rf"({_NAME})(?:==(\S+))? from https?://\S+"),
    re.compile(r"/([A-Za-z0-9][\w.]*?)-(\d[\w.!+]*?)-[^/\s-]+-[^/\s-]+-[^/\s-]+\.whl"),
    re.compile(rf"Collecting ({_NAME})(?:==(\S+))?"),
)
_WHY_BAD = (
    (
        r"hash mismatch|do not match the hashes",
        "the file is not the one that the index announces (its hash differs)",
    ),
    (r"inconsistent name|name `?\S+ does not match", "its metadata has another name than its file"),
    (r"inconsistent version|version does not match", "its metadata has another version than its file"),
    (r"invalid metadata|could not be parsed|parse metadata", "its metadata can't be read"),
    (r"zip|invalid package format|is invalid|corrupt|unexpected end", "the file is incomplete or damaged"),
)
_URLS = (
    re.compile(r"Failed to fetch:? `?(https?://[^\s`]+)"),
    re.compile(r"Could not fetch URL (\S+?):? "),
    re.compile(r"for url:? \(?(https?://[^\s)]+)"),
    re.compile(r"index(?: URL)? \((https?://[^\s)]+)\)", re.I),
    re.compile(r"HTTP error \d+ while getting (\S+)"),
    re.compile(r"(?:Unable to fetch|while fetching|`Content-Type` \S+ for) `?(https?://[^\s`]+)"),
)
_POOL = re.compile(r"host='([^']+)', port=(\d+)")
_UNTRUSTED = re.compile(r"located at (\S+) is not a trusted")


@dataclass
class Attempt:
    """What was tried.

    Parameters
    ----------
    python:
        The base's version of Python.
    environ:
        Returns the environment that the installer ran in.
    lines:
        All lines that were resolved.
    new:
        Names that this change asks for.
    admin, constraints:
        The administrator's lines; lines that limit versions.
    installed, base:
        Name to version of what the overlay and the image have.
    offline:
        Whether the index may not be asked.
    """

    python: str
    environ: Callable[[], Mapping[str, str]]
    lines: Iterable[str] = ()
    new: frozenset[str] = frozenset()
    admin: Iterable[str] = ()
    constraints: Iterable[str] = ()
    installed: Mapping[str, str] = field(default_factory=dict)
    base: Mapping[str, str] = field(default_factory=dict)
    offline: bool = False
    index: Optional[Index] = None

    def ask(self) -> Index:
        """Return the indexes of the installer."""
        if self.index is None:
            self.index = Index(self.environ())
        return self.index


def explain(error: OverlayError, attempt: Attempt) -> OverlayError:
    """Return the error with sentences that say more; the same one where there is nothing to add.

    Parameters
    ----------
    error:
        As :func:`~overlayspawner.payload.installer.errors.failure` made it.
    """
    out = error
    secrets: tuple[str, ...] = ()
    try:
        secrets = attempt.ask().secrets
        make = _MAKERS.get(error.code)
        if make is not None and error.log:
            out = make(words.handy(error.log), attempt) or error
    except Exception:
        # an explanation is never worth more than the error that it explains
        out = error
    out.message, out.hint = words.clean(out.message, secrets), words.clean(out.hint, secrets)
    out.log = words.log(error.log, secrets)
    return out


def _error(code: str, sentence: str, hint: str = "") -> OverlayError:
    _, usual, status = says(code)
    short = sentence if len(sentence) <= 1_000 else sentence[:999] + "…"
    return OverlayError(code, f"{short} {SAME}", hint or usual, status=status)


# -- names and versions -----------------------------------------------------------------------------------


def _missing(text: str, attempt: Attempt) -> Optional[OverlayError]:
    """No such package; or it only looks like that."""
    joined = words.flat(text)
    names = [normalise(m) for pattern in _NOT_THERE for m in pattern.findall(joined)]
    if not names:
        return None
    name = names[-1]
    if not attempt.offline:
        other = _look(name, "", joined, attempt)
        if other is not None:
            return other
    host = _hosts(attempt)
    by, _ = _needed_by(name, joined)
    sentence = f"There is no package {name} at {host}" if host else f"There is no package {name}"
    sentence += f", and {by} needs it." if by else "."
    near = similar.close(name, {*attempt.installed, *attempt.base})
    if by:
        hint = f"Ask for another version of {by.partition(' ')[0]}, or tell its authors."
        if near:
            hint += f" Packages with names close to {name}: {', '.join(near)}."
    elif near:
        hint = f"Did you mean {_or(near)}?"
    else:
        hint = "Check the spelling of the name."
    return _error("no-such-package", sentence, hint)


def _unfit(text: str, attempt: Attempt) -> Optional[OverlayError]:
    """No version that fits."""
    joined = words.flat(text)
    for pattern in _WANTED:
        found = pattern.findall(joined)
        if found:
            name, specifier = found[-1][0], found[-1][1].strip().rstrip(",.`")
            break
    else:
        return None
    if attempt.offline:
        return None
    return _look(normalise(name), specifier, joined, attempt)


def _look(name: str, specifier: str, text: str, attempt: Attempt) -> Optional[OverlayError]:
    """Ask the index what is there; return what follows from that, ``None`` where it has no such project."""
    answers = attempt.ask().ask(name)
    files = [file for answer in answers for file in answer.files]
    if not files:
        bad = next((a for a in answers if a.state in ("unreachable", "denied")), None)
        if bad is None:
            empty = any(answer.state == "found" for answer in answers)
            return (
                _error("no-matching-version", f"{name} has no files at {_hosts(attempt)}.") if empty else None
            )
        if bad.state == "denied":
            return _denied(bad.host, bad.why)
        return _unreachable(bad.host, bad.why)
    if not specifier:
        specifier = _asked(name, attempt)
    found = unavailable(name, specifier, files, attempt.python)
    if found is None:
        return None
    sentence, hint = found
    by, need = _needed_by(name, text)
    if by:
        sentence = f"{sentence} {by} needs {name}{need}."
    return _error("no-matching-version", sentence, hint)


def _asked(name: str, attempt: Attempt) -> str:
    for line in attempt.lines:
        match = re.match(rf"({_NAME})(?:\[[^\]]*\])?\s*([=<>!~][^;#@]*)?", line)
        if match and normalise(match[1]) == name:
            return (match[2] or "").replace(" ", "")
    return ""


def _needed_by(name: str, text: str) -> tuple[str, str]:
    """Return who needs a package, with its version where that is known; and which versions are needed."""
    for target, need, source in _FROM.findall(text):
        if normalise(target) == name and source != "r":
            return str(source), need.strip()
    best = ("", "")
    for source, version, target, need in _NEEDED_BY.findall(text):
        if normalise(target) != name or normalise(source) in (name, "python"):
            continue
        if version or not best[0]:
            best = (f"{source} {version}".strip(), need.rstrip(".,"))
    return best


# -- conflicts --------------------------------------------------------------------------------------------


def _conflict(text: str, attempt: Attempt) -> Optional[OverlayError]:
    lines, admin = [*attempt.lines], [*attempt.admin]
    limits = [line.partition(" --hash=")[0] for line in attempt.constraints]
    found = conflicts.contradiction(conflicts.sides(text), [*lines, *limits])
    if len(found) < 2:
        return None
    told_of = {line.replace(" ", ""): f"your administrator requires {line}" for line in admin}
    told_of.update({line.replace(" ", ""): f"this hub allows only {line}" for line in limits})
    for line in lines:
        match = re.match(_NAME, line)
        if match:
            mine = normalise(match[0]) in attempt.new
            said = f"you ask for {line}" if mine else f"requirements.txt has {line}"
            told_of.setdefault(line.replace(" ", ""), said)
    there = {name: " (installed)" for name in attempt.installed if name not in attempt.new}
    told = [conflicts.told(_dated(side, attempt), told_of, there) for side in found]
    sentence = ", ".join(told)
    if any(text.startswith(("your administrator", "this hub")) for text in told):
        hint = "Ask for another version; what the administrator requires can't be changed here."
    elif any(side.who in there for side in found) or "requirements.txt" in sentence:
        hint = "Ask for another version, or upgrade or uninstall the other side."
    else:
        hint = "Change one of the versions asked for."
    return _error("conflict", f"{sentence}.", hint)


def _dated(side: conflicts.Side, attempt: Attempt) -> conflicts.Side:
    """Return a side with its version, where uv only says that all versions need the same."""
    if not side.who or side.version:
        return side
    version = attempt.installed.get(side.who, "")
    if not version and not attempt.offline:
        files = [file for answer in attempt.ask().ask(side.who) for file in answer.files]
        there = known_versions(side.who, files)
        version = there[0] if len(there) == 1 else ""
    return conflicts.Side(side.who, version or "(every version)", side.need)


# -- builds, packages, the index --------------------------------------------------------------------------


def _build(text: str, attempt: Attempt) -> Optional[OverlayError]:
    name, version = builds.what(text)
    subject = f"{name} {version}".strip() or "A package"
    lacks = builds.missing(text)
    why = builds.last_words(text)
    if builds.out_of_memory(text):
        return _error(
            "build-failed",
            f"{subject} comes as source code only, and building it ran out of memory.",
            "Stop kernels that you don't need and try again, or ask for a version that has a wheel.",
        )
    sentence = f"{subject} comes as source code only and could not be built here"
    if lacks:
        sentence += f": {lacks} is missing."
    else:
        sentence += f": {why}" if why else "."
        sentence += "" if sentence.endswith((".", "!", "…")) else "."
    return _error("build-failed", sentence, builds.hint(lacks))


def _bad(text: str, attempt: Attempt) -> Optional[OverlayError]:
    joined = words.flat(text)
    for pattern in _PACKAGE:
        found = pattern.findall(joined)
        if found:
            name, version = found[-1]
            break
    else:
        return None
    if not version:
        stem = re.sub("[-_.]+", "[-_.]+", re.escape(normalise(name)).replace("\\-", "-"))
        file = re.search(rf"(?<![\w.-]){stem}-(\d[\w.!+]*)-[^/\s]*\.whl", joined, re.I)
        version = file[1] if file else ""
    subject = f"{normalise(name)} {version}".strip()
    why = next((why for pattern, why in _WHY_BAD if re.search(pattern, joined, re.I)), "the file is damaged")
    hint = (
        "Try again; if it goes on, tell whoever runs the index."
        if "hash" in why or "incomplete" in why
        else ""
    )
    return _error("bad-package", f"{subject} from the index can't be used: {why}.", hint)


def _reach(text: str, attempt: Attempt) -> Optional[OverlayError]:
    host = _host(text, attempt)
    return _unreachable(host, words.reason(text)) if host else None


def _auth(text: str, attempt: Attempt) -> Optional[OverlayError]:
    host = _host(text, attempt)
    status = re.search(r"\b(401|403|407)\b", text)
    return _denied(host, f"it answered {status[1]}" if status else "") if host else None


def _unreachable(host: str, why: str) -> OverlayError:
    hint = ""
    if "certificate" in why:
        hint = (
            "Ask the administrator to have this image trust its certificate (`cert` in pip.conf, or "
            "SSL_CERT_FILE)."
        )
    elif "https" in why or "TLS" in why:
        hint = "Ask the administrator about the address of the index: http:// or https://, and its port."
    elif "circle" in why or "sense" in why:
        hint = "Ask the administrator about the address of the index."
    sentence = f"The package index at {host} could not be used"
    return _error("index-unreachable", f"{sentence}: {why}." if why else f"{sentence}.", hint)


def _denied(host: str, why: str) -> OverlayError:
    more = f" ({why})" if why else ""
    return _error("index-auth", f"The package index at {host} refused the credentials, or wants some{more}.")


def _host(text: str, attempt: Attempt) -> str:
    joined = words.flat(text)
    for pattern in _URLS:
        found = pattern.findall(joined)
        if found:
            return host_of(found[-1])
    pool = _POOL.findall(joined)
    if pool:
        name, port = pool[-1]
        return name if port in ("80", "443") else f"{name}:{port}"
    untrusted = _UNTRUSTED.findall(joined)
    return untrusted[-1] if untrusted else _hosts(attempt)


def _hosts(attempt: Attempt) -> str:
    return _or(attempt.ask().hosts)


def _or(items: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


_MAKERS: dict[str, Callable[[str, Attempt], Optional[OverlayError]]] = {
    "no-such-package": _missing,
    "no-matching-version": _unfit,
    "conflict": _conflict,
    "build-failed": _build,
    "bad-package": _bad,
    "index-unreachable": _reach,
    "index-auth": _auth,
}
