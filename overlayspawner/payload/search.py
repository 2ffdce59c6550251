"""Finds packages by what somebody types: what is installed, what many people use, and the index's exact hit.

An index has no search that could be asked, so it is asked for the one name that was typed. Where few people
use that package, it stands below those that the name may be a misspelling of, or the beginning: names like
that are registered to be mistyped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from overlayspawner.payload.catalogue import Catalogue, Project
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, base_dists, listing, overlay_dists, summary_of, user_site
from overlayspawner.payload.gate import policy_of
from overlayspawner.payload.installer import similar
from overlayspawner.payload.requirements import normalise

MOST = 30
"""Results."""

MOST_BEFORE = 7
"""Results above a name of the index that few people use."""

MAX_TEXT = 200
"""Characters of what is searched for."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.ASCII)
_TAIL = re.compile(r"\s*(?:\[[^\]]*\])?\s*(?:[<>=!~@;].*)?\Z")
_CALLED, _EXACT, _BARE, _BEGINS, _PART, _INSIDE, _WORDS, _CLOSE = range(8)


@dataclass(frozen=True)
class There:
    """One installed package.

    Parameters
    ----------
    where:
        ``overlay``, ``user-site`` or ``base``.
    """

    version: str
    where: str
    dist: Dist

    @property
    def summary(self) -> str:
        """One line about it."""
        return summary_of(self.dist)


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Parameters
    ----------
    text:
        Shown.
    name:
        The package that may be meant, normalised; ``""`` where it can't be a name.
    words:
        What name and summary have to hold.
    """

    text: str
    name: str
    words: tuple[str, ...]


def understood(text: str) -> Query:
    """Return what is searched for: of any text, without spaces and other characters that nobody sees.

    Raises
    ------
    OverlayError
        ``bad-request``: it is too long.
    """
    if len(text) > MAX_TEXT:
        raise OverlayError("bad-request", f"What is searched for has more than {MAX_TEXT} characters.")
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = " ".join("".join(c if c.isprintable() else " " for c in plain).split())
    # a requirement is as good as a name, and so are words
    name = _TAIL.sub("", plain).replace(" ", "-")
    found = _NAME.fullmatch(name)
    words = tuple(plain.replace("-", " ").replace("_", " ").split())
    return Query(plain, normalise(name) if found and len(name) <= 100 else "", words)


def installed(ctx: Context) -> dict[str, list[There]]:
    """Return what is installed by name, each with the one that is used first."""
    mine = overlay_dists(ctx.env) if ctx.env is not None else {}
    local = {dist.name: dist for dist in listing(user_site(ctx))}
    scopes: list[tuple[str, Mapping[str, Dist]]] = [
        ("overlay", mine),
        ("user-site", local),
        ("base", base_dists(ctx)),
    ]
    if ctx.spec.user_site == "never":
        scopes.append(scopes.pop(1))
    out: dict[str, list[There]] = {}
    for where, dists in scopes:
        for name, dist in dists.items():
            out.setdefault(name, []).append(There(dist.version, where, dist))
    return out


def search(ctx: Context, catalogue: Catalogue, text: str) -> dict[str, Any]:
    """Return what is found, the best first, in the shape of the REST interface.

    Parameters
    ----------
    text:
        As the user typed it.

    Raises
    ------
    OverlayError
        ``bad-request``, ``policy``.
    """
    query = understood(text)
    empty: dict[str, Any] = {"query": query.text, "results": [], "index": "skipped"}
    if not query.words:
        return empty
    policy = policy_of(ctx)
    there = installed(ctx)
    popular = similar.popular()
    scores, near = _scores(query, there, popular)
    project = None
    if query.name and query.name not in there:
        project = catalogue.glance(query.name)
    hit = project if project is not None and project.state == "found" else None
    if hit is not None and query.name not in scores:
        scores[query.name] = _EXACT
    ordered = sorted(
        scores, key=lambda name: (scores[name], name not in there, popular.get(name, 9), len(name), name)
    )
    if hit is not None and query.name not in popular:
        # first what may be meant, and what the name may be the beginning of
        first = [name for name in ordered if name in near]
        first += [name for name in ordered if scores[name] <= _BEGINS and name not in (*near, query.name)]
        first = [*first[:MOST_BEFORE], query.name]
        ordered = [*first, *(name for name in ordered if name not in first)]
    results: list[dict[str, Any]] = []
    for name in ordered:
        blocked = None if name in there else policy.refusal(name)
        if blocked is not None and scores[name] > _BARE:
            continue  # what is refused is told of only to who asks for it
        results.append(
            {
                **_result(name, there.get(name), hit if name == query.name else None),
                "source": "installed" if name in there else "popular" if name in popular else "index",
                "blocked": policy.sentence(blocked) if blocked is not None else None,
            }
        )
        if len(results) == MOST:
            break
    return {**empty, "results": results, "index": _told(project.state if project else "skipped")}


def _result(name: str, there: Optional[list[There]], hit: Optional[Project]) -> dict[str, Any]:
    if there:
        first = there[0]
        return {"name": name, "version": first.version, "summary": first.summary, "where": first.where}
    newest = hit.newest if hit else None
    return {
        "name": name,
        "version": newest.version if newest else None,
        "summary": hit.about[0] if hit and hit.about else "",
        "where": None,
    }


def _told(state: str) -> str:
    return {"found": "found", "missing": "not-found", "skipped": "skipped"}.get(state, "unreachable")


def _scores(
    query: Query, there: Mapping[str, list[There]], popular: Mapping[str, int]
) -> tuple[dict[str, int], set[str]]:
    """Return name to how well it fits, and the names that may have been meant by another one."""
    out: dict[str, int] = {}
    near: set[str] = set()
    if query.name:
        bare = query.name.replace("-", "")
        for names in (popular, there):
            for name in names:
                score = _of_name(name, query.name, bare)
                if score is not None:
                    out[name] = score
        near = {name for name, score in out.items() if score == _BARE}
    for name, dists in there.items():
        if name not in out:
            text = f"{name} {dists[0].summary}".casefold()
            if all(word in text for word in query.words):
                out[name] = _WORDS
    called = similar.meant(query.name)
    if called:
        near.add(called)
        out[called] = min(out.get(called, _CALLED), _CALLED)
    if query.name and query.name not in out and not called:
        for name in similar.close(query.name, there):
            near.add(name)
            out[name] = min(out.get(name, _CLOSE), _CLOSE)
    return out, near


def _of_name(name: str, wanted: str, bare: str) -> Optional[int]:
    if wanted not in name:
        return _BARE if len(name) >= len(bare) and name.replace("-", "") == bare else None
    if name == wanted:
        return _EXACT
    if name.startswith(wanted):
        return _BEGINS
    return _PART if f"-{wanted}" in name else _INSIDE
