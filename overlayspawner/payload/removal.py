"""What leaves an overlay: which distributions an uninstall takes along, and which files are theirs alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, needs, record
from overlayspawner.payload.overlay import BASE_PTH, Env
from overlayspawner.payload.requirements import Requirement, packaging


def check(
    names: Sequence[str], requested: Iterable[str], overlay: Mapping[str, Dist], base: Mapping[str, Dist]
) -> None:
    """Refuse to uninstall what is not the overlay's.

    Raises
    ------
    OverlayError
        ``in-base`` for the image's packages, ``not-installed`` for others.
    """
    asked = set(requested)
    for name in names:
        if name in overlay or name in asked:
            continue
        if name in base:
            raise OverlayError(
                "in-base",
                f"{name} belongs to the image and can't be uninstalled from here.",
                "Install another version to hide it.",
                status=409,
            )
        raise OverlayError(
            "not-installed", f"{name} is not installed in this overlay.", "See `overlay list`.", status=404
        )


def check_present(names: Iterable[str], known: set[str]) -> None:
    """Refuse to upgrade what is not there: it would come without a line, and be gone with the next env.

    Raises
    ------
    OverlayError
        ``not-installed``.
    """
    for name in names:
        if name not in known:
            raise OverlayError(
                "not-installed",
                f"{name} is not installed, so there is nothing to upgrade.",
                f"Install it: overlay install {name}",
                status=404,
            )


def leaving(
    names: Sequence[str],
    remaining: Sequence[Requirement],
    overlay: Mapping[str, Dist],
    base: Mapping[str, Dist],
) -> tuple[list[str], list[str]]:
    """Return the distributions that leave: those named, and those that nothing needs any more.

    Candidates are the named ones and what they need. Of these stays whatever a remaining requirement, or a
    distribution that is no candidate, needs and the base can't give.

    Parameters
    ----------
    names:
        Normalised names to uninstall.
    remaining:
        All requirement lines that stay.
    overlay, base:
        What there is.

    Raises
    ------
    OverlayError
        ``conflict`` when something that stays needs a named one that nobody asked for in a line.
    """

    if not names:
        return [], []

    def visible(name: str) -> Dist | None:
        return overlay.get(name) or base.get(name)

    candidates = {name for name in needs([(n, ()) for n in names], visible) if name in overlay}
    asked = {(r.name, r.extras) for r in remaining if r.name}
    roots = [*asked, *((name, ()) for name in overlay if name not in candidates)]
    wanted: dict[str, list[Any]] = {}
    library = packaging()

    def edge(name: str, specifier: Any) -> None:
        wanted.setdefault(name, []).append(specifier)

    for requirement in remaining:
        edge(requirement.name, _specifier(library, requirement))
    reached = needs(roots, visible, on_edge=edge)
    # what goes because the base has it need not be walked again: the base's own needs are met by the base
    stays = {
        name
        for name in candidates & reached
        if name not in base or not _fits(base[name].version, wanted.get(name, []), library)
    }
    return (
        sorted(name for name in names if name in candidates - stays),
        sorted(name for name in candidates - stays if name not in names),
    )


def staying(
    names: Sequence[str],
    leaving: Iterable[str],
    requested: Iterable[str],
    overlay: Mapping[str, Dist],
    remaining: Sequence[Requirement],
) -> list[tuple[str, str]]:
    """Return those of ``names`` that can't be uninstalled, each with what needs it.

    Parameters
    ----------
    names, leaving:
        What was asked for, and what of it leaves.
    requested:
        Names that had a line before.
    overlay, remaining:
        What there is, and the lines that stay.

    Raises
    ------
    OverlayError
        ``conflict`` for one that had no line: then nothing would happen at all.
    """
    going, asked_before = set(leaving), set(requested)
    out = []
    for name in names:
        if name in going or name not in overlay:
            continue
        users = sorted(n for n, d in overlay.items() if n != name and name in needs([(n, ())], {n: d}.get))
        by = ", ".join(users or [r.text for r in remaining if r.name == name]) or "another package"
        if name not in asked_before:
            raise OverlayError(
                "conflict",
                f"{name} is needed by {by}; nothing was changed.",
                f"Uninstall {by} first.",
                status=409,
            )
        out.append((name, by))
    return out


def _specifier(library: Any, requirement: Requirement) -> Any:
    if requirement.url or library is None:
        return None
    return library.requirements.Requirement(requirement.text).specifier


def _fits(version: str, specifiers: Iterable[Any], library: Any) -> bool:
    """Whether a version meets all specifiers; an unknown one counts as not met."""
    if library is None:
        return False
    try:
        return all(s is not None and s.contains(version, prereleases=True) for s in specifiers)
    except Exception:
        return False


def owned_files(env: Env, dists: Iterable[Dist], staying: Iterable[Dist]) -> list[str]:
    """Return the files of distributions, relative to the env, that no distribution that stays lists as well.

    Paths outside the env (a damaged or malicious RECORD) and our own files are left out. The metadata
    directory is taken as a whole: tools write there without telling RECORD.

    Parameters
    ----------
    dists:
        Those that leave or are replaced.
    staying:
        The other distributions of the overlay. Of these only such are read closely that seem to share a
        top-level name, so that the cost follows the change.
    """
    site = os.path.relpath(env.site_packages, env.path)
    out: set[str] = set()
    for dist in dists:
        for path, _ in record(dist):
            found = inside(site, path)
            if found is not None and os.path.lexists(os.path.join(env.path, found)):
                out.add(found)
        out.update(_metadata_files(env, dist))
    if out:
        out -= _shared(site, out, staying)
    return sorted(out)


def inside(site: str, path: str) -> str | None:
    """Return a RECORD path relative to the env, or ``None`` for what a package has no say in."""
    if not path or os.path.isabs(path) or "\0" in path:
        return None
    found = os.path.normpath(os.path.join(site, path))
    top, _, rest = found.partition("/")
    if (
        top in ("..", ".", ".overlay", "pyvenv.cfg", "pip.conf", "pylock.toml")
        or found == f"{site}/{BASE_PTH}"
    ):
        return None
    if top == "bin" and (rest in ("pip", "pip3") or rest.startswith("python")):
        return None
    return found


def _metadata_files(env: Env, dist: Dist) -> list[str]:
    if os.path.islink(dist.path) or not os.path.isdir(dist.path):
        return [os.path.relpath(dist.path, env.path)]
    out: list[str] = []
    for folder, _, names in os.walk(dist.path):
        out.extend(os.path.relpath(os.path.join(folder, name), env.path) for name in names)
    return out


def _shared(site: str, paths: set[str], staying: Iterable[Dist]) -> set[str]:
    """Return those of ``paths`` that a distribution that stays lists too."""
    below = site + "/"
    marks = set()
    for path in paths:
        rel = path[len(below) :] if path.startswith(below) else os.path.relpath(path, site)
        top, slash, _ = rel.partition("/")
        # below site-packages the top-level folder is enough to look closer; elsewhere folders are everyone's
        marks.add((top + slash if top != ".." else rel).encode("utf-8", "surrogateescape"))
    out: set[str] = set()
    for dist in staying:
        text = (dist.read("RECORD") or "").encode("utf-8", "surrogateescape")
        if not any(mark in text for mark in marks):
            continue
        for path, _ in record(dist):
            found = inside(site, path)
            if found in paths:
                out.add(found)
    return out
