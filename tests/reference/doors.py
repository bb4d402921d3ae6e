"""The HTTP server of a front end around any application, raw clients of it, and a port without a server."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram

from kt_es.errors import KtError
from kt_es.server.asgi import ASGIApp, Receive, Scope, Send
from kt_es.server.clients import Clients, HttpConnections
from kt_es.server.guard import Guard
from kt_es.server.limits import ClientLimits
from kt_es.server.listening import http_server
from kt_es.server.responses import Answer, Headers, WholeAnswer, whole_body
from kt_es.server.slots import Slots
from projections.service import FrontendService

PATIENCE = 20.0
LONG = ClientLimits()


class App:
    """Answers with what was asked; ``/large`` with many bytes; ``/wait`` not before ``let_go()``."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.waiting = 0
        self.gone = threading.Semaphore(0)
        self._gate = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def let_go(self) -> None:
        """Let the requests that wait be answered; called by the test's thread while one waits."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._gate.set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        body = (await receive())["body"]
        if scope["path"] == "/wait":
            await self._wait()
        data = bytes(12 << 20) if scope["path"] == "/large" else scope["path"].encode() + b" " + body
        headers = [(b"content-length", str(len(data)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    async def _wait(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.waiting += 1
        try:
            await self._gate.wait()
        finally:
            self.waiting -= 1
            self.gone.release()


def connected(port: int, sent: bytes = b"", *, source: str = "127.0.0.1", buffer: int = 0) -> socket.socket:
    """A connection from ``source``, any address of the loopback network, that has sent ``sent``."""
    client = socket.socket()
    if buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.settimeout(PATIENCE)
    client.bind((source, 0))
    client.connect(("127.0.0.1", port))
    client.sendall(sent)
    return client


@dataclass
class Door:
    """A running server. ``refused`` counts by reason."""

    port: int
    connections: HttpConnections
    errors: list[KtError]
    refused: Counter
    sockets: list[socket.socket] = field(default_factory=list)

    def connect(self, sent: bytes = b"", *, source: str = "127.0.0.1", buffer: int = 0) -> socket.socket:
        """``connected`` to this server; the connection ends with it."""
        client = connected(self.port, sent, source=source, buffer=buffer)
        self.sockets.append(client)
        return client

    def count(self, why: str) -> float:
        return self.refused.labels(why)._value.get()  # type: ignore[no-any-return]


@contextmanager
def door(
    app: ASGIApp,
    limits: ClientLimits,
    *,
    most: int = 100,
    guarded: bool = False,
    context: ssl.SSLContext | None = None,
) -> Iterator[Door]:
    """A server of ``app`` with ``limits``: ``guarded`` as a front end guards its own, TLS by ``context``."""
    registry = CollectorRegistry()
    refused = Counter("refused", "by reason", ["why"], registry=registry)
    clients = Clients(limits)
    if guarded:
        seconds = Histogram("seconds", "of requests", ["route"], registry=registry)
        app = Guard(_answers(app), Slots(clients, refused), seconds, refused)
    connections = HttpConnections(clients, most, refused)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    errors: list[KtError] = []
    made = Door(listener.getsockname()[1], connections, errors, refused)
    with listener, http_server(app, connections, listener, errors.append, context):
        try:
            yield made
        finally:
            for client in made.sockets:
                client.close()
    assert not errors


def _answers(app: ASGIApp) -> Callable[[Scope, bytes], Awaitable[Answer]]:
    """Return what a guard calls for the answers of ``app``."""

    async def answers(scope: Scope, body: bytes) -> Answer:
        written: list[Answer] = []

        async def write(status: int, headers: Headers, whole: bytes) -> None:
            media = dict(headers).get(b"content-type", b"text/plain").decode()
            written.append(Answer(whole, media, status))

        await app(scope, whole_body(body), WholeAnswer(write))
        return written[0]

    return answers


@contextmanager
def refused_port() -> Iterator[int]:
    """A port of 127.0.0.1 at which every connection is refused: it is bound, and nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def listening(running: FrontendService, buffer: int = 0) -> Iterator[int]:
    """A front end behind a real socket; its port. ``buffer`` bytes of answers are kept by the kernel."""
    connections = HttpConnections(running.clients, 100, running.metrics.refused)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    if buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    errors: list[KtError] = []
    with listener, http_server(running.app, connections, listener, errors.append):
        yield listener.getsockname()[1]
    assert not errors


def request(path: str = "/", body: bytes | None = None, *headers: str, method: str = "") -> bytes:
    """A request as bytes; POST if it has a body."""
    lines = [f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1", "Host: kt.test", *headers]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def answer(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = client.recv(1)
        assert part, f"closed after {data!r}"
        data += part
    first, *lines = data.decode().split("\r\n")[:-2]
    headers = dict(line.split(": ", 1) for line in lines)
    body = b""
    while missing := int(headers.get("content-length", "0")) - len(body):
        part = client.recv(missing)
        assert part, "closed within a body"
        body += part
    return int(first.split()[1]), headers, body


def is_closed(client: socket.socket) -> bool:
    """Wait for the server's end of the connection; False if it says something instead."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True
