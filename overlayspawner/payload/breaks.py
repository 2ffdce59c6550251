"""What a change leaves without something that it needs, in the image and in the overlay.

Told from metadata that is on the disk. An installer looks only at what is asked for: that the image's pandas
wants a newer numpy than the one that comes is nothing to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Optional

from overlayspawner.payload.constraints import Rule, admits
from overlayspawner.payload.dists import Dist, requires
from overlayspawner.payload.requirements import normalise, packaging

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def breaks(
    staged: Mapping[str, Dist],
    overlay: Mapping[str, Dist],
    base: Mapping[str, Dist],
    going: Collection[str],
    rules: Callable[[], Iterable[Rule]] = tuple,
) -> list[dict[str, Any]]:
    """Return requirements of what stays that are met now and will not be, sorted by name.

    What had been unmet before is not this change's doing. Of the image, packages count that notebooks use.
    Extras of the overlay's are left out: nothing tells whether somebody uses them. Nothing is known, and
    nothing returned, where no ``packaging`` is at hand.

    Parameters
    ----------
    staged:
        What comes into the overlay, by normalised name.
    overlay, base:
        What there is now.
    going:
        Names that leave the overlay.
    rules:
        Returns what the image's packages ask for; see :mod:`overlayspawner.payload.constraints`.

    Returns
    -------
    list
        ``{name, version, requires, where, by: {name, version}}``.
    """
    before = {**base, **overlay}
    after = {**base, **{name: dist for name, dist in overlay.items() if name not in going}, **staged}
    changed = {
        name: (dist.version, after[name].version if name in after else None)
        for name, dist in before.items()
        if name not in after or after[name].version != dist.version
    }
    # most changes only add, and then no metadata of the image is opened
    library = packaging() if changed else None
    if library is None:
        return []
    out = []

    def note(dist: Dist, text: str, target: str, where: str) -> None:
        by = {"name": target, "version": changed[target][1]}
        out.append({"name": dist.name, "version": dist.version, "requires": text, "where": where, "by": by})

    stays = {name: dist for name, dist in overlay.items() if name not in going}
    for rule in rules():
        # what comes was chosen together with what it needs
        if rule.target not in changed or rule.owner not in base or rule.owner in {*stays, *staged}:
            continue
        old, new = changed[rule.target]
        if admits(rule.specifier, old) and (new is None or not admits(rule.specifier, new)):
            note(base[rule.owner], rule.text, rule.target, "base")
    for name, dist in stays.items():
        for text in requires(dist) if name not in staged else ():
            found = _NAME.match(text)
            target = normalise(found[0]) if found else ""
            if target not in changed or target == name:
                continue
            old, new = changed[target]
            if _meets(library, text, old) and not _meets(library, text, new):
                note(dist, text.partition(";")[0].strip(), target, "overlay")
    return sorted(out, key=lambda item: (item["name"], item["requires"]))


def _meets(library: Any, text: str, version: Optional[str]) -> bool:
    """Whether a version is what a ``Requires-Dist`` line asks for; one that does not apply is always met."""
    try:
        requirement = library.requirements.Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            return True
        return version is not None and bool(requirement.specifier.contains(version, prereleases=True))
    except Exception:
        return True  # metadata that no tool understands requires nothing
