"""Finds the overlay that a command is about: that of the running server, else by looking."""

from __future__ import annotations

import argparse
import os
import re
import sys

from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import KINDS, RUNTIME_ENV, OverlayError, Spec


def of(
    options: argparse.Namespace, *, create: bool = False, missing: bool = False, begin: bool = False
) -> Context:
    """Return :func:`find` for the options that all commands have."""
    return find(options.runtime, chosen=options.overlay, create=create, missing=missing, begin=begin)


def find(
    runtime: str = "",
    *,
    chosen: str = "",
    kind: str = "",
    create: bool = False,
    missing: bool = False,
    begin: bool = False,
) -> Context:
    """Return the context to look at, or to change, the overlay with.

    Parameters
    ----------
    runtime:
        The runtime dir, when it is not the one that the environment names.
    chosen:
        Name or path (with a slash in it) of an overlay, where it is not the server's, or the usual one.
    kind:
        The kind of an overlay that is made; what the hub, or the overlay itself, says when left out.
    create:
        Make an overlay where there is none (to install into it).
    missing:
        A context without an overlay is fine too.
    begin:
        A chosen overlay may be a new one. Elsewhere a name that is mistyped is an error.

    Raises
    ------
    OverlayError
        ``no-overlay``, ``home-unknown``, ``read-only`` and others that say why there is none.
    """
    directory = runtime or os.environ.get(RUNTIME_ENV, "")
    context: Context | None = None
    if directory:
        try:
            context = Context.load(directory)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # the server that made it is gone
    if context is None or chosen:
        context = _look(context, chosen, kind, create, begin)
    if not missing:
        _require(context.for_changes())
    return context


def _require(context: Context) -> None:
    """Make sure that there is an env, or say what is missing and what makes one.

    Raises
    ------
    OverlayError
        ``no-overlay``, ``env-broken``.
    """
    if context.runtime or (context.overlay is not None and context.env is not None):
        context.require()
        return
    from overlayspawner.payload.storage import overlay_path

    overlay = context.overlay
    if context.spec.lifetime == "ephemeral":
        raise OverlayError(
            "no-overlay",
            "An ephemeral overlay lives and dies with a server, and there is none.",
            "Start your server, or choose another overlay with --overlay.",
            status=409,
        )
    if overlay is None:
        raise _none_yet(overlay_path(context.spec, context.home))
    env = overlay.env(context.base)
    if not os.path.lexists(env.path):
        raise OverlayError(
            "no-overlay",
            f"The overlay in {overlay.path} holds no packages for this image's Python yet.",
            "`overlay restore` installs what you had; `overlay create` begins with nothing.",
            status=409,
        )
    raise OverlayError(
        "env-broken",
        f"The overlay's environment is damaged ({env.damage()}).",
        "`overlay doctor --fix` mends it.",
        status=409,
    )


def _none_yet(path: str) -> OverlayError:
    return OverlayError(
        "no-overlay",
        f"There is no overlay in {path} yet.",
        "`overlay create` makes one, and so does `overlay install`.",
        status=409,
    )


def _look(server: Context | None, chosen: str, kind: str, create: bool, begin: bool) -> Context:
    """Find the overlay of this user without a server: in a hand-started container, on a plain machine.

    Also another overlay than the server's: it keeps the hub's rules then.
    """
    from overlayspawner.payload import bootstrap
    from overlayspawner.payload.lease import storage_error
    from overlayspawner.payload.overlay import Overlay
    from overlayspawner.payload.probe import probe
    from overlayspawner.payload.storage import overlay_path

    if os.path.isdir(os.path.join(sys.prefix, ".overlay")):
        _leave_the_overlay(bootstrap._payload())
        raise OverlayError(
            "bad-request",
            "This is the overlay's own Python, which can't tell what its image holds.",
            "Run the command with the image's Python.",
        )
    given = server.spec if server is not None else bootstrap.read_spec(os.environ)
    spec = Spec.from_dict((given or Spec()).to_dict())
    base = probe()
    base.executable = _as_a_server(base.executable)
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
    if chosen:
        _choose(spec, chosen)
    elif given is None:
        spec.path = _on_a_volume(spec.path, home)
    path = overlay_path(spec, home)
    if kind:
        spec.kind = kind
    elif given is None or chosen:
        spec.kind = kind_of(path) or spec.kind
    context = Context(
        spec=spec,
        base=base,
        home=home,
        runtime="",
        payload=bootstrap._payload(),
        mode="normal",
        base_lock=base.lock(),
    )
    overlay = Overlay(path, name=spec.name, kind=spec.kind, lifetime=spec.lifetime)
    if spec.lifetime == "ephemeral":
        # its env lives and dies with a server; without one there is nothing to change
        context.overlay = overlay if os.path.isdir(overlay.path) else None
        return context
    if "/" in chosen:
        _check_place(path)
    if chosen and not begin and not os.path.isdir(path):
        raise _none_yet(path)
    if create:
        try:
            overlay.create(base)
        except OSError as e:
            raise storage_error(e) from e
    if os.path.isdir(overlay.path):
        context.overlay = overlay
        env = overlay.env(base)
        context.env = env if env.usable() else None
    return context


def _leave_the_overlay(payload: str) -> None:
    """Go on as the image's Python, where the overlay's was taken: in `overlay run bash`, in a notebook."""
    from overlayspawner.payload.overlay import BASE_PTH, Env

    env = Env(sys.prefix, "{}.{}".format(*sys.version_info[:2]))
    try:
        with open(os.path.join(env.site_packages, BASE_PTH), encoding="utf-8") as f:
            found = re.search(r"\['(.*?)/lib/python", f.read())
        folder = found[1] + "/bin" if found else ""
    except OSError:
        folder = os.path.dirname(os.path.realpath(env.python))  # no venv
    python = _as_a_server(os.path.join(folder, "python3"))
    if folder and os.path.isfile(payload) and os.access(python, os.X_OK):
        os.execv(python, [python, "-I", payload, "cli", *sys.argv[2:]])  # noqa: S606


def _as_a_server(executable: str) -> str:
    """Return this Python as the first line of a server's command names it: `python` and `python3` are one.

    It is a part of the base's fingerprint: by another name the image would seem to have changed.
    """
    folder = os.path.dirname(executable)
    for name in ("jupyterhub-singleuser", "jupyter-server", "jupyter", "pip"):
        try:
            with open(os.path.join(folder, name), "rb") as f:
                line = f.readline(512)
        except OSError:
            continue
        named = os.fsdecode(line[2:].strip().split(b" ")[0]) if line.startswith(b"#!") else ""
        if os.path.dirname(named) == folder and os.path.realpath(named) == os.path.realpath(executable):
            return named
    return executable


def _choose(spec: Spec, chosen: str) -> None:
    """Aim a spec at another overlay.

    Raises
    ------
    OverlayError
        ``bad-request`` for what is neither a name nor a path.
    """
    if "/" in chosen:
        spec.path = os.path.abspath(os.path.expanduser(chosen))
        chosen = os.path.basename(spec.path)
    elif "{name}" not in spec.path:
        spec.path = os.path.join(os.path.dirname(spec.path), chosen)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", chosen):
        raise OverlayError(
            "bad-request",
            f"{chosen!r} is no name of an overlay.",
            "Names are letters, digits, dots, dashes and underscores; a path has a slash in it.",
        )
    spec.name = chosen


_NOBODYS = frozenset(
    {"lost+found", "requirements.txt", ".lock", "starts.json", "next-start.json", "swap.json"}
)
"""What may lie where an overlay is made."""


def _check_place(path: str) -> None:
    """Refuse a directory of other things: an overlay's files would lie among them, and a reset move them.

    Raises
    ------
    OverlayError
        ``bad-request``.
    """
    try:
        names = set(os.listdir(path))
    except NotADirectoryError:
        raise OverlayError("bad-request", f"{path} is a file.", "Name a new directory.") from None
    except OSError:
        return  # what it is not there for, or can't be read for, is said elsewhere
    if not (names - _NOBODYS) or {"envs", "revisions"} <= names:
        return
    if not kind_of(path):
        raise OverlayError(
            "bad-request", f"{path} is not an overlay, but holds other things.", "Name a new directory."
        )


def _on_a_volume(path: str, home: str) -> str:
    """Return where the overlay is: in the home, else on the only volume below the home that has one."""
    if os.path.isdir(os.path.join(home, path)):
        return path
    try:
        folders = [e.path for e in os.scandir(home) if e.is_dir(follow_symlinks=False)]
    except OSError:
        return path
    found = [f for f in folders if os.path.ismount(f) and os.path.isdir(os.path.join(f, path))]
    return os.path.join(found[0], path) if len(found) == 1 else path


def kind_of(path: str) -> str:
    """Return the kind that an overlay says it is of, or ``""``."""
    from overlayspawner.payload import jsontext

    try:
        with open(os.path.join(path, "overlay.json"), encoding="utf-8") as f:
            kind = jsontext.loads(f.read(65_536)).get("kind")
    except (OSError, ValueError, AttributeError):
        return ""
    return kind if kind in KINDS else ""
