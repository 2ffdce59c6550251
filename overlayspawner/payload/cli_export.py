"""The command that writes an overlay down for other tools."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from overlayspawner.payload import cli_context, cli_output
from overlayspawner.payload.export import FILES


def add(verb: Any) -> None:
    """Declare the command; see :func:`overlayspawner.payload.cli_changes.add`."""
    export = verb(
        "export",
        _export,
        "write the overlay down for use elsewhere",
        examples=(
            ("overlay export > requirements.txt", "what you asked for"),
            ("overlay export --pinned", "with the versions that are installed"),
            ("overlay export --format dockerfile -o Dockerfile", "an image that has it all"),
        ),
        shape="{format, filename, content, notes}",
        quiet="no notes",
    )
    export.add_argument(
        "--format",
        choices=tuple(FILES),
        default="requirements",
        help="a list, a lock, a project, a Dockerfile, or the command that rebuilds it in its image",
    )
    export.add_argument("-o", "--output", metavar="FILE", default="", help="write it there")
    export.add_argument(
        "--pinned", action="store_true", help="exact versions instead of the lines as they were written"
    )


def _export(options: argparse.Namespace) -> int:
    from overlayspawner.payload import export_facts
    from overlayspawner.payload.export import export

    facts = export_facts.read(cli_context.of(options).for_changes())
    made = export(facts, options.format, pinned=options.pinned)
    content = str(made["content"])
    to_file = options.output not in ("", "-")
    if to_file:
        cli_output.write(options.output, content)
    if options.json:
        cli_output.as_json(made)
        return 0
    if not to_file:
        sys.stdout.write(content)
        sys.stdout.flush()
    if options.quiet:
        return 0
    for note in made["notes"]:  # type: ignore[attr-defined]
        print(f"note: {cli_output.printable(note)}", file=sys.stderr)
    return 0
