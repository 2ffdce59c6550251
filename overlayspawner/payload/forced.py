"""What was agreed to: lines that are installed although they break something of the image.

``revisions/forced.json`` holds each such line as it stood, and the packages whose versions it was agreed for.
It holds for that very line: one that was edited since is another one, and is asked about again. A line that a
change removes or replaces is forgotten.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Optional

from overlayspawner.payload import files
from overlayspawner.payload.constraints import admits
from overlayspawner.payload.dists import Dist, needs
from overlayspawner.payload.lease import overlay_lock
from overlayspawner.payload.overlay import Overlay
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import Requirement, packaging

SCHEMA = 1

Forced = dict[str, list[str]]
"""Line, without credentials, to the names of the packages that any version was agreed for."""


def path(overlay: Overlay) -> str:
    """Return the file."""
    return os.path.join(overlay.revisions, "forced.json")


def read(overlay: Overlay) -> Forced:
    """Return what was agreed to; what can't be understood was not."""
    try:
        with open(path(overlay), encoding="utf-8") as f:
            data = json.load(f)
        if data["schema"] != SCHEMA:
            return {}
        return {str(item["line"]): [str(name) for name in item["for"]] for item in data["forced"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def among(overlay: Overlay, lines: Iterable[Requirement]) -> Forced:
    """Return what was agreed to of those lines."""
    known = read(overlay)
    texts = [redact(line.text) for line in lines] if known else []
    return {text: known[text] for text in texts if text in known}


def targets(forced: Forced) -> set[str]:
    """Return the packages that any version was agreed for."""
    return {name for names in forced.values() for name in names}


def note(
    overlay: Overlay,
    agreed: Mapping[str, Iterable[str]],
    lines: Iterable[Requirement],
    gone: Iterable[str] = (),
) -> None:
    """Keep what is agreed to, and forget what is gone; best effort.

    Parameters
    ----------
    agreed:
        Lines, and the packages that they were agreed for.
    lines, gone:
        The lines as the change leaves them; those that it removes or replaces.
    """
    before = read(overlay)
    if not agreed and not before.keys() & set(gone):
        return
    with contextlib.suppress(OSError):
        files.mkdir(overlay.revisions)
        with overlay_lock(overlay):
            known = read(overlay)
            stay = {redact(line.text) for line in lines}
            for text in set(gone) - stay:
                known.pop(text, None)
            for text, names in agreed.items():
                known[redact(text)] = sorted({*known.get(redact(text), ()), *names})
            data = {"schema": SCHEMA, "forced": [{"line": k, "for": v} for k, v in sorted(known.items())]}
            files.write_atomic(path(overlay), json.dumps(data, indent=1) + "\n", 0o600)


def culprits(
    lines: Sequence[Requirement],
    target: str,
    version: str,
    find: Callable[[str], Optional[Dist]],
) -> list[Requirement]:
    """Return the lines that ask for other versions of a package than the one that is given up.

    Parameters
    ----------
    version:
        The one that was there before.
    find:
        Returns what comes, or is in the overlay, of a name: the image's own needs are no line's doing.
    """
    library = packaging()
    out = []
    for line in lines:
        wanted: list[Any] = []

        def edge(name: str, specifier: Any, wanted: list[Any] = wanted) -> None:
            if name == target:
                wanted.append(specifier)

        if line.name == target:
            if line.url or library is None:
                out.append(line)
                continue
            with contextlib.suppress(Exception):
                wanted.append(library.requirements.Requirement(line.text).specifier)
        needs([(line.name, line.extras)] if line.name else [], find, on_edge=edge)
        if any(not admits(specifier, version) for specifier in wanted):
            out.append(line)
    return out
