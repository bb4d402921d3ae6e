"""Comparison of the two logs in the event log with a data directory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError
from kt_es.eventstore.streams import Event, StreamNames
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import MAP_HEAD
from kt_es.formats.records import RECORDS, Record, Verdict, decode_records
from kt_es.ledger.tables import MUTATIONS_LOG, StoredEntry
from kt_es.merkle.log import LogState
from projections.fsck.findings import Examined


class StreamReader(Protocol):
    """The part of ``eventstore.streams.EventLog`` that is needed here."""

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        """Yield the events from revision ``start`` on, at most ``limit``."""


def examine_head_stream(it: Examined, log: StreamReader, names: StreamNames) -> None:
    """Check that the stream has the stored heads, up to the committed one."""
    expected = 0
    for event in log.read(names.heads, 0, it.ledger.committed.epoch):
        it.findings.count("heads in the stream")
        if event.revision != expected or event.type != MAP_HEAD:
            it.findings.differs(f"{names.heads} has {event.type!r} at revision {event.revision}, not a head")
        expected = event.revision + 1
        stored = it.ledger.tables.heads.get(expected)
        if stored is not None and stored != event.data:
            it.findings.differs(
                f"{names.heads}: the head of epoch {expected} is another one than is stored here"
            )
    if expected != it.ledger.committed.epoch:
        it.findings.differs(
            f"{names.heads} ends with epoch {expected}, {it.ledger.committed.epoch} was committed here"
        )


def examine_record_stream(it: Examined, log: StreamReader, names: StreamNames) -> None:
    """Check that the stream has the records that were hashed here, and that what they accepted is stored."""
    committed, accepted, epoch = it.ledger.committed, 0, 1
    state, stream = LogState(), names.mutations
    revision = -1
    for event in log.read(stream, 0, committed.records_next):
        revision += 1
        where = f"{stream}, revision {revision}"
        try:
            first, records = decode_records(event.data)
        except MalformedError as error:
            raise DivergenceError(f"{where}: {error}") from None
        if event.revision != revision or event.type != RECORDS or first != state.size:
            raise DivergenceError(f"{where}: {event.type!r} begins at {first}, must be {state.size}")
        hashes = [log_leaf_hash(record) for record in records]
        stored = it.ledger.tables.nodes.leaves(MUTATIONS_LOG, first, len(hashes))
        for at, (here, there) in enumerate(zip(stored, hashes, strict=True)):
            it.findings.count("records in the stream")
            if here is not None and here != there:
                it.findings.differs(f"{where}: record {first + at} is another one than was hashed here")
        state, _ = state.append(hashes)
        for data in records:
            try:
                record = Record.decode(data)
            except MalformedError as error:
                raise DivergenceError(f"{where}: {error}") from None
            accepted += record.verdict is Verdict.ACCEPTED
            _entry_of(it, record, epoch)
            epoch += record.closes_epoch
    if revision + 1 != committed.records_next or state.size != committed.log.size:
        it.findings.differs(
            f"{stream}: {state.size} records in {revision + 1} events, must be {committed.log.size} "
            f"in {committed.records_next}"
        )
    elif state != committed.log:
        it.findings.differs(f"{stream}: root is {state.root().hex()}, must be {committed.log.root().hex()}")
    elif not it.begun.epoch and accepted != it.findings.report.counts["entries"]:
        it.findings.differs(
            f"{it.findings.report.counts['entries']} entries stand here, {accepted} were accepted"
        )


def _entry_of(it: Examined, record: Record, epoch: int) -> None:
    """Check that a mutation that a record accepted is stored as it was recorded, with its signatures."""
    content = record.item.content
    if record.verdict is not Verdict.ACCEPTED or not isinstance(content, bytes):
        return
    try:
        index = Mutation.decode(content).entry.index
    except MalformedError as error:
        it.findings.differs(f"record {record.sequence} was accepted: {error}")
        return
    (stored,) = it.ledger.tables.entries.get_many([(index, epoch)])
    if stored is None and record.sequence < it.begun.records:
        # A snapshot has current entries only.
        return
    if stored != StoredEntry(record.sequence, content):
        how = "is missing" if stored is None else "is another one"
        it.findings.differs(
            f"the entry at index {index.hex()} of epoch {epoch} {how}: see record {record.sequence}"
        )
