"""SHA-256 and the domain-separated hashes of both Merkle structures.

See docs/DESIGN.md, section 3, and RFC 6962, 2.1.
"""

from __future__ import annotations

import hashlib

HASH_SIZE = 32

MAP_EMPTY = bytes(HASH_SIZE)
"""What stands for an empty subtree of the map, and for the root of an empty map."""

EMPTY_LOG_ROOT = hashlib.sha256(b"").digest()
"""Root of the log of no leaves (RFC 6962, 2.1)."""


def sha256(data: bytes) -> bytes:
    """SHA-256 of ``data``, 32 bytes."""
    return hashlib.sha256(data).digest()


def log_leaf_hash(data: bytes) -> bytes:
    """``H(0x00 || data)``: a leaf of a log, ``data`` being the record's or the SMH's bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def log_node_hash(left: bytes, right: bytes) -> bytes:
    """``H(0x01 || left || right)``: an inner node of a log, both children 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def map_leaf_hash(index: bytes, entry_hash: bytes) -> bytes:
    """``H(0x00 || index || entry hash)``: a leaf of the map, both parts 32 bytes."""
    return hashlib.sha256(b"\x00" + index + entry_hash).digest()


def map_node_hash(left: bytes, right: bytes) -> bytes:
    """``H(0x01 || left || right)``: an inner node of the map; an empty child is ``MAP_EMPTY``."""
    return hashlib.sha256(b"\x01" + left + right).digest()
