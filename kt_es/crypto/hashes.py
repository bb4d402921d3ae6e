"""SHA-256 and the domain-separated hashes of both Merkle structures.

See docs/DESIGN.md, section 3, and RFC 6962, 2.1.
"""

from __future__ import annotations

import hashlib

HASH_SIZE = 32

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
    """Return ``H(0x01 || left || right)``, the hash of an inner node of the map.

    The hash of an empty child is ``MAP_EMPTY``.
    """
    return hashlib.sha256(b"\x01" + left + right).digest()
