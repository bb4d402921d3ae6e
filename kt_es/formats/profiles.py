"""Profiles, which hold the public keys and data of a user, and openings. FORMATS, "Profile" and "Opening"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.errors import MalformedError
from kt_es.formats.codec import decode, encode, take_array, take_bytes, take_text
from kt_es.formats.entries import HASH_LENGTH

MAX_PROFILE = 512 * 1024
MAX_PROFILE_KEYS = 256
OPENING_LENGTH = 16
OPENING = "Opening"
OPENING_ERASED = "OpeningErased"
PROFILE_TYPES = ("openpgp", "ssh", "age", "x25519", "pem", "raw")


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """One key ``[name, type, bytes]`` of a profile."""

    name: str
    type: str
    data: bytes


def encode_profile(keys: Sequence[ProfileKey]) -> bytes:
    data = encode([[key.name, key.type, key.data] for key in keys])
    if len(data) > MAX_PROFILE:
        raise MalformedError("profile", f"must have at most {MAX_PROFILE} bytes, has {len(data)}")
    return data


def decode_profile(data: bytes) -> tuple[ProfileKey, ...]:
    if len(data) > MAX_PROFILE:
        raise MalformedError("profile", f"must have at most {MAX_PROFILE} bytes, has {len(data)}")
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
        entry_hash, opening, profile = take_array(decode(data, "opening event"), "opening event", 3)
        return cls(
            take_bytes(entry_hash, "opening entry hash", HASH_LENGTH),
            take_bytes(opening, "opening", OPENING_LENGTH),
            take_bytes(profile, "profile", 0, MAX_PROFILE),
        )


def encode_erased(entry_hash: bytes) -> bytes:
    """Return the data of an ``OpeningErased`` event: ``[entry hash]``."""
    return encode([entry_hash])


def decode_erased(data: bytes) -> bytes:
    (entry_hash,) = take_array(decode(data, "opening erased event"), "opening erased event", 1)
    return take_bytes(entry_hash, "opening erased entry hash", HASH_LENGTH)
