"""What uv shows while it works: bars on a terminal, lines where it has none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Optional

from overlayspawner.payload.installer import OnLine
from overlayspawner.payload.installer.progress import OnPackages, Packages, shown, size

_NAME = r"([A-Za-z0-9][A-Za-z0-9._-]*)"
_BAR = re.compile(rf"(?<!\S){_NAME}\s+-{{8,}}\s+([\d.]+ ?[KMGT]?i?B)/([\d.]+ ?[KMGT]?i?B)")
_SPINNER = re.compile(r"^\s*[\u2800-\u28ff](?:\s|$)")
_PREPARING = re.compile(r"Preparing packages\.\.\.(?: \((\d+)/(\d+)\))?")
_RESOLVED = re.compile(rf"^\s*[\u2800-\u28ff] {_NAME}==(\S+)")
_INSTALLING = re.compile(rf"^[\u2588\u2591\s]*\[\d+/\d+\](?: {_NAME}==(\S+))?")
_BUILDING = re.compile(rf"(?<!\S)(Building|Built) {_NAME}(?:==(\S+)| @ \S+)")
_LINE = re.compile(
    rf"^\s*(Downloading|Downloaded|Building|Built) {_NAME}(?:==(\S+)| @ \S+)?(?: \(([^()]+)\))?\s*$"
)
_CAME = re.compile(rf"^ \+ {_NAME}(?:==(\S+))?")


def with_bars(env: Mapping[str, str]) -> dict[str, str]:
    """Return uv's environment without what would keep it from drawing."""
    return {key: value for key, value in env.items() if key not in ("UV_NO_PROGRESS", "RUST_LOG")}


class UvProgress:
    """Reads it; :meth:`line` and :meth:`drawn` are what :func:`procs.run` calls.

    Parameters
    ----------
    on_line:
        Called with the lines that are not drawn over.
    on_packages:
        See :class:`~overlayspawner.payload.installer.progress.Packages`.
    """

    def __init__(self, on_line: Optional[OnLine], on_packages: Optional[OnPackages]) -> None:
        self.packages = Packages(on_packages)
        self._on_line = on_line
        self._versions: dict[str, str] = {}
        self._loading: set[str] = set()

    def drawn(self, text: str) -> bool:
        """Read a piece of a drawing; return whether it is one."""
        for what, name, version in _BUILDING.findall(text):
            self._built(what, name, version)
        bars = _BAR.findall(text)
        preparing = _PREPARING.search(text)
        if bars or preparing:
            if preparing and preparing[2]:
                self.packages.expected = int(preparing[2])
            self._bars(bars, whole=bool(preparing))
            return True
        found = _RESOLVED.match(text)
        if found:
            # shown in passing while versions are looked for: not yet what will come
            self._versions[found[1].lower()] = found[2]
            return True
        found = _INSTALLING.match(text)
        if found and text.lstrip()[0] in "\u2588\u2591[":
            if found[1]:
                self.packages.see(found[1], "ready", version=found[2] or "")
                self.packages.tell()
            return True
        return bool(_SPINNER.match(text))

    def _bars(self, bars: list[tuple[str, str, str]], *, whole: bool) -> None:
        """Read bars; ``whole``: this may be a picture of all of them, the first line of one or all lines."""
        for name, done, total in bars:
            if name not in self.packages.known:
                about = size(total)
                version = self._versions.get(name.lower(), "")
                self.packages.see(name, "downloading", version=version, done=size(done), total=about)
                what = f"{name} {version}".rstrip()
                self.packages.tell(f"Downloading {what}" + (f" ({shown(about)})" if about else ""))
            else:
                self.packages.see(name, "downloading", done=size(done), total=size(total))
        here = {name for name, _, _ in bars}
        if whole and here:
            for name in self._loading - here:
                self.packages.see(name, "ready")
            self._loading = set(here)
        else:
            self._loading |= here
        self.packages.tell()

    def _built(self, what: str, name: str, version: str) -> None:
        state = "building" if what == "Building" else "ready"
        if self.packages.see(name, state, version=version):
            self.packages.tell(f"{what} {name} {version}".rstrip())

    def line(self, text: str) -> None:
        """Read a line, and hand it on."""
        found = _LINE.match(text)
        if found and found[1] in ("Downloading", "Downloaded"):
            state = "downloading" if found[1] == "Downloading" else "ready"
            if self.packages.see(found[2], state, version=found[3] or "", total=size(found[4] or "")):
                self.packages.tell(text.strip())
        elif found:
            self._built(found[1], found[2], found[3] or "")
        else:
            came = _CAME.match(text)
            if came:
                self.packages.see(came[1], "ready", version=came[2] or "")
        if self._on_line is not None and not found:
            self._on_line(text)
