"""The command line ``overlay``: the same actions as the REST interface, in a terminal.

It changes the overlay itself rather than asking the server to: it also works where no server runs. The lease
keeps the two apart. Exit codes: 0 done, 1 failed and nothing was changed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from overlayspawner.payload.contract import OverlayError

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
        _complain(e, options.json)
        return 2 if e.code in USAGE_CODES else 1
    except KeyboardInterrupt:
        _complain(OverlayError("cancelled"), options.json)
        return 1
    except BrokenPipeError:
        # The reader (`overlay list | head`) has enough. Python would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as e:
        what = f"{e.filename}: {e.strerror}" if e.filename else str(e)
        _complain(OverlayError("internal", f"The system reported an error: {what}."), options.json)
        return 1
    return code


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

    install = verb("install", _install, "install packages")
    install.add_argument(
        "requirements", nargs="*", metavar="REQUIREMENT", help="as for pip: name, name>=2, URL"
    )
    install.add_argument(
        "-r", "--requirement", action="append", default=[], metavar="FILE", help="requirements, one a line"
    )
    uninstall = verb("uninstall", _uninstall, "remove packages and what only they needed")
    uninstall.add_argument("names", nargs="+", metavar="NAME")
    upgrade = verb(
        "upgrade", _upgrade, "bring packages to their newest versions that fit; all without a name"
    )
    upgrade.add_argument("names", nargs="*", metavar="NAME")
    listing = verb("list", _list, "list installed packages")
    listing.add_argument("--scope", choices=("overlay", "base", "user-site"), default="overlay")
    verb("status", _status, "show which overlay this is and how it is")
    doctor = verb("doctor", _doctor, "look for problems and explain them")
    doctor.add_argument("--fix", action="store_true", help="repair what can be repaired")
    verb("history", _history, "list the changes that were made")
    verb("sync", _sync, "make the overlay hold what requirements.txt asks for")
    return parser


# -- changing -----------------------------------------------------------------------------------------


def _install(options: argparse.Namespace) -> int:
    wanted = list(options.requirements)
    for path in options.requirement:
        wanted += _read_file(path)
    if not wanted:
        raise OverlayError(
            "bad-request", "Nothing to install was named.", "For example: overlay install humanize"
        )
    return _change(options, "install", install=wanted)


def _read_file(path: str) -> list[str]:
    """Return the requirements of a file; one with options in it is refused as a whole.

    Raises
    ------
    OverlayError
        ``bad-request`` when it can't be read, ``bad-requirement`` for a line that is no requirement.
    """
    from overlayspawner.payload.requirements import Requirements, parse

    if not os.path.isfile(path):
        raise OverlayError("bad-request", f"There is no file {path}.")
    found = Requirements.read(path)
    for line in found.ignored():
        parse(line)
    return [entry.text for entry in found.entries()]


def _uninstall(options: argparse.Namespace) -> int:
    return _change(options, "uninstall", uninstall=options.names)


def _upgrade(options: argparse.Namespace) -> int:
    from overlayspawner.payload import report

    return _change(options, "upgrade", upgrade=options.names or report.upgradable(_context(options)))


def _sync(options: argparse.Namespace) -> int:
    return _change(options, "sync")


def _change(options: argparse.Namespace, action: str, **what: Sequence[str]) -> int:
    from overlayspawner.payload import requirements

    for text in what.get("install", ()):
        requirements.parse(text)
    for text in (*what.get("uninstall", ()), *what.get("upgrade", ())):
        requirements.parse_name(text)
    from overlayspawner.payload.apply import apply

    context = _context(options, create=True)
    cancel = threading.Event()

    def stop(number: int, frame: object) -> None:
        # Once: end cleanly. Twice: at once; the next change repairs what is left.
        cancel.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    show = _progress(options)
    notes: list[str] = []

    def tell(event: dict[str, Any]) -> None:
        show(event)
        # about one package, and no line of a tool: something that the user should know
        if event.get("phase") == "done" or (event.get("phase") == "resolving" and event.get("package")):
            notes.append(str(event.get("message")))

    previous = signal.signal(signal.SIGINT, stop)
    try:
        result = apply(context, action, on_event=tell, cancel=cancel, who="command line", **what)
    finally:
        signal.signal(signal.SIGINT, previous)
    if options.json:
        _print_json(result)
    else:
        _print_lines(notes + _told(result["plan"]))
    return 0


def _progress(options: argparse.Namespace) -> Callable[[dict[str, Any]], None]:
    """Return what shows progress: nothing in a pipe, one line that is written over in a terminal."""
    if options.json or not sys.stderr.isatty():
        return lambda event: None

    def show(event: dict[str, Any]) -> None:
        # 0 where the terminal doesn't tell
        width = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
        text = "" if event.get("phase") == "done" else str(event.get("message") or "")
        sys.stderr.write("\r\x1b[K" + _printable(text)[:width])
        sys.stderr.flush()

    return show


def _told(plan: dict[str, Any]) -> list[str]:
    """Say what a change means besides what it installed and removed."""
    lines = []
    for item in plan["shadows"]:
        where = "the image" if item["where"] == "base" else "~/.local"
        lines.append(f"{item['name']} {item['version']} hides {item['hidden']} of {where}.")
    if plan["needs_restart"]:
        lines.append("Restart running kernels to use what has changed.")
    return lines


# -- looking ------------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    from overlayspawner.payload.dists import packages

    context = _context(options, missing=True)
    # before the first installation there is no overlay, and nothing in it
    nothing = options.scope == "overlay" and context.overlay is None and context.mode == "normal"
    found = [] if nothing else packages(context, options.scope)
    if options.json:
        _print_json({"packages": found})
        return 0
    rows = [(str(p["name"]), str(p["version"]), "requested" if p["requested"] else "") for p in found]
    _print_table(rows)
    return 0


def _status(options: argparse.Namespace) -> int:
    from overlayspawner.payload import report

    context = _context(options, missing=True)
    data = report.status(context)
    if options.json:
        _print_json(data)
        return 0
    size, free = data["sizes"]["overlay"], data["sizes"]["free"]
    rows = [
        ("overlay", f"{data['overlay']} ({data['kind']}, {data['lifetime']})"),
        ("path", str(data["path"] or "none yet")),
        ("mode", str(data["mode"])),
        ("base", f"Python {data['base']['python']}, {data['base']['key']}"),
        ("packages", "" if size is None else f"{_bytes(size)}"),
        ("free space", "" if free is None else f"{_bytes(free)}"),
    ]
    if data["base"]["changed"]:
        rows.append(("image", "its packages have changed since the last change of the overlay"))
    _print_table([row for row in rows if row[1]])
    for item in data["notices"]:
        _print_lines([f"notice [{item['code']}]: {item['message']} {item['hint']}".rstrip()])
    return 0


def _history(options: argparse.Namespace) -> int:
    from overlayspawner.payload import report

    found = report.history(_context(options, missing=True))
    if options.json:
        _print_json({"revisions": found})
        return 0
    rows = []
    for revision in found:
        words = " ".join(str(word) for word in revision.get("argv", [revision.get("action")]))
        rows.append((str(revision.get("id")), str(revision.get("when", "")), words))
    _print_table(rows)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from overlayspawner.payload import doctor

    context = _context(options, missing=True)
    fixed = doctor.fix(context) if options.fix else []
    checks = doctor.examine(context)
    if options.json:
        _print_json({"checks": checks, "fixed": fixed})
    else:
        _print_lines([line if line.startswith(doctor.NOT) else f"fixed: {line}" for line in fixed])
        for check in checks:
            mark = "ok  " if check["ok"] else "BAD "
            _print_lines([f"{mark}{check['name']}: {check['message']}"])
            if not check["ok"] and check["hint"]:
                _print_lines([f"     {check['hint']}"])
    return 0 if all(check["ok"] for check in checks) else 1


# -- finding the overlay ------------------------------------------------------------------------------


def _context(options: argparse.Namespace, *, create: bool = False, missing: bool = False) -> Any:
    """Return the context: that of the running server, else one made by looking.

    Parameters
    ----------
    create:
        Make an overlay where there is none (to install into it).
    missing:
        A context without an overlay is fine too.

    Raises
    ------
    OverlayError
        ``no-overlay``, ``home-unknown``, ``read-only`` and others that say why there is none.
    """
    from overlayspawner.payload.context import Context
    from overlayspawner.payload.contract import RUNTIME_ENV

    directory = options.runtime or os.environ.get(RUNTIME_ENV, "")
    context: Context | None = None
    if directory:
        try:
            context = Context.load(directory)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # the server that made it is gone
    if context is None:
        context = _look(create)
    if not missing:
        context.require()
    return context


def _look(create: bool) -> Any:
    """Find the overlay of this user without a server: in a hand-started container, on a plain machine."""
    from overlayspawner.payload import bootstrap
    from overlayspawner.payload.context import Context
    from overlayspawner.payload.contract import Spec
    from overlayspawner.payload.overlay import Overlay
    from overlayspawner.payload.probe import probe

    if os.path.isdir(os.path.join(sys.prefix, ".overlay")):
        raise OverlayError(
            "bad-request",
            "This is the overlay's own Python, which can't tell what its image holds.",
            "Run the command with the image's Python.",
        )
    spec = bootstrap.read_spec(os.environ) or Spec()
    base = probe()
    home = bootstrap.find_home(os.environ)
    if not home:
        raise OverlayError("home-unknown", hint="Set the variable HOME.")
    if not os.path.isdir(home):
        raise OverlayError(
            "home-unknown", f"The home directory {home} does not exist.", "Set the variable HOME."
        )
    if os.geteuid() == 0 and os.stat(home).st_uid != 0:
        raise OverlayError(
            "root-start",
            f"This is root, but {home} belongs to another user, who could not change what root makes there.",
            "Run the command as that user.",
        )
    context = Context(
        spec=spec, base=base, home=home, runtime="", payload="", mode="normal", base_lock=base.lock()
    )
    overlay = Overlay(
        bootstrap.overlay_path(spec, home), name=spec.name, kind=spec.kind, lifetime=spec.lifetime
    )
    if create:
        found = bootstrap.open_storage(spec, base, home)
        context.mode = found.mode
        context.notices = [*spec.notices, *found.notices]
        context.overlay = overlay if found.overlay else None
    elif os.path.isdir(overlay.path):
        context.overlay = overlay
    if context.overlay is not None:
        env = overlay.env(base)
        context.env = env if env.usable() else None
    return context


# -- printing -----------------------------------------------------------------------------------------


def _print_json(data: object) -> None:
    print(json.dumps(data, indent=1))


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        print(_printable(line))


def _printable(text: str) -> str:
    """Return text that comes from packages without control sequences for the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))] if rows else []
    _print_lines(["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows])


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _complain(error: OverlayError, as_json: bool) -> None:
    if as_json:
        _print_json(error.to_dict())
        return
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    lines = [f"overlay: {error.message} [{error.code}]", error.hint, *error.log.splitlines()[-15:]]
    for line in lines:
        if line:
            print(_printable(line), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
