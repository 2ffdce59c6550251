"""What is delivered: the payload, and ``uv`` where the hub's environment has one that fits the image."""

from __future__ import annotations

import asyncio
import functools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlayspawner.hub import background, payload_zip
from overlayspawner.hub.delivery import PAYLOAD_LABEL, UV_LABEL, Bundle
from overlayspawner.hub.watch import ENGINE_ERRORS
from overlayspawner.payload.contract import PAYLOAD_DIR, UV_DIR

if TYPE_CHECKING:
    from overlayspawner.hub.engine import Engine
    from overlayspawner.hub.image_facts import ImageFacts

# ELF e_machine to the engine's name of the architecture
_MACHINES = {62: "amd64", 183: "arm64", 3: "386", 40: "arm", 21: "ppc64le", 22: "s390x", 243: "riscv64"}


def payload_bundle() -> Bundle:
    """Return the payload as a bundle."""
    payload = payload_zip.build()
    return Bundle(
        volume=f"overlayspawner-payload-{payload.short_id}",
        label=PAYLOAD_LABEL,
        version=payload.id,
        directory=PAYLOAD_DIR,
        files=payload.contents,
        mark=payload.mark()[1],
    )


@dataclass(frozen=True)
class Uv:
    """The ``uv`` program of the hub's environment.

    Parameters
    ----------
    path:
        Where it is.
    version:
        Its version.
    architecture:
        In the engine's words.
    loader:
        The dynamic loader that it names, ``""`` for a static program.
    """

    path: str
    version: str
    architecture: str
    loader: str

    @property
    def libc(self) -> str:
        """``glibc``, ``musl`` or ``static``."""
        if not self.loader:
            return "static"
        return "musl" if "musl" in self.loader else "glibc"

    def fits(self, facts: ImageFacts) -> bool:
        """Whether it runs in the image: same architecture, and the image has its loader."""
        return facts.architecture == self.architecture and (not self.loader or self.loader in facts.paths)

    def bundle(self) -> Bundle:
        """Return it as a bundle."""
        version = f"{self.version}-{self.architecture}-{self.libc}"
        return Bundle(
            volume=f"overlayspawner-uv-{version}",
            label=UV_LABEL,
            version=version,
            directory=UV_DIR,
            files=self._files,
            mark=f"{version}\n".encode(),
            executable=True,
        )

    def _files(self) -> dict[str, bytes]:
        with open(self.path, "rb") as f:
            return {"uv": f.read()}


@functools.lru_cache(maxsize=1)
def find_uv() -> Uv | None:
    """Return the ``uv`` that is pip-installed beside the hub, or ``None``."""
    try:
        from importlib.metadata import version

        from uv import find_uv_bin

        path = find_uv_bin()
        with open(path, "rb") as f:
            architecture, loader = read_elf(f.read(8192))
        return Uv(path, version("uv"), architecture, loader)
    except (ImportError, OSError, ValueError):
        return None


def read_elf(head: bytes) -> tuple[str, str]:
    """Return architecture and dynamic loader that an ELF program's first bytes name.

    Raises
    ------
    ValueError
        It is no little-endian 64-bit ELF program, or its loader lies beyond ``head``.
    """
    if head[:6] != b"\x7fELF\x02\x01" or len(head) < 64:
        raise ValueError("not a little-endian 64-bit ELF program")
    (machine,) = struct.unpack_from("<H", head, 18)
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    loader = ""
    for index in range(count):
        at = offset + index * size
        if at + 56 > len(head):
            raise ValueError("program headers lie too far behind")
        (kind,) = struct.unpack_from("<I", head, at)
        if kind == 3:  # PT_INTERP
            (start,) = struct.unpack_from("<Q", head, at + 8)
            (length,) = struct.unpack_from("<Q", head, at + 32)
            if start + length > len(head):
                raise ValueError("the loader's name lies too far behind")
            loader = head[start : start + length].rstrip(b"\0").decode()
    return _MACHINES.get(machine, f"machine-{machine}"), loader


def _fill_ended(fill: asyncio.Future[bool]) -> None:
    if not fill.cancelled():
        fill.exception()  # nobody may be left to look at it


async def deliver(engine: Engine, facts: ImageFacts, patience: float) -> tuple[list[Bundle], list[str]]:
    """Have the volumes filled that a container of an image needs.

    Parameters
    ----------
    engine:
        Where.
    facts:
        The image's.
    patience:
        Seconds to wait. No fill is ended: the next start has what this one can't wait for.

    Returns
    -------
    tuple[list[Bundle], list[str]]
        What is there, and a sentence about each that is not.
    """
    await payload_zip.built()
    uv = find_uv()
    wanted = [payload_bundle()]
    if uv is not None and uv.fits(facts):
        wanted.append(uv.bundle())
    fills = [background.start(engine.ensure(b, facts.id)) for b in wanted]
    for fill in fills:
        fill.add_done_callback(_fill_ended)
    await asyncio.wait(fills, timeout=patience)
    delivered, problems = [], []
    for bundle, fill in zip(wanted, fills):
        if not fill.done():
            problems.append(f"The volume {bundle.volume} is still being filled")
            continue
        error = fill.exception()
        if error is None:
            delivered.append(bundle)
        elif isinstance(error, ENGINE_ERRORS):
            problems.append(f"Filling the volume {bundle.volume} failed ({error})")
        else:
            raise error
    return delivered, problems
