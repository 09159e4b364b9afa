"""A cloud's REST API in a thread: what the emulated clouds of the tests have in common.

A subclass answers requests by `handle`. `faults` lose the answer of a call that changes something: the change is made,
and the connection ends, as it looks to somebody who dies just then.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.edge.fake import Faults

Reply = tuple[int, Any]


class RestCloud:
    """Resources by path."""

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Any]] = {}
        self.faults = Faults()
        self.requests: list[tuple[str, str]] = []
        self.refusal: Reply | None = None
        """What every change is answered with, instead of being made."""
        self._lock = threading.Lock()
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536  # head and body in one packet

            def _answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length) or b"null")
                cloud.answer(self, body)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, body: Any) -> None:
        parts = urlsplit(handler.path)
        changes = handler.command != "GET" and not parts.path.endswith("/listNetworkEndpoints")
        with self._lock:
            self.requests.append((handler.command, parts.path))
            if changes and self.refusal:
                status, reply = self.refusal
            else:
                status, reply = self.handle(handler.command, parts.path, parse_qs(parts.query), body, handler.headers)
            lost = False
            if changes:
                self.faults.calls += 1
                lost = self.faults.calls == self.faults.at
        if lost:
            handler.close_connection = True
            return
        data = json.dumps(reply).encode() if reply is not None else b""
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def handle(self, method: str, path: str, query: dict[str, list[str]], body: Any, headers: Any) -> Reply:
        raise NotImplementedError

    def snapshot(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.resources, sort_keys=True))  # type: ignore[no-any-return]
