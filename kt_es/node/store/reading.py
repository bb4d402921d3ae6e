"""Reading streams and $all in chunks, from what is durable.

A chunk is at most ``CHUNK_EVENTS`` events and about ``CHUNK_BYTES``, whichever comes first, so that a
reader holds little memory and no reader keeps the event loop long.

Links are events of type ``$>`` whose data, ``revision@stream``, name another event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from kt_es.node.protocol import streams_pb2
from kt_es.node.store.log import NodeLog
from kt_es.node.store.records import Proposed, created_of, parsed, type_of
from kt_es.node.store.storage import RANGES, NodeStorage, decode_range, event_key, range_key
from kt_es.node.store.streams import LAST_REVISION, StreamHead

LINK = "$>"
_DIGITS = 19  # of the highest revision
ReadEvent = streams_pb2.ReadResp.ReadEvent
CHUNK_EVENTS = 128
CHUNK_BYTES = 256 << 10
_STEP = 16  # events fetched at once: the most that can exceed CHUNK_BYTES, at 1 MiB each


class Readable(Protocol):
    """The part of a log that is needed to read one stream."""

    storage: NodeStorage
    clock: Callable[[], float]

    def head(self, name: str) -> StreamHead:
        """Return the head of a stream: see ``NodeLog.head``."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Stored events, what to ask for next, and whether there is ``more`` already."""

    events: list[bytes]
    following: int
    more: bool


def forwards(log: Readable, name: str, revision: int, limit: int = CHUNK_EVENTS) -> Chunk:
    """Return events of a stream from ``revision`` (inclusive) up; ``following`` is the next one to read."""
    head = log.head(name)
    start = max(revision, head.first)
    if head.tombstoned:
        stored = log.storage.get(event_key(head.number, LAST_REVISION)) if start <= LAST_REVISION else None
        return Chunk([] if stored is None else [stored], LAST_REVISION + 1, False)
    if start > head.last:
        return Chunk([], revision, False)
    stop = min(head.last + 1, start + min(limit, CHUNK_EVENTS))
    events, count = _fetch_visible(log, head, range(start, stop))
    at = start + count
    return Chunk(events, at, at <= head.last)


def backwards(log: NodeLog, name: str, revision: int, limit: int = CHUNK_EVENTS) -> Chunk:
    """Return events of a stream from ``revision`` (inclusive) down to its first."""
    head = log.head(name)
    start = min(revision, head.last)
    if start < head.first:
        return Chunk([], -1, False)
    stop = max(head.first - 1, start - min(limit, CHUNK_EVENTS))
    events, count = _fetch_visible(log, head, range(start, stop, -1))
    at = start - count
    return Chunk(events, at, at >= head.first)


def _fetch(
    log: Readable, number: int, revisions: range, size: int = 0, oldest: float | None = None
) -> tuple[list[bytes], int, int]:
    """Return stored events at ``revisions`` of a stream, until ``CHUNK_BYTES`` are reached.

    ``size`` are the bytes of the chunk so far. Events that were appended before ``oldest`` (in 100 ns since
    1970) have expired, and are passed over. Returns the events, the number of revisions read, and the bytes.
    """
    events: list[bytes] = []
    count = 0
    while count < len(revisions) and size < CHUNK_BYTES:
        step = revisions[count : count + _STEP]
        count += len(step)
        for stored in log.storage.get_many([event_key(number, revision) for revision in step]):
            if stored is not None and (oldest is None or created_of(stored) >= oldest):
                events.append(stored)
                size += len(stored)
    return events, count, size


def _fetch_visible(log: Readable, head: StreamHead, revisions: range) -> tuple[list[bytes], int]:
    """Return stored events at ``revisions`` that have not expired, and the number of revisions read."""
    oldest = (log.clock() - head.max_age) * 10_000_000 if head.max_age >= 0 else None
    events, count, _ = _fetch(log, head.number, revisions, oldest=oldest)
    return events, count


def all_forwards(log: NodeLog, position: int, limit: int = CHUNK_EVENTS) -> Chunk:
    """Return events of $all from ``position`` (inclusive) up; ``following`` is the next position to read."""
    end = log.position
    if position > end:
        return Chunk([], position, False)
    events: list[bytes] = []
    size, at = 0, position
    for key, value in log.storage.scan(range_key(position), range_key(end + 1)):
        first, last, number, revision = decode_range(key, value)
        start = max(first, at)
        stop = min(last + 1, start + limit - len(events))
        shift = revision - first
        found, count, size = _fetch(log, number, range(start + shift, stop + shift), size)
        events += found
        at = start + count
        if at <= last or len(events) >= limit or size >= CHUNK_BYTES:
            return Chunk(events, at, at <= end)
    return Chunk(events, end + 1, False)


def all_backwards(log: NodeLog, position: int) -> Chunk:
    """Return events of $all before ``position`` (exclusive) down; ``following`` is the next ``position``."""
    events: list[bytes] = []
    size, at = 0, min(position, log.position + 1)
    if at <= 1:
        return Chunk([], 1, False)
    for key, value in log.storage.scan_back(range_key(at - 1), range_key(0)):
        if key[:1] != RANGES:
            continue
        first, last, number, revision = decode_range(key, value)
        if first >= at:
            continue
        start = min(last, at - 1)
        stop = max(first - 1, start - (CHUNK_EVENTS - len(events)))
        shift = revision - first
        found, count, size = _fetch(log, number, range(start + shift, stop + shift, -1), size)
        events += found
        at = start - count + 1
        if len(events) >= CHUNK_EVENTS or size >= CHUNK_BYTES:
            return Chunk(events, at, at > 1)
    return Chunk(events, 1, False)


def stored_at(log: NodeLog, name: str, revision: int) -> bytes | None:
    """Return the event at ``revision`` if it is durable and not truncated."""
    head = log.head(name)
    if not head.first <= revision <= head.last:
        return None
    return log.storage.get(event_key(head.number, revision))


def link_event(revision: int, stream: str) -> Proposed:
    return Proposed(str(uuid4()), LINK, "application/octet-stream", b"", f"{revision}@{stream}".encode())


def target(stored: bytes) -> tuple[int, str]:
    """Return the revision and stream that a link names; revision -1 if it is malformed."""
    revision, _, name = parsed(stored).event.data.decode(errors="replace").partition("@")
    usable = revision.isascii() and revision.isdigit() and len(revision) <= _DIGITS
    return int(revision) if usable else -1, name


def linked(log: NodeLog, stored: bytes) -> bytes | None:
    """Return the stored event that a link names, if it is still there."""
    revision, name = target(stored)
    return stored_at(log, name, revision)


def resolve(
    log: NodeLog, stored: bytes, may_read: Callable[[str], bool] = lambda _stream: True
) -> ReadEvent | None:
    """Return the event that ``stored`` links to, with its link; ``None`` if ``stored`` is not a link.

    If the linked event is gone, or the reader may not read its stream, the message has the link only. Without
    this check, a user who may write to one stream could read every stream through links.
    """
    if type_of(stored) != LINK:
        return None
    link = parsed(stored)
    resolved = ReadEvent(link=link.event, commit_position=link.commit_position)
    event = linked(log, stored) if may_read(target(stored)[1]) else None
    if event is not None:
        resolved.event.CopyFrom(parsed(event).event)
    return resolved
