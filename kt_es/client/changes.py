"""Changes to a label: the keys that a change vouches for, and the change, built and ready to submit. Pure.

A signature under a version vouches for all its authorized keys, because each of them may sign the next
version. The owner knows a key that is the owner's own, or that is in a version signed by a key of the owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kt_es.client.history import Version
from kt_es.client.trust import Lookup
from kt_es.crypto import hashes
from kt_es.crypto.signatures import PrivateKey
from kt_es.epochs import is_authorized
from kt_es.errors import MalformedError, RefusedError, VerificationError
from kt_es.formats.codec import decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.entries import (
    HASH_LENGTH,
    MAX_VERSION,
    Entry,
    Mutation,
    ProfileKey,
    PublicKey,
    check_submittable,
    encode_profile,
)

UNKNOWN_KEYS = "unknown-keys"
"""Reason of a refusal to vouch for keys that the owner does not know."""

OWN = "own"
"""Kind of the values under which a client's store keeps the version that the owner signed last, by label."""

_MARK = "kt-es own v1"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Mine:
    """The keys of an owner: ``held`` on this machine, or ``declared`` by their key ids."""

    held: frozenset[PublicKey]
    declared: frozenset[bytes] = frozenset()

    def __contains__(self, key: PublicKey) -> bool:
        return key in self.held or key.id in self.declared

    def any_of(self, keys: Iterable[PublicKey]) -> bool:
        return any(key in self for key in keys)

    def made(self, entry: Entry, signers: Iterable[PublicKey]) -> bool:
        """Return whether a version is the owner's: all its authorized keys are, and one signed it."""
        return all(key in self for key in entry.authorized_keys) and self.any_of(signers)


@dataclass(frozen=True, slots=True)
class Difference(Generic[_T]):
    """What a change does to a list."""

    added: tuple[_T, ...]
    kept: tuple[_T, ...]
    removed: tuple[_T, ...]

    @classmethod
    def between(cls, before: Sequence[_T], after: Sequence[_T]) -> Difference[_T]:
        return cls(
            tuple(one for one in after if one not in before),
            tuple(one for one in after if one in before),
            tuple(one for one in before if one not in after),
        )


@dataclass(frozen=True, slots=True)
class Proposal:
    """A signed change, and its differences from the present version.

    ``profile`` is None if the present profile was erased or not asked for.
    """

    before: Lookup
    submission: Submission
    profile: Difference[ProfileKey] | None
    authorized: Difference[PublicKey]

    @property
    def signers(self) -> tuple[bytes, ...]:
        """The ids of the keys that signed it."""
        return tuple(signature.key_id for signature in self.submission.mutation.signatures)


def proposal(before: Lookup, submission: Submission, profile: Sequence[ProfileKey]) -> Proposal:
    """Compare ``submission`` with the version that ``before`` proves."""
    present: Sequence[ProfileKey] | None = () if before.entry is None else before.profile
    old = () if before.entry is None else before.entry.authorized_keys
    return Proposal(
        before,
        submission,
        None if present is None else Difference.between(present, profile),
        Difference.between(old, submission.mutation.entry.authorized_keys),
    )


def unknown_keys(kept: Iterable[PublicKey], versions: Iterable[Version], mine: Mine) -> tuple[PublicKey, ...]:
    """Return the keys of ``kept``, authorized keys of the present version, that the owner does not know.

    ``versions`` is the verified history: the keys of the version before have authorized each change in it.
    """
    vouched: set[PublicKey] = set()
    for version in versions:
        if mine.any_of(version.signers):
            vouched.update(version.entry.authorized_keys)
    return tuple(key for key in kept if key not in mine and key not in vouched)


def refuse_unknown(label: str, unknown: Sequence[PublicKey]) -> None:
    """Raise ``RefusedError`` if a change would vouch for unknown keys."""
    if unknown:
        names = ", ".join(key.id.hex() for key in unknown)
        raise RefusedError(
            UNKNOWN_KEYS,
            f"{label} has authorized keys that are not yours, and no version that a key of yours signed had "
            f"them: {names}. Nothing was signed, since signing would vouch for them",
        )


@dataclass(frozen=True, slots=True)
class OwnVersion:
    """The last version that the owner signed on this machine and that was proven in the map."""

    version: int
    entry_hash: bytes

    @classmethod
    def of(cls, mutation: Mutation) -> OwnVersion:
        return cls(mutation.entry.version, mutation.entry_hash)

    def encode(self) -> bytes:
        return encode([_MARK, self.version, self.entry_hash])

    @classmethod
    def decode(cls, data: bytes) -> OwnVersion:
        what = "own version"
        mark, version, entry_hash = take_array(decode(data, what), what, 3)
        if mark != _MARK:
            raise MalformedError(what, f"must begin with {_MARK!r}")
        return cls(
            take_uint(version, what, 1, MAX_VERSION), take_bytes(entry_hash, f"{what} hash", HASH_LENGTH)
        )


def verify_own(own: OwnVersion | None, versions: Sequence[Version]) -> None:
    """Step "history": the version that the owner signed last is in the history."""
    if own is None:
        return
    if len(versions) < own.version or versions[own.version - 1].entry_hash != own.entry_hash:
        raise VerificationError("history", f"does not have the version {own.version} that was signed here")


@dataclass(frozen=True, slots=True)
class Submission:
    """A change to submit. It is sent as the same bytes until it is decided.

    ``registration`` is the proof that the label may be registered, for the first version of a label.
    """

    label: str
    mutation: Mutation
    opening: bytes
    profile: bytes
    registration: str | None = field(default=None, repr=False)


def build_submission(
    before: Lookup,
    profile: Sequence[ProfileKey],
    signing_keys: Sequence[PrivateKey],
    opening: bytes,
    authorized_keys: Sequence[PublicKey] | None = None,
) -> Submission:
    """Build the version after ``before``, signed by those of ``signing_keys`` that may sign it.

    Args:
        before: A verified lookup of the latest epoch.
        opening: 16 fresh random bytes.
        authorized_keys: The keys that may sign the next version. By default they are the present ones, and
            for a new label the public keys of ``signing_keys``.

    Raises ``RefusedError`` or ``MalformedError``.
    """
    current = before.current
    publics = [PublicKey(key.algorithm, key.public) for key in signing_keys]
    if authorized_keys is None:
        authorized_keys = publics if current is None else current.entry.authorized_keys
    data = encode_profile(profile)
    version = 1 if current is None else current.entry.version + 1
    entry = Entry(
        before.index,
        version,
        hashes.commit(opening, before.label, version, data),
        tuple(dict.fromkeys(authorized_keys)),
        None if current is None else current.entry_hash,
    )
    check_submittable(entry)
    allowed = {*entry.authorized_keys, *(() if current is None else current.entry.authorized_keys)}
    signers = [key for key, public in zip(signing_keys, publics, strict=True) if public in allowed]
    mutation = Mutation.sign(entry, before.head.origin, signers)
    if not is_authorized(mutation, current, before.head.origin):
        raise RefusedError(
            "unauthorized",
            "the change needs a signature by one of its own keys"
            + ("" if current is None else " and by one of the keys of the present version"),
            "signing_keys",
        )
    return Submission(before.label, mutation, opening, data)
