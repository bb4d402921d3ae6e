"""Proofs over the two logs, and past states of the map, out of a ledger.

Everything is asked of one ``Committed``: a reader takes ``ledger.committed`` once and so sees one epoch
entirely. The log of map heads has one leaf per epoch: epoch ``e`` is leaf ``e - 1``.
"""

from __future__ import annotations

from collections.abc import Iterator

from kt_es.errors import DivergenceError, MalformedError
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.ledger.ledger import HEADS_LOG, Committed, Ledger
from kt_es.merkle.log import ProofPlan, plan_consistency, plan_inclusion, plan_range
from kt_es.merkle.map import EMPTY_ROOT, Root


def head_at(ledger: Ledger, epoch: int) -> tuple[HeadEvent, MapHead]:
    """The published head of a committed ``epoch``, 1 up to the latest.

    Raises ``DivergenceError`` if it cannot be read back.
    """
    try:
        event = ledger.head_event(epoch)
        if event is None:
            raise DivergenceError(f"the head of epoch {epoch} is missing in the data directory")
        return event, SignedMapHead.decode(event.smh_bytes).head
    except MalformedError as error:
        raise DivergenceError(f"the head of epoch {epoch} is damaged: {error}") from None


def prove_head(ledger: Ledger, epoch: int, size: int) -> tuple[bytes, ...]:
    """The inclusion of the head of ``epoch`` in the log of map heads of ``size`` (RFC 6962, 2.1.1)."""
    return _proof(ledger, HEADS_LOG, plan_inclusion(epoch - 1, size))


def prove_consistency(ledger: Ledger, log: bytes, size1: int, size2: int) -> tuple[bytes, ...]:
    """That a log of ``size2`` goes on from that of ``size1`` (RFC 6962, 2.1.2); nothing from size 0.

    ``log`` is ``HEADS_LOG`` or ``MUTATIONS_LOG``; ``0 <= size1 <= size2``, else ValueError.
    """
    if size1 == 0:
        return ()
    return _proof(ledger, log, plan_consistency(size1, size2))


def _proof(ledger: Ledger, log: bytes, plan: ProofPlan) -> tuple[bytes, ...]:
    return tuple(plan.proof(ledger.nodes(log, plan.keys)))


def prove_range(ledger: Ledger, start: int, end: int, size: int) -> tuple[bytes, ...]:
    """That the leaves ``start`` up to ``end`` (excluded) stand in the log of map heads of ``size``."""
    return _proof(ledger, HEADS_LOG, plan_range(start, end, size))


def roots_from(ledger: Ledger, root: Root, first: int, last: int) -> Iterator[tuple[HeadEvent, Root]]:
    """The head and the map of each epoch from ``first``, whose map is ``root``, up to ``last``.

    A map whose root is another than that of the epoch before was written in its own epoch.
    """
    for epoch in range(first, last + 1):
        event, head = head_at(ledger, epoch)
        if head.map_root != root.hash:
            root = Root(epoch, head.map_root, head.map_size)
        yield event, root


def map_root_at(ledger: Ledger, committed: Committed, epoch: int) -> Root:
    """The map at the end of ``epoch``, 1 up to that of ``committed``.

    A head says what the root is, not which epoch wrote it: that is the first one with this root, for
    a map never returns to an earlier state (versions only grow).
    """
    if epoch == committed.epoch:
        return committed.root
    _, head = head_at(ledger, epoch)
    if head.map_size == 0:
        return EMPTY_ROOT
    low, high = 1, epoch
    while low < high:
        middle = (low + high) // 2
        if head_at(ledger, middle)[1].map_root == head.map_root:
            high = middle
        else:
            low = middle + 1
    return Root(low, head.map_root, head.map_size)
