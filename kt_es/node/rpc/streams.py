"""The service ``event_store.client.streams.Streams``."""

# ruff: noqa: N802  methods have the protocol's names

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from kt_es.node.access.acl import Caller, Permission
from kt_es.node.protocol import shared_pb2, streams_pb2, streams_pb2_grpc
from kt_es.node.refusals import Quota, Refusal, invalid, stream_deleted, too_much_unfinished, wrong_version
from kt_es.node.rpc.append_messages import (
    AppendBatch,
    Batches,
    Pieces,
    append_answer,
    appended,
    batch_answer,
    batch_error,
    expected_of,
    in_time,
    seconds_left,
    stream_name,
    wrong_batch_version,
)
from kt_es.node.rpc.gate import Access, Right
from kt_es.node.rpc.read import serve_read
from kt_es.node.store.log import Appended, NodeLog
from kt_es.node.store.storage import StorageError
from kt_es.node.store.streams import Expected, Wrong

PIPELINED = 256  # batches of one call that may be under way at once
INTAKE = 256  # incomplete appends of the largest size that may be held, over all calls
_Answer = streams_pb2.BatchAppendResp


class Streams(streams_pb2_grpc.StreamsServicer):
    """Appends, deletes and reads. ``max_append`` is in bytes."""

    def __init__(self, log: NodeLog, max_append: int, access: Access) -> None:
        self._log = log
        self._access = access
        self._max_append = max_append
        # Bytes of incomplete appends. More is refused and not held back, because the pieces that would make
        # room may be held back as well.
        self._intake = Quota(INTAKE * max_append, too_much_unfinished)

    def limit(self, max_append: int) -> None:
        """Limit later appends to ``max_append``. Appends under way keep their limit."""
        self._max_append = max_append
        self._intake.limit = INTAKE * max_append

    async def Append(
        self, requests: AsyncIterator[streams_pb2.AppendReq], _context: Any
    ) -> streams_pb2.AppendResp | bytes:
        await self._log.room()
        name, expected, pieces = await self._read_append(requests)
        outcome = await self._log.append(name, expected, pieces.events, pieces.size)
        if isinstance(outcome, Appended | Wrong):
            return append_answer(outcome, expected)
        raise stream_deleted(name)

    async def _read_append(
        self, requests: AsyncIterator[streams_pb2.AppendReq]
    ) -> tuple[str, int | Expected, Pieces]:
        name: str | None = None
        expected: int | Expected = Expected.ANY
        pieces, held = Pieces(self._max_append), 0
        try:
            async for request in requests:
                if request.WhichOneof("content") == "options":
                    name = stream_name(request.options.stream_identifier)
                    expected = expected_of(request.options, "expected_stream_revision", "revision")
                    continue
                pieces.add((request.proposed_message,))
                self._intake.take(pieces.held - held)
                held = pieces.held
        finally:
            self._intake.give(held)
        if name is None:
            raise invalid("an append begins with its options")
        return name, expected, pieces

    async def BatchAppend(self, requests: AsyncIterator[streams_pb2.BatchAppendReq], context: Any) -> None:
        """Answer in the order of the requests. Requests do not wait for earlier answers."""
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
        batches = Batches(self._max_append, self._intake)
        try:
            async for request in requests:
                batch = batches.add(request)
                if batch is not None:
                    # Not in the task: a login that takes time must not let a later batch overtake.
                    caller = await self._access.caller(context)
                    await answers.put(asyncio.create_task(self._append_batch(caller, batch)))
                # The flow control of the protocol holds back what is not read yet.
                await self._log.room()
        except Refusal:
            await answers.put(None)
            raise
        finally:
            batches.close()
        await answers.put(None)

    async def _append_batch(self, caller: Caller, batch: AppendBatch) -> _Answer:
        first, pieces = batch
        options, answer = first.options, batch_answer(first)
        try:
            name = stream_name(options.stream_identifier)
            self._access.check(caller, Right(name, Permission.WRITE))
            if pieces.refusal is not None:
                raise pieces.refusal
            expected = expected_of(options, "expected_stream_position", "stream_position")
            seconds = seconds_left(options, self._log.clock())
            outcome = await in_time(self._log.append(name, expected, pieces.events, pieces.size), seconds)
        except TimeoutError:
            batch_error(answer, grpc.StatusCode.DEADLINE_EXCEEDED, "Timeout", shared_pb2.Timeout())
        except Refusal as error:
            too_large = dict(error.trailers).get("maximum-append-size")
            code = grpc.StatusCode.INVALID_ARGUMENT
            detail: Any = shared_pb2.BadRequest(message=error.details)
            if too_large is not None:
                detail = shared_pb2.MaximumAppendSizeExceeded(maxAppendSize=int(too_large))
            elif error.code is grpc.StatusCode.PERMISSION_DENIED:
                code, detail = error.code, shared_pb2.AccessDenied()
            batch_error(answer, code, error.details, detail)
        except StorageError as error:
            batch_error(answer, grpc.StatusCode.UNAVAILABLE, str(error), shared_pb2.Unknown())
        else:
            self._fill(answer, name, expected, outcome)
        return answer

    def _fill(self, answer: _Answer, name: str, expected: int | Expected, outcome: object) -> None:
        failed = grpc.StatusCode.FAILED_PRECONDITION
        match outcome:
            case Appended():
                appended(answer.success, outcome)
            case Wrong():
                text = f"the stream is at revision {outcome.current}"
                batch_error(answer, failed, text, wrong_batch_version(outcome, expected))
            case _:
                identifier = shared_pb2.StreamIdentifier(stream_name=name.encode())
                detail = shared_pb2.StreamDeleted(stream_identifier=identifier)
                batch_error(answer, failed, stream_deleted(name).details, detail)

    async def Delete(self, request: streams_pb2.DeleteReq, _context: Any) -> streams_pb2.DeleteResp:
        position = await self._delete(request.options, hard=False)
        at = streams_pb2.DeleteResp.Position(commit_position=position, prepare_position=position)
        return streams_pb2.DeleteResp(position=at)

    async def Tombstone(self, request: streams_pb2.TombstoneReq, _context: Any) -> streams_pb2.TombstoneResp:
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

    async def Read(self, request: streams_pb2.ReadReq, context: Any) -> None:
        caller = await self._access.caller(context)

        def may_read(stream: str) -> bool:
            return self._access.allowed(caller, Right(stream, Permission.READ))

        await serve_read(self._log, request.options, context, may_read)
