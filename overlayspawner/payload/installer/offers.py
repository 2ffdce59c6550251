"""What of an index's files could be installed here, version by version. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional

from overlayspawner.payload.installer.asking import File, by_version
from overlayspawner.payload.installer.versions import admits, is_pre, key, own_tags, rank_of
from overlayspawner.payload.policy import Policy
from overlayspawner.payload.requirements import packaging

MOST = 200
"""Versions that are told of, the newest."""


@dataclass(frozen=True)
class Offer:
    """One version that an index has.

    Parameters
    ----------
    version:
        As its files are named.
    fits:
        Whether one of its files could be taken: by this Python, and by the hub's rules. ``None`` where that
        can't be told.
    wheel:
        Whether that is a wheel; otherwise it would have to be built.
    prerelease, yanked:
        Whether it is a pre-release; whether all its files were taken back.
    file:
        The one that would be taken, or the one most like it.
    uploaded:
        When the first of its files came, ``""`` where the index does not tell.
    """

    version: str
    fits: Optional[bool]
    wheel: bool
    prerelease: bool
    yanked: bool
    file: File
    uploaded: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON shape of the REST interface."""
        return {
            "version": self.version,
            "fits": self.fits,
            "wheel": self.wheel,
            "prerelease": self.prerelease,
            "yanked": self.yanked,
            "size": self.file.size,
            "uploaded": self.uploaded or None,
        }


def offers(name: str, files: Iterable[File], python: str, policy: Policy, before: str = "") -> list[Offer]:
    """Return the versions that files are of, the newest first, :data:`MOST` at most.

    Parameters
    ----------
    name:
        Normalised.
    python:
        Version of the base's Python.
    policy:
        The hub's rules.
    before:
        What was not uploaded before this moment may not come; ``""`` for no limit.
    """
    found = sorted(by_version(name, files).items(), key=lambda item: key(item[0]), reverse=True)
    return [_offer(name, version, of_it, python, policy, before) for version, of_it in found[:MOST]]


def newest(found: Iterable[Offer]) -> Optional[Offer]:
    """Return the version that would be taken: none that was taken back, and no pre-release if need be.

    Where nothing is known to fit, the newest of all, so that there is something to tell about.
    """
    there = list(found)
    best = sorted(there, key=lambda offer: (offer.fits is False, offer.yanked, offer.prerelease))
    return best[0] if best else None


def _offer(
    name: str, version: str, files: list[tuple[File, str]], python: str, policy: Policy, before: str
) -> Offer:
    refused = policy.refusal(name, version) is not None
    only_wheels = policy.limits.wheel_only(name)
    judged = []
    for file, tags in files:
        fits: Optional[bool] = not refused and not (only_wheels and not tags)
        rank = rank_of(tags) if tags else None
        if tags and own_tags() and rank is None:
            fits = False
        if fits and not admits(file.requires_python, python):
            fits = False
        if fits and before and file.uploaded >= before:
            fits = False
        if fits and (
            (before and not file.uploaded)
            or (tags and not own_tags())
            or (file.requires_python and packaging() is None)
        ):
            fits = None
        # what fits, then what may; wheels, the best of them, then source code
        order = ((True, None, False).index(fits), not tags, 0 if rank is None else rank)
        judged.append((order, fits, file, bool(tags)))
    _, fits, file, wheel = min(judged, key=lambda item: item[0])
    return Offer(
        version=version,
        fits=fits,
        wheel=wheel,
        prerelease=is_pre(version),
        yanked=all(item.yanked for item, _ in files),
        file=file,
        uploaded=min((item.uploaded for item, _ in files if item.uploaded), default=""),
    )
