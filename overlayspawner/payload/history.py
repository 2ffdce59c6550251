"""Which changes are in effect: revisions, the undoing of revisions, and the undoing of that.

A revision that undoes another names it in ``undoes``. Such a chain has one *root*, the change itself; every
member turns it over, and the newest, its *tip*, says whether the root is in effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from overlayspawner.payload import revisions
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.overlay import Overlay

Revision = dict[str, Any]


@dataclass
class Target:
    """What is to be undone.

    Parameters
    ----------
    number:
        The revision that was named: what ``undoes`` will say.
    root:
        The change at the beginning of its chain.
    tip:
        The chain's newest revision: where its files are now is written there.
    """

    number: int
    root: Revision
    tip: Revision


class History:
    """The revisions of an overlay; each is read when it is asked for."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._read: dict[int, Revision | None] = {}
        self.ids = revisions.ids(overlay)

    def get(self, number: int) -> Revision | None:
        """Return a revision, or ``None`` when it can't be read."""
        if number not in self._read:
            self._read[number] = revisions.read(self._overlay, number)
        return self._read[number]

    def root(self, number: int) -> tuple[int, bool]:
        """Return the root of a revision's chain, and whether the revision brought it into effect."""
        on = True
        seen = {number}
        while True:
            data = self.get(number) or {}
            undone = data.get("undoes")
            if not isinstance(undone, int) or undone >= number or undone in seen:
                return number, on
            seen.add(undone)
            number, on = undone, not on

    def tips(self) -> dict[int, int]:
        """Return the newest revision of each chain, by root."""
        return {self.root(number)[0]: number for number in self.ids}

    def in_effect(self, until: int) -> frozenset[int]:
        """Return the changes that were in effect after a revision."""
        on: set[int] = set()
        for number in self.ids:
            if number > until:
                break
            root, brings = self.root(number)
            if builds_only(self.get(root)):
                continue
            (on.add if brings else on.discard)(root)
        return frozenset(on)

    def newest(self) -> Target | None:
        """Return what an undo without a number takes back, reading no more revisions than necessary."""
        off: set[int] = set()
        for number in reversed(self.ids):
            root, brings = self.root(number)
            if root in off:
                continue
            off.add(root)
            first, tip = self.get(root), self.get(number)
            if brings and first is not None and tip is not None and not builds_only(first):
                return Target(root, first, tip)
        return None

    def target(self, number: int) -> Target:
        """Return what undoing a revision takes back, or brings back.

        Raises
        ------
        OverlayError
            ``cannot-undo``: there is no such revision, or it is not in effect.
        """
        data = self.get(number)
        if number not in self.ids or data is None:
            raise OverlayError(
                "cannot-undo", f"There is no revision {number}.", "See `overlay history`.", status=404
            )
        root, brings = self.root(number)
        last = self.tips()[root]
        first, tip = self.get(root), self.get(last)
        if self.root(last)[1] != brings or first is None or tip is None:
            raise OverlayError(
                "cannot-undo",
                f"Revision {number} was undone already, by revision {last}.",
                f"To have it again, undo revision {last}.",
                status=409,
            )
        return Target(number, first, tip)

    def later(self, target: Target) -> list[Revision]:
        """Return the changes in effect that were made after a target's tip."""
        if target.tip["id"] == self.ids[-1]:
            return []
        since = self.in_effect(target.tip["id"])
        found = (self.get(root) for root in sorted(self.in_effect(self.ids[-1]) - since))
        return [data for data in found if data is not None]

    def without(self, target: Target) -> int | None:
        """Return a revision after which all was as it will be; 0 for an empty overlay, ``None`` for none."""
        root = target.root["id"]
        wanted = self.in_effect(self.ids[-1]) ^ {root}
        for number in reversed(self.ids):
            if self.in_effect(number) == wanted:
                return number
        return 0 if not wanted else None


def builds_only(data: Revision | None) -> bool:
    """Whether a revision changed nothing that was asked for.

    It installed the same again, as for another image or because files were damaged, or rewrote paths of a
    home that was moved. Undoing one would bring the damage back.
    """
    if data is None:
        return False
    if data.get("action") == "relocate" or data.get("repairs"):
        return True
    return data.get("action") == "restore" and data.get("to") is None
