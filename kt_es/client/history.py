"""Histories: every version of a label, since when it holds and who authorized it, verified and kept.

The map proves one version at one epoch. So step "history" needs two lookups of each version: at the epoch
that accepted the version, whose map has to hold it, and at the epoch before, whose map still has to hold the
version before. The next history continues from the last verified version.

Verified versions are stored in blocks of ``BLOCK``, so a new version rewrites one block and not the whole
history. A block is an array of versions; a version is ``[epoch, timestamp, entry bytes, signer key ids,
erased]``. Blocks are private: they show who changed which account, and when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kt_es.api.codec import Json, decode_model
from kt_es.api.models import HistoryBody
from kt_es.client.state import StateStore, damaged
from kt_es.client.trust import Lookup
from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import signed_message
from kt_es.epochs import Current, is_authorized
from kt_es.errors import MalformedError, VerificationError, counted
from kt_es.formats.codec import Value, decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.entries import MAX_MUTATION, Entry, Mutation, ProfileKey, PublicKey

KIND = "history"
"""Kind of the values under which a client's store keeps blocks, by label and number."""

BLOCK = 128
_MARK = "kt-es history v1"
_KEY_ID_LENGTH = 8
_MAX_SIGNERS = 64


@dataclass(frozen=True, slots=True)
class ClaimedVersion:
    """One version as a server sends it, unverified."""

    epoch: int
    mutation: Mutation


@dataclass(frozen=True, slots=True)
class Version:
    """One verified version.

    Attributes:
        epoch: The epoch since which the version holds.
        timestamp: When the head of that epoch was made, in milliseconds since 1970.
        signers: The keys that signed it, of this entry or of the entry before.
        profile: None if it was erased or not asked for.
        erased: What the lookup of the epoch proves. None for a version that was not looked up this time,
            except where an earlier lookup has proven the erasure.
    """

    epoch: int
    timestamp: int
    entry: Entry
    entry_hash: bytes
    signers: tuple[PublicKey, ...]
    profile: tuple[ProfileKey, ...] | None
    erased: bool | None

    @property
    def number(self) -> int:
        return self.entry.version

    @property
    def current(self) -> Current:
        """The entry in the form that the decision about its successor takes."""
        return Current(self.entry, self.entry_hash)


@dataclass(frozen=True, slots=True)
class History:
    """All versions of a label, oldest first, up to the version that ``current`` proves."""

    label: str
    versions: tuple[Version, ...]
    current: Lookup
    checks: tuple[str, ...]


def read_history(body: Mapping[str, Json]) -> tuple[ClaimedVersion, ...]:
    versions = []
    for answer in decode_model(HistoryBody, body).versions:
        mutation = Mutation.decode(answer.mutation)
        if answer.version != mutation.entry.version:
            raise MalformedError("version", "is not that of the mutation")
        if answer.epoch < 1:
            raise MalformedError("epoch", "must be an integer from 1")
        versions.append(ClaimedVersion(answer.epoch, mutation))
    return tuple(versions)


def epochs_to_look_up(claimed: Sequence[ClaimedVersion]) -> tuple[int, ...]:
    """Return the epochs whose lookups ``verify_versions`` needs: of each version, and the one before it."""
    wanted = {epoch for version in claimed for epoch in (version.epoch - 1, version.epoch)}
    return tuple(sorted(epoch for epoch in wanted if epoch >= 1))


def verify_versions(
    current: Lookup, last: Version | None, claimed: Sequence[ClaimedVersion], lookups: Sequence[Lookup]
) -> tuple[Version, ...]:
    """Verify the claimed versions after ``last``: steps "history" and "signatures".

    Args:
        current: A verified lookup of the latest epoch.
        lookups: Verified lookups of the epochs that ``epochs_to_look_up`` names, under one trusted state.
    """
    by_epoch = {lookup.epoch: lookup for lookup in lookups if lookup.index == current.index}
    versions: list[Version] = []
    for version in claimed:
        number = version.mutation.entry.version
        _verify_link(version.mutation.entry, version.epoch, last)
        previous = None if last is None else last.current
        if not is_authorized(version.mutation, previous, current.head.origin):
            raise VerificationError(
                "signatures", f"version {number} is not authorized by its keys and those of the one before"
            )
        since = _verify_since(version, previous, by_epoch)
        keys = () if previous is None else previous.entry.authorized_keys
        last = Version(
            version.epoch,
            since.timestamp,
            version.mutation.entry,
            version.mutation.entry_hash,
            signers_of(version.mutation, keys, current.head.origin),
            since.profile,
            since.erased,
        )
        versions.append(last)
    return tuple(versions)


def verify_history(current: Lookup, versions: Sequence[Version]) -> History:
    """Step "history": the verified ``versions`` are complete, because they end with what ``current`` proves.

    The entry of each version names the entry before by its hash, so the newest entry binds all of them.
    """
    newest = versions[-1].entry_hash if versions else None
    proven = None if current.mutation is None else current.mutation.entry_hash
    if newest != proven:
        raise VerificationError("history", f"does not end with what the map of epoch {current.epoch} holds")
    checks: tuple[str, ...] = ("absence proven: nobody has ever published keys for it",)
    if versions:
        checks = (
            f"{counted(len(versions), 'versions')}, each naming the one before and authorized by its keys",
            "each version proven in the map of its epoch, and the one before in the epoch before",
        )
    return History(current.label, tuple(versions), current, checks)


def verify_chain(versions: Sequence[Version]) -> None:
    """Step "history": ``versions`` begin with the first one, and each follows the one before.

    Raises ``VerificationError``.
    """
    last: Version | None = None
    for version in versions:
        _verify_link(version.entry, version.epoch, last)
        last = version


def _verify_link(entry: Entry, epoch: int, last: Version | None) -> None:
    number = 1 if last is None else last.number + 1
    if entry.version != number:
        raise VerificationError("history", f"version {entry.version} stands where {number} belongs")
    if entry.previous != (None if last is None else last.entry_hash):
        raise VerificationError("history", f"version {number} does not follow the one before")
    if last is not None and epoch <= last.epoch:
        raise VerificationError("history", f"version {number} is not of a later epoch than the one before")


def _verify_since(version: ClaimedVersion, previous: Current | None, by_epoch: dict[int, Lookup]) -> Lookup:
    number = version.mutation.entry.version
    since, before = by_epoch.get(version.epoch), by_epoch.get(version.epoch - 1)
    if since is None or (before is None and version.epoch > 1):
        raise VerificationError("history", f"version {number} has no proof since when it holds")
    if since.mutation is None or since.mutation.entry_hash != version.mutation.entry_hash:
        raise VerificationError("history", f"version {number} is not in the map of its epoch")
    held = None if before is None else before.current
    if (held and held.entry_hash) != (previous and previous.entry_hash):
        raise VerificationError(
            "history",
            f"the version before {number} is not in the map until epoch {version.epoch - 1}",
        )
    return since


def signers_of(mutation: Mutation, old: Sequence[PublicKey], origin: str) -> tuple[PublicKey, ...]:
    """Return the keys that signed the mutation, of its entry or of ``old``, the keys of the entry before."""
    message = signed_message("entry", origin, mutation.entry_bytes)
    ids = {signature.key_id: signature.value for signature in mutation.signatures}
    return tuple(
        key
        for key in dict.fromkeys((*mutation.entry.authorized_keys, *old))
        if key.id in ids and key.verifies(message, ids[key.id])
    )


def kept_versions(store: StateStore, label: str) -> tuple[Version, ...]:
    """Return the kept versions of ``label``, oldest first. Damaged versions raise ``ConfigError``."""
    versions: list[Version] = []
    try:
        while (data := store.recall(KIND, _key(label, len(versions) // BLOCK))) is not None:
            block = _decoded(data, versions[-1] if versions else None)
            versions += block
            if len(block) < BLOCK:
                break
        verify_chain(versions)
    except (MalformedError, VerificationError) as error:
        raise damaged(f"the kept history of {label}", error) from None
    return tuple(versions)


def keep_versions(store: StateStore, label: str, versions: Sequence[Version], new: int) -> None:
    """Keep ``versions``, of which the last ``new`` ones are not kept yet."""
    first = (len(versions) - new) // BLOCK
    for number in range(first, (len(versions) + BLOCK - 1) // BLOCK):
        block = versions[number * BLOCK : (number + 1) * BLOCK]
        store.remember(KIND, _key(label, number), encode([_MARK, [_fields(version) for version in block]]))


def _key(label: str, block: int) -> bytes:
    return sha256(label.encode()) + block.to_bytes(4)


def _fields(version: Version) -> Value:
    return [
        version.epoch,
        version.timestamp,
        version.entry.encode(),
        [key.id for key in version.signers],
        1 if version.erased else 0,
    ]


def _decoded(data: bytes, before: Version | None) -> list[Version]:
    mark, values = take_array(decode(data, "kept history"), "kept history", 2)
    if mark != _MARK:
        raise MalformedError("kept history", f"must begin with {_MARK!r}")
    versions: list[Version] = []
    for value in take_array(values, "kept history versions", 1, BLOCK):
        before = _taken(value, before)
        versions.append(before)
    return versions


def _taken(value: Value, before: Version | None) -> Version:
    what = "kept version"
    epoch, timestamp, data, signers, erased = take_array(value, what, 5)
    data = take_bytes(data, f"{what} entry", 1, MAX_MUTATION)
    entry = Entry.decode(data)
    old: Sequence[PublicKey] = () if before is None else before.entry.authorized_keys
    known = {key.id: key for key in (*old, *entry.authorized_keys)}
    ids = [
        take_bytes(signer, f"{what} signer", _KEY_ID_LENGTH)
        for signer in take_array(signers, f"{what} signers", 0, _MAX_SIGNERS)
    ]
    if not known.keys() >= set(ids):
        raise MalformedError(f"{what} signers", "are not keys of the entry or of the one before")
    return Version(
        take_uint(epoch, f"{what} epoch", 1),
        take_uint(timestamp, f"{what} timestamp"),
        entry,
        sha256(data),
        tuple(known[key_id] for key_id in ids),
        None,
        # Nobody has asked since then whether the profile was erased. An erasure is permanent.
        True if take_uint(erased, f"{what} erased", 0, 1) else None,
    )
