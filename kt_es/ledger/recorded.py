"""The records of the log of mutations, read from any number on."""

from __future__ import annotations

from kt_es.errors import DivergenceError, MalformedError
from kt_es.eventstore.streams import Event, EventLog
from kt_es.formats.queue import decode_records


class RecordedItems:
    """The records of the log of mutations in order, from number ``sequence`` on.

    ``revision`` is that of the records event with the record that was read last. A caller who knows it can go
    on there later, and no event has to be searched for.
    """

    def __init__(self, log: EventLog, stream: str, sequence: int, revision: int | None = None) -> None:
        self._sequence = sequence
        self.revision = _revision_of(log, stream, sequence) if revision is None else revision
        self._events = log.read(stream, self.revision)
        self._left: list[bytes] = []

    def take(self, count: int) -> list[bytes]:
        """Return the next ``count`` records, none if ``count`` is not above 0. Raises ``DivergenceError``."""
        taken: list[bytes] = []
        while len(taken) < count:
            if not self._left:
                self._left = self._next()
            part = self._left[: count - len(taken)]
            self._left = self._left[len(part) :]
            self._sequence += len(part)
            taken += part
        return taken

    def _next(self) -> list[bytes]:
        event = next(self._events, None)
        if event is None:
            raise DivergenceError(f"log of mutations: record {self._sequence} is missing in the event log")
        self.revision = event.revision
        first, records = _records_in(event)
        if first + len(records) == self._sequence:
            # The one that was read last; what follows stands in the next one.
            return []
        if not first <= self._sequence < first + len(records):
            raise DivergenceError(
                f"records event {event.revision}: begins at {first}, and record {self._sequence} is due"
            )
        return records[self._sequence - first :]


def _revision_of(log: EventLog, stream: str, sequence: int) -> int:
    """Find the records event that has record ``sequence``, or would have it, and return its revision."""
    low, high = 0, log.last_revision(stream)
    while low < high:
        middle = (low + high + 1) // 2
        event = next(iter(log.read(stream, middle, 1)), None)
        if event is None or _records_in(event)[0] > sequence:
            high = middle - 1
        else:
            low = middle
    return max(low, 0) if sequence else 0


def _records_in(event: Event) -> tuple[int, list[bytes]]:
    try:
        return decode_records(event.data)
    except MalformedError as error:
        raise DivergenceError(f"records event {event.revision}: {error}") from None
