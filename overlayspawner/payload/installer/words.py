"""The words by which uv and pip tell what went wrong, of all versions that are supported.

Both have one exit code for nearly everything, so that their words are all there is. They change from version
to version: ``tests/payload/test_error_words.py`` holds what was recorded.
"""

from __future__ import annotations

import re

from overlayspawner.payload.procs import redact

MAX_LOG = 40_000
"""Characters of a tool's output that an error carries at most: its end."""

_MAX_LINE = 600
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_QUERY = re.compile(r"(?P<url>\b[A-Za-z][A-Za-z0-9+.-]*://[^\s?'\"<>]*\?)(?P<query>[^\s'\"<>]+)")
_WORD = re.compile(r"\S{152,}")
_FRAMES = re.compile(r"[\s\u2500-\u25ff\u00d7]+")

# The first code with a pattern that fits counts, so that causes stand before consequences.
_WORDS: list[tuple[str, tuple[str, ...]]] = [
    (
        "disk-full",
        (
            "no space left on device",
            r"os error 28\b",
            r"errno 28\b",
            "disk quota exceeded",
            r"os error 122\b",
            r"errno 122\b",
        ),
    ),
    (
        "read-only",
        (
            "read-only file system",
            r"os error 30\b",
            r"errno 30\b",
        ),
    ),
    (
        "index-auth",
        (
            r"\b40[137] (?:client error|unauthorized|forbidden|proxy auth|error)",
            "status code 40[13]",
            "HTTP (?:status )?(?:error )?40[13]",
            "unauthorized access",
            "could not find credentials",
            "lack of valid authentication credentials",
            r"\buser for \S+:",
        ),
    ),
    # before damaged packages: a TLS library calls an answer without TLS a corrupt message
    ("index-unreachable", ("received corrupt message", "not a trusted or secure host")),
    (
        "bad-package",
        (
            "hash mismatch",
            "do not match the hashes",
            "invalid wheel",
            "invalid package format",
            r"wheel '[^']*' located at \S+ is invalid",
            r"is invalid\b.*wheel",
            "has an invalid wheel",
            "badzipfile",
            "not a zip file",
            "invalid zip",
            "failed to read (?:metadata|from zip)",
            "unexpected end of (?:file|zip)",
            "failed to (?:unzip|extract)",
            "invalid (?:package )?metadata",
            "metadata field .* invalid",
            "inconsistent (?:name|version)",
            "(?:name|version) `?[^ ]* ?does not match (?:the )?(?:given|filename)",
            "malformed wheel",
            "corrupt",
            "end of central directory",
            "failed to parse metadata",
            "must not use the reserved name",
        ),
    ),
    (
        "build-failed",
        (
            "failed to (?:download and )?build",
            "failed building wheel",
            "build backend (?:failed|returned)",
            "metadata-generation-failed",
            "subprocess-exited-with-error",
            "getting requirements to build",
            "build failures usually indicate",
            "this is an issue with the package mentioned above",
        ),
    ),
    (
        "index-unreachable",
        (
            "could not connect",
            "connection (?:refused|reset|error|timed out|aborted|broken)",
            "failed to connect",
            "error sending request",
            "dns error",
            "name or service not known",
            "temporary failure in name resolution",
            "newconnectionerror",
            "max retries exceeded",
            "timed? ?out",
            "didn't respond within",
            "problem confirming the ssl certificate",
            "closed without a reply",
            "tls handshake",
            "certificate verify failed",
            "invalid peer certificate",
            r"\b5\d\d (?:server error|internal|bad gateway|service unavailable|gateway)",
            r"status code 5\d\d",
            r"HTTP error 5\d\d",
            "network (?:is )?unreachable",
            "no route to host",
            "failed to fetch",
            "remote end closed",
            "incomplete(?:read| message)",
            "proxyerror",
            "unexpected eof",
            "too many redirects",
            "exceeded 30 redirects",
            "(?:received )?(?:unsupported|unexpected) `?content",
            "unexpected html",
            "unicodedecodeerror",
            "error decoding response body",
        ),
    ),
    (
        "conflict",
        (
            "resolutionimpossible",
            "conflicting dependencies",
            "are incompatible",
            "conflict is caused by",
            "have conflicting",
        ),
    ),
    (
        "no-matching-version",
        (
            "different python version",
            "requires-python",
            "requires python",
            "does not satisfy python",
        ),
    ),
    (
        "no-such-package",
        (
            "was not found in the (?:package registry|provided package locations|cache)",
            r"from versions: none\)",
        ),
    ),
    (
        "no-matching-version",
        (
            "could not find a version",
            "no matching distribution",
            "no wheels? with a matching",
            "has no usable wheels",
            "does not support python",
            "is not a supported wheel",
            r"\bwas yanked\b",
        ),
    ),
    ("no-matching-version", ("there (?:is|are) no versions? of",)),
    # uv's word for both; what mentions dependencies contradicts itself
    (
        "conflict",
        (r"depends? on .*requirements are unsatisfiable", "you require .* and you require .* unsatisfiable"),
    ),
    (
        "no-matching-version",
        (
            "only .{0,200} (?:is|are) available",
            "no solution found",
            "requirements are unsatisfiable",
        ),
    ),
]

REASONS: list[tuple[str, str]] = [
    (
        r"not a trusted or secure host",
        "it is not reached over TLS (https), and pip does not trust it without",
    ),
    (r"connection refused|errno 111|os error 111", "it refused the connection"),
    (
        r"dns error|name or service|name resolution|getaddrinfo|nodename nor",
        "its name can't be resolved (DNS)",
    ),
    (r"network (?:is )?unreachable|no route to host", "there is no network that leads there"),
    (r"certificate verify|peer certificate|certificate_verify", "its TLS certificate is not trusted here"),
    (r"corrupt message|wrong.version.number|tls handshake|ssl", "TLS with it failed"),
    (r"too many redirects|exceeded \d+ redirects|redirect error|infinite loop", "it redirects in a circle"),
    (r"proxyerror|proxy auth|tunnel|proxy connect|proxy server", "the proxy on the way to it failed"),
    (r"timed? ?out|timeout|didn't respond within", "it did not answer in time"),
    (
        r"status server error \((5\d\d)|\b(5\d\d) (?:server )?error|error (5\d\d)|many (5\d\d)",
        "it answered {}",
    ),
    (
        r"reset|aborted|broken|closed|incomplete|unexpected eof|end of file|decoding response|reading a body",
        "it broke off the connection",
    ),
    (r"unicodedecodeerror|unsupported `?content|unexpected|made no sense", "its answer made no sense"),
]
"""Words about a connection, and what they mean."""


def handy(text: str) -> str:
    """Return a text that patterns may be tried on: what is very long, or has no space for long, is shortened.

    Some patterns take time with the square of a word's length, and a build may print what it likes.
    """
    if len(text) > 20_000:
        text = f"{text[:5_000]}\n{text[-15_000:]}"
    return _WORD.sub(lambda match: f"{match[0][:70]}…{match[0][-80:]}", text)


def code_of(text: str) -> str:
    """Return the code that a tool's words mean; ``""`` for words that nobody has recorded."""
    joined = flat(handy(text))
    for code, patterns in _WORDS:
        if any(re.search(pattern, joined, re.IGNORECASE) for pattern in patterns):
            if code == "index-unreachable" and _only_missing(joined):
                continue
            return code
    return ""


def flat(text: str) -> str:
    """Return a text on one line, without uv's frames: it wraps its sentences."""
    return _FRAMES.sub(" ", text)


def reason(text: str) -> str:
    """Return why a server could not be used; ``""`` where the words don't say."""
    joined = flat(text)
    for pattern, sentence in REASONS:
        match = re.search(pattern, joined, re.IGNORECASE)
        if match:
            return sentence.format(next(filter(None, match.groups()), ""))
    return ""


def clean(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return a text that may be shown: no control characters, no credentials, no line without end.

    Parameters
    ----------
    secrets:
        What may not be in it either: passwords that are known.
    """
    text = _CONTROL.sub("", _ANSI.sub("", text))
    for secret in secrets:
        text = text.replace(secret, "***")
    return redact(_QUERY.sub(_hide, text))


def log(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return the end of a tool's output as an error carries it: cleaned and bounded."""
    lines = [_cut(clean(line[:4_000], secrets)) for line in text.splitlines()]
    out: list[str] = []
    size = 0
    for line in reversed(lines):
        size += len(line) + 1
        if size > MAX_LOG:
            break
        out.append(line)
    return "\n".join(reversed(out))


def _cut(line: str) -> str:
    return line if len(line) <= _MAX_LINE else line[: _MAX_LINE - 1] + "…"


def _hide(match: re.Match[str]) -> str:
    # names of parameters say what was asked for; any value may be a token
    query = re.sub(r"=[^&#]*", "=***", match["query"])
    return match["url"] + (query if "=" in query or query.startswith("#") else "***")


def _only_missing(text: str) -> bool:
    """Whether all that could not be fetched was simply not there."""
    # as a number of its own: names of folders and ports may have these digits
    return re.search(r"\b404\b", text) is not None and not re.search(
        r"\b5\d\d (?:server|internal|bad|service|error)|refused|reset|timed out|dns|ssl|certificate",
        text,
        re.IGNORECASE,
    )
