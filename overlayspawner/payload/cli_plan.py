"""The command that shows what a change would do."""

from __future__ import annotations

import argparse
from typing import Any

from overlayspawner.payload import cli_context, cli_output, cli_progress
from overlayspawner.payload.cli_changes import add_given, interruptible, read_given
from overlayspawner.payload.sentences import amount


def add(verb: Any) -> None:
    """Declare the command; see :func:`overlayspawner.payload.cli_changes.add`."""
    plan = verb(
        "plan",
        _plan,
        "show what a change would do, and change nothing",
        examples=(
            ('overlay plan pandas "numpy<2"', "what would come"),
            ("overlay plan rich --uninstall humanize --upgrade seaborn", "all of that at once"),
        ),
        shape="{new, removes, satisfied_by_base, shadows, breaks, splits, builds, blocked, bytes,"
        " needs_restart, sentences, choices, ...}",
    )
    add_given(plan)
    plan.add_argument("--uninstall", nargs="+", action="extend", default=[], metavar="NAME", help="to remove")
    plan.add_argument(
        "--upgrade", nargs="+", action="extend", default=[], metavar="NAME", help="to bring to newer versions"
    )


def _plan(options: argparse.Namespace) -> int:
    from overlayspawner.payload.planning import plan

    context = cli_context.of(options).for_changes()
    wanted = read_given(options)
    asked: list[Any] = [*wanted.requirements]
    context.spec.constraints = [*context.spec.constraints, *wanted.constraints]
    show = cli_progress.progress(options.json or options.quiet)
    with interruptible() as cancel:
        found = plan(
            context,
            install=asked,
            uninstall=options.uninstall,
            upgrade=options.upgrade,
            on_event=show,
            cancel=cancel,
        )
    show({"phase": "done"})
    if options.json:
        cli_output.as_json(found)
        return 0
    if options.quiet:
        return 0
    cli_output.lines(found["sentences"])
    for item in found["choices"]:
        if item["choice"] == "change":
            cli_output.lines([f"{item['message']} Ask for: {' '.join(item['install'])}"])
        elif item["choice"] == "force":
            cli_output.lines([f"{item['message']} Say so: --anyway"])
    replaced = {item["name"]: item["replaces"] for item in found["new"] if item["replaces"]}
    rows = []
    for item in found["new"]:
        old = replaced.get(item["name"])
        size = amount(item["size"]) if item["size"] else ""
        rows.append(("+", item["name"], item["version"], size, f"instead of {old}" if old else ""))
    rows += [("-", item["name"], item["version"], "", "") for item in found["removes"]]
    cli_output.table(rows, ("", "Package", "Version", "Size", ""), right=(3,))
    return 0
