"""Files that are not here, of which somebody has sent the text: what they ask for. Only reads.

What such a file says of other files can't be followed, and this server's variables are none of its business.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import normalise
from overlayspawner.payload.source_files import Source, lines_of, read_document, read_line

_EDITABLE = re.compile(r"^(?:-e|--editable)[ =]+")

_OTHER = re.compile(r"^(?:-[rc]|--(?:requirement|constraint)\b|[.~]{0,2}/|(?:-e|--editable)[ =]+(?!\S+://))")
"""A line that names another file."""

_ELSEWHERE = "It is somewhere else, and only this file was sent."


def read(name: str, text: str, groups: Sequence[str] = ()) -> dict[str, Any]:
    """Read a file.

    Parameters
    ----------
    name:
        Its name, which tells what it is.
    text:
        What is in it.
    groups:
        Dependency groups and extras that are wanted.

    Returns
    -------
    dict
        ``requirements``: lines to be installed; ``left_out``: ``{requirement, reason, hint}`` for each thing
        that is not among them; ``groups``: the names that ``groups`` may have.

    Raises
    ------
    OverlayError
        ``bad-request`` when it can't be understood, ``not-available`` without a reader of TOML.
    """
    if "\0" in text:
        raise OverlayError("bad-request", f"{name} is not a text file.")
    found = Source(name, explicit=True)
    if not read_document(found, name, text, [normalise(group) for group in groups]):
        for line in lines_of(text.removeprefix("\ufeff")):
            if _OTHER.match(line):
                found.leave_out(line, _ELSEWHERE, f"In a terminal: overlay install -r {name}")
            else:
                read_line(found, _EDITABLE.sub("", line), {})
    wanted: dict[str, None] = {}
    for requirement in found.wanted:
        if requirement.url.startswith("file:"):
            found.leave_out(requirement.text, _ELSEWHERE)
        else:
            wanted[redact(requirement.text)] = None
    # of groups the names are told
    left_out = [item for item in found.left_out if not item["requirement"].startswith("group ")]
    if found.hashes:
        many = "1 hash" if len(found.hashes) == 1 else f"{len(found.hashes)} hashes"
        hint = f"In a terminal they are: overlay install -r {name}"
        left_out.append({"requirement": many, "reason": "Files are not compared with them.", "hint": hint})
    return {"requirements": list(wanted), "left_out": left_out, "groups": found.groups}
