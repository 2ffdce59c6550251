"""The REST interface: ``{base_url}overlay/v1/``.

Every verb is authenticated, authorised (resource ``overlay``) and, where it changes something, checked
against cross-site requests. No GET changes state. Errors are ``{code, message, hint}``.
"""

from __future__ import annotations

import threading

from jupyter_server.auth.decorator import authorized
from tornado import web

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.export import FILES
from overlayspawner.payload.server import finding
from overlayspawner.payload.server.base import OverlayHandler
from overlayspawner.payload.server.body import shown
from overlayspawner.payload.server.jobs import FINISHED
from overlayspawner.payload.server.stream import JobEventsHandler

SCOPES = ("overlay", "base", "user-site")


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


class ExportHandler(OverlayHandler):
    """``export?format=``: the overlay as text for other tools."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Write the overlay down."""
        self.only_arguments("format", "pinned")
        form = self.get_query_argument("format", "requirements")
        pinned = self.get_query_argument("pinned", "0")
        if form not in FILES:
            raise OverlayError("bad-request", f"The format is one of {', '.join(FILES)}, not {shown(form)}.")
        if pinned not in ("0", "1"):
            raise OverlayError("bad-request", f"pinned is 0 or 1, not {shown(pinned)}.")
        self.reply(await self.off_loop(lambda: self.service.export(form, pinned == "1")))


class CleanupHandler(OverlayHandler):
    """``cleanup``: what could be freed."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List it, as it was measured last."""
        self.only_arguments()
        self.reply(await self.off_loop(self.service.cleanup))


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


class GivenHandler(OverlayHandler):
    """``given``: what a file asks for."""

    @web.authenticated
    @authorized("read")  # nothing of it is kept
    async def post(self) -> None:
        """Read a file of which the request holds the text."""
        self.only_arguments()
        body = self.json_body()
        self.reply(await self.off_loop(lambda: self.service.given(body)))


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
        """Cancel a job: it stops soon, or is finished already and stays as it is.

        One that was interrupted is told of no more.
        """
        self.only_arguments()
        job = self.service.jobs.cancel(ident)
        if job.was_interrupted and job.state in FINISHED:
            await self.off_loop(lambda: self.service.dismiss(job))
        self.reply(job.to_dict(log=True), 200 if job.state in FINISHED else 202)


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
    *finding.ROUTES,
    ("revisions", RevisionsHandler),
    ("export", ExportHandler),
    ("cleanup", CleanupHandler),
    ("next-start", NextStartHandler),
    ("plan", PlanHandler),
    ("given", GivenHandler),
    ("jobs", JobsHandler),
    ("jobs/([0-9a-f]{1,64})", JobHandler),
    ("jobs/([0-9a-f]{1,64})/events", JobEventsHandler),
    (".*", UnknownHandler),
]
"""Pattern below ``overlay/v1/`` → handler."""
