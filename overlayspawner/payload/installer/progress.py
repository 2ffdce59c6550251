"""How far each package has come, from what an installer shows while it works.

What a tool shows is made for people and no contract: where it says nothing, less is known.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Optional

from overlayspawner.payload.requirements import normalise

STATES = ("waiting", "downloading", "building", "ready", "installed")
"""In their order. ``ready`` packages are in the stage, or on their way there; ``installed`` once all are."""

EVERY = 0.2
"""Seconds between two events about bytes."""

MAX_PACKAGES = 1000
"""Packages that are told of."""

OnPackages = Callable[[list[dict[str, Any]], str, bool, int], None]
"""Called with the packages that have changed, a sentence, whether that is about bytes only, and how many
packages will come in all (0 while that is not known)."""

_UNITS = {"b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE = re.compile(r"([\d.]+)\s*([KMGT]?)i?B(?:ytes)?", re.IGNORECASE)


def size(text: str) -> Optional[int]:
    """Return the bytes that a tool's ``3.8MiB`` or ``18.2 MB`` means, as exact as it is told."""
    found = _SIZE.fullmatch(text.strip())
    try:
        return round(float(found[1]) * _UNITS[found[2].lower() or "b"]) if found else None
    except ValueError:
        return None


def pip_size(text: str) -> Optional[int]:
    """The same for pip, whose ``kB`` and ``MB`` are thousands."""
    found = _SIZE.fullmatch(text.strip())
    powers = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
    try:
        return round(float(found[1]) * powers[found[2].lower()]) if found else None
    except ValueError:
        return None


def shown(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{max(1, round(count / 1e3))} kB"


class Packages:
    """The packages of one run of an installer.

    Parameters
    ----------
    on_packages:
        Who listens. Is told of bytes at most every :data:`EVERY` seconds.
    """

    def __init__(self, on_packages: Optional[OnPackages]) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.expected = 0
        self._on_packages = on_packages
        self._changed: dict[str, dict[str, Any]] = {}
        self._told = 0.0

    def see(
        self,
        name: str,
        state: str = "",
        *,
        version: str = "",
        done: Optional[int] = None,
        total: Optional[int] = None,
    ) -> bool:
        """Note what is known of a package; a state or a number of bytes never goes back.

        Returns
        -------
        bool
            Whether anything of it is new.
        """
        name = normalise(name)
        entry = self.known.get(name)
        if entry is None:
            if len(self.known) >= MAX_PACKAGES:
                return False
            entry = {"name": name, "version": "", "state": "waiting", "bytes": None, "total": None}
            self.known[name] = self._changed[name] = entry
            before = {}
        else:
            before = dict(entry)
        if version:
            entry["version"] = version
        if state and STATES.index(state) > STATES.index(entry["state"]):
            entry["state"] = state
        if total:
            entry["total"] = max(total, entry["total"] or 0)
        if done is not None:
            most = entry["total"] if entry["total"] is not None else done
            entry["bytes"] = max(entry["bytes"] or 0, min(done, most))
        if entry["state"] in ("ready", "installed") and entry["total"] is not None:
            entry["bytes"] = entry["total"]
        if entry != before:
            self._changed[name] = entry
        return entry != before

    def tell(self, message: str = "") -> None:
        """Hand on what has changed: with a message at once, about bytes once in a while."""
        if self._on_packages is None:
            return
        now = time.monotonic()
        if not message and (not self._changed or now - self._told < EVERY):
            return
        changed = [dict(entry) for entry in self._changed.values()]
        self._changed.clear()
        self._told = now if not message else self._told
        self._on_packages(changed, message or self._sentence(changed), not message, self.expected)

    def finish(self) -> None:
        """Hand on what was held back: the tool has ended."""
        if self._changed:
            self._told = 0.0
            self.tell()

    def _sentence(self, changed: Sequence[dict[str, Any]]) -> str:
        loading = [entry for entry in self.known.values() if entry["state"] == "downloading"]
        with_size = [entry for entry in loading if entry["total"]]
        if not loading:
            return f"Preparing {changed[-1]['name']}"
        if not with_size:
            return f"Downloading {loading[-1]['name']}"
        one = max(with_size, key=lambda entry: entry["total"] - (entry["bytes"] or 0))
        more = f", and {len(loading) - 1} more" if len(loading) > 1 else ""
        return f"Downloading {one['name']}: {shown(one['bytes'] or 0)} of {shown(one['total'])}{more}"
