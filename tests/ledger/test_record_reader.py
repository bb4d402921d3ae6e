"""Records events are read once, however often the replay asks for the same one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from kt_es.eventstore.streams import Event
from kt_es.formats.queue import RECORDS
from kt_es.ledger.record_events import RecordReader


def test_an_event_that_is_asked_for_again_is_not_read_again() -> None:
    reads: list[int] = []
    there = 3

    def read(revision: int) -> Iterator[Event]:
        reads.append(revision)
        for number in range(revision, there):
            yield Event("stream", number, RECORDS, b"", uuid.UUID(int=number))

    reader = RecordReader(read)
    found = [reader.at(revision) for revision in (0, 0, 1, 2, 2)]
    assert [event and event.revision for event in found] == [0, 0, 1, 2, 2]
    assert reads == [0]
    assert reader.at(3) is None
    there = 5
    assert [reader.of_epoch(revision, 7).revision for revision in (3, 4, 3)] == [3, 4, 3]
    assert reads == [0, 3, 3, 3]
