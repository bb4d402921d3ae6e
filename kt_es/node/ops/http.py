"""``/metrics`` and ``/healthz`` over plain HTTP, on a port and in threads of their own.

The node's event loop computes both answers, so that a node that hangs is noticed: after ``PATIENCE`` seconds
without an answer the status is 503.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from socketserver import ThreadingMixIn
from typing import Any, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from kt_es.errors import ConfigError
from kt_es.node.ops.metrics import MEDIA_TYPE

PATIENCE = 5.0
Value = TypeVar("Value")
_TEXT = "text/plain; charset=utf-8"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds without a request

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's name
        """Requests are not logged."""


class HttpOps:
    """Serves in the background from ``start`` to ``close``.

    ``render`` gives the page of metrics; ``problem`` gives why the node is unhealthy, or "". Both run on
    ``loop``.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, render: Callable[[], bytes], problem: Callable[[], str]
    ) -> None:
        self._loop = loop
        self._render = render
        self._problem = problem
        self._server: WSGIServer | None = None

    def start(self, host: str, port: int) -> str:
        """Listen; returns "host:port".

        Raises:
            ConfigError: the address cannot be listened on.
        """
        try:
            server = make_server(host, port, self._answer, _Server, _Handler)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise ConfigError(f"cannot listen on {host}:{port}: {reason}") from None
        self._server = server
        threading.Thread(target=server.serve_forever, name="kt-node-http", daemon=True).start()
        return f"{host}:{server.server_port}"

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, request: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        status, kind, body = self._page(request["PATH_INFO"], request["REQUEST_METHOD"])
        respond(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [] if request["REQUEST_METHOD"] == "HEAD" else [body]

    def _page(self, path: str, method: str) -> tuple[str, str, bytes]:
        if path not in {"/metrics", "/healthz"}:
            return "404 Not Found", _TEXT, b"/metrics and /healthz are here\n"
        if method not in {"GET", "HEAD"}:
            return "405 Method Not Allowed", _TEXT, b"GET\n"
        try:
            if path == "/metrics":
                return "200 OK", MEDIA_TYPE, self._on_loop(self._render)
            problem = self._on_loop(self._problem)
        except (TimeoutError, RuntimeError):  # RuntimeError: the loop is closed
            problem = f"the node did not answer within {PATIENCE:.0f} s"
        if problem:
            return "503 Service Unavailable", _TEXT, f"{problem}\n".encode()
        return "200 OK", _TEXT, b"ok\n"

    def _on_loop(self, ask: Callable[[], Value]) -> Value:
        answer: Future[Value] = Future()

        def run() -> None:
            try:
                answer.set_result(ask())
            except Exception as error:  # noqa: BLE001  raised again in the thread that waits
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return answer.result(PATIENCE)
