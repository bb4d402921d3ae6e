"""Proofs over the two logs, past states of the map, and proofs of erasures.

Every answer is about one ``Committed``: a reader takes ``ledger.committed`` once, and sees one epoch
entirely. The log of map heads has one leaf for each epoch: epoch ``e`` is leaf ``e - 1``.
"""

from __future__ import annotations

from collections.abc import Iterator

from kt_es.errors import DivergenceError, MalformedError
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.proofs import ErasureProof
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.rows import Committed
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG
from kt_es.merkle.log import ProofPlan, plan_consistency, plan_inclusion, plan_range
from kt_es.merkle.map import EMPTY_ROOT, Root


def head_at(ledger: Ledger, epoch: int) -> tuple[HeadEvent, MapHead]:
    """Return the published head of a committed ``epoch``; ``DivergenceError`` if it cannot be read back."""
    event = ledger.tables.heads.event(epoch)
    try:
        return event, SignedMapHead.decode(event.smh_bytes).head
    except MalformedError as error:
        raise DivergenceError(
            f"the head of epoch {epoch} in the data directory is damaged: {error}"
        ) from None


def prove_head(ledger: Ledger, epoch: int, size: int) -> tuple[bytes, ...]:
    """Prove that the head of ``epoch`` is in the log of map heads of ``size`` (RFC 6962, 2.1.1)."""
    return _proof(ledger, HEADS_LOG, plan_inclusion(epoch - 1, size))


def prove_consistency(ledger: Ledger, log: bytes, size1: int, size2: int) -> tuple[bytes, ...]:
    """Prove that a log of ``size2`` continues the log of ``size1`` (RFC 6962, 2.1.2); no hashes for size 0.

    ``log`` is ``HEADS_LOG`` or ``MUTATIONS_LOG``; ``0 <= size1 <= size2``, else ValueError.
    """
    return () if size1 == 0 else _proof(ledger, log, plan_consistency(size1, size2))


def prove_range(ledger: Ledger, start: int, end: int, size: int) -> tuple[bytes, ...]:
    """Prove that the leaves ``start`` up to ``end`` (excluded) stand in the log of map heads of ``size``."""
    return _proof(ledger, HEADS_LOG, plan_range(start, end, size))


def _proof(ledger: Ledger, log: bytes, plan: ProofPlan) -> tuple[bytes, ...]:
    return tuple(plan.proof(ledger.tables.nodes.get_many(log, plan.nodes)))


def roots_from(ledger: Ledger, root: Root, first: int, last: int) -> Iterator[tuple[HeadEvent, Root]]:
    """Yield the head and the map of each epoch from ``first``, whose map is ``root``, up to ``last``.

    A map whose root is another than that of the epoch before was written in its own epoch.
    """
    for epoch in range(first, last + 1):
        event, head = head_at(ledger, epoch)
        if head.map_root != root.hash:
            root = Root(epoch, head.map_root, head.map_size)
        yield event, root


def map_root_at(ledger: Ledger, committed: Committed, epoch: int) -> Root:
    """Return the map at the end of ``epoch``, from 1 up to the epoch of ``committed``.

    A head has the hash of the root, not the epoch that wrote it. That is the first epoch with this root: a
    map never returns to an earlier state, since versions only grow.
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


def prove_erasure(
    ledger: Ledger, committed: Committed, index: bytes, entry_hash: bytes, answered: int
) -> ErasureProof | None:
    """Prove that the opening of one entry was erased; None if it was not.

    ``answered`` is the epoch of the answer. The record is proven under the head of that epoch if the head
    covers the record, otherwise under the latest head.
    """
    if not ledger.has_erasures:
        return None
    erasure = next(ledger.tables.erasures.up_to(committed.epoch, index, entry_hash), None)
    if erasure is None:
        return None
    covering = answered if erasure.epoch <= answered else committed.epoch
    event, head = head_at(ledger, covering)
    inclusion = _proof(ledger, MUTATIONS_LOG, plan_inclusion(erasure.sequence, head.log_size))
    if covering == answered:
        return ErasureProof(erasure.record, inclusion, None, ())
    beside = prove_head(ledger, covering, committed.heads.size)
    return ErasureProof(erasure.record, inclusion, event.smh_bytes, beside)
