"""Installers behind one protocol: uv and pip.

An installer resolves requirements against what is visible and puts what is missing into a stage. It never
touches an env.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Optional, Protocol

from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist
from overlayspawner.payload.procs import Cancel
from overlayspawner.payload.stage import Stage

if TYPE_CHECKING:
    from overlayspawner.payload.events import Events
    from overlayspawner.payload.installer.preview import Planned
    from overlayspawner.payload.installer.progress import OnPackages

OnLine = Callable[[str], None]


class Installer(Protocol):
    """A tool that fills a stage."""

    name: str
    version: str

    def stage(
        self,
        ctx: Context,
        requirements: Sequence[str],
        stage: Stage,
        *,
        visible: Sequence[Dist],
        upgrade: Sequence[str] = (),
        constraints: Sequence[str] = (),
        rebuild: Sequence[str] = (),
        build: bool = True,
        dry: bool = False,
        offline: bool = False,
        on_line: Optional[OnLine] = None,
        on_packages: Optional[OnPackages] = None,
        cancel: Optional[Cancel] = None,
    ) -> None:
        """Put everything into ``stage`` that ``requirements`` need and ``visible`` lacks.

        Parameters
        ----------
        requirements:
            All lines, not only the new ones.
        visible:
            The distributions that the overlay and the base have, the visible one of each name.
        upgrade:
            Names to take the newest fitting version of.
        constraints:
            Lines that restrict versions without asking for anything; ``name==version --hash=sha256:…`` also
            which files may be taken.
        rebuild:
            Names of which no file that was built here earlier may be taken.
        build:
            Whether source distributions may be built.
        dry:
            Only find out whether it can be done; the stage stays as it is.
        offline:
            Only from what is on this machine already.
        on_line:
            Called with each line of the tool's output.
        on_packages:
            Called with packages that have got further; see :mod:`overlayspawner.payload.installer.progress`.
        cancel:
            Asked whether to stop.

        Raises
        ------
        OverlayError
            What happened, with the end of the tool's output in ``log``.
        """
        ...

    def env(self, ctx: Context) -> dict[str, str]:
        """Return the environment that it runs in: where it looks for packages, and how it gets there."""
        ...

    def preview(
        self,
        ctx: Context,
        requirements: Sequence[str],
        stage: Stage,
        *,
        visible: Sequence[Dist],
        upgrade: Sequence[str] = (),
        constraints: Sequence[str] = (),
        on_line: Optional[OnLine] = None,
        cancel: Optional[Cancel] = None,
    ) -> list[Planned]:
        """Tell what :meth:`stage` would put into the stage; install nothing, and run no package's code.

        Parameters
        ----------
        requirements, stage, visible, upgrade, constraints, on_line, cancel:
            As for :meth:`stage`. URLs are those of wheels only: to look at others means to build them.

        Raises
        ------
        OverlayError
            As :meth:`stage`.
        """
        ...


def choose(ctx: Context, events: Optional[Events] = None) -> Installer:
    """Return the installer to use: what the spec says; for ``auto`` uv where it runs, else pip.

    Parameters
    ----------
    events:
        Of a change that is going to install: it may fetch uv where there is none. Left out, nothing is
        fetched.

    Raises
    ------
    OverlayError
        ``installer-missing``.
    """
    from overlayspawner.payload.installer import fetch, pip, uv

    wanted = ctx.spec.installer
    why = ""
    if wanted in ("auto", "uv"):
        found = uv.find(ctx) or fetch.find(ctx)
        if found is None and events is not None:
            found, why = fetch.fetch(ctx, events)
            events.check_cancel()
        if found is not None:
            return found
    if wanted in ("auto", "pip"):
        other = pip.find(ctx)
        if other is not None:
            return other
    missing = {"uv": "uv was not found", "pip": f"no pip {pip.OLDEST_TEXT} or later was found"}
    what = missing.get(wanted) or " and ".join(missing.values())
    raise OverlayError(
        "installer-missing",
        f"In this image {what}." + (f" uv could not be fetched: {why}." if why else ""),
        "Ask the administrator to provide uv.",
        status=501,
    )
