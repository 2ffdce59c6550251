"""The lock of an env: the exact versions and hashes of the overlay's packages, in ``pylock.toml``.

What the base gives is not in it, only the base's fingerprint. It is written after a change, from what is
known on this machine (uv's cache, pip's report, ``direct_url.json``, the lock before): a change neither waits
for the network nor fails because of it. A revision's number tells whether a lock is that of the latest
change.

A second copy stays in ``OVERLAY/locks``, where it outlives the env: one that is rebuilt, or that ends with
its container, is restored from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Optional

from overlayspawner.payload import files, revisions, snapshot
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, overlay_dists
from overlayspawner.payload.once import Once
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.pylock import Lock, Locked, clean, dumps, read, remember

__all__ = ["Lock", "Locked", "compiled_here", "find", "others", "path", "read", "stale", "write"]


def path(overlay: Overlay, env: Env) -> str:
    """Return where the copy that outlives the env is."""
    return os.path.join(overlay.path, "locks", f"pylock.{os.path.basename(env.path)}.toml")


def find(overlay: Overlay, env: Env) -> Optional[Lock]:
    """Return the lock of an env: its own, or the copy of it; ``None`` when neither can be read."""
    for file in (env.lock_file, path(overlay, env)):
        try:
            return read(file)
        except (OSError, OverlayError):
            continue
    return None


def others(overlay: Overlay, env: Env) -> list[Lock]:
    """Return the locks of the overlay's other envs, the latest change first."""
    folder = os.path.join(overlay.path, "locks")
    mine = os.path.basename(path(overlay, env))
    try:
        names = sorted(n for n in os.listdir(folder) if n.endswith(".toml") and n != mine)
    except OSError:
        return []
    out = []
    for name in names:
        try:
            out.append(read(os.path.join(folder, name)))
        except (OSError, OverlayError):
            continue
    return sorted(out, key=lambda lock: lock.revision, reverse=True)


def stale(overlay: Overlay, env: Env) -> bool:
    """Whether the lock is not that of the env's latest change: it was cut short, or is damaged."""
    last = _last(overlay, env)
    lock = find(overlay, env)
    return last > 0 and (lock is None or lock.revision != last)


# -- writing --------------------------------------------------------------------------------------------


def write(
    ctx: Context,
    env: Env,
    *,
    revision: int = 0,
    origins: Optional[Mapping[str, Mapping[str, Any]]] = None,
) -> bool:
    """Write the lock of an env as it is now. Best effort: never raises, never asks the network.

    Parameters
    ----------
    revision:
        Number of the change it belongs to; the env's latest when left out.
    origins:
        What an installer told about where packages came from: tables of PEP 751 by name.

    Returns
    -------
    bool
        Whether it was written. One that was not can be told by its revision (:func:`stale`).
    """
    try:
        overlay, _ = ctx.require()
        lock = _collect(ctx, overlay, env, origins or {})
        lock.revision = revision or _last(overlay, env)
        text = dumps(lock)
        for target in (env.lock_file, path(overlay, env)):
            files.mkdir(os.path.dirname(target))
            # the temporary file lies where the next writer sweeps
            tmp = files.write_temp(os.path.join(env.state, "pylock.toml"), text, sync=False)
            try:
                files.rename(tmp, target)
            except OSError:
                # on another file system: an env that lives in the container
                files.discard(tmp)
                files.write_atomic(target, text, sync=False)
            remember(target, lock)
    except (OSError, OverlayError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _last(overlay: Overlay, env: Env) -> int:
    name = os.path.basename(env.path)
    for number in reversed(revisions.ids(overlay)[-50:]):
        data = revisions.read(overlay, number)
        if data is not None and os.path.basename(str(data.get("env") or "")) == name:
            return number
    return 0


def _collect(ctx: Context, overlay: Overlay, env: Env, origins: Mapping[str, Mapping[str, Any]]) -> Lock:
    lock = Lock(
        base={"key": ctx.base.key, "lock": ctx.base_lock or ctx.base.lock()}, python=ctx.base.full_version
    )
    known: dict[str, Locked] = {}
    own = find(overlay, env) or Lock()
    for other in [*others(overlay, env), own]:
        known.update(
            (name, item) for name, item in other.packages.items() if item.sources and not item.direct
        )
    unknown = []
    stamps = {name: item["record"] for name, item in (snapshot.read(env) or {}).items()}
    for name, dist in overlay_dists(env).items():
        compiled, direct = _facts(dist, stamps.get(name) or snapshot.stamp(dist))
        last = own.packages.get(name)
        if (
            last is not None
            and (last.version, last.compiled) == (dist.version, compiled)
            and name not in origins
        ):
            # what was not known then, here or in another lock, is not known now
            told = direct if direct is not None else known[name].sources if name in known else {}
            if last.sources == told:
                lock.packages[name] = last
                continue
        item = Locked(name, dist.version, compiled=compiled)
        lock.packages[name] = item
        before = known.get(name)
        if direct is not None:
            item.sources = direct
        elif name in origins:
            item.sources = clean(origins[name])
        elif before is not None and before.version == dist.version:
            item.sources = before.sources
        elif name not in own.packages or own.packages[name].version != dist.version:
            unknown.append(item)  # asked once: what was not known then is not known now
    if unknown:
        _ask(ctx, unknown)
    return lock


def _ask(ctx: Context, items: list[Locked]) -> None:
    """Take from uv's cache where packages came from."""
    from overlayspawner.payload.installer import choose

    tool = choose(ctx)
    ask = getattr(tool, "origins", None)
    if ask is None:
        return
    found = ask(ctx, [item.pin(hashes=False) for item in items])
    if not found and 1 < len(items) <= 20:
        # one that uv does not know makes it say nothing about all
        for item in items:
            found.update(ask(ctx, [item.pin(hashes=False)]))
    for item in items:
        item.sources = clean(found.get(item.name) or {})


_read: Once[tuple[bool, Optional[dict[str, Any]]]] = Once()


def _facts(dist: Dist, stamp: list[int]) -> tuple[bool, Optional[dict[str, Any]]]:
    """Whether it was compiled here, and its source; read once for as long as its RECORD stays.

    The change that is being recorded has compared the snapshot with what is there: no need to do so again.
    """
    if not any(stamp):
        return compiled_here(dist), _direct(dist)
    return _read.get(dist.path, stamp, lambda: (compiled_here(dist), _direct(dist)))


def compiled_here(dist: Dist) -> bool:
    """Whether it was compiled here: wheels for others to use are tagged ``manylinux`` or ``musllinux``."""
    tags = [
        line.split(":", 1)[1].strip()
        for line in (dist.read("WHEEL") or "").splitlines()
        if line[:4] == "Tag:"
    ]
    return any(tag.rsplit("-", 1)[-1].startswith("linux_") for tag in tags)


def _direct(dist: Dist) -> Optional[dict[str, Any]]:
    """Return the source of what came from a URL or a folder; ``None`` for what came from an index."""
    try:
        data = json.loads(dist.read("direct_url.json") or "{}")
        url = str(data.get("url") or "")
        if not url:
            return None
        inside = {"subdirectory": str(data["subdirectory"])} if data.get("subdirectory") else {}
        if "vcs_info" in data:
            info = data["vcs_info"]
            vcs: dict[str, Any] = {"type": str(info["vcs"]), "url": url, "commit-id": str(info["commit_id"])}
            if info.get("requested_revision"):
                vcs["requested-revision"] = str(info["requested_revision"])
            return clean({"vcs": {**vcs, **inside}})
        if "dir_info" in data:
            editable = bool(data["dir_info"].get("editable"))
            return clean({"directory": {"path": url, "editable": editable, **inside}})
        archive = data.get("archive_info") or {}
        hashes = dict(archive.get("hashes") or {})
        if not hashes and "=" in str(archive.get("hash") or ""):
            hashes = dict([str(archive["hash"]).split("=", 1)])
        return clean({"archive": {"url": url, "hashes": hashes, **inside}})
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
