"""How the command line shows things: tables, colours, errors. In a pipe: plain and whole."""

from __future__ import annotations

import errno
import json
import os
import sys
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from overlayspawner.payload import cli_progress
from overlayspawner.payload.contract import OverlayError

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}

_LEAST = 12
"""Columns that the one that gives way keeps, however narrow the terminal is."""


def as_json(data: object) -> None:
    """Print one JSON document."""
    print(json.dumps(data, indent=1))


def lines(texts: Sequence[str]) -> None:
    """Print lines."""
    for text in texts:
        print(printable(text))


def write(path: str, data: str | bytes, mode: int = 0o644) -> None:
    """Write a file that was named.

    Raises
    ------
    OverlayError
        ``bad-request`` for a place where no file can be; ``disk-full``, ``read-only`` and others.
    """
    from overlayspawner.payload import files
    from overlayspawner.payload.lease import storage_error

    try:
        files.write_named(path, data, mode)
    except OSError as e:
        wrong = e.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
        code = "bad-request" if wrong else storage_error(e).code
        raise OverlayError(code, f"{path} can't be written: {e.strerror}.") from e


def printable(text: str) -> str:
    """Return text that comes from packages without control sequences for the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """Return text in one of :data:`STYLES` where that is seen: on a terminal that nobody asked to be plain.

    Parameters
    ----------
    stream:
        Where it is printed; standard output when left out.
    """
    stream = stream or sys.stdout
    if not text or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return text
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if stream.isatty() else text


def table(
    rows: Sequence[Sequence[str]],
    heads: Sequence[str] = (),
    *,
    right: Sequence[int] = (),
    cut: bool = False,
) -> None:
    """Print rows with their columns below each other; on a terminal with a heading, and as wide as that is.

    Parameters
    ----------
    rows, heads:
        Texts, as many in each row as there are headings (if there are any).
    right:
        Columns of amounts.
    cut:
        Whether the last column is cut off where there is no room for it; else it goes on below.
    """
    if not rows:
        return
    cells = [[printable(cell) for cell in row] for row in rows]
    terminal = sys.stdout.isatty()
    shown = [list(heads), *cells] if terminal and heads else cells
    widths = [max(_width(row[n]) for row in shown) for n in range(len(cells[0]))]
    room = 0
    if terminal:
        room = max(_LEAST, cli_progress.size(sys.stdout)[0] - sum(widths[:-1]) - 2 * (len(widths) - 1))
    if terminal and heads:
        print(paint(_row(list(heads), widths, right), "bold"))
    for row in cells:
        last = [row[-1]]
        if room and _width(row[-1]) > room:
            # a path that is longer than the line stays whole, so that it can be copied
            last = [_cut(row[-1], room)] if cut else textwrap.wrap(row[-1], room, break_long_words=False)
        print(_row([*row[:-1], last[0]], widths, right))
        for more in last[1:]:
            print(_row([*[""] * (len(row) - 1), more], widths, right))


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    out = []
    for n, cell in enumerate(cells):
        space = " " * (widths[n] - _width(cell))
        out.append(space + cell if n in right else cell + space)
    return "  ".join(out).rstrip()


def _width(text: str) -> int:
    """Return the columns that a text takes: two for a Chinese character, none for an accent of its own."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def _cut(text: str, room: int) -> str:
    while _width(text) > room - 1:
        text = text[: min(len(text) - 1, room)]
    return text.rstrip() + "…"


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
    cli_progress.clear()
    if in_json:
        as_json(error.to_dict())
        return
    name = paint("overlay:", "red", sys.stderr)
    texts = [f"{error.message} [{error.code}]", error.hint, *error.log.splitlines()[-15:]]
    for n, line in enumerate(texts):
        if line:
            print((f"{name} " if n == 0 else "") + printable(line), file=sys.stderr)
