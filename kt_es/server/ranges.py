"""The entry of one label in a range of epochs, with all proofs. The watch of an owner asks for it."""

from __future__ import annotations

from kt_es.errors import MalformedError
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import MAX_CHECKPOINT
from kt_es.formats.ranges import MAX_RANGE, MAX_RANGE_ANSWER, RangeAnswer, RangeEpoch
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.proofs import map_root_at, prove_range, roots_from
from kt_es.ledger.state import Committed
from kt_es.merkle.proofs import MapProof

# Bytes for the epochs and mutations of an answer: the rest is for checkpoint, VRF proof and heads proof.
_ROOM = MAX_RANGE_ANSWER - MAX_CHECKPOINT - 8 * 1024


def answer_range(
    ledger: Ledger,
    committed: Committed,
    checkpoint: str,
    index: bytes,
    vrf_proof: bytes,
    *,
    first: int,
    last: int,
) -> RangeAnswer:
    """The entry at ``index`` in each of the epochs ``first`` to ``last``, or in as many as fit.

    Both epochs are in ``committed``, whose heads checkpoint is ``checkpoint``. An epoch with the same map as
    the epoch before it costs one read, of its head.
    """
    epochs: list[RangeEpoch] = []
    mutations: dict[bytes, tuple[int, Mutation]] = {}
    size = 0
    shown: tuple[bytes, MapProof, int | None] | None = None
    for event, root in roots_from(ledger, map_root_at(ledger, committed, first), first, last):
        if shown is None or shown[0] != root.hash:
            proof, leaf = ledger.map.find(root, index)
            (mutation,) = ledger.mutations_at([leaf])
            at = None
            if mutation is not None:
                if mutation.entry_hash not in mutations:
                    mutations[mutation.entry_hash] = (len(mutations), mutation)
                    size += len(mutation.encode()) + 8
                at = mutations[mutation.entry_hash][0]
            shown = (root.hash, proof, at)
        size += len(event.smh_bytes) + 34 * (len(shown[1].siblings) + 2) + 32
        if epochs and size > _ROOM:
            break
        epochs.append(RangeEpoch(event.smh_bytes, shown[1], shown[2]))
    named = max((epoch.mutation for epoch in epochs if epoch.mutation is not None), default=-1) + 1
    kept = tuple(mutation for _, mutation in mutations.values())[:named]
    heads_proof = prove_range(ledger, first - 1, first - 1 + len(epochs), committed.heads.size)
    return RangeAnswer(checkpoint, vrf_proof, kept, first, heads_proof, tuple(epochs))


def check_range(first: int, last: int) -> None:
    """Raise ``MalformedError`` unless the range has 1 to 256 epochs."""
    if last < first:
        raise MalformedError("last", f"is {last}, below first, which is {first}")
    if last - first >= MAX_RANGE:
        raise MalformedError(
            "last", f"names {last - first + 1} epochs; ask for at most {MAX_RANGE} at a time"
        )
