"""Waiting for a server: real servers of several kinds of bad behaviour."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from jupyterhub.utils import make_ssl_context
from tornado.httpclient import AsyncHTTPClient
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from overlayspawner.hub import waiting
from overlayspawner.hub.waiting import answers, wait_until_up

Serve = Callable[..., "asyncio.Future[str]"]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start servers that answer each connection with the next of some texts (``None``: with nothing)."""
    servers: list[asyncio.AbstractServer] = []
    writers: list[asyncio.StreamWriter] = []

    async def start(*texts: bytes | None, context: ssl.SSLContext | None = None) -> str:
        count = 0

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            text = texts[min(count, len(texts) - 1)]
            count += 1
            writers.append(writer)
            if text is not None:
                writer.write(text)
                await writer.drain()
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        return f"{'https' if context else 'http'}://127.0.0.1:{port}/user/a/api"

    yield start
    for writer in writers:
        writer.close()
    for server in servers:
        server.close()


def answer(status: str, body: bytes = b"{}", extra: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n".encode()
    return head + extra + b"Connection: close\r\n\r\n" + body


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "403 Forbidden", "302 Found"])
async def test_anything_but_a_server_error_is_an_answer(serve: Serve, status: str) -> None:
    url = await serve(answer(status, extra=b"Location: http://127.0.0.1:1/\r\n"))
    assert await answers(url)


@pytest.mark.parametrize("text", [answer("500 Oops"), answer("503 Busy"), b"", b"no http at all\r\n\r\n"])
async def test_no_answer(serve: Serve, text: bytes) -> None:
    assert not await answers(await serve(text))


async def test_another_default_client_does_not_matter(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pycurl is installed, JupyterHub makes tornado's Curl client the default."""

    class Curl(SimpleAsyncHTTPClient):
        def initialize(self, max_clients: int = 10, defaults: object = None) -> None:  # type: ignore[override]
            """As Curl's: no bounds."""

    monkeypatch.setattr(waiting, "_client", None)
    AsyncHTTPClient.configure(Curl)
    try:
        assert await waiting.answers(await serve(answer("200 OK")))
    finally:
        AsyncHTTPClient.configure(None)


async def test_nobody_listens() -> None:
    assert not await answers("http://127.0.0.1:9/api")


async def test_it_goes_on_until_there_is_an_answer(serve: Serve) -> None:
    url = await serve(b"", answer("503 Busy"), answer("502 Bad Gateway"), answer("200 OK"))
    assert await wait_until_up(url, timeout=30)


async def test_it_gives_up_in_time(serve: Serve) -> None:
    assert not await wait_until_up(await serve(answer("503 Busy")), timeout=0.3)


async def test_a_server_that_accepts_and_says_nothing_ends_with_the_timeout(serve: Serve) -> None:
    assert not await wait_until_up(await serve(None), timeout=0.3)


async def test_a_death_ends_the_wait_at_once(serve: Serve) -> None:
    dead: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    wait = asyncio.ensure_future(wait_until_up(await serve(None), timeout=3600, until=dead))
    await asyncio.sleep(0.05)
    assert not wait.done()
    dead.set_result(1)
    assert await wait is False


async def test_silent_servers_of_some_users_do_not_block_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_REQUEST_TIMEOUT", 0.3)
    silent = await serve(None)
    waits = [asyncio.ensure_future(wait_until_up(silent, timeout=20)) for _ in range(waiting.MAX_PROBES * 2)]
    try:
        await asyncio.sleep(0.1)
        assert await wait_until_up(await serve(answer("200 OK")), timeout=15)
    finally:
        for wait in waits:
            wait.cancel()


async def test_internal_ssl_with_the_hub_s_own_context(serve: Serve, tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=any"
    command += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*command.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cert)
    url = await serve(answer("200 OK"), context=server)
    context = make_ssl_context(str(key), str(cert), cafile=str(cert))
    assert await wait_until_up(url, timeout=10, ssl_context=context)
    assert not await answers(url)  # nobody vouches for the certificate
