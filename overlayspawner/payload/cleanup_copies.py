"""Copies in the overlay of what the image has in the same version: dropped as a change that can be undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from overlayspawner.payload.apply import Job
from overlayspawner.payload.context import Context
from overlayspawner.payload.dists import Dist, base_dists, listing, overlay_dists, record, user_site
from overlayspawner.payload.events import Events
from overlayspawner.payload.request import Start
from overlayspawner.payload.requirements import Requirements
from overlayspawner.payload.splits import splits


def copies(ctx: Context) -> list[Dist]:
    """Return the copies that nothing would miss.

    Not those that hide a version in ``~/.local``, that came from a URL, or without which a package would be
    torn apart between overlay and image.
    """
    overlay, env = ctx.require()
    if overlay.kind != "overlay":
        return []
    there, base = overlay_dists(env), base_dists(ctx)
    local = {dist.name for dist in listing(user_site(ctx))}
    found = {
        name: dist
        for name, dist in there.items()
        if name in base
        and base[name].version == dist.version
        and name not in local
        and not any(d.read("direct_url.json") for d in (dist, base[name]))
    }
    while found:
        stay = {name: dist for name, dist in there.items() if name not in found}
        before = {item["package"] for item in splits(there, {}, base)}
        torn = [item for item in splits(stay, {}, base) if item["package"] not in before]
        keep = {name for item in torn for name in (item["name"], *item["lost"])} & set(found)
        if not torn:
            break
        found = {name: dist for name, dist in found.items() if name not in keep} if keep else {}
    return [found[name] for name in sorted(found)]


def paths(dist: Dist) -> list[str]:
    """Return the files of a distribution, relative to its directory of packages."""
    return [path for path, _ in record(dist)]


def drop(ctx: Context, events: Events, who: str, argv: Sequence[str]) -> dict[str, Any]:
    """Take the copies out of the overlay; ``requirements.txt`` stays as it is.

    Returns
    -------
    dict
        ``{"revision", "plan"}``, as of every change.
    """
    return _Drop(ctx, "clean", events=events, who=who, argv=argv or ["clean", "copies"]).start()


class _Drop(Job):
    """A change that only takes the copies out."""

    def begin(self, before: Requirements) -> Start:
        at = super().begin(before)
        at.unneeded = [dist.name for dist in copies(self.ctx)]
        return at

    def settle(self, since: Any, after: Requirements) -> None:
        """Nothing: what was asked for is as it was."""
