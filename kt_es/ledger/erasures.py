"""Accepted erasures as a ledger keeps them, and the proof that a client asks for.

An erasure stands under ``erasure index entry_hash u64 epoch u64 sequence`` with the bytes of its record, in
the family of the commit. Like configs it is written ahead of its epoch, and counts once that is committed.
"""

from __future__ import annotations

from kt_es.formats.entries import HASH_LENGTH, INDEX_LENGTH
from kt_es.formats.erasures import Erasure
from kt_es.formats.proofs import ErasureProof
from kt_es.ledger.heads import head_at, prove_head
from kt_es.ledger.ledger import ERASURE, META, MUTATIONS_LOG, Committed, Ledger
from kt_es.ledger.store import Change
from kt_es.merkle.log import plan_inclusion

_EPOCH = len(ERASURE) + INDEX_LENGTH + HASH_LENGTH


def erasure_change(erasure: Erasure, epoch: int, sequence: int, record: bytes) -> Change:
    """What keeps the erasure that the record ``sequence`` of ``epoch`` accepted."""
    key = ERASURE + erasure.index + erasure.entry_hash + epoch.to_bytes(8) + sequence.to_bytes(8)
    return (META, key, record)


def erasure_epoch(key: bytes) -> int:
    """The epoch in the key of an erasure."""
    return int.from_bytes(key[_EPOCH : _EPOCH + 8])


def erased_in(ledger: Ledger, committed: Committed, index: bytes, entry_hash: bytes) -> int | None:
    """The epoch that erased the opening of one entry; None if none did."""
    for key, _ in ledger.store.scan(META, ERASURE + index + entry_hash):
        if erasure_epoch(key) <= committed.epoch:
            return erasure_epoch(key)
    return None


def erased_entries(
    ledger: Ledger, committed: Committed, *, after: int = 0, index: bytes = b""
) -> dict[bytes, set[bytes]]:
    """The hashes of entries whose openings were erased above epoch ``after``, by their index.

    With ``index`` those of this one alone. The hash of a set may be one that no entry has.
    """
    found: dict[bytes, set[bytes]] = {}
    at = len(ERASURE)
    for key, _ in ledger.store.scan(META, ERASURE + index):
        if after < erasure_epoch(key) <= committed.epoch:
            entry_hash = key[at + INDEX_LENGTH : at + INDEX_LENGTH + HASH_LENGTH]
            found.setdefault(key[at : at + INDEX_LENGTH], set()).add(entry_hash)
    return found


def prove_erasure(
    ledger: Ledger, committed: Committed, index: bytes, entry_hash: bytes, answered: int
) -> ErasureProof | None:
    """The proof that the opening of one entry was erased; None if it was not.

    ``answered`` is the epoch that the answer is about. The record is proven under its head where that head
    covers the record, otherwise under the latest one.
    """
    if not ledger.has_erasures:
        return None
    for key, record in ledger.store.scan(META, ERASURE + index + entry_hash):
        epoch, sequence = erasure_epoch(key), int.from_bytes(key[_EPOCH + 8 :])
        if epoch > committed.epoch:
            continue
        covering = answered if epoch <= answered else committed.epoch
        event, head = head_at(ledger, covering)
        plan = plan_inclusion(sequence, head.log_size)
        inclusion = tuple(plan.proof(ledger.nodes(MUTATIONS_LOG, plan.keys)))
        if covering == answered:
            return ErasureProof(record, inclusion, None, ())
        beside = prove_head(ledger, covering, committed.heads.size)
        return ErasureProof(record, inclusion, event.smh_bytes, beside)
    return None
