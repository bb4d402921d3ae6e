"""Clients of a directory in memory, and servers that change what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

from kt_es.client.client import Client
from kt_es.client.state import MemoryStateStore, StateStore
from tests import builders as b
from tests.reference.directory import Directory, problem

Handler = Callable[[httpx.Request], httpx.Response]


def client_of(
    directory: Directory,
    state: StateStore | None = None,
    handler: Handler | None = None,
    *,
    server: str = "http://kt.test",
    **options: Any,
) -> Client:
    """A client of ``directory`` whose clock is the directory's; ``handler`` answers in its place."""
    return Client(
        server,
        state or MemoryStateStore(),
        transport=httpx.MockTransport(handler or directory.handle),
        **{"now": lambda: directory.now, **options},
    )


def changed(directory: Directory, path: str, change: Callable[[dict[str, Any]], object]) -> Handler:
    """The directory's answers, with ``change`` done to the bodies of those to ``path``."""

    def handle(request: httpx.Request) -> httpx.Response:
        response = directory.handle(request)
        if request.url.path != path:
            return response
        body = json.loads(response.content)
        change(body)
        return httpx.Response(response.status_code, content=json.dumps(body).encode())

    return handle


def failing(
    directory: Directory, times: int, failure: Callable[[], httpx.Response]
) -> tuple[Handler, list[bytes]]:
    """A server that fails ``times`` times on submissions, and the bodies that it was sent."""
    sent: list[bytes] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/v1/mutations":
            return directory.handle(request)
        sent.append(request.content)
        return failure() if len(sent) <= times else directory.handle(request)

    return handle, sent


def away() -> httpx.Response:
    answer = problem(503, "log-away", "the log is away")
    answer.headers["retry-after"] = "0"
    return answer


def cut() -> httpx.Response:
    raise httpx.ReadError("connection reset")


def naming(made: Directory, *urls: str | None) -> Callable[[httpx.Request], httpx.Response]:
    """The directory's answers, and watchers at ``urls``."""
    watchers = [
        {"kind": "witness", "name": f"w{number}", "vkey": "x", "url": url} for number, url in enumerate(urls)
    ]

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/.well-known/kt-es.json":
            return httpx.Response(200, json={"origin": b.ORIGIN, "vkey": "x", "watchers": watchers})
        return made.handle(request)

    return handle
