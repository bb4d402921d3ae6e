"""Verification of an entry: steps map, entry, opening, commitment, signatures and memory. Pure.

Lookups and ranges share the first part. An entry comes with its opening, or with the proof that its profile
was erased: the record of an erasure in the log of mutations. An answer with neither withholds the profile and
is refused.

A sight is what one index holds in one epoch, with the signed head and the map proof that prove it. The
client keeps two sights of each index: the first and the last one of the newest entry. The index cannot have
held another entry between their epochs.

An encoded account is ``["kt-es account v1", sight, sight / null]``, with null where both sights are the same.
A sight is ``[epoch, smh, entry / null, map proof, at]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kt_es.client.heads import ProvenHead, verify_inclusion
from kt_es.client.trusted import position_of_key
from kt_es.crypto import hashes
from kt_es.crypto.hashes import log_leaf_hash, sha256
from kt_es.crypto.signatures import signed_message
from kt_es.errors import MalformedError, VerificationError
from kt_es.evidence import broken_account, contradicting_entries, contradicting_heads
from kt_es.formats.codec import Value, decode, encode, take_array, take_bytes, take_text, take_uint
from kt_es.formats.configs import SignedConfig
from kt_es.formats.entries import Entry, Mutation, ProfileKey, PublicKey, decode_profile
from kt_es.formats.erasures import Erasure
from kt_es.formats.evidence import MAX_ENTRY, ProvenEntry
from kt_es.formats.heads import MAX_SMH, MapHead, SignedMapHead
from kt_es.formats.proofs import ErasureProof, LookupAnswer, map_proof_fields, take_map_proof
from kt_es.formats.queue import ItemKind, Record, Verdict
from kt_es.merkle.verify import MapProof, log_root_from_inclusion, map_root


@dataclass(frozen=True, slots=True)
class ErasedProfile:
    """A proven erasure. ``by`` names the signer for people; the head of ``epoch`` proves it."""

    by: str
    epoch: int


def verify_map(head: MapHead, index: bytes, proof: MapProof, *, absent: bool) -> None:
    """Step "map": ``proof`` leads from ``index`` to the root of ``head``, without an entry if ``absent``."""
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

    A signature by another key is not verified: it may be by a key of the version before, which only the
    history shows. Where keys share a key id, a signature is valid if it is valid under one of them, as in the
    log's decision (FORMATS, "Deciding an item").
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
            raise VerificationError("commitment", "the profile was not erased, but the answer lacks it")
        return None
    entry = answer.mutation.entry
    if not hashes.opens(entry.commitment, answer.opening, label, entry.version, profile):
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
    if position_of_key(proven.after.configs, erasure.key) is not None:
        return f"by the operator, reason: {erasure.reason.label}"
    return "by a later key of the account"


KIND = "account"
"""Kind of the values under which a client's store keeps accounts, by index."""

_MARK = "kt-es account v1"
_MAX_PROOF = 16 * 1024


@dataclass(frozen=True, slots=True)
class Sight:
    """What a verified lookup showed at an index, with the signed map head.

    Attributes:
        entry: None if absence was proven.
        proof: The encoded map proof.
        at: When this client saw it, in milliseconds since 1970.
    """

    epoch: int
    smh: bytes
    entry: bytes | None
    proof: bytes
    at: int

    @classmethod
    def of(cls, epoch: int, smh: bytes, entry: bytes | None, proof: MapProof, at: int) -> Sight:
        return cls(epoch, smh, entry, encode(map_proof_fields(proof, entry is not None)), at)

    @property
    def version(self) -> int:
        """The version of the entry; 0 if there is none."""
        return 0 if self.entry is None else Entry.decode(self.entry).version

    def proven(self, index: bytes) -> ProvenEntry:
        """Return the sight in the form that evidence about ``index`` has."""
        own = None if self.entry is None else (index, sha256(self.entry))
        entry = None if self.entry is None else Entry.decode(self.entry)
        return ProvenEntry(
            entry, self.entry, take_map_proof(decode(self.proof, "map proof"), own, "map proof")
        )

    def fields(self) -> Value:
        return [self.epoch, self.smh, self.entry, self.proof, self.at]

    @classmethod
    def take(cls, value: Value) -> Sight:
        what = "remembered sight"
        epoch, smh, entry, proof, at = take_array(value, what, 5)
        return cls(
            take_uint(epoch, f"{what} epoch", 1),
            take_bytes(smh, f"{what} smh", 1, MAX_SMH),
            None if entry is None else take_bytes(entry, f"{what} entry", 1, MAX_ENTRY),
            take_bytes(proof, f"{what} map proof", 1, _MAX_PROOF),
            take_uint(at, f"{what} time"),
        )


@dataclass(frozen=True, slots=True)
class Account:
    """The memory of one index: the first and the last sight of the newest entry there."""

    first: Sight
    last: Sight

    def encode(self) -> bytes:
        same = self.first == self.last
        return encode([_MARK, self.first.fields(), None if same else self.last.fields()])

    @classmethod
    def decode(cls, data: bytes) -> Account:
        mark, first, last = take_array(decode(data, "remembered account"), "remembered account", 3)
        if take_text(mark, "remembered account", 1, 64) != _MARK:
            raise MalformedError("remembered account", f"must begin with {_MARK!r}")
        taken = Sight.take(first)
        return cls(taken, taken if last is None else Sight.take(last))


def remember(account: Account | None, sight: Sight) -> Account:
    """Return the memory after ``sight``, which does not contradict ``account``. It never goes back."""
    if account is None:
        return Account(sight, sight)
    first, last = account.first, account.last
    if sight.entry != last.entry:
        return Account(sight, sight) if sight.epoch > last.epoch else account
    if sight.epoch > last.epoch:
        return Account(first, sight)
    if sight.epoch < first.epoch:
        return Account(replace(sight, at=min(first.at, sight.at)), last)
    return account


def verify_memory(
    origin: str, configs: Sequence[SignedConfig], index: bytes, account: Account | None, sight: Sight
) -> None:
    """Step "memory": ``sight`` and the memory of ``index`` can both be true.

    A contradiction that two signed heads prove is an ``EquivocationError``.

    Args:
        origin: The name of the directory.
        configs: Its verified chain of configs, which has the keys of both heads.
        index: The index of the account, 32 bytes.
        account: The memory of the account, None at the first sight.
        sight: What a verified lookup has just shown.
    """
    if account is None:
        return
    for known in dict.fromkeys((account.first, account.last)):
        before, after = sorted((known, sight), key=lambda each: each.epoch)
        broken = _broken(index, before, after)
        if broken is None:
            continue
        shown = (before.smh, before.proven(index)), (after.smh, after.proven(index))
        raise (
            contradicting_entries("memory", origin, configs, *shown, index=index)
            or contradicting_heads("memory", origin, configs, before.smh, after.smh)
            or VerificationError("memory", f"epoch {after.epoch} {broken} in epoch {before.epoch}")
        )


def _broken(index: bytes, before: Sight, after: Sight) -> str | None:
    """Return which rule the account broke from ``before`` to ``after``; None if it broke none."""
    if before.entry == after.entry:
        return None
    if before.epoch == after.epoch:
        return "has another entry than the one that stood there"
    return broken_account(before.proven(index), after.proven(index))
