"""What was changed behind our back: by ``pip`` in a notebook, ``uv`` in a terminal, a tool that was killed.

An adoption changes no package. It records what is there: a revision, the lines of ``requirements.txt``, and
the new snapshot, in this order. The revision decides; whoever finds one without its lines and its snapshot
finishes it, so that it can be stopped anywhere and repeated.

Additions are recorded. A removal is one only if the distribution was in this env's last snapshot and its
files are gone with it; else it is *missing*, and a repair is offered.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Optional

from overlayspawner.payload import asked, files, gate, lockfile, merge, revisions, rollback, snapshot, wishes
from overlayspawner.payload import plan as plans
from overlayspawner.payload.change import repair
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import (
    Dist,
    base_dists,
    details,
    listing,
    overlay_dists,
    user_site,
)
from overlayspawner.payload.foreign import compare
from overlayspawner.payload.keeping import adopted
from overlayspawner.payload.lease import PATIENCE, Lease, acquire, overlay_lock, storage_error
from overlayspawner.payload.leftovers import is_partial, leftovers
from overlayspawner.payload.mend import flagged, mend, missing, notices
from overlayspawner.payload.overlay import Env
from overlayspawner.payload.procs import redact
from overlayspawner.payload.requirements import Requirement, Requirements, parse

OnEvent = Callable[[dict[str, Any]], None]

_UNFINISHED = "unfinished "
"""Before the name of an adoption in the snapshot: its lines and its snapshot may not be written yet."""

__all__ = ["adopt", "leftovers", "mend", "missing", "needed", "notices", "settle", "told"]


def needed(ctx: Context) -> bool:
    """Whether the env holds something else than after its last change. Opens one file; never raises."""
    if ctx.overlay is None or ctx.env is None:
        return False
    if snapshot.last_adoption(ctx.env).startswith(_UNFINISHED):
        return True
    return snapshot.differs(ctx.env, snapshot.read(ctx.env))


def adopt(
    ctx: Context,
    *,
    argv: Sequence[str] = (),
    report: Optional[object] = None,
    who: str = "",
    on_event: Optional[OnEvent] = None,
) -> dict[str, Any]:
    """Record what other tools have changed.

    Parameters
    ----------
    ctx:
        The server's view of its overlay.
    argv:
        The command that was run and succeeded, ``["pip", "install", …]``; what it asked for is recorded as it
        was asked.
    report:
        pip's installation report (its JSON as a dict).
    who:
        Who changed it, for the history.
    on_event:
        Called with ``{"phase", "message"}``, and ``"package"`` where one is meant.

    Returns
    -------
    dict
        ``{"revision": {…, "changed": bool}, "plan": …, "missing": [name, …]}``.

    Raises
    ------
    OverlayError
        ``busy`` while another writer works; ``disk-full``, ``read-only`` or ``internal`` when the storage
        fails; ``env-broken`` where the packages can't be looked at. Doing it again later is safe.
    """
    overlay, env = ctx.require()
    try:
        with acquire(env, who=who, wait=PATIENCE) as lease:
            repair(overlay, env, lease)
            out = settle(ctx, lease, argv=argv, report=report, who=who, on_event=on_event)
    except OSError as e:
        raise storage_error(e) from e
    if ctx.runtime and out["revision"]["changed"]:
        from overlayspawner.payload import kernelspec

        kernelspec.refresh(ctx)
    return out


def settle(
    ctx: Context,
    lease: Lease,
    *,
    argv: Sequence[str] = (),
    report: Optional[object] = None,
    who: str = "",
    on_event: Optional[OnEvent] = None,
) -> dict[str, Any]:
    """Do what :func:`adopt` does for a caller that holds the lease and has repaired.

    Raises
    ------
    OSError, OverlayError
        As :func:`adopt`.
    """
    out = _Adoption(ctx, lease, argv, report, who, on_event).run()
    if out["revision"]["changed"] and ctx.env is not None:
        lockfile.write(ctx, ctx.env, revision=out["revision"]["id"], origins=_origins(report))
    return out


def _origins(report: object) -> dict[str, dict[str, Any]]:
    """Where packages came from, as pip tells; nothing where it doesn't, or not in the way we know."""
    from overlayspawner.payload.installer import pip

    items = report.get("install") if isinstance(report, dict) else None
    try:
        return pip.origins(items or [])
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _make_sure_of(env: Env) -> None:
    """Tell packages that were removed from ones that can't be seen: these still have their lines.

    Raises
    ------
    OverlayError
        ``env-broken``.
    """
    try:
        os.listdir(env.site_packages)
    except OSError as e:
        raise OverlayError(
            "env-broken",
            f"{env.site_packages} can't be read ({e.strerror}). What you asked for is still known.",
            "Run `overlay doctor --fix`, or restart your server: the packages are installed again.",
            status=409,
        ) from e


class _Adoption:
    """One run of :func:`settle`."""

    def __init__(
        self,
        ctx: Context,
        lease: Lease,
        argv: Sequence[str],
        report: object,
        who: str,
        on_event: Optional[OnEvent],
    ) -> None:
        self.ctx = ctx
        self.lease = lease
        self.argv = list(argv)
        self.command = asked.read(argv)
        self.report = report
        self.who = who
        self._on_event = on_event
        self.overlay, self.env = ctx.require()
        self.base: dict[str, Dist] = {}
        self.name = "adopt-" + os.urandom(8).hex()

    def run(self) -> dict[str, Any]:
        _make_sure_of(self.env)
        files.mark("adopt")
        before = snapshot.read(self.env)
        wished = self._wished()
        mark = snapshot.last_adoption(self.env)
        quiet = before is not None and not snapshot.differs(self.env, before)
        if before is not None and quiet and not wished and not mark.startswith(_UNFINISHED):
            return self._nothing(before)
        known = self._finish_last(before or {}, mark)
        found = overlay_dists(self.env)
        now = snapshot.take(self.env, known)
        self.base = base_dists(self.ctx)
        for name in [name for name, dist in found.items() if is_partial(dist)]:
            now[name] = {**now[name], "partial": True}
            del found[name]
        arrived, old, gone, lost = compare(self.overlay, self.env, known, found, now)
        for name in lost:
            now[name] = {**known[name], "missing": True}
        current = Requirements.read(self.overlay.requirements)
        add, remove = self._lines(current, wished, arrived, gone, found)
        plan = self._plan(arrived, old, gone, add, current)
        plan["blocked"], against = gate.told(self.ctx, [(d.name, d.version) for d in arrived.values()])
        edits = rollback.edited(current, add, remove).to_text() != current.to_text()
        if plans.is_empty(plan) and not edits:
            if wished:
                self._remember(current, found, {*wished}, ())
            snapshot.write(self.env, now, adopted="")
            return self._nothing(now)
        snapshot.write(self.env, known, adopted=_UNFINISHED + self.name)
        revision = self._record(plan, add, remove, {*arrived, *wished}, gone, found, now)
        for item, sentence in zip(plan["blocked"], against):
            self._event(f"{sentence} It stays until you uninstall it.", item["name"])
        self._say(plan)
        summary = revisions.summary(revision)
        return {"revision": {**summary, "changed": True}, "plan": plan, "missing": flagged(self.env, now)}

    def _nothing(self, now: snapshot.Snapshot) -> dict[str, Any]:
        last = {"id": (revisions.ids(self.overlay) or [0])[-1], "changed": False}
        empty = plans.build(new={}, overlay={}, base={})
        return {"revision": last, "plan": empty, "missing": flagged(self.env, now)}

    # -- what was asked for -----------------------------------------------------------------------------

    def _wished(self) -> dict[str, Requirement]:
        """Return what the command asked for by name; what has no name is told by the metadata."""
        return {r.name: r for r in self.command.requirements() if r.name}

    def _lines(
        self,
        current: Requirements,
        wished: Mapping[str, Requirement],
        arrived: Mapping[str, Dist],
        gone: Iterable[str],
        found: Mapping[str, Dist],
    ) -> tuple[list[str], list[str]]:
        """Return the lines to set and the names whose lines go. A line the user wrote by hand stays."""
        by_hand = merge.difference(self.overlay).keys()
        lines = {entry.name: entry for entry in current.entries() if entry.name}
        add: list[str] = []
        for name in sorted({*wished, *wishes.requested(arrived, wished, self.report)}):
            dist = found.get(name) or self.base.get(name)
            if dist is None:
                continue  # the word of an option, or a package for another platform
            line = lines.get(name)
            wish = wished.get(name)
            # a bare name asks for nothing that the line could not give
            bare = wish is None or wish.is_plain
            if line is not None and (
                name in by_hand or wish is None or (bare and wishes.admits(line, dist.version))
            ):
                continue
            text, why = wishes.line(
                dist, wish, report=self.report, home=self.ctx.home, in_base=name in self.base
            )
            if why:
                self._event(why, name)
            add.append(text)
        remove = [name for name in gone if name in lines and name not in by_hand]
        return add, remove

    # -- recording --------------------------------------------------------------------------------------

    def _plan(
        self,
        arrived: Mapping[str, Dist],
        old: Mapping[str, str],
        gone: Iterable[str],
        add: Iterable[str],
        current: Requirements,
    ) -> dict[str, Any]:
        names = {parse(line, trusted=True).name for line in add}
        before = snapshot.read(self.env) or {}
        there = {name: plans.Item(item["version"]) for name, item in before.items()}
        there.update({name: plans.Item(version) for name, version in old.items()})
        return plans.build(
            new={name: plans.Item(d.version, details(d).size) for name, d in arrived.items()},
            overlay={name: item for name, item in there.items() if name in {*old, *gone}},
            base={name: d.version for name, d in self.base.items()},
            user_site={d.name: d.version for d in listing(user_site(self.ctx))},
            requested=names | current.names(),
            needed=names,
            uninstalled=list(gone),
        )

    def _record(
        self,
        plan: dict[str, Any],
        add: list[str],
        remove: list[str],
        touched: set[str],
        gone: Iterable[str],
        found: Mapping[str, Dist],
        now: snapshot.Snapshot,
    ) -> dict[str, Any]:
        lock = self.ctx.base_lock or self.ctx.base.lock()
        with overlay_lock(self.overlay):
            self.lease.check()
            before = Requirements.read(self.overlay.requirements)
            after = rollback.edited(before, add, remove)
            write = rollback.prepare_requirements(self.overlay, before, after)
            try:
                revision = revisions.write(
                    self.overlay,
                    {
                        "when": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                        "who": self.who,
                        "action": "adopt",
                        "argv": [redact(word) for word in self.argv] or ["adopt"],
                        "base": {"key": self.ctx.base.key, "lock": lock},
                        "env": os.path.relpath(self.env.path, self.overlay.path),
                        "plan": plan,
                        "requirements": {
                            "before": [redact(r.text) for r in before.entries()],
                            "after": [redact(r.text) for r in after.entries()],
                        },
                        "undo": "download",
                        "change": self.name,
                        "add": [redact(line) for line in add],
                        "remove": remove,
                        "touched": sorted(touched),
                        "aside": [],
                        "files": [],
                    },
                )
            except BaseException:
                write(False)
                raise
            write(True)
            self._remember(after, found, touched, gone)
        adopted(self.ctx, add, found)
        snapshot.write(self.env, now, adopted=self.name)
        return revision

    def _remember(
        self, after: Requirements, found: Mapping[str, Dist], touched: Iterable[str], gone: Iterable[str]
    ) -> None:
        """Keep what is realised now, so that a line of the user's that wants something else is pending."""
        lines = {entry.name: entry for entry in after.entries() if entry.name}
        last = merge.last(self.overlay)
        for name in gone:
            last = last.with_removed(name)
        for name in touched:
            line, dist = lines.get(name), found.get(name) or self.base.get(name)
            if line is None or dist is None:
                continue
            fits = wishes.admits(line, dist.version)
            last = last.with_added(line if fits else parse(f"{name}=={dist.version}", trusted=True))
        merge.save(self.overlay, last.to_text())

    def _finish_last(self, known: snapshot.Snapshot, mark: str) -> snapshot.Snapshot:
        """Finish an adoption that was stopped after its revision; return what is known now."""
        content = dict(known)
        last = revisions.latest(self.overlay) or {} if mark.startswith(_UNFINISHED) else {}
        if not last or last.get("action") != "adopt" or _UNFINISHED + str(last.get("change")) != mark:
            return content
        found = overlay_dists(self.env)
        self.base = base_dists(self.ctx)
        removed = [str(item["name"]) for item in last["plan"]["removes"]]
        with overlay_lock(self.overlay):
            self.lease.check()
            current = Requirements.read(self.overlay.requirements)
            if [redact(r.text) for r in current.entries()] == last["requirements"]["before"]:
                after = rollback.edited(current, last.get("add", ()), last.get("remove", ()))
                rollback.prepare_requirements(self.overlay, current, after)(True)
                current = after
            self._remember(current, found, last.get("touched", ()), removed)
        fresh = snapshot.take(self.env)
        for item in last["plan"]["new"]:
            name = str(item["name"])
            if name in fresh and fresh[name]["version"] == item["version"]:
                content[name] = fresh[name]
        for name in removed:
            content.pop(name, None)
        snapshot.write(self.env, content, adopted=last["change"])
        return content

    # -- telling ----------------------------------------------------------------------------------------

    def _event(self, message: str, package: str = "") -> None:
        if self._on_event is not None:
            event = {"phase": "resolving", "message": message}
            self._on_event({**event, "package": package} if package else event)

    def _say(self, plan: Mapping[str, Any]) -> None:
        text = told(plan)
        if text and self._on_event is not None:
            self._on_event({"phase": "done", "message": text})


def told(plan: Mapping[str, Any]) -> str:
    """Say what an adoption recorded."""
    parts = []
    if plan["new"]:
        parts.append("recorded " + ", ".join(f"{p['name']} {p['version']}" for p in plan["new"]))
    if plan["removes"]:
        parts.append("no longer there: " + ", ".join(str(p["name"]) for p in plan["removes"]))
    return "; ".join(parts)
