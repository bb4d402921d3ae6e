"""The answer about one label in a range of epochs. FORMATS, "Range answer".

The answer contains one VRF proof, one checkpoint and one proof that the heads of the range are consecutive
leaves of the log of map heads. Each epoch has its own map proof. An owner who reads ranges without a gap
verifies every epoch, so even an entry that existed for a single epoch is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.errors import MalformedError
from kt_es.formats.codec import Value, decode_array, encode, take_array, take_bytes, take_text, take_uint
from kt_es.formats.entries import HASH_LENGTH, MAX_MUTATION, Mutation
from kt_es.formats.heads import MAX_CHECKPOINT, MAX_SMH
from kt_es.formats.proofs import VRF_PROOF_LENGTH, map_proof_fields, take_map_proof
from kt_es.merkle.verify import MapProof

MAX_RANGE = 256
"""The largest number of epochs in one answer."""

MAX_RANGE_ANSWER = 3 * 1024 * 1024
"""The largest encoded answer in bytes. A server returns fewer epochs if the answer would be larger."""

# At each level of the tree, both ends of a range may need the root of one subtree.
_MAX_RANGE_PROOF = 128


@dataclass(frozen=True, slots=True)
class RangeEpoch:
    """One epoch of a range: its signed head and its map proof.

    ``mutation`` is the position in ``RangeAnswer.mutations`` of the mutation that contains the entry. It is
    None if the map proof shows absence.
    """

    smh_bytes: bytes
    map_proof: MapProof
    mutation: int | None

    def fields(self) -> Value:
        own = self.mutation is not None
        return [self.smh_bytes, map_proof_fields(self.map_proof, own), self.mutation]


@dataclass(frozen=True, slots=True)
class RangeAnswer:
    """``[checkpoint, vrf proof, mutations, first epoch, heads proof, epochs]``.

    ``epochs`` are consecutive. ``heads_proof`` is the proof of ``merkle.log.plan_range`` for the leaves from
    ``first - 1`` up to ``first - 1 + len(epochs)`` (excluded). ``mutations`` are distinct and in the order in
    which the epochs first name them.
    """

    heads_checkpoint: str
    vrf_proof: bytes
    mutations: tuple[Mutation, ...]
    first: int
    heads_proof: tuple[bytes, ...]
    epochs: tuple[RangeEpoch, ...]

    def encode(self) -> bytes:
        mutations = [mutation.encode() for mutation in self.mutations]
        epochs = [epoch.fields() for epoch in self.epochs]
        return encode(
            [self.heads_checkpoint, self.vrf_proof, mutations, self.first, self.heads_proof, epochs]
        )

    @classmethod
    def decode(cls, data: bytes) -> RangeAnswer:
        what = "range answer"
        fields = decode_array(data, what, 6, most=MAX_RANGE_ANSWER)
        checkpoint, vrf, mutations, first, proof, epochs = fields
        taken = tuple(
            Mutation.decode(take_bytes(value, f"{what} mutation", 1, MAX_MUTATION))
            for value in take_array(mutations, f"{what} mutations", 0, MAX_RANGE)
        )
        answer = cls(
            take_text(checkpoint, f"{what} checkpoint", 1, MAX_CHECKPOINT),
            take_bytes(vrf, f"{what} vrf proof", VRF_PROOF_LENGTH),
            taken,
            take_uint(first, f"{what} first epoch", 1),
            tuple(
                take_bytes(value, f"{what} heads proof", HASH_LENGTH)
                for value in take_array(proof, f"{what} heads proof", 0, _MAX_RANGE_PROOF)
            ),
            tuple(_take_epoch(value, taken) for value in take_array(epochs, f"{what} epochs", 1, MAX_RANGE)),
        )
        _check_order(answer)
        return answer


def _take_epoch(value: Value, mutations: Sequence[Mutation]) -> RangeEpoch:
    what = "range answer epoch"
    smh, proof, number = take_array(value, what, 3)
    at = None if number is None else take_uint(number, f"{what} mutation", 0, max(len(mutations) - 1, 0))
    if at is not None and not mutations:
        raise MalformedError(what, "names a mutation, though the answer has none")
    own = None if at is None else (mutations[at].entry.index, mutations[at].entry_hash)
    return RangeEpoch(
        take_bytes(smh, f"{what} smh", 1, MAX_SMH), take_map_proof(proof, own, f"{what} map proof"), at
    )


def _check_order(answer: RangeAnswer) -> None:
    """Check the order of the mutations, so that an answer has only one encoding."""
    named = list(dict.fromkeys(epoch.mutation for epoch in answer.epochs if epoch.mutation is not None))
    if named != list(range(len(answer.mutations))) or len(set(answer.mutations)) != len(answer.mutations):
        raise MalformedError("range answer mutations", "are not distinct and in the order of their epochs")
