"""How what a change asks for gets into a stage: the lines that are resolved, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from overlayspawner.payload import constraints, forced, gate, limited
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, base_dists, listing, overlay_dists, user_site
from overlayspawner.payload.events import Events
from overlayspawner.payload.installer import Installer, choose
from overlayspawner.payload.mark import Mark
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import Requirement, Requirements
from overlayspawner.payload.stage import Stage, Staged
from overlayspawner.payload.wishes import admits

WHOLE = ("sync", "restore")
"""Actions that are about everything the overlay should hold, whatever the request names."""

REFUSED = ("conflict", "no-matching-version")
"""Errors that may come of what the image's packages ask for."""


class Resolving:
    """What is asked for, and how it gets into a stage.

    Parameters
    ----------
    action, install, uninstall, upgrade:
        See :func:`~overlayspawner.payload.apply.apply`; parsed.
    events:
        Who listens.
    who, argv:
        See there.
    labels:
        What else the revision records.
    force, expect:
        See there.
    """

    fetches = True
    """Whether an installer may be fetched that is faster than the one that is there."""

    def __init__(
        self,
        ctx: Context,
        action: str,
        *,
        install: Sequence[Requirement] = (),
        uninstall: Sequence[str] = (),
        upgrade: Sequence[str] = (),
        events: Optional[Events] = None,
        who: str = "",
        argv: Sequence[str] = (),
        labels: Optional[dict[str, Any]] = None,
        force: bool = False,
        expect: Optional[Mapping[str, Any]] = None,
    ) -> None:
        self.ctx = ctx
        self.action = action
        self.install = list(install)
        self.uninstall = list(uninstall)
        self.upgrade = list(upgrade)
        self.events = events or Events()
        self.who = who
        self.argv = list(argv)
        self.labels = labels or {}
        self.force = force
        self.expect = expect
        self.overlay, self.env = ctx.require()
        self._index: Any = None
        self.settled = False
        """Whether the env held all that was asked for, and nothing is to be uninstalled or upgraded."""

    def refuse_asked(self, after: Requirements, admin: list[Requirement]) -> None:
        """Refuse what the hub's rules don't let in, as far as names tell, before anything is resolved.

        Raises
        ------
        OverlayError
            ``policy``.
        """
        lines = [*after.entries(), *admin] if self.action in WHOLE else []
        gate.refuse_asked(self.ctx, [*self.install, *lines], self.upgrade)

    def refuse_staged(
        self, plan: dict[str, Any], staged: Staged, overlay: dict[str, Dist], going: Sequence[str]
    ) -> None:
        """Refuse what has come and may not, or is too much; an uninstallation is never refused.

        Parameters
        ----------
        plan:
            With what is ``blocked``.
        overlay, going:
            What there is, and the names among it that leave.

        Raises
        ------
        OverlayError
            ``policy``, ``size-limit``.
        """
        if not staged.dists:
            return
        if plan["blocked"]:
            self.events.say("staging", "Comparing what has come with the rules of this hub.", plan=plan)
        gate.refuse_blocked(self.ctx, plan["blocked"], staged.dists)
        if self.ctx.spec.max_size:
            coming = sum(size for _, _, size in staged.files())
            gate.refuse_size(self.ctx, overlay, {*going, *staged.dists}, coming)

    def fill(
        self,
        stage: Stage,
        after: Requirements,
        admin: list[Requirement],
        overlay: dict[str, Dist],
        base: dict[str, Dist],
    ) -> Staged:
        """Fill the stage; return what is in it.

        Parameters
        ----------
        after:
            The user's lines as the change leaves them.
        admin:
            The administrator's.
        overlay, base:
            What there is, without what is to leave.

        Raises
        ------
        OverlayError
            As :meth:`Installer.stage <overlayspawner.payload.installer.Installer.stage>`.
        """
        visible = list({**base, **overlay}.values())
        limits = self.limits(after, overlay)
        if self._only_adds(overlay, base):
            # The lines that are there are met already. All of them are resolved only where something that
            # they may rest on has to give way: with many packages, and an index far away, most of the time
            # of a change would go into that.
            try:
                again = REFUSED if limits else ()
                new = [r.text for r in self.install]
                self.resolve(stage, new, visible, constraints=limits, again=again)
            except OverlayError as e:
                if not limits or e.code not in REFUSED:
                    raise
                limits = []  # more lines would not help
            else:
                staged = self.staged(stage)
                if staged.dists.keys().isdisjoint([*base, *overlay]):
                    return staged
            stage.clear()
        self.resolve_within(limits, stage, self.all_lines(after, admin), visible)
        return self.staged(stage)

    def all_lines(self, after: Requirements, admin: list[Requirement]) -> list[str]:
        """Return all lines to be resolved."""
        given_up = self._given_up()
        lines = [r.text for r in after.entries() if redact(r.text) not in given_up]
        known = after.names()
        # upgrading a package that came as a dependency, or that the image has, takes asking for it
        lines += [name for name in self.upgrade if name not in known]
        return lines + [r.text for r in admin]

    def limits(self, lines: Requirements, overlay: Mapping[str, Dist]) -> list[str]:
        """Return the versions that the image's packages ask for, as constraints.

        Parameters
        ----------
        lines:
            The user's, among which may be such as were agreed to break something.
        overlay:
            What there is, without what is to leave.
        """
        free = forced.targets(forced.among(self.overlay, lines.entries()))
        found = constraints.limits(constraints.rules(self.ctx), overlay, free)
        return [line for texts in found.values() for line in texts]

    def resolve_within(
        self,
        limits: Sequence[str],
        stage: Stage,
        lines: Sequence[str],
        visible: list[Dist],
    ) -> None:
        """Fill the stage in a way that leaves the image's packages what they need; if that can't be, in any.

        Parameters
        ----------
        limits:
            What :meth:`limits` returned.
        """
        if limits:
            try:
                self.resolve(stage, lines, visible, constraints=limits, again=REFUSED)
                return
            except OverlayError as e:
                if e.code not in REFUSED:
                    raise
            stage.clear()
            self.events.say("resolving", "Looking for versions that the image's packages don't ask for.")
        self.resolve(stage, lines, visible)

    def _only_adds(self, overlay: dict[str, Dist], base: dict[str, Dist]) -> bool:
        """Whether nothing that is there has to change for what is asked for, as far as names tell."""
        if not self.settled or self.upgrade or self.uninstall or self.action != "install":
            return False
        there = [(r, overlay.get(r.name) or base.get(r.name)) for r in self.install]
        return all(dist is None or (not r.url and admits(r, dist.version)) for r, dist in there)

    def _given_up(self) -> set[str]:
        """Return the lines that a restore found can't be had on this base: they may not hold up the rest."""
        if self.action in WHOLE:
            return set()
        named = {redact(r.text) for r in self.install}
        return {item.get("requirement", "") for item in Mark.read(self.env).failed} - named

    def resolve(
        self,
        stage: Stage,
        lines: Sequence[str],
        visible: list[Dist],
        *,
        constraints: Sequence[str] = (),
        again: Sequence[str] = (),
        **how: Any,
    ) -> None:
        """Have the installer fill the stage; see :class:`~overlayspawner.payload.installer.Installer`.

        Parameters
        ----------
        again:
            Errors after which something else is tried: nobody is told why.
        """
        installer = choose(self.ctx, self.events if self.fetches else None)
        self.events.say("resolving", f"Looking for versions that fit ({installer.name} {installer.version}).")
        how = {
            **how,
            "visible": visible,
            "upgrade": self.upgrade,
            "constraints": [*self.ctx.spec.constraints, *constraints],
            "on_line": self.events.line,
            "cancel": self.events.cancel,
        }
        wanted = limited.buildable(self.ctx, list(dict.fromkeys(lines)), visible)
        try:
            self.use(installer, wanted, stage, **how)
        except OverlayError as e:
            if e.code in again:
                raise
            error = limited.because(e, installer, self.ctx, wanted, stage, **how)
            if error is e:
                error = self._explained(e, installer, wanted, bool(how.get("offline")))
            raise error from e

    def _explained(
        self, error: OverlayError, installer: Installer, lines: list[str], offline: bool
    ) -> OverlayError:
        """Return an installer's error in sentences that name what it is about."""
        from overlayspawner.payload.installer.explain import Attempt, explain

        attempt = Attempt(
            python=self.ctx.base.version,
            environ=lambda: installer.env(self.ctx),
            lines=lines,
            new=frozenset([*(r.name for r in self.install), *self.upgrade]),
            admin=self.ctx.spec.requirements,
            constraints=self.ctx.spec.constraints,
            installed={name: dist.version for name, dist in overlay_dists(self.env).items()},
            base={name: dist.version for name, dist in base_dists(self.ctx).items()},
            offline=offline,
            index=self._index,
        )
        out = explain(error, attempt)
        # a restore tries many times, and meets the same package each time
        self._index = attempt.index
        return out

    def use(self, installer: Installer, lines: list[str], stage: Stage, **how: Any) -> None:
        """Have an installer do its work."""
        installer.stage(self.ctx, lines, stage, on_packages=self.events.packages, **how)

    def staged(self, stage: Stage) -> Staged:
        """Return what the installer left, with scripts that start the env's Python."""
        self.events.say("staging", "Checking what was downloaded.")
        stage.fix_scripts(self.ctx.base)
        staged = stage.result()
        for path in staged.dropped:
            self.events.say("staging", f"Left out, because it belongs to the overlay itself: {path}")
        return staged

    def without_copies(self, stage: Stage, staged: Staged, base: dict[str, Dist]) -> tuple[Staged, list[str]]:
        """Take back what the image has in the same version; return also the names.

        It comes about when the overlay hid the image's version by another one that no longer fits.
        """
        local = {dist.name for dist in listing(user_site(self.ctx))}
        copies = [
            dist
            for name, dist in staged.dists.items()
            if name in base
            and base[name].version == dist.version
            and name not in local
            and dist.read("direct_url.json") is None
        ]
        if not copies:
            return staged, []
        for dist in copies:
            stage.take_back(dist)
        return stage.result(), [dist.name for dist in copies]
