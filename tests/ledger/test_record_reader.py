"""Records events are read once, unless the replay begins again."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from kt_es.eventstore.streams import Event
from kt_es.formats.queue import RECORDS
from kt_es.ledger.record_events import RecordReader


class Stream:
    """A stream of ``there`` events, which notes from where it was read."""

    def __init__(self, there: int) -> None:
        self.there = there
        self.reads: list[int] = []

    def read(self, revision: int) -> Iterator[Event]:
        self.reads.append(revision)
        for number in range(revision, self.there):
            yield Event("stream", number, RECORDS, b"", uuid.UUID(int=number))


def test_an_event_that_was_looked_at_is_not_read_again() -> None:
    stream = Stream(3)
    reader = RecordReader(stream.read)
    first = reader.peek(0)
    assert [reader.at(revision) and revision for revision in (0, 1, 2)] == [0, 1, 2]
    assert first is not None
    assert stream.reads == [0]


def test_a_replay_that_begins_again_reads_again() -> None:
    stream = Stream(3)
    reader = RecordReader(stream.read)
    reader.peek(0)
    assert [reader.of_epoch(revision, 1).revision for revision in (0, 0, 1, 1, 2)] == [0, 0, 1, 1, 2]
    assert stream.reads == [0, 0, 1]
    stream.there = 0
    assert reader.at(2) is reader.at(0) is None


def test_a_stream_that_has_grown_is_read_on() -> None:
    stream = Stream(1)
    reader = RecordReader(stream.read)
    assert reader.at(0) is not None
    assert reader.peek(1) is None
    stream.there = 2
    assert reader.of_epoch(1, 7).revision == 1
