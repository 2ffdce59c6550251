"""What all handlers of the REST interface share: who may ask, bodies of requests, the shape of errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from jupyter_server.base.handlers import APIHandler
from tornado import web

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.server.body import shown
from overlayspawner.payload.server.service import Service

MAX_BODY = 1_000_000
"""Bytes of a request's body; a larger one is answered with ``too-large``."""

MAX_DRAIN = 64_000_000
"""Bytes of a body that is too large which are read (and dropped) before the answer: a client that is still
sending would see a broken connection instead of the error. Beyond, the connection is closed."""

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
        # `token` is one way to authenticate, `_xsrf` the form of the XSRF check; `_` defeats caches, and so
        # does the bare time of JupyterLab's own requests
        known = {*names, "no_track_activity", "token", "_xsrf", "_"}
        extra = {name for name in self.request.query_arguments if name not in known and not name.isdigit()}
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
