"""The patrol: what is published long ago is read again, a little at a time, and held against the ledger.

At its start a signer compares only the end of both logs; a record or head before it, changed in the
streams later, would stand there under one head after the other until somebody replays. So a running
signer goes round: each ``step`` reads a few events of each log, and stops it at the first that is
another one than it has hashed.
"""

from __future__ import annotations

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, EquivocationError, MalformedError, RollbackError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.heads import MAP_HEAD
from kt_es.formats.queue import RECORDS, decode_records
from kt_es.ledger.anchor import another_head
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.tables import MUTATIONS_LOG

# In a step; an event of records has up to 256 KiB, a head less than 2.
RECORD_EVENTS = 4
HEAD_EVENTS = 32


class Patrol:
    """One signer's round, from the first event of both logs to the last one committed, again and again."""

    def __init__(self, log: EventLog, names: StreamNames, ledger: Ledger, start: int = 0) -> None:
        """``start`` is any number: where in its round it begins, so that restarts do not repeat one part."""
        self._log = log
        self._names = names
        self._ledger = ledger
        self._start = start
        # A directory that began with a snapshot has nothing of what was before it.
        self._begun = ledger.tables.states.beginning()
        self._records_at: int | None = None
        self._heads_at: int | None = None

    def step(self) -> None:
        """Read the next events; ``DivergenceError`` names the first that is not as it was committed here."""
        committed = self._ledger.committed
        if committed.epoch:
            self._records_at = self._next(self._records_at, committed.records_next)
            self._heads_at = self._next(self._heads_at, committed.epoch)
            self._records_at = self._records(self._records_at, committed.records_next)
            self._heads_at = self._heads(self._heads_at, committed.epoch)

    def _next(self, at: int | None, end: int) -> int:
        """Where to go on: somewhere at first, and from the beginning once the end is reached."""
        if at is None:
            return self._start % end
        return 0 if at >= end else at

    def _records(self, at: int, end: int) -> int:
        stream = self._names.mutations
        for event in self._read(stream, at, min(RECORD_EVENTS, end - at), RECORDS):
            where = f"{stream}, revision {event.revision}"
            try:
                first, records = decode_records(event.data)
            except MalformedError as error:
                raise DivergenceError(f"{where}: {error}") from None
            leaves = self._ledger.tables.nodes.leaves(MUTATIONS_LOG, first, len(records))
            for offset, node in enumerate(leaves):
                if node is None and first + offset < self._begun.records:
                    continue
                if node != log_leaf_hash(records[offset]):
                    raise DivergenceError(f"{where}: record {first + offset} is not the one committed here")
        return min(at + RECORD_EVENTS, end)

    def _heads(self, at: int, end: int) -> int:
        stream = self._names.heads
        for event in self._read(stream, at, min(HEAD_EVENTS, end - at), MAP_HEAD):
            stored = self._ledger.tables.heads.get(event.revision + 1)
            if stored is None and event.revision + 1 < self._begun.epoch:
                continue
            if stored != event.data:
                raise self._other_head(event, stored)
        return min(at + HEAD_EVENTS, end)

    def _other_head(self, event: Event, stored: bytes | None) -> DivergenceError | EquivocationError:
        epoch = event.revision + 1
        return another_head(
            self._ledger,
            epoch,
            stored or b"",
            event.data,
            f"{event.stream} has another head of epoch {epoch} than was committed here, and the directory "
            f"has not signed it",
        )

    def _read(self, stream: str, at: int, count: int, kind: str) -> list[Event]:
        events = list(self._log.read(stream, at, count))
        if len(events) < count and self._log.last_revision(stream) < at + count - 1:
            raise RollbackError(
                f"the log was rolled back: {stream} ends before revision {at + count - 1}, which was "
                f"committed here"
            )
        found = [(event.revision, event.type) for event in events]
        if found != [(revision, kind) for revision in range(at, at + count)]:
            raise DivergenceError(
                f"{stream}, revisions {at} to {at + count - 1}: {found} stands there, {count} events of "
                f"{kind} were committed here"
            )
        return events
