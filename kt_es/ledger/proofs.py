"""Proofs about both logs, from the nodes of a ledger.

Nodes that other processes may write, those of a shared store, are not trusted: each proof from them is
verified against the committed state before it is returned. If it does not verify, all of its nodes are asked
for once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.formats.heads import HeadEvent
from kt_es.formats.proofs import ErasureProof
from kt_es.ledger.ledger import Ledger, head_at
from kt_es.ledger.rows import Committed
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG
from kt_es.merkle.log import LogState, ProofPlan, plan_consistency, plan_inclusion, plan_range, plan_state
from kt_es.merkle.verify import (
    log_root_from_consistency,
    log_root_from_inclusion,
    log_root_from_range,
    require_root,
)

Proof = tuple[bytes, ...]
_T = TypeVar("_T")


def prove_head(ledger: Ledger, committed: Committed, epoch: int) -> tuple[HeadEvent, Proof]:
    """Return the head of ``epoch``, and prove it in the log of heads of ``committed`` (RFC 6962, 2.1.1)."""
    size = committed.heads.size

    def attempt(again: bool) -> tuple[HeadEvent, Proof]:
        event = ledger.tables.heads.event(epoch, again=again)
        proof = _proof(ledger, HEADS_LOG, plan_inclusion(epoch - 1, size), again=again)
        if ledger.store.is_shared:
            root = log_root_from_inclusion(epoch - 1, size, log_leaf_hash(event.smh_bytes), proof)
            require_root("head", root, committed.heads.root())
        return event, proof

    return _twice(ledger, attempt)


def prove_consistency(ledger: Ledger, committed: Committed, log: bytes, size1: int, size2: int) -> Proof:
    """Prove that a log of ``size2`` continues the log of ``size1`` (RFC 6962, 2.1.2); no hashes for size 0.

    ``log`` is ``HEADS_LOG`` or ``MUTATIONS_LOG``, and ``size2`` at most its size in ``committed``. Raises
    ``ValueError`` unless ``0 <= size1 <= size2``.
    """
    if size1 == 0:
        return ()
    whole = committed.heads if log == HEADS_LOG else committed.log

    def attempt(again: bool) -> Proof:
        proof = _proof(ledger, log, plan_consistency(size1, size2), again=again)
        if ledger.store.is_shared:
            root2 = _root_at(ledger, log, size2, whole, again=again)
            root1 = _computed(ledger, log, size1, again=again)
            require_root("consistency", log_root_from_consistency(size1, size2, root1, proof), root2)
        return proof

    return _twice(ledger, attempt)


def prove_range(ledger: Ledger, committed: Committed, start: int, smhs: Sequence[bytes]) -> Proof:
    """Prove that the heads ``smhs`` are the leaves from ``start`` on of the log of heads of ``committed``."""
    size = committed.heads.size

    def attempt(again: bool) -> Proof:
        proof = _proof(ledger, HEADS_LOG, plan_range(start, start + len(smhs), size), again=again)
        if ledger.store.is_shared:
            leaves = [log_leaf_hash(smh) for smh in smhs]
            require_root("range", log_root_from_range(start, size, leaves, proof), committed.heads.root())
        return proof

    return _twice(ledger, attempt)


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
    _, head = head_at(ledger, covering)

    def attempt(again: bool) -> Proof:
        proof = _proof(ledger, MUTATIONS_LOG, plan_inclusion(erasure.sequence, head.log_size), again=again)
        if ledger.store.is_shared:
            leaf = log_leaf_hash(erasure.record)
            root = log_root_from_inclusion(erasure.sequence, head.log_size, leaf, proof)
            require_root("erasure", root, head.log_root)
        return proof

    inclusion = _twice(ledger, attempt)
    if covering == answered:
        return ErasureProof(erasure.record, inclusion, None, ())
    event, beside = prove_head(ledger, committed, covering)
    return ErasureProof(erasure.record, inclusion, event.smh_bytes, beside)


def _twice(ledger: Ledger, attempt: Callable[[bool], _T]) -> _T:
    """Return what ``attempt`` returns, at the second time with rows that are read again."""
    try:
        return attempt(False)
    except (DivergenceError, MalformedError, VerificationError):
        if not ledger.store.is_shared:
            raise
    try:
        return attempt(True)
    except (MalformedError, VerificationError) as error:
        raise DivergenceError(f"the shared store has wrong nodes of a log or a wrong head: {error}") from None


def _proof(ledger: Ledger, log: bytes, plan: ProofPlan, *, again: bool) -> Proof:
    return tuple(plan.proof(ledger.tables.nodes.get_many(log, plan.nodes, again=again)))


def _computed(ledger: Ledger, log: bytes, size: int, *, again: bool) -> bytes:
    """Return the root of the log at ``size``, from nodes that are not verified."""
    return LogState(size, _proof(ledger, log, plan_state(size), again=again)).root()


def _root_at(ledger: Ledger, log: bytes, size: int, whole: LogState, *, again: bool) -> bytes:
    """Return the root of the log at ``size``, verified against the state ``whole`` of the log."""
    if size == whole.size:
        return whole.root()
    root = _computed(ledger, log, size, again=again)
    proof = _proof(ledger, log, plan_consistency(size, whole.size), again=again)
    require_root("consistency", log_root_from_consistency(size, whole.size, root, proof), whole.root())
    return root
