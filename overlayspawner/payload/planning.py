"""What a change would do, told before anybody agrees to it. Nothing is changed and no package's code is run.

The decisions are those of :mod:`overlayspawner.payload.apply`; only what an installer would leave in the
stage is drawn (:mod:`overlayspawner.payload.installer.preview`). The stage lies outside the user's storage,
so that no lease is needed: a plan can be had while another server works, on a full disk and of a home that
can't be written to. What changes meanwhile is noticed, and looked at once more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from overlayspawner.payload import adopt, files, mend
from overlayspawner.payload.apply import Job
from overlayspawner.payload.change import pending
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, overlay_dists
from overlayspawner.payload.events import Events, OnEvent
from overlayspawner.payload.installer import Installer
from overlayspawner.payload.installer.preview import Planned, draw
from overlayspawner.payload.lease import PATIENCE, storage_error
from overlayspawner.payload.mark import Mark, Since
from overlayspawner.payload.procs import Cancel, redact
from overlayspawner.payload.request import Start, parsed
from overlayspawner.payload.requirements import Requirement, Requirements, parse
from overlayspawner.payload.resolving import REFUSED
from overlayspawner.payload.stage import Stage, Staged, name_of_url

ATTEMPTS = 3
"""How often it is looked, where the overlay changes meanwhile."""

FOLDER = "plan"
"""In the runtime dir: stubs, kept from one plan to the next."""


def plan(
    ctx: Context,
    *,
    install: Sequence[str] = (),
    uninstall: Sequence[str] = (),
    upgrade: Sequence[str] = (),
    on_event: Optional[OnEvent] = None,
    cancel: Optional[Cancel] = None,
) -> dict[str, Any]:
    """Return what :func:`~overlayspawner.payload.apply.apply` would do, as a plan. Changes nothing.

    What comes as source code only is in the plan's ``builds``. What such a package needs is not in the plan:
    to learn it, its code would have to be run.

    Parameters
    ----------
    ctx:
        The server's view of its overlay.
    install, uninstall, upgrade:
        Requirement lines; names. At least one of all.
    on_event, cancel:
        As for every change.

    Raises
    ------
    OverlayError
        What the change would be refused with; ``busy`` when the overlay changes too fast to be looked at.
    """
    # the same way through as the request that is agreed to
    action = "install" if install else "upgrade" if upgrade else "uninstall"
    wanted = parsed(install, uninstall, upgrade)
    if not any(wanted.values()):
        raise OverlayError("bad-request", "There is nothing to plan.", "Name at least one package.")
    for _ in range(ATTEMPTS):
        job = Planning(ctx, action, **wanted, events=Events(on_event, cancel))
        seen = job.wait()
        try:
            out = job.look()
        except (OverlayError, OSError) as e:
            if job.state() == seen or (cancel is not None and cancel.is_set()):
                raise (storage_error(e) if isinstance(e, OSError) else e) from e
        else:
            if job.state() == seen:
                return out
    raise OverlayError(
        "busy", "The overlay is being changed.", "Ask again when that change is done.", status=409
    )


class Planning(Job):
    """One look at what a change would do."""

    fetches = False

    _planned: dict[str, Planned]
    _unseen: list[Requirement]

    def state(self) -> tuple[object, ...]:
        """Return what tells whether the overlay has changed meanwhile."""
        lines = Requirements.read(self.overlay.requirements).lines
        return tuple(overlay_dists(self.env).values()), tuple(lines), pending(self.env)

    def wait(self) -> tuple[object, ...]:
        """Wait for the moment of a commit to pass; return the state then.

        Raises
        ------
        OverlayError
            ``busy``: it does not pass.
        """
        until = time.monotonic() + PATIENCE
        try:
            while pending(self.env):
                self.events.check_cancel()
                if time.monotonic() > until:
                    raise OverlayError(
                        "busy",
                        "A change is being made, or was interrupted.",
                        "Ask again in a moment. If nothing is running, `overlay doctor --fix` repairs it.",
                        status=409,
                    )
                time.sleep(0.05)
            return self.state()
        except OSError as e:
            raise storage_error(e) from e

    def look(self) -> dict[str, Any]:
        """Return the plan."""
        self._planned, self._unseen = {}, []
        before = Requirements.read(self.overlay.requirements)
        same = not adopt.needed(self.ctx) and not mend.missing(self.ctx)
        since = Since(self.overlay, self.ctx)
        self.settled = same and Mark.read(self.env).is_settled(self.overlay, self.env, since, before)
        at = self.begin(before)
        if not at.comes_in:
            return self.decide(Stage(self.env, make=False), at)[3]
        with _scratch(self.ctx) as folder:
            with Stage(self.env, scratch=folder) as stage:
                found = self.decide(stage, at)[3]
            if found["choices"]:
                with Stage(self.env, scratch=folder) as stage:
                    self.offer(stage, at, found)
            return found

    def offer(self, stage: Stage, at: Start, found: dict[str, Any]) -> None:
        """Add the choice to ask for versions that break nothing, where there are such."""
        named = [r for r in self.install if r.name and not r.url and not r.is_plain]
        if not named:
            return
        bare = {r.key: parse(r.name + (f"[{','.join(r.extras)}]" if r.extras else "")) for r in named}
        after = at.after
        for requirement in bare.values():
            after = after.with_added(requirement)
        left = {name: dist for name, dist in at.overlay.items() if name not in {*at.named, *at.unneeded}}
        try:
            visible, limits = list({**at.base, **left}.values()), self.limits(after, left)
            self.resolve(stage, self.all_lines(after, at.admin), visible, constraints=limits, again=REFUSED)
        except OverlayError as e:
            if e.code == "cancelled":
                raise
            return
        versions = {}
        for name in bare:
            dist = self._planned.get(name) or left.get(name) or at.base.get(name)
            if dist is None:
                return
            versions[name] = dist.version
        of_image = [name for name in versions if name in at.base and at.base[name].version == versions[name]]
        fits = [
            f"{name} {version}" + (" of the image" if name in of_image else "")
            for name, version in versions.items()
        ]
        found["choices"].append(
            {
                "choice": "change",
                "install": [bare[r.key].text if r.key in bare else r.text for r in self.install],
                "message": f"{', '.join(fits)} {'fit' if len(fits) > 1 else 'fits'}.",
            }
        )

    def use(self, installer: Installer, lines: list[str], stage: Stage, **how: Any) -> None:
        """Draw what the installer would leave."""
        self._unseen = []
        todo = [line for line in map(self._seen(how["visible"]), lines) if line]
        planned = installer.preview(self.ctx, todo, stage, **how)
        draw(stage, planned)
        self._planned = {item.name: item for item in planned}

    def _seen(self, visible: list[Dist]) -> Any:
        """Return what turns a line into one that can be resolved without running anything; ``""`` for none.

        To look at a URL that is no wheel means to build what is there.
        """
        there = {dist.name: dist for dist in visible}

        def look(line: str) -> str:
            entry = parse(line, trusted=True)
            if not entry.url or entry.url.partition("#")[0].endswith(".whl"):
                return line
            name = entry.name or name_of_url(entry.url, visible)
            if name in there and name not in self.upgrade and self._comes_from(entry, there[name]):
                return name
            self._unseen.append(entry)
            return ""

        return look

    def _comes_from(self, entry: Requirement, dist: Dist) -> bool:
        """Whether a distribution is what a URL gave."""
        if name_of_url(entry.url, [dist]):
            return True
        # a line that is there already was followed; its URL is recorded without variables and credentials
        new = entry.text in {r.text for r in self.install}
        return not new and (entry.editable or dist.read("direct_url.json") is not None)

    def sizes(self, staged: Staged) -> dict[str, Optional[int]]:
        """Return the bytes to download of each."""
        return {name: self._planned[name].size for name in staged.dists}

    def builds(self, staged: Staged) -> list[dict[str, Any]]:
        """Return what has to be built; where a URL has to be, there is no version."""
        out = [
            {"name": name, "version": dist.version}
            for name, dist in sorted(staged.dists.items())
            if self._planned[name].build
        ]
        return out + [{"name": entry.name or redact(entry.url), "version": None} for entry in self._unseen]


@contextlib.contextmanager
def _scratch(ctx: Context) -> Iterator[str]:
    """Give a directory outside the user's storage: the server's, or to a second plan one of its own."""
    fd = -1
    if ctx.runtime:
        try:
            folder = os.path.join(ctx.runtime, FOLDER)
            files.mkdir(folder, 0o700)
            fd = files.open_lock(os.path.join(folder, "lock"))
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if fd >= 0:
                os.close(fd)
                fd = -1
        else:
            try:
                yield folder
            finally:
                os.close(fd)
            return
    own = tempfile.mkdtemp(prefix="overlayspawner-plan-")
    try:
        yield own
    finally:
        files.remove_tree(own)
