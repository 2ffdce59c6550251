"""What a job does, as server-sent events: ``jobs/ID/events``."""

from __future__ import annotations

import asyncio
import json

from jupyter_server.auth.decorator import authorized
from tornado import web
from tornado.iostream import StreamClosedError

from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.server.base import OverlayHandler
from overlayspawner.payload.server.jobs import FINISHED

KEEPALIVE = 15.0
"""Seconds of silence after which a stream says that it is alive: proxies drop idle ones at 60 s."""


class JobEventsHandler(OverlayHandler):
    """``jobs/ID/events``: a stream that ends with its job.

    Each stream has a number of its own up to which it has sent, and nothing else: what a slow reader does not
    take is not kept for it. When the events that it needs next are gone it gets the job as it is now.
    """

    # An open stream is no activity of the user; a running job counts by itself.
    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self, ident: str) -> None:
        """Send the job as it is, or the events after ``Last-Event-ID``, and all that follow."""
        self.only_arguments()
        jobs = self.service.jobs
        job = jobs.get(ident)
        last = self.request.headers.get("Last-Event-ID")
        if last is not None and not (last.isascii() and last.isdigit() and len(last) < 12):
            raise OverlayError("bad-request", "Last-Event-ID is not the number of an event.")
        sent = None if last is None else int(last)
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
                # comes back once the reader has taken it: until then nothing more is written
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
