"""What stands around the whole application: limits, the time of each request, the last resort.

Pure ASGI: a body is read here, up to its limit, before anything else looks at it. Nothing of a request
is ever logged but its method and its route.
"""

from __future__ import annotations

import time
import traceback

import structlog
from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kt_es.server.problems import MEDIA_TYPE, Problem, http_problem, internal_problem

MAX_BODY = 1_258_291  # 1.2 MiB: a profile of 512 KiB and a mutation of 16 KiB in base64, and room
MAX_REQUESTS = 256

_LOG = structlog.get_logger("kt_es.server")


class Guard:
    """Wraps ``app``; ``seconds`` is observed under the label ``route``."""

    def __init__(self, app: ASGIApp, seconds: Histogram) -> None:
        self._app = app
        self._seconds = seconds
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        self._requests += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self._requests -= 1
            self._seconds.labels(_route(scope)).observe(time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._requests > MAX_REQUESTS and scope["path"] != "/healthz":
            busy = Problem(503, "unavailable", "this front end has too many requests", retry_after=1.0)
            await _send_problem(send, busy)
            return
        body = await _read_body(scope, receive)
        if body is None:
            limit = f"the body must have at most {MAX_BODY} bytes"
            await _send_problem(send, Problem(413, "oversize", limit))
            return
        sent = False

        async def watched(message: Message) -> None:
            nonlocal sent
            sent = True
            await send(message)

        try:
            await self._app(scope, _replayed(body, receive), watched)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets no internals of it
            # Without its message: that may hold what the request said.
            where = traceback.extract_tb(error.__traceback__)[-1]
            _LOG.error(
                "a request failed",
                method=scope["method"],
                route=_route(scope),
                error=type(error).__name__,
                at=f"{where.name}:{where.lineno}",
            )
            if not sent:
                await _send_problem(send, internal_problem())


def _route(scope: Scope) -> str:
    """The route's template, which holds nothing of the request."""
    return str(getattr(scope.get("route"), "path", "other"))


async def _read_body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body, None as soon as it is too large."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and (len(value) > 9 or int(value) > MAX_BODY):
            return None
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    pending: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def replay() -> Message:
        nonlocal pending
        if pending is None:
            return await receive()
        message, pending = pending, None
        return message

    return replay


async def _send_problem(send: Send, problem: Problem) -> None:
    headers = {"content-type": MEDIA_TYPE, **problem.headers}
    # What is left of a body that was too large stays unread on its connection.
    if problem.status == http_problem(413).status:
        headers["connection"] = "close"
    encoded = problem.encode()
    await send(
        {
            "type": "http.response.start",
            "status": problem.status,
            "headers": [
                (b"content-length", str(len(encoded)).encode()),
                *((name.encode(), value.encode()) for name, value in headers.items()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": encoded})
