"""Which versions of a package there are, and why the one that is asked for can't be had here."""

from __future__ import annotations

import functools
import re
from typing import Any, Optional

from overlayspawner.payload.installer.asking import File, Release, releases
from overlayspawner.payload.requirements import packaging

_SHOWN = 5
_SYSTEMS = (("win", "Windows"), ("macosx", "macOS"), ("musllinux", "Alpine Linux"), ("ios", "iOS"))
_MACHINE = re.compile(r"(x86_64|aarch64|arm64|amd64|armv7l|i686|ppc64le|s390x|riscv64|win32)$")


def known_versions(name: str, files: list[File]) -> list[str]:
    """Return the versions that an index has, the newest first."""
    return [release.version for release in _sorted(releases(name, files))]


def unavailable(name: str, specifier: str, files: list[File], python: str) -> Optional[tuple[str, str]]:
    """Return why no version fits, and what to do; ``None`` where one should.

    Parameters
    ----------
    name:
        Normalised.
    specifier:
        The versions that are asked for, ``""`` for any.
    files:
        What the index has.
    python:
        Version of the base's Python.
    """
    there = _sorted(releases(name, files))
    if not there:
        return f"{name} has no files that could be installed.", "Ask for another package."
    short = ".".join(python.split(".")[:2])
    fitting = [r for r in there if admits(specifier, r.version)]
    usable = [r for r in there if not _hindrance(r, python, short) and not r.yanked]
    stable = [r for r in usable if not is_pre(r.version)] or usable
    newest = f"The newest for this Python is {stable[0].version}." if stable else ""
    hint = (
        f"Ask for {name}=={stable[0].version}."
        if stable
        else "Ask for another package, or use an image with another Python."
    )
    if not fitting:
        return (
            f"{name} has no version {_wanted(specifier)}: there are {_some([r.version for r in there])}.",
            hint,
        )
    why = [(r, _hindrance(r, python, short)) for r in fitting]
    first, hindrance = why[0]
    if not hindrance:
        if all(r.yanked for r in fitting):
            return (
                f"{name} {first.version} was taken back by its authors (yanked). {newest}".strip(),
                hint if stable else f"If you need it all the same, ask for {name}=={first.version}.",
            )
        pre = [r for r in fitting if is_pre(r.version) and not r.yanked]
        if pre:
            return (
                f"{name} has nothing but pre-releases that fit: {_some([r.version for r in pre])}.",
                f"If you want one, name it: {name}=={pre[0].version}.",
            )
        return None
    others = sorted({h for _, h in why[1:] if h} - {hindrance})
    sentence = (
        f"{name} {first.version} {hindrance}; this image has {short}."
        if "Python" in hindrance
        else (f"{name} {first.version} {hindrance}.")
    )
    if len(fitting) > 1 and not others:
        sentence += f" So do {len(fitting) - 1} other versions." if "needs" in hindrance else ""
    return f"{sentence} {newest}".strip(), hint


def _hindrance(release: Release, python: str, short: str) -> str:
    if release.requires_python and not admits(release.requires_python, python):
        return f"needs Python {release.requires_python}"
    if release.source or not release.tags or _supported(release.tags):
        return ""
    pythons = sorted({p for tag in release.tags for p in _pythons(tag)}, key=key)
    systems = list(dict.fromkeys(filter(None, (_system(tag) for tag in release.tags))))
    if pythons and short not in pythons and not any(_any_python(tag) for tag in release.tags):
        more = f" on {_some(systems)}" if systems and "Linux" not in " ".join(systems) else ""
        return f"has files for Python {_some(pythons)}{more} only"
    return f"has files for {_some(systems) or 'other systems'} only, not for this one"


def _pythons(tags: str) -> list[str]:
    out = []
    for tag in tags.split("-")[0].split("."):
        match = re.fullmatch(r"(?:cp|pp)(\d)(\d+)", tag)
        if match:
            out.append(f"{match[1]}.{match[2]}")
    return out


def _any_python(tags: str) -> bool:
    return tags.startswith(("py3", "py2.py3")) or "-abi3-" in tags


def _system(tags: str) -> str:
    platform = tags.split("-")[2]
    machine = _MACHINE.search(platform)
    more = f" ({machine[1]})" if machine and machine[1] != "win32" else ""
    for prefix, name in _SYSTEMS:
        if platform.startswith(prefix):
            return name + more
    return f"Linux{more}" if "linux" in platform else ""


@functools.lru_cache(maxsize=1)
def own_tags() -> dict[str, int]:
    """Return the tags of wheels for this Python, each with its rank; empty where that can't be told."""
    library = packaging()
    try:
        import importlib

        known = importlib.import_module(library.__name__ + ".tags")
        return {str(tag): rank for rank, tag in reversed(list(enumerate(known.sys_tags())))}
    except Exception:
        return {}


def rank_of(tags: str) -> Optional[int]:
    """Return how well a wheel suits this Python, 0 the best; ``None`` where it does not."""
    first, second, third = (part.split(".") for part in tags.split("-"))
    known = own_tags()
    ranks = [known.get(f"{a}-{b}-{c}") for a in first for b in second for c in third]
    return min((rank for rank in ranks if rank is not None), default=None)


def _supported(tags: list[str]) -> bool:
    """Whether one of several wheels is for this system; without ``packaging`` that can't be told."""
    return not own_tags() or any(rank_of(tag) is not None for tag in tags)


@functools.lru_cache(maxsize=4096)
def admits(specifier: str, version: str) -> bool:
    """Whether a specifier has a version in it; true where that can't be told."""
    library = packaging()
    if not specifier or library is None:
        return True
    try:
        return bool(library.specifiers.SpecifierSet(specifier).contains(version, prereleases=True))
    except Exception:
        return True


def is_pre(version: str) -> bool:
    """Whether a version is a pre-release, however it is written: ``1.0-beta1``, ``1.0c1``."""
    library = packaging()
    try:
        return bool(library.version.Version(version).is_prerelease)
    except Exception:  # no library, or an old version scheme
        return _pre(version)


def _pre(version: str) -> bool:
    return re.search(r"\d(?:a|b|rc|\.?dev)\d*", version) is not None


def _sorted(found: list[Release]) -> list[Release]:
    return sorted(found, key=lambda release: key(release.version), reverse=True)


def key(version: str) -> Any:
    """Return what sorts a version among others."""
    library = packaging()
    try:
        return (1, library.version.Version(version))
    except Exception:
        return (0, [int(part) for part in re.findall(r"\d+", version)])


def _wanted(specifier: str) -> str:
    return specifier[2:] if specifier.startswith("==") and "," not in specifier else specifier


def _some(items: list[str]) -> str:
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
