"""What went wrong, from the traces an installer leaves.

Facts come first: a signal, a full or read-only file system. uv and pip have one exit code for nearly
everything, so that the rest is read from their words, in one table. Unknown words give ``installer-failed``
with the log.
"""

from __future__ import annotations

import os
import re

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.procs import Result

_FULL = 256 * 1024
"""Fewer bytes than this left, and a failure is the full disk's, whatever the tool says."""

_SAME = "Nothing was changed."

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
            r"\b40[13] (?:client error|unauthorized|forbidden|error)",
            "status code 40[13]",
            "HTTP (?:status )?(?:error )?40[13]",
            "unauthorized access",
            "could not find credentials",
            "lack of valid authentication credentials",
            r"\buser for \S+:",
        ),
    ),
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
            "failed to read metadata",
            "unexpected end of (?:file|zip)",
            "failed to (?:unzip|extract)",
            "invalid (?:package )?metadata",
            "metadata field .* invalid",
            "inconsistent (?:name|version)",
            "corrupt",
            "end of central directory",
            "failed to parse metadata",
            "must not use the reserved name",
        ),
    ),
    (
        "build-failed",
        (
            "failed to build",
            "failed building wheel",
            "build backend (?:failed|returned)",
            "metadata-generation-failed",
            "subprocess-exited-with-error",
            "getting requirements to build",
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
            "received (?:unsupported|unexpected) content",
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
            "there (?:is|are) no versions? of",
            "could not find a version",
            "no matching distribution",
            "only .{0,200} (?:is|are) available",
            "no wheels? with a matching",
            "does not support python",
            "is not a supported wheel",
        ),
    ),
    # uv's word for both; what mentions dependencies contradicts itself
    ("conflict", (r"depends? on .*requirements are unsatisfiable",)),
    ("no-matching-version", ("no solution found", "requirements are unsatisfiable")),
]

# code: (sentence, hint, HTTP status)
_SAYS: dict[str, tuple[str, str, int]] = {
    "disk-full": (
        "There is no space left in your storage.",
        "Delete what you no longer need, then try again.",
        507,
    ),
    "read-only": (
        "Your storage can't be written to.",
        "Ask the administrator about the storage behind your home.",
        507,
    ),
    "index-auth": (
        "The package index refused the credentials, or wants some.",
        "Ask the administrator about the credentials of the package index.",
        502,
    ),
    "bad-package": (
        "A package from the index is damaged.",
        "Try another version, or tell the authors of the package.",
        502,
    ),
    "build-failed": (
        "A package comes as source code only and could not be built here.",
        "Try another version that has a wheel for this Python; the log says what is missing.",
        422,
    ),
    "index-unreachable": (
        "The package index could not be reached, or gave a useless answer.",
        "Try again later; if it goes on, tell the administrator.",
        502,
    ),
    "conflict": (
        "The requirements contradict each other.",
        "Change one of the versions asked for; the log says which can't go together.",
        409,
    ),
    "no-such-package": (
        "There is no such package in the index.",
        "Check the spelling of the name.",
        404,
    ),
    "no-matching-version": (
        "No version fits this Python and the other packages.",
        "Ask for another version; the log says which there are.",
        409,
    ),
}


def failure(result: Result, directory: str, tool: str, more: str = "") -> OverlayError:
    """Return the error for a run of a tool that failed.

    Parameters
    ----------
    directory:
        A directory on the file system that the tool wrote to.
    tool:
        ``uv`` or ``pip``.
    more:
        What else it has written, for example into a log file; redacted.
    """
    if result.cancelled:
        return OverlayError("cancelled", f"It was cancelled. {_SAME}", status=409)
    if result.timed_out:
        return OverlayError(
            "timeout", f"{tool} took too long and was stopped. {_SAME}", status=504, log=result.tail
        )
    full = _storage(directory)
    if full is not None:
        code, sentence = full
        return OverlayError(code, f"{sentence} {_SAME}", status=507, log=result.tail)
    if result.rc < 0:
        hint = (
            "It may have run out of memory: stop kernels you don't need, then try again."
            if result.rc == -9
            else ""
        )
        return OverlayError(
            "installer-failed",
            f"{tool} was ended by signal {-result.rc}. {_SAME}",
            hint,
            status=500,
            log=result.tail,
        )
    return classify("\n".join(part for part in (result.tail, more) if part), tool)


def _storage(directory: str) -> tuple[str, str] | None:
    try:
        info = os.statvfs(directory)
    except OSError:
        return None
    if info.f_flag & os.ST_RDONLY:
        return "read-only", "Your storage can't be written to."
    if info.f_bavail * info.f_frsize < _FULL or (info.f_files and not info.f_favail):
        return "disk-full", "There is no space left in your storage."
    return None


def classify(text: str, tool: str) -> OverlayError:
    """Read a tool's words. Lines are joined, and uv's frames dropped: it wraps its sentences."""
    joined = re.sub(r"[\s\u2500-\u25ff\u00d7]+", " ", text)
    for code, patterns in _WORDS:
        if any(re.search(pattern, joined, re.IGNORECASE) for pattern in patterns):
            if code == "index-unreachable" and _only_missing(joined):
                continue
            sentence, hint, status = _SAYS[code]
            return OverlayError(code, f"{sentence} {_SAME}", hint, status=status, log=text)
    return OverlayError(
        "installer-failed", f"{tool} failed. {_SAME}", "The log says more.", status=500, log=text
    )


def _only_missing(text: str) -> bool:
    """Whether all that could not be fetched was simply not there."""
    return "404" in text and not re.search(r"\b5\d\d\b|refused|reset|timed out|dns", text, re.IGNORECASE)
