"""The one entry point for changing an overlay: resolve, stage, plan, commit, record."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from overlayspawner.payload import (
    adopt,
    constraints,
    events,
    gate,
    lockfile,
    merge,
    removal,
    revisions,
    space,
)
from overlayspawner.payload import plan as plans
from overlayspawner.payload.breaks import breaks
from overlayspawner.payload.change import Commit, edited, repair
from overlayspawner.payload.consent import Consent, check_space
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import (
    Dist,
    base_dists,
    details,
    listing,
    needs,
    overlay_dists,
    user_site,
)
from overlayspawner.payload.events import Events, OnEvent
from overlayspawner.payload.lease import PATIENCE, acquire, storage_error
from overlayspawner.payload.mark import Mark, Since, latest, under
from overlayspawner.payload.moves import plan_ops, tree_of
from overlayspawner.payload.procs import Cancel, redact
from overlayspawner.payload.request import Start, parsed
from overlayspawner.payload.requirements import Requirement, Requirements, parse
from overlayspawner.payload.resolving import WHOLE, Resolving
from overlayspawner.payload.splits import splits
from overlayspawner.payload.stage import Stage, Staged, incomplete, name_of_url

ACTIONS = ("install", "uninstall", "upgrade", "sync")


def apply(
    ctx: Context,
    action: str,
    *,
    install: Sequence[str] = (),
    uninstall: Sequence[str] = (),
    upgrade: Sequence[str] = (),
    on_event: Optional[OnEvent] = None,
    cancel: Optional[Cancel] = None,
    who: str = "",
    argv: Sequence[str] = (),
    force: bool = False,
    expect: Optional[Mapping[str, Any]] = None,
) -> dict[str, Any]:
    """Change the overlay, all or nothing.

    Parameters
    ----------
    ctx:
        The server's view of its overlay.
    action:
        ``install``, ``uninstall``, ``upgrade``, or ``sync``: make the env have what ``requirements.txt`` and
        the administrator ask for.
    install, uninstall, upgrade:
        Requirement lines; names. More than one of them may be given, whatever the action is called.
    on_event:
        Called with ``{"phase", "message"}`` and ``"package"`` where one is meant. Phases: ``resolving``,
        ``downloading``, ``staging``, ``committing``, ``done``.
    cancel:
        Asked until the commit starts; from there on the change is made.
    who:
        Who changes it, as shown to others that have to wait; kept in the history.
    argv:
        The command as the user typed it, for the history; made from the request when empty.
    force:
        Also if it breaks something that stays. The lines that do so are remembered.
    expect:
        The ``expect`` of the plan that was agreed to: what comes otherwise is refused.

    Returns
    -------
    dict
        ``{"revision": …, "plan": …}``. When there was nothing to change the revision is the latest one (id 0
        when there is none) with ``"changed": False``.

    Raises
    ------
    OverlayError
        Nothing was changed, and the message says why.
    """
    if action not in ACTIONS:
        raise OverlayError("unknown-action", f"There is no action {action!r}; there is {', '.join(ACTIONS)}.")
    wanted = {"install": install, "uninstall": uninstall, "upgrade": upgrade}
    if action in wanted and not wanted[action]:
        raise OverlayError("bad-request", f"Nothing to {action}.", "Name at least one package.")
    job = Job(
        ctx,
        action,
        **parsed(install, uninstall, upgrade),
        events=Events(on_event, cancel),
        who=who,
        argv=argv,
        force=force,
        expect=expect,
    )
    return job.start()


class Job(Resolving):
    """One run of :func:`apply`, and what other changes are made of."""

    asks = True
    """Whether breaking what nobody agreed to break is refused."""

    def start(self) -> dict[str, Any]:
        """Take the lease and run; see :func:`apply` for what is returned and raised."""
        try:
            with acquire(self.env, who=self.who, wait=PATIENCE) as lease:
                return self.run(lease)
        except OSError as e:
            raise storage_error(e) from e

    # -- the way through --------------------------------------------------------------------------------

    def run(self, lease: Any) -> dict[str, Any]:
        gone = not os.path.lexists(self.overlay.requirements)
        self.events.repaired(repair(self.overlay, self.env, lease))
        if gone and os.path.lexists(self.overlay.requirements):
            self.events.say(
                "resolving",
                "requirements.txt was missing: it was written again as of the last change."
                " To uninstall everything, empty it and run `overlay sync`.",
            )
        self.events.check_cancel()
        missing: Optional[list[str]] = None
        with contextlib.suppress(OSError):
            # what other tools did before is not this change's doing
            missing = adopt.settle(self.ctx, lease)["missing"]
        before = Requirements.read(self.overlay.requirements)
        since = Since(self.overlay, self.ctx)
        self.settled = missing == [] and Mark.read(self.env).is_settled(self.overlay, self.env, since, before)
        at = self.begin(before)
        if at.comes_in:
            self.refuse_asked(at.after, at.admin)
            check_space(self.env, self.expect)
        with Stage(self.env, make=at.comes_in) as stage:
            staged, going, add, plan = self.decide(stage, at)
            self.refuse_staged(plan, staged, at.overlay, going)
            consent = self.consent(plan, at, staged, going, add)
            consent.check(self.events, self.force, self.expect)
            change = self._commit(stage, staged, at.overlay, going, add, plan)
            self.events.check_cancel()
            after = edited(before, change.add, change.remove)
            if plans.is_empty(plan) and after.to_text() == before.to_text():
                self._realise(after)
                since.settled = latest(self.overlay, self.env)
                self.settle(since, after)
                last = revisions.summary(revisions.latest(self.overlay) or {"id": 0})
                self.events.say("done", "There was nothing to change.")
                return {"revision": {**last, "changed": False}, "plan": plan}
            consent.remember(self.force)
            self.events.say("committing", "Moving the files into place.")
            revision = change.run(lease)
            if not revision["kept"]:
                self.events.say("committing", "Space is short: what was replaced or removed was not kept.")
            lockfile.write(self.ctx, self.env, revision=revision["id"], origins=stage.origins)
            since.settled = revision["id"] if at.comes_in or self.settled else 0
            self.settle(since, after)
        self.events.say("done", events.done(plan))
        return {"revision": {**revisions.summary(revision), "changed": True}, "plan": plan}

    def begin(self, before: Requirements) -> Start:
        """Look at what is there, and find what the request makes leave. Changes nothing."""
        overlay = overlay_dists(self.env)
        base = base_dists(self.ctx)
        self.prepare(before, overlay)
        admin = [parse(line, trusted=True) for line in self.ctx.spec.requirements]
        removal.check(self.uninstall, before.names(), overlay, base)
        asked = before.names() | {r.name for r in [*admin, *self.install]}
        removal.check_present(self.upgrade, {*asked, *overlay, *base})
        after = before
        for name in self.uninstall:
            after = after.with_removed(name)
        after = after.with_asked(self.install)
        for line in before.ignored():
            self.events.say("resolving", f"Left out, because it is no requirement: {redact(line)}")
        remaining = after.entries() + admin
        named, unneeded = removal.leaving(self.uninstall, remaining, overlay, base)
        asked = before.names() | set(self.uninstall if self.action == "sync" else ())
        for name, by in removal.staying(self.uninstall, named, asked, overlay, remaining):
            self.events.say("resolving", f"{name} stays installed: it is needed by {by}.", package=name)
        comes_in = bool(self.action in WHOLE or self.install or self.upgrade)
        return Start(before, after, overlay, base, admin, remaining, named, unneeded, comes_in)

    def decide(self, stage: Stage, at: Start) -> tuple[Staged, list[str], list[str], dict[str, Any]]:
        """Fill the stage; return what is in it, the names that leave, the lines to write, and the plan."""
        overlay, base, remaining = at.overlay, at.base, at.remaining
        named, unneeded = at.named, list(at.unneeded)
        staged = Staged()
        taken_back: list[str] = []
        if at.comes_in:
            broken = incomplete(overlay.values(), thorough=self.action in WHOLE)
            self.settled = self.settled and not broken
            hidden = {*named, *unneeded, *broken}
            left = {name: dist for name, dist in overlay.items() if name not in hidden}
            staged = self.fill(stage, at.after, at.admin, left, base)
            staged, taken_back = self.without_copies(stage, staged, base)
            # what was found good enough was the image's copy: a broken one may not go on hiding it
            taken_back += [name for name in broken if name in base and name not in staged.dists]
            taken_back += self.orphans(staged, overlay, base, remaining)
        self.events.check_cancel()
        add = [r.text for r in self._named(staged, base, overlay, at.before)]
        named = [n for n in named if n not in staged.dists]  # what is staged anew is needed after all
        unneeded += [n for n in dict.fromkeys(taken_back) if n in overlay and n not in {*named, *unneeded}]
        unneeded = [n for n in unneeded if n not in staged.dists]
        plan = self._plan(staged, overlay, base, remaining, named, unneeded)
        going = [*named, *unneeded]
        plan["choices"] = self.consent(plan, at, staged, going, add).choices()
        self.report(plan)
        return staged, going, add, plan

    def consent(
        self, plan: dict[str, Any], at: Start, staged: Staged, going: list[str], add: list[str]
    ) -> Consent:
        """Return what a plan has to be agreed to for; nothing where nobody is asked."""
        there = {name: dist for name, dist in at.overlay.items() if name not in going}
        return Consent(
            self.overlay,
            plan,
            before=at.before.entries(),
            after=edited(at.before, add, self.uninstall).entries(),
            admin=at.admin,
            was={**at.base, **at.overlay},
            image=at.base,
            comes={**there, **staged.dists},
            rules=lambda: constraints.rules(self.ctx),
            asks=self.asks and at.comes_in,
        )

    # -- what other changes do differently --------------------------------------------------------------

    def prepare(self, before: Requirements, overlay: dict[str, Dist]) -> None:
        """Called once what is there is known, and before anything is decided."""
        if self.action == "sync":
            # the lines that the user took out by hand
            self.uninstall += [name for name in merge.to_uninstall(self.overlay) if name in overlay]

    def orphans(
        self,
        staged: Staged,
        overlay: dict[str, Dist],
        base: dict[str, Dist],
        remaining: list[Requirement],
    ) -> list[str]:
        """Return names of the overlay that leave although nobody named them."""
        return []

    def report(self, plan: dict[str, Any]) -> None:
        """Called with the plan, to add to it."""

    def sizes(self, staged: Staged) -> dict[str, Optional[int]]:
        """Return the bytes of what comes, by name."""
        return {name: details(dist).size for name, dist in staged.dists.items()}

    def builds(self, staged: Staged) -> list[dict[str, Any]]:
        """Return what has to be built: nothing, once all is in the stage."""
        return []

    def _realise(self, after: Requirements) -> None:
        """Note that the env holds what the lines ask for, where no commit does so."""
        if self.action in merge.RESOLVING:
            last = merge.last(self.overlay)
            merge.save(self.overlay, merge.realised(last, self.action, after, (), self.uninstall))

    def settle(self, since: Since, after: Requirements) -> None:
        """Called at the end, within the lease: keep in mind how far the env has come."""
        mark = Mark.read(self.env)
        if self.install or self.upgrade or self.action in WHOLE:
            since.edit(after, self.uninstall)
        elif mark.state in ("done", "partial"):
            since.without(mark, self.uninstall)
        else:
            return
        left = {redact(r.text) for r in after.entries()} if self.action not in WHOLE else set()
        mark.reached(self.env, since, [item for item in mark.failed if item.get("requirement") in left])

    def _named(
        self, staged: Staged, base: dict[str, Dist], overlay: dict[str, Dist], before: Requirements
    ) -> list[Requirement]:
        """The lines to write: with names for URLs that had none, and new ones for upgraded packages."""
        out = []
        for requirement in self.install:
            if not requirement.name:
                name = name_of_url(requirement.url, [*staged.dists.values(), *overlay.values()])
                if name:
                    requirement = Requirement(f"{name} @ {requirement.url}", name, url=requirement.url)
            out.append(requirement)
        known = before.names() | {r.name for r in out}
        for name in self.upgrade:
            if name not in known and name not in overlay and name in base and name in staged.dists:
                # a bare name would be content with the image's version when the overlay is built anew
                out.append(Requirement(f"{name}>={staged.dists[name].version}", name))
        return out

    def _plan(
        self,
        staged: Staged,
        overlay: dict[str, Dist],
        base: dict[str, Dist],
        remaining: list[Requirement],
        named: list[str],
        unneeded: list[str],
    ) -> dict[str, Any]:
        sizes = self.sizes(staged)

        def visible(name: str) -> Optional[Dist]:
            return staged.dists.get(name) or overlay.get(name) or base.get(name)

        asked = [(r.name, r.extras) for r in self.install if r.name] + [(n, ()) for n in staged.dists]
        if self.action in WHOLE:
            asked += [(r.name, r.extras) for r in remaining if r.name]
        # no further than the base's own needs: those are the image's affair
        needed = needs(
            asked, lambda name: None if name in base and name not in staged.dists else visible(name)
        )
        going = {*named, *unneeded}
        return plans.build(
            new={name: plans.Item(d.version, sizes[name]) for name, d in staged.dists.items()},
            overlay={
                name: plans.Item(d.version, details(d).size if name in going or name in staged.dists else 0)
                for name, d in overlay.items()
            },
            base={name: d.version for name, d in base.items()},
            # an isolated env does not see it
            user_site={d.name: d.version for d in listing(user_site(self.ctx))}
            if self.overlay.kind == "overlay"
            else {},
            requested=[r.name for r in remaining if r.name],
            needed=needed,
            uninstalled=named,
            unneeded=unneeded,
            splits=splits(staged.dists, {n: d for n, d in overlay.items() if n not in going}, base),
            breaks=breaks(staged.dists, overlay, base, going, lambda: constraints.rules(self.ctx)),
            builds=self.builds(staged),
            blocked=gate.blocked(self.ctx, staged.dists) if staged.dists else (),
            free=space.free(self.env) if staged.dists else None,
        )

    def _commit(
        self,
        stage: Stage,
        staged: Staged,
        overlay: dict[str, Dist],
        going: list[str],
        add: list[str],
        plan: dict[str, Any],
    ) -> Commit:
        leaving = {*going, *(name for name in staged.dists if name in overlay)}
        files = removal.owned_files(
            self.env,
            [overlay[name] for name in leaving],
            [dist for name, dist in overlay.items() if name not in leaving],
        )
        name = f"{revisions.next_id(self.overlay):06d}-{os.urandom(4).hex()}"
        words = [r.text for r in self.install] + self.uninstall + self.upgrade
        return Commit(
            overlay=self.overlay,
            env=self.env,
            name=name,
            stage=stage.prefix_name,
            ops=plan_ops(self.env, staged.tree, tree_of(files), name),
            add=add,
            remove=self.uninstall,
            revision={
                "when": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "who": self.who,
                "action": self.action,
                "argv": [redact(word) for word in self.argv] or [self.action, *map(redact, words)],
                "base": {"key": self.ctx.base.key, "lock": self.ctx.base_lock or self.ctx.base.lock()},
                "env": os.path.relpath(self.env.path, self.overlay.path),
                # what only matters before a change is not kept
                "plan": {key: value for key, value in plan.items() if key not in plans.BEFORE},
                **({"settled": under(self.ctx)} if self.settled else {}),
                **self.labels,
            },
            placed=staged.files(),
            keep_stage=True,
        )
