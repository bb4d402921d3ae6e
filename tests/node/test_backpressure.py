"""Writers that send faster than the disk takes it: what the node reads of it is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from kt_es.node.access.acl import ADMIN, Caller
from kt_es.node.protocol import shared_pb2, streams_pb2
from kt_es.node.refusals import Refusal
from kt_es.node.rpc.append_messages import MAX_EVENTS, UNFINISHED, Pieces, proposals
from kt_es.node.rpc.streams import INTAKE, Streams
from kt_es.node.store.commits import QUEUE_BYTES
from kt_es.node.store.log import NodeLog
from kt_es.node.store.storage import StorageError
from tests.node.test_storage import FaultyStorage, on_log

Request = streams_pb2.BatchAppendReq
LIMIT = 1 << 20
SIZE = LIMIT - 1024
BATCHES = 2 * QUEUE_BYTES // SIZE


class Everybody:
    """The gate of an open node."""

    async def caller(self, _context: object) -> Caller:
        return ADMIN

    def check(self, _caller: Caller, _wanted: object) -> None:
        """All may do everything."""


class Call:
    """What a call answered."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    async def write(self, answer: Any) -> None:
        self.answers.append(answer)


def batch(size: int, *, final: bool = True) -> Request:
    options = Request.Options(stream_identifier=shared_pb2.StreamIdentifier(stream_name=b"s"))
    options.any.SetInParent()
    event = Request.ProposedMessage(
        id=shared_pb2.UUID(string=str(uuid4())), metadata={"type": "T"}, data=bytes(size)
    )
    return Request(
        correlation_id=shared_pb2.UUID(string=str(uuid4())),
        options=options,
        proposed_messages=[event],
        is_final=final,
    )


def streams(log: NodeLog) -> Streams:
    access: Any = Everybody()
    return Streams(log, LIMIT, access)


def test_batches_that_the_disk_has_no_time_for_are_not_read(tmp_path: Path) -> None:
    async def work(log: NodeLog, storage: FaultyStorage, _failures: list[StorageError]) -> None:
        read = 0

        async def requests() -> AsyncIterator[Request]:
            nonlocal read
            for _ in range(BATCHES):
                read += 1
                await asyncio.sleep(0)  # as a read of a connection does: others go on meanwhile
                yield batch(SIZE)

        async def until_nothing_moves() -> None:
            seen = -1
            while seen != read:
                seen = read
                for _ in range(100):
                    await asyncio.sleep(0)

        storage.may_sync.clear()
        call = Call()
        serving = asyncio.create_task(streams(log).BatchAppend(requests(), call))
        await until_nothing_moves()
        assert not call.answers
        # What waits, what is being synced, and the one that was read last.
        assert read * SIZE <= QUEUE_BYTES + (8 << 20) + 2 * LIMIT
        storage.may_sync.set()
        await serving
        assert [answer.HasField("success") for answer in call.answers] == [True] * BATCHES

    on_log(tmp_path, work)


def test_a_call_has_few_batches_of_which_pieces_are_missing(tmp_path: Path) -> None:
    async def work(log: NodeLog, _storage: FaultyStorage, _failures: list[StorageError]) -> None:
        async def requests(count: int) -> AsyncIterator[Request]:
            for _ in range(count):
                yield batch(10, final=False)

        await streams(log).BatchAppend(requests(UNFINISHED), Call())
        with pytest.raises(Refusal, match="unfinished"):
            await streams(log).BatchAppend(requests(UNFINISHED + 1), Call())

    on_log(tmp_path, work)


def test_pieces_take_a_bounded_amount_over_all_calls(tmp_path: Path) -> None:
    """And what an ended call held is there for others."""

    async def work(log: NodeLog, _storage: FaultyStorage, _failures: list[StorageError]) -> None:
        service, begun = streams(log), asyncio.Event()

        async def unfinished(end: asyncio.Event) -> AsyncIterator[Request]:
            for _ in range(UNFINISHED):
                yield batch(SIZE, final=False)
            begun.set()
            await end.wait()

        end, calls = asyncio.Event(), list[asyncio.Task[None]]()
        for _ in range(INTAKE // UNFINISHED):
            begun.clear()
            calls.append(asyncio.create_task(service.BatchAppend(unfinished(end), Call())))
            await begun.wait()
        with pytest.raises(Refusal, match="unfinished"):
            await service.BatchAppend(unfinished(end), Call())
        with pytest.raises(Refusal, match="unfinished"):
            await service.Append(single(SIZE), Call())
        end.set()
        await asyncio.gather(*calls)
        await service.Append(single(SIZE), Call())

    on_log(tmp_path, work)


async def single(size: int) -> AsyncIterator[streams_pb2.AppendReq]:
    """The requests of an ``Append`` of one event."""
    asked = streams_pb2.AppendReq
    options = asked.Options(stream_identifier=shared_pb2.StreamIdentifier(stream_name=b"s"))
    options.any.SetInParent()
    yield asked(options=options)
    yield asked(
        proposed_message=asked.ProposedMessage(
            id=shared_pb2.UUID(string=str(uuid4())), metadata={"type": "T"}, data=bytes(size)
        )
    )


def test_an_append_has_so_many_events_at_most_however_small_they_are() -> None:
    tiny = batch(0).proposed_messages[0]
    pieces = Pieces(LIMIT)
    pieces.add([tiny] * MAX_EVENTS)
    with pytest.raises(Refusal, match="Maximum Append Size"):
        pieces.add([tiny])


def test_the_protocol_knows_two_kinds_of_content() -> None:
    event = batch(0).proposed_messages[0]
    found = []
    for content_type in ("application/json", "application/octet-stream", "text/" + "x" * 100_000):
        event.metadata["content-type"] = content_type
        found += [proposed.content_type for proposed, _ in proposals([event])]
    assert found == ["application/json", "application/octet-stream", "application/octet-stream"]
