"""The command line ``overlay``: the same actions as the REST interface, in a terminal.

It changes the overlay itself rather than asking the server to: it also works where no server runs. The lease
keeps the two apart. Exit codes: 0 done, 1 failed and nothing was changed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from overlayspawner.payload import cli_changes, cli_context, cli_export, cli_output, cli_plan
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.sentences import amount

USAGE_CODES = ("bad-request", "bad-requirement", "option-not-allowed", "unknown-action")
"""Errors that are mistakes in the command: exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``overlay`` and return its exit code.

    Parameters
    ----------
    argv:
        The arguments; those of the process when left out.
    """
    options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except OverlayError as e:
        cli_output.complain(e, options.json)
        return 2 if e.code in USAGE_CODES else 1
    except KeyboardInterrupt:
        cli_output.complain(OverlayError("cancelled"), options.json)
        return 1
    except BrokenPipeError:
        # The reader (`overlay list | head`) has enough. Python would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as e:
        what = f"{e.filename}: {e.strerror}" if e.filename else str(e)
        cli_output.complain(OverlayError("internal", f"The system reported an error: {what}."), options.json)
        return 1
    except Exception as e:
        cli_output.complain(_bug(e), options.json)
        return 1
    return code


def _bug(error: Exception) -> OverlayError:
    """Return what to tell, and to report, about a mistake of ours: where it was, but no traceback."""
    import traceback

    from overlayspawner.payload.procs import redact

    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
    text = redact(f"An unexpected {type(error).__name__} in {where}: {error}")
    return OverlayError("internal", text, "`overlay doctor` checks the overlay; please report this line.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="overlay",
        description="Manage the Python packages you have on top of your server's image.",
        epilog="Exit codes: 0 done, 1 failed and nothing was changed, 2 wrong usage.",
    )
    parser.add_argument("--runtime", default="", help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)

    def verb(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.add_argument("--json", action="store_true", help="print one JSON document")
        sub.set_defaults(run=run)
        return sub

    cli_changes.add(verb)
    cli_plan.add(verb)
    cli_export.add(verb)
    listing = verb("list", _list, "list installed packages")
    listing.add_argument("--scope", choices=("overlay", "base", "user-site"), default="overlay")
    verb("status", _status, "show which overlay this is and how it is")
    verb("history", _history, "list the changes that were made: who, when, what")
    doctor = verb("doctor", _doctor, "look for problems and explain them")
    doctor.add_argument("--fix", action="store_true", help="repair what can be repaired")
    return parser


def _list(options: argparse.Namespace) -> int:
    from overlayspawner.payload.dists import packages

    context = cli_context.find(options.runtime, missing=True).for_changes()
    # before the first installation there is no overlay, and nothing in it
    nothing = options.scope == "overlay" and context.overlay is None and context.mode == "normal"
    found = [] if nothing else packages(context, options.scope)
    if options.json:
        cli_output.as_json({"packages": found})
        return 0
    cli_output.table(
        [(str(p["name"]), str(p["version"]), "requested" if p["requested"] else "") for p in found]
    )
    return 0


_SIZES = (
    ("undo", "kept for undo"),
    ("cache", "cache"),
    ("other_envs", "other images"),
    ("kept", "moved aside"),
)
"""What else takes space, as it was measured last; `overlay clean` frees it."""


def _status(options: argparse.Namespace) -> int:
    from overlayspawner.payload import report

    data = report.status(cli_context.find(options.runtime, missing=True))
    if options.json:
        cli_output.as_json(data)
        return 0
    size, free = data["sizes"]["overlay"], data["sizes"]["free"]
    rows = [
        ("overlay", f"{data['overlay']} ({data['kind']}, {data['lifetime']})"),
        ("path", str(data["path"] or "none yet")),
        ("mode", str(data["mode"])),
        ("next start", "safe: without the overlay" if data["next_start"] == "safe" else ""),
        ("base", f"Python {data['base']['python']}, {data['base']['key']}"),
        ("packages", "" if size is None else amount(size)),
        ("free space", "" if free is None else amount(free)),
        *((words, amount(data["sizes"][key])) for key, words in _SIZES if data["sizes"][key]),
    ]
    if data["base"]["changed"]:
        rows.append(("image", "its packages have changed since the last change of the overlay"))
    restore, undoable, pending = data["restore"], data["undoable"], data["pending"]
    if restore is not None and restore["state"] != "done":
        rows.append(("restore", " ".join(part for part in (restore["state"], restore["why"]) if part)))
    if undoable is not None:
        how = "" if undoable["offline"] else ", needs a download"
        rows.append(("undo", f"change {undoable['revision']}{how}"))
    if pending is not None:
        count = sum(len(found) for found in pending.values())
        rows.append(("edited by hand", f"{count} in requirements.txt: `overlay sync` does what it asks for"))
    cli_output.table([row for row in rows if row[1]])
    for item in restore["failed"] if restore is not None else ():
        text = f"not restored: {item['requirement']}: {item['reason']} {item['hint']}"
        cli_output.lines([text.rstrip()])
    for item in data["notices"]:
        cli_output.lines([f"notice [{item['code']}]: {item['message']} {item['hint']}".rstrip()])
    return 0


def _history(options: argparse.Namespace) -> int:
    from overlayspawner.payload import report

    found = report.history(cli_context.find(options.runtime, missing=True).for_changes())
    if options.json:
        cli_output.as_json({"revisions": found})
        return 0
    rows = []
    undone = {revision.get("undoes") for revision in found}
    for revision in found:
        words = " ".join(str(word) for word in revision.get("argv", [revision.get("action")]))
        if revision.get("action") == "undo":
            words += "" if revision.get("undoes") else " (a reset)"
            words += " (by a download)" if revision.get("undo") == "download" else ""
        adopted = revision.get("action") == "adopt"
        if not (revision.get("kept", True) or revision.get("id") in undone or adopted):
            words += " (undo needs a download)"
        if revision.get("folder"):
            words += f" (moved to {revision['folder']})"
        who = str(revision.get("who") or "")
        rows.append((str(revision.get("id")), str(revision.get("when", "")), who, words))
    cli_output.table(rows)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from overlayspawner.payload import doctor

    context = cli_context.find(options.runtime, missing=True).for_changes()
    show = cli_output.progress(options.json)

    def say(text: str) -> None:
        show({"phase": "examining", "message": text})

    fixed = doctor.fix(context, say=say) if options.fix else []
    checks = doctor.examine(context, say=say)
    show({"phase": "done"})
    if options.json:
        cli_output.as_json({"checks": checks, "fixed": fixed})
    else:
        cli_output.lines([line if line.startswith(doctor.NOT) else f"fixed: {line}" for line in fixed])
        for check in checks:
            mark = "ok  " if check["ok"] else "BAD "
            cli_output.lines([f"{mark}{check['name']}: {check['message']}"])
            if not check["ok"] and check["hint"]:
                cli_output.lines([f"     {check['hint']}"])
    return 0 if all(check["ok"] for check in checks) else 1
