"""One connection of a client: whole requests to the application, answers out, all by deadlines.

A request reaches the application only when it has arrived whole, so nothing waits inside for a slow client.
One is answered at a time; those behind it wait here, few of them. A client that hangs up ends what is done
for it.

Time: ``_read_by`` bounds how long a head, a body or silence may last, ``_sent_by`` how long an answer may
stay unread; one timer looks at both. Single bytes move neither: a drip gains nothing.

Everything here is the event loop's thread's alone.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import Any, cast

import structlog
from starlette.types import ASGIApp, Message

from kt_es.server.connections import HttpConnections
from kt_es.server.incoming import Incoming, IncomingRequest
from kt_es.server.limits import MAX_PIPELINED, SLOWEST
from kt_es.server.problems import Problem, http_problem
from kt_es.server.responses import Headers, closing, encode_head, problem_answer, retry_after

_LOG = structlog.get_logger("kt_es.server")

# A client that was told to wait is not read before that, or before so many seconds.
_LONGEST_PAUSE = 2.0
# A client that was told of the end has so many seconds to close.
_LINGER = 2.0
_NEVER = float("inf")


class Connection(asyncio.Protocol):
    """The protocol object of one connection, told by its transport and by ``Incoming``."""

    def __init__(self, app: ASGIApp, connections: HttpConnections, loop: asyncio.AbstractEventLoop) -> None:
        self.peer = ""
        self.held = 0
        self._app = app
        self._all = connections
        self._loop = loop
        self._limits = connections.limits
        clients = connections.clients
        self._incoming = Incoming(self, lambda named: clients.origin(self.peer, named), clients.owes)
        # Until the handshake is done there is no transport.
        self._beginning: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._ready: deque[IncomingRequest] = deque()
        self._task: asyncio.Task[None] | None = None
        self._refusal: bytes | None = None
        # Done when the transport has handed on all that was written; None if it has.
        self._drained: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._read_by = _NEVER
        self._sent_by = _NEVER

    @property
    def waits(self) -> bool:
        return self._task is None and self._drained is None

    # From the transport.

    def accept(self, accepted: socket.socket, peer: str, context: ssl.SSLContext | None) -> None:
        """Take in a connection from ``peer`` if there is a place. It counts from before its TLS handshake."""
        self.peer = peer
        if self._all.admit(self):
            self._beginning = self._loop.create_task(self._begin(accepted, context))
        else:
            accepted.close()

    async def _begin(self, accepted: socket.socket, context: ssl.SSLContext | None) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: self,
                accepted,
                ssl=context,
                ssl_handshake_timeout=None if context is None else self._limits.head_seconds,
            )
        except (OSError, EOFError) as error:
            # What a client does in a handshake is its own fault: it is counted, and logged nowhere.
            why = (
                "slow-handshake" if isinstance(error, ConnectionAbortedError | TimeoutError) else "handshake"
            )
            self._all.refused.labels(why).inc()
            self._all.leave(self)
            accepted.close()
        except asyncio.CancelledError:
            accepted.close()
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
            # Nobody waits for the answer any more: neither for a verdict nor in a pool's queue.
            self._task.cancel()
        self._hold(-self.held)
        self._all.leave(self)

    def data_received(self, data: bytes) -> None:
        self._incoming.feed(data)

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        # Of a connection that ends, the deadline for that stays.
        if self._task is not None:
            self._sent_by = _NEVER
        if drained is not None and not drained.done():
            drained.set_result(None)

    # From ``Incoming``.

    def begun(self) -> None:
        self._read_until(self._limits.head_seconds)

    def expects(self, request: IncomingRequest, size: int) -> None:
        self._read_until(self._limits.body_seconds + size / SLOWEST)
        if request.version == "1.1" and request.values(b"expect") and self._task is None:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def keep(self, size: int) -> bool:
        return self._hold(size)

    def whole(self, request: IncomingRequest) -> None:
        self._read_by = _NEVER
        self._ready.append(request)
        if len(self._ready) > MAX_PIPELINED:
            self._incoming.end()
            self.refuse("pipelined", http_problem(400, "too many requests wait for their answers"))
        self._next()

    def refuse(self, why: str, problem: Problem) -> None:
        """Say what is wrong and close, behind what is being answered."""
        self._all.refused.labels(why).inc()
        self._read_by = _NEVER
        self._refusal = problem_answer(problem)
        if self._task is None:
            self._next()

    # Answering.

    def _next(self) -> None:
        """Go on with what comes after the last answer: the next request, a refusal, the end, silence."""
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
            await self._app(self._scope(request), _Receive(body), _Send(self, request))
        except asyncio.CancelledError:
            # The client is gone.
            return
        except Exception as error:  # noqa: BLE001 - a bug; the application answers for its own errors
            _LOG.error("an answer could not be sent", error=type(error).__name__)
            self.abort()
        finally:
            self._hold(-min(size, self.held))
            self._task = None
        self._next()

    async def send_answer(self, request: IncomingRequest, status: int, headers: Headers, body: bytes) -> None:
        """Write an answer and wait until the client has taken it."""
        if closing(headers):
            self._incoming.end()
        last = self._incoming.ended and not self._ready and self._refusal is None
        head = encode_head(status, headers, keep_alive=not last)
        data = head if request.method == "HEAD" else head + body
        self._write(data)
        if status == 429:
            self._rest(retry_after(headers))
        if self._drained is None:
            return
        if not self._hold(len(data)):
            self._all.refused.labels("address-bytes").inc()
            self.abort()
        try:
            await self._drained
        finally:
            self._hold(-min(len(data), self.held))

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._drained is not None:
            self._sent_by = self._loop.time() + self._limits.answer_seconds + len(data) / SLOWEST
            self._watch(self._sent_by)

    def _rest(self, seconds: float) -> None:
        """Read nothing for as long as the client was told to wait: asking on costs it, not others."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_later(min(seconds, _LONGEST_PAUSE), self._wake)

    def _wake(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _scope(self, request: IncomingRequest) -> dict[str, Any]:
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

    # Ending.

    def _close(self) -> None:
        """End the answers, and the connection once the client has done so, too, or some seconds later.

        Closed with something unread it would be reset, and the client might lose the answer.
        """
        if self._transport is not None and not self._transport.is_closing():
            self._incoming.end()
            if self._drained is None:
                self._sent_by = self._loop.time() + _LINGER
                self._watch(self._sent_by)
            if self._transport.get_extra_info("ssl_object") is None:
                self._transport.write_eof()
            else:
                # TLS says so itself, and a client reads to that.
                self._transport.close()

    def finish(self) -> None:
        self._incoming.end()
        self._read_by = _NEVER
        if self._beginning is not None:
            self.abort()
        elif self._task is None and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self._incoming.end()
        if self._beginning is not None:
            self._beginning.cancel()
        if self._transport is not None:
            self._transport.abort()
        # The transport tells of its end later; whoever comes now needs the place.
        self._all.leave(self)

    def _hold(self, change: int) -> bool:
        self.held += change
        return self._all.hold(self, change) if change else True

    # Deadlines.

    def _read_until(self, seconds: float) -> None:
        self._read_by = self._loop.time() + seconds
        self._watch(self._read_by)

    def _watch(self, deadline: float) -> None:
        """See to it that the timer looks no later than ``deadline``; one that is set for earlier stays."""
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
            # Silence between requests is no fault; it is closed without a word.
            self.finish()
            return
        self._incoming.end()
        self.refuse(f"slow-{part}", http_problem(408, f"the {part} of the request took too long"))
        self._watch(self._sent_by)


class _Receive:
    """ASGI's ``receive`` of a request that is whole."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    async def __call__(self) -> Message:
        if self._body is None:
            # A client that hangs up ends the task, which is all the notice that there is.
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Send:
    """ASGI's ``send``: an answer is written when it is whole."""

    def __init__(self, connection: Connection, request: IncomingRequest) -> None:
        self._connection = connection
        self._request = request
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
            body = b"".join(self._parts)
            await self._connection.send_answer(self._request, self._status, self._headers, body)
