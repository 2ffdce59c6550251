"""What an installer would do, told without installing or building anything.

Even a dry run executes the code of a source distribution, to learn what it needs. So wheels alone are
resolved. Where source code comes in nevertheless, a *stand-in* is offered to the installer: a wheel with the
right name and version and nothing in it. Its version is chosen as the real one would be; what it needs stays
unknown.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from overlayspawner.payload import files
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.requirements import normalise
from overlayspawner.payload.stage import Stage

ROUNDS = 10
"""Attempts at most: each finds further packages that come as source code only."""

_VERSION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9.!+_]*$")
_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")


def too_many() -> OverlayError:
    """Return the error that ends the attempts."""
    return OverlayError(
        "no-matching-version",
        "Too many packages come as source code only to tell what would happen. Nothing was changed.",
        "Name versions that have wheels.",
        status=409,
    )


def hashes_of(constraints: Iterable[str]) -> dict[str, set[str]]:
    """Return the SHA-256 of the files that may be taken, by ``name==version``, of those that have any."""
    out: dict[str, set[str]] = {}
    for line in constraints:
        pin, *digests = line.split(" --hash=sha256:")
        if digests:
            out.setdefault(pin.strip(), set()).update(digest.strip() for digest in digests)
    return out


def other_file(pin: str) -> OverlayError:
    """Return the error for a file whose hash is not one of those that are known."""
    return OverlayError(
        "bad-package",
        f"The index gives another file for {pin} than the hash known for it says. Nothing was changed.",
        "Ask the administrator of the index; or ask for another version.",
        status=502,
    )


@dataclass(frozen=True)
class Planned:
    """One distribution that would come.

    Parameters
    ----------
    name, version:
        Normalised name; version.
    requires:
        ``Requires-Dist`` lines, as far as the installer tells.
    url:
        Where it comes from, if the requirement says so and not the index.
    size:
        Bytes of the file to download; ``None`` where nothing tells.
    build:
        It comes as source code and has to be built.
    """

    name: str
    version: str
    requires: tuple[str, ...] = ()
    url: str = ""
    size: Optional[int] = None
    build: bool = False


class StandIns:
    """The stand-ins for source distributions.

    Parameters
    ----------
    folder:
        Directory that they are written to; made when it is needed.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.known: set[tuple[str, str]] = set()

    def add(self, found: Iterable[tuple[str, str]]) -> bool:
        """Make those that are not there; return whether there was one.

        Parameters
        ----------
        found:
            Normalised names, and versions. Both come from an index: what can't be a part of a file's name is
            left out.
        """
        new = {item for item in found if _NAME.match(item[0]) and _VERSION.match(item[1])} - self.known
        if new:
            files.mkdir(self.folder, 0o700)
        for name, version in new:
            stem = f"{name.replace('-', '_')}-{version}"
            raw = io.BytesIO()
            with zipfile.ZipFile(raw, "w") as archive:
                info = f"{stem}.dist-info"
                archive.writestr(f"{info}/METADATA", metadata(name, version))
                archive.writestr(
                    f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
                )
                archive.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
            files.write_atomic(f"{self.folder}/{stem}-py3-none-any.whl", raw.getvalue(), sync=False)
        self.known |= new
        return bool(new)


def metadata(name: str, version: str, requires: Iterable[str] = ()) -> str:
    """Return the text of a METADATA file."""
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"


def draw(stage: Stage, planned: Iterable[Planned]) -> None:
    """Leave in a stage the metadata of what an installer would bring."""
    for item in planned:
        if not _NAME.match(item.name) or not _VERSION.match(item.version):
            continue
        folder = f"{item.name.replace('-', '_')}-{item.version}.dist-info"
        path = os.path.join(stage.site, folder)
        files.remove_tree(path)  # the stub of one that comes again in the same version
        files.mkdir(path)
        texts = {
            "METADATA": metadata(item.name, item.version, item.requires),
            "INSTALLER": "overlayspawner\n",
        }
        if item.url:
            texts["direct_url.json"] = json.dumps({"url": item.url})
        texts["RECORD"] = "".join(f"{folder}/{name},,\n" for name in [*texts, "RECORD"])
        for name, text in texts.items():
            files.write_plain(f"{path}/{name}", text)


def source_file(filename: str, name: str) -> str:
    """Return the version in the file name of a source distribution; ``""`` where it is none of ``name``."""
    for end in (".tar.gz", ".zip", ".tar.bz2", ".tgz"):
        if filename.endswith(end):
            stem = filename[: -len(end)]
            for at in [match.start() for match in re.finditer("-", stem)]:
                # `foo-bar-1.0` is a version of foo-bar only
                if normalise(stem[:at]) == name and re.match(r"v?\d", stem[at + 1 :]):
                    return stem[at + 1 :]
    return ""
