"""The service ``event_store.client.streams.Streams``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from esdbclient.protos.Grpc import shared_pb2, streams_pb2, streams_pb2_grpc

from kt_es.node.acl import Caller, Permission
from kt_es.node.auth import Access, Right
from kt_es.node.log import Appended, EventLog
from kt_es.node.records import Proposed
from kt_es.node.refusals import Refusal, invalid, stream_deleted, wrong_version
from kt_es.node.rpc_append import (
    DEADLINE_EXCEEDED,
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    PERMISSION_DENIED,
    UNAVAILABLE,
    append_answer,
    appended,
    batch_answer,
    batch_error,
    batch_events,
    expected_of,
    in_time,
    seconds_left,
    stream_name,
    unary_append,
    wrong_batch_version,
)
from kt_es.node.rpc_read import serve_read
from kt_es.node.storage import StorageError
from kt_es.node.streams import Expected, Wrong

PIPELINED = 256  # batches of one call that may be under way at once
UNFINISHED = 16  # batches of one call of which pieces are missing
_Answer = streams_pb2.BatchAppendResp


class Streams(streams_pb2_grpc.StreamsServicer):
    """Appends, deletes and reads. ``max_append`` is in bytes."""

    def __init__(self, log: EventLog, max_append: int, access: Access) -> None:
        self._log = log
        self._access = access
        self._max_append = max_append

    async def Append(  # noqa: N802  the protocol's name
        self, requests: AsyncIterator[streams_pb2.AppendReq], _context: Any
    ) -> streams_pb2.AppendResp:
        await self._log.room()
        name, expected, events, size = await unary_append(requests, self._max_append)
        outcome = await self._log.append(name, expected, events, size)
        if isinstance(outcome, Appended | Wrong):
            return append_answer(outcome, expected)
        raise stream_deleted(name)

    async def BatchAppend(  # noqa: N802
        self, requests: AsyncIterator[streams_pb2.BatchAppendReq], context: Any
    ) -> None:
        """Answers in the order of the requests; later ones do not wait for earlier ones' answers."""
        answers: asyncio.Queue[asyncio.Task[_Answer] | None] = asyncio.Queue(PIPELINED)
        reader = asyncio.create_task(self._read_batches(requests, answers, context))
        try:
            while (task := await answers.get()) is not None:
                await context.write(await task)
            await reader
        finally:
            reader.cancel()

    async def _read_batches(
        self,
        requests: AsyncIterator[streams_pb2.BatchAppendReq],
        answers: asyncio.Queue[asyncio.Task[_Answer] | None],
        context: Any,
    ) -> None:
        batches = _Batches(self._max_append)
        try:
            async for request in requests:
                whole = batches.add(request)
                if whole is not None:
                    # Here and not in the task: who logs in anew must not let a later batch overtake.
                    caller = await self._access.caller(context)
                    await answers.put(asyncio.create_task(self._append_batch(caller, *whole)))
                # What is not read yet stays with the writer, held back by the protocol's flow control.
                await self._log.room()
        except Refusal:
            await answers.put(None)
            raise
        await answers.put(None)

    async def _append_batch(
        self,
        caller: Caller,
        first: streams_pb2.BatchAppendReq,
        events: list[Proposed],
        size: int,
        refusal: Refusal | None,
    ) -> _Answer:
        answer = batch_answer(first)
        try:
            name = stream_name(first.options.stream_identifier)
            self._access.check(caller, Right(name, Permission.WRITE))
            if refusal is not None:
                raise refusal
            expected = expected_of(first.options, "expected_stream_position", "stream_position")
            seconds = seconds_left(first.options, self._log.clock())
            outcome = await in_time(self._log.append(name, expected, events, size), seconds)
        except TimeoutError:
            batch_error(answer, DEADLINE_EXCEEDED, "Timeout", shared_pb2.Timeout())
        except Refusal as error:
            too_large = dict(error.trailers).get("maximum-append-size")
            code = INVALID_ARGUMENT
            detail: Any = shared_pb2.BadRequest(message=error.details)
            if too_large is not None:
                detail = shared_pb2.MaximumAppendSizeExceeded(maxAppendSize=int(too_large))
            elif error.code is grpc.StatusCode.PERMISSION_DENIED:
                code, detail = PERMISSION_DENIED, shared_pb2.AccessDenied()
            batch_error(answer, code, error.details, detail)
        except StorageError as error:
            batch_error(answer, UNAVAILABLE, str(error), shared_pb2.Unknown())
        else:
            self._fill(answer, name, expected, outcome)
        return answer

    def _fill(self, answer: _Answer, name: str, expected: int | Expected, outcome: object) -> None:
        match outcome:
            case Appended():
                appended(answer.success, outcome)
            case Wrong():
                text = f"the stream is at revision {outcome.current}"
                batch_error(answer, FAILED_PRECONDITION, text, wrong_batch_version(outcome, expected))
            case _:
                identifier = shared_pb2.StreamIdentifier(stream_name=name.encode())
                detail = shared_pb2.StreamDeleted(stream_identifier=identifier)
                batch_error(answer, FAILED_PRECONDITION, stream_deleted(name).details, detail)

    async def Delete(  # noqa: N802
        self, request: streams_pb2.DeleteReq, _context: Any
    ) -> streams_pb2.DeleteResp:
        position = await self._delete(request.options, hard=False)
        at = streams_pb2.DeleteResp.Position(commit_position=position, prepare_position=position)
        return streams_pb2.DeleteResp(position=at)

    async def Tombstone(  # noqa: N802
        self, request: streams_pb2.TombstoneReq, _context: Any
    ) -> streams_pb2.TombstoneResp:
        position = await self._delete(request.options, hard=True)
        at = streams_pb2.TombstoneResp.Position(commit_position=position, prepare_position=position)
        return streams_pb2.TombstoneResp(position=at)

    async def _delete(self, options: Any, *, hard: bool) -> int:
        name = stream_name(options.stream_identifier)
        expected = expected_of(options, "expected_stream_revision", "revision")
        outcome = await self._log.delete(name, expected, hard)
        if isinstance(outcome, Wrong):
            raise wrong_version(name, expected, outcome.current)
        if not isinstance(outcome, Appended):
            raise stream_deleted(name)
        return outcome.position

    async def Read(self, request: streams_pb2.ReadReq, context: Any) -> None:  # noqa: N802
        caller = await self._access.caller(context)

        def may_read(stream: str) -> bool:
            return self._access.allowed(caller, Right(stream, Permission.READ))

        await serve_read(self._log, request.options, context, may_read)


class _Batches:
    """Puts batches of one call together that arrive in pieces, at most ``limit`` bytes of each."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[bytes, tuple[streams_pb2.BatchAppendReq, list[Proposed], int, Refusal | None]] = {}

    def add(
        self, request: streams_pb2.BatchAppendReq
    ) -> tuple[streams_pb2.BatchAppendReq, list[Proposed], int, Refusal | None] | None:
        """The batch that ``request`` completes, if it does.

        Raises:
            Refusal: it names no batch, or begins one too many.
        """
        key = request.correlation_id.SerializeToString()
        if not request.HasField("correlation_id"):
            raise invalid("a batch has no correlation id")
        first, events, size, refusal = self._open.pop(key, (request, [], 0, None))
        if refusal is None:
            try:
                more, more_size = batch_events(request.proposed_messages, self._limit)
                if size + more_size > self._limit:
                    batch_events(request.proposed_messages, self._limit - size)
                events, size = events + more, size + more_size
            except Refusal as error:
                refusal, events = error, []
        if request.is_final:
            return first, events, size, refusal
        if len(self._open) >= UNFINISHED:
            raise invalid(f"more than {UNFINISHED} batches of one call are unfinished")
        self._open[key] = (first, events, size, refusal)
        return None
