"""A container registry of one image that is slow to download: as much of the protocol as a pull needs."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class SlowRegistry:
    """A context manager; engines accept a registry on 127.0.0.1 without TLS.

    Parameters
    ----------
    size:
        Bytes of the image's one layer.
    seconds:
        How long its download takes.
    login:
        ``user:password`` that is asked for; by default anyone may pull.
    """

    def __init__(self, size: int = 8_000_000, seconds: float = 3.0, login: str = "") -> None:
        self.seconds = seconds
        self.authorization = "Basic " + base64.b64encode(login.encode()).decode() if login else ""
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            entry = tarfile.TarInfo("random")
            entry.size = size
            archive.addfile(entry, io.BytesIO(os.urandom(size)))
        layer = gzip.compress(raw.getvalue(), 1)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["/no-such-program"]},
                "rootfs": {"type": "layers", "diff_ids": [digest(raw.getvalue())]},
            }
        ).encode()
        self.blobs = {digest(layer): layer, digest(config): config}
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(config),
                    "digest": digest(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                        "size": len(layer),
                        "digest": digest(layer),
                    }
                ],
            }
        ).encode()
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.name = f"127.0.0.1:{self._server.server_address[1]}/slow"

    def __enter__(self) -> SlowRegistry:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def digest(data: bytes) -> str:
    """Return the content's address."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _handler(registry: SlowRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET(head=True)

        def do_GET(self, head: bool = False) -> None:
            registry.requests.append(self.path)
            last = self.path.rpartition("/")[2]
            if registry.authorization and self.headers.get("Authorization") != registry.authorization:
                self._send(b"{}", "application/json", head, 401)
                return
            if self.path == "/v2/":
                self._send(b"{}", "application/json", head)
            elif "/manifests/" in self.path and last in ("latest", digest(registry.manifest)):
                self._send(registry.manifest, MANIFEST, head)
            elif last in registry.blobs:
                self._send(registry.blobs[last], "application/octet-stream", head)
            else:
                error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
                self._send(json.dumps(error).encode(), "application/json", head, 404)

        def _send(self, data: bytes, kind: str, head: bool, status: int = 200) -> None:
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="registry"')
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Docker-Content-Digest", digest(data))
            self.end_headers()
            pieces = 50
            for i in range(0 if head else pieces):
                if len(data) > 1_000_000:
                    time.sleep(registry.seconds / pieces)
                self.wfile.write(data[len(data) * i // pieces : len(data) * (i + 1) // pieces])

    return Handler
