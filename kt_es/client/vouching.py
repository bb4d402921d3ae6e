"""Which keys a change would vouch for, and whether its owner knows them. Pure.

A signature under a version vouches for all its authorized keys, because each of them may sign the next
version. The owner knows a key that is the owner's own, or that is in a version signed by a key of the owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from kt_es.client.history import Version
from kt_es.client.submissions import Submission
from kt_es.client.trust import Lookup
from kt_es.errors import MalformedError, RefusedError, VerificationError
from kt_es.formats.codec import decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.entries import HASH_LENGTH, MAX_VERSION, Entry, Mutation
from kt_es.formats.keys import PublicKey
from kt_es.formats.profiles import ProfileKey

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

    def all_of(self, keys: Iterable[PublicKey]) -> bool:
        return all(key in self for key in keys)

    def made(self, entry: Entry, signers: Iterable[PublicKey]) -> bool:
        """Return whether a version is the owner's: all its authorized keys are, and one signed it."""
        return self.all_of(entry.authorized_keys) and self.any_of(signers)


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
    """A signed change that was not sent yet, and its differences from the present version.

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
