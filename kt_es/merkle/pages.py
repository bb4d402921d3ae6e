"""Pages of the map: sixteen slots, one nibble of the path, never overwritten (docs/DESIGN.md, section 5).

A page stands under the path of nibbles that leads to it and the version (epoch) that wrote it::

    key    u8 depth in nibbles || path, ceil(depth / 2) bytes, an odd end padded by 0 || u40 version
    page   u16 bitmap of leaf slots || u16 bitmap of child slots || slots in order || u32 CRC-32
    leaf   index 32 bytes || entry hash 32 bytes || u40 version that wrote the leaf      69 bytes
    child  hash of the subtree 32 bytes || u40 version of its page                       37 bytes

All integers are big-endian, bit n of a bitmap (from the least significant) is slot n. The CRC is
over key and page, so a changed byte or a page in another's place is noticed before it is believed.
In memory a page is the list of its slots as bytes, None where empty; their length tells their kind.
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
"""A non-empty node of the binary tree: its hash, and its only leaf's slot if it has but one leaf."""

Checked = tuple[bytes, int, int]
"""A page as it is stored, and its two bitmaps."""

_HEAD = struct.Struct(">HH")
_CRC = struct.Struct(">I")


class NodeStore(Protocol):
    """Where the map's pages are read from; writing them is the caller's, in its own atomic batch."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of ``keys`` in their order, None for each one that is not stored."""
        ...


def page_key(index: bytes, depth: int, version: bytes) -> bytes:
    """The key of the page ``depth`` nibbles down the path of ``index``, written by ``version`` (u40)."""
    if depth & 1:
        at = depth >> 1
        return bytes((depth,)) + index[:at] + bytes((index[at] & 0xF0,)) + version
    return bytes((depth,)) + index[: depth >> 1] + version


def nibble(index: bytes, depth: int) -> int:
    """The slot of ``index`` in the page at ``depth``, 0 to 15."""
    byte = index[depth >> 1]
    return byte & 15 if depth & 1 else byte >> 4


def describe(key: bytes) -> str:
    """The page of ``key`` for a person: its path in hex digits and its version."""
    path = key[1:-VERSION_SIZE].hex()[: key[0]]
    return f"map page {path or 'root'} of version {int.from_bytes(key[-VERSION_SIZE:])}"


def encode_page(key: bytes, slots: Slots) -> bytes:
    """The bytes of a page; ``slots`` are 16 leaf or child slots or None."""
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
    """The 16 slots of the page stored under ``key``; DivergenceError if it is missing or damaged."""
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
    """The page stored under ``key``, once its size, bitmaps and CRC agree; errors as above."""
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
    """One slot of a page, without decoding the others."""
    page, leaves, children = checked
    bit = 1 << position
    if not (leaves | children) & bit:
        return None
    before = bit - 1
    at = _HEAD.size + LEAF_SIZE * (leaves & before).bit_count() + CHILD_SIZE * (children & before).bit_count()
    return page[at : at + (LEAF_SIZE if leaves & bit else CHILD_SIZE)]


def fold(slots: Slots) -> list[list[Node | None]]:
    """The binary tree within a page: 16 nodes, then 8, 4, 2 and the page's one.

    A subtree with one leaf is that leaf; None stands for an empty one.
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
    """The hash of the subtree that a page is the top of."""
    top = fold(slots)[-1][0]
    return MAP_EMPTY if top is None else top[0]
