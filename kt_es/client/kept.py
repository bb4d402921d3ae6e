"""What a client keeps in its store about labels and directories: sights, verified versions, convictions.

Verified versions are stored in blocks of ``BLOCK``, so a new version rewrites one block and not the whole
history. A block is an array of versions; a version is ``[epoch, timestamp, entry bytes, signer key ids,
erased]``. Blocks are private: they show who changed which account, and when.
"""

from __future__ import annotations

from collections.abc import Sequence

from kt_es.client.entries import KIND as ACCOUNTS
from kt_es.client.entries import Account, remember, verify_memory
from kt_es.client.history import Version, verify_chain
from kt_es.client.state import StateStore
from kt_es.client.trust import Lookup
from kt_es.client.trusted import Trusted
from kt_es.crypto.hashes import sha256
from kt_es.errors import ConfigError, MalformedError, VerificationError
from kt_es.evidence import convicted_before
from kt_es.formats.codec import Value, decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.entries import MAX_MUTATION, Entry, PublicKey

KIND = "history"
"""Kind of the values under which a client's store keeps blocks, by label and number."""

BLOCK = 128
_MARK = "kt-es history v1"
_KEY_ID_LENGTH = 8
_MAX_SIGNERS = 64


def recalled(store: StateStore, index: bytes) -> Account | None:
    """Return the memory of the account at ``index``, None before the first sight.

    Raises:
        ConfigError: the memory is damaged. A silent new start would lose the state that protects from a
            second history of the account.
    """
    data = store.recall(ACCOUNTS, index)
    try:
        return None if data is None else Account.decode(data)
    except MalformedError as error:
        raise ConfigError(f"what this client remembers of the account is damaged: {error}") from None


def keep_sight(store: StateStore, trusted: Trusted, lookup: Lookup) -> None:
    """Remember what ``lookup`` shows. Compares it again with what others have remembered in the meantime."""
    account, sight = lookup.before, lookup.sight
    while (after := remember(account, sight)) != account:
        before = None if account is None else account.encode()
        # The first sight of an entry must survive a power failure. Each lookup finds the last sight again.
        synced = account is None or account.first.entry != after.first.entry
        if store.exchange(ACCOUNTS, lookup.index, before, after.encode(), synced=synced):
            return
        account = recalled(store, lookup.index)
        verify_memory(trusted.origin, trusted.configs, lookup.index, account, sight)


def check_unconvicted(store: StateStore, trusted: Trusted) -> None:
    """Raise ``EquivocationError`` if evidence in ``store`` convicts the directory of ``trusted``.

    So every question about a convicted directory fails, until a person has moved the evidence away.
    """
    # Later keys are not in the chain of older evidence. The first key is in each chain.
    keys = {trusted.configs[0].config.signer_key}
    for evidence, path in store.evidence():
        if error := convicted_before(evidence, str(path), trusted.origin, keys):
            error.saved = path
            raise error


def kept_versions(store: StateStore, label: str) -> tuple[Version, ...]:
    """Return the kept versions of ``label``, oldest first.

    Raises:
        ConfigError: they are damaged. Verified versions are never lost silently.
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
        # Nobody has asked since then whether the profile was erased. An erasure is permanent.
        True if take_uint(erased, f"{what} erased", 0, 1) else None,
    )
