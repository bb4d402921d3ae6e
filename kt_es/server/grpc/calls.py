"""What every call passes through: limits of its client, deadlines, metrics, and failures as statuses.

All methods are registered as streams of bytes. On the wire a call with one message looks the same. This way
the server can refuse a client before it reads the message, and give up a message or an answer that takes too
long. A call takes the slots of its client at its beginning, and a slot among all requests when its message
has arrived. The log names the method of a call, nothing else.

Only the thread of the event loop uses this module.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from kt_es.api.operations import MAX_REQUEST, ProblemReason
from kt_es.errors import KtError, RefusedError
from kt_es.server.endpoints.common import Frontend, problem_for
from kt_es.server.grpc.statuses import status_of
from kt_es.server.limits import ALL_BYTES, SLOWEST, Route
from kt_es.server.responses import Problem, http_problem, internal_problem, too_many
from kt_es.server.slots import Slot

_LOG = structlog.get_logger("kt_es.server")

MAX_MESSAGE = 544 * 1024
"""Bytes of a request: a profile of 512 KiB, a mutation of 16 KiB, and room. gRPC refuses larger ones."""

MAX_ARRIVING = ALL_BYTES // MAX_MESSAGE
"""Calls whose messages have not arrived. Beyond it the oldest one is given up, to make room."""

MAX_OPEN = 4096
"""Calls that have not ended, those included whose clients do not read."""

_FORWARDED = "x-forwarded-for"
_LOOKUP = Route()


@dataclass(frozen=True, slots=True)
class Method:
    """One method: its full name, such as ``/kt.v1.DirectoryService/Lookup``, and what serves it.

    Attributes:
        request: The class of its message.
        answer: Returns the encoded answer or a problem; None if it has sent what there is to send.
        largest: The most bytes of a request.
        lasts: It goes on for long, so it counts as a connection of its client, and its time is not observed.
    """

    name: str
    request: Any
    answer: Callable[[Any, Call], Awaitable[bytes | Problem | None]]
    route: Route = _LOOKUP
    largest: int = MAX_REQUEST
    lasts: bool = False


class Call:
    """One call under way, for the method that answers it."""

    def __init__(self, calls: Calls, context: Any, client: str, slot: Slot) -> None:
        self.client = client
        self._calls = calls
        self._context = context
        self._slot = slot

    def release(self) -> None:
        """Give the slot to others: this call only waits from now on."""
        self._slot.release()

    def lasting(self) -> AbstractContextManager[bool]:
        """Count as a connection of the client, as ``Calls.lasting``."""
        return self._calls.lasting(self.client)

    def charge(self, cost: float) -> None:
        """Take ``cost``, in lookups, from what the client may use."""
        self._slot.charge(cost)

    def remaining(self) -> float | None:
        """Return the seconds until the deadline of the client, None if it has none."""
        seconds = self._context.time_remaining()
        # A client without a deadline has one that is far away.
        return None if seconds is None or seconds > 10**9 else float(seconds)

    async def next(self, kind: Any) -> Any:
        """Return the next message of a stream, of the class ``kind``; None at its end or after long silence.

        Raises ``RefusedError``.
        """
        try:
            async with asyncio.timeout(self._calls.limits.idle_seconds):
                data = await self._context.read()
        except TimeoutError:
            return None
        return None if data is grpc.aio.EOF else _parsed(kind, data, MAX_REQUEST)

    async def pay(self) -> None:
        """Count one more lookup of the client, and wait while the client owes for earlier ones."""
        while (wait := self._calls.clients.enter(self.client, _LOOKUP, 0)) is not None:
            await asyncio.sleep(wait)
        self._calls.clients.leave(self.client, request=True)

    async def send(self, data: bytes) -> None:
        """Send one message of a stream. Raises ``UnreadError``."""
        await self._calls.write(self._context, self.client, data)


class UnreadError(Exception):
    """A client keeps too many bytes of answers unread."""


class Calls:
    """Serves methods for the clients of ``frontend``."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._slots = frontend.slots
        self.clients = frontend.slots.clients
        self._refused = frontend.metrics.refused
        # In the order of their beginning.
        self._arriving: dict[asyncio.Timeout, None] = {}
        self._lasting = 0
        self._open = 0

    @property
    def limits(self) -> Any:
        return self.clients.limits

    def handler(self, method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return what gRPC calls for ``method``."""

        async def serve(_: object, context: Any) -> None:
            await self._serve(method, context)

        return grpc.stream_stream_rpc_method_handler(serve, None, None)

    async def _serve(self, method: Method, context: Any) -> None:
        started = time.perf_counter()
        self._open += 1
        try:
            problem = await self._answered(method, context)
        except grpc.aio.InternalError:
            # The client is gone. gRPC would write this error to the log, with a traceback.
            raise asyncio.CancelledError from None
        except Exception as error:  # noqa: BLE001 - the client learns nothing about any such error
            # The message of the error may hold parts of the request, so it is not logged.
            where = traceback.extract_tb(error.__traceback__)[-1]
            _LOG.error(
                "a request failed",
                method="gRPC",
                route=method.name,
                error=type(error).__name__,
                at=f"{where.name}:{where.lineno}",
            )
            problem = internal_problem()
        finally:
            self._open -= 1
            if not method.lasts:
                self._frontend.metrics.requests.labels(method.name).observe(time.perf_counter() - started)
        if problem is not None:
            status = status_of(problem)
            await context.abort(status.code, status.details, status.trailing_metadata)

    async def _answered(self, method: Method, context: Any) -> Problem | None:
        client = self._client(context)
        if self._open > MAX_OPEN:
            self._refused.labels("busy").inc()
            detail = "this front end has too many calls"
            return Problem(503, ProblemReason.UNAVAILABLE, detail, retry_after=1.0)
        slot = self._slots.arrive(client, method.route)
        if isinstance(slot, Problem):
            return slot
        try:
            data = await self._message(context)
            if isinstance(data, Problem):
                return data
            busy = slot.whole(len(data))
            if busy is not None:
                return busy
            request = _parsed(method.request, data, method.largest)
            call = Call(self, context, client, slot)
            if method.lasts:
                return await self._last(method, request, call)
            answer = await method.answer(request, call)
            # A client that does not read its answer must not keep a slot from others.
            slot.pass_on()
            if not isinstance(answer, bytes):
                return answer
            await self.write(context, client, answer)
        except KtError as error:
            return problem_for(self._frontend, error)
        except UnreadError:
            self._refused.labels("address-bytes").inc()
            return too_many(5.0)
        finally:
            slot.end()
        return None

    async def _last(self, method: Method, request: Any, call: Call) -> Problem | None:
        """Serve a method that goes on for long. It counts as a connection, and has no slot meanwhile."""
        with self.lasting(call.client) as has_room:
            if not has_room:
                detail = (
                    "this address, its network or all clients together have too many streams open; close some"
                )
                return Problem(429, ProblemReason.TOO_MANY_REQUESTS, detail, retry_after=5.0)
            call.release()
            answer = await method.answer(request, call)
            return answer if isinstance(answer, Problem) else None

    @contextmanager
    def lasting(self, client: str) -> Iterator[bool]:
        """Count as a connection of the client meanwhile. Yields False, uncounted, if it has too many."""
        if self._lasting >= self.limits.connections or not self.clients.connect(client):
            self._refused.labels("address-connections").inc()
            yield False
            return
        self._lasting += 1
        try:
            yield True
        finally:
            self._lasting -= 1
            self.clients.disconnect(client)

    async def _message(self, context: Any) -> bytes | Problem:
        """Return the one message of a request, or the problem with it."""
        patience = asyncio.timeout(self.limits.body_seconds)
        try:
            async with patience:
                self._arriving[patience] = None
                if len(self._arriving) > MAX_ARRIVING:
                    self._refused.labels("displaced").inc()
                    next(iter(self._arriving)).reschedule(asyncio.get_running_loop().time())
                data = await context.read()
        except TimeoutError:
            self._refused.labels("slow-body").inc()
            return http_problem(408, "the message of the request took too long")
        finally:
            self._arriving.pop(patience, None)
        if data is grpc.aio.EOF:
            return Problem(400, ProblemReason.MALFORMED, "the call has no message; send one")
        return bytes(data)

    async def write(self, context: Any, client: str, data: bytes) -> None:
        """Send ``data``, and wait until the client has room for it.

        A call whose client does not read ends with its connection, not before (``listening.AGE``). Until then
        the call and its bytes count against its client. Raises ``UnreadError``.
        """
        size = len(data)
        try:
            _require(self.clients.hold(client, size))
            patience = self.limits.answer_seconds + size / SLOWEST
            late = asyncio.get_running_loop().call_later(patience, self._refused.labels("unread").inc)
            try:
                await context.write(data)
            finally:
                late.cancel()
        finally:
            self.clients.hold(client, -size)

    def _client(self, context: Any) -> str:
        """Return the address of the client, which a trusted proxy names in ``x-forwarded-for``."""
        peer = _address(context.peer())
        if not self.limits.proxies:
            return peer
        named = [str(value) for key, value in context.invocation_metadata() or () if key == _FORWARDED]
        return self.clients.origin(peer, named)


def _parsed(kind: Any, data: bytes, largest: int) -> Any:
    """Return the message of the class ``kind`` in ``data``. Raises ``RefusedError``."""
    if len(data) > largest:
        raise RefusedError(ProblemReason.OVERSIZE, f"the message must have at most {largest} bytes")
    try:
        return kind.FromString(data)
    except DecodeError:
        problem = f"the message is no {kind.DESCRIPTOR.full_name}"
        raise RefusedError(ProblemReason.MALFORMED, problem) from None


def _require(fits: bool) -> None:
    if not fits:
        raise UnreadError


def _address(peer: str) -> str:
    """Return the address in a peer of gRPC: ``ipv4:192.0.2.1:80``, ``ipv6:%5B2001:db8::1%5D:80``."""
    _, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].removeprefix("[").removesuffix("]")
