"""Applying one slice of updates to the map. Each affected page is read once and written once.

Pages are read level by level, with one ``get_many`` per level, and changed on the way down. They are hashed
and encoded on the way back up. Everything is sorted by index, so the same slice gives the same pages in the
same order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kt_es.crypto.hashes import HASH_SIZE
from kt_es.merkle.pages import (
    LEAF_HASHED,
    LEAF_SIZE,
    SLOTS,
    NodeStore,
    Slots,
    decode_page,
    encode_page,
    nibble,
    page_hash,
    page_key,
)

Pages = list[tuple[bytes, bytes]]
"""Pages to write: storage key and bytes."""


@dataclass(slots=True)
class _Open:
    """A page that updates pass through. The leaves ``low`` up to ``high`` of the slice belong below it."""

    slots: Slots
    depth: int
    low: int
    high: int
    parent: _Open | None
    position: int
    changed: bool = False


@dataclass(slots=True)
class Slice:
    """The application of one slice: new leaf slots, sorted, one per index.

    ``_version`` (u40) is the version of the new pages. The results are ``pages`` and ``added``, the number of
    new indices.
    """

    _store: NodeStore
    _version: bytes
    _leaves: list[bytes]
    pages: Pages = field(default_factory=list)
    added: int = 0

    def apply(self, root_version: bytes | None) -> bytes | None:
        """Apply the slice to the map with this version of its root page, None if the map is empty.

        The result is the new root hash, or None if nothing changed.
        """
        slots: Slots = [None] * SLOTS
        if root_version is not None:
            key = page_key(b"", 0, root_version)
            slots = decode_page(key, self._store.get_many([key])[0])
        top = _Open(slots, 0, 0, len(self._leaves), None, 0)
        levels = [[top]]
        while levels[-1]:
            levels.append(self._descend(levels[-1]))
        root = None
        for level in reversed(levels):
            for page in level:
                if page.changed:
                    root = self._close(page)
        return root

    def _descend(self, level: list[_Open]) -> list[_Open]:
        """Put leaves into the pages of one level, and read the child pages that the other leaves lead to."""
        wanted: list[tuple[_Open, int, int, int, bytes]] = []
        for page in level:
            self._spread(page, wanted)
        keys = [key for *_, key in wanted]
        return [
            _Open(decode_page(key, data), page.depth + 1, low, high, page, position)
            for (page, position, low, high, key), data in zip(
                wanted, self._store.get_many(keys) if keys else (), strict=True
            )
        ]

    def _spread(self, page: _Open, wanted: list[tuple[_Open, int, int, int, bytes]]) -> None:
        leaves, depth, slots = self._leaves, page.depth, page.slots
        low = page.low
        while low < page.high:
            position = nibble(leaves[low], depth)
            high = low + 1
            while high < page.high and nibble(leaves[high], depth) == position:
                high += 1
            slot = slots[position]
            if slot is not None and len(slot) != LEAF_SIZE:
                key = page_key(leaves[low], depth + 1, slot[HASH_SIZE:])
                wanted.append((page, position, low, high, key))
            else:
                planted = self._merge(slot, leaves[low:high], depth + 1)
                if planted != slot:
                    slots[position] = planted
                    page.changed = True
            low = high

    def _merge(self, old: bytes | None, new: list[bytes], depth: int) -> bytes:
        """Return the slot that contains the old leaf, if any, and the new leaves.

        An update that sets the same entry hash again changes nothing: the leaf keeps its version.
        """
        if old is None:
            self.added += len(new)
            return self._plant(new, depth)
        index = old[:HASH_SIZE]
        others = [leaf for leaf in new if leaf[:HASH_SIZE] != index]
        self.added += len(others)
        for leaf in new:
            if leaf[:HASH_SIZE] == index and leaf[:LEAF_HASHED] != old[:LEAF_HASHED]:
                old = leaf
        if not others:
            return old
        return self._plant(sorted([*others, old]), depth)

    def _plant(self, leaves: list[bytes], depth: int) -> bytes:
        """Return the slot of a new subtree of these leaves. Its page, if it needs one, is at ``depth``."""
        if len(leaves) == 1:
            return leaves[0]
        slots: Slots = [None] * SLOTS
        low = 0
        while low < len(leaves):
            position = nibble(leaves[low], depth)
            high = low + 1
            while high < len(leaves) and nibble(leaves[high], depth) == position:
                high += 1
            slots[position] = self._plant(leaves[low:high], depth + 1)
            low = high
        return self._write(slots, leaves[0], depth)

    def _close(self, page: _Open) -> bytes:
        """Hash and write a page whose children are closed, and put its hash and version into its parent."""
        slot = self._write(page.slots, self._leaves[page.low], page.depth)
        if page.parent is not None:
            page.parent.slots[page.position] = slot
            page.parent.changed = True
        return slot[:HASH_SIZE]

    def _write(self, slots: Slots, index: bytes, depth: int) -> bytes:
        key = page_key(index, depth, self._version)
        self.pages.append((key, encode_page(key, slots)))
        return page_hash(slots) + self._version
