"""What went wrong, from the traces an installer leaves, as a code and a general sentence.

Facts come first: a signal, a full or read-only file system. All else is read from the tool's words
(:mod:`~overlayspawner.payload.installer.words`); unknown ones give ``installer-failed`` with the log. Who
knows what was asked for then explains more (:mod:`~overlayspawner.payload.installer.explain`).
"""

from __future__ import annotations

import os
import re
import tempfile

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.installer import words
from overlayspawner.payload.procs import Result
from overlayspawner.payload.sentences import amount

_FULL = 256 * 1024
"""Fewer bytes than this left, and a failure is the full disk's, whatever the tool says."""

SAME = "Nothing was changed."

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


def says(code: str) -> tuple[str, str, int]:
    """Return the general sentence of a code, what to do, and its HTTP status."""
    return _SAYS[code]


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
    text = "\n".join(part for part in (result.tail, more) if part)
    if result.cancelled:
        return OverlayError("cancelled", f"It was cancelled. {SAME}", status=409)
    if result.timed_out:
        return OverlayError("timeout", f"{tool} took too long and was stopped. {SAME}", status=504, log=text)
    full = _storage(directory)
    if full is not None:
        return _of(*full, text)
    if result.rc < 0 or result.rc == 137:
        number = -result.rc if result.rc < 0 else 9
        why = ", most likely because memory ran out" if number == 9 else ""
        hint = (
            "Stop kernels that you don't need, to free memory, then try again."
            if number == 9
            else "Try again."
        )
        return OverlayError(
            "installer-failed",
            f"{tool} was ended by signal {number}{why}. {SAME}",
            hint,
            status=500,
            log=text,
        )
    error = classify(text, tool)
    if error.code in ("disk-full", "read-only"):
        return _of(error.code, _place(error.code, words.flat(text), directory), text)
    return error


def _of(code: str, sentence: str, text: str) -> OverlayError:
    _, hint, status = _SAYS[code]
    if "container" in sentence:
        hint = "Delete what you no longer need there, or ask the administrator for more room."
    return OverlayError(code, f"{sentence} {SAME}", hint, status=status, log=text)


def _storage(directory: str) -> tuple[str, str] | None:
    try:
        info = os.statvfs(directory)
    except OSError:
        return None
    if info.f_flag & os.ST_RDONLY:
        return "read-only", _SAYS["read-only"][0]
    free = info.f_bavail * info.f_frsize
    if free < _FULL:
        return "disk-full", f"There is no space left in your storage ({amount(free)} free)."
    if info.f_files and not info.f_favail:
        return "disk-full", "There is room for no further file in your storage (no inode is left)."
    return None


def _place(code: str, text: str, directory: str) -> str:
    """Say what is full, where the file system of the stage is not: a quota, or the container's own disk."""
    if code == "read-only":
        return _SAYS[code][0]
    if re.search(r"quota|(?:os error|errno) 122", text, re.IGNORECASE):
        return "Your quota of storage is used up."
    try:
        info, own = os.statvfs(tempfile.gettempdir()), os.statvfs(directory)
    except OSError:
        return _SAYS[code][0]
    free, here = own.f_bavail * own.f_frsize, info.f_bavail * info.f_frsize
    if here < _FULL <= free:
        folder = tempfile.gettempdir()
        return f"There is no space left in the container's {folder} ({amount(here)} free)."
    return f"There is not enough space left in your storage ({amount(free)} free)."


def classify(text: str, tool: str) -> OverlayError:
    """Return the error that a tool's words mean."""
    code = words.code_of(text)
    if not code:
        return OverlayError(
            "installer-failed",
            f"{tool} failed. {SAME}",
            "The log says more.",
            status=500,
            log=text,
        )
    sentence, hint, status = _SAYS[code]
    return OverlayError(code, f"{sentence} {SAME}", hint, status=status, log=text)
