"""The commands that change an overlay."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Optional

from overlayspawner.payload import cli_context, cli_output, cli_progress
from overlayspawner.payload.contract import OverlayError

if TYPE_CHECKING:
    from overlayspawner.payload.given import Given

WHO = "command line"

_CHANGE = "{revision, plan, ...}"
"""What a change returns, in short."""


def add(verb: Any) -> None:
    """Declare the commands.

    Parameters
    ----------
    verb:
        Called with name, function and help text, and perhaps with ``examples`` (commands and what they do),
        ``more`` (text), ``shape`` (of the JSON document) and ``quiet`` (what is still printed then). Returns
        the parser of one command.
    """
    install = verb(
        "install",
        _install,
        "install packages",
        examples=(
            ("overlay install humanize", ""),
            ('overlay install "humanize>=4" "rich[jupyter]"', "versions and extras, as for pip"),
            ("overlay install -r requirements.txt", "or pyproject.toml, uv.lock, environment.yml"),
            ("overlay install -e .", "the project here, from where it lies"),
        ),
        shape=_CHANGE,
    )
    add_given(install)
    _anyway(install)
    uninstall = verb(
        "uninstall",
        _uninstall,
        "remove packages and what only they needed",
        examples=(("overlay uninstall humanize", ""),),
        shape=_CHANGE,
    )
    uninstall.add_argument("names", nargs="+", metavar="NAME", help="a package of `overlay list`")
    upgrade = verb(
        "upgrade",
        _upgrade,
        "bring packages to their newest versions that fit; all without a name",
        examples=(
            ("overlay upgrade humanize", "this one"),
            ("overlay upgrade", "everything you installed; nothing of the image's"),
        ),
        shape=_CHANGE,
    )
    upgrade.add_argument("names", nargs="*", metavar="NAME", help="a package of `overlay list`")
    _anyway(upgrade)
    sync = verb(
        "sync",
        _sync,
        "make the overlay hold what requirements.txt asks for",
        examples=(("overlay sync", "after you edited the file by hand"),),
        shape=_CHANGE,
    )
    _anyway(sync)
    undo = verb(
        "undo",
        _undo,
        "undo a change; the latest without a number",
        examples=(("overlay undo", "the latest"), ("overlay undo 3", "that one of `overlay history`")),
        shape=_CHANGE,
    )
    undo.add_argument("revision", nargs="?", type=_number, metavar="N", help="a number of `overlay history`")
    restore = verb(
        "restore",
        _restore,
        "go back to what was there after a change; without a number, install again what should be there",
        examples=(
            ("overlay restore", "install again what is missing"),
            ("overlay restore 3", "as it was after change 3"),
        ),
        shape=_CHANGE,
    )
    restore.add_argument(
        "revision", nargs="?", type=_number, metavar="N", help="a number of `overlay history`; 0: nothing"
    )
    reset = verb(
        "reset",
        _reset,
        "move everything aside and start over (`overlay undo` brings it back)",
        examples=(("overlay reset", ""), ("overlay reset --yes", "in a script")),
        shape=_CHANGE,
    )
    reset.add_argument("--yes", action="store_true", help="don't ask")
    imported = verb(
        "import",
        _import,
        "take over packages that were installed elsewhere; without a source, list what there is",
        examples=(
            ("overlay import", "what there is"),
            ("overlay import user-site", "what `pip install --user` has left in ~/.local"),
            ("overlay import ~/old-venv", "an environment"),
            ("overlay import environment.yml", "a file: as much of it as can be had"),
        ),
        shape=f"{_CHANGE}; without a source {{user_site, other_user_sites, venvs, conda}}",
    )
    imported.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="user-site (~/.local), or the path of an environment or a file",
    )
    clean = verb(
        "clean",
        _clean,
        "free space; without a name, tell what could be freed",
        examples=(
            ("overlay clean", "what could be freed"),
            ("overlay clean cache leftovers", "free that"),
            ("overlay clean all --dry-run", ""),
        ),
        shape="{cleanup: [{what, name, bytes, later, why}], frees, ...}",
    )
    clean.add_argument(
        "what",
        nargs="*",
        metavar="WHAT",
        help="cache, leftovers, copies (of what the image has), envs (of other images), undo (what changes"
        " replaced), kept (files that were nobody's), or all (but kept)",
    )
    clean.add_argument("--dry-run", action="store_true", help="only tell what would be freed")
    safe = verb(
        "safe",
        _safe,
        "start the server without the overlay, the next time only",
        examples=(("overlay safe", "then restart your server"), ("overlay safe --off", "")),
        shape="{mode}",
    )
    safe.add_argument("--off", action="store_true", help="take that back")


def _anyway(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--anyway", action="store_true", help="also if something of the image may stop working; remembered"
    )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a revision")
    return int(text)


def add_given(parser: argparse.ArgumentParser) -> None:
    """Declare what names packages to install: as pip's options for that are called."""
    parser.add_argument(
        "requirements",
        nargs="*",
        metavar="REQUIREMENT",
        help="as for pip: name, name>=2, URL, wheel, directory of a project",
    )
    lists: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument(
        "-r",
        "--requirement",
        metavar="FILE",
        help="requirements.txt, pyproject.toml, pylock.toml, uv.lock or environment.yml",
        **lists,
    )
    parser.add_argument(
        "-c", "--constraint", metavar="FILE", help="limits of versions, for this change", **lists
    )
    parser.add_argument(
        "-e", "--editable", metavar="PATH", help="a project that is used from where it lies", **lists
    )
    parser.add_argument(
        "--group", metavar="[PATH:]NAME", help="a dependency group of pyproject.toml", **lists
    )


def read_given(options: argparse.Namespace) -> Given:
    """Return what was named with the options of :func:`add_given`.

    Raises
    ------
    OverlayError
        See :func:`overlayspawner.payload.given.read`.
    """
    from overlayspawner.payload import given

    return given.read(
        options.requirements,
        files=options.requirement,
        constraints=options.constraint,
        editables=options.editable,
        groups=options.group,
        home=os.path.expanduser("~"),
    )


def _install(options: argparse.Namespace) -> int:
    wanted = read_given(options)
    if not wanted.requirements:
        raise OverlayError(
            "bad-request", "Nothing to install was named.", "For example: overlay install humanize"
        )
    return _ask_and_run(options, "install", {"install": wanted.requirements}, wanted.constraints)


def _uninstall(options: argparse.Namespace) -> int:
    return _run(options, "uninstall", {"uninstall": _names(options.names)})


def _upgrade(options: argparse.Namespace) -> int:
    from overlayspawner.payload import report

    names = _names(options.names)
    if not names:
        names = report.upgradable(cli_context.of(options).for_changes())
    return _ask_and_run(options, "upgrade", {"upgrade": names})


def _names(names: list[str]) -> list[str]:
    from overlayspawner.payload import requirements

    for text in names:
        requirements.parse_name(text)
    return names


def _sync(options: argparse.Namespace) -> int:
    return _ask_and_run(options, "sync", {})


def _undo(options: argparse.Namespace) -> int:
    return _run(options, "undo", {"revision": options.revision})


def _restore(options: argparse.Namespace) -> int:
    return _run(options, "restore", {"revision": options.revision})


def _reset(options: argparse.Namespace) -> int:
    if not options.yes:
        if not _can_ask(options):
            raise OverlayError(
                "bad-request", "Nobody can be asked whether that is wanted.", "Say so: overlay reset --yes"
            )
        _ask("Move all packages you installed aside, and start over?")
    return _run(options, "reset", {})


def _import(options: argparse.Namespace) -> int:
    if options.source is not None:
        return _run(options, "import", {"source": options.source})
    from overlayspawner.payload import importing

    found = importing.found(cli_context.of(options, missing=True))
    if options.json:
        cli_output.as_json(found)
        return 0
    if options.quiet:
        return 0
    there = {"user-site": found["user_site"], **found["other_user_sites"]}
    rows = [(path, "1 package" if n == 1 else f"{n} packages") for path, n in there.items() if n]
    rows += [(path, "environment") for path in found["venvs"]]
    rows += [(path, "conda environment") for path in found["conda"]]
    cli_output.table(rows, ("Source", "What it is"))
    if not rows:
        cli_output.lines(
            ["There is nothing in your home to import. Files such as requirements.txt can be named."]
        )
    return 0


def _clean(options: argparse.Namespace) -> int:
    from overlayspawner.payload import cleanup
    from overlayspawner.payload.sentences import amount

    cleanup.chosen(options.what)
    context = cli_context.of(options).for_changes()
    show = cli_progress.progress(options.json or options.quiet)
    with interruptible() as cancel:
        result = cleanup.clean(
            context, options.what, dry_run=options.dry_run, on_event=show, cancel=cancel, who=WHO
        )
    if options.json:
        cli_output.as_json(result)
        return 0
    if options.quiet:
        return 0
    told = options.dry_run or not options.what
    rows = []
    for item in result["cleanup"]:
        size = amount(item["bytes"])
        if item["later"]:
            size += f" (and {amount(item['later'])} once `undo` is cleaned too)"
        rows.append((item["what"], item["name"], item["why"] or size))
    cli_output.table(rows, ("What", "Name", "Frees" if told else "Freed"))
    total = amount(result["frees"])
    verb = "could be freed" if told else "freed"
    cli_output.lines([f"{total} {verb}." if rows else "There is nothing to clean up."])
    if told and not options.what and rows:
        cli_output.lines(["Name what shall go, for example: overlay clean cache"])
    return 0


def _safe(options: argparse.Namespace) -> int:
    from overlayspawner.payload import report

    context = cli_context.of(options, missing=True)
    report.ask_next(context, "normal" if options.off else "safe")
    mode = report.next_start(context)
    if options.json:
        cli_output.as_json({"mode": mode})
    elif options.quiet:
        pass
    elif mode == "safe":
        cli_output.lines(["The next start of your server is without the overlay. Restart it now."])
    else:
        cli_output.lines(["The next start of your server is a normal one."])
    return 0


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C sets, to end cleanly. Twice ends at once; the next change repairs.

    Raises
    ------
    KeyboardInterrupt
        In the place of the error that tells that it was cancelled.
    """
    cancel = threading.Event()

    def stop(number: int, frame: object) -> None:
        cancel.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield cancel
    except OverlayError as e:
        if e.code == "cancelled" and cancel.is_set():
            raise KeyboardInterrupt from e
        raise
    finally:
        signal.signal(signal.SIGINT, previous)


def is_note(event: dict[str, Any]) -> bool:
    """Whether an event is something that the user should know: no line of a tool, and not how far it is."""
    about_one = event.get("package") and "packages" not in event
    return bool(event.get("phase") == "done" or (event.get("phase") == "resolving" and about_one))


def _can_ask(options: argparse.Namespace) -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty() and not options.json


def _ask(question: str) -> None:
    """Ask whether to go on.

    Raises
    ------
    OverlayError
        ``cancelled``.
    """
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise OverlayError("cancelled", "Nothing was changed.")


def _ask_and_run(
    options: argparse.Namespace, action: str, request: dict[str, Any], constraints: Sequence[str] = ()
) -> int:
    """Do it; where something may stop working, ask first, and do no other thing than what was agreed to."""
    plans: list[dict[str, Any]] = []
    while True:
        try:
            return _run(options, action, {**request, "force": options.anyway}, constraints, plans)
        except OverlayError as e:
            if e.code not in ("would-break", "plan-changed") or not plans or not _can_ask(options):
                raise
        plan = plans.pop()
        plans.clear()
        cli_progress.clear()
        cli_output.lines(plan["sentences"])
        _ask("Install anyway?")
        options.anyway = True
        request = {**request, "expect": plan["expect"]}


def _run(
    options: argparse.Namespace,
    action: str,
    request: dict[str, Any],
    constraints: Sequence[str] = (),
    plans: Optional[list[dict[str, Any]]] = None,
) -> int:
    from overlayspawner.payload import actions

    context = cli_context.of(
        options,
        create=action not in ("reset", "undo"),
        missing=action == "reset",
        begin=action in ("install", "import"),
    ).for_changes()
    context.spec.constraints = [*context.spec.constraints, *constraints]
    show = cli_progress.progress(options.json or options.quiet)
    notes: list[str] = []

    def tell(event: dict[str, Any]) -> None:
        show(event)
        if plans is not None and event.get("plan"):
            plans.append(event["plan"])
        if is_note(event):
            notes.append(str(event.get("message")))

    with interruptible() as cancel:
        result = actions.run(context, action, request, on_event=tell, cancel=cancel, who=WHO)
    options.done = True
    if options.json:
        cli_output.as_json(result)
    elif not options.quiet:
        cli_output.lines(notes + cli_output.told(result))
    return 0
