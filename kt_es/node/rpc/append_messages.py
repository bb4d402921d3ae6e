"""Requests to write: reading them, joining the pieces of an append, and making the answers.

Complete appends wait in the queue of the log, which has a limit of its own (``commits``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage  # type: ignore[import-untyped]

from kt_es.eventstore.rights import JSON
from kt_es.node.protocol import shared_pb2, status_pb2, streams_pb2
from kt_es.node.refusals import Quota, Refusal, append_too_large, invalid, not_thought_of
from kt_es.node.store.log import EVENT_COST, Appended
from kt_es.node.store.records import Proposed, canonical_id, varint
from kt_es.node.store.streams import ALL_NAME, Deleted, Expected, Wrong

MAX_NAME = 4096  # bytes of a stream's name, characters of an event's type
MAX_EVENTS = 1 << 16  # of one append: tiny ones cost more than their bytes
UNFINISHED = 16  # incomplete batches of one call
BYTES = "application/octet-stream"  # the protocol knows no other content than this and JSON
FOREVER = 86_400.0  # seconds: later deadlines count as none; clients send centuries
# One call for all fields of a message: batches have hundreds of messages.
_FIELDS = attrgetter("id", "metadata", "custom_metadata", "data")
_EXPECTED = {"no_stream": Expected.NO_STREAM, "any": Expected.ANY, "stream_exists": Expected.EXISTS}
_EXPECTED_FIELD = {state: f"expected_{name}" for name, state in _EXPECTED.items()}


def stream_name(identifier: shared_pb2.StreamIdentifier) -> str:
    raw = identifier.stream_name
    if not raw:
        raise not_thought_of()
    if len(raw) > MAX_NAME:
        raise invalid(f"a stream's name has at most {MAX_NAME} bytes, not {len(raw)}")
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise invalid("a stream's name is not UTF-8") from None
    if name == ALL_NAME:
        raise invalid(f"{ALL_NAME} is not a stream")
    return name


def expected_of(options: Any, oneof: str, revision_field: str) -> int | Expected:
    """Return the state or revision that an append, delete or tombstone expects of the stream."""
    kind = options.WhichOneof(oneof)
    if kind == revision_field:
        revision: int = getattr(options, revision_field)
        return revision
    if kind is None:
        raise invalid("no expected stream revision is given")
    return _EXPECTED[kind]


def proposals(messages: Iterable[Any]) -> Iterator[tuple[Proposed, int]]:
    """Yield the events of a request, each with the bytes that count towards the limit of an append."""
    for identifier, labels, metadata, data in map(_FIELDS, messages):
        type_ = labels["type"]
        if not type_:
            raise not_thought_of()
        if len(type_) > MAX_NAME:
            raise invalid(f"an event's type has at most {MAX_NAME} characters, not {len(type_)}")
        try:
            event_id = canonical_id(identifier)
        except ValueError:
            raise invalid("an event's id is not a UUID") from None
        content_type = JSON if labels["content-type"] == JSON else BYTES
        event = Proposed(event_id, type_, content_type, metadata, data)
        yield event, len(data) + len(metadata) + len(type_)


def appended(success: Any, outcome: Appended) -> None:
    """Fill the ``success`` of an answer."""
    if outcome.revision >= 0:
        success.current_revision = outcome.revision
    else:
        success.no_stream.SetInParent()
    if outcome.position:
        success.position.commit_position = outcome.position
        success.position.prepare_position = outcome.position
    else:
        success.no_position.SetInParent()


def append_answer(outcome: Appended | Wrong, expected: int | Expected) -> streams_pb2.AppendResp | bytes:
    """Return the answer of ``Append``; the usual one is already serialised."""
    if isinstance(outcome, Appended) and outcome.revision >= 0 and outcome.position:
        revision, position = varint(outcome.revision), varint(outcome.position)
        # AppendResp { success = 1 { current_revision = 1, position = 3 { commit = 1, prepare = 2 } } }: at
        # most 36 bytes, so each length is one byte.
        head = bytes((10, 5 + len(revision) + 2 * len(position), 8))
        return b"".join((head, revision, bytes((26, 2 + 2 * len(position), 8)), position, b"\x10", position))
    answer = streams_pb2.AppendResp()
    if isinstance(outcome, Appended):
        appended(answer.success, outcome)
        return answer
    wrong = answer.wrong_expected_version
    if outcome.current >= 0:
        wrong.current_revision = wrong.current_revision_20_6_0 = outcome.current
    else:
        wrong.current_no_stream.SetInParent()
        wrong.no_stream_20_6_0.SetInParent()
    if isinstance(expected, int):
        wrong.expected_revision = wrong.expected_revision_20_6_0 = expected
    else:
        getattr(wrong, _EXPECTED_FIELD[expected]).SetInParent()
        if expected is not Expected.NO_STREAM:
            getattr(wrong, _EXPECTED_FIELD[expected].removeprefix("expected_") + "_20_6_0").SetInParent()
    return answer


def seconds_left(options: streams_pb2.BatchAppendReq.Options, now: float) -> float | None:
    """Return the seconds from ``now`` (since 1970) until the deadline of a batch; ``None`` without one."""
    kind = options.WhichOneof("deadline_option")
    if kind is None:
        return None
    asked = getattr(options, kind)
    seconds: float = asked.seconds + asked.nanos / 1e9
    if kind == "deadline_21_10_0":
        seconds -= now
    return seconds if seconds < FOREVER else None


async def in_time(work: Coroutine[Any, Any, Appended | Wrong | Deleted], seconds: float | None) -> Any:
    """Return the result of ``work``, which runs to its end once it has begun.

    Raises ``TimeoutError`` if it took longer than ``seconds``, or there were none left to begin it.
    """
    if seconds is None:
        return await work
    if seconds <= 0:
        work.close()
        raise TimeoutError
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait((task,), timeout=seconds)
    if not done:
        # Retrieve its exception, or asyncio complains.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        raise TimeoutError
    return task.result()


def batch_answer(request: streams_pb2.BatchAppendReq) -> streams_pb2.BatchAppendResp:
    """Return a ``BatchAppendResp`` with the batch that it answers, and what that expected."""
    options = request.options
    answer = streams_pb2.BatchAppendResp(
        correlation_id=request.correlation_id, stream_identifier=options.stream_identifier
    )
    kind = options.WhichOneof("expected_stream_position")
    if kind == "stream_position":
        answer.stream_position = options.stream_position
    elif kind is not None:
        getattr(answer, kind).SetInParent()
    return answer


def batch_error(answer: streams_pb2.BatchAppendResp, code: grpc.StatusCode, text: str, details: Any) -> None:
    """Report in ``answer`` that the append failed, with the reason."""
    packed = AnyMessage()
    packed.Pack(details)
    number: int = code.value[0]  # as in google.rpc.Code
    answer.error.CopyFrom(status_pb2.Status(code=number, message=text, details=packed))  # type: ignore[arg-type]


def wrong_batch_version(outcome: Wrong, expected: int | Expected) -> shared_pb2.WrongExpectedVersion:
    """Return the detail of a batch that found its stream at another revision."""
    wrong = shared_pb2.WrongExpectedVersion()
    if outcome.current >= 0:
        wrong.current_stream_revision = outcome.current
    else:
        wrong.current_no_stream.SetInParent()
    if isinstance(expected, int):
        wrong.expected_stream_position = expected
    else:
        getattr(wrong, _EXPECTED_FIELD[expected]).SetInParent()
    return wrong


@dataclass(slots=True)
class Pieces:
    """The pieces of one append so far; ``refusal`` is the reason why the append will not be made."""

    limit: int  # bytes of the whole
    events: list[Proposed] = field(default_factory=list)
    size: int = 0
    refusal: Refusal | None = None

    @property
    def held(self) -> int:
        """Bytes that it counts in memory."""
        return self.size + EVENT_COST * len(self.events)

    def add(self, messages: Iterable[Any]) -> None:
        """Add events; raise ``Refusal`` for an invalid one, and for the first one beyond a limit."""
        events, size = self.events, self.size
        for event, more in proposals(messages):
            size += more
            if size > self.limit or len(events) == MAX_EVENTS:
                raise append_too_large(self.limit)
            events.append(event)
        self.size = size


# A batch of ``BatchAppend``: its first request, and the pieces so far.
AppendBatch = tuple[streams_pb2.BatchAppendReq, Pieces]


class Batches:
    """Puts the batches of one call together, each of at most ``limit`` bytes."""

    def __init__(self, limit: int, intake: Quota) -> None:
        self._limit = limit
        self._intake = intake
        self._open: dict[bytes, AppendBatch] = {}

    def add(self, request: streams_pb2.BatchAppendReq) -> AppendBatch | None:
        """Return the batch that ``request`` completes, if any; ``Refusal`` if too many are unfinished."""
        if not request.HasField("correlation_id"):
            raise invalid("a batch has no correlation id")
        key = request.correlation_id.SerializeToString()
        first, pieces = self._open.pop(key, (request, Pieces(self._limit)))
        self._intake.give(pieces.held)
        if pieces.refusal is None:
            try:
                pieces.add(request.proposed_messages)
            except Refusal as refusal:
                pieces.refusal, pieces.events, pieces.size = refusal, [], 0
        if request.is_final:
            return first, pieces
        if len(self._open) == UNFINISHED:
            raise invalid(f"more than {UNFINISHED} batches of one call are unfinished")
        self._intake.take(pieces.held)
        self._open[key] = first, pieces
        return None

    def close(self) -> None:
        for _, pieces in self._open.values():
            self._intake.give(pieces.held)
        self._open.clear()
