"""Applying one slice of updates to the map. Each affected page is read once and written once.

Pages are read level by level, with one ``get_many`` per level, and changed on the way down. They are hashed
and encoded on the way back up. Everything is sorted by index, so the same slice gives the same pages in the
same order.

An update goes through the whole map, so what it reads would be gone from a cache that has not room for all
before the next update comes there. So the cache keeps what lookups brought, in its newest version, and other
pages only while there is room.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kt_es.crypto.hashes import HASH_SIZE
from kt_es.merkle.pages import (
    EMPTY_PAGE,
    LEAF_HASHED,
    LEAF_SIZE,
    SLOTS,
    NodeStore,
    Page,
    PageCache,
    Ref,
    Slots,
    child_ref,
    encode_page,
    page_key,
    read_pages,
    runs,
)

Pages = list[tuple[bytes, bytes | None]]
"""Keys with the pages to write, and with None for pages that they replace, of this or an earlier version."""


@dataclass(slots=True)
class _Open:
    """A page that updates pass through. The leaves ``low`` up to ``high`` of the slice belong below it."""

    before: Page
    slots: Slots  # of ``before``, with the changes
    depth: int
    low: int
    high: int
    parent: _Open | None
    position: int
    key: bytes | None
    changed: bool = False


@dataclass(slots=True)
class Slice:
    """The application of one slice: new leaf slots, sorted, one per index.

    ``_version`` (u40) is the version of the new pages. The results are ``pages`` and ``added``, the number of
    new indices.
    """

    _store: NodeStore
    _cache: PageCache | None
    _version: bytes
    _leaves: list[bytes]
    pages: Pages = field(default_factory=list)
    added: int = 0

    def apply(self, root: bytes | None) -> bytes | None:
        """Apply the slice to the map whose root page ``root`` names like a child slot; None if it is empty.

        The result is the new root hash, or None if nothing changed.
        """
        top = _Open(EMPTY_PAGE, [None] * SLOTS, 0, 0, len(self._leaves), None, 0, None)
        if root is not None:
            ref = child_ref(b"", 0, root)
            (page,) = read_pages(self._store, self._cache, [ref], keep=False)
            top = _Open(page, list(page.slots), 0, 0, len(self._leaves), None, 0, ref[0])
        levels = [[top]]
        while levels[-1]:
            levels.append(self._descend(levels[-1]))
        changed = None
        for level in reversed(levels):
            for opened in level:
                if opened.changed:
                    changed = self._close(opened)
        return changed

    def _descend(self, level: list[_Open]) -> list[_Open]:
        """Put leaves into the pages of one level, and read the child pages that the other leaves lead to."""
        wanted: list[tuple[_Open, int, int, int, Ref]] = []
        for page in level:
            self._spread(page, wanted)
        pages = read_pages(self._store, self._cache, [ref for *_, ref in wanted], keep=False)
        return [
            _Open(page, list(page.slots), above.depth + 1, low, high, above, position, ref[0])
            for (above, position, low, high, ref), page in zip(wanted, pages, strict=True)
        ]

    def _spread(self, page: _Open, wanted: list[tuple[_Open, int, int, int, Ref]]) -> None:
        leaves, depth, slots = self._leaves, page.depth, page.slots
        for position, low, high in runs(leaves, page.low, page.high, depth):
            slot = slots[position]
            if slot is not None and len(slot) != LEAF_SIZE:
                wanted.append((page, position, low, high, child_ref(leaves[low], depth + 1, slot)))
            else:
                planted = self._merge(slot, leaves[low:high], depth + 1)
                if planted != slot:
                    slots[position] = planted
                    page.changed = True

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
        for position, low, high in runs(leaves, 0, len(leaves), depth):
            slots[position] = self._plant(leaves[low:high], depth + 1)
        return self._write(EMPTY_PAGE, slots, leaves[0], depth)

    def _close(self, page: _Open) -> bytes:
        """Hash and write a page whose children are closed, and put its hash and version into its parent."""
        was_kept = page.key is not None and self._cache is not None and self._cache.drop(page.key)
        slot = self._write(page.before, page.slots, self._leaves[page.low], page.depth, was_kept=was_kept)
        if page.key is not None:
            self.pages.append((page.key, None))
        if page.parent is not None:
            page.parent.slots[page.position] = slot
            page.parent.changed = True
        return slot[:HASH_SIZE]

    def _write(
        self, before: Page, slots: Slots, index: bytes, depth: int, *, was_kept: bool = False
    ) -> bytes:
        page = before.with_slots(slots)
        slot = page.hash + self._version
        key = page_key(index, depth, slot)
        self.pages.append((key, encode_page(key, slots)))
        if self._cache is not None:
            (self._cache.put if was_kept else self._cache.add)(key, page)
        return slot
