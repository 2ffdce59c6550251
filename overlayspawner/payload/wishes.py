"""The line of ``requirements.txt`` for a package that another tool installed. Reads its metadata only."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Optional
from urllib.parse import quote

from overlayspawner.payload import asked
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, needs
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import Requirement, packaging, parse


def requested(
    arrived: Mapping[str, Dist], wished: Mapping[str, Requirement], report: Optional[object] = None
) -> set[str]:
    """Return what was asked for among what came, as the marks of tools tell.

    Parameters
    ----------
    arrived:
        What came, by name.
    wished:
        What a command asked for; empty where there was none.
    report:
        pip's installation report, or ``None``.
    """
    if report is not None:
        return asked.requested(report) & set(arrived)
    # uv marks whatever it installs
    silent = {name for name, dist in arrived.items() if (dist.read("INSTALLER") or "").strip() == "uv"}
    marked = {
        name
        for name, dist in arrived.items()
        if name not in silent and os.path.exists(os.path.join(dist.path, "REQUESTED"))
    }
    if wished or (marked and not silent):
        return marked
    # no tool left a mark that tells: what no other needs was asked for
    inner: set[str] = set()
    for name, dist in arrived.items():
        inner |= needs([(name, ())], {name: dist}.get) - {name}
    return marked | ({*(silent if marked else arrived)} - inner)


def line(
    dist: Dist,
    wish: Optional[Requirement],
    *,
    report: Optional[object] = None,
    home: str = "",
    in_base: bool = False,
) -> tuple[str, str]:
    """Return the line for a distribution: as it was asked for, as its metadata tells, else its name.

    Parameters
    ----------
    dist, wish:
        What came, and what a command asked for, if that is known.
    report:
        pip's installation report, or ``None``.
    home:
        The user's home directory: projects below it are recorded relative to it.
    in_base:
        The image has a version of its own.

    Returns
    -------
    tuple
        The line, and what the user should know about it (``""`` for nothing).
    """
    pinned = f"{dist.name}=={dist.version}"
    text = wish.text if wish is not None else ""
    if wish is None or wish.is_plain:
        text = asked.from_report(report).get(dist.name, "") or _direct(dist, home) or text
    if _holds_a_secret(text):
        return pinned, f"{dist.name} is recorded by its version: its URL holds credentials."
    if not text:
        # where the image has a version of its own, a bare name would be content with that one
        text = pinned if in_base else dist.name
    try:
        parse(text, trusted=True)
    except OverlayError:
        return pinned, ""
    return text, ""


def admits(requirement: Requirement, version: str) -> bool:
    """Whether a version is one that a line asks for. What can't be told counts as such."""
    library = packaging()
    if requirement.url or library is None or requirement.editable:
        return True
    try:
        specifier = library.requirements.Requirement(requirement.text).specifier
        return bool(specifier.contains(version, prereleases=True))
    except Exception:
        return True


def _holds_a_secret(text: str) -> bool:
    """Whether a URL in it has credentials that are no environment variables."""
    bare = re.sub(r"\$\{[A-Z][A-Z0-9_]*\}", "", text)
    bare = re.sub(r"://:?@", "://", bare)
    return redact(bare) != bare


def _direct(dist: Dist, home: str) -> str:
    folder = os.path.dirname(dist.path)
    if folder != dist.site:
        # `setup.py develop`: the metadata lies beside the sources
        told = {"url": "file://" + quote(folder), "dir_info": {"editable": True}}
        return asked.direct_line(dist.name, told, home)
    try:
        data = json.loads(dist.read("direct_url.json") or "{}")
    except ValueError:
        return ""
    return asked.direct_line(dist.name, data, home) if isinstance(data, dict) else ""
