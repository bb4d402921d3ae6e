"""Whether the log ends as it was written: looked at at every start, for a few reads whatever the size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kt_es.errors import KtError
from kt_es.node.store.records import created_of, name_of, position_of, revision_of
from kt_es.node.store.storage import POSITION_KEY, STREAMS_KEY, Storage
from kt_es.node.store.streams import Head
from kt_es.node.store.transaction import RANGE, decode_range, event_key, from_u64, head_key, range_key


class DamageError(KtError):
    """The data are not what the node wrote."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class End:
    """What a start finds: the last position, how many streams, when the last event was appended.

    ``created`` is in seconds since 1970; ``None``: the last event was scavenged, or there is none.
    """

    position: int
    streams: int
    created: float | None = None


def verify_end(storage: Storage) -> End:
    """Check that the log ends where it says, with an event that its stream knows.

    Raises:
        DamageError: it does not.
        StorageError: it cannot be read.
    """
    stored = storage.get(POSITION_KEY)
    position = 0 if stored is None else from_u64(stored)
    last = next(ranges(storage, position), None)
    counted = storage.get(STREAMS_KEY)
    # Data from before streams were counted: once only, the next write says how many.
    streams = sum(1 for _ in heads(storage)) if counted is None else from_u64(counted)
    if last is None:
        # The last event may have been scavenged.
        return End(position, streams)
    first, end, number, revision = last
    if end != position:
        raise DamageError(f"the log says that it ends at position {position}, but there are events at {end}")
    at = revision + position - first
    event = storage.get(event_key(number, at))
    if event is None or position_of(event) != position or revision_of(event) != at:
        raise DamageError(f"the last event, at position {position}, is missing or another one")
    name = name_of(event)
    head = storage.get(head_key(name))
    if head is None or Head.decode(head).last != at or Head.decode(head).number != number:
        raise DamageError(f"stream {name} does not know of its last event, at position {position}")
    return End(position, streams, created_of(event) / 10_000_000)


def ranges(storage: Storage, position: int) -> Iterator[tuple[int, int, int, int]]:
    for key, value in storage.scan(range_key(position), RANGE + b"\xff" * 9):
        yield decode_range(key, value)


def heads(storage: Storage) -> Iterator[tuple[str, Head]]:
    for key, value in storage.scan(b"H", b"I"):
        head = Head.decode(value)
        if head.number:
            yield key[1:].decode(), head
