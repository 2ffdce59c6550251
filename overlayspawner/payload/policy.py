"""The administrator's rules about packages: what may come into an overlay. Pure.

A rule is a name, perhaps with ``*`` and ``?`` in it, and perhaps with versions: ``numpy``, ``torch<2``,
``jupyter*``, ``*``. What a rule of *deny* matches is refused. Where there are rules of *allow*, only what one
of them matches may come in. *deny* wins.

What can't be told is refused: without ``packaging``, or of a version that is none by PEP 440, a rule with
versions matches every version for *deny* and none for *allow*.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from overlayspawner.payload.contract import OverlayError, split_rule
from overlayspawner.payload.limits import NONE, Limits
from overlayspawner.payload.requirements import packaging
from overlayspawner.payload.sentences import refusal

Blocked = dict[str, str]
"""``{name, version, rule}``: what is refused, and the rule of *deny* that does so. ``rule`` is empty where
none of *allow* admits it, ``version`` where every version is refused."""


class Rule:
    """One rule.

    Parameters
    ----------
    text:
        As the administrator wrote it.

    Raises
    ------
    OverlayError
        ``bad-spec`` for what is no rule.
    """

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.pattern, self.versions = split_rule(text)
        self._specifier: Any = None
        library = packaging() if self.versions else None
        if library is not None:
            try:
                self._specifier = library.requirements.Requirement(f"x{self.versions}").specifier
            except Exception:
                raise OverlayError(
                    "bad-spec", f"{text!r} names no versions that could be compared."
                ) from None

    def names(self, name: str) -> bool:
        """Whether it is about a package, whatever its version; ``name`` is normalised."""
        return fnmatch.fnmatchcase(name, self.pattern)

    def has(self, version: str, *, otherwise: bool) -> bool:
        """Whether a version is one of those it means.

        Parameters
        ----------
        otherwise:
            The answer where that can't be told.
        """
        if not self.versions:
            return True
        library = packaging()
        if self._specifier is None or library is None:
            return otherwise
        try:
            library.version.Version(version)  # some releases of packaging call what is none a mismatch
            return bool(self._specifier.contains(version, prereleases=True))
        except Exception:
            return otherwise  # an old version scheme


class Policy:
    """The rules of a hub.

    Parameters
    ----------
    allow, deny:
        Rules as the administrator wrote them.
    limits:
        What else is limited: source code that may not be built.

    Raises
    ------
    OverlayError
        ``policy`` where one can't be understood: what it was to refuse might come in, so that nothing may.
    """

    def __init__(self, allow: Sequence[str] = (), deny: Sequence[str] = (), limits: Limits = NONE) -> None:
        self.limits = limits
        self.allow = _rules("overlay_allow", allow)
        self.deny = _rules("overlay_deny", deny)

    def __bool__(self) -> bool:
        return bool(self.allow or self.deny or self.limits.all_wheels or self.limits.names)

    def refusal(self, name: str, version: str = "") -> Optional[Blocked]:
        """Return why a distribution may not come in, or ``None``.

        Parameters
        ----------
        name:
            Normalised.
        version:
            Empty where it is not known yet: then only what holds for every version counts.
        """
        blocked = {"name": name, "version": version, "rule": ""}
        for rule in self.deny:
            # of an unknown version, one that can be compared says nothing yet
            known = bool(version) or not rule.versions or packaging() is None
            if rule.names(name) and known and rule.has(version, otherwise=True):
                return {**blocked, "rule": rule.text}
        if not self.allow:
            return None
        about = [rule for rule in self.allow if rule.names(name)]
        if not version and packaging() is not None and about:
            return None
        return None if any(rule.has(version, otherwise=False) for rule in about) else blocked

    def blocked(self, dists: Iterable[tuple[str, str]]) -> list[Blocked]:
        """Return what is refused among distributions, ``(name, version)`` each, by name."""
        found = (self.refusal(name, version) for name, version in sorted(dists))
        return [item for item in found if item is not None]

    def sentence(self, item: Blocked, needed_by: str = "") -> str:
        """Say in a sentence why something is refused.

        Parameters
        ----------
        needed_by:
            What asks for it, where the user did not.
        """
        return refusal(item, needed_by, [rule.text for rule in self.allow if rule.names(item["name"])])


def _rules(setting: str, texts: Sequence[str]) -> list[Rule]:
    out = []
    for text in texts:
        try:
            out.append(Rule(str(text)))
        except OverlayError as e:
            raise OverlayError(
                "policy",
                f"A rule of this hub can't be understood, so nothing may be installed. {e.message}",
                f"Ask your administrator to correct {setting}.",
                status=403,
            ) from None
    return out
