"""The page of engines and checks, made from what `make engine` found: `docs/reference/engines.json`."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "reference" / "engines.json"

PAGE = """# What works on which engine

The same checks run on every engine, on the real thing: a hub, users, servers, packages from an index.
`make engine ENGINE=docker` runs them on one; see [Development](../development.md#engines).

{table}
{reasons}"""


def page() -> str:
    """Return the page."""
    results = json.loads(RESULTS.read_text())
    names = list(results["engines"])
    reasons: list[str] = []
    lines = [
        "| check | " + " | ".join(results["names"][name] for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for check, text in results["checks"].items():
        cells = [_cell(results["engines"][name].get(check, "not run"), reasons) for name in names]
        lines.append(f"| {text} | " + " | ".join(cells) + " |")
    told = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return PAGE.format(
        table="\n".join(lines) + "\n", reasons="\n".join(["Does not apply:\n", *told, ""]) if told else ""
    )


def _cell(told: str, reasons: list[str]) -> str:
    if told in ("passed", "failed", "not run"):
        return told
    if told not in reasons:
        reasons.append(told)
    return f"does not apply ({reasons.index(told) + 1})"
