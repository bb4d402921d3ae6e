"""Walks over states of the map, with each page verified: all leaves of one, and what another has replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kt_es.crypto.hashes import HASH_SIZE
from kt_es.errors import DivergenceError
from kt_es.merkle.map import LeafRef, Root, leaf_ref
from kt_es.merkle.pages import (
    EMPTY_PAGE,
    LEAF_SIZE,
    VERSION_SIZE,
    NodeStore,
    Ref,
    check_page,
    child_ref,
    child_slot,
    describe,
    page_key,
    read_pages,
    version_in,
    with_nibble,
)

_BATCH = 256
"""Pairs of pages that ``replaced`` reads together."""


def walk(store: NodeStore, root: Root, problem: Callable[[str], None]) -> Iterator[LeafRef]:
    """Yield the leaves reachable from ``root``. Memory holds one page and its children for each level.

    Leaves below a page that is missing, damaged or has a wrong hash are skipped. ``problem`` is called with a
    sentence for each such page, and for each page or leaf that is misplaced or newer than ``root``.
    """
    if root.size == 0:
        return
    newest = root.version.to_bytes(VERSION_SIZE)
    ref = child_ref(b"", 0, root.hash + newest)
    data = store.get_many([ref[0]], again=True)[0]
    yield from _Walk(store, newest, problem).below(bytes(HASH_SIZE), 0, ref, data)


@dataclass(frozen=True, slots=True)
class _Walk:
    store: NodeStore
    newest: bytes
    problem: Callable[[str], None]

    def below(self, path: bytes, depth: int, ref: Ref, data: bytes | None) -> Iterator[LeafRef]:
        """Yield the leaves below the page ``ref`` at ``path`` and ``depth``, which was read as ``data``."""
        slots = self._slots(ref, data)
        key = ref[0]
        children = {
            position: child_ref(with_nibble(path, depth, position), depth + 1, slot)
            for position, slot in enumerate(slots)
            if slot is not None and len(slot) != LEAF_SIZE
        }
        read = self.store.get_many([child for child, _ in children.values()], again=True) if children else []
        pages = dict(zip(children, read, strict=True))
        for position, slot in enumerate(slots):
            if slot is None:
                continue
            at = with_nibble(path, depth, position)
            if position in children:
                yield from self.below(at, depth + 1, children[position], pages[position])
            elif page_key(slot, depth + 1, b"") != page_key(at, depth + 1, b""):
                self.problem(
                    f"{describe(key)} has the leaf of index {slot[:HASH_SIZE].hex()}, which is elsewhere"
                )
            elif slot[-VERSION_SIZE:] > self.newest:
                self.problem(f"{describe(key)} has a leaf of an epoch to come: {slot[:HASH_SIZE].hex()}")
            else:
                yield leaf_ref(slot)

    def _slots(self, ref: Ref, data: bytes | None) -> Sequence[bytes | None]:
        try:
            slots = check_page(ref, data).slots
        except DivergenceError as error:
            self.problem(str(error))
            return []
        if version_in(ref[0]) > self.newest:
            self.problem(f"{describe(ref[0])} is of an epoch to come")
        return slots


def replaced(store: NodeStore, before: Root, after: Root) -> Iterator[bytes]:
    """Yield the keys of the pages of the map at ``before`` that the map at ``after`` does not have.

    Pages are read in batches, from the top down. Memory holds a batch and its children for each level.
    """
    stack = [(0, bytes(HASH_SIZE), before.slot, after.slot)]
    while stack:
        pairs = [pair for pair in stack[-_BATCH:] if pair[2] is not None and pair[2] != pair[3]]
        del stack[-_BATCH:]
        olds = [child_ref(index, depth, old) for depth, index, old, _ in pairs if old is not None]
        news = [child_ref(index, depth, new) for depth, index, _, new in pairs if new is not None]
        yield from (key for key, _ in olds)
        there = iter(read_pages(store, None, news))
        stack += [
            (depth + 1, with_nibble(index, depth, position), child_slot(old), child_slot(new))
            for (depth, index, _, slot), page in zip(pairs, read_pages(store, None, olds), strict=True)
            for position, (old, new) in enumerate(
                zip(page.slots, (EMPTY_PAGE if slot is None else next(there)).slots, strict=True)
            )
        ]
