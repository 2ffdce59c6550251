"""An env at another path than the one it was made at: the home is mounted elsewhere now.

An env finds its packages by itself wherever it lies. What names its path is rewritten, in one change like any
other: first lines of scripts, our own commands, and the places of projects that are used from where they lie
(in the home, which has moved along).
"""

from __future__ import annotations

import csv
import datetime
import io
import os
import re
import stat
from collections.abc import Sequence
from typing import Any, Optional
from urllib.request import pathname2url

from overlayspawner.payload import files, lockfile, revisions
from overlayspawner.payload import plan as plans
from overlayspawner.payload.change import Commit, repair
from overlayspawner.payload.context import Context
from overlayspawner.payload.dists import listing, record_rows
from overlayspawner.payload.events import Events, OnEvent
from overlayspawner.payload.lease import Lease, acquire, storage_error
from overlayspawner.payload.moves import Tree, plan_ops, tree_of
from overlayspawner.payload.overlay import BASE_PTH, Env, env_pip
from overlayspawner.payload.procs import Cancel
from overlayspawner.payload.stage import Stage, fix_shebang, record_row

_OWN = re.compile(r"exec '((?:[^']|'\\'')+)/bin/python' -m pip ")
_LARGEST = 1_000_000
"""A file of more bytes than this is no script's launcher, and no list of paths."""


def moved_from(env: Env) -> str:
    """Return the path that an env was made at if it is another one now, else ``""``. Reads one small file."""
    for name in ("pip", "pip3"):
        try:
            with open(os.path.join(env.bin, name), encoding="utf-8", errors="surrogateescape") as f:
                match = _OWN.search(f.read(8192))
        except OSError:
            continue
        if match is None:
            continue  # a pip that somebody installed here
        old = match[1].replace("'\\''", "'")
        if old == env.path:
            return ""
        try:
            # another way to the same place works as it is
            return "" if os.path.samefile(old, env.path) else old
        except OSError:
            return old
    return ""


def relocate(
    ctx: Context,
    *,
    on_event: Optional[OnEvent] = None,
    cancel: Optional[Cancel] = None,
    who: str = "",
    argv: Sequence[str] = (),
) -> Optional[dict[str, Any]]:
    """Rewrite what names the env's old path; ``None`` when nothing does.

    Parameters
    ----------
    on_event, cancel, who, argv:
        As for every change.

    Returns
    -------
    dict or None
        ``{"revision": …, "plan": …}``.

    Raises
    ------
    OverlayError
        ``busy``, or what the storage says. Nothing was changed.
    """
    overlay, env = ctx.require()
    events = Events(on_event, cancel)
    if not moved_from(env):
        return None
    try:
        with acquire(env, who=who, wait=2.0) as lease:
            repair(overlay, env, lease)
            old = moved_from(env)
            if not old:
                return None
            return _change(ctx, old, lease, events, who, argv)
    except OSError as e:
        raise storage_error(e) from e


def _change(
    ctx: Context, old: str, lease: Lease, events: Events, who: str, argv: Sequence[str]
) -> dict[str, Any]:
    overlay, env = ctx.require()
    with Stage(env) as stage:
        events.say("staging", f"Rewriting what names {old}.")
        paths = _rewrite(ctx, env, stage, old)
        events.check_cancel()
        name = f"{revisions.next_id(overlay):06d}-{os.urandom(4).hex()}"
        placed = [(path, *_stat(os.path.join(stage.prefix, path))) for path in paths]
        plan = plans.build(new={}, overlay={}, base={})
        change = Commit(
            overlay=overlay,
            env=env,
            name=name,
            stage=stage.prefix_name,
            ops=plan_ops(env, _tree(placed), tree_of(paths), name),
            revision={
                "when": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "who": who,
                "action": "relocate",
                "argv": list(argv) or ["doctor", "--fix"],
                "base": {"key": ctx.base.key, "lock": ctx.base_lock or ctx.base.lock()},
                "env": os.path.relpath(env.path, overlay.path),
                "plan": plan,
                "moved_from": old,
            },
            placed=placed,
        )
        events.say("committing", "Moving the files into place.")
        revision = change.run(lease)
        lockfile.write(ctx, env, revision=revision["id"])
    events.say("done", "The overlay's commands name the new path.")
    return {"revision": {**revisions.summary(revision), "changed": True}, "plan": plan}


def _rewrite(ctx: Context, env: Env, stage: Stage, old: str) -> list[str]:
    """Write new versions of the files into the stage; return their paths, relative to the env."""
    overlay, _ = ctx.require()
    site = os.path.relpath(env.site_packages, env.path)
    changed: dict[str, bytes] = {}
    own = env_pip(env, ctx.base, overlay.kind).encode("utf-8", "surrogateescape")
    for name in ("pip", "pip3"):
        raw = _read(os.path.join(env.bin, name))
        if raw is not None and _OWN.search(raw[:8192].decode("utf-8", "surrogateescape")):
            changed[f"bin/{name}"] = own
    homes = _homes(env, old, ctx.home)
    for dist in listing(env.site_packages):
        rows = record_rows(dist) if not dist.is_egg else None
        mine: dict[str, bytes] = {}
        for row in rows or []:
            path = os.path.normpath(os.path.join(site, row[0])) if row else ""
            raw = _read(os.path.join(env.path, path)) if _may_name(path, site) else None
            fixed = _fixed(raw, path, env, ctx, old, homes) if raw is not None else None
            if fixed is not None:
                mine[row[0]] = fixed
        if not mine:
            continue
        new = [record_row(row[0], mine[row[0]]) if row and row[0] in mine else row for row in rows or []]
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(new)
        where = os.path.relpath(os.path.join(dist.path, "RECORD"), env.path)
        changed[where] = out.getvalue().encode("utf-8", "surrogateescape")
        changed.update((os.path.normpath(os.path.join(site, path)), raw) for path, raw in mine.items())
    for path, raw in changed.items():
        target = os.path.join(stage.prefix, path)
        _parents(os.path.dirname(target))
        files.write_atomic(target, raw, _mode(os.path.join(env.path, path)), sync=False)
    return sorted(changed)


def _may_name(path: str, site: str) -> bool:
    """Whether a file may name the env's path, or that of a project that is used from where it lies."""
    if path.startswith("bin/"):
        return True
    if not path.startswith(site + "/") or path == f"{site}/{BASE_PTH}":
        return False
    below = path[len(site) + 1 :]
    if "/" not in below:
        return below.endswith((".pth", ".egg-link")) or below.startswith("__editable__")
    return below.endswith(".dist-info/direct_url.json")


def _fixed(
    raw: bytes, path: str, env: Env, ctx: Context, old: str, homes: Optional[tuple[str, str]]
) -> Optional[bytes]:
    if path.startswith("bin/"):
        return fix_shebang(raw, env, ctx.base, old) if raw.startswith(b"#!") else None
    if homes is None:
        return None
    if path.endswith("direct_url.json"):
        homes = (pathname2url(homes[0]), pathname2url(homes[1]))
    before, after = (os.fsencode(home) for home in homes)
    new = re.sub(rb"(?<![\w./-])((?:file://)?)" + re.escape(before) + rb"(?=/)", lambda m: m[1] + after, raw)
    return new if new != raw else None


def _homes(env: Env, old: str, home: str) -> Optional[tuple[str, str]]:
    """Return the home's old and new path, told by the overlay's place in it."""
    below = os.path.relpath(env.path, home)
    if below.startswith("..") or not old.endswith(os.sep + below):
        return None
    before = old[: -len(below) - 1]
    return (before, home.rstrip("/")) if before and before != home.rstrip("/") else None


def _tree(placed: list[tuple[str, int, int]]) -> Tree:
    root: Tree = {}
    for path, inode, size in placed:
        *folders, name = path.split("/")
        node = root
        for folder in folders:
            below = node.setdefault(folder, {})
            assert isinstance(below, dict)
            node = below
        node[name] = (inode, size)
    return root


def _parents(path: str) -> None:
    if not os.path.isdir(path):
        _parents(os.path.dirname(path))
        files.mkdir(path)


def _read(path: str) -> Optional[bytes]:
    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _LARGEST:
            return None
        with open(path, "rb") as f:
            return f.read()
    except (OSError, ValueError):
        return None


def _mode(path: str) -> int:
    try:
        return stat.S_IMODE(os.lstat(path).st_mode)
    except OSError:
        return 0o644


def _stat(path: str) -> tuple[int, int]:
    info = os.lstat(path)
    return info.st_ino, info.st_size
