"""Verified versions of an account, kept from one round to the next: an owner reads the new ones only.

They lie in blocks of ``BLOCK`` versions, so a new version rewrites one block and not the whole history. A
block is an array of versions, and a version is ``[epoch, timestamp, entry bytes, signer key ids, erased]``.
Blocks are private: they show who changed which account, and when.
"""

from __future__ import annotations

from collections.abc import Sequence

from kt_es.client.history import Version, verify_chain
from kt_es.client.state import StateStore
from kt_es.crypto.hashes import sha256
from kt_es.errors import ConfigError, MalformedError, VerificationError
from kt_es.formats.codec import Value, decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.entries import MAX_MUTATION, Entry
from kt_es.formats.keys import PublicKey

KIND = "history"
"""The kind under which a client's store keeps blocks, by label and number."""

BLOCK = 128
_MARK = "kt-es history v1"
_KEY_ID_LENGTH = 8
_MAX_SIGNERS = 64


def kept_versions(store: StateStore, label: str) -> tuple[Version, ...]:
    """The versions that are kept of ``label``, the first one first.

    Raises ``ConfigError`` if they are damaged: what was verified once is not forgotten in silence.
    """
    versions: list[Version] = []
    try:
        while (data := store.recall(KIND, _key(label, len(versions) // BLOCK))) is not None:
            block = _decoded(data, versions[-1] if versions else None)
            versions += block
            if len(block) < BLOCK:
                break
        verify_chain(versions)
    except (MalformedError, VerificationError) as error:
        raise ConfigError(f"the kept history of {label} is damaged: {error}") from None
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
        # Whether a profile has been erased since then was not asked again; an erasure is for ever.
        True if take_uint(erased, f"{what} erased", 0, 1) else None,
    )
