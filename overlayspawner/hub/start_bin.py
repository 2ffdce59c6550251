"""Makes ``start.bin``: the modules of a container's start, in a form that is read at once.

Finding them in the zip and compiling them would cost each start more than all that they do. So they are there
as bytecode, for each version of Python apart: code can only be read by the version that made it. A release's
wheel brings bytecode for all supported versions, made by ``scripts/bytecode.py``, and the hub adds that of
its own version. Other Pythons compile the sources, which are there too.

The layout: a header, in the second format of ``marshal``, which every Python reads: the zip's size, and magic
number → offset and length of a part, counted from the header's end. Without a magic number: the sources. Each
part is packed by zlib, whose checksum finds damage, and is a list of name, path, whether it is a package, and
code or text of each module. A start reads the header and its own part only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import zlib
from importlib.resources import files
from typing import TYPE_CHECKING

from overlayspawner.hub import compiling

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

START_MODULES = (
    "overlayspawner",
    "overlayspawner.payload",
    "overlayspawner.payload.contract",
    "overlayspawner.payload.jsontext",
    "overlayspawner.payload.files",
    "overlayspawner.payload.probe",
    "overlayspawner.payload.overlay",
    "overlayspawner.payload.kernelspec",
    "overlayspawner.payload.deadline",
    "overlayspawner.payload.runtime",
    "overlayspawner.payload.context",
    "overlayspawner.payload.oneshot",
    "overlayspawner.payload.storage",
    "overlayspawner.payload.bootstrap",
)
"""What a start imports, each after those that it imports itself."""

Modules = list[tuple[str, str, bool, str]]
"""Name, path in the zip, whether it is a package, and text of each module."""

PLAIN = 2
"""The format of ``marshal`` for what holds no code: every Python reads it, and the same values give the same
bytes."""

_SUFFIX = ".bin"
_FORMAT = b"overlayspawner-bytecode-1"


def shipped_dir() -> Traversable:
    """Return the directory of the bytecode that a release's wheel brings; it may be missing."""
    return files("overlayspawner") / "hub" / "bytecode"


def start_modules(sources: dict[str, bytes]) -> Modules:
    """Return the modules of the start.

    Parameters
    ----------
    sources:
        File name in the zip to content.
    """
    modules = []
    for name in START_MODULES:
        path = name.replace(".", "/")
        package = f"{path}/__init__.py" in sources
        path += "/__init__.py" if package else ".py"
        modules.append((name, path, package, sources[path].decode()))
    return modules


def program() -> str:
    """Return the text of the program that compiles, for any supported Python to run."""
    return (files("overlayspawner") / "hub" / "compiling.py").read_text(encoding="utf-8")


def make_start(modules: Modules, zip_size: int, bytecode: dict[bytes, bytes]) -> bytes:
    """Return ``start.bin``, which the launcher reads.

    Parameters
    ----------
    modules:
        The modules of the start.
    zip_size:
        Bytes of the zip that it belongs to: beside another one it is not used.
    bytecode:
        Magic number → packed bytecode of these modules.
    """
    parts = {b"": pack(marshal.dumps(modules, PLAIN)), **bytecode}
    places = {}
    body = b""
    for magic in sorted(parts):
        places[magic] = (len(body), len(parts[magic]))
        body += parts[magic]
    return marshal.dumps((zip_size, places), PLAIN) + body


def pack(data: bytes) -> bytes:
    """Return a part as it is in ``start.bin``: a third of the size, for half a millisecond at a start."""
    return zlib.compress(data, 9)


def own(modules: Modules) -> dict[bytes, bytes]:
    """Return magic number → packed bytecode of the version that runs this."""
    return {importlib.util.MAGIC_NUMBER: pack(compiling.compiled(modules))}


def digest(modules: Modules) -> str:
    """Return what bytecode is known by: the sources, and the program that compiled them."""
    return hashlib.sha256(program().encode() + b"\0" + marshal.dumps(modules, PLAIN)).hexdigest()


def make_bytecode_file(magic: bytes, packed: bytes, modules: Modules) -> bytes:
    """Return the file of a wheel that holds the packed bytecode of one version of Python."""
    head = b"%b %b %b" % (_FORMAT, magic.hex().encode(), digest(modules).encode())
    return b"%b %b\n%b" % (head, _checksum(head, packed), packed)


def shipped(modules: Modules, directory: Traversable) -> dict[bytes, bytes]:
    """Return magic number → packed bytecode, from the files in a directory.

    A file that was made of other sources (a checkout that has been edited since) is left out, and a damaged
    one: Pythons of that version then compile the sources, as others do.
    """
    found: dict[bytes, bytes] = {}
    fits = digest(modules).encode()
    if not directory.is_dir():
        return found  # a checkout in which none was made
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if not entry.name.endswith(_SUFFIX):
            continue
        try:
            head, _, packed = entry.read_bytes().partition(b"\n")
            about, _, checksum = head.rpartition(b" ")
            kind, magic, sources = about.split(b" ")
            if (kind, sources, checksum) == (_FORMAT, fits, _checksum(about, packed)):
                found.setdefault(bytes.fromhex(magic.decode()), packed)
        except (OSError, ValueError):
            continue
    return found


def _checksum(head: bytes, packed: bytes) -> bytes:
    return hashlib.sha256(head + b"\n" + packed).hexdigest().encode()
