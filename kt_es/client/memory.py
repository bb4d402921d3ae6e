"""A client's memory of an account, and step "memory": no later sight may contradict it. Pure.

A sight is what stands at one index in one epoch, with the signed head and the map proof that prove it. The
client keeps two sights of each index: the first and the last one of the newest entry. No other entry can have
stood there between their epochs.

An encoded account is ``["kt-es account v1", sight, sight / null]``, with null where both sights are the same.
A sight is ``[epoch, smh, entry / null, map proof, at]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kt_es.crypto.hashes import sha256
from kt_es.errors import MalformedError, VerificationError
from kt_es.evidence import broken_account, contradicting_entries, contradicting_heads
from kt_es.formats.codec import Value, decode, encode, take_array, take_bytes, take_text, take_uint
from kt_es.formats.configs import SignedConfig
from kt_es.formats.entries import Entry
from kt_es.formats.evidence import MAX_ENTRY, ProvenEntry
from kt_es.formats.heads import MAX_SMH
from kt_es.formats.proofs import map_proof_fields, take_map_proof
from kt_es.merkle.proofs import MapProof

KIND = "account"
"""Kind of the values under which a client's store keeps accounts, by index."""

_MARK = "kt-es account v1"
_MAX_PROOF = 16 * 1024


@dataclass(frozen=True, slots=True)
class Sight:
    """What a verified lookup showed at an index.

    Attributes:
        smh: the signed map head.
        entry: None if absence was proven.
        proof: the encoded map proof.
        at: when this client saw it, in milliseconds since 1970.
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

    Raises:
        EquivocationError: two signed heads prove that they contradict each other.
        VerificationError: they contradict each other, and the proof is missing.
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
