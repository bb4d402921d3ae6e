"""Scavenging: events that no read of their stream returns any more are removed from the disk.

Events of deleted and tombstoned streams are hidden, and so are events that ``$tb``, ``$maxCount`` or
``$maxAge`` excludes. Hidden events are removed with their ids, and from $all, which returned them until then.
Other events keep their revision and position, and numbering continues from the stream's head. A tombstone
always stays, and so does the last event of a metadata stream.

Events are removed from the front of a stream, a slice at a time, each slice in a group commit like an append.
So writers wait for one slice at most, and a scavenge that is killed can be repeated. ``StreamHead.scavenged``
moves in the same atomic write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from kt_es.node.store.log import NodeLog
from kt_es.node.store.records import created_of, id_of, position_of, revision_of
from kt_es.node.store.storage import (
    HEADS,
    LAST_POSITION,
    NodeStorage,
    after,
    decode_range,
    encode_range,
    event_key,
    head_key,
    head_name,
    id_key,
    range_key,
)
from kt_es.node.store.streams import LAST_REVISION, StreamHead
from kt_es.node.store.transaction import META, Transaction

SLICE_EVENTS = 256
SLICE_BYTES = 2 << 20
_HEADS = 1000  # heads read before others have their turn
_SPANS = 64  # streams that are compacted one by one; more are compacted as one range
_NO_ID = "00000000-0000-0000-0000-000000000000"


@dataclass(slots=True)
class Scavenged:
    """The counts of removed things; ``bytes`` are of keys and values, before compression."""

    streams: int = 0
    events: int = 0
    bytes: int = 0
    numbers: list[int] = field(default_factory=list)  # of the streams concerned


async def scavenge(log: NodeLog, compact: Callable[[bytes, bytes], None]) -> Scavenged:
    """Scavenge all streams of ``log``, then ``compact`` the ranges of keys (start, end) concerned.

    Raises ``StorageError``.
    """
    result = Scavenged()
    start = HEADS
    while names := _candidates(log, start):
        for name, worth in names:
            if worth:
                await _scavenge_stream(log, name, result)
        start = head_key(names[-1][0]) + b"\0"
        await asyncio.sleep(0)
    for first, end in _spans(result.numbers):
        await asyncio.to_thread(compact, first, end)
    return result


def _candidates(log: NodeLog, start: bytes) -> list[tuple[str, bool]]:
    """Return the next streams by name, and whether they may have something to remove."""
    found: list[tuple[str, bool]] = []
    for key, value in log.storage.scan(start, after(HEADS)):
        name, head = head_name(key), StreamHead.decode(value)
        ages = head.max_age >= 0 and head.scavenged < _end(name, head)
        found.append((name, head.number > 0 and (ages or _hidden_before(name, head) > head.scavenged)))
        if len(found) == _HEADS:
            break
    return found


def _end(name: str, head: StreamHead) -> int:
    """Return the first revision that always stays."""
    return head.last if head.tombstoned or name.startswith(META) else head.last + 1


def _hidden_before(name: str, head: StreamHead) -> int:
    """Return the revisions below this one are hidden, leaving ``$maxAge`` aside."""
    return min(LAST_REVISION if head.tombstoned else head.first, _end(name, head))


async def _scavenge_stream(log: NodeLog, name: str, result: Scavenged) -> None:
    number, before = 0, result.events
    while True:
        removed = await log.run(lambda tx: _take_slice(log, tx, name))
        if removed is None:
            break
        number, events, size = removed
        result.events += events
        result.bytes += size
    if result.events > before:
        result.streams += 1
        result.numbers.append(number)


def _take_slice(log: NodeLog, tx: Transaction, name: str) -> tuple[int, int, int] | None:
    """Stage the removal of a stream's first hidden events; ``None`` if there are none.

    Returns the number of the stream, and how many events and bytes are removed.
    """
    # Readers use the durable head until the batch is on disk: what it shows has to stay as well.
    heads = (tx.head(name), log.head(name))
    head = heads[0]
    hidden = min(_hidden_before(name, one) for one in heads)
    gone, whole = _hidden_events(log, heads, name, hidden)
    mark = revision_of(gone[-1]) + 1 if gone else head.scavenged
    if whole:
        mark = max(mark, min(hidden, heads[1].last + 1))
    if mark <= head.scavenged:
        return None
    tx.heads[name] = marked = replace(head, scavenged=mark)
    tx.put(head_key(name), marked.encode())
    size = 0
    for stored in gone:
        key, event_id = event_key(head.number, revision_of(stored)), id_of(stored)
        size += len(key) + len(stored)
        tx.delete(key)
        known = tx.revision_of(head, event_id)
        # The id may have been used again at a later revision, which its key then names.
        if known is not None and known < mark:
            tx.delete(id_key(head.number, event_id))
    _cut_ranges(log.storage, tx, gone)
    return head.number, len(gone), size


def _hidden_events(
    log: NodeLog, heads: tuple[StreamHead, StreamHead], name: str, hidden: int
) -> tuple[list[bytes], bool]:
    """Return the first events that are hidden, and whether that is all below ``hidden``."""
    gone: list[bytes] = []
    size = 0
    number, start = heads[0].number, heads[0].scavenged
    end = min(_end(name, head) for head in heads)
    now = log.clock()
    for _, stored in log.storage.scan(event_key(number, start), event_key(number, end)):
        if len(gone) == SLICE_EVENTS or size >= SLICE_BYTES:
            return gone, False
        if revision_of(stored) >= hidden and not all(_expired(head, stored, now) for head in heads):
            break
        gone.append(stored)
        size += len(stored)
    return gone, True


def _expired(head: StreamHead, stored: bytes, now: float) -> bool:
    return head.max_age >= 0 and created_of(stored) < (now - head.max_age) * 10_000_000


def _cut_ranges(storage: NodeStorage, tx: Transaction, gone: list[bytes]) -> None:
    """Remove appends of which all events are gone; let others begin at their first remaining event."""
    at = 0
    while at < len(gone):
        found = next(storage.scan(range_key(position_of(gone[at])), range_key(LAST_POSITION)), None)
        if found is None:
            return
        key, value = found
        first, last, number, revision = decode_range(key, value)
        while at < len(gone) and position_of(gone[at]) <= last:
            at += 1
        left = position_of(gone[at - 1]) + 1
        if left > last:
            tx.delete(key)
        else:
            tx.put(key, encode_range(number, revision + left - first, left))


def _spans(numbers: list[int]) -> Iterator[tuple[bytes, bytes]]:
    if not numbers:
        return
    streams = [(number, number) for number in sorted(numbers)]
    if len(streams) > _SPANS:
        streams = [(streams[0][0], streams[-1][0])]
    for first, last in streams:
        yield event_key(first, 0), event_key(last + 1, 0)
        yield id_key(first, _NO_ID), id_key(last + 1, _NO_ID)
    yield range_key(0), range_key(LAST_POSITION)
