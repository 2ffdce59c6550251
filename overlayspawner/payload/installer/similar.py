"""Names that somebody may have meant: shown, never installed by themselves.

``popular.txt`` holds the names that are downloaded most, in three parts, the most popular ones first.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache

from overlayspawner.payload import imported
from overlayspawner.payload.requirements import normalise

SHOWN = 3

_CALLED = {
    "cv": "opencv-python",
    "ipython-display": "ipython",
    "opencv": "opencv-python",
    "pytorch": "torch",
    "rdkit-chem": "rdkit",
    "win32com": "pywin32",
}
"""What is called so, and the package that has it; besides the names of modules that are known."""


@lru_cache(maxsize=1)
def popular() -> dict[str, int]:
    """Return name to rank (0 the most popular); empty where the list is missing."""
    import pkgutil

    try:
        raw = pkgutil.get_data(__package__, "popular.txt") or b""
    except OSError:
        return {}
    parts = raw.decode().split("\n\n")
    return {name: rank for rank, part in enumerate(parts) for name in part.split()}


def meant(name: str) -> str:
    """Return the package that has what is called so or imported so; ``""`` where that is not known.

    Parameters
    ----------
    name:
        Normalised.
    """
    return _CALLED.get(name) or imported.meant().get(name, "")


def close(name: str, more: Iterable[str] = ()) -> list[str]:
    """Return up to three names that are close to one, the best first.

    Parameters
    ----------
    more:
        Names that are known besides the popular ones: what is installed.
    """
    wanted = normalise(name)
    known = dict(popular())
    known.update((normalise(other), 0) for other in more)
    known.pop(wanted, None)
    called = meant(wanted)
    out = [called] if called else []
    bare = wanted.replace("-", "")
    limit = 0.75 if len(wanted) > 4 else 0.66
    scored = []
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(bare)
    for other, rank in known.items():
        # Half of a short name is not a misspelling of it. Most names are passed over by their length.
        if len(bare) < 3 or abs(len(other) - len(wanted)) > 3:
            continue
        plain = other.replace("-", "")
        if plain == bare:
            score = 1.0
        else:
            matcher.set_seq1(plain)
            if matcher.real_quick_ratio() < limit or matcher.quick_ratio() < limit:
                continue
            score = matcher.ratio()
            if sorted(plain) == sorted(bare):
                score += 0.1  # letters in another order
            if plain[:1] == bare[:1]:
                score += 0.05
        if score >= limit:
            scored.append((-score + 0.03 * rank, other))
    for prefix in ("python-", "py", "python3-"):
        for other in (prefix + wanted, wanted.removeprefix(prefix)):
            if other in known and other != wanted:
                scored.append((-0.9, other))
    out += [other for _, other in sorted(scored)]
    return list(dict.fromkeys(out))[:SHOWN]
