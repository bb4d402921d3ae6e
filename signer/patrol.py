"""Comparison of the published logs with the committed state: of their end at each start, later of all events.

Without a replay, nobody would notice that a record or head was changed in its stream after it was published.
So a running signer reads both logs again and again: each step of ``Patrol`` reads a few events. The signer
stops at the first event that differs from what it has hashed.
"""

from __future__ import annotations

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError, RollbackError, UnverifiedRowError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.heads import MAP_HEAD, HeadEvent
from kt_es.formats.queue import RECORDS, decode_records
from kt_es.ledger.anchor import Anchor, another_head
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.proofs import committed_leaves, is_published
from kt_es.ledger.rows import Beginning
from kt_es.ledger.tables import MUTATIONS_LOG

# In a step; an event of records has up to 256 KiB, a head less than 2.
RECORD_EVENTS = 4
HEAD_EVENTS = 32


def check_published(log: EventLog, names: StreamNames, ledger: Ledger) -> None:
    """Compare the last head and the last records that were committed, before anything is published.

    Raises:
        RollbackError, EquivocationError: As ``Anchor`` finds them.
        DivergenceError: This data directory and this log do not belong together, or one of them was changed.
    """
    committed = ledger.committed
    if committed.epoch == 0:
        return
    Anchor(names, ledger).check(log)
    stream, revision = names.mutations, committed.records_next - 1
    event = next(iter(log.read(stream, revision, 1)), None)
    if event is None or event.revision != revision or event.type != RECORDS:
        raise DivergenceError(
            f"{stream} has no records event at revision {revision}, which was committed here"
        )
    end = _check_records(ledger, ledger.tables.states.beginning(), event)
    if end != committed.log.size:
        raise DivergenceError(
            f"{stream}, revision {revision}: ends with record {end - 1}, the last one committed here is "
            f"{committed.log.size - 1}: records_next was changed, or the stream was"
        )


def _check_records(ledger: Ledger, begun: Beginning, event: Event) -> int:
    """Compare the records of ``event`` with those that were hashed here, and return the next number."""
    where = f"{event.stream}, revision {event.revision}"
    try:
        first, records = decode_records(event.data)
    except MalformedError as error:
        raise DivergenceError(f"{where}: {error}") from None
    leaves = [log_leaf_hash(record) for record in records]
    stored = committed_leaves(ledger, MUTATIONS_LOG, first, leaves)
    for number, (node, leaf) in enumerate(zip(stored, leaves, strict=True), first):
        # A directory that began with a snapshot has nothing of what was before it.
        if node != leaf and not (node is None and number < begun.records):
            raise DivergenceError(f"{where}: record {number} is not the one committed here")
    return first + len(records)


class Patrol:
    """One signer's round, from the first event of both logs to the last one committed, again and again."""

    def __init__(self, log: EventLog, names: StreamNames, ledger: Ledger, start: int = 0) -> None:
        """Begin the round at ``start``, any number: restarts then do not repeat one part of the logs."""
        self._log = log
        self._names = names
        self._ledger = ledger
        self._start = start
        self._begun = ledger.tables.states.beginning()
        self._records_at: int | None = None
        self._heads_at: int | None = None

    def step(self) -> None:
        """Read the next events. Raise ``DivergenceError`` for the first that differs from the committed one.

        Raises ``UnverifiedRowError`` if rows of a shared store that are needed for this are missing or wrong.
        """
        committed = self._ledger.committed
        if committed.epoch:
            self._records_at = self._next(self._records_at, committed.records_next)
            self._heads_at = self._next(self._heads_at, committed.epoch)
            self._records_at = self._records(self._records_at, committed.records_next)
            self._heads_at = self._heads(self._heads_at, committed.epoch)

    def _next(self, at: int | None, end: int) -> int:
        """Return the next place: at first any place, and the beginning once the end is reached."""
        if at is None:
            return self._start % end
        return 0 if at >= end else at

    def _records(self, at: int, end: int) -> int:
        for event in self._read(self._names.mutations, at, min(RECORD_EVENTS, end - at), RECORDS):
            _check_records(self._ledger, self._begun, event)
        return min(at + RECORD_EVENTS, end)

    def _heads(self, at: int, end: int) -> int:
        for event in self._read(self._names.heads, at, min(HEAD_EVENTS, end - at), MAP_HEAD):
            epoch = event.revision + 1
            stored = self._ledger.tables.heads.get(epoch)
            if stored != event.data:
                stored = self._ledger.tables.heads.get(epoch, again=True)
            if stored != event.data and self._is_published(epoch, event.data):
                kind = "no head" if stored is None else "a wrong head"
                raise UnverifiedRowError(
                    f"the shared store has {kind} of epoch {epoch}: `kt store rebuild` fills it from the log"
                )
            if stored != event.data and not (stored is None and epoch < self._begun.epoch):
                problem = (
                    f"{event.stream} has another head of epoch {epoch} than was committed here, and the "
                    f"directory has not signed it"
                )
                raise another_head(self._ledger, epoch, stored or b"", event.data, problem)
        return min(at + HEAD_EVENTS, end)

    def _is_published(self, epoch: int, data: bytes) -> bool:
        """Return whether a shared store proves that the head in ``data`` was committed."""
        if not self._ledger.store.is_shared:
            return False
        try:
            event = HeadEvent.decode(data)
        except MalformedError:
            return False
        return is_published(self._ledger, epoch, event)

    def _read(self, stream: str, at: int, count: int, kind: str) -> list[Event]:
        events = list(self._log.read(stream, at, count))
        if len(events) < count and self._log.last_revision(stream) < at + count - 1:
            raise RollbackError(
                f"the log was rolled back: {stream} ends before revision {at + count - 1}, which was "
                f"committed here: restore the complete log"
            )
        found = [(event.revision, event.type) for event in events]
        if found != [(revision, kind) for revision in range(at, at + count)]:
            raise DivergenceError(
                f"{stream}, revisions {at} to {at + count - 1}: the log has {found}, but {count} events of "
                f"{kind} were committed here"
            )
        return events
