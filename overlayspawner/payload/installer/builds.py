"""What a build lacked, and its last useful words.

The words are those of compilers, linkers and build tools: setuptools, meson, CMake, maturin and what packages
say themselves.
"""

from __future__ import annotations

import re
from typing import Optional

_COMPILERS = (
    "gcc|cc|g\\+\\+|c\\+\\+|clang|clang\\+\\+|gfortran|f77|f95|flang|ifort|nvcc|rustc|cargo|go|nasm|swig|cython|"
    "cmake|ninja|make|meson|pkg-config|patchelf|autoconf|automake|libtool|m4|bison|flex|git|javac|"
    r"[\w.+-]+-(?:gcc|g\+\+|cc|c\+\+)(?:-\d+)?|[\w.+-]+[-_]config"
)

# (pattern, what is missing): the first that fits counts. ``{}`` is the first group.
_MISSING: list[tuple[str, str]] = [
    (r"fatal error: ([\w./+-]+\.(?:h|hpp|hh|hxx|inc)): No such file", "the header file {}"),
    (r"fatal error: '([\w./+-]+)' file not found", "the header file {}"),
    (r"cannot find -l([\w.+-]+)", "the library {}"),
    (r"library not found for -l([\w.+-]+)", "the library {}"),
    (r"error: Microsoft Visual C\+\+", "a C compiler"),
    (rf"command '(?:[^']*/)?({_COMPILERS})' failed: No such file", "the program {}"),
    (rf"unable to execute '?(?:\S*/)?({_COMPILERS})'?: No such file", "the program {}"),
    (rf"No such file or directory: '(?:[^']*/)?({_COMPILERS})'", "the program {}"),
    (rf"\b({_COMPILERS}): (?:command )?not found", "the program {}"),
    (r"Unknown compiler\(s\):\s*\[\[?'([\w.+-]+)'", "a compiler, for example {}"),
    (
        r"can't find Rust compiler|Rust toolchain|requires Rust|Cargo, the Rust package manager",
        "the Rust compiler (rustc and cargo)",
    ),
    (r"(?:is cargo|cargo) .{0,40}not (?:installed|found)", "the Rust compiler (rustc and cargo)"),
    (
        r"CMake must be installed|CMake (?:\S+ )?(?:is required|not found)|Could not find CMake",
        "the program cmake",
    ),
    (r"CMake was unable to find a build program corresponding to \"?(\w+)", "the program {}"),
    (r"No CMAKE_(\w+)_COMPILER could be found", "a {} compiler"),
    (r"Could not detect Ninja|ninja.{0,30}(?:not found|is required)", "the program ninja"),
    (
        r"([\w-]+[-_]config) (?:executable )?(?:is |was )?not found",
        "the program {}",
    ),
    (
        r"Can not find valid pkg-config name|MYSQLCLIENT_CFLAGS",
        "the client library of MySQL or MariaDB (and pkg-config)",
    ),
    (
        r"Package '?([\w.+-]+)'?,? (?:required by .{0,60})?(?:was )?not found(?: in the pkg-config)?",
        "the library {}",
    ),
    (r"Dependency \"([\w.+-]+)\" not found", "the library {}"),
    (
        r"[Pp]kg-config (?:tool )?(?:was |is )?(?:not found|required)|Did not find pkg-config",
        "the program pkg-config",
    ),
    (r"No package '([\w.+-]+)' found", "the library {}"),
    (r"Could NOT find (?!Python)(\w+)", "the library {}"),
    (r"No module named '?([\w.]+)'?", "the Python module {} (which its build imports)"),
    (r"cannot import name '(\w+)'", "what its build imports ({})"),
    (r"libhdf5|HDF5 (?:was )?not found", "the library hdf5"),
]

_MEMORY = re.compile(
    r"Killed signal terminated program|signal: 9, SIGKILL|virtual memory exhausted|out of memory"
    r"|MemoryError|\(signal: 9\)",
    re.I,
)
_MODULE = "the Python module"
_FRAMES = re.compile(r"^[\s\u2500-\u25ff\u00d7|>]+")
_USELESS = re.compile(
    r"^(?:\[end of output\]|\[std(?:err|out)\]|hint:|note:"
    r"|error: (?:subprocess-exited|metadata-generation|Failed to build)"
    r"|Traceback|File \"|during handling|\^+$|~|exit code|See above|No available output|Encountered error"
    r"|Getting requirements|Preparing metadata|Building wheel|Failed to build"
    r"|ERROR: (?:Failed|Could not build)|Collecting |Downloading "
    r"|cause: (?:Call to|The build backend)|subprocess\.CalledProcessError|compilation terminated|collect2:"
    r"|Build backend|\d+\)$"
    r"|or `uv pip|\[tool\.uv|\w+ = \[|\(This|Did you|Discarding|WARNING: |Resolved \d|Using )",
    re.I,
)
_TELLING = re.compile(r"\berror\b|not found|no such file|cannot|can't|unable|required|failed", re.I)
_NAMES = (
    re.compile(
        r"Failed to (?:download and )?build:? `?([A-Za-z0-9][\w.-]*?)(?:==([\w.!+]+))?`?(?: @ \S+)?(?:\s|$)"
    ),
    re.compile(r"Failed building wheel for ([A-Za-z0-9][\w.-]*)()"),
    re.compile(r"Failed to build installable wheels for some \S+ based projects \(?([A-Za-z0-9][\w.-]*)()"),
    re.compile(r"ERROR: Could not build wheels for ([A-Za-z0-9][\w.-]*)()"),
    re.compile(
        r"Encountered error while generating package metadata\.\s*\u2570\u2500> ([a-z0-9][\w.-]*)()$", re.M
    ),
)
_SDIST = re.compile(
    r"(?:Downloading|Using cached|Processing) \S*?([A-Za-z0-9][\w.]*?)-(\d[\w.!+]*?)"
    r"\.(?:tar\.gz|zip|tar\.bz2)"
)
_COLLECTING = re.compile(r"^Collecting ([A-Za-z0-9][\w.-]*)", re.M)
_BUILDING = re.compile(r"^\s*Building ([A-Za-z0-9][\w.-]*)==([\w.!+]+)", re.M)


def what(text: str) -> tuple[str, str]:
    """Return name and version of what could not be built, as far as a tool's words tell."""
    for pattern in _NAMES:
        found = pattern.findall(text)
        if found:
            name, version = found[-1]
            for sdist, number in _SDIST.findall(text):
                if not version and sdist.replace("_", "-").lower() == name.replace("_", "-").lower():
                    version = number
            return name, version
    # the last one that was begun
    for pattern in (_SDIST, _BUILDING):
        found = pattern.findall(text)
        if found:
            return found[-1][0].replace("_", "-"), found[-1][1]
    collecting = _COLLECTING.findall(text)
    return (collecting[-1], "") if collecting else ("", "")


def missing(text: str) -> str:
    """Return what the build lacked, with its article; ``""`` where no words tell."""
    for pattern, sentence in _MISSING:
        match = re.search(pattern, text)
        if match:
            return sentence.format(match[1] if match.groups() else "")
    return ""


def out_of_memory(text: str) -> bool:
    """Whether a compiler was killed for want of memory."""
    return _MEMORY.search(text) is not None


def last_words(text: str) -> str:
    """Return the last line of a build's output that says something; ``""`` where there is none."""
    for mark in ("[stderr]", "--- stderr:"):
        text = text.rpartition(mark)[2] or text
    lines = [_FRAMES.sub("", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if len(line) > 3 and not _USELESS.match(line)]
    telling: Optional[str] = next((line for line in reversed(lines[-12:]) if _TELLING.search(line)), None)
    found = telling or (lines[-1] if lines else "")
    found = re.sub(r"^(?:cause|error|ERROR|Caused by): ", "", found)
    return found if len(found) <= 200 else found[:199] + "…"


def hint(lacks: str) -> str:
    """Return what to do about a build that lacked something."""
    if lacks.startswith(_MODULE):
        return "Try another version: the authors of this one did not say all that its build needs."
    if lacks:
        return (
            "Ask for a version that has a wheel for this Python, or ask the administrator to add "
            f"{lacks} to the image."
        )
    return "Ask for a version that has a wheel for this Python. The log has the build's last lines."
