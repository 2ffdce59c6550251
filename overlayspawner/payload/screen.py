"""What a program prints on a terminal, taken apart: lines that stay, and frames that are drawn over. Pure.

A progress bar is drawn, erased and drawn again. What is erased is a *frame*; what ends with a line break is a
line, unless whoever reads it says that it is a part of the drawing: some programs draw bars on lines of their
own and move the cursor back up.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_LINE = 4_000
"""Longest line kept, in characters: tools may print a whole file on one."""

# erasing and moving the cursor; carriage returns around it belong to it
_ERASE = rb"(?:\r*\x1b\[[0-9;?]*[A-HJKSTf])+\r*"
_BREAK = re.compile(rb"(" + _ERASE + rb"|[\r\n]+)")
_UNFINISHED = re.compile(rb"(?:\r+(?:\x1b(?:\[[0-9;?]*)?)?|\x1b(?:\[[0-9;?]*)?)\Z")
_MARKS = re.compile(rb"\x1b\[[0-9;:?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")


class Output:
    """Bytes in, lines out.

    Parameters
    ----------
    on_line:
        Called with each line that stays.
    drawn:
        Asked about each piece of text whether it is a part of a drawing; where it is left out nothing is
        drawn, and an erased piece is a line as well.
    columns:
        Width of the terminal; 0 where there is none.

    Attributes
    ----------
    signs:
        Grows with everything that is new: a line, a frame that differs from the last one in more than the
        spinner that turns.
    raw:
        Bytes that came in.
    """

    def __init__(
        self,
        on_line: Callable[[str], None],
        drawn: Callable[[str], bool] | None = None,
        columns: int = 0,
    ) -> None:
        self.signs = 0
        self.raw = 0
        self._on_line = on_line
        self._drawn = drawn
        self._columns = columns
        self._rest = b""
        self._frame = ""

    def feed(self, chunk: bytes) -> None:
        """Take what has come."""
        self.raw += len(chunk)
        data = self._rest + chunk
        held = b""
        if self._drawn is not None:
            # a sequence that is not complete, or a carriage return that may belong to one
            unfinished = _UNFINISHED.search(data)
            if unfinished and len(data) < 16 * MAX_LINE:
                data, held = data[: unfinished.start()], unfinished[0]
        pieces = _BREAK.split(data) if self._drawn is not None else re.split(rb"([\r\n]+)", data)
        self._rest = pieces.pop() + held
        for text, end in zip(pieces[::2], pieces[1::2]):
            self._take(text, erased=b"\x1b" in end)
        if len(self._rest) > 16 * MAX_LINE:
            self._take(self._rest, erased=False)
            self._rest = b""

    def close(self) -> None:
        """Take the rest for a line."""
        self._take(self._rest, erased=False)
        self._rest = b""

    def _take(self, raw: bytes, *, erased: bool) -> None:
        if self._drawn is not None:
            raw = _MARKS.sub(b"", raw)
        text = raw.decode("utf-8", "replace")
        if self._drawn is not None and not erased:
            # A frame that nobody erased: it fills its row, so that what follows begins on the next one.
            while 0 < self._columns < len(text) and self._drawn(text[: self._columns].rstrip()):
                text = text[self._columns :]
        text = text.rstrip()
        if not text:
            return
        if self._drawn is not None and (self._drawn(text) or erased):
            frame = "".join(c for c in text if c < "\x7f")
            if frame != self._frame:
                self.signs += 1
            self._frame = frame
            return
        self.signs += 1
        self._on_line(text)
