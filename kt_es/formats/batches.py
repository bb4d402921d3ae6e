"""The answer about many labels in one epoch. FORMATS, "Batch answer".

The answer contains one checkpoint, one head and one proof of the map (``merkle.multiproof``). Each label has
its own VRF proof, and its entry with the opening. Profiles are not part of the answer, as in a lookup answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.formats.codec import (
    Value,
    decode_array,
    encode,
    take_array,
    take_bytes,
    take_text,
    take_uint,
)
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import MAX_CHECKPOINT, MAX_SMH
from kt_es.formats.proofs import (
    MAX_SIBLINGS,
    VRF_PROOF_LENGTH,
    ErasureProof,
    LookupAnswer,
    held_fields,
    take_hashes,
    take_held,
    take_leaf,
    take_siblings,
)
from kt_es.merkle.multiproof import Claim, End, MultiProof
from kt_es.merkle.verify import MapProof

MAX_BATCH = 1000
"""The largest number of labels in one answer."""

MAX_BATCH_ANSWER = 2_883_584
"""The largest encoded answer in bytes, 2.75 MiB. A server answers fewer labels if it would be larger."""


@dataclass(frozen=True, slots=True)
class LabelAnswer:
    """One label of a batch: its VRF proof, and its entry as in a ``LookupAnswer``."""

    vrf_proof: bytes
    mutation: Mutation | None
    opening: bytes | None
    erasure: ErasureProof | None = None

    def claim(self, index: bytes) -> Claim:
        """Return what the answer says of the map at ``index``, the index of the label."""
        return index, None if self.mutation is None else self.mutation.entry_hash

    def fields(self) -> Value:
        mutation = None if self.mutation is None else self.mutation.encode()
        return [self.vrf_proof, *held_fields(mutation, self.opening, self.erasure)]


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """``[checkpoint, smh, heads inclusion, map proof, answers]``: the labels of a request, in their order.

    There are at most as many answers as the request has labels: the answer may be about the first labels
    only. ``map_proof`` proves all of them in the map of the head.
    """

    heads_checkpoint: str
    smh_bytes: bytes
    heads_inclusion: tuple[bytes, ...]
    map_proof: MultiProof
    answers: tuple[LabelAnswer, ...]

    def lookup(self, at: int, map_proof: MapProof) -> LookupAnswer:
        """Return the answer about the label number ``at`` alone. ``map_proof`` is its single proof."""
        own = self.answers[at]
        return LookupAnswer(
            self.heads_checkpoint,
            self.smh_bytes,
            self.heads_inclusion,
            own.vrf_proof,
            map_proof,
            own.mutation,
            own.opening,
            own.erasure,
        )

    def encode(self) -> bytes:
        head = self.heads_checkpoint, self.smh_bytes, self.heads_inclusion
        return encode_batch(*head, self.map_proof, [answer.fields() for answer in self.answers])

    @classmethod
    def decode(cls, data: bytes) -> BatchAnswer:
        what = "batch answer"
        fields = decode_array(data, what, 5, most=MAX_BATCH_ANSWER)
        checkpoint, smh, inclusion, proof, answers = fields
        return cls(
            take_text(checkpoint, f"{what} checkpoint", 1, MAX_CHECKPOINT),
            take_bytes(smh, f"{what} smh", 1, MAX_SMH),
            take_hashes(inclusion, f"{what} heads inclusion"),
            _take_multiproof(proof, f"{what} map proof"),
            tuple(map(_take_answer, take_array(answers, f"{what} answers", 1, MAX_BATCH))),
        )


def encode_batch(
    checkpoint: str, smh: bytes, inclusion: Sequence[bytes], proof: MultiProof, answers: Sequence[Value]
) -> bytes:
    """Encode a ``BatchAnswer`` whose answers are given as ``LabelAnswer.fields`` returns them."""
    return encode([checkpoint, smh, inclusion, [proof.siblings, proof.ends], answers])


def _take_multiproof(value: Value, what: str) -> MultiProof:
    siblings, ends = take_array(value, what, 2)
    return MultiProof(
        take_siblings(siblings, what, MAX_BATCH * MAX_SIBLINGS),
        tuple(_take_end(end, f"{what} end") for end in take_array(ends, f"{what} ends", 1, MAX_BATCH)),
    )


def _take_end(value: Value, what: str) -> End:
    depth, other = take_array(value, what, 2)
    return take_uint(depth, f"{what} depth", 0, MAX_SIBLINGS), (
        None if other is None else take_leaf(other, f"{what} leaf")
    )


def _take_answer(value: Value) -> LabelAnswer:
    what = "batch answer label"
    vrf, *held = take_array(value, what, 3, 4)
    return LabelAnswer(take_bytes(vrf, f"{what} vrf proof", VRF_PROOF_LENGTH), *take_held(held, what))
