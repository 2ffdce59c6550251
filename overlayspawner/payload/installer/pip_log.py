"""What pip writes into its log file only: pages that could not be had, and the output of builds."""

from __future__ import annotations

import collections
import re

from overlayspawner.payload.procs import redact

_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:,]+ ")
_BEGINS = re.compile(r"^\s*Running command ")
_ENDS = re.compile(r"^\s*(?:\[present-|.*: finished with status '\w+'|error: subprocess-exited|ERROR: )")
"""Ends the output of a build; what follows is pip's own traceback."""

_LINES = 60


def told(path: str) -> str:
    """Return what explains a failure: redacted, bounded; ``""`` for nothing.

    Parameters
    ----------
    path:
        Of the file that ``--log`` names.
    """
    pages: collections.deque[str] = collections.deque(maxlen=5)
    build: collections.deque[str] = collections.deque(maxlen=_LINES)
    building = failed = False
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            for raw in f:
                line = _STAMP.sub("", raw.rstrip("\n"))[:4_000]
                if "Could not fetch URL" in line:
                    pages.append(line.strip())
                elif _BEGINS.match(line):
                    building, failed = True, False
                    build.clear()
                elif building and _ENDS.match(line):
                    building, failed = False, "'done'" not in line
                elif building:
                    build.append(line)
    except OSError:
        return ""
    return redact("\n".join([*pages, *(build if failed else ())]))
