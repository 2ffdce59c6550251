"""What a terminal shows while a change runs: a bar for each package on its way, and below them a sentence.

It is drawn on standard error, over what was drawn before, and gone at the end. In a pipe nothing is drawn.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

BARS = 8
"""Packages that have a line of their own at a time."""

_drawn = 0
"""Lines that stand on the terminal now."""


def progress(quiet: bool) -> Callable[[dict[str, Any]], None]:
    """Return what shows the events of a change.

    Parameters
    ----------
    quiet:
        Show nothing, as in a pipe.
    """
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return lambda event: None
    known: dict[str, dict[str, Any]] = {}
    said = ""
    expected = 0

    def show(event: dict[str, Any]) -> None:
        nonlocal said, expected
        if event.get("phase") == "done":
            clear()
            return
        for entry in event.get("packages") or ():
            known[entry["name"]] = entry
        expected = max(expected, event.get("expected") or 0)
        said = str(event.get("message") or said)
        _draw([*_bars(known), _counted(known, expected) + said])

    return show


def clear() -> None:
    """Take away what is drawn."""
    global _drawn
    if _drawn:
        sys.stderr.write(_erase())
        sys.stderr.flush()
    _drawn = 0


def _erase() -> str:
    if not _drawn:
        return ""
    return "\r" + (f"\x1b[{_drawn - 1}A" if _drawn > 1 else "") + "\x1b[J"


def size(stream: TextIO) -> tuple[int, int]:
    """Return columns and lines of the terminal that a stream is printed on."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except OSError:
        return 80, 24
    return found.columns or 80, found.lines or 24  # 0 where the terminal doesn't know


def _draw(texts: list[str]) -> None:
    global _drawn
    width = size(sys.stderr)[0] - 1
    safe = ["".join(c if c.isprintable() else "?" for c in text)[:width] for text in texts]
    sys.stderr.write(_erase() + "\n".join(safe))
    sys.stderr.flush()
    _drawn = len(safe)


def _counted(known: dict[str, dict[str, Any]], expected: int) -> str:
    if expected < 2 or not known:
        return ""
    done = sum(entry["state"] in ("ready", "installed") for entry in known.values())
    return f"[{min(done, expected)}/{expected}] "


def _bars(known: dict[str, dict[str, Any]]) -> list[str]:
    from overlayspawner.payload.installer.progress import shown

    columns, height = size(sys.stderr)
    moving = [entry for entry in known.values() if entry["state"] in ("downloading", "building")]
    length = min(30, columns - 52)
    out = []
    for entry in moving[: max(0, min(BARS, height - 3))]:
        name = f"{entry['name']} {entry['version'] or ''}".strip()
        done, total = entry["bytes"] or 0, entry["total"] or 0
        what = entry["state"]
        if entry["state"] == "downloading" and total:
            what = f"{shown(done)} of {shown(total)}"
            if length > 5:
                what = f"{_bar(done / total, length)} {what}"
        out.append(f"  {name:<28.28} {what}")
    return out


def _bar(share: float, length: int) -> str:
    full = round(min(1.0, share) * length)
    try:
        "━".encode(sys.stderr.encoding or "ascii")
    except UnicodeEncodeError:
        return "#" * full + "." * (length - full)
    return "━" * full + " " * (length - full)
