"""What a program draws, taken apart: however the bytes come, the lines are the same."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from overlayspawner.payload.procs import run
from overlayspawner.payload.screen import MAX_LINE, Output

E = "\r\x1b[2K"
BAR = "------------------------------"
# what a current uv draws: one frame is padded to the width and erased line by line
NEW = (
    f"Using CPython\r\n\u280b Resolving dependencies...      {E}\u2819 Resolving dependencies...   {E}"
    f"Resolved 3 packages in 1ms\r\n\u2819 Preparing packages... (0/3)    \x1b[1A{E}\x1b[1B{E}\x1b[1A"
    f"\u2819 Preparing packages... (0/3)   big   {BAR} 1.00 KiB/2.00 KiB  \x1b[1A{E}"
    "Prepared 3 packages\r\n + big==1.0\r\n"
)
# and an early one: bars on lines of their own
OLD = (
    f"\u2838 Preparing packages... (0/3)\r\nbig     {BAR}  88 B/891 B  \x1b[2A{E}\x1b[1B{E}\x1b[2A"
    "Prepared 3 packages\r\n + big==1.0\r\n"
)


def drawing(text: str) -> bool:
    return "Preparing packages..." in text or "-----" in text


def read(data: bytes, cuts: list[int]) -> tuple[list[str], Output]:
    lines: list[str] = []
    output = Output(lines.append, drawing)
    start = 0
    for cut in sorted(cut % (len(data) + 1) for cut in cuts):
        output.feed(data[start:cut])
        start = cut
    output.feed(data[start:])
    output.close()
    return lines, output


@given(st.lists(st.integers(0, 5000), max_size=8))
def test_lines_stay_and_frames_go_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    lines, output = read(NEW.encode(), cuts)
    assert lines == [
        "Using CPython",
        "Resolved 3 packages in 1ms",
        "Prepared 3 packages",
        " + big==1.0",
    ]
    assert output.raw == len(NEW.encode())
    assert read(OLD.encode(), cuts)[0] == ["Prepared 3 packages", " + big==1.0"]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes_are_read_and_nothing_is_kept_for_ever(data: bytes, cuts: list[int]) -> None:
    lines, _ = read(data, cuts)
    assert all("\x1b[2K" not in line for line in lines)


def test_a_line_without_an_end_is_cut() -> None:
    lines, _ = read(b"x" * (MAX_LINE * 40), list(range(0, MAX_LINE * 40, 1000)))
    assert sum(map(len, lines)) == MAX_LINE * 40 and len(lines) > 1


def test_a_spinner_that_turns_is_no_sign_of_life() -> None:
    output = Output(lambda line: None, drawing)
    for spinner in "\u2819\u2839\u2838\u283c" * 20:
        output.feed(f"{spinner} Resolving dependencies...\r\x1b[2K".encode())
    assert output.signs == 1
    output.feed("\u2819 tinyleaf==2.0\r\x1b[2K".encode())
    assert output.signs == 2


def test_a_frame_that_nobody_erases_swallows_no_line() -> None:
    """uv leaves its spinner where it is when it fails."""
    lines: list[str] = []
    output = Output(lines.append, drawing, columns=40)
    frame = "\u2819 Preparing packages... (0/3)".ljust(40) + f"big {BAR} 1 B/2".ljust(40)
    output.feed(f"{frame}error: Hash mismatch, which is a long sentence by itself\nmore\n".encode())
    assert lines == ["error: Hash mismatch, which is a long sentence by itself", "more"]


def test_who_draws_gets_a_terminal_and_others_none() -> None:
    code = "import os; print(*map(os.isatty, range(3))); print(os.get_terminal_size(2).columns)"
    argv, lines = [sys.executable, "-c", code], list[str]()
    assert run(argv, on_line=lines.append, drawn=drawing).rc == 0
    assert lines == ["False True True", "200"]
    assert run(argv, drawn=drawing, terminal=False).tail.startswith("False False False")
    assert run(argv).tail.startswith("False False False")


def test_the_terminal_is_nobody_s_to_ask_on() -> None:
    code = "open('/dev/tty')"
    assert "No such device or address" in run([sys.executable, "-c", code], drawn=drawing).tail
