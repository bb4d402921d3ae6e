"""Checks of the stored heads: their signatures, their checkpoints, and their place in the log of heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.ledger.anchor import compare
from kt_es.ledger.head_events import check_checkpoints, config_of, sealed
from kt_es.ledger.ledger import config_chain
from kt_es.ledger.tables import HEADS_LOG
from kt_es.merkle.log import LogState, NodeId, plan_state
from projections.fsck.directory import BATCH, Examined


@dataclass(frozen=True, slots=True)
class GoodHead:
    """A stored head with its signatures verified, and the log of heads up to it."""

    event: HeadEvent
    head: MapHead
    heads: LogState


def examine_heads(it: Examined, good: Callable[[GoodHead], None] = lambda _head: None) -> None:
    """Check that heads have no gap, are signed, grow, and are leaves of the log of heads.

    Both checkpoints of a head are compared with the logs. The log of heads is computed from the heads, and
    after a gap from its nodes.

    Args:
        good: Called with each head in which nothing differs.
    """
    chain = config_chain(it.ledger, it.ledger.committed)
    expected, begun = max(1, it.begun.epoch), it.begun.epoch
    before: MapHead | None = None
    log: LogState | None = LogState()
    for epoch, data, leaf in _with_leaves(it):
        where = f"the head of epoch {epoch}"
        if epoch != expected:
            it.report.differs(f"the head of epoch {expected} is missing")
            before, log = None, _log_at(it, epoch - 1)
        expected = epoch + 1
        it.report.count("heads")
        try:
            event = HeadEvent.decode(data, stored=not it.ledger.store.is_shared)
            smh = SignedMapHead.decode(event.smh_bytes)
            config = config_of(chain, smh.head.config_hash, where)
            smh.verify(it.origin, config.signer_key)
            compare(where, [("epoch", smh.head.epoch, epoch)])
        except (DivergenceError, MalformedError, VerificationError) as error:
            it.report.fails(where, error)
            log = None if log is None or leaf is None else log.append([leaf])[0]
            before = None
            continue
        if before is not None and not _grows(before, smh.head):
            it.report.differs(f"{where} goes back behind the one before it")
        before, own = smh.head, log_leaf_hash(event.smh_bytes)
        # The head that a snapshot began with may be inside a larger node.
        if leaf != own and not (leaf is None and epoch == begun):
            it.report.differs(f"{where} is another one than the log of heads has")
        if epoch == begun:
            log = _log_at(it, begun)
        elif log is not None:
            log, _ = log.append([own])
        if log is not None:
            try:
                log_seal = smh.head.log_size, smh.head.log_root
                check_checkpoints(event, log_seal, sealed(log), config, where=where)
                good(GoodHead(event, smh.head, log))
            except DivergenceError as error:
                it.report.differs(str(error))
    if expected != it.ledger.committed.epoch + 1:
        it.report.differs(f"the last head is of epoch {expected - 1}, must be {it.ledger.committed.epoch}")


def _with_leaves(it: Examined) -> Iterator[tuple[int, bytes, bytes | None]]:
    """Yield ``(epoch, event, leaf)`` of each stored head, with its leaf in the log of heads."""
    heads = it.ledger.tables.heads.scan(it.ledger.committed.epoch)
    while batch := list(islice(heads, BATCH)):
        nodes = [NodeId(0, epoch - 1) for epoch, _ in batch]
        leaves = it.ledger.tables.nodes.get_many(HEADS_LOG, nodes, again=True)
        for (epoch, data), leaf in zip(batch, leaves, strict=True):
            yield epoch, data, leaf


def _log_at(it: Examined, size: int) -> LogState | None:
    """Return the log of heads at ``size``, None if nodes of it are missing or damaged."""
    hashes = it.ledger.tables.nodes.get_many(HEADS_LOG, plan_state(size).nodes, again=True)
    try:
        return LogState(size, tuple(value or b"" for value in hashes))
    except MalformedError:
        return None


def _grows(before: MapHead, head: MapHead) -> bool:
    return (
        head.timestamp > before.timestamp
        and head.log_size > before.log_size
        and head.queue_next > before.queue_next
        and head.map_size >= before.map_size
    )
