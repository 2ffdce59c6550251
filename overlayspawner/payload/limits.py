"""What of an index's files may be taken, whatever they are called: wheels only, nothing newer. Pure.

Both tools know such limits, under other names. Older ones know fewer: what can't be enforced is an error,
never left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Optional

from overlayspawner.payload.contract import OverlayError, cutoff
from overlayspawner.payload.requirements import Requirement, normalise, numbers

ALL = ":all:"

WHEELS = "wheels only"
"""What the rule is called where it refuses something."""

PIP_WITH_CUTOFF = (26, 0)
"""The first pip with ``--uploaded-prior-to`` (pypa/pip #13625)."""


class Limits:
    """The limits of a change.

    Parameters
    ----------
    only_binary:
        Names of packages that may come as wheels only; :data:`ALL` for all.
    exclude_newer:
        As the hub says it, see :func:`~overlayspawner.payload.contract.cutoff`.
    others:
        Moments that the user has set, in the same forms: they count where they are stricter.
    now:
        Seconds since the epoch; the clock's when left out.

    Raises
    ------
    OverlayError
        ``policy`` where the hub's limit, ``bad-request`` where the user's can't be understood.
    """

    def __init__(
        self,
        only_binary: Sequence[str] = (),
        exclude_newer: str = "",
        others: Iterable[str] = (),
        now: Optional[float] = None,
    ) -> None:
        self.all_wheels = ALL in only_binary
        self.names = frozenset(normalise(name) for name in only_binary if name != ALL)
        try:
            self.hub = cutoff(exclude_newer, now) if exclude_newer else ""
        except OverlayError as e:
            raise OverlayError(
                "policy",
                f"A rule of this hub can't be understood, so nothing may be installed. {e.message}",
                "Ask your administrator to correct overlay_exclude_newer.",
                status=403,
            ) from None
        moments = [self.hub] if self.hub else []
        for other in others:
            try:
                moments.append(cutoff(other, now))
            except OverlayError as e:
                raise OverlayError(
                    "bad-request",
                    f"You have set that nothing newer than a date is installed, and {e.message}",
                    "Correct UV_EXCLUDE_NEWER, or uploaded-prior-to in pip's settings.",
                ) from None
        # all of one form, so that the earliest comes first
        self.before = min(moments, default="")

    def __bool__(self) -> bool:
        return bool(self.all_wheels or self.names or self.before)

    @property
    def newer(self) -> str:
        """What the rule about time is called where it refuses something; ``""`` where there is none."""
        shown = self.before.removesuffix("T00:00:00Z").replace("T", " ").replace("Z", " UTC")
        return f"nothing newer than {shown}" if shown else ""

    def wheel_only(self, name: str) -> bool:
        """Whether a package may come as a wheel only; one without a name could be any."""
        return self.all_wheels or (bool(self.names) if not name else name in self.names)

    def refuses(self, requirement: Requirement) -> bool:
        """Whether a requirement names source code that may not be built."""
        return is_source(requirement) and self.wheel_only(requirement.name)

    def for_uv(self) -> list[str]:
        """Return uv's options."""
        out = ["--no-build"] if self.all_wheels else []
        if not self.all_wheels:
            for name in sorted(self.names):
                out += ["--only-binary", name]
        return out + (["--exclude-newer", self.before] if self.before else [])

    def for_pip(self, version: str) -> list[str]:
        """Return pip's options.

        Raises
        ------
        OverlayError
            ``cutoff-unsupported``: this pip does not know when files were uploaded.
        """
        out = ["--only-binary", ALL] if self.all_wheels else []
        if not self.all_wheels and self.names:
            out = ["--only-binary", ",".join(sorted(self.names))]
        knows = numbers(version) >= PIP_WITH_CUTOFF
        if not self.before or (not self.hub and not knows):
            return out  # what the user has set for uv is no reason to refuse
        if not knows:
            raise OverlayError(
                "cutoff-unsupported",
                f"The rule '{self.newer}' can't be enforced with pip {version}, so it may install nothing.",
                "pip 26.0 or later can, and so can uv. Ask your administrator to provide one of them.",
                status=501,
            )
        return [*out, "--uploaded-prior-to", self.before]


NONE = Limits()


def is_source(requirement: Requirement) -> bool:
    """Whether a requirement names a place, and what is there would be built."""
    bare = requirement.url.partition("#")[0].partition("?")[0]
    return bool(bare) and not bare.endswith(".whl")
