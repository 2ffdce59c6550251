"""What pip says while it works: a file at a time, and with ``--progress-bar raw`` its bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Optional

from overlayspawner.payload.installer import OnLine
from overlayspawner.payload.installer.progress import OnPackages, Packages, pip_size
from overlayspawner.payload.requirements import normalise

RAW = (24, 1)
"""The first pip with ``--progress-bar raw``."""

_FILE = re.compile(r"^\s*(?:Downloading|Using cached) (?:\S*/)?([^\s/]+?)(?:#\S*)? ?(?:\(([^()]+)\))?$")
_RAW = re.compile(r"^Progress (\d+) of (\d+)$")
_BUILD = re.compile(r"^\s*Building wheels? for ([A-Za-z0-9._-]+) \(.*\): (started|finished)")
_ALL = re.compile(r"^Installing collected packages: (.+)$")


class PipProgress:
    """Reads it; :meth:`line` is what :func:`procs.run` calls for each line.

    Parameters
    ----------
    on_line, on_packages:
        As for :class:`~overlayspawner.payload.installer.uv_progress.UvProgress`.
    """

    def __init__(self, on_line: Optional[OnLine], on_packages: Optional[OnPackages]) -> None:
        self.packages = Packages(on_packages)
        self._on_line = on_line
        self._current = ""
        self._wheel = False

    def _whole(self) -> None:
        """Note that the file is there: pip gets one after the other. What is no wheel will be built yet."""
        if self._current and self._wheel:
            self.packages.see(self._current, "ready")

    def planned(self, items: Sequence[dict[str, Any]]) -> None:
        """Take the ``install`` list of pip's report: what will come."""
        for item in items:
            meta = item["metadata"]
            self.packages.see(meta["name"], version=str(meta["version"]))
        self.packages.expected = len(self.packages.known)
        if items:
            self.packages.tell(f"{len(items)} to install")

    def drawn(self, text: str) -> bool:
        """Read a figure; return whether it is one, and no line for people."""
        raw = _RAW.match(text)
        if raw is None:
            return False
        if self._current:
            done, total = int(raw[1]), int(raw[2])
            self.packages.see(self._current, "downloading", done=done, total=total)
            if total and done >= total:
                self._whole()
            self.packages.tell()
        return True

    def line(self, text: str) -> None:
        """Read a line, and hand it on."""
        file, build, everything = _FILE.match(text), _BUILD.match(text), _ALL.match(text)
        told = False
        if file and not file[1].endswith(".metadata"):
            self._whole()
            self._current, version = _name_of(file[1])
            self._wheel = file[1].endswith(".whl")
            if self._current:
                cached = "Using cached" in text
                state = "ready" if cached else "downloading"
                self.packages.see(self._current, state, version=version, total=pip_size(file[2] or ""))
                self.packages.tell(text.strip())
                told = True
        elif file:
            self._current = ""
        elif build:
            self.packages.see(build[1], "building" if build[2] == "started" else "ready")
            self.packages.tell(text.strip())
            told = True
        elif everything:
            for name in everything[1].split(", "):
                self.packages.see(name, "ready")
            self.packages.tell()
        if self._on_line is not None and not told:
            self._on_line(text)


def _name_of(file: str) -> tuple[str, str]:
    """Return name and version from a file's name; empty where it is neither wheel nor archive."""
    if file.endswith(".whl"):
        parts = file.split("-")
        return (normalise(parts[0]), parts[1]) if len(parts) >= 5 else ("", "")
    for end in (".tar.gz", ".zip", ".tar.bz2", ".tgz"):
        if file.endswith(end):
            name, _, version = file[: -len(end)].rpartition("-")
            return normalise(name), version
    return "", ""
