"""Examination of a whole data directory or of a shared store: everything in it that its signed head covers.

Signer, front end and monitor have the same tables. Memory is bounded whatever the size: rows are read in the
order of their keys, and the two logs of nodes level by level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from kt_es.crypto.hashes import HASH_SIZE, log_node_hash
from kt_es.errors import DivergenceError
from kt_es.eventstore.streams import StreamNames
from kt_es.formats.entries import PublicKey
from kt_es.ledger.anchor import check_commit
from kt_es.ledger.ledger import Ledger, check_pinned
from kt_es.ledger.retention import check_kept
from kt_es.ledger.shared_store import SharedStore
from kt_es.ledger.store import Store
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG, Tables
from kt_es.merkle.log import LogState, plan_state
from projections.fsck.decisions import examine_decisions
from projections.fsck.directory import (
    EnoughError,
    Examined,
    FsckReport,
    examine_entries,
    examine_map,
    examine_openings,
    examine_replaced,
)
from projections.fsck.heads import examine_heads
from projections.fsck.shared import StoredStates, examine_pinned
from projections.fsck.streams import StreamReader, examine_head_stream, examine_record_stream


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
        steps = [
            lambda: check_commit(it.ledger),
            lambda: check_pinned(it.ledger),
            *_steps(it, it.ledger.committed.epoch),
        ]
        if log is not None:
            steps += [lambda: examine_head_stream(it, *log), lambda: examine_record_stream(it, *log)]
        _take(steps, report)
    return report


def check_directory(ledger: Ledger, epoch: int, report: FsckReport) -> None:
    """Examine the pages of ``epoch`` in a data directory, and everything else that ``fsck`` examines.

    The committed state of ``ledger`` was compared with its head before. Raises what ``check_kept`` raises.
    """
    check_kept(ledger, epoch)
    _take(_steps(Examined(ledger, ledger.tables.states.beginning(), report), epoch), report)


def check_shared(
    ledger: Ledger, epoch: int, log: StreamReader, names: StreamNames, report: FsckReport
) -> None:
    """Examine the pages of ``epoch`` in a shared store, and all other rows that signers and front ends use.

    The newest epoch of ``log`` was adopted before, so its state was compared with its head. Entries, configs
    and erasures are compared with the records in ``log``. The records have the same signatures.

    Raises what ``check_kept`` raises, and ``TypeError`` if the store of ``ledger`` is not shared.
    """
    store = ledger.store
    if not isinstance(store, SharedStore):
        raise TypeError("the store of one process is not shared")
    check_kept(ledger, epoch)
    it = Examined(ledger, ledger.tables.states.beginning(), report)
    states = StoredStates(it)
    steps = [
        lambda: examine_pinned(it, store),
        lambda: examine_map(it, epoch),
        lambda: examine_heads(it, states.add),
        states.finish,
        lambda: examine_nodes(it),
        lambda: examine_record_stream(it, log, names, states.check_end),
    ]
    _take(steps, report)


def _steps(it: Examined, epoch: int) -> list[Callable[[], None]]:
    return [
        lambda: examine_map(it, epoch),
        lambda: examine_entries(it),
        lambda: examine_heads(it),
        lambda: examine_nodes(it),
        lambda: examine_replaced(it),
        lambda: examine_decisions(it),
        lambda: examine_openings(it),
    ]


def _take(steps: Iterable[Callable[[], None]], report: FsckReport) -> None:
    for step in steps:
        try:
            step()
        except DivergenceError as error:
            report.differs(str(error))


def _opened(store: Store, origin: str, pinned: PublicKey, report: FsckReport) -> Examined | None:
    try:
        if Tables(store).states.committed(origin, pinned) is not None:
            ledger = Ledger(store, origin, pinned)
            report.epoch = ledger.committed.epoch
            return Examined(ledger, ledger.tables.states.beginning(), report)
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
        stored = it.ledger.tables.nodes.get_many(log.key, edge, again=True)
        for node, here, there in zip(edge, log.state.hashes, stored, strict=True):
            if here != there:
                it.report.differs(f"{log.where(node.level, node.offset)} is not the edge's")


def _level(it: Examined, log: _Log, level: int) -> None:
    """Check one level of nodes: no gap, and each node is the hash of its children."""
    # A snapshot of ``log.first`` leaves stores the last node of a level only if the level has an odd number.
    expected = (log.first >> level) - (log.first >> level & 1)
    end = log.state.size >> level
    nodes = it.ledger.tables.nodes
    children = nodes.scan(log.key, level - 1, log.state.size >> level - 1) if level else iter(())
    # A snapshot has complete subtrees without their children.
    childless = log.first >> level
    for offset, value in nodes.scan(log.key, level, end):
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
