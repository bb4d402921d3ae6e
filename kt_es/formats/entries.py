"""Entries of accounts: keys, profiles, and the mutations that carry them. FORMATS, "Keys" to "Opening"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kt_es.crypto import signatures
from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import SIGNATURE_SIZE, PrivateKey
from kt_es.errors import MalformedError
from kt_es.formats.codec import (
    Value,
    check_size,
    decode,
    decode_array,
    encode,
    take_array,
    take_bytes,
    take_text,
    take_uint,
)
from kt_es.formats.usual import usual_mutation
from kt_es.values import frequent_value

KEY_ID_LENGTH = 8
HASH_LENGTH = 32
INDEX_LENGTH = 32
OPENING_LENGTH = 16
MAX_SIGNATURES = 32
MAX_AUTHORIZED_KEYS = 32
MAX_VERSION = 2**32 - 1  # a commitment holds it as u32
MAX_MUTATION = 16 * 1024
MAX_PROFILE = 512 * 1024
MAX_PROFILE_KEYS = 256

OPENING = "Opening"
OPENING_ERASED = "OpeningErased"
PROFILE_TYPES = ("openpgp", "ssh", "age", "x25519", "pem", "raw")


# What precedes the raw bytes of a key in its encoding, by algorithm and length.
_KEY_HEADERS: Final = {
    (algorithm, size): encode([algorithm, bytes(size)])[:-size]
    for algorithm, size in signatures.PUBLIC_KEY_SIZES.items()
}


@frequent_value
class PublicKey:
    """``[algorithm, raw bytes]``."""

    algorithm: int
    raw: bytes

    @property
    def id(self) -> bytes:
        """The first 8 bytes of the SHA-256 of the encoding.

        The id is computed on each access, because a replay decodes more keys than it needs ids.
        """
        header = _KEY_HEADERS.get((self.algorithm, len(self.raw)))
        encoded = encode([self.algorithm, self.raw]) if header is None else header + self.raw
        return sha256(encoded)[:KEY_ID_LENGTH]

    def fields(self) -> Value:
        return [self.algorithm, self.raw]

    @property
    def is_point(self) -> bool:
        """Whether a private key with this public key can exist. The rules of the log do not check this."""
        return signatures.is_point(self.algorithm, self.raw)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        return signatures.verify(self.algorithm, self.raw, message, signature)


@frequent_value
class Signature:
    """A signature and the id of the key that is said to have made it."""

    key_id: bytes
    value: bytes

    def fields(self) -> Value:
        return [self.key_id, self.value]


def take_public_key(value: Value, what: str) -> PublicKey:
    algorithm, raw = take_array(value, what, 2)
    algorithm = take_uint(algorithm, f"{what} algorithm", signatures.ED25519, signatures.ECDSA_P256)
    return PublicKey(algorithm, take_bytes(raw, what, signatures.PUBLIC_KEY_SIZES[algorithm]))


def take_signatures(value: Value, what: str) -> tuple[Signature, ...]:
    taken = []
    for pair in take_array(value, what, 1, MAX_SIGNATURES):
        key_id, signature = take_array(pair, what, 2)
        taken.append(
            Signature(
                take_bytes(key_id, f"{what} key id", KEY_ID_LENGTH),
                take_bytes(signature, what, SIGNATURE_SIZE),
            )
        )
    return tuple(taken)


def check_usable(keys: Sequence[PublicKey], what: str) -> None:
    """Refuse keys that are not valid points, and two keys with the same key id."""
    ids = [key.id for key in keys]
    for key, key_id in zip(keys, ids, strict=True):
        if not key.is_point:
            raise MalformedError(what, f"{key_id.hex()} is no valid public key; name another one")
        if ids.count(key_id) > 1:
            raise MalformedError(what, f"{key_id.hex()} is the key id of two keys; name one of them")


def sign(key: PrivateKey, kind: str, origin: str, payload: bytes) -> Signature:
    """Sign the message of this kind, origin and payload (``crypto.signatures.signed_message``)."""
    message = signatures.signed_message(kind, origin, payload)
    return Signature(PublicKey(key.algorithm, key.public).id, key.sign(message))


@frequent_value
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
        index, version, commitment, keys, previous = decode_array(data, "entry", 5)
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

    The rules of the log check only the length of a key, because checking points would slow every replay.
    Raises ``MalformedError``.
    """
    check_usable(entry.authorized_keys, "entry authorized key")


@frequent_value
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
        usual = usual_mutation(data)
        if usual is not None:
            entry_bytes, index, version, commitment, key, previous, key_id, signature = usual
            entry = Entry(index, version, commitment, (PublicKey(signatures.ED25519, key),), previous)
            return cls(entry, entry_bytes, sha256(entry_bytes), (Signature(key_id, signature),))
        return cls._decode(data)

    @classmethod
    def _decode(cls, data: bytes) -> Mutation:
        entry_bytes, taken = decode_array(data, "mutation", 2, most=MAX_MUTATION)
        entry_bytes = take_bytes(entry_bytes, "mutation entry", 1, MAX_MUTATION)
        return cls(
            Entry.decode(entry_bytes),
            entry_bytes,
            sha256(entry_bytes),
            take_signatures(taken, "mutation signature"),
        )

    @classmethod
    def sign(cls, entry: Entry, origin: str, keys: Sequence[PrivateKey]) -> Mutation:
        """Sign ``entry`` with each of ``keys`` for the directory ``origin``."""
        data = entry.encode()
        return cls(entry, data, sha256(data), tuple(sign(key, "entry", origin, data) for key in keys))


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """One key ``[name, type, bytes]`` of a profile."""

    name: str
    type: str
    data: bytes


def encode_profile(keys: Sequence[ProfileKey]) -> bytes:
    data = encode([[key.name, key.type, key.data] for key in keys])
    check_size(data, "profile", MAX_PROFILE)
    return data


def decode_profile(data: bytes) -> tuple[ProfileKey, ...]:
    check_size(data, "profile", MAX_PROFILE)
    keys = []
    for value in take_array(decode(data, "profile"), "profile", 0, MAX_PROFILE_KEYS):
        name, kind, content = take_array(value, "profile key", 3)
        if kind not in PROFILE_TYPES:
            raise MalformedError("profile key type", f"must be one of {', '.join(PROFILE_TYPES)}")
        keys.append(
            ProfileKey(
                take_text(name, "profile key name", 0, 255),
                take_text(kind, "profile key type", 1, 16),
                take_bytes(content, "profile key bytes", 0, MAX_PROFILE),
            )
        )
    return tuple(keys)


@dataclass(frozen=True, slots=True)
class Opening:
    """``[entry hash, opening, profile]``: opens the commitment of one entry. Private, and can be erased."""

    entry_hash: bytes
    opening: bytes
    profile: bytes

    def encode(self) -> bytes:
        return encode([self.entry_hash, self.opening, self.profile])

    @classmethod
    def decode(cls, data: bytes) -> Opening:
        entry_hash, opening, profile = decode_array(data, "opening event", 3)
        return cls(
            take_bytes(entry_hash, "opening entry hash", HASH_LENGTH),
            take_bytes(opening, "opening", OPENING_LENGTH),
            take_bytes(profile, "profile", 0, MAX_PROFILE),
        )


def encode_erased(entry_hash: bytes) -> bytes:
    """Return the data of an ``OpeningErased`` event: ``[entry hash]``."""
    return encode([entry_hash])


def decode_erased(data: bytes) -> bytes:
    (entry_hash,) = decode_array(data, "opening erased event", 1)
    return take_bytes(entry_hash, "opening erased entry hash", HASH_LENGTH)
