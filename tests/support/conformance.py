#!/usr/bin/env python3
"""The whole table of tests/payload/test_conformance.py with every tool; renews what the manual says of it.

    python tests/support/conformance.py [PYTEST OPTION ...]

The exit code is pytest's. Cases that failed are shown as such, and nothing else is hidden.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "resolution.md"
BEGIN, END = "<!-- conformance -->\n", "<!-- end of conformance -->\n"
MARKS = {"same": "yes", "differs": "**other**", "refused": "refused", "failed": "**FAILED**"}


def table(lines: list[dict[str, str]]) -> str:
    """Return the table in Markdown."""
    cases = list(dict.fromkeys(line["case"] for line in lines))
    tools = list(dict.fromkeys(line["tool"] for line in lines))
    state = {(line["case"], line["tool"]): line["state"] for line in lines}
    out = ["| | " + " | ".join(tools) + " |", "|---|" + "---|" * len(tools)]
    for case in cases:
        cells = [MARKS.get(state.get((case, tool), ""), "not run") for tool in tools]
        out.append(f"| {case.replace('|', '/')} | " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def ordered(lines: list[dict[str, str]]) -> list[dict[str, str]]:
    """Sort as the test's own table is: workers come to their cases in another order."""
    sys.path.insert(0, str(ROOT))
    from tests.payload.test_conformance import CASES, TOOLS

    cases, tools = [case.name for case in CASES], list(TOOLS)
    order = [tool for newest in ("uv", "pip") for tool in sorted(tools, key=lambda t: "newest" not in t)
             if tool.startswith(newest)]  # fmt: skip
    return sorted(lines, key=lambda line: (cases.index(line["case"]), order.index(line["tool"])))


def main() -> int:
    """Run it; see the module's text."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "outcomes")
        out.touch()
        environ = {**os.environ, "OVERLAYSPAWNER_CONFORMANCE": str(out)}
        test = str(ROOT / "tests" / "payload" / "test_conformance.py")
        argv = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", test, *sys.argv[1:]]
        code = subprocess.run(argv, env=environ, cwd=ROOT, check=False).returncode
        lines = [json.loads(line) for line in out.read_text().splitlines()]
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + "\n" + table(ordered(lines)) + "\n" + END + after)
    return code


if __name__ == "__main__":
    sys.exit(main())
