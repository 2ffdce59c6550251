"""A request for a change, read; and what the change starts from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist
from overlayspawner.payload.requirements import Requirement, Requirements, parse_all, parse_name


def parsed(install: Sequence[str], uninstall: Sequence[str], upgrade: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a request, read.

    Raises
    ------
    OverlayError
        ``bad-requirement``, ``option-not-allowed``.
    """
    return {
        "install": parse_all(install),
        "uninstall": [parse_name(name) for name in _texts(uninstall)],
        "upgrade": [parse_name(name) for name in _texts(upgrade)],
    }


def _texts(value: object) -> list[object]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise OverlayError("bad-requirement", "Names must be a list of texts.")
    return list(value)


@dataclass
class Start:
    """What a change starts from: the lines before and after it, what there is, and what leaves."""

    before: Requirements
    after: Requirements
    overlay: dict[str, Dist]
    base: dict[str, Dist]
    admin: list[Requirement]
    remaining: list[Requirement]
    named: list[str]
    unneeded: list[str]
    comes_in: bool
