"""A local package index: PEP 503 pages, PEP 691 JSON, PEP 658 metadata, credentials and faults.

``http://127.0.0.1:PORT/simple/`` is the index. Other prefixes give the same projects, but:

=============  =====================================================================================
``/auth/``     asks for basic credentials (:attr:`LocalIndex.user`, :attr:`LocalIndex.password`)
``/slow/``     takes a moment for each answer and trickles files
``/garbage/``  answers 200 with bytes that mean nothing
``/reset/``    resets the connection
``/hang/``     accepts and never answers
``/loop/``     redirects to itself
``/cut/``      ends the connection in the middle of each answer
``/endless/``  goes on for ever, a piece at a time
``/403/`` …    answers with this status: any from 400 to 599
``/moody/``    what :attr:`LocalIndex.mood` is at the moment: one of these, ``held`` until it changes, or well
=============  =====================================================================================

``/X-files/`` (for example ``/reset-files/``) answers pages properly and fails at the files only.
:attr:`LocalIndex.untrusted_url` is the index over TLS, with a certificate that nobody trusts.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import html
import ipaddress
import json
import re
import socket
import ssl
import struct
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

from tests.support.wheels import make_sdist, make_wheel, normalise

__all__ = ["LocalIndex", "Request", "make_sdist", "make_wheel"]

FAULTS = ("slow", "garbage", "reset", "hang", "loop", "cut", "endless")
_STATUS = re.compile(r"[45]\d\d")
_JSON = "application/vnd.pypi.simple.v1+json"


@dataclass
class Request:
    """One request the index saw.

    Parameters
    ----------
    path:
        With its prefix.
    agent:
        The ``User-Agent`` header.
    authorized:
        Whether the right credentials came with it.
    """

    path: str
    agent: str
    authorized: bool


@dataclass
class _File:
    path: Path
    sha256: str
    told_sha256: str
    requires_python: str
    yanked: str
    metadata: bytes | None
    uploaded: str = ""


class LocalIndex:
    """A running index; a context manager.

    Parameters
    ----------
    directory:
        Where its packages are written.
    recipes:
        Whether to build the packages of :mod:`tests.index.recipes`; :meth:`add` adds others.
    fresh:
        Seconds for which clients may keep what they got; PyPI says 600. 0: nothing is said.
    """

    user = "reader"
    password = "p@ss/word+1"

    def __init__(self, directory: Path, *, recipes: bool = True, fresh: int = 0) -> None:
        self.directory = Path(directory)
        self.fresh = fresh
        self.requests: list[Request] = []
        self.projects: dict[str, list[_File]] = {}
        self.files: dict[str, _File] = {}
        self._servers: list[ThreadingHTTPServer] = []
        self._container_host = ""
        self.stopped = threading.Event()
        self._mood = ""
        self._moods = threading.Condition()
        if recipes:
            from tests.index import recipes as all_recipes

            for entry in all_recipes.build(self.directory):
                self.add(
                    entry.path,
                    project=entry.project,
                    requires_python=entry.requires_python,
                    yanked=entry.yanked,
                    sha256=entry.sha256,
                )

    def add(
        self, path: Path, *, project: str = "", requires_python: str = "", yanked: str = "", sha256: str = ""
    ) -> None:
        """Serve one more file.

        Parameters
        ----------
        project:
            Taken from the file's name when empty.
        sha256:
            What the index tells instead of the truth.
        """
        name = normalise(project or path.name.split("-")[0])
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        file = _File(path, digest, sha256 or digest, requires_python, yanked, _metadata(path))
        self.projects.setdefault(name, []).append(file)
        self.files[path.name] = file

    def uploaded(self, filename: str, when: str) -> None:
        """Tell in JSON pages since when there is a file (PEP 700); what is not told is not in them."""
        self.files[filename].uploaded = when

    @property
    def mood(self) -> str:
        """How ``/moody/`` is: empty for well, ``held`` for waiting until it changes, or another prefix."""
        return self._mood

    @mood.setter
    def mood(self, mood: str) -> None:
        with self._moods:
            self._mood = mood
            self._moods.notify_all()

    @contextlib.contextmanager
    def feeling(self, mood: str) -> Iterator[None]:
        """Have ``/moody/`` be like this for a while."""
        self.mood = mood
        try:
            yield
        finally:
            self.mood = ""

    def settled(self) -> str:
        """Wait while it is ``held``, and return how it is then."""
        with self._moods:
            self._moods.wait_for(lambda: self._mood != "held" or self.stopped.is_set())
            return self._mood

    # -- running ------------------------------------------------------------------------------------

    def __enter__(self) -> LocalIndex:
        self._listen("127.0.0.1", 0)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopped.set()
        self.mood = ""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        index = self

        class Handler(_Handler):
            local = index

        server = _Server((host, port), Handler)
        if tls is not None:
            # the handshake belongs to the connection's own thread, where it may fail
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def port(self) -> int:
        """The TCP port, the same on every address."""
        return int(self._servers[0].server_address[1])

    @property
    def root(self) -> str:
        """``http://127.0.0.1:PORT``, without a prefix."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The index as programs on this machine reach it."""
        return f"{self.root}/simple/"

    @property
    def container_host(self) -> str:
        """The address at which containers on Docker's bridge reach the index; listened on from now on."""
        if not self._container_host:
            host = bridge_address()
            self._listen(host, self.port)
            self._container_host = host
        return self._container_host

    @property
    def container_url(self) -> str:
        """The index as containers on Docker's bridge reach it."""
        return f"http://{self.container_host}:{self.port}/simple/"

    @property
    def untrusted_url(self) -> str:
        """The index over TLS, with a certificate that it signed itself; listened on from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(_certificate())
            file.flush()
            context.load_cert_chain(file.name)
        self._listen("127.0.0.1", 0, context)
        return f"https://127.0.0.1:{self._servers[-1].server_address[1]}/simple/"

    def prefixed(self, prefix: str, *, container: bool = False, credentials: bool = False) -> str:
        """Return the URL of the same index under a prefix of this module's table."""
        host = self.container_host if container else "127.0.0.1"
        user = f"{self.user}:{quote(self.password, safe='')}@" if credentials else ""
        return f"http://{user}{host}:{self.port}/{prefix.strip('/')}/simple/"


def bridge_address() -> str:
    """Return this machine's address on Docker's default bridge.

    Raises
    ------
    RuntimeError
        There is no such bridge here.
    """
    import docker

    client = docker.from_env()
    try:
        settings = client.networks.get("bridge").attrs["IPAM"]["Config"]
    finally:
        client.close()
    for item in settings:
        if "Gateway" in item:
            return str(item["Gateway"])
    # dockerd leaves the gateway out of the answer until the bridge has its first container
    import ipaddress

    for item in settings:
        network = ipaddress.ip_network(item["Subnet"])
        if network.version == 4:
            return str(network.network_address + 1)
    raise RuntimeError("Docker's default bridge has no gateway")


def _certificate() -> bytes:
    """Return a certificate for 127.0.0.1 and its key, in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + secret


def _metadata(path: Path) -> bytes | None:
    if path.suffix != ".whl":
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            return archive.read(name)
    except (zipfile.BadZipFile, StopIteration):
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Fast tests open many connections at once; the default backlog of five drops some.
    request_queue_size = 64
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that are killed in mid-request are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    local: LocalIndex

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent; :attr:`LocalIndex.requests` is the log."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        index = self.local
        path = unquote(self.path.split("?")[0])
        authorized = self._authorized()
        index.requests.append(Request(path, self.headers.get("User-Agent", ""), authorized))
        parts = path.strip("/").split("/")
        prefix = parts.pop(0) if parts[0] not in ("simple", "files") else ""
        if prefix == "auth" and not authorized:
            self._send(401, b"credentials, please\n", headers={"WWW-Authenticate": 'Basic realm="index"'})
            return
        if prefix == "moody":
            prefix = index.settled()
        fault, _, only_files = prefix.partition("-")
        is_file = bool(parts) and parts[0] == "files"
        trickle = False
        known = fault in FAULTS or bool(_STATUS.fullmatch(fault))
        if known and (is_file or not only_files):
            if self._fail(fault):
                return
            trickle = is_file
        elif prefix not in ("", "auth") and not (known and only_files == "files"):
            self._send(404, b"no such prefix\n")
            return
        if is_file and len(parts) == 2:
            self._file(parts[1], trickle)
        elif parts == ["simple"]:
            self._page(dict.fromkeys(sorted(index.projects)))
        elif len(parts) == 2 and parts[0] == "simple" and normalise(parts[1]) in index.projects:
            self._project(normalise(parts[1]))
        else:
            self._send(404, b"no such project\n")

    def _authorized(self) -> bool:
        raw = self.headers.get("Authorization", "")
        expected = base64.b64encode(f"{self.local.user}:{self.local.password}".encode()).decode()
        return raw == f"Basic {expected}"

    def _fail(self, fault: str) -> bool:
        """Misbehave; return whether the request is over."""
        if fault == "slow":
            self.local.stopped.wait(0.3)
            return False
        self.close_connection = fault in ("reset", "hang", "cut", "endless")
        if fault == "garbage":
            self._send(200, b"\x00\xff{]<a href=" * 50, kind="text/html")
        elif _STATUS.fullmatch(fault):
            self._send(int(fault), b"out of order\n")
        elif fault == "loop":
            self._send(302, b"", headers={"Location": f"http://{self.headers.get('Host')}{self.path}"})
        elif fault == "cut":
            self._send(200, b"<a href=" * 50, kind="text/html", told=1_000)
        elif fault == "endless":
            self._endless()
        elif fault == "hang":
            self.local.stopped.wait(600)
        else:
            # With a linger time of zero, closing sends RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        return True

    def _endless(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.local.stopped.is_set():
                self.wfile.write(b"<a href=x>" * 10_000)

    def _project(self, name: str) -> None:
        self._page({file.path.name: file for file in self.local.projects[name]}, name)

    def _page(self, rows: dict[str, _File | None], project: str = "") -> None:
        if _JSON in self.headers.get("Accept", ""):
            self._send(200, json.dumps(_json_page(rows, project)).encode(), kind=_JSON)
        else:
            self._send(200, _html_page(rows).encode(), kind="text/html")

    def _file(self, name: str, trickle: bool) -> None:
        files = self.local.files
        wheel = name.removesuffix(".metadata")
        if name in files:
            raw = files[name].path.read_bytes()
        elif wheel in files and files[wheel].metadata is not None:
            raw = files[wheel].metadata or b""
        else:
            self._send(404, b"no such file\n")
            return
        self._send(200, raw, kind="application/octet-stream", trickle=trickle)

    def _send(
        self,
        status: int,
        raw: bytes,
        *,
        kind: str = "text/plain",
        headers: dict[str, str] | None = None,
        trickle: bool = False,
        told: int = 0,
    ) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(told or len(raw)))
            if self.local.fresh and status == 200:
                self.send_header("Cache-Control", f"max-age={self.local.fresh}, public")
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if not trickle:
                self.wfile.write(raw)
                return
            size = max(1, len(raw) // 20)
            for start in range(0, len(raw), size):
                self.wfile.write(raw[start : start + size])
                self.wfile.flush()
                time.sleep(0.1)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def _json_page(rows: dict[str, _File | None], project: str) -> dict[str, object]:
    meta = {"api-version": "1.1" if any(file and file.uploaded for file in rows.values()) else "1.0"}
    if not project:
        return {"meta": meta, "projects": [{"name": name} for name in rows]}
    files: list[dict[str, object]] = []
    for name, file in rows.items():
        assert file is not None
        item: dict[str, object] = {
            "filename": name,
            "url": f"../../files/{name}",
            "hashes": {"sha256": file.told_sha256},
            "size": file.path.stat().st_size,
        }
        if file.requires_python:
            item["requires-python"] = file.requires_python
        if file.yanked:
            item["yanked"] = file.yanked
        if file.uploaded:
            item["upload-time"] = file.uploaded
        if file.metadata is not None:
            digest = {"sha256": hashlib.sha256(file.metadata).hexdigest()}
            # not under its old name as well: pip 23.0 fails at that (PEP 714)
            item["core-metadata"] = digest
        files.append(item)
    return {"meta": meta, "name": project, "files": files}


def _html_page(rows: dict[str, _File | None]) -> str:
    links = []
    for name, file in rows.items():
        if file is None:
            links.append(f'<a href="{name}/">{name}</a><br>')
            continue
        attributes = ""
        if file.requires_python:
            attributes += f' data-requires-python="{html.escape(file.requires_python)}"'
        if file.yanked:
            attributes += f' data-yanked="{html.escape(file.yanked)}"'
        if file.metadata is not None:
            digest = hashlib.sha256(file.metadata).hexdigest()
            attributes += f' data-core-metadata="sha256={digest}" data-dist-info-metadata="sha256={digest}"'
        links.append(f'<a href="../../files/{name}#sha256={file.told_sha256}"{attributes}>{name}</a><br>')
    body = "\n".join(links)
    return f"<!DOCTYPE html>\n<html><head><title>index</title></head><body>\n{body}\n</body></html>\n"
