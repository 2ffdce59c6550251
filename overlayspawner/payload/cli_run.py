"""Commands that are about an overlay as a whole: run a program in it, make one, take this command along."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Any

from overlayspawner.payload import cli_context, cli_output
from overlayspawner.payload.contract import KINDS, OverlayError

if TYPE_CHECKING:
    from overlayspawner.payload.context import Context

NOT_FOUND, NOT_RUNNABLE = 127, 126
"""Exit codes of shells for a command that is not there, or can't be run."""


def add(verb: Any) -> None:
    """Declare the commands; see :func:`overlayspawner.payload.cli_changes.add`."""
    run = verb(
        "run",
        _run,
        "run a program in the overlay, as a kernel would see it",
        examples=(
            ("overlay run python script.py", "the overlay's Python"),
            ("overlay run pytest -x", "also a command of the image sees your packages"),
            ("overlay run bash", "a shell in the overlay"),
            ("overlay -n other run python", "another overlay"),
        ),
        more="What follows CMD is handed on as it is. The exit code is the program's own; as in a shell, 127"
        " for a program that is not there, 126 for one that can't be run.",
        document=False,
    )
    run.add_argument("command", nargs="*", metavar="CMD", help="the program and its arguments")
    create = verb(
        "create",
        _create,
        "make an overlay where there is none",
        examples=(
            ("overlay create", "yours, where a server would make it"),
            ("overlay create teaching --kind isolated", "another one, that sees nothing of the image"),
            ("overlay -n teaching install humanize", "and how it is used"),
            ("overlay create /data/env", "at another place"),
        ),
        more="A server uses the overlay that its hub names. Others are for `overlay run`. What is there"
        " already is left as it is.",
        shape="{overlay, kind, path, env, python, created}",
    )
    create.add_argument("name", nargs="?", metavar="NAME", help="its name, or its path (with a slash in it)")
    create.add_argument(
        "--kind", choices=KINDS, help="overlay: sees the image's packages; isolated: does not"
    )

    pyz = verb(
        "pyz",
        _pyz,
        "write this command into a file, for containers without a hub",
        examples=(
            ("overlay pyz ~/overlay.pyz", "then, in such a container:"),
            ("python ~/overlay.pyz list", ""),
            ("python ~/overlay.pyz run bash", "a shell in your overlay"),
        ),
        more="Any Python from 3.9 on runs it. Use the image's: it is the one that the packages are for.",
        shape="{file, bytes}",
    )
    pyz.add_argument(
        "file", nargs="?", default="overlay.pyz", metavar="FILE", help="default: overlay.pyz here"
    )


def environment(context: Context) -> dict[str, str]:
    """Return the environment of a program in the overlay: as of a kernel of it.

    Raises
    ------
    OverlayError
        ``no-overlay``.
    """
    from overlayspawner.payload.kernel import _is_short
    from overlayspawner.payload.runtime import search_path

    _, env = context.require()
    environ = dict(os.environ)
    environ["PATH"] = search_path(context, environ.get("PATH") or os.defpath)
    environ["VIRTUAL_ENV"] = env.path
    if _is_short(env.path):
        environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    for name in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "UV_SYSTEM_PYTHON"):
        environ.pop(name, None)
    return environ


def _run(options: argparse.Namespace) -> int:
    from overlayspawner.payload.runtime import runs_on_base

    words: list[str] = options.command
    if not words:
        raise OverlayError(
            "bad-request", "No program was named.", "For example: overlay run python script.py"
        )
    context = cli_context.of(options).for_changes()
    environ = environment(context)
    path = words[0] if "/" in words[0] else shutil.which(words[0], path=environ["PATH"])
    if path is None or not os.path.exists(path):
        print(f"overlay: {cli_output.printable(words[0])}: there is no such program.", file=sys.stderr)
        if words[0].endswith(".py") and os.path.isfile(words[0]):
            print(cli_output.printable(f"Say what runs it: overlay run python {words[0]}"), file=sys.stderr)
        return NOT_FOUND
    argv = [path, *words[1:]]
    if runs_on_base(context, path):
        path = context.require()[1].python
        argv = [path, *argv]
    sys.stdout.flush()
    # Python ignores these, and a program would inherit that: `yes | head` would never end quietly
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(path, argv, environ)  # noqa: S606
    except OSError as e:
        print(f"overlay: {cli_output.printable(path)} can't be run: {e.strerror}.", file=sys.stderr)
    return NOT_RUNNABLE


def _pyz(options: argparse.Namespace) -> int:
    from overlayspawner.payload import bootstrap

    source = bootstrap._payload()
    if os.path.isdir(source):
        raise OverlayError(
            "not-available",
            "This command was installed as a package: it is not in one file here.",
            "In other containers, install it as well: pip install --no-deps overlayspawner",
        )
    with open(source, "rb") as f:
        data = f.read()
    if not data.startswith(b"#!"):
        data = b"#!/usr/bin/env python3\n" + data
    path = os.path.abspath(options.file)
    if os.path.isdir(path):
        path = os.path.join(path, "overlay.pyz")
    cli_output.write(path, data, 0o755)
    if options.json:
        cli_output.as_json({"file": path, "bytes": len(data)})
    elif not options.quiet:
        cli_output.lines([f"Wrote {path}. Run it with the Python of an image: python {path} list"])
    return 0


def _create(options: argparse.Namespace) -> int:
    chosen = options.name or options.overlay
    if options.name and options.overlay:
        raise OverlayError("bad-request", "The overlay is named twice.")
    before = cli_context.find(
        options.runtime, chosen=chosen, kind=options.kind or "", missing=True, begin=True
    )
    overlay, kind = before.overlay, options.kind
    if overlay is not None and kind and kind != (cli_context.kind_of(overlay.path) or kind):
        raise OverlayError(
            "bad-request",
            f"The overlay in {overlay.path} is there already, and is of the other kind.",
            "Choose another name.",
        )
    created = before.for_changes().env is None
    context = before
    if created:
        context = cli_context.find(options.runtime, chosen=chosen, kind=kind or "", create=True, begin=True)
    made, env = context.for_changes().require()
    if options.json:
        cli_output.as_json(
            {
                "overlay": made.name,
                "kind": made.kind,
                "path": made.path,
                "env": env.path,
                "python": context.base.full_version,
                "created": created,
            }
        )
        return 0
    if options.quiet:
        return 0
    what = f"overlay {made.name} ({made.kind}) in {made.path}"
    if not created:
        cli_output.lines([f"The {what} is there already."])
    elif overlay is not None:
        cli_output.lines(
            [
                f"Made an environment for Python {context.base.full_version} of this image in the {what}.",
                "`overlay restore` installs what you had.",
            ]
        )
    else:
        cli_output.lines([f"Made the {what}, on Python {context.base.full_version} of this image."])
    return 0
