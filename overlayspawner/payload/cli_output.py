"""How the command line shows things: tables, progress, errors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from overlayspawner.payload.contract import OverlayError


def as_json(data: object) -> None:
    """Print one JSON document."""
    print(json.dumps(data, indent=1))


def lines(texts: Sequence[str]) -> None:
    """Print lines."""
    for text in texts:
        print(printable(text))


def printable(text: str) -> str:
    """Return text that comes from packages without control sequences for the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows with their columns below each other."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))] if rows else []
    lines(["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows])


def progress(quiet: bool) -> Callable[[dict[str, Any]], None]:
    """Return what shows events: nothing in a pipe, one line that is written over in a terminal."""
    if quiet or not sys.stderr.isatty():
        return lambda event: None

    def show(event: dict[str, Any]) -> None:
        # 0 where the terminal doesn't tell
        width = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
        text = "" if event.get("phase") == "done" else str(event.get("message") or "")
        sys.stderr.write("\r\x1b[K" + printable(text)[:width])
        sys.stderr.flush()

    return show


def told(result: Mapping[str, Any]) -> list[str]:
    """Say what a change means besides what it installed and removed."""
    plan = result["plan"]
    found = []
    for item in plan["shadows"]:
        where = "the image" if item["where"] == "base" else "~/.local"
        found.append(f"{item['name']} {item['version']} hides {item['hidden']} of {where}.")
    for item in result.get("failed") or plan.get("failed") or result.get("left_out") or ():
        found.append(f"Left out: {item['requirement']}: {item['reason']} {item['hint']}".rstrip())
    if plan["needs_restart"]:
        found.append("Restart running kernels to use what has changed.")
    return found


def complain(error: OverlayError, in_json: bool) -> None:
    """Print an error: in JSON where the reader expects it, else for people."""
    if in_json:
        as_json(error.to_dict())
        return
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    texts = [f"overlay: {error.message} [{error.code}]", error.hint, *error.log.splitlines()[-15:]]
    for line in texts:
        if line:
            print(printable(line), file=sys.stderr)
