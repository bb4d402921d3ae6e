"""Examination of a whole data directory, offline: everything in it that its signed head covers.

Signer, front end and monitor have the same tables. Memory is bounded whatever the size: rows are read in the
order of their keys, and the two logs of nodes level by level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from kt_es.crypto.hashes import HASH_SIZE, log_leaf_hash, log_node_hash
from kt_es.errors import DivergenceError, MalformedError
from kt_es.eventstore.streams import Event, StreamNames
from kt_es.formats.entries import Mutation, PublicKey
from kt_es.formats.heads import MAP_HEAD
from kt_es.formats.queue import RECORDS, Record, Verdict, decode_records
from kt_es.ledger.anchor import check_commit
from kt_es.ledger.ledger import Ledger, check_pinned
from kt_es.ledger.store import Store
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG, StoredEntry, Tables
from kt_es.merkle.log import LogState, plan_state
from kt_es.merkle.map import LeafRef
from projections.fsck.directory import (
    EnoughError,
    Examined,
    FsckReport,
    examine_entries,
    examine_heads,
    examine_map,
    examine_openings,
    examine_replaced,
)


class StreamReader(Protocol):
    """The part of ``eventstore.streams.EventLog`` that is needed here."""

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        """Yield the events from revision ``start`` on, at most ``limit``."""


def fsck(
    store: Store,
    origin: str,
    pinned: PublicKey,
    *,
    log: tuple[StreamReader, StreamNames] | None = None,
    progress: Callable[[str, int], None] = lambda _w, _n: None,
) -> FsckReport:
    """Examine everything in a data directory that its signed head covers.

    Args:
        store: The open store of the data directory.
        origin: The name of the directory.
        pinned: Any signer key of the directory.
        log: The event log and the names of the streams, to compare both logs as well.
        progress: Called now and then with the kind of things that are examined, and their number.
    """
    report = FsckReport(progress)
    with suppress(EnoughError):
        it = _opened(store, origin, pinned, report)
        if it is None:
            return report
        steps: list[Callable[[], None]] = [
            lambda: check_commit(it.ledger),
            lambda: check_pinned(it.ledger),
            lambda: examine_map(it),
            lambda: examine_entries(it),
            lambda: examine_heads(it),
            lambda: examine_nodes(it),
            lambda: examine_replaced(it),
            lambda: examine_openings(it),
        ]
        if log is not None:
            steps += [lambda: examine_head_stream(it, *log), lambda: examine_record_stream(it, *log)]
        for step in steps:
            try:
                step()
            except DivergenceError as error:
                report.differs(str(error))
    return report


def _opened(store: Store, origin: str, pinned: PublicKey, report: FsckReport) -> Examined | None:
    try:
        if Tables(store).states.committed(origin, pinned) is not None:
            ledger = Ledger(store, origin, pinned)
            report.epoch = ledger.committed.epoch
            return Examined(origin, ledger, ledger.tables.states.beginning(), report)
        report.differs("the data directory has no committed epoch")
    except DivergenceError as error:
        report.differs(str(error))
    return None


@dataclass(frozen=True, slots=True)
class _Log:
    """A log under examination. Its first ``first`` leaves are not stored: a snapshot had them before it."""

    key: bytes
    name: str
    first: int
    state: LogState

    def where(self, level: int, offset: int) -> str:
        return f"{self.name}: node at level {level}, offset {offset}"


def examine_nodes(it: Examined) -> None:
    """Check that both logs are complete, each node hashes its children, and the edges are as committed."""
    committed = it.ledger.committed
    for log in (
        _Log(HEADS_LOG, "log of heads", it.begun.epoch, committed.heads),
        _Log(MUTATIONS_LOG, "log of mutations", it.begun.records, committed.log),
    ):
        for level in range(log.state.size.bit_length()):
            _level(it, log, level)
        edge = plan_state(log.state.size).nodes
        stored = it.ledger.tables.nodes.get_many(log.key, edge)
        for node, here, there in zip(edge, log.state.hashes, stored, strict=True):
            if here != there:
                it.report.differs(f"{log.where(node.level, node.offset)} is not the edge's")


def _level(it: Examined, log: _Log, level: int) -> None:
    """Check one level of nodes: no gap, and each node is the hash of its children."""
    # A snapshot of ``log.first`` leaves stores the last node of a level only if the level has an odd number.
    expected = (log.first >> level) - (log.first >> level & 1)
    end = log.state.size >> level
    nodes = it.ledger.tables.nodes
    children = nodes.scan(log.key, level - 1) if level else iter(())
    # A snapshot has complete subtrees without their children.
    childless = log.first >> level
    for offset, value in nodes.scan(log.key, level):
        if offset >= end:
            it.report.count("nodes of an unfinished epoch")
            continue
        it.report.count("nodes of the logs")
        where = log.where(level, offset)
        if offset != expected:
            it.report.differs(f"{log.where(level, expected)} is missing")
        expected = offset + 1
        if len(value) != HASH_SIZE:
            it.report.differs(f"{where} has {len(value)} bytes")
        elif level and offset >= childless:
            pair = list(_at(children, 2 * offset))
            if len(pair) == 2 and log_node_hash(*pair) != value:
                it.report.differs(f"{where} is {value.hex()}, must be {log_node_hash(*pair).hex()}")
    if expected < end:
        it.report.differs(f"{log.where(level, expected)} is missing")


def _at(run: Iterator[tuple[int, bytes]], offset: int) -> Iterator[bytes]:
    """Yield the values at ``offset`` and the next one. A gap ends it."""
    for found, value in run:
        if found >= offset:
            yield value
        if found > offset:
            return


def examine_head_stream(it: Examined, log: StreamReader, names: StreamNames) -> None:
    """Check that the stream has the stored heads, up to the committed one."""
    expected = 0
    for event in log.read(names.heads, 0, it.ledger.committed.epoch):
        it.report.count("heads in the stream")
        if event.revision != expected or event.type != MAP_HEAD:
            it.report.differs(f"{names.heads} has {event.type!r} at revision {event.revision}, not a head")
        expected = event.revision + 1
        stored = it.ledger.tables.heads.get(expected)
        if stored is not None and stored != event.data:
            it.report.differs(
                f"{names.heads}: the head of epoch {expected} is another one than is stored here"
            )
    if expected != it.ledger.committed.epoch:
        it.report.differs(
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
            it.report.count("records in the stream")
            if here is not None and here != there:
                it.report.differs(f"{where}: record {first + at} is another one than was hashed here")
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
        it.report.differs(
            f"{stream}: {state.size} records in {revision + 1} events, must be {committed.log.size} "
            f"in {committed.records_next}"
        )
    elif state != committed.log:
        it.report.differs(f"{stream}: root is {state.root().hex()}, must be {committed.log.root().hex()}")
    elif not it.begun.epoch and accepted != it.report.counts["entries"]:
        it.report.differs(f"{it.report.counts['entries']} entries are stored here, {accepted} were accepted")


def _entry_of(it: Examined, record: Record, epoch: int) -> None:
    """Check that a mutation that a record accepted is stored as it was recorded, with its signatures."""
    content = record.item.content
    if record.verdict is not Verdict.ACCEPTED or not isinstance(content, bytes):
        return
    try:
        index = Mutation.decode(content).entry.index
    except MalformedError as error:
        it.report.differs(f"record {record.sequence} was accepted: {error}")
        return
    (stored,) = it.ledger.tables.entries.get_many([LeafRef(index, b"", epoch)])
    if stored is None and record.sequence < it.begun.records:
        # A snapshot has current entries only.
        return
    if stored != StoredEntry(record.sequence, content):
        how = "is missing" if stored is None else "is another one"
        it.report.differs(
            f"the entry at index {index.hex()} of epoch {epoch} {how}: see record {record.sequence}"
        )
