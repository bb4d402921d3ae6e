"""Comparison of a store with the streams of the event log: the heads, the records, and what they accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError
from kt_es.eventstore.streams import Event, StreamNames
from kt_es.formats.entries import Mutation
from kt_es.formats.erasures import Erasure
from kt_es.formats.heads import MAP_HEAD, HeadEvent
from kt_es.formats.queue import RECORDS, Record, Verdict, decode_records
from kt_es.ledger.tables import MUTATIONS_LOG, StoredEntry
from kt_es.merkle.log import LogState
from kt_es.merkle.map import LeafRef
from projections.fsck.directory import Examined


class StreamReader(Protocol):
    """The part of ``eventstore.streams.EventLog`` that is needed here."""

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        """Yield the events from revision ``start`` on, at most ``limit``."""


def examine_head_stream(it: Examined, log: StreamReader, names: StreamNames) -> None:
    """Check that the stream has the stored heads, up to the committed one."""
    expected = 0
    for event in log.read(names.heads, 0, it.ledger.committed.epoch):
        it.report.count("heads in the stream")
        if event.revision != expected or event.type != MAP_HEAD:
            it.report.differs(f"{names.heads} has {event.type!r} at revision {event.revision}, not a head")
        expected = event.revision + 1
        stored = it.ledger.tables.heads.get(expected)
        if stored is not None and not _is_same(it, stored, event.data):
            it.report.differs(
                f"{names.heads}: the head of epoch {expected} is another one than is stored here"
            )
    if expected != it.ledger.committed.epoch:
        it.report.differs(
            f"{names.heads} ends with epoch {expected}, {it.ledger.committed.epoch} was committed here"
        )


def _is_same(it: Examined, stored: bytes, published: bytes) -> bool:
    """Return whether ``stored`` is the event, or that of a replay from tiles, which may lack checkpoints."""
    if stored == published or it.ledger.store.is_shared:
        return stored == published
    try:
        return HeadEvent.decode(stored, stored=True).is_part_of(HeadEvent.decode(published))
    except MalformedError:
        return False


def examine_record_stream(
    it: Examined,
    log: StreamReader,
    names: StreamNames,
    ended: Callable[[int, int], None] = lambda _epoch, _next: None,
) -> None:
    """Check that the stream has the records that were hashed here, and that what they accepted is stored.

    ``ended`` is called with each epoch and the revision after its last event.
    """
    committed, accepted, epoch = it.ledger.committed, 0, 1
    state, stream = LogState(), names.mutations
    revision = -1
    for event in log.read(stream, 0, committed.records_next):
        revision += 1
        where = f"{stream}, revision {revision}"
        try:
            first, encoded = decode_records(event.data)
            records = [Record.decode(data) for data in encoded]
        except MalformedError as error:
            raise DivergenceError(f"{where}: {error}") from None
        if event.revision != revision or event.type != RECORDS or first != state.size:
            raise DivergenceError(f"{where}: {event.type!r} begins at {first}, must be {state.size}")
        hashes = [log_leaf_hash(data) for data in encoded]
        stored = it.ledger.tables.nodes.leaves(MUTATIONS_LOG, first, len(hashes), again=True)
        it.report.count("records in the stream", len(hashes))
        for at, (here, there) in enumerate(zip(stored, hashes, strict=True)):
            if here is not None and here != there:
                it.report.differs(f"{where}: record {first + at} is another one than was hashed here")
        state, _ = state.append(hashes)
        mutations: list[tuple[int, Record, bytes]] = []
        for record, data in zip(records, encoded, strict=True):
            content = record.item.content
            if record.verdict is Verdict.ACCEPTED and isinstance(content, bytes):
                mutations.append((epoch, record, content))
            elif isinstance(content, bytes):
                _other_of(it, epoch, record, content, data)
            if record.closes_epoch:
                ended(epoch, revision + 1)
                epoch += 1
        accepted += len(mutations)
        _entries_of(it, mutations)
    if revision + 1 != committed.records_next or state.size != committed.log.size:
        it.report.differs(
            f"{stream}: {state.size} records in {revision + 1} events, must be {committed.log.size} "
            f"in {committed.records_next}"
        )
    elif state != committed.log:
        it.report.differs(f"{stream}: root is {state.root().hex()}, must be {committed.log.root().hex()}")
    elif not it.begun.epoch and not it.ledger.store.is_shared and accepted != it.report.counts["entries"]:
        # A shared store may have entries of epochs that were given up.
        it.report.differs(f"{it.report.counts['entries']} entries are stored here, {accepted} were accepted")


def _entries_of(it: Examined, accepted: list[tuple[int, Record, bytes]]) -> None:
    """Check that mutations are stored as they were recorded, with their signatures.

    Args:
        accepted: Epoch, record and content of each mutation.
    """
    leaves, expected = list[LeafRef](), list[StoredEntry]()
    for epoch, record, content in accepted:
        try:
            mutation = Mutation.decode(content)
        except MalformedError as error:
            it.report.differs(f"record {record.sequence} was accepted: {error}")
            continue
        leaves.append(LeafRef(mutation.entry.index, mutation.entry_hash, epoch))
        expected.append(StoredEntry(record.sequence, content))
    rows = it.ledger.tables.entries.get_many(leaves, again=True) if leaves else []
    for leaf, row, must in zip(leaves, rows, expected, strict=True):
        # A snapshot has current entries only.
        if row != must and not (row is None and must.sequence < it.begun.records):
            # The map may have named a missing one with the same sentence.
            how = "is missing" if row is None else f"is another one: see record {must.sequence}"
            it.report.differs(f"the entry at index {leaf.index.hex()} of epoch {leaf.version} {how}")


def _other_of(it: Examined, epoch: int, record: Record, content: bytes, data: bytes) -> None:
    """Check that a config or an erasure is stored as it was recorded."""
    tables, sequence = it.ledger.tables, record.sequence
    if sequence < it.begun.records:
        # A snapshot keeps configs under other keys, and no erasures.
        return
    try:
        if record.verdict is Verdict.CONFIG:
            what, row, must = "config", tables.configs.get(epoch, sequence), content
        elif record.verdict is Verdict.ERASED:
            what, must = "erasure", data
            row = tables.erasures.get(Erasure.decode(content), epoch, sequence)
        else:
            return
    except MalformedError as error:
        it.report.differs(f"record {sequence} was accepted: {error}")
        return
    if row != must:
        how = "is missing" if row is None else "is another one"
        it.report.differs(f"the {what} of epoch {epoch} {how}: see record {sequence}")
