"""What is not right with an env after other tools worked on it, how that is told, and how it is put right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from overlayspawner.payload import gate, leftovers, merge, snapshot
from overlayspawner.payload.change import repair
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import notice
from overlayspawner.payload.dists import listing
from overlayspawner.payload.lease import PATIENCE, acquire, storage_error
from overlayspawner.payload.overlay import Env

OnEvent = Callable[[dict[str, Any]], None]


def flagged(env: Env, content: snapshot.Snapshot) -> list[str]:
    """Return the names that a snapshot calls missing, but for those whose last files are gone by now."""
    return sorted(
        name
        for name, item in content.items()
        if item.get("missing") and not (item["files"] and snapshot.gone(env, item))
    )


def missing(ctx: Context) -> list[str]:
    """Return the names of distributions whose metadata is gone while files of theirs are there."""
    if ctx.env is None:
        return []
    return flagged(ctx.env, snapshot.read(ctx.env) or {})


def notices(ctx: Context) -> list[dict[str, str]]:
    """Return what the user should know.

    ``env-broken``, ``packages-missing``, ``packages-partial``, ``against-policy``, ``requirements-pending``.

    Never raises. Costs a directory listing and a few ``stat`` calls for each distribution.
    """
    if ctx.overlay is None or ctx.env is None:
        return []
    out = []
    damage = ctx.env.damage(venv_base=ctx.base.is_venv and ctx.overlay.kind == "overlay")
    if damage:
        out.append(
            notice(
                "env-broken",
                f"The overlay's environment is damaged ({damage}); kernels use the image's packages only.",
                "Run `overlay doctor --fix`, or restart your server: what you asked for is still known.",
            )
        )
    lost = missing(ctx)
    if lost:
        out.append(
            notice(
                "packages-missing",
                f"The metadata of {_some(lost)} is gone, but not all the files.",
                "Run `overlay doctor --fix` to install it again, or `overlay uninstall` to give it up.",
            )
        )
    partial = sorted({str(i["name"]) for i in leftovers.leftovers(ctx.env) if i["kind"] == "partial"})
    if partial:
        out.append(
            notice(
                "packages-partial",
                f"The installation of {_some(partial)} was interrupted; it is not complete.",
                "Run `overlay doctor --fix` to install it again.",
            )
        )
    out += gate.notices(ctx)
    edited = merge.notice(ctx.overlay)
    return [*out, edited] if edited else out


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def mend(
    ctx: Context, *, who: str = "", on_event: Optional[OnEvent] = None, argv: Sequence[str] = ()
) -> list[str]:
    """Repair what interrupted tools left, and return what was done, a sentence each.

    What pip renamed and replaced is set aside. What is not complete is taken out of the env, and installed
    again by a restore where something asks for it.

    Raises
    ------
    OverlayError
        ``busy``, or what kept a package from being installed again: it stays *missing* until it is.
    """
    from overlayspawner.payload.adopt import settle

    overlay, env = ctx.require()
    try:
        with acquire(env, who=who, wait=PATIENCE) as lease:
            repair(overlay, env, lease)
            settle(ctx, lease, who=who)
            done = [f"Set aside what pip left behind: {name}." for name in leftovers.clear(env)]
            broken = {d.name: d for d in listing(env.site_packages) if leftovers.is_partial(d)}
            names = sorted({*broken, *missing(ctx)})
            if not names:
                return done
            content = snapshot.read(env) or {}
            for name, dist in broken.items():
                content[name] = {
                    "version": dist.version,
                    "entry": "",
                    "record": [0, 0, 0],
                    "files": [],
                    "missing": True,
                }
            snapshot.write(env, content)
            for dist in broken.values():
                lease.check()
                leftovers.set_aside(env, dist.path)
    except OSError as e:
        raise storage_error(e) from e
    from overlayspawner.payload.restore import restore

    restore(ctx, None, on_event=on_event, who=who, argv=list(argv) or ["doctor", "--fix"])
    there = {dist.name for dist in listing(env.site_packages)}
    try:
        with acquire(env, who=who, wait=PATIENCE):
            left = snapshot.read(env) or {}
            snapshot.write(env, {n: i for n, i in left.items() if n in there or n not in names})
    except OSError as e:
        raise storage_error(e) from e
    for name in names:
        if name in there:
            done.append(f"Installed {name} again.")
        else:
            done.append(f"Took out what was left of {name}, which nothing asks for.")
    return done


def summary(items: Sequence[Mapping[str, Any]]) -> str:
    """Name what is left, for a check's message."""
    return _some([str(item["name"] or item["path"].rsplit("/", 1)[-1]) for item in items])
