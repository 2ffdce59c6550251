"""Waits until a server answers, inside ``start()``.

JupyterHub itself looks with exponential back-off, and loses one to two seconds between a server's first
answer and noticing it. A TCP connection proves nothing (an engine's port proxy accepts early), so the same
HTTP request is made as the hub makes, every 50 to 250 ms.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

if TYPE_CHECKING:
    import ssl

MAX_PROBES = 40
"""How many requests may be under way over all spawns."""

_FIRST, _LONGEST, _GROWTH = 0.05, 0.25, 1.15
_REQUEST_TIMEOUT = 2.0

_under_way: set[asyncio.Future[bool]] = set()  # asyncio itself does not hold on to its tasks
_client: tuple[asyncio.AbstractEventLoop, SimpleAsyncHTTPClient] | None = None


def _http_client() -> SimpleAsyncHTTPClient:
    # An instance of our own: the shared one has ten connections for the whole hub, and answers of users'
    # servers are to be bounded. Requests beyond max_clients queue up, which is the cap over all spawns.
    # The simple client by name: where pycurl is installed, JupyterHub makes Curl the default, which has no
    # such bounds and takes no SSL context.
    global _client
    loop = asyncio.get_running_loop()
    if _client is None or _client[0] is not loop:
        http = SimpleAsyncHTTPClient(
            force_instance=True,
            defaults={"user_agent": "overlayspawner"},
            max_clients=MAX_PROBES,
            max_header_size=65536,
            max_body_size=1 << 20,
        )
        _client = (loop, http)
    return _client[1]


async def answers(url: str, ssl_context: ssl.SSLContext | None = None) -> bool:
    """Whether a server answers at ``url`` with anything but a server error."""
    request = HTTPRequest(
        url,
        connect_timeout=_REQUEST_TIMEOUT,
        request_timeout=_REQUEST_TIMEOUT,
        follow_redirects=False,
        decompress_response=False,
        streaming_callback=_discard,
        ssl_options=ssl_context,
    )
    try:
        await _http_client().fetch(request)
    except HTTPClientError as e:
        # 599 is tornado's own code for "no answer"
        return e.code < 500
    except (OSError, ValueError):
        return False
    return True


def _discard(_chunk: bytes) -> None:
    """Drop a piece of the body."""


async def wait_until_up(
    url: str,
    *,
    timeout: float,
    ssl_context: ssl.SSLContext | None = None,
    until: asyncio.Future[Any] | None = None,
) -> bool:
    """Wait until a server answers; return whether it does.

    Parameters
    ----------
    url:
        What to ask for.
    timeout:
        Seconds after which to give up.
    ssl_context:
        For internal SSL.
    until:
        Give up as soon as this is done.
    """
    end = time.monotonic() + timeout
    pause = _FIRST
    while True:
        probe = asyncio.ensure_future(answers(url, ssl_context))
        waited: set[asyncio.Future[Any]] = {probe} if until is None else {probe, until}
        # One that is not done in the end runs into its own timeout: tornado logs an error for each request
        # that is cancelled.
        _under_way.add(probe)
        probe.add_done_callback(_under_way.discard)
        await asyncio.wait(
            waited, timeout=max(0.0, end - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
        )
        if probe.done() and probe.result():
            return True
        if until is not None and until.done():
            return False
        left = end - time.monotonic()
        if left <= 0:
            return False
        sleep = min(pause * random.uniform(0.7, 1.3), left)  # noqa: S311  # jitter: spawns started together
        pause = min(pause * _GROWTH, _LONGEST)
        if until is None:
            await asyncio.sleep(sleep)
        else:
            await asyncio.wait({until}, timeout=sleep)
