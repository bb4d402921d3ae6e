"""SHA-256: the domain-separated hashes of both Merkle structures, and commitments to profiles.

See docs/DESIGN.md, section 3, and RFC 6962, 2.1. A commitment is

``HMAC-SHA256(Kc, opening[16] || u8 len || label || u32 version || u32 len || profile)``, integers big
endian. It binds the label, the version and the profile, and reveals nothing about them to a reader who does
not know the opening. After the opening is erased, the commitment can no longer be opened.

Example: for an opening of 16 zero bytes, label ``a@example.org``, version 1 and profile ``0x80``, the HMAC is
over ``00*16 0d 614065...7267 00000001 00000001 80``. tests/vectors/commitments.json has the values.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from kt_es.errors import MalformedError

HASH_SIZE: Final = 32
OPENING_SIZE: Final = 16
MAX_LABEL_SIZE: Final = 255
MAX_VERSION: Final = 2**32 - 1
MAX_PROFILE_SIZE: Final = 512 * 1024

_KC: Final = bytes.fromhex("d821f8790d97709796b4d7903357c3f5")

MAP_EMPTY = bytes(HASH_SIZE)
"""The hash of an empty subtree of the map, and the root of an empty map."""

EMPTY_LOG_ROOT = hashlib.sha256(b"").digest()
"""The root of an empty log (RFC 6962, 2.1)."""


def sha256(data: bytes) -> bytes:
    """Return the SHA-256 of ``data``, 32 bytes."""
    return hashlib.sha256(data).digest()


def log_leaf_hash(data: bytes) -> bytes:
    """Return ``H(0x00 || data)``, the hash of a leaf of a log. ``data`` is an encoded record or SMH."""
    return hashlib.sha256(b"\x00" + data).digest()


def log_node_hash(left: bytes, right: bytes) -> bytes:
    """Return ``H(0x01 || left || right)``, the hash of an inner node of a log. Each child has 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def map_leaf_hash(index: bytes, entry_hash: bytes) -> bytes:
    """Return ``H(0x00 || index || entry hash)``, the hash of a leaf of the map. Both parts have 32 bytes."""
    return hashlib.sha256(b"\x00" + index + entry_hash).digest()


def map_node_hash(left: bytes, right: bytes) -> bytes:
    """Return ``H(0x01 || left || right)``, the hash of a node of the map. ``MAP_EMPTY`` is an empty child."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def commit(opening: bytes, label: str, version: int, profile: bytes) -> bytes:
    """Return the 32-byte commitment to a profile. ``opening`` is random and new for each commitment.

    Raises ``MalformedError``.
    """
    try:
        name = label.encode()
    except UnicodeEncodeError:
        raise MalformedError("label", "is not valid Unicode") from None
    if len(opening) != OPENING_SIZE:
        raise MalformedError("opening", f"has {len(opening)} bytes instead of {OPENING_SIZE}")
    if len(name) > MAX_LABEL_SIZE:
        raise MalformedError("label", f"must have at most {MAX_LABEL_SIZE} bytes, has {len(name)}")
    if not 1 <= version <= MAX_VERSION:
        raise MalformedError("version", f"must be in 1 to {MAX_VERSION}, is {version}")
    if len(profile) > MAX_PROFILE_SIZE:
        raise MalformedError("profile", f"must have at most {MAX_PROFILE_SIZE} bytes, has {len(profile)}")
    numbered_label = len(name).to_bytes(1) + name + version.to_bytes(4)
    committed = b"".join((opening, numbered_label, len(profile).to_bytes(4), profile))
    return hmac.digest(_KC, committed, hashlib.sha256)


def opens(commitment: bytes, opening: bytes, label: str, version: int, profile: bytes) -> bool:
    """Return whether ``commitment`` opens to these values. The comparison takes constant time.

    The values come from a server that is not trusted. For values out of range the result is False.
    """
    try:
        expected = commit(opening, label, version, profile)
    except MalformedError:
        return False
    return hmac.compare_digest(expected, commitment)
