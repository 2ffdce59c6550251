"""An engine that answers over HTTP what a test says: errors that no real one makes when it is asked to."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Answer = tuple[int, Any]


class ScriptedEngine:
    """A context manager.

    Parameters
    ----------
    answers:
        Regular expression for ``METHOD /path`` (without version and query) to the answers one after another:
        status and document, the last one again and again. Status 0 closes the connection without an answer.
    """

    def __init__(self, answers: dict[str, list[Answer]]) -> None:
        self._answers = {pattern: list(given) for pattern, given in answers.items()}
        self.asked: list[str] = []
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                path = re.sub(r"^/v[\d.]+", "", self.path.partition("?")[0])
                engine.asked.append(f"{self.command} {path}")
                status, document = engine._next(engine.asked[-1])
                if status:
                    body = json.dumps(document).encode() if status != 204 else b""
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            do_GET = do_POST = do_DELETE = _answer  # names of the standard library's

            def log_message(self, format: str, *args: object) -> None:
                """Be quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"tcp://127.0.0.1:{self._server.server_address[1]}"

    def _next(self, asked: str) -> Answer:
        if asked == "GET /version":
            return 200, {"ApiVersion": "1.41"}
        for pattern, answers in self._answers.items():
            if re.fullmatch(pattern, asked):
                return answers.pop(0) if len(answers) > 1 else answers[0]
        return 404, {"message": "not found"}

    def __enter__(self) -> ScriptedEngine:
        run: Callable[[], None] = self._server.serve_forever
        threading.Thread(target=run, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
