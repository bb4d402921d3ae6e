"""The nodes of the two logs, level by level, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kt_es.crypto.hashes import HASH_SIZE, log_node_hash
from kt_es.ledger.ledger import HEADS_LOG, MUTATIONS_LOG, NODES
from kt_es.merkle.log import LogState, node_key, plan_state
from projections.fsck.findings import Examined


@dataclass(frozen=True, slots=True)
class _Log:
    """A log under examination; ``first`` leaves came before what is stored."""

    key: bytes
    name: str
    first: int
    state: LogState

    def where(self, level: int, offset: int) -> str:
        return f"{self.name}: node at level {level}, offset {offset}"


def examine_nodes(it: Examined) -> None:
    """Both logs of nodes: complete, each the hash of its children, and the edges those committed."""
    committed = it.ledger.committed
    for log in (
        _Log(HEADS_LOG, "log of heads", it.begun.epoch, committed.heads),
        _Log(MUTATIONS_LOG, "log of mutations", it.begun.records, committed.log),
    ):
        for level in range(log.state.size.bit_length()):
            _level(it, log, level)
        for node, here in zip(plan_state(log.state.size).nodes, log.state.hashes, strict=True):
            (stored,) = it.ledger.nodes(log.key, [node_key(node)])
            if stored != here:
                it.findings.differs(f"{log.where(node.level, node.offset)} is not the edge's")


def _level(it: Examined, log: _Log, level: int) -> None:
    """One level of nodes, without a gap, each the hash of its children."""
    expected, end = _first_node(level, log.first), log.state.size >> level
    children = _run(it, log, level - 1) if level else iter(())
    # The complete subtrees that a snapshot began with came without their children.
    childless = log.first >> level
    for offset, value in _run(it, log, level):
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


def _run(it: Examined, log: _Log, level: int) -> Iterator[tuple[int, bytes]]:
    prefix = log.key + level.to_bytes(1)
    for key, value in it.store.scan(NODES, prefix):
        yield int.from_bytes(key[len(prefix) :]), value


def _first_node(level: int, leaves: int) -> int:
    """The first offset stored at ``level`` where ``leaves`` came before: the edge's, else the next."""
    return (leaves >> level) - (leaves >> level & 1)


def _at(run: Iterator[tuple[int, bytes]], offset: int) -> Iterator[bytes]:
    """The values at ``offset`` and the next one; those before are passed over, a gap ends it."""
    for found, value in run:
        if found >= offset:
            yield value
        if found > offset:
            return
