"""Pages of the map: sixteen slots for one nibble of the path (docs/DESIGN.md, section 5).

Pages of a committed epoch are never overwritten. The key of a page consists of the path of nibbles that leads
to the page and the version (epoch) that wrote it::

    key    u8 depth in nibbles || path, ceil(depth / 2) bytes, an odd end padded by 0 || u40 version
    page   u16 bitmap of leaf slots || u16 bitmap of child slots || slots in order || u32 CRC-32
    leaf   index 32 bytes || entry hash 32 bytes || u40 version that wrote the leaf      69 bytes
    child  hash of the subtree 32 bytes || u40 version of its page                       37 bytes

All integers are big-endian. Bit n of a bitmap, counted from the least significant bit, is slot n. The CRC
covers the key and the page, so it detects a changed byte and also a page that is stored under the key of
another page. In memory, a page is the list of its slots as bytes, or None for an empty slot. The length of a
slot determines its kind.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol
from zlib import crc32

from kt_es.crypto.hashes import HASH_SIZE, MAP_EMPTY
from kt_es.errors import DivergenceError

SLOTS = 16
VERSION_SIZE = 5
MAX_VERSION = (1 << (8 * VERSION_SIZE)) - 1
LEAF_SIZE = 2 * HASH_SIZE + VERSION_SIZE
CHILD_SIZE = HASH_SIZE + VERSION_SIZE
LEAF_HASHED = 2 * HASH_SIZE

Slots = list[bytes | None]

Node = tuple[bytes, bytes | None]
"""A non-empty node of the binary tree: its hash, and the slot of its leaf if it has only one leaf."""

Checked = tuple[bytes, int, int]
"""A page as it is stored, with its bitmaps of leaf slots and of child slots."""

_HEAD = struct.Struct(">HH")
_CRC = struct.Struct(">I")


class NodeStore(Protocol):
    """The store from which the map reads its pages. The caller of the map writes them in its own batch."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of ``keys`` in the same order, with None for each key that is not stored."""
        ...


def page_key(index: bytes, depth: int, version: bytes) -> bytes:
    """Return the key of the page at ``depth`` on the path of ``index``, written by ``version`` (u40)."""
    if depth & 1:
        at = depth >> 1
        return bytes((depth,)) + index[:at] + bytes((index[at] & 0xF0,)) + version
    return bytes((depth,)) + index[: depth >> 1] + version


def nibble(index: bytes, depth: int) -> int:
    """Return the number of the slot of ``index`` in the page at ``depth``, 0 to 15."""
    byte = index[depth >> 1]
    return byte & 15 if depth & 1 else byte >> 4


def describe(key: bytes) -> str:
    """Return the name of the page of ``key`` for messages: its path in hex digits and its version."""
    path = key[1:-VERSION_SIZE].hex()[: key[0]]
    return f"map page {path or 'root'} of version {int.from_bytes(key[-VERSION_SIZE:])}"


def encode_page(key: bytes, slots: Slots) -> bytes:
    """Encode a page. ``slots`` has 16 items: a leaf slot, a child slot or None."""
    leaves = children = 0
    for position, slot in enumerate(slots):
        if slot is not None:
            if len(slot) == LEAF_SIZE:
                leaves |= 1 << position
            else:
                children |= 1 << position
    body = _HEAD.pack(leaves, children) + b"".join(filter(None, slots))
    return body + _CRC.pack(crc32(body, crc32(key)))


def decode_page(key: bytes, data: bytes | None) -> Slots:
    """Return the 16 slots of the page stored under ``key``. Raises ``DivergenceError``."""
    page, leaves, children = check_page(key, data)
    slots: Slots = [None] * SLOTS
    at = _HEAD.size
    used = leaves | children
    while used:
        lowest = used & -used
        size = LEAF_SIZE if leaves & lowest else CHILD_SIZE
        slots[lowest.bit_length() - 1] = page[at : at + size]
        at += size
        used ^= lowest
    return slots


def check_page(key: bytes, data: bytes | None) -> Checked:
    """Check the size, bitmaps and CRC of the page stored under ``key``, and return the page.

    Raises ``DivergenceError``.
    """
    if data is None:
        raise DivergenceError(f"{describe(key)} is missing")
    if len(data) < _HEAD.size + _CRC.size:
        raise DivergenceError(f"{describe(key)} is damaged: {len(data)} bytes are too few")
    leaves, children = _HEAD.unpack_from(data)
    size = _HEAD.size + LEAF_SIZE * leaves.bit_count() + CHILD_SIZE * children.bit_count() + _CRC.size
    if leaves & children or not leaves | children or len(data) != size:
        raise DivergenceError(f"{describe(key)} is damaged: its slots and its size do not agree")
    (checksum,) = _CRC.unpack_from(data, size - _CRC.size)
    if crc32(data[: size - _CRC.size], crc32(key)) != checksum:
        raise DivergenceError(f"{describe(key)} is damaged: its checksum is wrong")
    return data, leaves, children


def read_slot(checked: Checked, position: int) -> bytes | None:
    """Return one slot of a page without decoding the others."""
    page, leaves, children = checked
    bit = 1 << position
    if not (leaves | children) & bit:
        return None
    before = bit - 1
    at = _HEAD.size + LEAF_SIZE * (leaves & before).bit_count() + CHILD_SIZE * (children & before).bit_count()
    return page[at : at + (LEAF_SIZE if leaves & bit else CHILD_SIZE)]


def fold(slots: Slots) -> list[list[Node | None]]:
    """Return the binary tree within a page: levels of 16, 8, 4, 2 and 1 nodes.

    A subtree with only one leaf is represented by this leaf. None represents an empty subtree.
    """
    nodes: list[Node | None] = [
        None
        if slot is None
        else (sha256(b"\x00" + slot[:LEAF_HASHED]).digest(), slot)
        if len(slot) == LEAF_SIZE
        else (slot[:HASH_SIZE], None)
        for slot in slots
    ]
    levels = [nodes]
    while len(nodes) > 1:
        above: list[Node | None] = []
        for at in range(0, len(nodes), 2):
            left, right = nodes[at], nodes[at + 1]
            if left is None:
                if right is None or right[1] is not None:
                    above.append(right)
                else:
                    above.append((sha256(b"\x01" + MAP_EMPTY + right[0]).digest(), None))
            elif right is None:
                if left[1] is not None:
                    above.append(left)
                else:
                    above.append((sha256(b"\x01" + left[0] + MAP_EMPTY).digest(), None))
            else:
                above.append((sha256(b"\x01" + left[0] + right[0]).digest(), None))
        levels.append(above)
        nodes = above
    return levels


def page_hash(slots: Slots) -> bytes:
    """Return the hash of the subtree whose top is this page."""
    top = fold(slots)[-1][0]
    return MAP_EMPTY if top is None else top[0]
