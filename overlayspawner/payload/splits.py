"""Packages torn apart between overlay and base: one layer has a regular package, the other adds to it.

Python takes a directory with ``__init__.py`` for the whole package and looks no further. Of one that lies in
both layers, what only the other layer has can't be imported any more, and no checker of dependencies sees it.
Directories without ``__init__.py`` (namespace packages) are joined, and looked into one level deeper.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from overlayspawner.payload.dists import Dist, record
from overlayspawner.payload.moves import Tree, tree_of

_JOINING = ("extend_path", "declare_namespace")
"""In an ``__init__.py``, what makes a package look into all layers nevertheless."""


def splits(
    staged: Mapping[str, Dist], overlay: Mapping[str, Dist], base: Mapping[str, Dist]
) -> list[dict[str, Any]]:
    """Return what a change would tear apart.

    The cost follows the change: a base is looked at only where it has a directory of the same name.

    Parameters
    ----------
    staged:
        What comes into the overlay, by normalised name.
    overlay:
        What is and stays in it.
    base:
        The distributions of the image.

    Returns
    -------
    list
        ``{package, name, version, regular, lost, install, message}`` each: ``name`` is the distribution
        that comes, ``regular`` the layer (``overlay`` or ``base``) whose part alone can be imported, ``lost``
        the names of the distributions whose part can't, ``install`` the lines that mend it.
    """
    sites = list(dict.fromkeys(dist.site for dist in base.values()))
    own = {*staged, *overlay}
    look = _Look(sites, {name: dist for name, dist in base.items() if name not in own}, base)
    out: dict[str, dict[str, Any]] = {}
    for _, dist in sorted(staged.items()):
        tree = tree_of(path for path, _ in record(dist) if not path.startswith(("..", "/")))
        for package, regular, lost in look.below(dist, "", tree, overlay):
            if package not in out:
                out[package] = _told(dist, package, regular, lost, base)
    return list(out.values())


def _told(
    dist: Dist, package: str, regular: str, lost: Iterable[str], base: Mapping[str, Dist]
) -> dict[str, Any]:
    names = sorted(lost)
    lines = [f"{name}=={base[name].version}" for name in names]
    shown = ", ".join(names)
    if regular == "overlay":
        why = (
            f"{dist.name} brings all of the package {package}; what {shown} of the image adds to it is hidden"
        )
        lost_names = names
    else:
        why = f"{dist.name} adds to the package {package} of the image's {shown}, where Python won't find it"
        lost_names = [dist.name]
    return {
        "package": package,
        "name": dist.name,
        "version": dist.version,
        "regular": regular,
        "lost": lost_names,
        "install": lines,
        "message": f"{why}. Install {' '.join(lines)} in the overlay too.",
    }


class _Look:
    """Looks at the base.

    Parameters
    ----------
    sites:
        Its directories of packages.
    others:
        Its distributions that the overlay has no copy of.
    base:
        All of them.
    """

    def __init__(self, sites: list[str], others: Mapping[str, Dist], base: Mapping[str, Dist]) -> None:
        self._sites = sites
        self._others = others
        self._base = base
        self._texts: dict[str, str] = {}

    def below(
        self, dist: Dist, rel: str, tree: Tree, overlay: Mapping[str, Dist]
    ) -> Iterable[tuple[str, str, set[str]]]:
        """Yield package, regular layer, and the base's distributions that are concerned."""
        for name, node in sorted(tree.items()):
            if not isinstance(node, dict) or name.endswith((".dist-info", ".data")):
                continue
            path = f"{rel}/{name}" if rel else name
            there = [site for site in self._sites if os.path.isdir(os.path.join(site, path))]
            if not there:
                continue
            package = path.replace("/", ".")
            ours = [dist.site, *{other.site for other in overlay.values()}]
            if any(_is_regular(site, path) for site in ours):
                if not _joins(ours, path):
                    lost = self._owners(path, self._foreign(dist, path, node, there))
                    if lost:
                        yield package, "overlay", lost
            elif any(_is_regular(site, path) for site in there):
                if not _joins(there, path):
                    owners = self._owners(path, {"__init__.py"})
                    if owners:
                        yield package, "base", owners
            else:
                yield from self.below(dist, path, node, overlay)

    def _foreign(self, dist: Dist, path: str, tree: Tree, there: Iterable[str]) -> set[str]:
        """Return what the base has in a package besides the distribution's own version of it."""
        found: set[str] = set()
        for site in there:
            found.update(os.listdir(os.path.join(site, path)))
        found -= {"__pycache__", "__init__.py", "py.typed"}
        mine = set(tree)
        same = self._base.get(dist.name)
        if same is not None:
            start = path + "/"
            mine |= {p[len(start) :].split("/")[0] for p, _ in record(same) if p.startswith(start)}
        return found - mine

    def _owners(self, path: str, entries: set[str]) -> set[str]:
        """Return the base's distributions that have one of some entries of a directory."""
        if not entries:
            return set()
        out = set()
        for name, dist in self._others.items():
            if name not in self._texts:
                self._texts[name] = "\n" + (dist.read("RECORD") or "")
            text = self._texts[name]
            if f"\n{path}/" in text and any(
                f"\n{path}/{entry}{end}" in text for entry in entries for end in ("/", ",")
            ):
                out.add(name)
        return out


def _is_regular(site: str, path: str) -> bool:
    return os.path.isfile(os.path.join(site, path, "__init__.py"))


def _joins(sites: Iterable[str], path: str) -> bool:
    for site in sites:
        try:
            with open(os.path.join(site, path, "__init__.py"), encoding="utf-8", errors="replace") as f:
                text = f.read(10_000)
        except OSError:
            continue
        return any(word in text for word in _JOINING)
    return False
