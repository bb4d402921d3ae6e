"""The HTTP server: socket, TLS, an event loop in a thread, and a limited number of connections.

The listener keeps one context. At each handshake the context of the current certificate takes its place,
so a connection has one certificate from its beginning to its end.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from typing import Protocol

import structlog
import uvloop

from kt_es.errors import ConfigError, KtError
from kt_es.process.signals import Worker
from kt_es.process.tls import ServerCertificate, read_certificate
from kt_es.server.asgi import ASGIApp
from kt_es.server.clients import HttpConnections
from kt_es.server.connection import Connection
from kt_es.server.handing import is_door, take

GRACE = 5.0
# Connections that the system may accept before this process sees them.
BACKLOG = 1024
# Errors of a system that has no room for another connection now.
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 0.1

_LOG = structlog.get_logger("kt_es.server")


class Exchangeable:
    """The certificate that is served. The listener uses ``context``. Any thread may call ``exchange``."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._current, self.certificate = _load(certificate, key)
        self.context = self._current
        self.context.sni_callback = self._choose

    def exchange(self, certificate: Path, key: Path) -> bool:
        """Serve the certificate in the files to new connections; return whether it has changed.

        Raises ``ConfigError`` for files that cannot be served: the old certificate stays.
        """
        context, loaded = _load(certificate, key)
        if loaded == self.certificate:
            return False
        self._current, self.certificate = context, loaded
        return True

    def until(self) -> float:
        """Return the end of the certificate that is served, in seconds since 1970."""
        return self.certificate.until.timestamp()

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str, _: ssl.SSLContext) -> None:
        # Called at each handshake, even if the client names no host.
        connection.context = self._current


def _load(certificate: Path, key: Path) -> tuple[ssl.SSLContext, ServerCertificate]:
    loaded = read_certificate(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        # The files were replaced meanwhile, or OpenSSL does not support the key.
        raise ConfigError(f"TLS certificate {certificate} cannot be served: {error.strerror}") from None
    if loaded.expired:
        _LOG.warning("the TLS certificate has expired", until=loaded.until.isoformat())
    return context, loaded


@contextmanager
def listening_at(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that listens on ``host``; ``port`` 0 takes a free port. Raises ``ConfigError``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such port"
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}") from None
    # Without this option the body of an answer waits 40 ms for the acknowledgement of its headers. asyncio
    # sets the option only on sockets that name their protocol, which accepted sockets do not.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listener:
        yield listener


def url_of(host: str, listener: socket.socket, scheme: str) -> str:
    """Return the URL at which clients reach ``listener``."""
    port = listener.getsockname()[1]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class Beside(Protocol):
    """Another server on the event loop of the HTTP server."""

    async def start(self) -> None:
        """Begin to serve. Raises ``ConfigError``."""

    async def close(self) -> None:
        """End within a little more than ``GRACE`` seconds."""


@contextmanager
def http_server(
    app: ASGIApp,
    connections: HttpConnections,
    listener: socket.socket,
    failed: Callable[[KtError], None],
    context: ssl.SSLContext | None = None,
    *,
    beside: Callable[[asyncio.AbstractEventLoop], None] | None = None,
    also: Beside | None = None,
) -> Iterator[None]:
    """Serve ``listener`` in a thread. The exit waits up to ``GRACE`` seconds for the answers under way.

    Args:
        app: The ASGI application.
        connections: The open connections, which bound their number.
        listener: The socket, as of ``listening_at``, or the door through which another process hands over
            connections (``handing``).
        failed: Called with the error, in the thread, if the server ends by itself.
        context: The context of TLS; None serves HTTP without TLS.
        beside: Called with the event loop, in its thread, when it begins.
        also: Is served on the same event loop.

    Raises ``ConfigError`` if ``also`` cannot be served.
    """
    began: Queue[Callable[[], object] | ConfigError] = Queue()

    def run(stop: threading.Event) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if beside is not None:
                beside(runner.get_loop())
            try:
                runner.run(_serve(app, connections, listener, began, context, beside=also))
            except ConfigError as error:
                began.put(error)
                return
        if not stop.is_set():
            raise KtError("the HTTP server ended by itself")

    worker = Worker("http", run, failed)
    worker.start()
    end = began.get()
    if isinstance(end, ConfigError):
        worker.join(GRACE)
        raise end
    try:
        yield
    finally:
        worker.stop()
        end()
        worker.join(2 * GRACE)


async def _serve(
    app: ASGIApp,
    connections: HttpConnections,
    listener: socket.socket,
    began: Queue[Callable[[], object] | ConfigError],
    context: ssl.SSLContext | None,
    *,
    beside: Beside | None,
) -> None:
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    if beside is not None:
        await beside.start()
    listener.setblocking(False)
    if not is_door(listener):
        listener.listen(BACKLOG)
    accepting = loop.create_task(_accept(app, connections, listener, context))
    began.put(lambda: loop.call_soon_threadsafe(ending.set))
    await asyncio.wait([accepting, loop.create_task(ending.wait())], return_when=asyncio.FIRST_COMPLETED)
    # Accepting ends by itself only with an error, which ends the process.
    accepting.cancel()
    with suppress(asyncio.CancelledError):
        await accepting
    listener.close()
    connections.finish()
    closing = None if beside is None else loop.create_task(beside.close())
    late = loop.time() + GRACE
    while len(connections) and loop.time() < late:
        await asyncio.sleep(0.01)
    connections.abort()
    if closing is not None:
        await closing
    await asyncio.sleep(0)


async def _accept(
    app: ASGIApp, connections: HttpConnections, listener: socket.socket, context: ssl.SSLContext | None
) -> None:
    """Accept one connection in each turn of the loop, so that open connections get their turns."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            accepted, address = await (take(listener) if is_door(listener) else loop.sock_accept(listener))
        except ConnectionError:
            # The client left before its connection was accepted.
            continue
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            connections.refused.labels("files").inc()
            await asyncio.sleep(_PAUSE)
            continue
        Connection(app, connections, loop).accept(accepted, str(address[0]), context)
        await asyncio.sleep(0)
