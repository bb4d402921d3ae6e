"""Events of the log of mutations, read one after the other, and the records in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kt_es.errors import DivergenceError, MalformedError
from kt_es.eventstore.streams import Event
from kt_es.formats.queue import RECORDS, Record, decode_records


class RecordReader:
    """Reads events of one stream by ascending revision. One read brings the events of many epochs."""

    def __init__(
        self,
        read: Callable[[int], Iterator[Event]],
        ahead: Callable[[Iterator[Event]], Iterator[Event]] = iter,
    ) -> None:
        """Read events by ``read``, which yields those from a revision on, as far as there are any now."""
        self._read = read
        self._ahead = ahead
        self._events: Iterator[Event] = iter(())
        self._peeked: Event | None = None
        self._next = 0

    def peek(self, revision: int) -> Event | None:
        """Return what ``at`` returns, which the next call of ``at`` does not read again."""
        self._peeked = self.at(revision)
        return self._peeked

    def at(self, revision: int) -> Event | None:
        """Return the event at ``revision`` or the first one after it, None if the stream ends before."""
        peeked, self._peeked = self._peeked, None
        if peeked is not None and self._next == revision + 1:
            return peeked
        event = next(self._events, None) if revision == self._next else None
        if event is None:
            # The stream may have grown since the page was read.
            self._events = self._ahead(self._read(revision))
            event = next(self._events, None)
        self._next = revision + 1
        return event

    def of_epoch(self, revision: int, epoch: int) -> Event:
        """Return the event at ``revision``, which has records of ``epoch``; otherwise ``DivergenceError``."""
        event = self.at(revision)
        if event is None or event.revision != revision or event.type != RECORDS:
            raise DivergenceError(
                f"log of mutations: a records event of epoch {epoch} is missing at revision {revision}"
            )
        return event


def decoded_records(event: Event, sequence: int) -> list[tuple[Record, bytes]]:
    """Return the records of an event, with the bytes of each. The first one must be number ``sequence``."""
    try:
        first, encoded = decode_records(event.data)
    except MalformedError as error:
        raise DivergenceError(f"records event {event.revision}: {error}") from None
    if first != sequence:
        raise DivergenceError(f"records event {event.revision}: begins at {first}, not at {sequence}")
    records = []
    for offset, data in enumerate(encoded):
        try:
            record = Record.decode(data)
        except MalformedError as error:
            raise DivergenceError(f"record {first + offset}: {error}") from None
        if record.sequence != first + offset:
            raise DivergenceError(f"record {first + offset}: says that it is number {record.sequence}")
        records.append((record, data))
    return records
