"""Which packages an import that failed may need: what is known, or was the user's own; never a guess.

A package that merely has the name of the module is none: anybody may have registered it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from overlayspawner.payload import envs, imported, lockfile, restore, revisions
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, base_dists, listing, overlay_dists, user_site
from overlayspawner.payload.gate import policy_of
from overlayspawner.payload.once import Once, identity
from overlayspawner.payload.requirements import normalise

SOURCES = ("known", "record", "lock", "history")
"""How a package may be known to have a module, the surest first."""

MAX_NAME = 200
"""Characters of a module's name."""

MAX_PACKAGES = 10

_CODE = (".py", ".so", ".pyd")
_RESTORING = ("running", "waiting", "pending")


def check(module: str) -> str:
    """Return the name of a module, or refuse it.

    Raises
    ------
    OverlayError
        ``bad-request``.
    """
    if len(module) > MAX_NAME or not all(part.isidentifier() for part in module.split(".")):
        raise OverlayError("bad-request", "That is not the name of a module, as `import` takes it.")
    return module


def packages(ctx: Context, module: str) -> dict[str, Any]:
    """Return what is known to have a module, in the shape of the REST interface.

    Parameters
    ----------
    module:
        As in an import, perhaps with dots.

    Raises
    ------
    OverlayError
        ``bad-request`` for what is no module's name; ``policy``: a rule of the hub can't be understood.
    """
    parts = check(module).split(".")
    base = base_dists(ctx)
    mine = overlay_dists(ctx.env) if ctx.env is not None else {}
    local = {dist.name: dist for dist in listing(user_site(ctx))}
    found: dict[str, str] = {}
    for source, names in (
        ("known", imported.known(parts)),
        ("record", _recorded(parts, [mine, base, local, *_of_other_images(ctx)])),
        ("lock", _same(parts, _locked(ctx))),
        ("history", _same(parts, _earlier(ctx))),
    ):
        for name in names:
            found.setdefault(name, source)
    policy = policy_of(ctx)
    hidden = ctx.spec.user_site == "never" or (ctx.overlay is not None and ctx.overlay.kind != "overlay")
    there = {*mine, *base, *(() if hidden else local)}  # what a kernel finds
    # what the hub's rules refuse is not offered; a search tells why
    found = {name: source for name, source in found.items() if name in there or not policy.refusal(name)}
    return {
        "module": module,
        "packages": [
            {"name": name, "source": source, "installed": name in there}
            for name, source in list(found.items())[:MAX_PACKAGES]
        ],
        "restoring": restoring(ctx),
    }


def restoring(ctx: Context) -> bool:
    """Whether packages are being installed again, or soon will be. Never raises."""
    state = (restore.state(ctx) or {}).get("state")
    return state in _RESTORING and not (state == "pending" and ctx.spec.restore == "manual")


# -- what RECORDs tell ------------------------------------------------------------------------------------


def _of_other_images(ctx: Context) -> Iterator[Mapping[str, Dist]]:
    if ctx.overlay is None or ctx.env is None:
        return
    for env in envs.others(ctx.overlay, ctx.env):
        yield overlay_dists(env)


def _recorded(parts: list[str], places: Iterable[Mapping[str, Dist]]) -> Iterator[str]:
    for dists in places:
        depths = {name: depth for name, dist in dists.items() if (depth := _depth(parts, dist))}
        deepest = max(depths.values(), default=0)
        yield from sorted(name for name, depth in depths.items() if depth == deepest)


def _depth(parts: list[str], dist: Dist) -> int:
    """Return how many parts of a module's name a distribution has, 0 where it has nothing of it.

    The first part alone says nothing where it is a namespace that many share.
    """
    regular = _tops(dist).get(parts[0])
    if regular is None:
        return 0
    paths = [path for path in _paths(dist) if path.startswith(parts[0])] if parts[1:] else []
    for length in range(len(parts), 1, -1):
        start = "/".join(parts[:length])
        if any(path.startswith((f"{start}/", f"{start}.")) for path in paths):
            return length
    return 1 if regular else 0


_known_tops: Once[dict[str, bool]] = Once()


def _tops(dist: Dist) -> dict[str, bool]:
    """Return the first parts of the modules it has, each with whether it is more than a namespace."""
    try:
        return _known_tops.get(dist.path, identity(dist.path), lambda: _read_tops(dist))
    except OSError:
        return {}


def _read_tops(dist: Dist) -> dict[str, bool]:
    # of an editable one, and of what has old metadata, only this tells
    out = dict.fromkeys((dist.read("top_level.txt") or "").split(), True)
    for path in _paths(dist):
        top, inside, rest = path.partition("/")
        if not path.endswith(_CODE) or top == "..":
            continue
        name = top if inside else top.partition(".")[0]
        if name.isidentifier():
            out[name] = out.get(name, False) or not inside or rest.startswith("__init__.")
    return out


def _paths(dist: Dist) -> list[str]:
    """Return the paths in RECORD. A table of all files, so it is not taken apart more than needed."""
    lines = (dist.read("RECORD") or "").splitlines()
    return [line.partition(",")[0].strip('"') for line in lines]


# -- what the user had ------------------------------------------------------------------------------------


def _same(parts: list[str], names: Iterable[str]) -> list[str]:
    """Return the names that the module's is the same as: what the user had is no stranger's."""
    wanted = {normalise("-".join(parts[:length])).replace("-", "") for length in range(1, len(parts) + 1)}
    return sorted({name for name in names if name.replace("-", "") in wanted})


def _locked(ctx: Context) -> set[str]:
    if ctx.overlay is None or ctx.env is None:
        return set()
    try:
        own = lockfile.find(ctx.overlay, ctx.env)
        locks = [*([own] if own else []), *lockfile.others(ctx.overlay, ctx.env)]
    except (OSError, OverlayError):
        return set()
    return {name for lock in locks for name in lock.packages}


def _earlier(ctx: Context) -> set[str]:
    if ctx.overlay is None:
        return set()
    out: set[str] = set()
    for revision in revisions.list_revisions(ctx.overlay):
        plan = revision.get("plan")
        for item in plan.get("new") or () if isinstance(plan, dict) else ():
            if isinstance(item, dict) and isinstance(item.get("name"), str):
                out.add(normalise(item["name"]))
    return out
