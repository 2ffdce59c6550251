"""Builds ``overlay.pyz``: everything of ours that runs inside a container, in one file.

The zip is made on the hub from the installed package. It is deterministic (the same sources give the same
bytes), so that its hash can name it: two hubs of one version share what they deliver, and an upgrade is
delivered beside the old version while containers still run from that.

Beside it lies ``start.bin``, which ``start_bin.py`` makes: the modules of the start once more, in a form that
is read at once.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import hashlib
import io
import threading
import tokenize
import zipfile
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from overlayspawner.hub import start_bin
from overlayspawner.payload.contract import (
    LABEXTENSION,
    PAYLOAD_COMPLETE,
    PAYLOAD_LAUNCHER,
    PAYLOAD_START,
    PAYLOAD_ZIP,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

MAX_ZIP_BYTES = 450_000
"""Budget of the zip: a Kubernetes Secret and a Swarm config have to hold it, in base64 where need be."""

MAX_BYTES = 1_000_000
"""Budget of all files together: a Kubernetes Secret holds 1 MiB, a Swarm config less than 1,024,000 bytes."""

_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # the zip format's epoch


class Payload(NamedTuple):
    """What is delivered into containers.

    Parameters
    ----------
    id:
        SHA-256 (hexadecimal) over the other three.
    zip:
        The bytes of ``overlay.pyz``.
    launcher:
        The bytes of ``launcher.sh``.
    start:
        The bytes of ``start.bin``.
    """

    id: str
    zip: bytes
    launcher: bytes
    start: bytes

    @property
    def short_id(self) -> str:
        """The first 12 digits of the id: enough for a name."""
        return self.id[:12]

    def contents(self) -> dict[str, bytes]:
        """Return file name to bytes, without the mark that says that all of it is there."""
        return {PAYLOAD_ZIP: self.zip, PAYLOAD_LAUNCHER: self.launcher, PAYLOAD_START: self.start}

    def mark(self) -> tuple[str, bytes]:
        """Return name and bytes of the mark, which is written last."""
        return PAYLOAD_COMPLETE, (self.id + "\n").encode()


_lock = threading.Lock()


def build() -> Payload:
    """Build the payload from the installed package; the result is kept in memory.

    The first time takes a second or more: see :func:`built`.
    """
    # One at a time: Python 3.11 can't parse to a syntax tree in two threads at once (SystemError).
    with _lock:
        return _build()


async def built() -> Payload:
    """Build the payload while the hub's event loop goes on serving others."""
    return await asyncio.to_thread(build)


@functools.lru_cache(maxsize=1)
def _build() -> Payload:
    package = files("overlayspawner")
    launcher = (package / "hub" / PAYLOAD_LAUNCHER).read_bytes()
    sources = payload_sources()
    data = make_zip(sources)
    modules = start_bin.start_modules(sources)
    bytecode = {**start_bin.shipped(modules, start_bin.shipped_dir()), **start_bin.own(modules)}
    start = start_bin.make_start(modules, len(data), bytecode)
    # The lengths keep these parts from any other split of the same bytes.
    digest = hashlib.sha256(f"{len(data)} {len(launcher)} {len(start)}\n".encode())
    for part in (data, launcher, start):
        digest.update(part)
    return Payload(digest.hexdigest(), data, launcher, start)


def payload_sources() -> dict[str, bytes]:
    """Return file name in the zip → content, of the installed package."""
    return dict(_sources(files("overlayspawner")))


def _sources(package: Traversable) -> Iterator[tuple[str, bytes]]:
    yield "__main__.py", lean((package / "payload" / "__main__.py").read_bytes())
    yield "overlayspawner/__init__.py", lean((package / "__init__.py").read_bytes())
    yield from _walk(package / "payload", "overlayspawner/payload")
    # made by `make labextension`; a checkout where nobody has done that works without the panel
    yield from _panel(package / LABEXTENSION, f"overlayspawner/{LABEXTENSION}")


def _panel(directory: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    if not directory.is_dir():
        return
    for entry in directory.iterdir():
        if entry.is_dir():
            yield from _panel(entry, f"{prefix}/{entry.name}")
        else:
            yield f"{prefix}/{entry.name}", entry.read_bytes()


def _walk(directory: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in directory.iterdir():
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _walk(entry, f"{prefix}/{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{prefix}/{entry.name}", lean(entry.read_bytes())
        elif entry.name.endswith(".txt"):
            yield f"{prefix}/{entry.name}", entry.read_bytes()


def lean(source: bytes) -> bytes:
    """Return a module without docstrings and lines of comment: a third less to deliver and to read.

    Each line stays where it is, so that a traceback from a container fits the installed source.
    """
    lines = source.split(b"\n")
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip():
            lines[token.start[0] - 1] = b""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for number, entry in enumerate(node.body):
            if not isinstance(entry, ast.Expr) or not isinstance(entry.value, ast.Constant):
                continue
            if not isinstance(entry.value.value, str):
                continue
            first, last = entry.lineno - 1, (entry.end_lineno or entry.lineno) - 1
            if lines[last][entry.end_col_offset or 0 :].strip() or lines[first][: entry.col_offset].strip():
                continue  # shares its line with something else
            only = number == 0 and len(node.body) == 1 and not isinstance(node, ast.Module)
            lines[first] = lines[first][: entry.col_offset] + b"pass" if only else b""
            for line in range(first + 1, last + 1):
                lines[line] = b""
    return b"\n".join(lines)


def make_zip(sources: dict[str, bytes]) -> bytes:
    """Return a zip with these files: sorted, with fixed dates and modes.

    Deflated: a third of the size. That costs a millisecond where the zip is read; a start reads
    ``start.bin`` instead.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(sources):
            info = zipfile.ZipInfo(name, _TIMESTAMP)
            info.create_system = 3  # Unix, whatever the hub runs on
            info.external_attr = 0o644 << 16
            archive.writestr(info, sources[name], zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()
