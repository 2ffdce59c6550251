"""Where the hub's rules and its limit of size meet a change: before it is resolved, and before it is made.

Only what comes in is looked at. The image's packages, and what is installed and stays as it is, are no affair
of these rules; neither is what leaves.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Optional

from overlayspawner.payload.asked import direct_line
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import OverlayError, notice
from overlayspawner.payload.dists import Dist, base_dists, details, needs, overlay_dists
from overlayspawner.payload.fitting import HINT, Refused, split_pin
from overlayspawner.payload.installer.index import limits_of
from overlayspawner.payload.limits import NONE
from overlayspawner.payload.policy import Blocked, Policy
from overlayspawner.payload.requirements import Requirement, parse
from overlayspawner.payload.sentences import amount, source_sentence
from overlayspawner.payload.sources import applies
from overlayspawner.payload.stage import Stage, name_of_url
from overlayspawner.payload.wishes import admits

_SHOWN = 5
_PINNED = re.compile(r"^={2,3}\s*([^*,\s]+)$")


def policy_of(ctx: Context) -> Policy:
    """Return the rules of the hub.

    Raises
    ------
    OverlayError
        ``policy`` where one can't be understood.
    """
    return Policy(ctx.spec.allow, ctx.spec.deny, limits_of(ctx) if ctx.spec.only_binary else NONE)


# -- before anything is resolved --------------------------------------------------------------------------


def refused(
    policy: Policy, wanted: Iterable[Requirement], there: Mapping[str, Dist], *, anew: bool = False
) -> Refused:
    """Return the lines of which it can be told by their words that they may not come in.

    Parameters
    ----------
    there:
        What is there by name. A line that it may satisfy is left to the look at what has come.
    anew:
        No such look follows, or what is there is not good enough.
    """
    out: Refused = []
    for requirement in wanted if policy else ():
        name = requirement.name
        dist = None if anew else there.get(name)
        if policy.limits.refuses(requirement) and not (dist is not None and comes_from(requirement, dist)):
            if applies(requirement):
                out.append((requirement, source_sentence(requirement)))
            continue
        if not name or (dist is not None and admits(requirement, dist.version)):
            continue
        pinned = _PINNED.match(requirement.specifier)
        item = policy.refusal(name, pinned[1] if pinned else "")
        if item is not None and applies(requirement):
            out.append((requirement, policy.sentence(item)))
    return out


def comes_from(requirement: Requirement, dist: Dist) -> bool:
    """Whether a distribution is what a line's URL gave, the same version of it: then nothing is built."""
    try:
        data = json.loads(dist.read("direct_url.json") or "{}")
        line = direct_line(dist.name, data) if isinstance(data, dict) else ""
    except (ValueError, AttributeError):
        return False
    return bool(line) and _bare(parse(line, trusted=True).url) == _bare(requirement.url)


def _bare(url: str) -> str:
    """Return a URL without what is not recorded: credentials, the name after ``#``, variables."""
    return re.sub(r"//[^/@]*@", "//", os.path.expandvars(url)).partition("#")[0].rstrip("/")


def refuse_asked(
    ctx: Context,
    install: Iterable[Requirement],
    upgrade: Iterable[str] = (),
    *,
    anew: bool = False,
) -> None:
    """Refuse what may not come in, as far as its name tells.

    Parameters
    ----------
    install, upgrade:
        What is asked for. Upgrading means another version than the one that is there.
    anew:
        See :func:`refused`.

    Raises
    ------
    OverlayError
        ``policy``.
    """
    policy = policy_of(ctx)
    if not policy:
        return
    _, env = ctx.require()
    there = {**base_dists(ctx), **overlay_dists(env)}
    found = refused(policy, install, there, anew=anew)
    found += refused(policy, [parse(name) for name in upgrade], {}, anew=True)
    if found:
        raise error([sentence for _, sentence in found])


def upgradable(ctx: Context, names: Iterable[str]) -> list[str]:
    """Return the names of which some version may come in: the others stay as they are.

    Raises
    ------
    OverlayError
        ``policy`` where there is none among them.
    """
    policy = policy_of(ctx)
    answers = {name: policy.refusal(name) for name in names}
    out = [name for name, item in answers.items() if item is None]
    if answers and not out:
        raise error([policy.sentence(item) for item in answers.values() if item is not None])
    return out


# -- what has come ----------------------------------------------------------------------------------------


def blocked(ctx: Context, staged: Mapping[str, Dist]) -> list[Blocked]:
    """Return what may not come in among the distributions of a stage.

    Raises
    ------
    OverlayError
        ``policy`` where the rules can't be understood.
    """
    return policy_of(ctx).blocked((dist.name, dist.version) for dist in staged.values())


def refuse_blocked(ctx: Context, items: Sequence[Blocked], staged: Mapping[str, Dist]) -> None:
    """Refuse a change that would bring in what the rules don't let in.

    Parameters
    ----------
    items:
        What :func:`blocked` returned.
    staged:
        What would come in, to tell what needs what.

    Raises
    ------
    OverlayError
        ``policy``.
    """
    if items:
        policy = policy_of(ctx)
        raise error([policy.sentence(item, _needed_by(item["name"], staged)) for item in items])


def refuse_size(ctx: Context, overlay: Mapping[str, Dist], leaving: Iterable[str], coming: int) -> None:
    """Refuse a change after which the overlay would be larger than the hub allows.

    One that makes it smaller is never refused, even if it stays too large.

    Parameters
    ----------
    overlay:
        What there is.
    leaving:
        Names of what leaves or is replaced.
    coming:
        Bytes that come in.

    Raises
    ------
    OverlayError
        ``size-limit``.
    """
    limit = ctx.spec.max_size
    if not limit or not coming:
        return
    going = set(leaving)
    sizes = {name: details(dist).size for name, dist in overlay.items()}
    before = sum(sizes.values())
    after = before - sum(size for name, size in sizes.items() if name in going) + coming
    if after <= limit or after <= before:
        return
    raise OverlayError(
        "size-limit",
        f"The overlay would hold {amount(after)}, and this hub allows {amount(limit)}: {amount(coming)} would"
        f" be added to what there is ({amount(before)}). Nothing was changed.",
        "Uninstall what you no longer need (`overlay list` shows sizes), or ask your administrator.",
        status=403,
    )


class Judge:
    """Which lines of several may not come in, where the others shall; for ``fitting.Fitting``.

    Parameters
    ----------
    stage:
        Where an attempt leaves what came.
    overlay, base:
        What there is.
    """

    code = "policy"
    hint = HINT

    def __init__(
        self, ctx: Context, stage: Stage, overlay: Mapping[str, Dist], base: Mapping[str, Dist]
    ) -> None:
        self.policy = policy_of(ctx)
        self._stage = stage
        self._overlay = overlay
        self._base = base

    def before(self, lines: Sequence[Requirement]) -> Refused:
        """Return the lines that are not worth an attempt."""
        return refused(self.policy, lines, {**self._base, **self._overlay})

    def pins(self, pins: Sequence[str]) -> list[str]:
        """Return the lines of a lock without versions that may not come in: another one perhaps may."""
        return [pin for pin in pins if self.policy.refusal(*split_pin(pin)) is None]

    def after(self, lines: Sequence[Requirement]) -> Refused:
        """Return the lines that brought in what may not come.

        Raises
        ------
        OverlayError
            ``policy`` where it can't be told which line it was.
        """
        if not self.policy or not lines:
            return []
        staged = self._stage.result().apart_from(self._base)
        items = self.policy.blocked((dist.name, dist.version) for dist in staged.values())
        if not items:
            return []

        def visible(name: str) -> Optional[Dist]:
            return staged.get(name) or self._overlay.get(name) or self._base.get(name)

        out: Refused = []
        for line in lines:
            name = line.name or name_of_url(line.url, staged.values())
            reached = needs([(name, line.extras)], visible) if name else set()
            item = next((item for item in items if item["name"] in reached), None)
            if item is not None:
                by = name if item["name"] != name else ""
                out.append((line, self.policy.sentence(item, by)))
        if not out:
            raise error([self.policy.sentence(item) for item in items])
        return out


# -- what other tools did ---------------------------------------------------------------------------------


def told(ctx: Context, dists: Iterable[tuple[str, str]]) -> tuple[list[Blocked], list[str]]:
    """Return what is against the rules among distributions, and a sentence for each. Never raises."""
    try:
        policy = policy_of(ctx)
    except OverlayError:
        return [], []
    items = policy.blocked(dists)
    return items, [policy.sentence(item) for item in items]


def notices(ctx: Context) -> list[dict[str, str]]:
    """Return a notice about what the overlay holds against the rules; looks at names only, never raises."""
    if ctx.env is None or not (ctx.spec.allow or ctx.spec.deny):
        return []
    there = overlay_dists(ctx.env).values()
    _, sentences = told(ctx, ((dist.name, dist.version) for dist in there))
    if not sentences:
        return []
    return [
        notice(
            "against-policy",
            _some(sentences),
            "It is left alone, but not installed again for another image. `overlay uninstall` removes it.",
        )
    ]


# -- words ------------------------------------------------------------------------------------------------


def error(sentences: Sequence[str]) -> OverlayError:
    """Return the error ``policy`` that says why something may not come in."""
    return OverlayError("policy", f"{_some(sentences)} Nothing was changed.", HINT, status=403)


def _some(sentences: Sequence[str]) -> str:
    more = len(sentences) - _SHOWN
    return " ".join(sentences[:_SHOWN]) + (f" {more} more may not come in." if more > 0 else "")


def _needed_by(name: str, staged: Mapping[str, Dist]) -> str:
    """Return the name of a distribution among what comes that needs another; ``""`` for none."""
    for other, dist in sorted(staged.items()):
        if other != name and name in needs([(other, ())], {other: dist}.get):
            return other
    return ""
