"""The command line ``overlay``: the same actions as the REST interface, in a terminal.

It changes the overlay itself rather than asking the server to: it also works where no server runs. The lease
keeps the two apart. Exit codes: 0 done, 1 failed and nothing was changed, 2 wrong usage, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from overlayspawner.payload import (
    cli_changes,
    cli_completion,
    cli_export,
    cli_find,
    cli_look,
    cli_output,
    cli_plan,
    cli_run,
)
from overlayspawner.payload.contract import OverlayError

USAGE_CODES = ("bad-request", "bad-requirement", "option-not-allowed", "unknown-action")
"""Errors that are mistakes in the command: exit code 2."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

ALIASES = {
    "add": "install",
    "cleanup": "clean",
    "exec": "run",
    "find": "search",
    "freeze": "list",
    "i": "install",
    "info": "status",
    "log": "history",
    "ls": "list",
    "new": "create",
    "outdated": "list --outdated",
    "remove": "uninstall",
    "revert": "undo",
    "rm": "uninstall",
    "rollback": "undo",
    "show": "list",
    "update": "upgrade",
}
"""What other tools call our commands."""


_OF_OTHERS = {
    "-U": "To bring packages to newer versions: overlay upgrade NAME",
    "--upgrade": "To bring packages to newer versions: overlay upgrade NAME",
    "-y": "Leave it out: only `overlay reset` asks, and has --yes.",
    "--yes": "Leave it out: only `overlay reset` asks.",
    "--user": "Leave it out: packages go into your overlay, which is yours alone.",
}
"""Options of pip that people try, and what to do instead."""


class _Usage(Exception):
    """A command line that can't be understood."""

    def __init__(self, parser: argparse.ArgumentParser, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.parser = parser
        self.hint = hint

    def tell(self, in_json: bool) -> int:
        """Print what is wrong, and return the exit code."""
        if in_json:
            hint = self.hint or f"`{self.parser.prog} --help` tells more."
            cli_output.as_json(OverlayError("bad-request", f"{self}.", hint).to_dict())
        else:
            self.parser.print_usage(sys.stderr)
            print(f"{self.parser.prog}: error: {cli_output.printable(str(self))}", file=sys.stderr)
            if self.hint:
                print(self.hint, file=sys.stderr)
        return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Usage(self, message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``overlay`` and return its exit code.

    Parameters
    ----------
    argv:
        The arguments; those of the process when left out.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that has no such character shows another
    options = argparse.Namespace(json=False)
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        options = _read(words)
        code: int = options.run(options)
        sys.stdout.flush()
    except OverlayError as e:
        cli_output.complain(e, options.json)
        return 2 if e.code in USAGE_CODES else 1
    except _Usage as e:
        in_json = "--json" in words[: words.index("run") if "run" in words else None]
        return e.tell(in_json)
    except KeyboardInterrupt as e:
        cause = e.__cause__ if isinstance(e.__cause__, OverlayError) else OverlayError("cancelled")
        cli_output.complain(cause, options.json)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`overlay list | head`) has enough. Python would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0 if getattr(options, "done", False) else 1
    except OSError as e:
        what = f"{e.filename}: {e.strerror}" if e.filename else str(e)
        cli_output.complain(OverlayError("internal", f"The system reported an error: {what}."), options.json)
        return 1
    except Exception as e:
        cli_output.complain(_bug(e), options.json)
        return 1
    return code


def _read(words: list[str]) -> argparse.Namespace:
    """Take a command line apart.

    Raises
    ------
    _Usage
        It can't be understood.
    """
    parser = _parser()
    verbs = commands(parser)
    at = _first(words, parser)
    if words[at : at + 1] == ["help"]:
        words = [*words[:at], *words[at + 1 : at + 2], "--help"]
        at = _first(words, parser)
    if at == len(words) and not {"-h", "--help"} & set(words):
        unknown = parser.parse_known_args(words)[1]
        if unknown:
            raise _Usage(parser, f"unrecognized arguments: {' '.join(unknown)}")
        parser.print_help()
        parser.exit(0)
    if at < len(words) and words[at] not in verbs:
        raise _Usage(parser, *_unknown(words[at], list(verbs)))
    handed_on: list[str] = []
    if words[at : at + 1] == ["run"]:
        # its own words are no options of ours
        at += 1 + _first(words[at + 1 :], verbs["run"])
        words, handed_on = words[:at], words[at:]
    options, unknown = parser.parse_known_args(words)
    if unknown:
        hint = next((_OF_OTHERS[word] for word in unknown if word in _OF_OTHERS), "")
        raise _Usage(verbs.get(options.verb, parser), f"unrecognized arguments: {' '.join(unknown)}", hint)
    if handed_on or options.verb == "run":
        options.command = handed_on[1:] if handed_on[:1] == ["--"] else handed_on
    return options


def _first(words: Sequence[str], parser: argparse.ArgumentParser) -> int:
    """Return the place of the first word that is neither an option of a parser nor its value."""
    values = {name for a in parser._actions if a.nargs is None for name in a.option_strings}
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        at += 2 if words[at] in values else 1
    return min(at, len(words))


def _unknown(word: str, verbs: list[str]) -> tuple[str, str]:
    import difflib

    near = [ALIASES[word]] if word in ALIASES else difflib.get_close_matches(word, verbs, 1, 0.6)
    hint = f"Did you mean: overlay {near[0]}" if near else "`overlay --help` lists the commands"
    return f"there is no command {cli_output.printable(word)!r}", hint


def _bug(error: Exception) -> OverlayError:
    """Return what to tell, and to report, about a mistake of ours: where it was, but no traceback."""
    import traceback

    from overlayspawner.payload.procs import redact

    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
    text = redact(f"An unexpected {type(error).__name__} in {where}: {error}")
    return OverlayError("internal", text, "`overlay doctor` checks the overlay; please report this line.")


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands of the parser by name."""
    found: dict[str, argparse.ArgumentParser] = next(
        a for a in parser._actions if isinstance(a, argparse._SubParsersAction)
    ).choices
    return found


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="overlay",
        description="Manage the Python packages you have on top of your server's image.",
        epilog="`overlay COMMAND --help` tells more, with examples. Exit codes: 0 done, 1 failed and nothing"
        " was changed, 2 wrong usage, 130 after Ctrl-C.",
    )
    parser.add_argument("--runtime", default="", help=argparse.SUPPRESS)
    _common(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND")

    def verb(
        name: str,
        run: Any,
        text: str,
        *,
        examples: Sequence[tuple[str, str]] = (),
        more: str = "",
        shape: str = "",
        quiet: str = "nothing but errors",
        document: bool = True,
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + (f". {more}" if more else "."),
            epilog=_examples(examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.description = _wrapped(sub.description or "")
        _common(sub, shape=shape, quiet=quiet, document=document, inner=True)
        sub.set_defaults(run=run, shape=shape, quietly=quiet)
        return sub

    for module in (cli_changes, cli_plan, cli_look, cli_find, cli_export, cli_run, cli_completion):
        module.add(verb)
    return parser


def _common(
    parser: argparse.ArgumentParser,
    *,
    shape: str = "",
    quiet: str = "nothing but errors",
    document: bool = True,
    inner: bool = False,
) -> None:
    """Declare what every command takes, before its name or behind it."""

    def given(value: object) -> Any:
        return argparse.SUPPRESS if inner else value

    if document:
        text = f"print one JSON document: {shape}" if shape else "print one JSON document"
        parser.add_argument("--json", action="store_true", default=given(False), help=text)
        parser.add_argument("-q", "--quiet", action="store_true", default=given(False), help=f"print {quiet}")
    parser.add_argument(
        "-n",
        "--overlay",
        metavar="NAME",
        default=given(""),
        help="another overlay than the server's: its name, or its path (with a slash in it)",
    )


def _wrapped(text: str) -> str:
    import textwrap

    return textwrap.fill(text, 79)


def _examples(examples: Sequence[tuple[str, str]]) -> str:
    if not examples:
        return ""
    width = max(len(command) for command, _ in examples)
    rows = (f"  {command.ljust(width)}  {'# ' + note if note else ''}".rstrip() for command, note in examples)
    return "Examples:\n" + "\n".join(rows)
