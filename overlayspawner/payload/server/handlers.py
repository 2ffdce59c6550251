"""The REST interface: ``{base_url}overlay/v1/``.

Every verb is authenticated, authorised (resource ``overlay``) and, where it changes something, checked
against cross-site requests. No GET changes state. Errors are ``{code, message, hint}``.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web
from tornado.iostream import StreamClosedError

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.server.body import shown
from overlayspawner.payload.server.jobs import FINISHED
from overlayspawner.payload.server.service import Service

MAX_BODY = 1_000_000
"""Bytes of a request's body; a larger one is answered with ``too-large``."""

MAX_DRAIN = 64_000_000
"""Bytes of a body that is too large which are read (and dropped) before the answer: a client that is still
sending would see a broken connection instead of the error. Beyond, the connection is closed."""

KEEPALIVE = 15.0
"""Seconds of silence after which a stream says that it is alive: proxies drop idle ones at 60 s."""

SCOPES = ("overlay", "base", "user-site")

T = TypeVar("T")

_CODES = {400: "bad-request", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}


@web.stream_request_body
class OverlayHandler(APIHandler):
    """What all handlers share: bodies are read in pieces, errors have one shape."""

    auth_resource = "overlay"

    def initialize(self, service: Service) -> None:
        """Take the extension's one :class:`Service`."""
        self.service = service
        self._pieces: list[bytes] = []
        self._received = 0
        self._admitted = False

    async def prepare(self) -> None:  # type: ignore[override,unused-ignore]
        """Authenticate; refuse what is far too large before any of it is read."""
        length = self.request.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > MAX_DRAIN:
            # tornado closes the connection now; a proxy that is not told would send its next request there
            self.set_header("Connection", "close")
            raise web.HTTPError(413)
        try:
            await super().prepare()
        except web.HTTPError as e:
            # Raised only once the body has been read: before, tornado would close the connection without a
            # word, and a proxy that keeps connections would answer the next request with 503.
            self._refused = e
            setattr(self, str(self.request.method).lower(), self._refuse)
            return
        self._admitted = True

    def _refuse(self, *_args: str, **_kwargs: str) -> None:
        raise self._refused

    def data_received(self, chunk: bytes) -> None:
        """Take a piece of the body; keep none of one that is too large."""
        self._received += len(chunk)
        if self._received > MAX_DRAIN:
            raise web.HTTPError(413)
        if self._received > MAX_BODY:
            self._pieces.clear()
        else:
            self._pieces.append(chunk)

    def check_size(self) -> None:
        """Refuse a body that is too large.

        Raises
        ------
        HTTPError
            413.
        """
        if self._received > MAX_BODY:
            raise web.HTTPError(413)

    def json_body(self) -> dict[str, Any]:
        """Return the body, which has to be a JSON object.

        Raises
        ------
        OverlayError
            ``bad-request``.
        """
        self.check_size()
        try:
            data = json.loads(b"".join(self._pieces).decode("utf-8"))
        except (ValueError, RecursionError):
            raise OverlayError("bad-request", "The body of the request is not JSON.") from None
        if not isinstance(data, dict):
            raise OverlayError("bad-request", "The body of the request is not a JSON object.")
        return data

    def only_arguments(self, *names: str) -> None:
        """Refuse query arguments that mean nothing here: a typing error would go unnoticed.

        Raises
        ------
        OverlayError
            ``bad-request``.
        """
        self.check_size()
        # `token` is one way to authenticate, `_xsrf` the form of the XSRF check, `_` defeats caches
        extra = set(self.request.query_arguments) - {*names, "no_track_activity", "token", "_xsrf", "_"}
        if extra:
            raise OverlayError("bad-request", f"There is no argument {shown(min(extra))} here.")

    def reply(self, data: dict[str, Any], status: int = 200) -> None:
        """Answer with JSON."""
        self.set_status(status)
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(data))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log no traceback for an error that the user is told about."""
        if not isinstance(value, OverlayError):
            super().log_exception(typ, value, tb)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer ``{code, message, hint}``, never a traceback."""
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        if not isinstance(error, OverlayError):
            error = self._as_overlay_error(status_code, error)
        self.set_status(error.status)
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(error.to_dict()))

    def _as_overlay_error(self, status: int, error: BaseException | None) -> OverlayError:
        if status in (401, 403):
            # Under a hub, a user whose XSRF check failed is no user; the cookies tell that there is one.
            refused = not self._admitted and bool(self.request.cookies)
            if not refused and not getattr(self, "current_user", None):
                hint = "Log in again, or send a token."
                return OverlayError("not-authenticated", hint=hint, status=status)
            if self._admitted:
                return OverlayError("not-authorized", status=status)
            # refused while it was being authenticated: the XSRF check, or the Host header
            hint = "Send the value of the _xsrf cookie as the header X-XSRFToken."
            return OverlayError("forbidden", hint=hint, status=status)
        if status == 413:
            return OverlayError("too-large", f"The request is larger than {MAX_BODY:,} bytes.", status=status)
        code = _CODES.get(status, "internal" if status >= 500 else "bad-request")
        hint = "The server's log says more." if code == "internal" else ""
        return OverlayError(code, hint=hint, status=status)

    async def off_loop(self, work: Callable[[], T]) -> T:
        """Run what reads the user's storage in a thread: a slow disk must not stop the server.

        Raises
        ------
        OverlayError
            ``timeout`` when the storage does not answer.
        """
        return await self.service.off_loop(work)


class StatusHandler(OverlayHandler):
    """``status``: which overlay this is and how it is."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Describe the overlay."""
        self.only_arguments()
        self.reply(await self.off_loop(self.service.status))


class PackagesHandler(OverlayHandler):
    """``packages?scope=``: what is installed."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List the packages of one scope."""
        self.only_arguments("scope")
        scope = self.get_query_argument("scope", "overlay")
        if scope not in SCOPES:
            raise OverlayError("bad-request", f"The scope is one of {', '.join(SCOPES)}, not {shown(scope)}.")
        self.reply({"packages": await self.off_loop(lambda: self.service.packages(scope))})


class RevisionsHandler(OverlayHandler):
    """``revisions``: what was changed."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List the revisions, newest first."""
        self.only_arguments()
        self.reply({"revisions": await self.off_loop(self.service.revisions)})


class NextStartHandler(OverlayHandler):
    """``next-start``: how the server starts next time."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Ask for safe mode at the next start, or take that back."""
        self.only_arguments()
        body = self.json_body()
        self.reply(await self.off_loop(lambda: self.service.ask_next(body)))


class PlanHandler(OverlayHandler):
    """``plan``: what a change would do."""

    @web.authenticated
    @authorized("read")  # who may look may also ask what would be
    async def post(self) -> None:
        """Answer with the plan; nothing is changed."""
        self.only_arguments()
        body = self.json_body()
        self._cancel = threading.Event()
        self.reply(await self.service.plan(body, self._cancel))

    def on_connection_close(self) -> None:
        """Stop working for a client that has gone."""
        super().on_connection_close()
        cancel = getattr(self, "_cancel", None)
        if cancel is not None:
            cancel.set()


class JobsHandler(OverlayHandler):
    """``jobs``: the long-running actions."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List the jobs, newest first."""
        self.only_arguments()
        self.reply({"jobs": [job.to_dict() for job in self.service.jobs.jobs()]})

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Begin a job; everything that can be refused is refused before there is one."""
        self.only_arguments()
        body = self.json_body()
        job = await self.off_loop(lambda: self.service.make_job(body, self._who()))
        self.service.jobs.submit(job)
        self.set_header("Location", self.request.path.rstrip("/") + "/" + job.id)
        self.reply(job.to_dict(), 202)

    def _who(self) -> str:
        user = self.current_user
        return str(getattr(user, "username", "") or "")


class JobHandler(OverlayHandler):
    """``jobs/ID``: one action."""

    @web.authenticated
    @authorized
    async def get(self, ident: str) -> None:
        """Describe a job, with its log."""
        self.only_arguments()
        self.reply(self.service.jobs.get(ident).to_dict(log=True))

    @web.authenticated
    @authorized
    async def delete(self, ident: str) -> None:
        """Cancel a job: it stops soon, or is finished already and stays as it is."""
        self.only_arguments()
        job = self.service.jobs.cancel(ident)
        self.reply(job.to_dict(log=True), 200 if job.state in FINISHED else 202)


class JobEventsHandler(OverlayHandler):
    """``jobs/ID/events``: what a job does, as server-sent events."""

    # An open stream is no activity of the user; a running job counts by itself.
    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self, ident: str) -> None:
        """Send the events after ``Last-Event-ID`` until the job is finished."""
        self.only_arguments()
        jobs = self.service.jobs
        job = jobs.get(ident)
        last = self.request.headers.get("Last-Event-ID", "0")
        if not (last.isascii() and last.isdigit() and len(last) < 12):
            raise OverlayError("bad-request", "Last-Event-ID is not the number of an event.")
        sent = int(last)
        if job.state in FINISHED and not jobs.events_after(job, sent):
            # By the standard, 204 tells an EventSource not to connect again.
            self.set_status(204)
            self.finish()
            return
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Accel-Buffering", "no")
        loop = asyncio.get_running_loop()
        news = asyncio.Event()
        self._gone = news

        def tell() -> None:
            try:
                loop.call_soon_threadsafe(news.set)
            except RuntimeError:
                pass  # the loop is closed: the server has stopped

        stop = jobs.listen(tell)
        try:
            while not self.request.connection.stream.closed():  # type: ignore[attr-defined,union-attr,unused-ignore]
                news.clear()
                # before the events: a job that ends in between is seen in the next round
                over = job.state in FINISHED
                for number, kind, data in jobs.events_after(job, sent):
                    self.write(f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n")
                    sent = number
                await self.flush()
                if over and not jobs.events_after(job, sent):
                    break
                try:
                    await asyncio.wait_for(news.wait(), KEEPALIVE)
                except asyncio.TimeoutError:
                    self.write(": alive\n\n")
        except StreamClosedError:
            return
        finally:
            stop()
        self.finish()

    def on_connection_close(self) -> None:
        """Wake the loop of a stream whose client has gone."""
        super().on_connection_close()
        gone = getattr(self, "_gone", None)
        if gone is not None:
            gone.set()


class UnknownHandler(OverlayHandler):
    """Everything else below ``overlay/v1/``: a JSON answer, not a page."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer ``not-found``."""
        raise OverlayError("not-found", "There is no such thing in this interface.", status=404)

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Answer ``not-found``."""
        raise OverlayError("not-found", "There is no such thing in this interface.", status=404)

    @web.authenticated
    @authorized
    async def put(self) -> None:
        """Answer ``not-found``."""
        raise OverlayError("not-found", "There is no such thing in this interface.", status=404)

    @web.authenticated
    @authorized
    async def patch(self) -> None:
        """Answer ``not-found``."""
        raise OverlayError("not-found", "There is no such thing in this interface.", status=404)

    @web.authenticated
    @authorized
    async def delete(self) -> None:
        """Answer ``not-found``."""
        raise OverlayError("not-found", "There is no such thing in this interface.", status=404)


ROUTES: list[tuple[str, type[OverlayHandler]]] = [
    ("status", StatusHandler),
    ("packages", PackagesHandler),
    ("revisions", RevisionsHandler),
    ("next-start", NextStartHandler),
    ("plan", PlanHandler),
    ("jobs", JobsHandler),
    ("jobs/([0-9a-f]{1,64})", JobHandler),
    ("jobs/([0-9a-f]{1,64})/events", JobEventsHandler),
    (".*", UnknownHandler),
]
"""Pattern below ``overlay/v1/`` → handler."""
