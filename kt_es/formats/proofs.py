"""The answer to a lookup, and the proof file, which can be verified without a network.

FORMATS, "Lookup answer" and "Proof file". The profile is not part of the answer: it is large, and a client
that needs only the proof does not fetch it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.errors import MalformedError
from kt_es.formats.codec import (
    MAX_TIME,
    Value,
    decode,
    decode_array,
    encode,
    take_array,
    take_bytes,
    take_text,
    take_uint,
)
from kt_es.formats.configs import MAX_CONFIG, SignedConfig, check_origin
from kt_es.formats.entries import (
    HASH_LENGTH,
    INDEX_LENGTH,
    MAX_MUTATION,
    MAX_PROFILE,
    OPENING_LENGTH,
    Mutation,
)
from kt_es.formats.heads import MAX_CHECKPOINT, MAX_SMH
from kt_es.formats.labels import MAX_LABEL, normalize_label
from kt_es.formats.queue import MAX_RECORD
from kt_es.merkle.verify import Leaf, MapProof

VRF_PROOF_LENGTH = 80
MAX_LOG_PROOF = 64
MAX_SIBLINGS = 256
MAX_CONFIGS = 1024
MAX_PROOF_FILE = 16 * 1024 * 1024
PROOF_FILE = "kt-es proof v1"


@dataclass(frozen=True, slots=True)
class ErasureProof:
    """``[record, inclusion, smh / null, heads inclusion]``: proves that an erasure was recorded.

    ``record_bytes`` is a leaf of the log of mutations. ``inclusion`` leads from the record to the
    ``log_root`` of the head ``smh_bytes``. ``heads_inclusion`` leads from this head to the checkpoint of the
    answer. If the head of the answer is used, ``smh_bytes`` is None and ``heads_inclusion`` is empty.
    """

    record_bytes: bytes
    inclusion: tuple[bytes, ...]
    smh_bytes: bytes | None
    heads_inclusion: tuple[bytes, ...]

    def fields(self) -> Value:
        return [self.record_bytes, self.inclusion, self.smh_bytes, self.heads_inclusion]

    @classmethod
    def take(cls, value: Value, what: str) -> ErasureProof:
        record, inclusion, smh, heads = take_array(value, what, 4)
        proof = cls(
            take_bytes(record, f"{what} record", 1, MAX_RECORD),
            take_hashes(inclusion, f"{what} inclusion"),
            None if smh is None else take_bytes(smh, f"{what} smh", 1, MAX_SMH),
            take_hashes(heads, f"{what} heads inclusion"),
        )
        if smh is None and proof.heads_inclusion:
            raise MalformedError(what, "proves the inclusion of no head")
        return proof


@dataclass(frozen=True, slots=True)
class LookupAnswer:
    """The proof of the entry of a label in one epoch, or of its absence. The profile is not included.

    ``mutation`` contains the entry; it is None if the answer proves absence. ``opening`` is None for an
    absent entry and for an erased profile; ``erasure`` proves that the profile was erased. An answer with an
    entry, but with neither ``opening`` nor ``erasure``, withholds the profile. ``map_proof.leaf`` is the leaf
    at the end of the path of the index.
    """

    heads_checkpoint: str
    smh_bytes: bytes
    heads_inclusion: tuple[bytes, ...]
    vrf_proof: bytes
    map_proof: MapProof
    mutation: Mutation | None
    opening: bytes | None
    erasure: ErasureProof | None = None

    def encode(self) -> bytes:
        map_proof = map_proof_fields(self.map_proof, self.mutation is not None)
        fields: list[Value] = [self.heads_checkpoint, self.smh_bytes, self.heads_inclusion, self.vrf_proof]
        mutation = None if self.mutation is None else self.mutation.encode()
        return encode([*fields, map_proof, *held_fields(mutation, self.opening, self.erasure)])

    @classmethod
    def decode(cls, data: bytes) -> LookupAnswer:
        fields = take_array(decode(data, "lookup answer"), "lookup answer", 7, 8)
        checkpoint, smh, inclusion, vrf, proof = fields[:5]
        mutation, opening, erasure = take_held(fields[5:], "lookup answer")
        own = None if mutation is None else (mutation.entry.index, mutation.entry_hash)
        return cls(
            take_text(checkpoint, "lookup answer checkpoint", 1, MAX_CHECKPOINT),
            take_bytes(smh, "lookup answer smh", 1, MAX_SMH),
            take_hashes(inclusion, "lookup answer heads inclusion"),
            take_bytes(vrf, "lookup answer vrf proof", VRF_PROOF_LENGTH),
            take_map_proof(proof, own, "lookup answer map proof"),
            mutation,
            opening,
            erasure,
        )


def held_fields(mutation: bytes | None, opening: bytes | None, erasure: ErasureProof | None) -> list[Value]:
    """Return the fields of an answer that ``take_held`` reads."""
    fields: list[Value] = [mutation, opening]
    # The third field is omitted if it would be None, so most answers have two.
    return fields if erasure is None else [*fields, erasure.fields()]


def take_held(
    values: Sequence[Value], what: str
) -> tuple[Mutation | None, bytes | None, ErasureProof | None]:
    """Return the mutation, the opening and the erasure in ``values``, two or three fields of an answer."""
    mutation, opening = values[:2]
    erasure = ErasureProof.take(values[2], f"{what} erasure") if len(values) == 3 else None
    taken = None
    if mutation is not None:
        taken = Mutation.decode(take_bytes(mutation, f"{what} mutation", 1, MAX_MUTATION))
    if opening is not None and taken is None:
        raise MalformedError(f"{what} opening", "opens an absent entry")
    if erasure is not None and (taken is None or opening is not None):
        raise MalformedError(f"{what} erasure", "stands beside no entry or beside an opening")
    opened = None if opening is None else take_bytes(opening, f"{what} opening", OPENING_LENGTH)
    return taken, opened, erasure


def take_hashes(value: Value, what: str) -> tuple[bytes, ...]:
    """Return ``value`` as a log proof of up to 64 hashes."""
    hashes = take_array(value, what, 0, MAX_LOG_PROOF)
    return tuple(take_bytes(item, what, HASH_LENGTH) for item in hashes)


def take_map_proof(value: Value, own: Leaf | None, what: str) -> MapProof:
    """Return ``value``, which is ``[siblings, other leaf / null]``, as a map proof.

    ``own`` is the leaf of the index for a proof of inclusion, and None for a proof of absence. The encoding
    omits ``own``, because it follows from the entry in the answer.
    """
    siblings, other = take_array(value, what, 2)
    taken = take_siblings(siblings, what, MAX_SIBLINGS)
    if own is not None:
        if other is not None:
            raise MalformedError(what, "names another leaf beside the entry's own")
        return MapProof(taken, own)
    if other is None:
        return MapProof(taken, None)
    return MapProof(taken, take_leaf(other, f"{what} leaf"))


def take_siblings(value: Value, what: str, most: int) -> tuple[bytes | None, ...]:
    """Return ``value`` as the siblings of a map proof, at most ``most``."""
    return tuple(
        None if item is None else take_bytes(item, f"{what} sibling", HASH_LENGTH)
        for item in take_array(value, f"{what} siblings", 0, most)
    )


def take_leaf(value: Value, what: str) -> Leaf:
    """Return ``value``, which is ``[index, entry hash]``, as a leaf of the map."""
    index, entry_hash = take_array(value, what, 2)
    return take_bytes(index, f"{what} index", INDEX_LENGTH), take_bytes(
        entry_hash, f"{what} entry hash", HASH_LENGTH
    )


def map_proof_fields(proof: MapProof, own: bool) -> Value:
    """Return the fields that ``take_map_proof`` reads. ``own`` is true for a proof of inclusion."""
    return [proof.siblings, None if own else proof.leaf]


@dataclass(frozen=True, slots=True)
class ProofFile:
    """A saved lookup, which can be verified again later and by others.

    ``label`` is normalized. ``configs`` is the chain from the first config of the directory to the config in
    force. ``profile`` is None if the label is absent, the profile was erased, or the file was saved without
    the profile. ``at`` is the time in ms at which the answer was fresh; this time is not signed.
    """

    origin: str
    label: str
    configs: tuple[SignedConfig, ...]
    answer: LookupAnswer
    profile: bytes | None
    at: int

    def encode(self) -> bytes:
        configs, answer = encode_configs(self.configs), self.answer.encode()
        return encode([PROOF_FILE, self.origin, self.label, configs, answer, self.profile, self.at])

    @classmethod
    def decode(cls, data: bytes) -> ProofFile:
        fields = decode_array(data, "proof file", 7, most=MAX_PROOF_FILE)
        kind, origin, label, configs, answer, profile, at = fields
        if kind != PROOF_FILE:
            raise MalformedError("proof file", f"must begin with {PROOF_FILE!r}")
        chain = decode_configs(take_bytes(configs, "proof file configs", 1, MAX_PROOF_FILE))
        label = take_text(label, "proof file label", 1, MAX_LABEL)
        if normalize_label(label, chain[0].config.label_policy) != label:
            raise MalformedError("proof file label", "is not normalized")
        return cls(
            check_origin(take_text(origin, "proof file origin", 1, 255)),
            label,
            chain,
            LookupAnswer.decode(take_bytes(answer, "proof file answer", 1, MAX_PROOF_FILE)),
            None if profile is None else take_bytes(profile, "proof file profile", 0, MAX_PROFILE),
            take_uint(at, "proof file time", 0, MAX_TIME),
        )


def encode_configs(configs: Sequence[SignedConfig]) -> bytes:
    """Encode a chain of signed configs, the oldest first."""
    return encode([signed.encode() for signed in configs])


def decode_configs(data: bytes) -> tuple[SignedConfig, ...]:
    values = take_array(decode(data, "configs"), "configs", 1, MAX_CONFIGS)
    return tuple(SignedConfig.decode(take_bytes(value, "signed config", 1, MAX_CONFIG)) for value in values)
