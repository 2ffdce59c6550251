"""Packages that users have from before: where they are, and how they come into the overlay.

Nothing of theirs is touched, moved or hidden. What was found is turned into requirements, and these are
installed like any others; ``~/.local`` and environments made by hand go on working as before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Optional

from overlayspawner.payload import plan as plans
from overlayspawner.payload import revisions, sources
from overlayspawner.payload.apply import Job
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError, notice
from overlayspawner.payload.dists import Dist, base_dists, listing, overlay_dists, user_site
from overlayspawner.payload.events import Events, OnEvent
from overlayspawner.payload.fitting import Fitting
from overlayspawner.payload.gate import Judge
from overlayspawner.payload.keeping import Keeper
from overlayspawner.payload.procs import Cancel, redact
from overlayspawner.payload.requirements import Requirement, Requirements
from overlayspawner.payload.stage import Stage, Staged

MAX_ENTRIES = 200
"""Directories looked at in a home, and environments told of, at most."""

MAX_SECONDS = 2.0
"""Seconds a look around a home may take: network storage can be slow."""

# Where tools keep environments that users make with them.
_KNOWN_PLACES = (
    ".virtualenvs",
    ".conda/envs",
    ".local/share/virtualenvs",
    "miniconda3/envs",
    "miniforge3/envs",
)


def found(ctx: Context) -> dict[str, Any]:
    """Look for packages that are not the overlay's. Opens directories only; bounded in entries and time.

    Returns
    -------
    dict
        ``user_site``: how many packages are in ``~/.local`` for this Python; ``other_user_sites``: path of
        each other Python's to its number; ``venvs`` and ``conda``: paths of environments.
    """
    out: dict[str, Any] = {"user_site": len(listing(user_site(ctx))), "other_user_sites": {}}
    mine = os.path.realpath(user_site(ctx))
    lib = os.path.join(os.environ.get("PYTHONUSERBASE") or os.path.join(ctx.home, ".local"), "lib")
    for name in _names(lib):
        site = os.path.join(lib, name, "site-packages")
        if name.startswith("python") and os.path.realpath(site) != mine:
            count = len(listing(site))
            if count:
                out["other_user_sites"][site] = count
    venvs, conda = _environments(ctx)
    out["venvs"], out["conda"] = venvs, conda
    return out


def notices(ctx: Context) -> list[dict[str, str]]:
    """Return notices about what could be imported; empty once it is in the overlay."""
    if ctx.overlay is None or ctx.env is None:
        return []
    out = []
    there = found(ctx)
    known = {*overlay_dists(ctx.env), *base_dists(ctx), *_asked(ctx), *sources.TOOLS}
    local = [dist.name for dist in listing(user_site(ctx)) if dist.name not in known]
    if local:
        out.append(
            notice(
                "user-site-packages",
                f"{_count(len(local), 'package')} in ~/.local: kernels go on seeing them.",
                "To have them in the overlay too, where changes can be undone, run: overlay import user-site",
            )
        )
    fresh = [path for path in there["venvs"] if not _imported(ctx, path)]
    if fresh:
        out.append(
            notice(
                "venvs-found",
                f"Environments made by hand: {_some(fresh)}. They are left as they are.",
                f"To have the packages of one in the overlay too, run: overlay import {fresh[0]}",
            )
        )
    return out


def import_packages(
    ctx: Context,
    source: str = "",
    *,
    on_event: Optional[OnEvent] = None,
    cancel: Optional[Cancel] = None,
    who: str = "",
    argv: Sequence[str] = (),
) -> dict[str, Any]:
    """Install into the overlay what a user has elsewhere.

    The versions that are there are tried first, so that the same code goes on working; where they don't
    exist for this Python or don't fit the image, the newest that fit are taken. Lines of a file keep their
    own versions. What can't be installed is left out and named; the rest is one change.

    Parameters
    ----------
    source:
        ``user-site``, the path of an environment (venv, conda) or of a directory of packages, or of a
        ``requirements.txt``, ``pyproject.toml``, ``pylock.toml`` or ``environment.yml``.
    on_event, cancel, who, argv:
        As for every action.

    Returns
    -------
    dict
        ``revision`` and ``plan`` as of every action, ``requirements``: the lines that came, and
        ``left_out``: ``{requirement, reason, hint}`` for each thing that did not.

    Raises
    ------
    OverlayError
        Nothing was changed, and the message says why.
    """
    ctx.require()
    if not source:
        raise OverlayError("bad-request", "Nothing to import was named.", _what_there_is(ctx))
    said = Events(on_event, cancel)
    said.say("resolving", f"Looking at {source}.")
    what = sources.read(source, user_site=user_site(ctx), home=ctx.home)
    wanted = _select(ctx, what)
    lines: list[Requirement] = []
    result: Optional[dict[str, Any]] = None
    if wanted:
        said.say("resolving", f"{_count(len(wanted), 'requirement')} from {what.title}.")
        words = list(argv) or ["import", redact(source)]
        alone = len(wanted) == len(what.wanted)
        job = _Import(ctx, wanted, _pins(ctx, what), said, who, words, alone=alone)
        result = job.start()
        lines = job.install
        for item in job.failed:
            what.leave_out(item["requirement"], item["reason"], item["hint"])
    if result is None:
        last = revisions.summary(revisions.latest(ctx.require()[0]) or {"id": 0})
        result = {
            "revision": {**last, "changed": False},
            "plan": plans.build(new={}, overlay={}, base={}),
        }
        said.say("done", f"There was nothing to import from {what.title}.")
    return {**result, "requirements": [redact(line.text) for line in lines], "left_out": what.left_out}


def _select(ctx: Context, what: sources.Source) -> list[Requirement]:
    """Choose the lines that the overlay lacks; why others are left out goes into ``what.left_out``."""
    _, env = ctx.require()
    overlay, base, asked = overlay_dists(env), base_dists(ctx), _asked(ctx)
    out: dict[str, Requirement] = {}
    for requirement in what.wanted:
        name = requirement.name
        if not sources.applies(requirement):
            what.leave_out(requirement.text, "It is for another Python or system.")
        elif name in asked and not what.explicit:
            what.leave_out(requirement.text, "Your overlay has it already.")
        elif name in base and name not in overlay and not requirement.url:
            theirs, mine = what.versions.get(name, ""), base[name].version
            if what.explicit and not sources.fits(mine, requirement):
                out[requirement.key] = requirement
            elif not what.explicit and theirs and sources.older(mine, theirs):
                # a bare name would be content with the image's version
                out[name] = Requirement(f"{name}>={theirs}", name)
            else:
                what.leave_out(requirement.text, f"The image has {name} {mine}.")
        else:
            out[requirement.key] = requirement
    return list(out.values())


def _pins(ctx: Context, what: sources.Source) -> list[str]:
    """Return constraints to the versions that are there, for what neither the overlay nor the image has."""
    _, env = ctx.require()
    given = {*overlay_dists(env), *base_dists(ctx)}
    pins = [f"{name}=={version}" for name, version in sorted(what.versions.items()) if name not in given]
    return [*what.constraints, *pins]


class _Import(Job):
    """An installation of as many lines as can be had, in the versions that are there where those can be had.

    Parameters
    ----------
    wanted:
        The lines. :attr:`install` holds those that were installed afterwards, :attr:`failed` the others.
    pins:
        Constraints to the versions that are there. They hold for this one change.
    alone:
        There is nothing else to import, so that it has failed when none of the lines can be had.
    """

    asks = False

    def __init__(
        self,
        ctx: Context,
        wanted: Sequence[Requirement],
        pins: Sequence[str],
        events: Events,
        who: str,
        argv: Sequence[str],
        *,
        alone: bool,
    ) -> None:
        super().__init__(ctx, "install", install=wanted, events=events, who=who, argv=argv)
        self.pins = pins
        self.alone = alone
        self.failed: list[dict[str, str]] = []

    def refuse_asked(self, after: Requirements, admin: list[Requirement]) -> None:
        """Nothing here: what may not come in is left out like what can't be had."""

    def fill(
        self,
        stage: Stage,
        after: Requirements,
        admin: list[Requirement],
        overlay: dict[str, Dist],
        base: dict[str, Dist],
    ) -> Staged:
        given_up = self._given_up()
        mine = {requirement.key for requirement in self.install}
        known = [r for r in after.entries() if r.key not in mine and redact(r.text) not in given_up]
        visible = list({**base, **overlay}.values())
        judge = Judge(self.ctx, stage, overlay, base)

        def resolve(lines: Sequence[str], limits: Sequence[str], **how: Any) -> None:
            self.resolve(stage, lines, visible, constraints=limits, **how)

        sure = [*known, *admin]
        pins = judge.pins(self.pins)
        keeper = Keeper(self.ctx, stage, overlay, base, after.entries(), sure, pins, resolve)
        fitting = Fitting(keeper.fill, stage.clear, self.events.say, judge, keeper)
        # what was there before comes first, and so wins where the two contradict each other
        fitting.run([*sure, *self.install], keeper.pins)
        theirs = {redact(requirement.text) for requirement in self.install}
        for item in fitting.failed:
            if item["requirement"] not in theirs:
                raise OverlayError(item["code"], f"{item['requirement']}: {item['reason']}", item["hint"])
        lost = {item["requirement"] for item in fitting.failed}
        self.failed = fitting.failed
        self.install = [r for r in self.install if redact(r.text) not in lost]
        if not self.install and self.alone:
            first = self.failed[0]
            raise OverlayError(
                first["code"],
                f"None of the packages could be installed: {first['reason']} Nothing was changed.",
                first["hint"],
                status=409,
            )
        return self.staged(stage)


# -- looking around ---------------------------------------------------------------------------------------


def _environments(ctx: Context) -> tuple[list[str], list[str]]:
    """Return the venvs and the conda environments of a home, down to two levels."""
    until = time.monotonic() + MAX_SECONDS
    venvs: list[str] = []
    conda: list[str] = []
    left = MAX_ENTRIES
    foreign = _Foreign(ctx)

    def look(path: str) -> bool:
        """Note an environment; return whether it was one."""
        if not foreign(path):
            return True
        if os.path.isfile(os.path.join(path, "pyvenv.cfg")):
            venvs.append(path)
        elif os.path.isdir(os.path.join(path, "conda-meta")):
            conda.append(path)
        else:
            return False
        return True

    def enter(folder: str, depth: int, hidden: bool) -> None:
        nonlocal left
        for name in _names(folder):
            if left <= 0 or time.monotonic() > until:
                return
            path = os.path.join(folder, name)
            if name.startswith(".") and not hidden and not name.startswith((".venv", ".env", ".virtualenv")):
                continue
            if os.path.islink(path) or not os.path.isdir(path):
                continue
            left -= 1
            if not look(path) and depth > 1:
                enter(path, depth - 1, False)

    for place in _KNOWN_PLACES:
        enter(os.path.join(ctx.home, place), 1, True)
    enter(ctx.home, 2, False)
    return list(dict.fromkeys(venvs)), list(dict.fromkeys(conda))


class _Foreign:
    """Tells directories that are neither the overlay's nor the image's."""

    def __init__(self, ctx: Context) -> None:
        own = [ctx.base.prefix, ctx.overlay.path if ctx.overlay else "", ctx.env.path if ctx.env else ""]
        self._own = [os.path.realpath(path) for path in own if path]

    def __call__(self, path: str) -> bool:
        real = os.path.realpath(path)
        if os.path.isdir(os.path.join(path, ".overlay")) and os.path.isfile(os.path.join(path, "pyvenv.cfg")):
            return False
        return not any(real == own or real.startswith(own + os.sep) for own in self._own)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _asked(ctx: Context) -> set[str]:
    overlay, _ = ctx.require()
    try:
        return Requirements.read(overlay.requirements).names()
    except OSError:
        return set()


def _imported(ctx: Context, path: str) -> bool:
    """Whether an environment was imported before, as far as the latest revisions tell."""
    assert ctx.overlay is not None
    for revision in revisions.list_revisions(ctx.overlay, limit=20):
        words = revision.get("argv")
        if isinstance(words, list) and words[:1] == ["import"] and path in words[1:]:
            return True
    return False


def _what_there_is(ctx: Context) -> str:
    there = found(ctx)
    words = [f"user-site ({_count(there['user_site'], 'package')})"] if there["user_site"] else []
    words += [*there["other_user_sites"], *there["venvs"], *there["conda"]]
    if not words:
        return "There is nothing in your home to import; name a file such as requirements.txt."
    return f"In your home there is: {_some(words)}. A file such as requirements.txt can be named too."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _some(items: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + more
