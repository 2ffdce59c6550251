"""What is imported, and the packages that have it: a table that is known to be right.

``imported.txt`` has a line for each module whose package has another name, and one with those of which many
people use the package of the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from overlayspawner.payload.requirements import normalise


@lru_cache(maxsize=1)
def table() -> dict[str, tuple[str, ...]]:
    """Return module to the packages that have it, the usual one first; empty where the file is missing."""
    import pkgutil

    try:
        raw = pkgutil.get_data("overlayspawner.payload", "imported.txt") or b""
    except OSError:
        return {}
    out: dict[str, tuple[str, ...]] = {}
    for line in raw.decode().splitlines():
        module, *names = line.split()
        if module == "=":
            out.update((name, (normalise(name),)) for name in names)
        else:
            out[module] = tuple(names)
    return out


@lru_cache(maxsize=1)
def meant() -> dict[str, str]:
    """Return normalised name of a module to the package that has it, where the two differ."""
    found = ((normalise(module), names[0]) for module, names in table().items())
    return {module: name for module, name in found if module != name}


def known(parts: Sequence[str]) -> tuple[str, ...]:
    """Return what the table says about a module, or about the longest part of its name that it has."""
    all_of_them = table()
    for length in range(len(parts), 0, -1):
        names = all_of_them.get(".".join(parts[:length]))
        if names:
            return names
    return ()
