"""What happens when Jupyter Server loads the extension: never more than one logged line goes wrong.

Only the REST interface needs Jupyter Server 2; kernels, terminals and the clean environment come also with
older ones.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import threading
import zipfile
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import partial
from typing import Any

from overlayspawner.payload import bootstrap, runtime
from overlayspawner.payload.context import Context
from overlayspawner.payload.contract import MARK, RUNTIME_ENV, OverlayError, Spec, notice
from overlayspawner.payload.probe import Base
from overlayspawner.payload.server import adapt, hidden, panel

SETTING = "overlayspawner"
"""Key of the web application's settings that holds the :class:`Service`."""

ACTIVITY = "overlayspawner_last_activity"
"""Key that Jupyter Server counts as activity: a running job keeps the idle culler away."""

ACTIVITY_EVERY = 30_000
"""Milliseconds between two looks whether a job is running."""

STOP_TIMEOUT = 5.0
"""Seconds that the end of the server waits for a running job to end cleanly."""


def load(serverapp: Any) -> None:
    """Load the extension into a running server. Never raises; does nothing the second time.

    Parameters
    ----------
    serverapp:
        The ``ServerApp`` (or, with old images, ``NotebookApp``).
    """
    settings = serverapp.web_app.settings
    if SETTING in settings:
        return
    settings[SETTING] = None
    environ = os.environ
    context: Context | None = None
    try:
        context = find_context(environ)
        adapt.kernels(serverapp, context)
        adapt.terminals(serverapp, context, environ)
        _serve(serverapp, context)
        _in_background(context, serverapp.log)
    except (Exception, SystemExit) as e:
        code, text = (
            (e.code, e.message) if isinstance(e, OverlayError) else ("internal", f"{type(e).__name__}: {e}")
        )
        serverapp.log.warning("%s[%s] %s The server runs without the overlay's interface.", MARK, code, text)
    finally:
        _leave_no_trace(serverapp, context, environ)


def find_context(environ: Mapping[str, str]) -> Context:
    """Return what the start found; where there was none of ours, open the overlay now.

    That is so where the extension is installed into the image without a hub, and after a start as root: this
    process is then the first that runs as the final user.

    Raises
    ------
    OverlayError
        ``bad-spec``, ``no-runtime-dir``.
    OSError, ValueError, KeyError, TypeError
        The runtime dir was damaged.
    """
    directory = environ.get(RUNTIME_ENV)
    if directory:
        info = os.lstat(directory)
        if info.st_uid != os.geteuid() or info.st_mode & 0o077 or not os.path.isdir(directory):
            raise OverlayError("no-runtime-dir", f"{directory} is not a private directory of this user.")
        return Context.load(directory)
    spec = bootstrap.read_spec(environ) or Spec()
    return bootstrap.open_context(spec, environ=environ, storage=_storage_in_time)


def _storage_in_time(spec: Spec, base: Base, home: str) -> bootstrap.Found:
    """Open the storage, but give up on it after the deadline: a dead one must not stop the server."""
    found: list[bootstrap.Found] = []
    thread = threading.Thread(
        target=lambda: found.append(bootstrap.open_storage(spec, base, home)),
        name="overlay-open",
        daemon=True,
    )
    thread.start()
    thread.join(spec.deadline)
    if found:
        return found[0]
    why = f"Your storage did not answer within {spec.deadline:g} seconds."
    late = notice("deadline", why, "Restart your server; if it goes on, ask your administrator.")
    return bootstrap.Found(late, bad_home=True)


def _serve(serverapp: Any, context: Context) -> None:
    """Register the REST interface, where the server is new enough for it."""
    import jupyter_server

    if int(jupyter_server.__version__.split(".")[0]) < 2:
        context.notices.append(notice("old-server"))
        serverapp.log.warning("%s[old-server] Jupyter Server %s.", MARK, jupyter_server.__version__)
        return
    from tornado.ioloop import PeriodicCallback

    from overlayspawner.payload.server.background import Background
    from overlayspawner.payload.server.handlers import ROUTES
    from overlayspawner.payload.server.service import Service

    settings = serverapp.web_app.settings
    settings[ACTIVITY] = settings.get("started") or datetime.now(timezone.utc)

    def active() -> None:
        settings[ACTIVITY] = datetime.now(timezone.utc)

    service = Service(context, serverapp.log, active)
    settings[SETTING] = service
    # A user's name is part of the base URL, and a pattern here.
    root = re.escape(settings["base_url"].rstrip("/") + "/overlay/v1/")
    handlers = [(f"{root}(?:{pattern})/?", handler, {"service": service}) for pattern, handler in ROUTES]
    serverapp.web_app.add_handlers(".*$", handlers)
    try:
        panel.deliver(serverapp, context)
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as e:
        serverapp.log.info("overlayspawner: JupyterLab gets no panel: %s: %s", type(e).__name__, e)

    threading.Thread(
        target=_bring_pages, args=(serverapp, context, service), name="overlay-pages", daemon=True
    ).start()
    _on_loop(serverapp, Background(service, serverapp).start)
    ticker = PeriodicCallback(lambda: active() if service.jobs.current() else None, ACTIVITY_EVERY)
    _on_loop(serverapp, ticker.start)
    # An extension without an application class is not told that the server stops; the interpreter's end
    # comes right after, and the worker is a daemon, which is still alive then.
    atexit.register(service.jobs.stop, STOP_TIMEOUT)


def _bring_pages(serverapp: Any, context: Context, service: Any) -> None:
    """Put the overlay's widgets where pages find them: in a thread, modules and all; nobody waits for it."""
    from overlayspawner.payload.server.pages import Pages

    pages = Pages(context, serverapp)
    service.refresh_pages = pages.refresh
    pages.start(partial(_on_loop, serverapp))


def _in_background(context: Context, log: Any) -> None:
    """Do what nobody waits for: what is left out, wrappers of the image's commands, old runtime dirs."""

    def work() -> None:
        acts: list[Callable[[], object]] = [
            lambda: hidden.look(context),
            lambda: runtime.write_wrappers(context),
            *(partial(runtime.sweep, place) for place in places),
        ]
        for act in acts:
            try:
                act()
            except Exception as e:
                # a full /tmp, or files of somebody's: the image's commands then run on the base
                log.info("overlayspawner: %s: %s", type(e).__name__, e)

    local = context.overlay.local if context.overlay is not None else ""
    places = [place for place in (context.runtime, local) if place]
    if context.runtime:
        for place in places:
            runtime.hold(place)  # kept open until this process ends
        threading.Thread(target=work, name="overlay-wrappers", daemon=True).start()


def _leave_no_trace(serverapp: Any, context: Context | None, environ: Any) -> None:
    """Make the server's environment the image's again.

    Our own variables at once; those that say where Jupyter looks only when the loop runs, since extensions
    that are loaded after this one may read them still.
    """
    restore: dict[str, str | None] = dict(context.restore_env) if context else {}
    if context is None and environ.get(bootstrap.RESTORE_ENV):
        try:
            restore = dict(json.loads(environ[bootstrap.RESTORE_ENV]))
        except (ValueError, TypeError):
            pass
    for name in [n for n in environ if n.startswith("OVERLAYSPAWNER_")]:
        del environ[name]

    def put_back() -> None:
        for name, value in restore.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value

    _on_loop(serverapp, put_back)


def _on_loop(serverapp: Any, callback: Any) -> None:
    loop = getattr(serverapp, "io_loop", None)
    if loop is None:
        callback()
    else:
        loop.add_callback(callback)
