"""What of a container's output is kept and shown."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayspawner.hub.output import MAX_BYTES, MAX_HINTS, TAIL_BYTES, Output, clean, redact, secrets_of


def frame(text: bytes, stream: int = 1) -> bytes:
    return struct.pack(">BxxxL", stream, len(text)) + text


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_pieces_are_put_together_however_they_are_cut(texts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame(t, 1 + i % 2) for i, t in enumerate(texts))
    output = Output()
    at, turn = 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        output.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert bytes(output._tail) == b"".join(texts)


def test_a_terminal_s_stream_has_no_headers() -> None:
    output = Output(tty=True)
    output.feed(b"plain\r\ntext\r\n")
    assert output.tail() == "plain\ntext"


def test_our_lines_are_found_across_pieces_and_others_are_not() -> None:
    seen: list[tuple[str, str]] = []
    output = Output(on_hint=lambda *hint: seen.append(hint))
    text = (
        b"noise\noverlayspawner: [payl"
        b"oad-missing] It is \x1b[31mgone\x1b[0m.\n"
        b"overlayspawner: [no-such-code] x\nsay overlayspawner: [busy] x\noverlayspawner: [busy] no end"
    )
    for i in range(0, len(text), 7):
        output.feed(frame(text[i : i + 7]))
    assert seen == [("payload-missing", "It is gone.")]
    assert output.hints == seen


def test_a_flood_is_bounded() -> None:
    output = Output()
    block = frame(b"overlayspawner: [busy] again and again\n" * 1000)
    while output.feed(block):
        pass
    assert output.total < MAX_BYTES + len(block) + 1
    assert len(output._tail) <= TAIL_BYTES
    assert len(output.hints) == MAX_HINTS
    assert len(output.tail()) <= 4000
    endless = Output()
    endless.feed(frame(b"x" * 1_000_000))
    assert len(endless._line) <= 4096


def test_secrets_are_hidden() -> None:
    output = Output(secrets={"s3cret-token-of-this-spawn"})
    output.feed(
        frame(
            b"using s3cret-token-of-this-spawn now\n"
            b"Looking in indexes: https://me:pa55@example.org/simple\n"
            b"JUPYTERHUB_API_TOKEN=abcdef0123456789\n"
            b'{"api_key": "k-123456"} Authorization: token 998877665544\n'
            b"an ordinary line = fine\n"
        )
    )
    tail = output.tail()
    for secret in ("s3cret", "pa55", "abcdef0123456789", "k-123456", "998877665544"):
        assert secret not in tail
    assert "example.org/simple" in tail and "an ordinary line = fine" in tail


def test_secrets_come_from_names_and_urls_of_the_environment() -> None:
    found = secrets_of(
        {
            "JUPYTERHUB_API_TOKEN": "0123456789",
            "DB_PASSWORD": "hunter22",
            "PIP_INDEX_URL": "https://user:pw123@host/simple",
            "HOME": "/home/jovyan",
            "TOKEN_SHORT": "x",
        }
    )
    assert found == {"0123456789", "hunter22", "user:pw123"}


def test_control_characters_do_not_reach_a_page() -> None:
    assert clean("a\x1b[2Jb\x1b]0;title\x07c\x00d\re\r\nf") == "abcd\ne\nf"
    assert redact("x=1") == "x=1"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("JPY_API_TOKEN=abc", "JPY_API_TOKEN=[hidden]"),
        ("Authorization: token xyz9", "Authorization: token [hidden]"),
        ("my-secret-key: bearer q", "my-secret-key: bearer [hidden]"),
        ('"password" : "p"', '"password" : "[hidden]"'),
        ("/lab?token=abc&x=1", "/lab?token=[hidden]&x=1"),
        ("x=1 y: 2", "x=1 y: 2"),
    ],
)
def test_what_is_named_like_a_secret(text: str, shown: str) -> None:
    assert redact(text) == shown


# A pattern that backtracks takes days for these; a container could stop the hub with them.
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    ["-token", "token", "a-", "token ", "token:", "token= ", "://", "a://b", "\x1b[", "\x1b]", "bearer "],
)
def test_no_output_keeps_the_hub_busy(piece: str) -> None:
    text = piece * (TAIL_BYTES // len(piece))
    for worst in (text, "token:" + text, "token" + " " * TAIL_BYTES, "token: bearer" + " " * TAIL_BYTES):
        redact(clean(worst))
