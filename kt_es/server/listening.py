"""The HTTP server: a socket, an event loop in a thread, and connections up to a number."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue

import uvloop
from starlette.types import ASGIApp

from kt_es.errors import KtError
from kt_es.server.connection import Connection
from kt_es.server.connections import Connections
from projections.worker import Worker

GRACE = 5.0
# Connections that the system may have taken before this process looks at them.
BACKLOG = 128


@contextmanager
def http_server(
    app: ASGIApp,
    connections: Connections,
    listener: socket.socket,
    failed: Callable[[KtError], None],
    context: ssl.SSLContext | None = None,
) -> Iterator[None]:
    """Serve ``listener`` in a thread; on exit finish the requests under way, for up to ``GRACE`` seconds.

    With ``context``, HTTPS.
    """
    began: Queue[Callable[[], None]] = Queue()

    def run(stop: threading.Event) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(app, connections, listener, began, context))
        if not stop.is_set():
            raise KtError("the HTTP server ended by itself")

    worker = Worker("http", run, failed)
    worker.start()
    end = began.get()
    try:
        yield
    finally:
        worker.stop()
        end()
        worker.join(2 * GRACE)


async def _serve(
    app: ASGIApp,
    connections: Connections,
    listener: socket.socket,
    began: Queue[Callable[[], None]],
    context: ssl.SSLContext | None,
) -> None:
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    server = await loop.create_server(
        lambda: Connection(app, connections, loop),
        sock=listener,
        backlog=BACKLOG,
        ssl=context,
        # Until then a connection is in nobody's count.
        ssl_handshake_timeout=None if context is None else connections.limits.head_seconds,
    )

    def end() -> None:
        loop.call_soon_threadsafe(ending.set)

    began.put(end)
    await ending.wait()
    server.close()
    connections.finish()
    late = loop.time() + GRACE
    while len(connections) and loop.time() < late:
        await asyncio.sleep(0.01)
    connections.abort()
    await asyncio.sleep(0)
