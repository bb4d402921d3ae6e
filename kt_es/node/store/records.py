"""Stored events: the bytes of the protocol's answer behind a small header.

An event is stored as the ``ReadEvent`` message that the protocol sends, so that a read copies bytes and
builds no message. The field numbers are those of ``event_store.client.streams.ReadResp.ReadEvent``, which
``persistent_subscriptions`` repeats. Layout of a stored value::

    header   position u64, created u64 (100 ns since 1970), revision u64, id offset u16,
             name offset u32, name length u16, type offset u32, type length u16
    ReadEvent { event RecordedEvent = 1, commit_position = 3 }
    RecordedEvent { id UUID{string} = 1, stream_identifier = 2, stream_revision = 3, prepare_position = 4,
                    commit_position = 5, metadata map = 6, custom_metadata = 7, data = 8 }
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from kt_es.node.protocol import persistent_pb2, shared_pb2, streams_pb2

HEADER = struct.Struct(">QQQHIHIH")
_NUMBERS, _OFFSETS = struct.Struct(">QQQ"), struct.Struct(">HIHIH")
_U64 = struct.Struct(">Q")
SHAPES = 4096  # encoded shapes of events, and names of streams, in the caches
_is_canonical = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


class Proposed(NamedTuple):
    """An event as a writer proposes it. ``id`` is the canonical text of a UUID, 36 ASCII characters."""

    id: str
    type: str
    content_type: str
    metadata: bytes
    data: bytes


def varint(value: int) -> bytes:
    """Return ``value`` (unsigned) as a protobuf varint."""
    if value < _TABLE:
        return _LAST[value]
    return _INNER[value & _TABLE - 1] + varint(value >> 14)


_TABLE = 1 << 14
# Two groups of seven bits each: with more to follow, and as the end of a varint.
_INNER = tuple(bytes((value & 0x7F | 0x80, value >> 7 | 0x80)) for value in range(_TABLE))
_LAST = tuple(
    bytes((value,)) if value < 0x80 else bytes((value & 0x7F | 0x80, value >> 7)) for value in range(_TABLE)
)


def field(tag: int, content: bytes) -> bytes:
    """Return a length-delimited field."""
    return varint(tag << 3 | 2) + varint(len(content)) + content


class _Shape(NamedTuple):
    """The common parts of stored events whose fields have the same lengths."""

    front: bytes  # the rest of the header, and everything before the id
    labels: bytes  # type and content type
    metadata_head: bytes  # before the metadata; before the data if there are none
    data_head: bytes


@lru_cache(SHAPES)
def _name_field(stream: bytes) -> bytes:
    return field(2, field(3, stream))


@lru_cache(SHAPES)
def _shape(name_length: int, type_: str, content_type: str, lengths: tuple[int, int, int, int]) -> _Shape:
    """Return the common parts of stored events.

    Args:
        lengths: The lengths of metadata, of data, of revision with both positions, and of the created entry.
    """
    metadata_length, data_length, numbers_length, created_length = lengths
    name = type_.encode()
    entry = field(1, b"type") + b"\x12" + varint(len(name))
    type_head = b"2" + varint(len(entry) + len(name)) + entry
    labels = type_head + name + field(6, field(1, b"content-type") + field(2, content_type.encode()))
    metadata_head = b":" + varint(metadata_length) if metadata_length else b""
    data_head = b"B" + varint(data_length)
    name_field_length = len(field(2, field(3, bytes(name_length))))
    size = 40 + name_field_length + numbers_length + len(labels) + created_length
    size += len(metadata_head) + metadata_length + len(data_head) + data_length
    front = b"\n" + varint(size) + b"\n&\x12$"
    id_at = HEADER.size + len(front)
    numbers_at = id_at + 36 + name_field_length
    type_at = numbers_at + numbers_length + len(type_head)
    offsets = _OFFSETS.pack(id_at, numbers_at - name_length, name_length, type_at, len(name))
    if not metadata_length:
        return _Shape(offsets + front, labels, data_head, b"")
    return _Shape(offsets + front, labels, metadata_head, data_head)


def encoder(stream: bytes, created: int) -> Callable[[Proposed, int, int], bytes]:
    """Return a function ``(event, revision, position) -> stored value`` for one append to one stream."""
    name_and_tag = _name_field(stream) + b"\x18"
    created_entry = field(6, field(1, b"created") + field(2, b"%d" % created))
    shapes: dict[tuple[str, str, int, int, int, int], _Shape] = {}
    pack, known, join = _NUMBERS.pack, shapes.get, b"".join

    def encode(event: Proposed, revision: int, position: int) -> bytes:
        event_id, type_, content_type, metadata, data = event
        at_revision, at_position = varint(revision), varint(position)
        lengths = type_, content_type, len(metadata), len(data), len(at_revision), len(at_position)
        shape = known(lengths)
        if shape is None:
            numbers_length = 3 + len(at_revision) + 2 * len(at_position)
            sizes = len(metadata), len(data), numbers_length, len(created_entry)
            shape = shapes[lengths] = _shape(len(stream), type_, content_type, sizes)
        front, labels, metadata_head, data_head = shape
        return join(
            (
                pack(position, created, revision),
                front,
                event_id.encode(),
                name_and_tag,
                at_revision,
                b"\x20",
                at_position,
                b"\x28",
                at_position,
                labels,
                created_entry,
                metadata_head,
                metadata,
                data_head,
                data,
                b"\x18",
                at_position,
            )
        )

    return encode


def position_of(stored: bytes) -> int:
    position: int = _U64.unpack_from(stored)[0]
    return position


def created_of(stored: bytes) -> int:
    """Return the time at which the event was appended, in 100 ns since 1970."""
    created: int = _U64.unpack_from(stored, 8)[0]
    return created


def revision_of(stored: bytes) -> int:
    revision: int = _U64.unpack_from(stored, 16)[0]
    return revision


def id_of(stored: bytes) -> str:
    """Return the event's id, canonical text."""
    at = HEADER.unpack_from(stored)[3]
    return stored[at : at + 36].decode()


def name_of(stored: bytes) -> str:
    _, _, _, _, at, length, _, _ = HEADER.unpack_from(stored)
    return stored[at : at + length].decode()


def type_of(stored: bytes) -> str:
    _, _, _, _, _, _, at, length = HEADER.unpack_from(stored)
    return stored[at : at + length].decode()


def parsed(stored: bytes) -> streams_pb2.ReadResp.ReadEvent:
    event = streams_pb2.ReadResp.ReadEvent()
    event.ParseFromString(stored[HEADER.size :])
    return event


def content_of(stored: bytes) -> tuple[str, bytes]:
    event = parsed(stored).event
    return event.metadata["content-type"], event.data


def read_response(stored: bytes) -> bytes:
    """Return ``streams.ReadResp`` with this event."""
    return b"\n" + varint(len(stored) - HEADER.size) + stored[HEADER.size :]


def delivery(stored: bytes, retry_count: int) -> bytes:
    """Return ``persistent_subscriptions.ReadResp`` with this event."""
    body = stored[HEADER.size :] + b"\x28" + varint(retry_count)
    return b"\n" + varint(len(body)) + body


def structured(value: UUID) -> shared_pb2.UUID:
    """Return an id in the second spelling of the protocol: two signed 64-bit halves."""
    high, low = struct.unpack(">qq", value.bytes)
    halves = shared_pb2.UUID.Structured(most_significant_bits=high, least_significant_bits=low)
    return shared_pb2.UUID(structured=halves)


ReadEvent = streams_pb2.ReadResp.ReadEvent | persistent_pb2.ReadResp.ReadEvent


def with_structured_ids(event: ReadEvent) -> None:
    """Change the ids of ``event`` and its link, in place, to the second spelling."""
    for recorded in (event.event, event.link):
        if recorded.id.string:
            recorded.id.CopyFrom(structured(UUID(recorded.id.string)))


def respelled(event: ReadEvent) -> bytes:
    """Return a stored value, with an empty header, of a message that was changed after reading."""
    body: bytes = event.SerializeToString()
    return bytes(HEADER.size) + body


def canonical_id(message: shared_pb2.UUID) -> str:
    """Return the canonical text of an id in either spelling. Raises ``ValueError`` if it is not a UUID."""
    text: str = message.string
    if _is_canonical(text):
        return text
    if message.WhichOneof("value") == "structured":
        half = message.structured
        return str(UUID(bytes=struct.pack(">qq", half.most_significant_bits, half.least_significant_bits)))
    return str(UUID(text))


def canonical_ids(messages: Iterable[shared_pb2.UUID]) -> list[str]:
    return [canonical_id(message) for message in messages]
