"""Entries and the mutations that carry them. FORMATS, "Entry" and "Mutation"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import MalformedError
from kt_es.formats.codec import decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.keys import PublicKey, Signature, sign, take_public_key, take_signatures

INDEX_LENGTH = 32
HASH_LENGTH = 32
MAX_AUTHORIZED_KEYS = 32
MAX_VERSION = 2**32 - 1  # a commitment holds it as u32
MAX_MUTATION = 16 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """``[index, version, commitment, authorized keys, previous]``: the value of the map at an index."""

    index: bytes
    version: int
    commitment: bytes
    authorized_keys: tuple[PublicKey, ...]
    previous: bytes | None

    def encode(self) -> bytes:
        keys = [key.fields() for key in self.authorized_keys]
        return encode([self.index, self.version, self.commitment, keys, self.previous])

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        index, version, commitment, keys, previous = take_array(decode(data, "entry"), "entry", 5)
        authorized = tuple(
            take_public_key(key, "entry authorized key")
            for key in take_array(keys, "entry authorized_keys", 1, MAX_AUTHORIZED_KEYS)
        )
        if len(authorized) > 1 and len(set(authorized)) != len(authorized):
            raise MalformedError("entry authorized_keys", "must be distinct")
        return cls(
            take_bytes(index, "entry index", INDEX_LENGTH),
            take_uint(version, "entry version", 1, MAX_VERSION),
            take_bytes(commitment, "entry commitment", HASH_LENGTH),
            authorized,
            None if previous is None else take_bytes(previous, "entry previous", HASH_LENGTH),
        )


def check_submittable(entry: Entry) -> None:
    """Check the authorized keys of an entry before it is submitted.

    The rules of the log check only the length of a key, because checking points would slow every replay. So
    the log accepts keys that cannot be used, and this function refuses them.

    Raises:
        MalformedError: an authorized key is not a valid point, or two of them have the same key id.
    """
    what = "entry authorized key"
    ids = [key.id for key in entry.authorized_keys]
    for key, key_id in zip(entry.authorized_keys, ids, strict=True):
        if not key.is_point:
            raise MalformedError(what, f"{key_id.hex()} is no valid public key; name another one")
        if ids.count(key_id) > 1:
            raise MalformedError(what, f"{key_id.hex()} is the key id of two keys; name one of them")


@dataclass(frozen=True, slots=True)
class Mutation:
    """``[entry bytes, signatures]``. ``entry_hash`` identifies a mutation; signatures are not part of it."""

    entry: Entry
    entry_bytes: bytes
    entry_hash: bytes
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        return encode([self.entry_bytes, [signature.fields() for signature in self.signatures]])

    @classmethod
    def decode(cls, data: bytes) -> Mutation:
        if len(data) > MAX_MUTATION:
            raise MalformedError("mutation", f"must have at most {MAX_MUTATION} bytes, has {len(data)}")
        entry_bytes, signatures = take_array(decode(data, "mutation"), "mutation", 2)
        entry_bytes = take_bytes(entry_bytes, "mutation entry", 1, MAX_MUTATION)
        return cls(
            Entry.decode(entry_bytes),
            entry_bytes,
            sha256(entry_bytes),
            take_signatures(signatures, "mutation signature"),
        )

    @classmethod
    def sign(cls, entry: Entry, origin: str, keys: Sequence[PrivateKey]) -> Mutation:
        """Sign ``entry`` with each of ``keys`` for the directory ``origin``."""
        data = entry.encode()
        return cls(entry, data, sha256(data), tuple(sign(key, "entry", origin, data) for key in keys))
