"""The head of a stream, and the pure decisions whether an append or a delete is accepted.

Revisions count from 0; -1 stands for "no event". Positions count from 1 over all streams.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from kt_es.eventstore.rights import MAX_AGE, MAX_COUNT, TRUNCATE_BEFORE, taken_of

ALL_NAME = "$all"  # names the whole log where a stream could stand
LAST_REVISION = 2**63 - 1  # of a tombstone, and the "$tb" of a deleted stream
_HEAD = struct.Struct(">QqBQqqQ")


class Expected(Enum):
    """Expected states that are not a revision."""

    ANY = -2
    NO_STREAM = -1
    EXISTS = -4


@dataclass(frozen=True, slots=True)
class StreamHead:
    """The facts about a stream that are known without reading its events.

    ``number`` is 0 until the first event; then it is the position of that event, which is unique. ``last`` is
    the last revision or -1. ``truncate_before``, ``max_count`` and ``max_age`` (seconds) come from the
    stream's metadata; -1 stands for "not set". Revisions below ``scavenged`` are no longer stored
    (``ops.scavenge``), whatever the metadata say later.
    """

    number: int = 0
    last: int = -1
    tombstoned: bool = False
    truncate_before: int = 0
    max_count: int = -1
    max_age: int = -1
    scavenged: int = 0

    @property
    def deleted(self) -> bool:
        """Whether it is soft-deleted: not found, but numbering goes on."""
        return self.truncate_before == LAST_REVISION

    @property
    def exists(self) -> bool:
        """Whether there are events to read, or were until they were truncated."""
        return self.last >= 0 and not self.deleted

    @property
    def first(self) -> int:
        """The first revision that reads return, leaving ``$maxAge`` aside."""
        kept = self.last - self.max_count + 1 if self.max_count >= 0 else 0
        return max(self.truncate_before, kept, self.scavenged)

    def encode(self) -> bytes:
        """Return the head as 57 bytes."""
        return _HEAD.pack(
            self.number,
            self.last,
            self.tombstoned,
            self.truncate_before,
            self.max_count,
            self.max_age,
            self.scavenged,
        )

    @staticmethod
    def decode(value: bytes) -> StreamHead:
        # Heads written before there was scavenging are eight bytes shorter.
        number, last, tombstoned, before, count, age, gone = _HEAD.unpack(value.ljust(_HEAD.size, b"\0"))
        return StreamHead(number, last, bool(tombstoned), before, count, age, gone)


def _setting(values: Mapping[str, object], name: str, least: int, default: int) -> int:
    value = values.get(name)
    return value if isinstance(value, int) and value >= least else default


def with_metadata(head: StreamHead, content_type: str, data: bytes) -> StreamHead:
    """Return ``head`` with metadata ``data``. A ``$maxCount`` or ``$maxAge`` below 1 is no limit."""
    values = taken_of(content_type, data)
    return replace(
        head,
        truncate_before=_setting(values, TRUNCATE_BEFORE, 0, 0),
        max_count=_setting(values, MAX_COUNT, 1, -1),
        max_age=_setting(values, MAX_AGE, 1, -1),
    )


@dataclass(frozen=True, slots=True)
class Accept:
    """Write; the first event gets this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """All events were written already, up to revision ``last``. The answer is the same as the first time."""

    last: int


@dataclass(frozen=True, slots=True)
class Wrong:
    """The stream is not as expected, but at revision ``current`` (-1: no stream)."""

    current: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """The stream is tombstoned, or deleted and was expected to exist."""


Decision = Accept | Duplicate | Wrong | Deleted
IdAt = Callable[[int], str | None]
RevisionOf = Callable[[str], int | None]


def _repeats(ids: Sequence[str], first: int, head: StreamHead, id_at: IdAt) -> bool:
    """Return whether exactly these ids are at ``first`` and the revisions after it."""
    if not ids or first < 0 or first + len(ids) - 1 > head.last:
        return False
    return all(id_at(first + offset) == id_ for offset, id_ in enumerate(ids))


def decide(
    expected: int | Expected, head: StreamHead, ids: Sequence[str], id_at: IdAt, revision_of: RevisionOf
) -> Decision:
    """Return whether an append of events with ``ids`` is accepted, is a repetition, or is refused.

    With an exact revision, a mismatch is a repetition if the same ids are where they would have been written.
    Without one the ids are looked up: if all are there in this order, it is a repetition; if only some are,
    the revision is wrong. ``id_at(revision)`` and ``revision_of(id)`` read the stream.
    """
    if head.tombstoned:
        return Deleted()
    accept = Accept(head.last + 1)
    if expected is Expected.ANY or expected is Expected.EXISTS:
        if expected is Expected.EXISTS and not head.exists:
            return Deleted() if head.deleted else Wrong(-1)
        return _decide_by_ids(accept, head, ids, id_at, revision_of)
    if isinstance(expected, int):
        if expected == head.last:
            return accept
        first = expected + 1
    else:
        if not head.exists:
            return accept
        # A stream that was deleted and written again starts behind the deleted events.
        first = head.truncate_before
    if _repeats(ids, first, head, id_at):
        return Duplicate(first + len(ids) - 1)
    return Wrong(head.last if head.exists else -1)


def _decide_by_ids(
    accept: Accept, head: StreamHead, ids: Sequence[str], id_at: IdAt, revision_of: RevisionOf
) -> Decision:
    if not head.exists:
        return accept
    found = [revision for revision in map(revision_of, ids) if revision is not None]
    # Deleted events are hidden and do not count as written.
    found = [revision for revision in found if revision >= head.truncate_before]
    if not found:
        return accept
    if _repeats(ids, found[0], head, id_at):
        return Duplicate(found[0] + len(ids) - 1)
    return Wrong(head.last)


def decide_delete(expected: int | Expected, head: StreamHead, hard: bool) -> Decision:
    """Return whether a delete (``hard``: tombstone) is accepted.

    Deleting a missing stream is refused; a tombstone may be set on it unless it is expected to exist.
    Deleting a deleted stream again changes nothing, unless it is expected to exist.
    """
    if head.tombstoned:
        return Deleted()
    if expected is Expected.EXISTS and head.deleted:
        return Deleted()
    if expected is Expected.ANY:
        missing = head.last < 0 and not hard
        return Wrong(-1) if missing else Accept(head.last)
    if expected is Expected.EXISTS:
        return Accept(head.last) if head.exists else Wrong(-1)
    if expected is Expected.NO_STREAM:
        return Accept(head.last) if not head.exists and hard else Wrong(head.last)
    return Accept(head.last) if expected == head.last else Wrong(head.last)
