"""Clients of a directory in memory, and servers that change what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

from kt_es.client.client import Client
from kt_es.client.state import MemoryStateStore, StateStore
from tests.reference.directory import Directory

Handler = Callable[[httpx.Request], httpx.Response]


def client_of(
    directory: Directory, state: StateStore | None = None, handler: Handler | None = None, **options: Any
) -> Client:
    """A client of ``directory`` whose clock is the directory's; ``handler`` answers in its place."""
    return Client(
        "http://kt.test",
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
