"""Stored events: the bytes of the protocol's answer behind a small header.

An event is kept as the ``ReadEvent`` message that the protocol sends (field numbers of
``event_store.client.streams.ReadResp.ReadEvent``, which ``persistent_subscriptions`` repeats), so that
reading copies bytes and builds no message. Layout of a stored value::

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
from typing import NamedTuple
from uuid import UUID

from esdbclient.protos.Grpc import persistent_pb2, shared_pb2, streams_pb2

HEADER = struct.Struct(">QQQHIHIH")
_U64 = struct.Struct(">Q")
_CANONICAL = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Proposed(NamedTuple):
    """An event as a writer proposes it. ``id`` is the canonical text of a UUID, 36 ASCII characters."""

    id: str
    type: str
    content_type: str
    metadata: bytes
    data: bytes


def varint(value: int) -> bytes:
    """``value`` (unsigned) as a protobuf varint."""
    if value < len(_VARINTS):
        return _VARINTS[value]
    return _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_VARINTS = tuple(map(_varint, range(0x4000)))


def field(tag: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(tag << 3 | 2) + varint(len(content)) + content


def _labels(type_: str, content_type: str) -> tuple[bytes, int, int]:
    """The metadata entries of type and content type, and where the type stands in them."""
    name = type_.encode()
    entry = field(1, b"type") + varint(2 << 3 | 2) + varint(len(name))
    head = varint(6 << 3 | 2) + varint(len(entry) + len(name))
    rest = field(6, field(1, b"content-type") + field(2, content_type.encode()))
    return head + entry + name + rest, len(head) + len(entry), len(name)


def encoder(stream: bytes, created: int) -> Callable[[Proposed, int, int], bytes]:
    """A function ``(event, revision, position) -> stored value`` for one append to one stream."""
    name_field = field(2, field(3, stream))
    name_length = len(stream)
    # Where the name stands after the 36 characters of the id, and what follows it.
    name_skip = 36 + len(name_field) - name_length
    created_entry = field(6, field(1, b"created") + field(2, b"%d" % created))
    known: dict[tuple[str, str], tuple[bytes, int, int]] = {}
    pack, header_size = HEADER.pack, HEADER.size

    def encode(event: Proposed, revision: int, position: int) -> bytes:
        event_id, type_, content_type, metadata, data = event
        labels = known.get((type_, content_type))
        if labels is None:
            labels = known[type_, content_type] = _labels(type_, content_type)
        entries, type_skip, type_length = labels
        place = varint(position)
        numbers = b"\x18%b\x20%b\x28%b" % (varint(revision), place, place)
        extra = b":%b%b" % (varint(len(metadata)), metadata) if metadata else b""
        data_head = b"B" + varint(len(data))
        size = 40 + len(name_field) + len(numbers) + len(entries) + len(created_entry)
        size += len(extra) + len(data_head) + len(data)
        front = b"\n%b\n&\x12$" % varint(size)
        id_at = header_size + len(front)
        name_at = id_at + name_skip
        type_at = name_at + name_length + len(numbers) + type_skip
        header = pack(position, created, revision, id_at, name_at, name_length, type_at, type_length)
        return b"".join(
            (
                header,
                front,
                event_id.encode(),
                name_field,
                numbers,
                entries,
                created_entry,
                extra,
                data_head,
                data,
                b"\x18",
                place,
            )
        )

    return encode


def position_of(stored: bytes) -> int:
    """The event's position in $all."""
    position: int = _U64.unpack_from(stored)[0]
    return position


def created_of(stored: bytes) -> int:
    """When the event was appended, in 100 ns since 1970."""
    created: int = _U64.unpack_from(stored, 8)[0]
    return created


def revision_of(stored: bytes) -> int:
    """The event's revision in its stream."""
    revision: int = _U64.unpack_from(stored, 16)[0]
    return revision


def id_of(stored: bytes) -> str:
    """The event's id, canonical text."""
    at = HEADER.unpack_from(stored)[3]
    return stored[at : at + 36].decode()


def name_of(stored: bytes) -> str:
    """The name of the event's stream."""
    _, _, _, _, at, length, _, _ = HEADER.unpack_from(stored)
    return stored[at : at + length].decode()


def type_of(stored: bytes) -> str:
    """The event's type."""
    _, _, _, _, _, _, at, length = HEADER.unpack_from(stored)
    return stored[at : at + length].decode()


def parsed(stored: bytes) -> streams_pb2.ReadResp.ReadEvent:
    """The event as a message."""
    event = streams_pb2.ReadResp.ReadEvent()
    event.ParseFromString(stored[HEADER.size :])
    return event


def read_response(stored: bytes) -> bytes:
    """``streams.ReadResp`` with this event."""
    return b"\n" + varint(len(stored) - HEADER.size) + stored[HEADER.size :]


def delivery(stored: bytes, retry_count: int) -> bytes:
    """``persistent_subscriptions.ReadResp`` with this event."""
    body = stored[HEADER.size :] + b"\x28" + varint(retry_count)
    return b"\n" + varint(len(body)) + body


def structured(value: UUID) -> shared_pb2.UUID:
    """The other spelling of an id in the protocol: two signed 64-bit halves."""
    high, low = struct.unpack(">qq", value.bytes)
    halves = shared_pb2.UUID.Structured(most_significant_bits=high, least_significant_bits=low)
    return shared_pb2.UUID(structured=halves)


ReadEvent = streams_pb2.ReadResp.ReadEvent | persistent_pb2.ReadResp.ReadEvent


def with_structured_ids(event: ReadEvent) -> None:
    """Respell the ids of ``event`` and its link in place."""
    for recorded in (event.event, event.link):
        if recorded.id.string:
            recorded.id.CopyFrom(structured(UUID(recorded.id.string)))


def respelled(event: ReadEvent) -> bytes:
    """A stored value (with an empty header) for a message that was changed after reading."""
    body: bytes = event.SerializeToString()
    return bytes(HEADER.size) + body


def canonical_id(message: shared_pb2.UUID) -> str:
    """The canonical text of an id in either spelling.

    Raises:
        ValueError: it is not a UUID.
    """
    text = message.string
    if _CANONICAL.fullmatch(text):
        return text
    if message.WhichOneof("value") == "structured":
        half = message.structured
        return str(UUID(bytes=struct.pack(">qq", half.most_significant_bits, half.least_significant_bits)))
    return str(UUID(text))


def canonical_ids(messages: Iterable[shared_pb2.UUID]) -> list[str]:
    """The canonical texts of ids.

    Raises:
        ValueError: one of them is not a UUID.
    """
    return [canonical_id(message) for message in messages]
