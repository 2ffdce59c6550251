"""The start: open the overlay and say how the server's environment has to differ.

Split in two, because a hung network file system can't be interrupted from within: the parent looks only at
the image (local files), the child at the user's storage, under a deadline. Whatever happens in the child,
the parent goes on and the server starts.

On the start path: what is imported here costs every start its time.
"""

from __future__ import annotations

import os
import sys

from overlayspawner.payload import files, jsontext, kernelspec, runtime
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import (
    MARK,
    MARK_READY,
    RUNTIME_ENV,
    SERVER_JSON,
    SPEC_ENV,
    SPEC_FILE_ENV,
    OverlayError,
    Spec,
    notice,
)
from overlayspawner.payload.deadline import Child, Late
from overlayspawner.payload.overlay import Env, Overlay, shell_quote
from overlayspawner.payload.probe import Base, probe
from overlayspawner.payload.storage import Found, open_storage, overlay_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Found", "find_home", "main", "open_context", "open_storage", "overlay_path", "read_spec", "start"]

HEADER = "# overlayspawner 1\n"
FOOTER = "# overlayspawner end\n"
"""First and last line of what ``start`` prints; the launcher evaluates only what is between them: an image's
own start-up code (tracers, coverage) may print before and after."""

RESTORE_SHARE = 0.6
"""Share of the hub's waiting time that installing packages before the start may take."""

RESTORE_GRACE = 5.0
"""Seconds that it may take to stop."""

RESTORE_ENV = "OVERLAYSPAWNER_RESTORE"
"""JSON of the variables to put back, where there is no runtime dir yet to keep it in (root start)."""


def main(argv: list[str]) -> int:
    """Run ``overlay.pyz start``: print shell assignments for the launcher."""
    environ = os.environ
    try:
        lines = start(environ)
    except OverlayError as e:
        _say(e.code, f"{e.message} Starting without the overlay.")
        lines = [f"unset {SPEC_ENV} {SPEC_FILE_ENV}"]
    except Exception as e:
        # The server starts whatever happens; the log gets one line that says why there is no overlay.
        _say("bootstrap-failed", f"{type(e).__name__}: {e}. Starting without the overlay.")
        lines = [f"unset {SPEC_ENV} {SPEC_FILE_ENV}"]
    sys.stdout.write(HEADER + "".join(line + "\n" for line in lines) + FOOTER)
    sys.stdout.flush()
    return 0


def _say(code: str, sentence: str) -> None:
    print(f"{MARK}[{code}] {sentence}".replace("\n", " "), file=sys.stderr, flush=True)


def read_spec(environ: Mapping[str, str]) -> Spec | None:
    """Return the hub's spec, or ``None`` where there is no hub.

    Raises
    ------
    OverlayError
        ``bad-spec``.
    """
    text = environ.get(SPEC_ENV)
    path = environ.get(SPEC_FILE_ENV)
    if not text and path:
        try:
            with open(path, encoding="utf-8") as f:
                text = f.read()
        except (OSError, UnicodeDecodeError) as e:
            raise OverlayError("bad-spec", f"The hub's instructions in {path} can't be read: {e}") from None
    return Spec.from_json(text) if text else None


def start(environ: Mapping[str, str]) -> list[str]:
    """Prepare everything for a server; return the shell lines that set its environment.

    Raises
    ------
    OverlayError
        ``bad-spec``, ``no-runtime-dir``.
    """
    spec = read_spec(environ)
    if spec is None:
        return []
    base = probe()
    home = find_home(environ)
    if os.geteuid() == 0:
        # The image's start script will become another user (NB_UID) or stay root: either way the home is
        # not ours to write to yet. The server extension opens the overlay later, as the final user. (Another
        # uid than the home's owner, but not root, stays what it is: Kubernetes' fsGroup volumes belong to
        # root and are writable by group.)
        return _deferred(spec, base, home, environ)
    context = open_context(spec, environ=environ, base=base, storage=_under_deadline)
    restore_first(context)
    for n in context.notices:
        _say(n["code"], n["message"])
    if context.overlay is not None and context.env is not None:
        _say(MARK_READY, f"Your packages are ready (in {context.overlay.path}).")
    lines = [f"unset {SPEC_ENV} {SPEC_FILE_ENV}", _export(RUNTIME_ENV, context.runtime)]
    return lines + [_export(k, v) for k, v in context.variables.items()]


def _deferred(spec: Spec, base: Base, home: str, environ: Mapping[str, str]) -> list[str]:
    """Bring the server extension in, and leave the rest to it."""
    directory = runtime.make_dir(environ, home, mode=0o755)  # the final user has to read it
    runtime.write_config(directory, _payload())
    variables = {
        "JUPYTER_CONFIG_PATH": runtime.prepend(directory + "/config", environ.get("JUPYTER_CONFIG_PATH"))
    }
    if runtime.hide_user_site(spec, base):
        variables["PYTHONNOUSERSITE"] = "1"
    restore = {k: environ.get(k) for k in variables}
    variables[RESTORE_ENV] = jsontext.dumps(restore)
    _say("root-start", "The overlay is opened once the server runs as its final user.")
    return [_export(k, v) for k, v in variables.items()]


def _export(name: str, value: str) -> str:
    return f"export {name}={shell_quote(value)}"


def find_home(environ: Mapping[str, str]) -> str:
    """Return the home directory: ``HOME``, else the one in the user database, else ``""``."""
    home = environ.get("HOME", "")
    if not home:
        try:
            import pwd

            home = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):
            return ""
    return home.rstrip("/") or "/"


def open_context(
    spec: Spec,
    *,
    environ: Mapping[str, str],
    runtime_dir: str | None = None,
    base: Base | None = None,
    storage: Callable[[Spec, Base, str], Found | Callable[[], Found]] | None = None,
) -> Context:
    """Open the overlay of a spec and write the runtime dir.

    Parameters
    ----------
    spec:
        The instructions; ``Spec()`` where there is no hub.
    environ:
        The environment of the server.
    runtime_dir:
        The runtime dir to use; a new one is made when it is ``None``.
    base:
        The base, when it is known already.
    storage:
        How :func:`open_storage` is called; the bootstrap puts a deadline around it. It may return at once,
        with a function that waits for the result.

    Raises
    ------
    OverlayError
        ``no-runtime-dir``.
    """
    deferred = _deferred_values(environ)
    environ = _without(environ, deferred)
    base = base or probe()
    home = find_home(environ)
    directory = runtime_dir or runtime.make_dir(environ, home)
    pending = (storage or open_storage)(spec, base, home)
    # the image is looked at while the storage answers
    lock = base.lock()
    payload = _payload()
    runtime.write_config(directory, payload)
    runtime.make_folders(directory)
    found = pending() if callable(pending) else pending
    overlay = env = None
    if found.overlay:
        overlay = Overlay(
            found.overlay, name=spec.name, kind=spec.kind, lifetime=spec.lifetime, local=found.local
        )
    if found.env:
        env = Env(found.env, base.version)
    context = Context(
        spec=spec,
        base=base,
        home=home,
        runtime=directory,
        payload=payload,
        overlay=overlay,
        env=env,
        mode=found.mode,
        notices=[*spec.notices, *found.notices],
        base_lock=lock,
    )
    context.notices.extend(kernelspec.write(context, found.user_kernel, environ))
    runtime.write_commands(context, environ)
    variables = context.variables = runtime.server_environment(context, environ, bad_home=found.bad_home)
    context.restore_env = {
        k: environ.get(k)
        for k in variables
        if k in ("JUPYTER_CONFIG_PATH", "JUPYTER_PATH", "PYTHONNOUSERSITE")
    }
    context.restore_env.update(deferred)
    write_context(context)
    return context


def _deferred_values(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return the image's own values of the variables that a start as root has changed."""
    text = environ.get(RESTORE_ENV)
    if not text:
        return {}
    try:
        values = jsontext.loads(text)
        return {str(k): v if v is None else str(v) for k, v in values.items()}
    except (ValueError, AttributeError):
        return {}


def _without(environ: Mapping[str, str], values: Mapping[str, str | None]) -> dict[str, str]:
    """Return an environment as it was before we changed those variables."""
    out = dict(environ)
    for name, value in values.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = value
    return out


def _payload() -> str:
    """The zip (or the directory above the package) that this code is imported from."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _under_deadline(spec: Spec, base: Base, home: str) -> Callable[[], Found]:
    """Begin :func:`open_storage` in a child; return what gives up on it ``spec.deadline`` seconds later."""

    def work() -> dict[str, object]:
        try:
            return open_storage(spec, base, home).__dict__
        except Exception as e:
            _say("bootstrap-failed", f"{type(e).__name__}: {e}")
            raise

    child = Child(work)

    def found() -> Found:
        try:
            out = Found()
            out.__dict__.update(child.result(spec.deadline))
        except Late:
            late = notice("deadline", f"Your storage did not answer within {spec.deadline:g} seconds.")
            return Found(late, bad_home=True)
        except ValueError:
            failed = notice("bootstrap-failed", "Opening your overlay failed; see the server's log.")
            return Found(failed, bad_home=True)
        return out

    return found


def restore_first(context: Context) -> None:
    """Install what is missing before the server starts, where the administrator wants that; never raises.

    What does not fit into a part of the time that the hub waits is left to the running server.
    """
    if context.spec.restore != "before-start" or context.env is None:
        return
    limit = RESTORE_SHARE * context.spec.start_timeout

    def work() -> object:
        from overlayspawner.payload import restore

        said = ""

        def on_event(event: Mapping[str, object]) -> None:
            nonlocal said
            line = str(event.get("message") or "")
            if line and line != said:
                _say("restoring", line)
                said = line

        return restore.before_start(context, limit, on_event=on_event)

    try:
        left = Child(work).result(limit + RESTORE_GRACE)
    except (Late, ValueError, OSError):
        left = notice("restore-waiting")
    if left:
        context.notices.append(left)
        write_context(context)
    kernelspec.refresh(context)


def write_context(context: Context) -> None:
    """Write ``server.json``."""
    path = os.path.join(context.runtime, SERVER_JSON)
    files.write_atomic(path, context.to_json(), 0o600, sync=False)
