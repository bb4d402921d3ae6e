"""The nodes of the two logs, examined level by level, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kt_es.crypto.hashes import HASH_SIZE, log_node_hash
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG
from kt_es.merkle.log import LogState, plan_state
from projections.fsck.findings import Examined


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
                it.findings.differs(f"{log.where(node.level, node.offset)} is not the edge's")


def _level(it: Examined, log: _Log, level: int) -> None:
    """Check one level of nodes: no gap, and each node is the hash of its children."""
    expected, end = _first_node(level, log.first), log.state.size >> level
    nodes = it.ledger.tables.nodes
    children = nodes.scan(log.key, level - 1) if level else iter(())
    # A snapshot has complete subtrees without their children.
    childless = log.first >> level
    for offset, value in nodes.scan(log.key, level):
        if offset >= end:
            it.findings.count("nodes of an unfinished epoch")
            continue
        it.findings.count("nodes of the logs")
        where = log.where(level, offset)
        if offset != expected:
            it.findings.differs(f"{log.where(level, expected)} is missing")
        expected = offset + 1
        if len(value) != HASH_SIZE:
            it.findings.differs(f"{where} has {len(value)} bytes")
        elif level and offset >= childless:
            pair = list(_at(children, 2 * offset))
            if len(pair) == 2 and log_node_hash(*pair) != value:
                it.findings.differs(f"{where} is {value.hex()}, must be {log_node_hash(*pair).hex()}")
    if expected < end:
        it.findings.differs(f"{log.where(level, expected)} is missing")


def _first_node(level: int, leaves: int) -> int:
    """Return the first offset that is stored at ``level`` after a snapshot of a log of ``leaves``."""
    return (leaves >> level) - (leaves >> level & 1)


def _at(run: Iterator[tuple[int, bytes]], offset: int) -> Iterator[bytes]:
    """Yield the values at ``offset`` and the next one. A gap ends it."""
    for found, value in run:
        if found >= offset:
            yield value
        if found > offset:
            return
