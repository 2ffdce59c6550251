"""What a user edited in ``requirements.txt`` by hand, told by a copy of the file as of the last change.

Three versions meet: what the last change realised (``revisions/requirements.last``, readable by its owner
only, because a line may hold a secret), the user's file, and what a change wants to write. The user's line
wins, and shows as pending until a change realises it. Nothing here installs anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Optional

from overlayspawner.payload import contract, files, revisions
from overlayspawner.payload.overlay import Overlay
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import Requirement, Requirements, parse

RESOLVING = ("install", "upgrade", "sync", "restore")
"""Actions that realise every line of the file, whichever they were asked for."""

_SHOWN = 5
"""Lines that a notice names."""


def path(overlay: Overlay) -> str:
    """Return the file that holds the lines the last change realised."""
    return os.path.join(overlay.revisions, "requirements.last")


def last(overlay: Overlay) -> Requirements:
    """Return the lines that the last change realised.

    Where there is no copy, the newest revision tells (without credentials, which it never holds).
    """
    try:
        with open(path(overlay), encoding="utf-8", errors="surrogateescape") as f:
            text = f.read()
        if "\0" not in text:
            return Requirements(text)
    except OSError:
        pass
    revision = revisions.latest(overlay) or {}
    lines = (revision.get("requirements") or {}).get("after") or []
    return Requirements("".join(f"{line}\n" for line in lines))


def now(overlay: Overlay) -> Requirements:
    """Return the user's file, or what the last change realised: to lose the file is no edit of it.

    Raises
    ------
    OSError
        The file can't be read.
    """
    if not os.path.exists(overlay.requirements):
        return last(overlay)
    found = Requirements.read(overlay.requirements)
    return last(overlay) if any("\0" in line for line in found.lines) else found


def bring_back(overlay: Overlay) -> bool:
    """Write the user's file again where it is missing; return whether it was.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    if os.path.lexists(overlay.requirements):
        return False
    lines = [entry.text for entry in last(overlay).entries()]
    if not lines:
        return False
    secret = any(redact(line) != line for line in lines)
    text = "".join(line + "\n" for line in lines)
    return files.write_new(overlay.requirements, text, 0o600 if secret else 0o644)


def save(overlay: Overlay, text: str) -> None:
    """Keep the lines that a change realised; an equal copy is left as it is.

    Raises
    ------
    OSError
        The storage can't be written to.
    """
    try:
        with open(path(overlay), encoding="utf-8", errors="surrogateescape") as f:
            if f.read() == text:
                return
    except OSError:
        pass
    files.mkdir(overlay.revisions)
    files.write_atomic(path(overlay), text, 0o600)


def realised(
    before: Requirements,
    action: str,
    after: Requirements,
    add: Iterable[str],
    remove: Iterable[str],
    again: Optional[Mapping[str, Sequence[str]]] = None,
) -> str:
    """Return the text to :func:`save` after a change.

    Doing it twice is the same as once, so that a repair may do it again.

    Parameters
    ----------
    before:
        What :func:`last` returned.
    action:
        The change's action. One that resolves all lines realises what the user added by hand as well; what
        the user took out stays pending until a ``sync`` or the uninstallation.
    after:
        The file as the change leaves it.
    add, remove:
        Lines and names that the change set and removed by itself.
    again:
        What an undoing makes pending again: lines to ``set`` and keys to ``drop`` here, not in the file.
    """
    gone = set(remove)
    if action in RESOLVING:
        unclear = after.unclear()
        kept = [entry for entry in before.entries() if action != "sync" or entry.name in unclear]
        here = {entry.key for entry in after.entries()}
        lines = [entry.text for entry in after.entries()]
        lines += [entry.text for entry in kept if entry.key not in here and entry.key not in gone]
        return "".join(line + "\n" for line in lines)
    out = Requirements("".join(entry.text + "\n" for entry in before.entries()))
    for name in gone:
        out = out.with_removed(name)
    for key in (again or {}).get("drop", ()):
        out = out.with_removed(key)
    for line in [*add, *(again or {}).get("set", ())]:
        out = out.with_added(parse(line, trusted=True))
    return out.to_text()


class Difference:
    """How the user's file differs from what the last change realised, by line.

    Parameters
    ----------
    added, removed:
        Requirements that only the user's file has, or no longer has.
    changed:
        Those that the user wrote differently, as they stand now.
    unclear:
        Lines that can't be understood and that stand for one that could: no wish to have it uninstalled.
    """

    def __init__(
        self,
        added: list[Requirement],
        removed: list[Requirement],
        changed: list[Requirement],
        unclear: dict[str, str],
    ) -> None:
        self.added = added
        self.removed = removed
        self.changed = changed
        self.unclear = unclear

    def keys(self) -> set[str]:
        """Return what the lines are about."""
        return {entry.key for entry in (*self.added, *self.removed, *self.changed)} | set(self.unclear)


def difference(overlay: Overlay) -> Difference:
    """Compare the user's file with what the last change realised.

    Raises
    ------
    OSError
        The file can't be read.
    """
    file = now(overlay)
    then = {entry.key: entry for entry in last(overlay).entries()}
    here = {entry.key: entry for entry in file.entries()}
    unclear = {name: line for name, line in file.unclear().items() if name in then and name not in here}
    return Difference(
        [entry for key, entry in here.items() if key not in then],
        [entry for key, entry in then.items() if key not in here and key not in unclear],
        [entry for key, entry in here.items() if key in then and not _equal(then[key], entry)],
        unclear,
    )


def pending(overlay: Overlay) -> dict[str, list[str]]:
    """Return the hand edits that no change has realised yet.

    Returns
    -------
    dict
        ``added``, ``removed`` and ``changed``: lines as they stand (for removed ones: stood), without
        credentials.

    Raises
    ------
    OSError
        The file can't be read.
    """
    found = difference(overlay)
    return {
        "added": [redact(entry.text) for entry in found.added],
        "removed": [redact(entry.text) for entry in found.removed],
        "changed": [redact(entry.text) for entry in found.changed],
    }


def to_uninstall(overlay: Overlay) -> list[str]:
    """Return the names that ``sync`` uninstalls: those whose lines the user took out."""
    return [entry.name for entry in difference(overlay).removed if entry.name]


def ignored(overlay: Overlay) -> list[str]:
    """Return the lines that mean nothing to an overlay (options, mistakes), without credentials."""
    return [redact(line) for line in Requirements.read(overlay.requirements).ignored()]


def notice(overlay: Overlay) -> Optional[dict[str, str]]:
    """Return the notice ``requirements-pending`` where there are hand edits, else ``None``. Never raises."""
    try:
        found = pending(overlay)
        unclear = difference(overlay).unclear
        left_out = ignored(overlay)
    except (OSError, contract.OverlayError):
        return None
    parts = [
        f"{what} {_some(found[kind])}"
        for kind, what in (("added", "to install:"), ("changed", "changed:"), ("removed", "to remove:"))
        if found[kind]
    ]
    if not parts and not unclear:
        return None
    if not parts:
        shown = _some([redact(line) for line in unclear.values()])
        return contract.notice(
            "requirements-pending",
            f"requirements.txt has lines that can't be understood: {shown}. What is installed stays.",
            "Correct the lines, then run `overlay sync`.",
        )
    text = f"requirements.txt was edited by hand and not applied yet ({'; '.join(parts)})."
    if left_out:
        text += f" Left out, because it is no requirement: {_some(left_out)}."
    return contract.notice("requirements-pending", text, "Run `overlay sync` to apply it.")


def _some(lines: list[str]) -> str:
    more = len(lines) - _SHOWN
    return ", ".join(lines[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _equal(one: Requirement, other: Requirement) -> bool:
    """Whether two lines ask for the same; one may come from a revision, which holds no credentials."""
    return one.text == other.text or redact(one.text) == redact(other.text)
