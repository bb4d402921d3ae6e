"""The history of a label, verified: every version, since when, and who authorized it. Pure.

The map proves one version at one epoch. A history asks for two lookups of each version: at the epoch
that took it, where it has to stand, and at the epoch before, where its predecessor still has to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.client.openings import open_commitment
from kt_es.client.trust import Lookup
from kt_es.crypto.signatures import signed_message
from kt_es.epochs import Current, is_authorized
from kt_es.errors import VerificationError
from kt_es.formats.entries import Entry, Mutation
from kt_es.formats.keys import PublicKey
from kt_es.formats.profiles import ProfileKey


@dataclass(frozen=True, slots=True)
class ToldVersion:
    """One version as a server tells it; nothing in it is verified."""

    epoch: int
    mutation: Mutation
    opening: bytes | None
    profile: bytes | None


@dataclass(frozen=True, slots=True)
class Version:
    """One verified version. It holds since ``epoch``, whose head was made at ``timestamp`` (ms).

    ``signers`` are the keys, of this entry or the one before, that signed it. ``profile`` is None where
    it was erased or not asked for.
    """

    epoch: int
    timestamp: int
    mutation: Mutation
    signers: tuple[PublicKey, ...]
    profile: tuple[ProfileKey, ...] | None
    erased: bool

    @property
    def entry(self) -> Entry:
        return self.mutation.entry

    @property
    def number(self) -> int:
        return self.mutation.entry.version


@dataclass(frozen=True, slots=True)
class History:
    """All versions of a label, the first one first, up to the one that ``current`` proves."""

    label: str
    versions: tuple[Version, ...]
    current: Lookup
    checks: tuple[str, ...]


def epochs_to_look_up(told: Sequence[ToldVersion]) -> tuple[int, ...]:
    """The epochs, ascending, whose lookups ``verify_history`` takes: each version's, and the one before."""
    wanted = {epoch for version in told for epoch in (version.epoch - 1, version.epoch)}
    return tuple(sorted(epoch for epoch in wanted if epoch >= 1))


def verify_history(current: Lookup, told: Sequence[ToldVersion], lookups: Sequence[Lookup]) -> History:
    """The history that ``told`` tells, if it is all of it: step "history", or the step of a part.

    ``current`` is a verified lookup of the latest epoch, ``lookups`` verified ones of the epochs that
    ``epochs_to_look_up`` names, all of one label and under one trusted state.
    """
    by_epoch = {lookup.epoch: lookup for lookup in lookups if lookup.index == current.index}
    _verify_complete(current, told)
    versions: list[Version] = []
    previous: Current | None = None
    origin = current.head.origin
    for number, version in enumerate(told, start=1):
        mutation = version.mutation
        _verify_link(number, version, versions, previous)
        if not is_authorized(mutation, previous, origin):
            raise VerificationError(
                "signatures", f"version {number} is not authorized by its keys and those of the one before"
            )
        since = _verify_since(number, version, previous, by_epoch)
        versions.append(_version(current.label, version, since, previous, origin))
        previous = Current(mutation.entry, mutation.entry_hash)
    return History(current.label, tuple(versions), current, _checks(versions))


def _verify_complete(current: Lookup, told: Sequence[ToldVersion]) -> None:
    newest = told[-1].mutation.entry_hash if told else None
    proven = None if current.mutation is None else current.mutation.entry_hash
    if newest != proven:
        raise VerificationError("history", f"does not end with what the map of epoch {current.epoch} holds")


def _verify_link(
    number: int, version: ToldVersion, versions: Sequence[Version], previous: Current | None
) -> None:
    entry = version.mutation.entry
    if entry.version != number:
        raise VerificationError("history", f"version {entry.version} stands where {number} belongs")
    if entry.previous != (None if previous is None else previous.entry_hash):
        raise VerificationError("history", f"version {number} does not follow the one before")
    if versions and version.epoch <= versions[-1].epoch:
        raise VerificationError("history", f"version {number} is not of a later epoch than the one before")


def _verify_since(
    number: int, version: ToldVersion, previous: Current | None, by_epoch: dict[int, Lookup]
) -> Lookup:
    since, before = by_epoch.get(version.epoch), by_epoch.get(version.epoch - 1)
    if since is None or (before is None and version.epoch > 1):
        raise VerificationError("history", f"version {number} has no proof since when it holds")
    if since.mutation is None or since.mutation.entry_hash != version.mutation.entry_hash:
        raise VerificationError("history", f"version {number} does not stand in the map of its epoch")
    held = None if before is None else before.current
    if (held and held.entry_hash) != (previous and previous.entry_hash):
        raise VerificationError(
            "history",
            f"the version before {number} does not stand in the map until epoch {version.epoch - 1}",
        )
    return since


def _version(label: str, told: ToldVersion, since: Lookup, previous: Current | None, origin: str) -> Version:
    entry = told.mutation.entry
    profile = None
    if told.profile is not None:
        if told.opening is None:
            raise VerificationError("commitment", f"version {entry.version} has a profile and no opening")
        profile = open_commitment(label, entry, told.opening, told.profile)
    message = signed_message("entry", origin, told.mutation.entry_bytes)
    old = () if previous is None else previous.entry.authorized_keys
    ids = {signature.key_id: signature.value for signature in told.mutation.signatures}
    signers = tuple(
        key
        for key in dict.fromkeys((*entry.authorized_keys, *old))
        if key.id in ids and key.verifies(message, ids[key.id])
    )
    return Version(told.epoch, since.timestamp, told.mutation, signers, profile, told.opening is None)


def _checks(versions: Sequence[Version]) -> tuple[str, ...]:
    if not versions:
        return ("absence proven: nobody has ever published keys for it",)
    return (
        f"{len(versions)} versions, each naming the one before and authorized by its keys",
        "each version proven in the map of its epoch, and the one before in the epoch before",
    )
