"""What a client verifies of a profile: steps "opening" and "commitment". Pure.

An entry comes with its opening, or with the proof that its profile was erased: the record of an erasure in
the log of mutations. An answer with neither withholds the profile and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.client.heads import ProvenHead, verify_place
from kt_es.crypto import commitments
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.entries import Entry, Mutation
from kt_es.formats.erasures import Erasure
from kt_es.formats.heads import MapHead, SignedMapHead
from kt_es.formats.profiles import ProfileKey, decode_profile
from kt_es.formats.proofs import ErasureProof, LookupAnswer
from kt_es.formats.queue import ItemKind
from kt_es.formats.records import Record, Verdict
from kt_es.merkle.verify import log_root_from_inclusion


@dataclass(frozen=True, slots=True)
class Erased:
    """That a profile was erased, and who signed that, as a person reads it. ``epoch`` proves it."""

    by: str
    epoch: int


def verify_opening(proven: ProvenHead, answer: LookupAnswer) -> Erased | None:
    """Step "opening": the erasure of the entry's profile; None where the profile was not erased."""
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
    """Step "commitment": the profile is the one that the entry commits to."""
    if answer.mutation is None or answer.opening is None:
        if profile is not None:
            raise VerificationError("commitment", "a profile came without anything that it belongs to")
        return None
    if profile is None:
        if wanted:
            raise VerificationError("commitment", "the profile was not erased, but it did not come along")
        return None
    return open_commitment(label, answer.mutation.entry, answer.opening, profile)


def open_commitment(label: str, entry: Entry, opening: bytes, profile: bytes) -> tuple[ProfileKey, ...]:
    """The keys of ``profile``, if the entry commits to it for ``label``; else step "commitment"."""
    if not commitments.opens(entry.commitment, opening, label, entry.version, profile):
        raise VerificationError("commitment", "does not open to the profile")
    try:
        return decode_profile(profile)
    except MalformedError as error:
        raise VerificationError("commitment", f"opens to what is no profile: {error}") from None


def _verify_erasure(proven: ProvenHead, mutation: Mutation, proof: ErasureProof) -> Erased:
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
    return Erased(_signer(proven, mutation, erasure), head.epoch)


def _head_of(proven: ProvenHead, proof: ErasureProof, smh: bytes) -> MapHead:
    """The head that the erasure is proven under, which stands in the same log as the answer's own."""
    signed = SignedMapHead.decode(smh)
    verify_place(smh, signed.head.epoch, proven.checkpoint, proof.heads_inclusion)
    trusted = proven.after
    config = trusted.configs[trusted.position(signed.head.config_hash)].config
    return signed.verify(config.origin, config.signer_key)


def _signer(proven: ProvenHead, mutation: Mutation, erasure: Erasure) -> str:
    """Who signed the erasure. That this key was allowed to, the verdict in the log says."""
    if erasure.key in mutation.entry.authorized_keys:
        return "by its owner"
    if proven.after.position_of(erasure.key) is not None:
        return f"by the operator, reason: {erasure.reason.label}"
    return "by a later key of the account"
