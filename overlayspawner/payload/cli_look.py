"""The commands that look: list, status, history, doctor."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from overlayspawner.payload import cli_context, cli_find, cli_output, cli_progress
from overlayspawner.payload.sentences import amount


def add(verb: Any) -> None:
    """Declare the commands; see :func:`overlayspawner.payload.cli_changes.add`."""
    listing = verb(
        "list",
        _list,
        "list installed packages",
        examples=(
            ("overlay list", "what you have installed"),
            ("overlay list --scope base", "what the image has"),
            ("overlay list --outdated", "what has a newer version that fits; asks the index"),
            ("overlay list --quiet", "names only"),
        ),
        shape="{packages: [{name, version, where, requested, administrator, shadows, size, summary}]}",
        quiet="names only",
    )
    listing.add_argument(
        "--scope",
        choices=("overlay", "base", "user-site"),
        default="overlay",
        help="yours (overlay), the image's (base), or those in ~/.local (user-site)",
    )
    listing.add_argument(
        "--outdated", action="store_true", help="what you asked for and has a newer version that fits"
    )
    verb(
        "status",
        _status,
        "show which overlay this is and how it is",
        examples=(("overlay status", ""),),
        shape="{overlay, kind, lifetime, path, env, base, mode, notices, sizes, next_start, restore,"
        " undoable, pending}",
        quiet="notices only",
    )
    verb(
        "history",
        _history,
        "list the changes that were made: who, when, what",
        examples=(("overlay history", "the numbers are those of `overlay undo` and `overlay restore`"),),
        shape="{revisions: [{id, when, who, action, argv, kept, ...}]}",
        quiet="numbers only",
    )
    doctor = verb(
        "doctor",
        _doctor,
        "look for problems and explain them",
        examples=(("overlay doctor", ""), ("overlay doctor --fix", "repair what can be repaired")),
        shape="{checks: [{name, ok, message, hint}], fixed: [text]}",
        quiet="problems only",
    )
    doctor.add_argument("--fix", action="store_true", help="repair what can be repaired")


def _list(options: argparse.Namespace) -> int:
    from overlayspawner.payload.dists import packages

    if options.outdated:
        return cli_find.outdated(options)
    context = cli_context.of(options, missing=True).for_changes()
    # before the first installation there is no overlay, and nothing in it
    nothing = options.scope == "overlay" and context.overlay is None and context.mode == "normal"
    found = [] if nothing else packages(context, options.scope)
    if options.json:
        cli_output.as_json({"packages": found})
    elif options.quiet:
        cli_output.lines([str(p["name"]) for p in found])
    elif sys.stdout.isatty():
        rows = [
            (str(p["name"]), str(p["version"]), _mark(p), _amount(p["size"]), str(p["summary"] or ""))
            for p in found
        ]
        cli_output.table(rows, ("Package", "Version", "", "Size", "About"), right=(3,), cut=True)
        if not rows and options.scope == "overlay":
            cli_output.lines(["Nothing is installed yet. For example: overlay install humanize"])
    else:
        cli_output.table([(str(p["name"]), str(p["version"]), _mark(p)) for p in found])
    return 0


def _mark(package: dict[str, object]) -> str:
    """Say why a package is there, and what it hides."""
    why = "requested" if package["requested"] else ""
    if package.get("administrator"):
        why = "administrator"
    hides = f"hides {package['shadows']}" if package["shadows"] else ""
    return ", ".join(filter(None, (why, hides)))


def _amount(size: object) -> str:
    return amount(size) if isinstance(size, int) and size else ""


_SIZES = (
    ("undo", "kept for undo"),
    ("cache", "cache"),
    ("other_envs", "other images"),
    ("kept", "moved aside"),
)
"""What else takes space, as it was measured last; `overlay clean` frees it."""


def _status(options: argparse.Namespace) -> int:
    from overlayspawner.payload import report

    data = report.status(cli_context.of(options, missing=True))
    if options.json:
        cli_output.as_json(data)
        return 0
    restore = data["restore"]
    if not options.quiet:
        cli_output.table([row for row in _status_rows(data) if row[1]])
    for item in restore["failed"] if restore is not None else ():
        text = f"not restored: {item['requirement']}: {item['reason']} {item['hint']}"
        cli_output.lines([text.rstrip()])
    for item in data["notices"]:
        text = cli_output.printable(f"{item['message']} {item['hint']}".rstrip())
        print(cli_output.paint(f"notice [{item['code']}]:", "yellow"), text)
    return 0


def _status_rows(data: dict[str, Any]) -> list[tuple[str, str]]:
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
    return rows


def _history(options: argparse.Namespace) -> int:
    from overlayspawner.payload import report

    found = report.history(cli_context.of(options, missing=True).for_changes())
    if options.json:
        cli_output.as_json({"revisions": found})
        return 0
    if options.quiet:
        cli_output.lines([str(revision.get("id")) for revision in found])
        return 0
    undone = {revision.get("undoes") for revision in found}
    rows = []
    for revision in found:
        when, who = _local(str(revision.get("when", ""))), str(revision.get("who") or "")
        rows.append((str(revision.get("id")), when, who, _words(revision, undone)))
    cli_output.table(rows, ("No.", "When", "By", "What"), right=(0,))
    if not rows and sys.stdout.isatty():
        cli_output.lines(["Nothing was changed yet."])
    return 0


def _words(revision: dict[str, Any], undone: set[Any]) -> str:
    """Say what was done in a change."""
    words = " ".join(str(word) for word in revision.get("argv", [revision.get("action")]))
    if revision.get("action") == "undo":
        words += "" if revision.get("undoes") else " (a reset)"
        words += " (by a download)" if revision.get("undo") == "download" else ""
    adopted = revision.get("action") == "adopt"
    if not (revision.get("kept", True) or revision.get("id") in undone or adopted):
        words += " (undo needs a download)"
    if revision.get("folder"):
        words += f" (moved to {revision['folder']})"
    return words


def _local(when: str) -> str:
    """Return a time as people on a terminal read it; in a pipe as it is."""
    if not sys.stdout.isatty():
        return when
    import calendar

    try:
        moment = calendar.timegm(time.strptime(when, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return when
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _doctor(options: argparse.Namespace) -> int:
    from overlayspawner.payload import doctor

    context = cli_context.of(options, missing=True).for_changes()
    show = cli_progress.progress(options.json or options.quiet)

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
            if check["ok"] and options.quiet:
                continue
            mark = cli_output.paint("ok  ", "green") if check["ok"] else cli_output.paint("BAD ", "red")
            print(mark + cli_output.printable(f"{check['name']}: {check['message']}"))
            if not check["ok"] and check["hint"]:
                cli_output.lines([f"     {check['hint']}"])
    return 0 if all(check["ok"] for check in checks) else 1
