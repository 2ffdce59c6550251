"""The changes that build an env again: from lock and lines, or to what an earlier change left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Optional

from overlayspawner.payload import lockfile, revisions
from overlayspawner.payload.apply import Job
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, needs
from overlayspawner.payload.events import Events
from overlayspawner.payload.fitting import Fitting
from overlayspawner.payload.gate import Judge
from overlayspawner.payload.keeping import Keeper
from overlayspawner.payload.mark import Mark, Since, is_of
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import Requirement, Requirements, parse
from overlayspawner.payload.stage import Stage, Staged


class Restore(Job):
    """All lines again, in the versions of a lock as far as they can be had.

    What would break something of this image, and was never agreed to, can't be had. Nobody is asked: the
    lines stay, are listed, and hold up nothing.
    """

    asks = False
    keeps = True
    """Whether the image's packages have a say."""

    def __init__(
        self,
        ctx: Context,
        events: Events,
        who: str,
        argv: Sequence[str],
        labels: Optional[dict[str, Any]],
    ) -> None:
        super().__init__(ctx, "restore", events=events, who=who, argv=argv, labels=labels)
        self.mark = Mark.read(self.env)
        self.failed: list[dict[str, str]] = []
        self.gone: list[str] = []

    def run(self, lease: Any) -> dict[str, Any]:
        self.mark = Mark.read(self.env)
        self.mark.begin(self.env)
        return super().run(lease)

    def refuse_asked(self, after: Requirements, admin: list[Requirement]) -> None:
        """Nothing here: what may not come in is listed with what can't be had, and holds up nothing."""

    def settle(self, since: Since, after: Requirements) -> None:
        since.edit(after, [*self.uninstall, *self.gone])
        self.mark.reached(self.env, since, self.failed)

    def prepare(self, before: Requirements, overlay: dict[str, Dist]) -> None:
        known = before.names()
        self.gone = [name for name in self.mark.removed_since(self.overlay, self.env) if name not in known]

    def orphans(
        self,
        staged: Staged,
        overlay: dict[str, Dist],
        base: dict[str, Dist],
        remaining: list[Requirement],
    ) -> list[str]:
        """What another image's server uninstalled, and nothing needs here."""
        going = needs([(name, ()) for name in self.gone], overlay.get) & set(overlay) if self.gone else set()
        return _unneeded(going, staged, overlay, base, remaining)

    def fill(
        self,
        stage: Stage,
        after: Requirements,
        admin: list[Requirement],
        overlay: dict[str, Dist],
        base: dict[str, Dist],
    ) -> Staged:
        pins, exact, rebuild = self.pins(overlay)
        visible = list({**base, **overlay}.values())
        judge = Judge(self.ctx, stage, overlay, base)
        pins = judge.pins(pins)

        def resolve(lines: Sequence[str], limits: Sequence[str], **how: Any) -> None:
            self.resolve(stage, lines, visible, constraints=limits, **how)

        fitting = Fitting(resolve, stage.clear, self.events.say, judge)
        if self.keeps:
            keeper = Keeper(self.ctx, stage, overlay, base, after.entries(), admin, pins, resolve)
            pins = keeper.pins
            fitting = Fitting(keeper.fill, stage.clear, self.events.say, judge, keeper)
        fitting.run([*after.entries(), *admin], pins, exact=exact, rebuild=rebuild)
        self.failed = fitting.failed
        if self.failed and not fitting.accepted:
            raise OverlayError(
                "not-restored",
                f"None of your packages could be installed again: {self.failed[0]['reason']} "
                "Nothing was changed.",
                self.failed[0]["hint"],
                status=409,
            )
        return self.staged(stage)

    def report(self, plan: dict[str, Any]) -> None:
        plan["failed"] = self.failed

    def pins(self, installed: Collection[str]) -> tuple[list[str], bool, list[str]]:
        """Return the lock's lines, whether they are of this kind of Python, and what is to be rebuilt.

        Hashes are of files for one kind of base: another one has other files of the same version.

        Parameters
        ----------
        installed:
            Names that are there as they should be. They stay as they are while they fit, whatever a lock
            says.
        """
        own = lockfile.find(self.overlay, self.env)
        locks = ([own] if own is not None else []) + lockfile.others(self.overlay, self.env)
        known: dict[str, str] = {}
        if lockfile.stale(self.overlay, self.env):
            known = versions_after(self.overlay, max(revisions.ids(self.overlay), default=0), self.env)
        pins = {name: f"{name}=={version}" for name, version in known.items() if name not in installed}
        rebuild: list[str] = []
        exact = True
        for lock in locks:
            key = lock.base.get("key", "")
            family = _family(key) == _family(self.ctx.base.key)
            same = key == self.ctx.base.key
            same_image = same and lock.base.get("lock") == self.ctx.base_lock
            for name, item in lock.packages.items():
                plain = item.pin(hashes=False)
                if name in installed or pins.get(name, plain) != plain or item.direct or not item.version:
                    continue
                exact = exact and (family or name in pins)
                if name not in pins or lock is own:
                    pins[name] = item.pin(hashes=same and not item.compiled)
                if item.compiled and not same_image:
                    rebuild.append(name)
        return list(pins.values()), exact, rebuild


class ToRevision(Restore):
    """Requirements and versions as they were after a change, whatever they break: so it was."""

    keeps = False

    def __init__(
        self,
        ctx: Context,
        revision: int,
        events: Events,
        who: str,
        argv: Sequence[str],
        labels: Optional[dict[str, Any]],
    ) -> None:
        overlay, env = ctx.require()
        super().__init__(ctx, events, who, argv or ["restore", str(revision)], labels)
        data = revisions.read(overlay, revision) if revision else {}
        if data is None:
            raise OverlayError(
                "not-found", f"There is no revision {revision}.", "See `overlay history`.", status=404
            )
        self.lines = [str(line) for line in (data.get("requirements") or {}).get("after") or []]
        there = Env(str(data.get("env") or env.path), env.version)
        self.versions = versions_after(overlay, revision, there) if revision else {}
        key = (data.get("base") or {}).get("key") or ctx.base.key
        self.exact = _family(str(key)) == _family(ctx.base.key)
        self.labels = {"to": revision, **self.labels}

    def prepare(self, before: Requirements, overlay: dict[str, Dist]) -> None:
        """Find the lines that differ. One whose credentials a revision does not hold stays as it is."""
        then: dict[str, Requirement] = {}
        for line in self.lines:
            try:
                requirement = parse(line, trusted=True)
            except OverlayError:
                continue
            then[requirement.key] = requirement
        now = {entry.key: entry for entry in before.entries()}
        for key, requirement in then.items():
            same = key in now and redact(now[key].text) == redact(requirement.text)
            if same:
                continue
            if "***@" in requirement.text:
                self.failed_line(requirement)
                continue
            self.install.append(requirement)
        self.uninstall = [entry.name for key, entry in now.items() if key not in then and entry.name]

    def failed_line(self, requirement: Requirement) -> None:
        self.events.say(
            "resolving", f"Left out, because its credentials are not kept in the history: {requirement.text}"
        )

    def orphans(
        self,
        staged: Staged,
        overlay: dict[str, Dist],
        base: dict[str, Dist],
        remaining: list[Requirement],
    ) -> list[str]:
        """What was not there then, and nothing needs."""
        going = {name for name in overlay if name not in self.versions}
        return _unneeded(going, staged, overlay, base, remaining)

    def pins(self, installed: Collection[str]) -> tuple[list[str], bool, list[str]]:
        lock = lockfile.find(self.overlay, self.env)
        hashes = {item.pin(hashes=False): item.pin() for item in lock.packages.values()} if lock else {}
        same = lock is not None and lock.base.get("key") == self.ctx.base.key
        lines = [f"{name}=={version}" for name, version in sorted(self.versions.items())]
        urls = {r.name for r in map(_parsed, self.lines) if r is not None and r.url}
        lines = [line for line in lines if line.partition("==")[0] not in urls]
        return [hashes.get(line, line) if same else line for line in lines], self.exact, []


def versions_after(overlay: Overlay, revision: int, env: Env) -> dict[str, str]:
    """Return what an env held after a change: name to version, told by the plans up to it."""
    out: dict[str, str] = {}
    for number in revisions.ids(overlay):
        if number > revision:
            break
        data = revisions.read(overlay, number)
        if data is None or not is_of(data, env):
            continue
        plan = data.get("plan") or {}
        for item in plan.get("removes") or []:
            out.pop(str(item["name"]), None)
        for item in plan.get("new") or []:
            out[str(item["name"])] = str(item["version"])
    return out


def _unneeded(
    names: set[str],
    staged: Staged,
    overlay: dict[str, Dist],
    base: dict[str, Dist],
    remaining: list[Requirement],
) -> list[str]:
    """Return those of ``names`` that nothing needs which stays."""
    if not names:
        return []

    def visible(name: str) -> Optional[Dist]:
        return staged.dists.get(name) or overlay.get(name) or base.get(name)

    roots = [(r.name, r.extras) for r in remaining if r.name]
    roots += [(name, ()) for name in (*overlay, *staged.dists) if name not in names]
    reached = needs(roots, visible)
    return sorted(name for name in names if name in overlay and name not in reached)


def _parsed(line: str) -> Optional[Requirement]:
    try:
        return parse(line, trusted=True)
    except OverlayError:
        return None


def _family(key: str) -> str:
    """Implementation, version, architecture and libc of a base key: what wheels are made for."""
    return key.rpartition("-")[0]
