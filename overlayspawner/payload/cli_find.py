"""The commands that find packages: ``overlay search``, and what is outdated."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from overlayspawner.payload import cli_context, cli_output
from overlayspawner.payload.contract import OverlayError

if TYPE_CHECKING:
    from overlayspawner.payload.context import Context
    from overlayspawner.payload.finder import Finder

_WHERE = {"overlay": "installed", "base": "in the image", "user-site": "in ~/.local", None: ""}


def add(verb: Any) -> None:
    """Declare the command; see :func:`overlayspawner.payload.cli_changes.add`."""
    search = verb(
        "search",
        _search,
        "find packages: what is installed, what many people use, and the index's one of just this name",
        examples=(
            ("overlay search humanize", "a name, or a part of one"),
            ("overlay search scikit learn", "words"),
            ("overlay search cv2", "what is imported"),
        ),
        shape="{query, results: [{name, version, summary, where, source, blocked}], index}",
        quiet="names only",
    )
    search.add_argument("text", nargs="+", metavar="TEXT", help="what you look for")


def outdated(options: argparse.Namespace) -> int:
    """Show newer versions of what was asked for (``overlay list --outdated``)."""
    if options.scope != "overlay":
        raise OverlayError(
            "bad-request",
            "The image's packages, and those of ~/.local, are not upgraded.",
            "Leave out --scope.",
        )
    context = cli_context.of(options, missing=True).for_changes()
    if context.overlay is None and context.mode == "normal":
        # before the first installation there is no overlay, and nothing in it
        found: dict[str, Any] = {"updates": [], "checked": None, "unreachable": False}
    else:
        found = _finder(context).updates()
    updates = found["updates"]
    if options.json:
        cli_output.as_json(found)
    elif options.quiet:
        cli_output.lines([item["name"] for item in updates])
    else:
        rows = [(item["name"], item["version"], item["newest"]) for item in updates]
        cli_output.table(rows, ("Package", "Version", "Newest"))
        if not updates and not found["unreachable"] and sys.stdout.isatty():
            cli_output.lines(["There is nothing newer that fits."])
    if found["unreachable"]:
        print("The package index did not answer about all packages.", file=sys.stderr)
        return 1
    return 0


def _search(options: argparse.Namespace) -> int:
    context = cli_context.of(options, missing=True).for_changes()
    found = _finder(context).search(" ".join(options.text))
    results = found["results"]
    if options.json:
        cli_output.as_json(found)
        return 0
    if options.quiet:
        cli_output.lines([item["name"] for item in results])
    else:
        rows = [
            (item["name"], item["version"] or "", _WHERE[item["where"]], item["blocked"] or item["summary"])
            for item in results
        ]
        cli_output.table(rows, ("Package", "Version", "", "About"), cut=True)
        if not results and sys.stdout.isatty():
            cli_output.lines(["Nothing was found."])
    if found["index"] == "unreachable":
        print("The package index did not answer: only what is known here was searched.", file=sys.stderr)
    return 0


def _finder(context: Context) -> Finder:
    from overlayspawner.payload.finder import Finder

    return Finder(lambda: context)
