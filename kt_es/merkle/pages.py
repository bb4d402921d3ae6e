"""Pages of the map: sixteen slots for one nibble of the path (docs/DESIGN.md, section 5).

Pages are never overwritten. The key of a page consists of the path of nibbles that leads to the page, the
version (epoch) that wrote it, and the first bytes of its hash::

    key    u8 depth in nibbles || path, ceil(depth / 2) bytes, an odd end padded by 0
           || u40 version || hash of the page, first 8 bytes
    page   u16 bitmap of leaf slots || u16 bitmap of child slots || slots in order || u32 CRC-32
    leaf   index 32 bytes || entry hash 32 bytes || u40 version that wrote the leaf      69 bytes
    child  hash of the subtree 32 bytes || u40 version of its page                       37 bytes

All integers are big-endian. Bit n of a bitmap, counted from the least significant bit, is slot n. The CRC
covers the key and the page, so it detects a changed version, which no hash covers. A child slot, and the
root of the map, name the whole hash of a page: ``read_pages`` refuses every page that has another one,
wherever it comes from. So two writers of one version never overwrite each other's pages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import compress
from operator import is_not
from typing import NamedTuple, Protocol
from zlib import crc32

from kt_es.crypto.hashes import HASH_SIZE, MAP_EMPTY
from kt_es.errors import UnverifiedRowError

SLOTS = 16
VERSION_SIZE = 5
KEY_HASH_SIZE = 8
MAX_VERSION = (1 << (8 * VERSION_SIZE)) - 1
LEAF_SIZE = 2 * HASH_SIZE + VERSION_SIZE
CHILD_SIZE = HASH_SIZE + VERSION_SIZE
LEAF_HASHED = 2 * HASH_SIZE

Slots = list[bytes | None]

Ref = tuple[bytes, bytes]
"""The key of a page, and its hash."""


class Page(NamedTuple):
    """A page in memory, with the binary tree within it.

    The tree has 31 nodes: 16 of the slots, then 8, 4, 2 and 1 above them (``LEVELS``). The parent of node
    ``n`` is ``16 + n // 2``. All parts are tuples of bytes, so they cost the garbage collector nothing.

    Attributes:
        slots: The 16 slots, None for an empty one. The length of a slot determines its kind.
        hashes: The hashes of the nodes, None for an empty subtree.
        leaves: The leaf slot of each node that has only one leaf, which represents the subtree.
    """

    slots: tuple[bytes | None, ...]
    hashes: tuple[bytes | None, ...]
    leaves: tuple[bytes | None, ...]

    def with_slots(self, slots: Slots) -> Page:
        """Return the page of ``slots``. Only what differs from this page is hashed."""
        hashes, leaves = list(self.hashes), list(self.leaves)
        changed = 0  # a bit for each slot
        for at in compress(_POSITIONS, map(is_not, slots, self.slots)):
            slot = slots[at]
            if slot is None:
                hashes[at] = leaves[at] = None
            elif len(slot) == LEAF_SIZE:
                hashes[at], leaves[at] = sha256(b"\x00" + slot[:LEAF_HASHED]).digest(), slot
            else:
                hashes[at], leaves[at] = slot[:HASH_SIZE], None
            changed |= 1 << at
        for at, below, beside in _above(changed):
            left, right = hashes[below], hashes[beside]
            # A subtree with one leaf is this leaf, however high it stands.
            if right is None and (left is None or leaves[below] is not None):
                hashes[at], leaves[at] = left, leaves[below]
            elif left is None and leaves[beside] is not None:
                hashes[at], leaves[at] = right, leaves[beside]
            else:
                pair = b"\x01" + (left or MAP_EMPTY) + (right or MAP_EMPTY)
                hashes[at], leaves[at] = sha256(pair).digest(), None
        return Page(tuple(slots), tuple(hashes), tuple(leaves))

    @property
    def hash(self) -> bytes:
        """The hash of the subtree whose top is this page."""
        return self.hashes[-1] or MAP_EMPTY


LEVELS = (0, 16, 24, 28, 30)
"""The number of the first node of each level, from the slots to the top."""

NODES = 31
_POSITIONS = range(SLOTS)
# Each node above the slots with the two below it.
_NODES = tuple((at, 2 * (at - SLOTS), 2 * (at - SLOTS) + 1) for at in range(SLOTS, NODES))


@lru_cache(4096)
def _above(changed: int) -> tuple[tuple[int, int, int], ...]:
    """Return the nodes above the slots of the bits of ``changed``, from the lowest level to the top."""
    above = []
    for node in _NODES:
        at, below, beside = node
        if changed >> below & 1 or changed >> beside & 1:
            changed |= 1 << at
            above.append(node)
    return tuple(above)


EMPTY_PAGE = Page((None,) * SLOTS, (None,) * NODES, (None,) * NODES)

_HEAD = struct.Struct(">HH")
_CRC = struct.Struct(">I")
_TAIL = VERSION_SIZE + KEY_HASH_SIZE


class NodeStore(Protocol):
    """The store from which the map reads its pages. The caller of the map writes them in its own batch."""

    def get_many(self, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        """Return the values of ``keys`` in the same order, with None for each key that is not stored.

        ``again`` says that what was read before is missing or wrong. A store with several copies asks for
        more of them.
        """
        ...


class PageCache(Protocol):
    """Pages that were verified, by key. Several threads may use it."""

    def get(self, key: bytes) -> Page | None: ...

    def put(self, key: bytes, page: Page) -> None: ...

    def add(self, key: bytes, page: Page) -> None:
        """Keep a new page if no other one has to go for it."""
        ...

    def drop(self, key: bytes) -> bool:
        """Forget a page, since the newest map has another one in its place. Return whether it was here."""
        ...


def page_key(index: bytes, depth: int, child: bytes) -> bytes:
    """Return the key of the page at ``depth`` on the path of ``index``, which the slot ``child`` names."""
    tail = child[HASH_SIZE:] + child[:KEY_HASH_SIZE]
    if depth & 1:
        at = depth >> 1
        return bytes((depth,)) + index[:at] + bytes((index[at] & 0xF0,)) + tail
    return bytes((depth,)) + index[: depth >> 1] + tail


def child_ref(index: bytes, depth: int, child: bytes) -> Ref:
    """Return the page at ``depth`` on the path of ``index``, which the slot ``child`` names."""
    return page_key(index, depth, child), child[:HASH_SIZE]


def child_slot(slot: bytes | None) -> bytes | None:
    """Return ``slot`` if it names a page, otherwise None."""
    return None if slot is None or len(slot) == LEAF_SIZE else slot


def nibble(index: bytes, depth: int) -> int:
    """Return the number of the slot of ``index`` in the page at ``depth``, 0 to 15."""
    byte = index[depth >> 1]
    return byte & 15 if depth & 1 else byte >> 4


def runs(indices: Sequence[bytes], low: int, high: int, depth: int) -> Iterator[tuple[int, int, int]]:
    """Yield for each slot of a page at ``depth`` which of its indices it is for: slot, first, end.

    ``indices`` from ``low`` up to ``high`` are sorted, and the page is on the path of all of them.
    """
    at, shift = depth >> 1, 0 if depth & 1 else 4
    while low < high:
        position = indices[low][at] >> shift & 15
        end = low + 1
        while end < high and indices[end][at] >> shift & 15 == position:
            end += 1
        yield position, low, end
        low = end


def with_nibble(index: bytes, depth: int, position: int) -> bytes:
    """Return ``index`` with its nibble number ``depth`` set to ``position``."""
    at = depth >> 1
    byte = (index[at] & 0xF0 | position) if depth & 1 else (index[at] & 0x0F | position << 4)
    return index[:at] + bytes((byte,)) + index[at + 1 :]


def describe(key: bytes) -> str:
    """Return the name of the page of ``key`` for messages: its path in hex digits and its version."""
    path = key[1:-_TAIL].hex()[: key[0]]
    return f"map page {path or 'root'} of version {int.from_bytes(version_in(key))}"


def version_in(key: bytes) -> bytes:
    """Return the version in the key of a page, u40."""
    return key[-_TAIL:-KEY_HASH_SIZE]


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
    """Return the 16 slots of the page stored under ``key``, whose size, bitmaps and CRC are checked."""
    if data is None:
        raise UnverifiedRowError(f"{describe(key)} is missing")
    if len(data) < _HEAD.size + _CRC.size:
        raise UnverifiedRowError(f"{describe(key)} is damaged: {len(data)} bytes are too few")
    leaves, children = _HEAD.unpack_from(data)
    end = _HEAD.size + LEAF_SIZE * leaves.bit_count() + CHILD_SIZE * children.bit_count()
    if leaves & children or not leaves | children or len(data) != end + _CRC.size:
        raise UnverifiedRowError(f"{describe(key)} is damaged: its slots and its size do not agree")
    (checksum,) = _CRC.unpack_from(data, end)
    if crc32(data[:end], crc32(key)) != checksum:
        raise UnverifiedRowError(f"{describe(key)} is damaged: its checksum is wrong")
    slots: Slots = [None] * SLOTS
    at = _HEAD.size
    used = leaves | children
    while used:
        lowest = used & -used
        size = LEAF_SIZE if leaves & lowest else CHILD_SIZE
        slots[lowest.bit_length() - 1] = data[at : at + size]
        at += size
        used ^= lowest
    return slots


def check_page(ref: Ref, data: bytes | None) -> Page:
    """Return the page that ``ref`` names from what is stored under its key.

    Raises:
        UnverifiedRowError: The page is missing, damaged, or has another hash.
    """
    key, must = ref
    page = EMPTY_PAGE.with_slots(decode_page(key, data))
    if page.hash != must:
        raise UnverifiedRowError(f"{describe(key)} hashes to {page.hash.hex()}, its parent says {must.hex()}")
    return page


def read_pages(
    store: NodeStore,
    cache: PageCache | None,
    refs: Sequence[Ref],
    *,
    again: bool = False,
    keep: bool = True,
) -> list[Page]:
    """Return the pages of ``refs`` in the same order: from ``cache``, and the others from ``store``.

    A page that is missing or wrong is asked for once more. With ``again`` all are read from more replicas at
    once, and none from the cache. Without ``keep`` none is put into the cache. Raises what ``check_page``
    raises.
    """
    found: dict[Ref, Page] = {}
    missing: list[Ref] = []
    for ref in dict.fromkeys(refs):
        page = None if cache is None or again else cache.get(ref[0])
        # The key has a part of the hash only.
        if page is not None and page.hash == ref[1]:
            found[ref] = page
        else:
            missing.append(ref)
    if missing:
        stored = store.get_many([key for key, _ in missing], again=again)
        for ref, data in zip(missing, stored, strict=True):
            try:
                found[ref] = check_page(ref, data)
            except UnverifiedRowError:
                if again:
                    raise
                found[ref] = check_page(ref, store.get_many([ref[0]], again=True)[0])
            if cache is not None and keep:
                cache.put(ref[0], found[ref])
    return [found[ref] for ref in refs]
