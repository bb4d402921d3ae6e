"""Whether the log ends as it was written. Every start checks it, with a few reads whatever the size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kt_es.node.store.records import created_of, name_of, position_of, revision_of
from kt_es.node.store.storage import (
    HEADS,
    POSITION_KEY,
    RANGES,
    STREAMS_KEY,
    DamageError,
    NodeStorage,
    after,
    decode_range,
    event_key,
    from_u64,
    head_key,
    head_name,
    range_key,
)
from kt_es.node.store.streams import StreamHead


@dataclass(frozen=True, slots=True)
class End:
    """The end of the log: last position, number of streams, and when the last event was appended.

    ``created`` is in seconds since 1970; ``None`` if the last event was scavenged or there is none.
    """

    position: int
    streams: int
    created: float | None = None


def verify_end(storage: NodeStorage) -> End:
    """Check that the log ends where its counter says, with an event that matches the head of its stream.

    Raises:
        DamageError: it does not.
        StorageError: it cannot be read.
    """
    stored = storage.get(POSITION_KEY)
    position = 0 if stored is None else from_u64(stored)
    last = next(storage.scan(range_key(position), after(RANGES)), None)
    counted = storage.get(STREAMS_KEY)
    # Data of an old version have no count. The streams are counted once: the next write stores it.
    streams = sum(1 for _ in heads(storage)) if counted is None else from_u64(counted)
    if last is None:
        # The last event may have been scavenged.
        return End(position, streams)
    first, end, number, revision = decode_range(*last)
    if end != position:
        raise DamageError(f"the log has events at position {end}, but its counter ends at {position}")
    at = revision + position - first
    event = storage.get(event_key(number, at))
    if event is None or position_of(event) != position or revision_of(event) != at:
        raise DamageError(f"the last event, at position {position}, is missing or was replaced")
    name = name_of(event)
    head = read_head(storage, name)
    if head.last != at or head.number != number:
        raise DamageError(f"the head of stream {name} does not match its last event, at position {position}")
    return End(position, streams, created_of(event) / 10_000_000)


def read_head(storage: NodeStorage, name: str) -> StreamHead:
    """The head of a stream; that of a missing one is ``StreamHead()``."""
    value = storage.get(head_key(name))
    return StreamHead() if value is None else StreamHead.decode(value)


def heads(storage: NodeStorage) -> Iterator[tuple[str, StreamHead]]:
    """Name and head of every stream that ever had an event, by name."""
    for key, value in storage.scan(HEADS, after(HEADS)):
        head = StreamHead.decode(value)
        if head.number:
            yield head_name(key), head
