"""Heads of all epochs, and proofs about both logs, from the rows of a ledger.

Other processes may write rows of a shared store, so these rows are not trusted. Each proof from them is
verified against the committed state before it is returned. If the proof fails, all of its rows are read once
more. If it fails again, ``UnverifiedRowError`` is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError, UnverifiedRowError, VerificationError
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.proofs import ErasureProof
from kt_es.ledger.head_events import check_signatures, config_of
from kt_es.ledger.ledger import Ledger, config_chain, decoded_head
from kt_es.ledger.rows import Committed, StoredErasure
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG
from kt_es.merkle.log import LogState, ProofPlan, plan_consistency, plan_inclusion, plan_range, plan_state
from kt_es.merkle.map import EMPTY_ROOT, Root
from kt_es.merkle.verify import (
    log_root_from_consistency,
    log_root_from_inclusion,
    log_root_from_range,
    require_root,
)

Proof = tuple[bytes, ...]
_T = TypeVar("_T")


def prove_head(ledger: Ledger, committed: Committed, epoch: int) -> tuple[HeadEvent, Proof]:
    """Return the head event of ``epoch``, and prove its SMH as ``prove_smh`` does.

    The log of heads does not cover the two checkpoints in the event. Those of a shared store are compared
    with the logs, and the signatures are verified by the config that was in force.
    """

    def attempt(again: bool) -> tuple[HeadEvent, Proof]:
        event, proof = _included(ledger, committed, epoch, again=again)
        if ledger.store.is_shared:
            heads_root = _root_at(ledger, HEADS_LOG, epoch, committed.heads, again=again)
            _check_event(ledger, committed, event, decoded_head(epoch, event.smh_bytes), heads_root)
        return event.whole(), proof

    return twice(ledger, attempt)


def prove_smh(ledger: Ledger, committed: Committed, epoch: int) -> tuple[bytes, Proof]:
    """Return the SMH of ``epoch``, and prove it in the log of heads of ``committed`` (RFC 6962, 2.1.1)."""

    def attempt(again: bool) -> tuple[bytes, Proof]:
        event, proof = _included(ledger, committed, epoch, again=again)
        return event.smh_bytes, proof

    return twice(ledger, attempt)


def _included(ledger: Ledger, committed: Committed, epoch: int, *, again: bool) -> tuple[HeadEvent, Proof]:
    """Return a head event and the proof of its SMH. Other parts of the event are not verified."""
    size = committed.heads.size
    event = ledger.tables.heads.event(epoch, again=again)
    proof = log_proof(ledger, HEADS_LOG, plan_inclusion(epoch - 1, size), again=again)
    if ledger.store.is_shared:
        root = log_root_from_inclusion(epoch - 1, size, log_leaf_hash(event.smh_bytes), proof)
        require_root("head", root, committed.heads.root())
    return event, proof


def _check_event(
    ledger: Ledger, committed: Committed, event: HeadEvent, smh: SignedMapHead, heads_root: bytes
) -> None:
    """Verify a head event whose SMH is in the log of heads, with the root ``heads_root`` up to this head."""
    head, in_force, where = smh.head, committed.standing.config, f"head of epoch {smh.head.epoch}"
    try:
        if in_force is not None and in_force.config.hash == head.config_hash:
            config = in_force.config
        else:
            config = config_of(config_chain(ledger, committed), head.config_hash, where)
        sealed = (head.log_size, head.log_root), (head.epoch, heads_root)
        check_signatures(event, smh, *sealed, config, where=where)
    except DivergenceError as error:
        raise UnverifiedRowError(f"the shared store has a wrong head: {error}") from None


def is_published(ledger: Ledger, epoch: int, event: HeadEvent) -> bool:
    """Return whether ``event`` is the head of ``epoch`` that was committed here. Its row may be lost."""
    committed, leaf = ledger.committed, log_leaf_hash(event.smh_bytes)
    if committed_leaves(ledger, HEADS_LOG, epoch - 1, [leaf])[0] != leaf:
        return False
    root = twice(ledger, lambda again: _root_at(ledger, HEADS_LOG, epoch, committed.heads, again=again))
    config_chain(ledger, committed)  # raises if rows are lost, so a failure below means a wrong event
    try:
        _check_event(ledger, committed, event, decoded_head(epoch, event.smh_bytes), root)
        return True
    except UnverifiedRowError:
        return False


def head_at(ledger: Ledger, epoch: int) -> tuple[bytes, MapHead]:
    """Return the published SMH of an epoch up to the committed one, and the head in it.

    An SMH from a shared store is verified.
    """
    if ledger.store.is_shared:
        smh, _ = prove_smh(ledger, ledger.committed, epoch)
    else:
        smh = ledger.tables.heads.event(epoch).smh_bytes
    return smh, decoded_head(epoch, smh).head


def roots_from(ledger: Ledger, root: Root, first: int, last: int) -> Iterator[tuple[bytes, Root]]:
    """Yield the SMH and the map of each epoch from ``first``, whose map is ``root``, up to ``last``.

    If the root of a map differs from that of the previous epoch, its own epoch wrote the map.
    """
    for epoch in range(first, last + 1):
        smh, head = head_at(ledger, epoch)
        if head.map_root != root.hash:
            root = Root(epoch, head.map_root, head.map_size)
        yield smh, root


def map_root_at(ledger: Ledger, committed: Committed, epoch: int) -> Root:
    """Return the map at the end of ``epoch``, from 1 up to the epoch of ``committed``.

    A head has the hash of the root, but not the epoch that wrote the root. This is the first epoch with this
    root, because versions only grow and a map never returns to an earlier state.
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


def prove_consistency(ledger: Ledger, committed: Committed, log: bytes, size1: int, size2: int) -> Proof:
    """Prove that a log of ``size2`` continues the log of ``size1`` (RFC 6962, 2.1.2); no hashes for size 0.

    ``log`` is ``HEADS_LOG`` or ``MUTATIONS_LOG``, and ``size2`` at most its size in ``committed``. Raises
    ``ValueError`` unless ``0 <= size1 <= size2``.
    """
    if size1 == 0:
        return ()
    whole = committed.heads if log == HEADS_LOG else committed.log

    def attempt(again: bool) -> Proof:
        proof = log_proof(ledger, log, plan_consistency(size1, size2), again=again)
        if ledger.store.is_shared:
            root2 = _root_at(ledger, log, size2, whole, again=again)
            root1 = _computed(ledger, log, size1, again=again)
            require_root("consistency", log_root_from_consistency(size1, size2, root1, proof), root2)
        return proof

    return twice(ledger, attempt)


def prove_range(ledger: Ledger, committed: Committed, start: int, smhs: Sequence[bytes]) -> Proof:
    """Prove that the heads ``smhs`` are the leaves from ``start`` on of the log of heads of ``committed``."""
    size = committed.heads.size

    def attempt(again: bool) -> Proof:
        proof = log_proof(ledger, HEADS_LOG, plan_range(start, start + len(smhs), size), again=again)
        if ledger.store.is_shared:
            leaves = [log_leaf_hash(smh) for smh in smhs]
            require_root("range", log_root_from_range(start, size, leaves, proof), committed.heads.root())
        return proof

    return twice(ledger, attempt)


def committed_leaves(
    ledger: Ledger, log: bytes, start: int, expected: Sequence[bytes]
) -> Sequence[bytes | None]:
    """Return the leaves of a log from ``start`` on that were committed here, as many as are ``expected``.

    Leaves from a shared store are verified. If the expected leaves verify, no stored leaf is needed.
    """
    committed, nodes = ledger.committed, ledger.tables.nodes
    if not ledger.store.is_shared:
        return nodes.leaves(log, start, len(expected))
    whole = committed.heads if log == HEADS_LOG else committed.log
    inside = expected[: max(0, whole.size - start)]
    beyond = [None] * (len(expected) - len(inside))

    def attempt(again: bool) -> Sequence[bytes]:
        proof = log_proof(ledger, log, plan_range(start, start + len(inside), whole.size), again=again)
        if log_root_from_range(start, whole.size, inside, proof) == whole.root():
            return inside
        stored = [leaf or b"" for leaf in nodes.leaves(log, start, len(inside), again=again)]
        require_root("leaves", log_root_from_range(start, whole.size, stored, proof), whole.root())
        return stored

    return [*(twice(ledger, attempt) if inside else ()), *beyond]


def prove_erasure(
    ledger: Ledger, committed: Committed, index: bytes, entry_hash: bytes, answered: int
) -> ErasureProof | None:
    """Prove that the opening of one entry was erased; None if it was not.

    ``answered`` is the epoch of the answer. The record is proven under the head of that epoch if the head
    covers the record, otherwise under the latest head.
    """
    if not ledger.has_erasures:
        return None
    erasure = proven_erasure(ledger, committed, index, entry_hash)
    if erasure is None:
        return None
    covering = answered if erasure.epoch <= answered else committed.epoch
    _, head = head_at(ledger, covering)

    def attempt(again: bool) -> Proof:
        proof = log_proof(ledger, MUTATIONS_LOG, plan_inclusion(erasure.sequence, head.log_size), again=again)
        if ledger.store.is_shared:
            leaf = log_leaf_hash(erasure.record)
            root = log_root_from_inclusion(erasure.sequence, head.log_size, leaf, proof)
            require_root("erasure", root, head.log_root)
        return proof

    inclusion = twice(ledger, attempt)
    if covering == answered:
        return ErasureProof(erasure.record, inclusion, None, ())
    return ErasureProof(erasure.record, inclusion, *prove_smh(ledger, committed, covering))


def proven_erasure(
    ledger: Ledger, committed: Committed, index: bytes, entry_hash: bytes
) -> StoredErasure | None:
    """Return the erasure of one entry; None if it was not erased up to ``committed``.

    A shared store may have forged rows and rows of aborted epochs. A row counts if the log has its record.
    """
    for erasure in ledger.tables.erasures.up_to(committed.epoch, index, entry_hash):
        if not ledger.store.is_shared or _is_logged(ledger, committed, erasure):
            return erasure
    return None


def _is_logged(ledger: Ledger, committed: Committed, erasure: StoredErasure) -> bool:
    """Return whether the log of mutations has the record of ``erasure`` in the epoch that the row names."""
    sequence, epoch, size = erasure.sequence, erasure.epoch, committed.log.size
    first = head_at(ledger, epoch - 1)[1].log_size if epoch > 1 else 0
    if epoch < 1 or not first <= sequence < head_at(ledger, epoch)[1].log_size:
        return False
    record = log_leaf_hash(erasure.record)

    def attempt(again: bool) -> bool:
        proof = log_proof(ledger, MUTATIONS_LOG, plan_inclusion(sequence, size), again=again)
        # Try the record of the row and the stored leaf. If neither is in the log, the proof itself is wrong.
        for leaf in (record, ledger.tables.nodes.leaves(MUTATIONS_LOG, sequence, 1, again=again)[0]):
            if leaf and log_root_from_inclusion(sequence, size, leaf, proof) == committed.log.root():
                return leaf == record
        raise VerificationError("erasure", f"record {sequence} cannot be proven")

    return twice(ledger, attempt)


def twice(ledger: Ledger, attempt: Callable[[bool], _T]) -> _T:
    """Return what ``attempt`` returns. If the first attempt fails, the second one reads the rows again."""
    try:
        return attempt(False)
    except (UnverifiedRowError, MalformedError, VerificationError):
        if not ledger.store.is_shared:
            raise
    try:
        return attempt(True)
    except (MalformedError, VerificationError) as error:
        raise UnverifiedRowError(
            f"the shared store has wrong nodes of a log or a wrong head: {error}"
        ) from None


def log_proof(ledger: Ledger, log: bytes, plan: ProofPlan, *, again: bool) -> Proof:
    return tuple(plan.proof(ledger.tables.nodes.get_many(log, plan.nodes, again=again)))


def _computed(ledger: Ledger, log: bytes, size: int, *, again: bool) -> bytes:
    """Return the root of the log at ``size``, from nodes that are not verified."""
    return LogState(size, log_proof(ledger, log, plan_state(size), again=again)).root()


def _root_at(ledger: Ledger, log: bytes, size: int, whole: LogState, *, again: bool) -> bytes:
    """Return the root of the log at ``size``, verified against the state ``whole`` of the log."""
    if size == whole.size:
        return whole.root()
    root = _computed(ledger, log, size, again=again)
    proof = log_proof(ledger, log, plan_consistency(size, whole.size), again=again)
    require_root("consistency", log_root_from_consistency(size, whole.size, root, proof), whole.root())
    return root
