"""How a command is wrapped, so that our first stage runs before it. Pure.

The wrapper is a shell one-liner that sources the launcher and then runs the command itself: whatever is
missing or broken on our side, the command runs, unchanged.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import NamedTuple

from overlayspawner.payload.contract import (
    CODES,
    MARK,
    PAYLOAD_COMPLETE,
    PAYLOAD_DIR,
    PAYLOAD_LAUNCHER,
    SPEC_ENV,
    SPEC_FILE_ENV,
)

SHELL = "/bin/sh"
NAME = "overlayspawner"
"""``$0`` of the wrapper: what ``ps`` and the shell's own error messages show."""

# Entrypoints that do not run what they are given but take it as their own arguments.
_TAKES_ARGUMENTS = re.compile(
    r"(jupyter.*|ipython\d*|python[\d.]*|pypy[\d.]*|bash|sh|dash|zsh|ksh|ash|fish)\Z"
)


def boot(directory: str = PAYLOAD_DIR) -> str:
    """Return the one-liner, for a payload in ``directory``.

    One line, because ``conda run`` (some images' entrypoint) refuses arguments with line breaks. The variable
    is unset first: an exported one of that name would be passed on to the server.
    """
    missing = f"{MARK}[payload-missing] {CODES['payload-missing']} Starting without the overlay."
    return (
        f"unset OVERLAYSPAWNER_PAYLOAD; OVERLAYSPAWNER_PAYLOAD={shlex.quote(directory)}; "
        f'if [ -f "$OVERLAYSPAWNER_PAYLOAD/{PAYLOAD_COMPLETE}" ] && '
        f'[ -r "$OVERLAYSPAWNER_PAYLOAD/{PAYLOAD_LAUNCHER}" ]; '
        f'then . "$OVERLAYSPAWNER_PAYLOAD/{PAYLOAD_LAUNCHER}"; '
        f"else echo {shlex.quote(missing)} >&2; unset {SPEC_ENV} {SPEC_FILE_ENV}; fi; "
        'unset OVERLAYSPAWNER_PAYLOAD; exec "$@"'
    )


def wrap(command: list[str], directory: str = PAYLOAD_DIR) -> list[str]:
    """Return ``command`` wrapped."""
    return [SHELL, "-c", boot(directory), NAME, *command]


class Wrapped(NamedTuple):
    """A wrapped start.

    Parameters
    ----------
    entrypoint:
        The entrypoint to set, or ``None`` to leave the image's (or the administrator's).
    command:
        The command to set.
    notice:
        Code of what stands in the way of wrapping, or ``""``.
    """

    entrypoint: list[str] | None
    command: list[str]
    notice: str = ""


def wrap_container(
    entrypoint: list[str], command: list[str], *, shell: bool = True, directory: str = PAYLOAD_DIR
) -> Wrapped:
    """Wrap the start of a container.

    The command is wrapped, so that an entrypoint like ``tini -g -- start.sh`` does its work (change the user,
    activate an environment) before we look for the server's Python. Where the entrypoint takes the command as
    its own options or arguments, the entrypoint is wrapped.

    Parameters
    ----------
    entrypoint, command:
        What the container would start with.
    shell:
        Whether the image has ``/bin/sh``.
    directory:
        Where the payload is.
    """
    if not shell:
        return Wrapped(None, command, "no-shell")
    if not entrypoint and not command:
        return Wrapped(None, command, "no-command")
    if command and not command[0].startswith("-") and not _takes_arguments(entrypoint):
        return Wrapped(None, wrap(command, directory))
    if entrypoint:
        return Wrapped(wrap(entrypoint, directory), command)
    return Wrapped(None, command, "no-command")


def _takes_arguments(entrypoint: list[str]) -> bool:
    """Whether the command is an argument of the entrypoint's own program.

    The program is the last word that is not an option: ``tini -- jupyter`` is ``jupyter``.
    """
    words = [word for word in entrypoint if not word.startswith("-")]
    if not words:
        return False
    return any(_TAKES_ARGUMENTS.match(posixpath.basename(word)) for word in {words[0], words[-1]})
