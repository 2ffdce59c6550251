"""Takes back a change: with the files that it set aside, or by installing what was there before.

Offline, if every file that the change brought is still the one it brought and every file that it replaced is
still set aside. It is done by a commit like any other, so that it is all or nothing, and can be undone too.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from overlayspawner.payload import adopt, dists, gate, lease, lockfile, merge, revisions
from overlayspawner.payload import plan as plans
from overlayspawner.payload.change import Commit, repair
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.events import Events, OnEvent
from overlayspawner.payload.history import History, Target
from overlayspawner.payload.mark import Mark
from overlayspawner.payload.moves import Tree, plan_ops, tree_of
from overlayspawner.payload.overlay import Env
from overlayspawner.payload.procs import Cancel, redact
from overlayspawner.payload.requirements import Requirements

_HIDDEN = "***@"
"""What stands in a revision for credentials."""


def undo(
    ctx: Context,
    revision: Optional[int] = None,
    *,
    on_event: Optional[OnEvent] = None,
    cancel: Optional[Cancel] = None,
    who: str = "",
    argv: Sequence[str] = (),
) -> dict[str, Any]:
    """Take back a change.

    Parameters
    ----------
    ctx:
        The server's view of its overlay.
    revision:
        The change's number; that of an undoing brings the change back. Left out: the latest change in
        effect, so that undoing twice goes back two changes.
    on_event, cancel, who, argv:
        As for :func:`overlayspawner.payload.actions.run`.

    Returns
    -------
    dict
        ``{"revision", "plan"}``; the revision says ``undoes``, and in ``undo`` whether it was done
        ``offline`` or needed a ``download``.

    Raises
    ------
    OverlayError
        Nothing was changed, and the message says why; ``cannot-undo`` when there is nothing to undo.
    """
    if revision is not None and (isinstance(revision, bool) or not isinstance(revision, int)):
        raise OverlayError("bad-request", "A revision is a number.", "See `overlay history`.")
    overlay, env = ctx.require()
    events = Events(on_event, cancel)
    common: dict[str, Any] = {"on_event": on_event, "cancel": cancel, "who": who, "argv": argv}
    with lease.acquire(env, who=who, wait=lease.PATIENCE) as held:
        events.repaired(repair(overlay, env, held))
        events.check_cancel()
        _settle(ctx, held, who)
        history = History(overlay)
        target = history.newest() if revision is None else history.target(revision)
        if target is None:
            raise OverlayError("cannot-undo", "There is nothing to undo.", status=409)
        is_reset = target.root.get("action") == "reset"
        if not is_reset:
            later = history.later(target)
            why = _obstacle(ctx, env, target.tip)
            if not why:
                _check_users(env, target, later)
                return _Offline(ctx, env, target, events).run(held, who, argv)
    if is_reset:
        from overlayspawner.payload import reset

        return dict(reset.undo_reset(ctx, **common))
    events.say("resolving", f"Revision {target.number} has to be undone by installing: {why}.")
    return _planned(ctx, history, target, later, common)


def _settle(ctx: Context, held: lease.Lease, who: str) -> None:
    """Record what another tool did since: that is a change too, and the newest."""
    try:
        adopt.settle(ctx, held, who=who)
    except OSError:
        pass
    except OverlayError as e:
        if e.code != "env-broken":  # taking back a reset needs no env
            raise


def undoable(ctx: Context) -> Optional[dict[str, Any]]:
    """Return what :func:`undo` without a number would take back: ``{"revision", "offline"}``, or ``None``.

    Changes nothing; looks at no other files than those of that change, and not at each question: a page asks
    every few seconds, and the storage may be slow.
    """
    if ctx.overlay is None or ctx.env is None:
        return None
    target = History(ctx.overlay).newest()
    if target is None:
        return None
    key = (ctx.env.path, target.number, tuple(map(_mtime, (ctx.env.site_packages, ctx.env.state))))
    known = _known.get(key)
    if known is None or time.monotonic() - known[0] > _KNOWN_FOR:
        offline = target.root.get("action") == "reset" or not _obstacle(ctx, ctx.env, target.tip)
        _known.clear()
        known = _known[key] = (time.monotonic(), offline)
    return {"revision": target.number, "offline": known[1]}


_KNOWN_FOR = 60.0
"""Seconds for which the answer whether a change can be undone offline is taken as still true."""

_known: dict[tuple[Any, ...], tuple[float, bool]] = {}


def forget() -> None:
    """What is kept for undoing has changed."""
    _known.clear()


def _mtime(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _obstacle(ctx: Context, env: Env, tip: dict[str, Any]) -> str:
    """Say why a change can't be undone with files that are there; ``""`` when it can."""
    overlay, _ = ctx.require()
    if (tip.get("base") or {}).get("key") != ctx.base.key or tip.get("env") != os.path.relpath(
        env.path, overlay.path
    ):
        return "it was made for another image"
    placed, aside = tip.get("files"), tip.get("aside")
    known = isinstance(placed, list) and isinstance(aside, list) and tip.get("change")
    if not known or tip.get("action") == "adopt":
        return "it was not made by overlayspawner"
    if not tip.get("kept", tip.get("undo", "") is not None):
        return "what it replaced was not kept"
    for path, inode, size in placed or ():
        try:
            info = os.lstat(os.path.join(env.path, path))
        except OSError:
            return f"{path} is missing"
        if (info.st_ino, info.st_size) != (inode, size):
            return f"{path} was changed since"
    if not all(os.path.lexists(os.path.join(env.state, place)) for _, place in aside or ()):
        return "what it replaced is no longer kept"
    return ""


def _check_users(env: Env, target: Target, later: Sequence[dict[str, Any]]) -> None:
    """Refuse what would take a package away from changes that were made afterwards."""
    paths = [path for path, *_ in (*target.tip["files"], *target.tip["aside"])]
    changed = set(_dists(env, paths))
    there = dists.overlay_dists(env)
    for data in later:
        for item in (data.get("plan") or {}).get("new") or []:
            dist = there.get(item.get("name"))
            if dist is None or dist.name in changed:
                continue
            wanted = dists.needs([(dist.name, ())], {dist.name: dist}.get)
            used = sorted(changed & (set(wanted) - {dist.name}))
            if used:
                raise OverlayError(
                    "cannot-undo",
                    f"{dist.name}, installed later by revision {data['id']}, needs {used[0]}.",
                    f"Undo revision {data['id']} first.",
                    status=409,
                )


def _planned(
    ctx: Context,
    history: History,
    target: Target,
    later: Sequence[dict[str, Any]],
    common: dict[str, Any],
) -> dict[str, Any]:
    number = history.without(target)
    if number is None:
        after = f"; revision {later[-1]['id']} came after it" if later else ""
        raise OverlayError(
            "cannot-undo",
            f"Revision {target.number} can't be undone by itself{after}.",
            "Undo the later changes first, or restore an earlier state (`overlay history` shows them).",
            status=409,
        )
    from overlayspawner.payload import restore

    labels = {"action": "undo", "undoes": target.number, "undo": "download"}
    common["argv"] = common["argv"] or ["undo", str(target.number)]
    return restore.restore(ctx, number, labels=labels, **common)


class _Offline:
    """One undoing with the files that are there."""

    def __init__(self, ctx: Context, env: Env, target: Target, events: Events) -> None:
        self.ctx = ctx
        self.overlay, self.env = ctx.require()
        self.target = target
        self.events = events
        self.sources: dict[str, str] = dict(target.tip["aside"])
        self.staged: Tree = {}
        self.placed: list[tuple[str, int, int]] = []

    def run(self, held: lease.Lease, who: str, argv: Sequence[str]) -> dict[str, Any]:
        tip, number = self.target.tip, self.target.number
        for path, place in sorted(self.sources.items()):
            self._collect(path, os.path.join(self.env.state, place))
        gone = _with_metadata(self.env, [path for path, _, _ in tip["files"]])
        name = f"{revisions.next_id(self.overlay):06d}-{os.urandom(4).hex()}"
        ops = plan_ops(self.env, self.staged, tree_of(gone), name, self.sources)
        add, remove = self._lines(Requirements.read(self.overlay.requirements))
        plan = self._plan(gone)
        self._refuse(plan, gone)
        self.events.check_cancel()
        self.events.say("committing", "Moving the files back.")
        revision = Commit(
            overlay=self.overlay,
            env=self.env,
            name=name,
            stage="",
            ops=ops,
            add=add,
            remove=remove,
            revision={
                "when": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "who": who,
                "action": "undo",
                "undoes": number,
                "undo": "offline",
                "argv": [redact(word) for word in argv] or ["undo", str(number)],
                "base": {"key": self.ctx.base.key, "lock": self.ctx.base_lock or self.ctx.base.lock()},
                "env": os.path.relpath(self.env.path, self.overlay.path),
                "plan": plan,
            },
            placed=self.placed,
            again=self._again(),
        ).run(held)
        lockfile.write(self.ctx, self.env, revision=revision["id"])
        Mark.read(self.env).undone(self.overlay, self.ctx, self.target.root, revision["id"])
        root = self.target.root["id"]
        back = self.target.tip["id"] != root and self.target.number == self.target.tip["id"]
        self.events.say(
            "done", f"Revision {root} is in effect again." if back else f"Revision {root} was undone."
        )
        return {"revision": {**revisions.summary(revision), "changed": True}, "plan": plan}

    def _collect(self, path: str, full: str) -> None:
        """Put what was set aside for a path into the tree of what comes in."""
        node = self.staged
        *folders, name = path.split("/")
        for part in folders:
            below = node.setdefault(part, {})
            assert isinstance(below, dict)
            node = below
        if os.path.isdir(full) and not os.path.islink(full):
            below = node.setdefault(name, {})
            assert isinstance(below, dict)
            for entry in sorted(os.listdir(full)):
                if entry != "__pycache__":
                    self._collect(f"{path}/{entry}", os.path.join(full, entry))
        else:
            info = os.lstat(full)
            node[name] = (info.st_ino, info.st_size)
            self.placed.append((path, info.st_ino, info.st_size))

    def _refuse(self, plan: dict[str, Any], gone: Iterable[str]) -> None:
        """Refuse to bring back what the hub's rules would not let in.

        Raises
        ------
        OverlayError
            ``policy``, ``size-limit``.
        """
        back = _dists(self.env, [path for path, _, _ in self.placed])
        if back:
            plan["blocked"] = gate.blocked(self.ctx, back)
            gate.refuse_blocked(self.ctx, plan["blocked"], back)
            gate.refuse_size(self.ctx, dists.overlay_dists(self.env), _dists(self.env, gone), plan["bytes"])

    def _lines(self, now: Requirements) -> tuple[list[str], list[str]]:
        """Return the lines to set and the names to remove: only what the change did, and only if it is so."""
        listed = self.target.tip.get("requirements") or {}
        before, after = (
            {redact(entry.key): entry.text for entry in Requirements("\n".join(lines)).entries()}
            for lines in (listed.get("before") or [], listed.get("after") or [])
        )
        there = {redact(entry.key): entry for entry in now.entries()}
        add: list[str] = []
        remove: list[str] = []
        for key in sorted({*before, *after}):
            old, new, current = before.get(key), after.get(key), there.get(key)
            # what was edited by hand since is the user's
            if old == new or (redact(current.text) if current else None) != new:
                continue
            if old is None:
                assert current is not None
                remove.append(current.key)
            elif _HIDDEN in old:
                self.events.say(
                    "resolving", f"{key} stays as it is in requirements.txt: credentials are not recorded."
                )
            else:
                add.append(old)
        return add, remove

    def _again(self) -> dict[str, list[str]]:
        """Return the edits by hand that the change had put into effect: in the file they stay, and wait."""
        told = self.target.tip.get("realised") or {}
        before, after = (
            {entry.key: entry.text for entry in Requirements("\n".join(told.get(when) or ())).entries()}
            for when in ("before", "after")
        )
        now = {redact(entry.key): entry for entry in merge.last(self.overlay).entries()}
        out: dict[str, list[str]] = {"set": [], "drop": []}
        for key in sorted({*before, *after}):
            old, new, current = before.get(key), after.get(key), now.get(key)
            if old == new or (redact(current.text) if current else None) != new:
                continue
            if old is not None:
                out["set"].append(old)
            elif current is not None:
                out["drop"].append(current.key)
        return out

    def _plan(self, gone: Iterable[str]) -> dict[str, Any]:
        there = dists.overlay_dists(self.env)
        leaving = set(_dists(self.env, gone))
        back = {
            name: plans.Item(dist.version)
            for name, dist in _dists(self.env, [path for path, _, _ in self.placed]).items()
        }
        plan = plans.build(
            new=back,
            overlay={
                name: plans.Item(dist.version, dists.details(dist).size if name in leaving else 0)
                for name, dist in there.items()
            },
            base={name: dist.version for name, dist in dists.base_dists(self.ctx).items()},
            requested=Requirements.read(self.overlay.requirements).names(),
            uninstalled=sorted(leaving - set(back)),
        )
        plan["bytes"] = sum(size for _, _, size in self.placed)
        return plan


def _with_metadata(env: Env, paths: Iterable[str]) -> list[str]:
    """Return files with all that stands in the metadata directories among them.

    Tools write there later; what stayed behind would look like a package.
    """
    site = os.path.relpath(env.site_packages, env.path)
    out = set(paths)
    for entry in sorted({_entry(site, path) for path in out} - {""}):
        for folder, _, names in os.walk(os.path.join(env.site_packages, entry)):
            out.update(os.path.relpath(os.path.join(folder, name), env.path) for name in names)
    return sorted(out)


def _dists(env: Env, paths: Iterable[str]) -> dict[str, dists.Dist]:
    """Return the distributions whose metadata is among paths."""
    site = os.path.relpath(env.site_packages, env.path)
    found = (dists.from_entry(env.site_packages, entry) for entry in {_entry(site, path) for path in paths})
    return {dist.name: dist for dist in found if dist is not None}


def _entry(site: str, path: str) -> str:
    """Return the metadata directory or file in a path of the env, ``""`` when there is none."""
    if not path.startswith(site + "/"):
        return ""
    top = path[len(site) + 1 :].partition("/")[0]
    return top if top.endswith((".dist-info", ".egg-info")) else ""
