"""Between HTTP/1.1 and the application: whole requests into ASGI, whole answers out as bytes."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from starlette.types import Message, Receive

from kt_es.api.operations import PROBLEM_MEDIA
from kt_es.server.incoming import IncomingRequest
from kt_es.server.problems import Problem

Headers = list[tuple[bytes, bytes]]


def encode_head(status: int, headers: Headers, *, keep_alive: bool) -> bytes:
    """Status line and headers, with the empty line after them."""
    lines = [_status_line(status), _date(int(time.time()))]
    lines += [b"%b: %b\r\n" % (name, value) for name, value in headers if name.lower() != b"connection"]
    lines.append(b"connection: keep-alive\r\n\r\n" if keep_alive else b"connection: close\r\n\r\n")
    return b"".join(lines)


def problem_headers(problem: Problem, body: bytes) -> Headers:
    headers = {"content-length": str(len(body)), "content-type": PROBLEM_MEDIA, **problem.headers}
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def problem_answer(problem: Problem) -> bytes:
    """A whole answer, after which the connection ends."""
    body = problem.encode()
    return encode_head(problem.status, problem_headers(problem, body), keep_alive=False) + body


def closing(headers: Headers) -> bool:
    """Whether the headers of an answer end the connection."""
    return any(name == b"connection" and value == b"close" for name, value in headers)


def retry_after(headers: Headers) -> float:
    """Seconds that an answer asks its client to wait."""
    return next((float(value) for name, value in headers if name == b"retry-after"), 1.0)


@functools.lru_cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


@functools.lru_cache(2)
def _date(now: int) -> bytes:
    return f"date: {formatdate(now, usegmt=True)}\r\n".encode()


def scope_of(request: IncomingRequest) -> dict[str, Any]:
    """ASGI's ``scope`` of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": request.version,
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.raw_path,
        "query_string": request.query,
        "root_path": "",
        "headers": request.headers,
        "client": (request.client, 0),
        "server": None,
    }


def whole_body(body: bytes) -> Receive:
    """ASGI's ``receive`` of a request whose body has arrived.

    Called again it waits for ever: a client that hangs up cancels the task, and there is no other notice.
    """
    pending = [body]

    async def receive() -> Message:
        if not pending:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.request", "body": pending.pop(), "more_body": False}

    return receive


class WholeAnswer:
    """ASGI's ``send``: calls ``write`` with status, headers and body when the answer is whole."""

    def __init__(self, write: Callable[[int, Headers, bytes], Awaitable[None]]) -> None:
        self._write = write
        self._status = 500
        self._headers: Headers = []
        self._parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = list(message.get("headers", ()))
            return
        self._parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            await self._write(self._status, self._headers, b"".join(self._parts))
