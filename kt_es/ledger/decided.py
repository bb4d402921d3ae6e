"""Proofs of decisions: the record of a submitted mutation in the log of mutations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.formats.heads import MapHead
from kt_es.formats.statuses import StatusAnswer
from kt_es.ledger.decisions import StoredDecision
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.proofs import Proof, head_at, log_proof, prove_range, twice
from kt_es.ledger.rows import Committed
from kt_es.ledger.tables import MUTATIONS_LOG
from kt_es.merkle.log import plan_inclusion
from kt_es.merkle.verify import log_root_from_inclusion, require_root


@dataclass(frozen=True, slots=True)
class ProvenDecision:
    """The decision on a mutation, and the proof of its record."""

    decision: StoredDecision
    answer: StatusAnswer


@dataclass(frozen=True, slots=True)
class _Found:
    """A row whose record is in the log of mutations, with the heads and the proof that say so.

    ``heads`` is the head of the epoch that decided it, after the one before it if there is one.
    """

    row: StoredDecision
    heads: Sequence[tuple[bytes, MapHead]]
    inclusion: Proof


def find_decision(
    ledger: Ledger, committed: Committed, entry_hash: bytes, item_hash: bytes | None = None
) -> StoredDecision | None:
    """Return the decision on a mutation that counts (FORMATS, "Status answer"); None if there is none.

    Args:
        item_hash: The hash of the mutation with its signatures; None for any signatures.

    Raises:
        UnverifiedRowError: A head or a node of a log is missing or wrong.
    """
    found = _find(ledger, committed, entry_hash, item_hash)
    return None if found is None else found.row


def prove_decision(
    ledger: Ledger,
    committed: Committed,
    heads_checkpoint: str,
    entry_hash: bytes,
    item_hash: bytes | None = None,
) -> ProvenDecision | None:
    """Return what ``find_decision`` returns, and the proof of its record.

    The record is proven under the head of the epoch that decided it. ``heads_checkpoint`` is that of the log
    of heads of ``committed``.
    """
    found = _find(ledger, committed, entry_hash, item_hash)
    if found is None:
        return None
    row, smhs = found.row, tuple(smh for smh, _ in found.heads)
    answer = StatusAnswer(
        heads_checkpoint,
        smhs,
        prove_range(ledger, committed, row.epoch - len(smhs), smhs),
        row.sequence,
        row.revision,
        row.position,
        row.verdict,
        found.inclusion,
    )
    return ProvenDecision(row, answer)


def _find(ledger: Ledger, committed: Committed, entry_hash: bytes, item_hash: bytes | None) -> _Found | None:
    rows = ledger.tables.decisions.find(entry_hash, item_hash)
    return next(filter(None, (_logged(ledger, committed, row) for row in rows)), None)


def _logged(ledger: Ledger, committed: Committed, row: StoredDecision) -> _Found | None:
    """Return the proof that the epoch of ``row`` has its record; None if the record is of no such epoch."""
    if not 1 <= row.epoch <= committed.epoch or row.sequence >= committed.log.size:
        return None
    heads = [head_at(ledger, epoch) for epoch in range(max(1, row.epoch - 1), row.epoch + 1)]
    head, begun = heads[-1][1], heads[0][1].log_size if row.epoch > 1 else 0
    if not begun <= row.sequence < head.log_size:
        return None

    def attempt(again: bool) -> tuple[bytes | None, Proof]:
        leaf = ledger.tables.nodes.leaves(MUTATIONS_LOG, row.sequence, 1, again=again)[0]
        proof = log_proof(ledger, MUTATIONS_LOG, plan_inclusion(row.sequence, head.log_size), again=again)
        if ledger.store.is_shared:
            root = log_root_from_inclusion(row.sequence, head.log_size, leaf or b"", proof)
            require_root("decision", root, head.log_root)
        return leaf, proof

    leaf, inclusion = twice(ledger, attempt)
    return _Found(row, heads, inclusion) if row.is_leaf(leaf) else None
