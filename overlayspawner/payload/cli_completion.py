"""Prints the scripts by which shells complete ``overlay``: commands, options, installed names, revisions.

Commands and options are written into the script. Names and numbers are asked for with ``overlay list`` and
``overlay history`` when they are wanted.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from overlayspawner.payload.contract import OverlayError

_ASKED = {
    "uninstall": "overlay list --quiet",
    "upgrade": "overlay list --quiet",
    "undo": "overlay history --quiet",
    "restore": "overlay history --quiet",
    "import": "echo user-site",
    "clean": "echo cache leftovers copies envs undo kept all",
    "completion": "echo bash zsh fish",
}
"""Command to what prints its words."""

_FILES = ("install", "plan", "import", "create", "export")
"""Commands whose words may be files."""


def add(verb: Any) -> None:
    """Declare the command; see :func:`overlayspawner.payload.cli_changes.add`."""
    completion = verb(
        "completion",
        _completion,
        "print a script with which your shell completes this command",
        examples=(
            ('eval "$(overlay completion bash)"', "in ~/.bashrc; terminals of a server have it"),
            ("overlay completion zsh > ~/.zfunc/_overlay", "a directory of your fpath"),
            ("overlay completion fish > ~/.config/fish/completions/overlay.fish", ""),
        ),
        document=False,
    )
    completion.add_argument("shell", choices=sorted(_SHELLS), help="for which shell")


def _completion(options: argparse.Namespace) -> int:
    from overlayspawner.payload import cli

    if options.json:
        raise OverlayError("bad-request", "A script is no JSON document.")
    print(_SHELLS[options.shell](cli.commands(cli._parser())), end="")
    return 0


Commands = Mapping[str, argparse.ArgumentParser]


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [name for a in parser._actions if a.help != argparse.SUPPRESS for name in a.option_strings]


def _choices(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return each option with a value to its possible words; ``""`` for a file, or what we can't tell."""
    return {
        name: " ".join(map(str, a.choices or ()))
        for a in parser._actions
        if a.option_strings and a.nargs != 0
        for name in a.option_strings
    }


def _bash(commands: Commands) -> str:
    cases = []
    for name, parser in commands.items():
        if name == "run":
            continue
        asked = _ASKED.get(name, "")
        words = asked.partition("echo ")[2] or (f"$({asked} 2>/dev/null)" if asked else "")
        choices = _choices(parser)
        free = " | ".join(option for option in choices if not choices[option])
        values = f"            {free}) return ;;\n"  # bash completes files then
        for option, known in choices.items():
            if known:
                values += f'            {option}) words="{known}" ;;\n'
        cases.append(
            f"        {name})\n"
            f'            options="{" ".join(_options(parser))}"\n'
            f"            case $prev in\n{values}"
            f'            *) [[ $cur == -* ]] || words="{words}" ;;\n'
            "            esac ;;\n"
        )
    files = " | ".join(name for name in _FILES if name in commands)
    return (
        "# bash completion of overlay\n"
        "_overlay() {\n"
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb= words= options= n\n"
        "    COMPREPLY=()\n"
        "    for ((n = 1; n < COMP_CWORD; n++)); do\n"
        "        case ${COMP_WORDS[n]} in\n"
        "        -n | --overlay) ((n++)) ;;\n"
        "        -*) ;;\n"
        "        *) verb=${COMP_WORDS[n]}; break ;;\n"
        "        esac\n"
        "    done\n"
        "    case $verb in\n"
        "        '')\n"
        "            case $prev in -n | --overlay) return ;; esac\n"
        '            options="--help --json --quiet --overlay"\n'
        f'            words="{" ".join(commands)}" ;;\n'
        "        run)\n"
        '            ((COMP_CWORD > n + 1)) || COMPREPLY=($(compgen -c -- "$cur"))\n'
        "            return ;;\n"
        f"{''.join(cases)}"
        "    esac\n"
        "    [[ $cur != -* ]] || words=$options\n"
        '    COMPREPLY=($(compgen -W "$words" -- "$cur"))\n'
        f"    case $verb in {files}) ;; *) compopt +o default 2>/dev/null ;; esac\n"
        "}\n"
        "complete -o default -F _overlay overlay\n"
    )


def _zsh(commands: Commands) -> str:
    rows = "".join(f"    {_quoted(name + ':' + _help(parser))}\n" for name, parser in commands.items())
    cases = []
    for name, parser in commands.items():
        line = f"  {name}) given=({' '.join(_options(parser))})"
        if name in _ASKED:
            line += f"; [[ $PREFIX == -* ]] || given=($({_ASKED[name]} 2>/dev/null))"
        cases.append(line + " ;;\n")
    files = "|".join(name for name in _FILES if name in commands)
    return (
        "#compdef overlay\n"
        "_overlay() {\n"
        "  local -a commands given\n"
        f"  commands=(\n{rows}  )\n"
        "  if (( CURRENT == 2 )); then\n"
        "    _describe command commands\n"
        "    return\n"
        "  fi\n"
        "  case $words[2] in\n"
        "  run) shift 2 words; (( CURRENT -= 2 )); _normal; return ;;\n"
        f"{''.join(cases)}"
        "  esac\n"
        "  compadd -a given\n"
        f"  case $words[2] in {files}) _files ;; esac\n"
        "}\n"
        'if [[ $funcstack[1] == _overlay ]]; then _overlay "$@"; else compdef _overlay overlay; fi\n'
    )


def _fish(commands: Commands) -> str:
    out = ["# fish completion of overlay", "complete -c overlay -f"]
    for name, parser in commands.items():
        out.append(f"complete -c overlay -n __fish_use_subcommand -a {name} -d {_quoted(_help(parser))}")
        seen = f"'__fish_seen_subcommand_from {name}'"
        if name == "run":
            out.append(f"complete -c overlay -n {seen} -x -a '(__fish_complete_subcommand --fcs-skip=2)'")
            continue
        for action in parser._actions:
            names = "".join(
                f" -l {option[2:]}" if option.startswith("--") else f" -s {option[1:]}"
                for option in action.option_strings
            )
            if not names or action.help == argparse.SUPPRESS:
                continue
            value = ""
            if action.nargs != 0:
                value = (
                    f" -x -a {_quoted(' '.join(map(str, action.choices)))}" if action.choices else " -r -F"
                )
            out.append(f"complete -c overlay -n {seen}{names}{value} -d {_quoted(action.help or '')}")
        if name in _ASKED:
            words = _ASKED[name].partition("echo ")[2] or f"({_ASKED[name]} 2>/dev/null)"
            out.append(f"complete -c overlay -n {seen} -a {_quoted(words)}")
        if name in _FILES:
            out.append(f"complete -c overlay -n {seen} -F")
    return "\n".join(out) + "\n"


def _help(parser: argparse.ArgumentParser) -> str:
    return " ".join((parser.description or "").split()).partition(". ")[0].rstrip(".")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
