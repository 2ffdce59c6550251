"""What a container prints while it starts: a bounded tail, without secrets, and the lines that are ours.

Attached before the container starts: that works with every log driver and can't lose the race with automatic
removal, as reading logs afterwards does. One thread reads for all spawns. Whatever a container prints is
untrusted: it is cut, cleaned and shown as plain text, never interpreted beyond hints.
"""

from __future__ import annotations

import contextlib
import logging
import re
import selectors
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

from overlayspawner.payload.contract import CODES, MARK, MARK_READY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

TAIL_BYTES = 64 * 1024
"""How much of a container's output is kept."""

MAX_BYTES = 64 * 1024 * 1024
"""How much is read before we detach: a container that prints for ever must not cost the hub anything."""

HINT_BYTES = 1024 * 1024
"""In how much of it our own lines are looked for: they come before the server's."""

MAX_HINTS = 30
MAX_HINT_CHARS = 300

_HINT = re.compile(re.escape(MARK) + r"\[([a-z-]+)\] (.*)")
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|[\x00-\x08\x0b-\x1f\x7f]"
)
_URL_SECRET = re.compile(r"(?<=://)[^/\s@]+(?=@)")
# Linear: a name starts only where no name is under way, and is looked at by a function. What a container
# prints must not be able to keep the hub busy.
_NAMED = re.compile(
    r"(?i)(?<![\w-])([\w-]+)([\"']?\s*[=:]\s*[\"']?(?:(?:bearer|token|basic)\s+)?)([^\s\"'&,;]+)"
)
_SECRET_NAME = re.compile(r"(?i)token|passw|secret|api[_-]?key|credential|authorization")
_HIDDEN = "[hidden]"


def secrets_of(environment: dict[str, str]) -> set[str]:
    """Return the values of an environment that must not be shown: by name, and credentials within URLs."""
    found = set()
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and len(value) >= 6:
            found.add(value)
        found.update(m for m in _URL_SECRET.findall(value) if len(m) >= 3)
    return found


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` without secrets: the given ones, credentials in URLs, and what is named like one."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    text = _URL_SECRET.sub(_HIDDEN, text)
    return _NAMED.sub(_hide, text)


def _hide(match: re.Match[str]) -> str:
    return match[1] + match[2] + _HIDDEN if _SECRET_NAME.search(match[1]) else match[0]


def one_line(text: object, secrets: Iterable[str], *, limit: int) -> str:
    """Return a message of somebody else's in one line of at most ``limit`` characters, without secrets."""
    line = " ".join(redact(clean(str(text or "")), secrets).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def clean(text: str) -> str:
    """Return ``text`` without control characters and terminal sequences, with plain line ends."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


class Output:
    """The output of one container. :meth:`feed` is called by the reading thread only.

    Parameters
    ----------
    secrets:
        What is never to be shown.
    on_hint:
        Called (in the reading thread) with code and sentence of each line of ours.
    tty:
        Whether the stream is raw; otherwise it has a header before each piece.
    """

    def __init__(
        self,
        secrets: Iterable[str] = (),
        on_hint: Callable[[str, str], None] | None = None,
        *,
        tty: bool = False,
    ) -> None:
        self.secrets = set(secrets)
        self.hints: list[tuple[str, str]] = []
        self.total = 0
        self.ended = threading.Event()
        self.wanted = True
        self._on_hint = on_hint
        self._tty = tty
        self._tail = bytearray()
        self._pending = bytearray()  # of the stream: an incomplete header or piece
        self._left = 0  # bytes that remain of the current piece
        self._line = bytearray()  # of the text: an incomplete line

    def feed(self, data: bytes) -> bool:
        """Take what was read; return whether more is wanted."""
        self.total += len(data)
        for piece in [data] if self._tty else self._pieces(data):
            self._tail += piece
            if self.total < HINT_BYTES:
                self._find_hints(piece)
        if len(self._tail) > TAIL_BYTES:
            del self._tail[: len(self._tail) - TAIL_BYTES]
        return self.wanted and self.total < MAX_BYTES

    def _pieces(self, data: bytes) -> Iterable[bytes]:
        # https://docs.docker.com/reference/api/engine/ "Stream format": type, 3 zeros, length
        self._pending += data
        at = 0
        buffer = self._pending
        while at < len(buffer):
            if not self._left:
                if len(buffer) - at < 8:
                    break
                (self._left,) = struct.unpack_from(">L", buffer, at + 4)
                at += 8
                continue
            piece = bytes(buffer[at : at + self._left])
            at += len(piece)
            self._left -= len(piece)
            yield piece
        del buffer[:at]

    def _find_hints(self, piece: bytes) -> None:
        self._line += piece
        *lines, rest = bytes(self._line).split(b"\n")
        self._line = bytearray(rest[-4096:])
        for line in lines:
            if len(self.hints) >= MAX_HINTS:
                return
            match = _HINT.match(clean(line[:4096].decode("utf-8", "replace")))
            if match and (match[1] in CODES or match[1] == MARK_READY):
                sentence = redact(match[2], self.secrets)[:MAX_HINT_CHARS]
                self.hints.append((match[1], sentence))
                if self._on_hint:
                    self._on_hint(match[1], sentence)

    def tail(self, lines: int = 40, chars: int = 4000) -> str:
        """Return the last lines, clean and without secrets, ``""`` when there are none."""
        text = redact(clean(bytes(self._tail).decode("utf-8", "replace")), self.secrets)
        kept = [line.rstrip() for line in text.split("\n") if line.strip()][-lines:]
        return "\n".join(kept)[-chars:]


class Reader:
    """Reads the output of all containers that start, in one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._new: list[tuple[socket.socket, Output, Any]] = []
        self._drop: list[Output] = []
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread: threading.Thread | None = None

    def attach(self, client: Any, container: str, output: Output) -> None:
        """Attach to a container's output; blocks for one request.

        Raises
        ------
        docker.errors.APIError, OSError
            The engine refuses, or the connection is of a kind that can't be read this way (ssh).
        """
        params = {"stdout": 1, "stderr": 1, "stream": 1, "logs": 0}
        raw = client.attach_socket(container, params=params)
        sock = getattr(raw, "_sock", raw)
        if not isinstance(sock, socket.socket):
            raise OSError("the output of containers can't be read over this connection")
        sock.setblocking(False)
        with self._lock:
            self._new.append((sock, output, raw))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="overlay-output", daemon=True)
                self._thread.start()
        self._notify()

    def detach(self, output: Output) -> None:
        """Stop reading a container's output."""
        output.wanted = False
        if output.ended.is_set():
            return
        with self._lock:
            self._drop.append(output)
        self._notify()

    def _notify(self) -> None:
        with contextlib.suppress(OSError):  # full: it is being woken already
            self._wake.send(b"x")

    def _run(self) -> None:
        while True:
            try:
                self._turn()
            except Exception:
                log.exception("Reading the output of containers failed; going on.")

    def _turn(self) -> None:
        events = self._selector.select()
        with self._lock:
            new, self._new = self._new, []
            drop, self._drop = self._drop, []
        for sock, output, raw in new:
            key = self._selector.register(sock, selectors.EVENT_READ, (output, raw))
            if not output.wanted:  # attaching took so long that nobody waits any more
                self._close(key)
        for key, _mask in events:
            if key.data is None:
                with contextlib.suppress(OSError):
                    self._woken.recv(4096)
            else:
                self._read(key)
        for key in [k for k in self._selector.get_map().values() if k.data and k.data[0] in drop]:
            self._close(key)

    def _read(self, key: selectors.SelectorKey) -> None:
        output: Output = key.data[0]
        sock: Any = key.fileobj
        # TLS may hold decrypted bytes that select() does not see: read until there are none. A container that
        # prints faster than we read gets no more than its share of a turn.
        for _ in range(16):
            try:
                data = sock.recv(65536)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as e:
                if type(e).__name__ in ("SSLWantReadError", "SSLWantWriteError"):
                    return
                data = b""
            if not data or not output.feed(data):
                self._close(key)
                return
            if not getattr(sock, "pending", lambda: 0)():
                return

    def _close(self, key: selectors.SelectorKey) -> None:
        self._selector.unregister(key.fileobj)
        output, raw = key.data
        sock: Any = key.fileobj
        for thing in (raw, sock):
            with contextlib.suppress(Exception):
                thing.close()
        output.ended.set()
