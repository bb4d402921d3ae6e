"""Verification of an entry: steps "map", "entry", "opening", "commitment" and "signatures". Pure.

Lookups and ranges share the first part. An entry comes with its opening, or with the proof that its profile
was erased: the record of an erasure in the log of mutations. An answer with neither withholds the profile and
is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.client.heads import ProvenHead, verify_inclusion
from kt_es.crypto import commitments
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.crypto.signatures import signed_message
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.entries import Entry, Mutation
from kt_es.formats.erasures import Erasure
from kt_es.formats.heads import MapHead, SignedMapHead
from kt_es.formats.keys import PublicKey
from kt_es.formats.profiles import ProfileKey, decode_profile
from kt_es.formats.proofs import ErasureProof, LookupAnswer
from kt_es.formats.queue import ItemKind
from kt_es.formats.records import Record, Verdict
from kt_es.merkle.proofs import MapProof
from kt_es.merkle.verify import log_root_from_inclusion, map_root


@dataclass(frozen=True, slots=True)
class ErasedProfile:
    """A proven erasure. ``by`` tells people who signed it; the head of ``epoch`` proves it."""

    by: str
    epoch: int


def verify_map(head: MapHead, index: bytes, proof: MapProof, *, absent: bool) -> None:
    """Step "map": ``proof`` leads from ``index`` to the root of ``head``.

    Args:
        absent: the answer has no entry, so the proof must not have one either.
    """
    if absent and proof.entry_hash(index) is not None:
        raise VerificationError("map", "the map holds an entry here, but the answer has none")
    try:
        root = map_root(index, proof)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("map", error.problem) from None
    if root != head.map_root:
        raise VerificationError("map", f"the proof does not lead to the map root of epoch {head.epoch}")


def verify_entry(entry: Entry, index: bytes) -> None:
    """Step "entry": the entry belongs to ``index``, and exactly the first version has no previous one."""
    if entry.index != index:
        raise VerificationError("entry", "is of another index than the label's")
    if (entry.version == 1) != (entry.previous is None):
        raise VerificationError("entry", "only the first version has no previous one")


def verify_signatures(mutation: Mutation, origin: str) -> tuple[PublicKey, ...]:
    """Step "signatures": the entry's own keys that signed it, at least one.

    A signature by another key is left alone: it may be by a key of the version before, which only the history
    shows. Where keys share a key id, a signature is valid if it is valid under one of them, as in the log's
    decision (FORMATS, "Deciding an item").
    """
    message = signed_message("entry", origin, mutation.entry_bytes)
    signers: dict[PublicKey, None] = {}
    for signature in mutation.signatures:
        named = [key for key in mutation.entry.authorized_keys if key.id == signature.key_id]
        valid = [key for key in named if key.verifies(message, signature.value)]
        if named and not valid:
            raise VerificationError("signatures", f"the one by key {signature.key_id.hex()} does not verify")
        signers.update(dict.fromkeys(valid))
    if not signers:
        raise VerificationError("signatures", "none is by a key of the entry")
    return tuple(signers)


def verify_opening(proven: ProvenHead, answer: LookupAnswer) -> ErasedProfile | None:
    """Step "opening": verify the erasure of the profile; returns None if the profile was not erased."""
    mutation = answer.mutation
    if mutation is None or answer.opening is not None:
        return None
    if answer.erasure is None:
        raise VerificationError(
            "opening",
            "the profile is withheld: the answer has neither an opening nor the proof of an erasure",
        )
    try:
        return _verify_erasure(proven, mutation, answer.erasure)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("opening", f"the erasure is not proven: {error}") from None


def verify_commitment(
    label: str, answer: LookupAnswer, profile: bytes | None, wanted: bool
) -> tuple[ProfileKey, ...] | None:
    """Step "commitment": the entry commits to the profile. Returns its keys, None without a profile."""
    if answer.mutation is None or answer.opening is None:
        if profile is not None:
            raise VerificationError("commitment", "a profile came without anything that it belongs to")
        return None
    if profile is None:
        if wanted:
            raise VerificationError("commitment", "the profile was not erased, but it did not come along")
        return None
    entry = answer.mutation.entry
    if not commitments.opens(entry.commitment, answer.opening, label, entry.version, profile):
        raise VerificationError("commitment", "does not open to the profile")
    try:
        return decode_profile(profile)
    except MalformedError as error:
        raise VerificationError("commitment", f"opens to what is no profile: {error}") from None


def _verify_erasure(proven: ProvenHead, mutation: Mutation, proof: ErasureProof) -> ErasedProfile:
    record = Record.decode(proof.record_bytes)
    content = record.item.content
    if record.item.kind is not ItemKind.ERASURE or not isinstance(content, bytes):
        raise VerificationError("record", "is not that of an erasure")
    if record.verdict is not Verdict.ERASED:
        raise VerificationError("record", f"the verdict is {record.verdict.label}")
    erasure = Erasure.decode(content)
    if (erasure.index, erasure.entry_hash) != (mutation.entry.index, mutation.entry_hash):
        raise VerificationError("record", "the erasure is that of another entry")
    origin = proven.after.origin
    if not erasure.is_signed(origin):
        raise VerificationError("signature", "the erasure is not signed by the key that it names")
    head = proven.head if proof.smh_bytes is None else _head_of(proven, proof, proof.smh_bytes)
    root = log_root_from_inclusion(
        record.sequence, head.log_size, log_leaf_hash(proof.record_bytes), proof.inclusion
    )
    if root != head.log_root:
        raise VerificationError("record", f"does not stand in the log of mutations of epoch {head.epoch}")
    return ErasedProfile(_signer(proven, mutation, erasure), head.epoch)


def _head_of(proven: ProvenHead, proof: ErasureProof, smh: bytes) -> MapHead:
    """Return the head that proves the erasure. It is in the same log as the head of the answer."""
    signed = SignedMapHead.decode(smh)
    verify_inclusion(smh, signed.head.epoch, proven.checkpoint, proof.heads_inclusion)
    trusted = proven.after
    config = trusted.configs[trusted.position(signed.head.config_hash)].config
    return signed.verify(config.origin, config.signer_key)


def _signer(proven: ProvenHead, mutation: Mutation, erasure: Erasure) -> str:
    """Return who signed the erasure, for people. The verdict in the log shows that the key was allowed to."""
    if erasure.key in mutation.entry.authorized_keys:
        return "by its owner"
    if proven.after.position_of(erasure.key) is not None:
        return f"by the operator, reason: {erasure.reason.label}"
    return "by a later key of the account"
