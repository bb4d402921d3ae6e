"""One connection of a client: whole requests go to the application, and every step has a deadline.

A request reaches the application when it has arrived whole, so nothing inside waits for a slow client. The
application answers one request at a time; a few more wait here. A client that hangs up cancels its work.

``_read_by`` bounds how long a head, a body or silence may last, and ``_sent_by`` how long an answer may stay
unread. One timer checks both. Single bytes extend neither, so a client gains nothing by sending slowly.

Only the thread of the event loop uses this module.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import cast

import structlog

from kt_es.server import handshakes, responses
from kt_es.server.asgi import ASGIApp
from kt_es.server.clients import HttpConnections
from kt_es.server.incoming import Incoming, IncomingRequest
from kt_es.server.limits import MAX_PIPELINED, SLOWEST
from kt_es.server.responses import Headers, Problem, WholeAnswer, http_problem

_LOG = structlog.get_logger("kt_es.server")

# Seconds. A client that must wait before its next request is not read meanwhile, up to the first limit. A
# client whose connection ends may take as long as the second to close it.
_LONGEST_PAUSE = 2.0
_LINGER = 2.0
_NEVER = float("inf")


class Connection(asyncio.Protocol):
    """The protocol object of one connection. Its transport and ``Incoming`` call it."""

    def __init__(self, app: ASGIApp, connections: HttpConnections, loop: asyncio.AbstractEventLoop) -> None:
        self.peer = ""
        self.held = 0
        self._app = app
        self._all = connections
        self._loop = loop
        clients = connections.clients
        self._limits = clients.limits
        self._incoming = Incoming(self, lambda named: clients.origin(self.peer, named), clients.owes)
        # The TLS handshake. There is no transport until it is done.
        self._beginning: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._ready: deque[IncomingRequest] = deque()
        self._task: asyncio.Task[None] | None = None
        self._streams = False  # whether the answer under way goes on
        self._refusal: bytes | None = None
        # Done when the transport has sent everything that was written; None if nothing is left to send.
        self._drained: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._read_by = _NEVER
        self._sent_by = _NEVER

    @property
    def waits(self) -> bool:
        return self._task is None and self._drained is None

    # Called by the listener and the transport.

    def accept(self, accepted: socket.socket, peer: str, context: ssl.SSLContext | None) -> None:
        """Accept a connection from ``peer`` if there is room. It counts before its TLS handshake."""
        self.peer = peer
        if self._all.admit(self):
            self._beginning = self._loop.create_task(self._begin(accepted, context))
        else:
            accepted.close()

    async def _begin(self, accepted: socket.socket, context: ssl.SSLContext | None) -> None:
        try:
            await handshakes.begin(self, accepted, context, self._limits.head_seconds)
        except (OSError, EOFError) as error:
            handshakes.count_failure(error, self._all.refused)
            self._all.leave(self)
        finally:
            self._beginning = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        self._read_until(self._limits.head_seconds)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._incoming.end()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            # Nobody waits for the answer any more: give up the wait for a verdict or for a pool's thread.
            self._task.cancel()
        self.keep(-self.held)
        self._all.leave(self)

    def data_received(self, data: bytes) -> None:
        self._incoming.feed(data)

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        # A connection that ends keeps the deadline for its end.
        if self._task is not None:
            self._sent_by = _NEVER
        if drained is not None and not drained.done():
            drained.set_result(None)

    # Called by ``Incoming``; see ``Owner``.

    def begun(self) -> None:
        self._read_until(self._limits.head_seconds)

    def expects(self, request: IncomingRequest, size: int) -> None:
        self._read_until(self._limits.body_seconds + size / SLOWEST)
        if request.version == "1.1" and request.values(b"expect") and self._task is None:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def keep(self, size: int) -> bool:
        self.held += size
        return self._all.hold(self, size) if size else True

    def whole(self, request: IncomingRequest) -> None:
        self._read_by = _NEVER
        self._ready.append(request)
        if len(self._ready) > MAX_PIPELINED:
            self._incoming.end()
            self.refuse("pipelined", http_problem(400, "too many requests wait for their answers"))
        self._next()

    def refuse(self, why: str, problem: Problem) -> None:
        """Answer with ``problem`` and close, after the answer under way."""
        self._all.refused.labels(why).inc()
        self._read_by = _NEVER
        self._refusal = responses.problem_answer(problem)
        if self._task is None:
            self._next()

    # Answering.

    def _next(self) -> None:
        """Do what follows the last answer: the next request, a refusal, the end, or waiting."""
        if self._task is not None or self._transport is None:
            return
        if self._ready:
            self._task = self._loop.create_task(self._answer(self._ready.popleft()))
        elif self._refusal is not None:
            self._write(self._refusal)
            self._close()
        elif self._incoming.ended:
            self._close()
        elif self._incoming.part is None:
            self._read_until(self._limits.idle_seconds)

    async def _answer(self, request: IncomingRequest) -> None:
        body = bytes(request.body)
        size = len(body)
        request.body.clear()
        try:
            send = WholeAnswer(lambda *answer: self._send(request, *answer), self._stream)
            await self._app(request.scope, responses.whole_body(body), send)
        except asyncio.CancelledError:
            # The client hung up.
            return
        except Exception as error:  # noqa: BLE001 - a bug: the application answers its own errors
            _LOG.error("an answer could not be sent", error=type(error).__name__)
            self.abort()
        finally:
            self.keep(-min(size, self.held))
            self._task = None
        self._next()

    async def _send(self, request: IncomingRequest, status: int, headers: Headers, body: bytes) -> None:
        """Write an answer and wait until it is sent."""
        last = self._incoming.ended and not self._ready and self._refusal is None
        head = responses.encode_head(status, headers, keep_alive=not last)
        data = head if request.method == "HEAD" else head + body
        if status == 429:
            self._rest(responses.retry_after(headers))
        await self._deliver(data)

    async def _stream(self, data: bytes) -> None:
        """Write a part of an answer that ends with its connection, and wait until it is sent."""
        self._streams = True
        self._incoming.end()
        await self._deliver(data)

    async def _deliver(self, data: bytes) -> None:
        self._write(data)
        if self._drained is None:
            return
        if not self.keep(len(data)):
            self._all.refused.labels("address-bytes").inc()
            self.abort()
        try:
            await self._drained
        finally:
            self.keep(-min(len(data), self.held))

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._drained is not None:
            self._sent_by = self._loop.time() + self._limits.answer_seconds + len(data) / SLOWEST
            self._watch(self._sent_by)

    def _rest(self, seconds: float) -> None:
        """Read nothing while the client should wait, so that further requests cost the client alone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_later(min(seconds, _LONGEST_PAUSE), self._wake)

    def _wake(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # Ending.

    def _close(self) -> None:
        """End the answers. The connection ends when the client closes it, or after ``_LINGER`` seconds.

        Closing while input is unread resets the connection, and the client may lose the answer.
        """
        if self._transport is not None and not self._transport.is_closing():
            self._incoming.end()
            if self._drained is None:
                self._sent_by = self._loop.time() + _LINGER
                self._watch(self._sent_by)
            if self._transport.get_extra_info("ssl_object") is None:
                self._transport.write_eof()
            else:
                # TLS has its own end of data, which clients wait for.
                self._transport.close()

    def finish(self) -> None:
        self._incoming.end()
        self._read_by = _NEVER
        if self._beginning is not None:
            self.abort()
        elif self._task is None and self._transport is not None:
            self._transport.close()
        elif self._streams and self._task is not None:
            self._task.cancel()
            self._close()

    def abort(self) -> None:
        self._incoming.end()
        if self._beginning is not None:
            self._beginning.cancel()
        if self._transport is not None:
            self._transport.abort()
        # The transport reports the end of the connection later, but its room is needed now.
        self._all.leave(self)

    # Deadlines.

    def _read_until(self, seconds: float) -> None:
        self._read_by = self._loop.time() + seconds
        self._watch(self._read_by)

    def _watch(self, deadline: float) -> None:
        """Make the timer run no later than ``deadline``. An earlier timer stays."""
        if deadline == _NEVER or (self._timer is not None and self._timer.when() <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self._transport is None:
            return
        if now >= self._sent_by:
            if self._drained is not None:
                self._all.refused.labels("unread").inc()
            self.abort()
        elif now >= self._read_by:
            self._too_slow()
        else:
            self._watch(min(self._read_by, self._sent_by))

    def _too_slow(self) -> None:
        part = self._incoming.part
        if part is None:
            # Silence between requests is no fault, so it ends without an answer.
            self.finish()
            return
        self._incoming.end()
        self.refuse(f"slow-{part}", http_problem(408, f"the {part} of the request took too long"))
        self._watch(self._sent_by)
