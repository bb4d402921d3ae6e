"""The versioned sparse Merkle map: lookups, proofs and updates at any epoch. DESIGN, sections 3 and 5.

A ``Root`` names one state of the map. A read from a root uses only pages that the root leads to. Pages are
never overwritten after their epoch is committed, so readers of past epochs need no lock while the next epoch
is written. This module writes nothing: ``apply`` returns the pages, and the caller writes them in its own
atomic batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kt_es.crypto.hashes import HASH_SIZE, MAP_EMPTY
from kt_es.errors import MalformedError, UnverifiedRowError
from kt_es.merkle.descent import Descent
from kt_es.merkle.pages import (
    LEAF_HASHED,
    LEAF_SIZE,
    MAX_VERSION,
    SLOTS,
    VERSION_SIZE,
    NodeStore,
    Page,
    PageCache,
    Ref,
    child_ref,
    child_slot,
    nibble,
    read_pages,
    runs,
    with_nibble,
)
from kt_es.merkle.update import Pages, Slice
from kt_es.merkle.verify import MapProof
from kt_es.values import frequent_value


@dataclass(frozen=True, slots=True)
class Root:
    """One state of the map: the version of its root page, its root hash and its number of entries."""

    version: int
    hash: bytes
    size: int

    def __post_init__(self) -> None:
        if not 0 <= self.version <= MAX_VERSION or self.size < 0 or len(self.hash) != HASH_SIZE:
            raise MalformedError("map root", "a version, a hash or a size is out of range")
        if (self.size == 0) != (self.hash == MAP_EMPTY) or (self.size == 0) != (self.version == 0):
            raise MalformedError("map root", "the empty map has version 0 and the empty hash, no other has")

    @property
    def slot(self) -> bytes | None:
        """The root page as a child slot names it; None for the empty map."""
        return self.hash + self.version.to_bytes(VERSION_SIZE) if self.size else None


_WRONG_SIZE = f"an index or an entry hash has not {HASH_SIZE} bytes"

EMPTY_ROOT = Root(0, MAP_EMPTY, 0)
"""The map before the first entry."""


@frequent_value
class LeafRef:
    """The entry hash at an index, and the epoch (``version``) that wrote it."""

    index: bytes
    entry_hash: bytes
    version: int


class Map:
    """The map over a store of pages, which need not be trusted: a page is used only if it has its hash.

    Several threads can share a map: it has no state but ``cache``, which keeps pages that were verified.
    """

    def __init__(self, store: NodeStore, cache: PageCache | None = None) -> None:
        self._store = store
        self._cache = cache

    def apply(self, root: Root, version: int, updates: Iterable[tuple[bytes, bytes]]) -> tuple[Root, Pages]:
        """Apply updates to the map at ``root``. Return the new root and the pages to write.

        An epoch can be applied in several slices: write the pages of one slice, then apply the next slice to
        the new root with the same version. A later slice deletes pages of the same version that it replaces.
        All updates of one index must be in one slice, where the last one counts. A slice needs about 2 kB of
        memory per update.

        Pages of an epoch that was never committed are harmless: no root leads to them, and applying the same
        updates again writes the same final pages.

        Args:
            version: The epoch that is built, from 1 and not below ``root.version``.
            updates: Pairs of index and entry hash, 32 bytes each.

        Raises ``ValueError`` or ``DivergenceError``.
        """
        stamp = _stamp(root, version)
        latest = dict(updates)
        if any(len(index) != HASH_SIZE for index in latest):
            raise ValueError(_WRONG_SIZE)
        leaves = sorted([index + entry_hash + stamp for index, entry_hash in latest.items()])
        return self._plant(root, version, leaves)

    def load(self, root: Root, version: int, leaves: Iterable[LeafRef]) -> tuple[Root, Pages]:
        """Insert leaves with their original versions. Otherwise like ``apply``.

        This rebuilds a map from its leaves. The version of a leaf must not be above ``version``. The hashes
        of the map do not depend on the versions of pages and leaves.
        """
        slots = [leaf.index + leaf.entry_hash + leaf.version.to_bytes(VERSION_SIZE) for leaf in leaves]
        return self._plant(root, version, sorted(slots))

    def _plant(self, root: Root, version: int, leaves: list[bytes]) -> tuple[Root, Pages]:
        if any(len(leaf) != LEAF_SIZE for leaf in leaves):
            raise ValueError(_WRONG_SIZE)
        work = Slice(self._store, self._cache, _stamp(root, version), leaves)
        changed = work.apply(root.slot)
        if changed is None:
            return root, []
        return Root(version, changed, root.size + work.added), work.pages

    def lookup_many(self, root: Root, indices: Sequence[bytes]) -> list[LeafRef | None]:
        """Return the leaf of each index at ``root``, or None where the map has none.

        Pages are read in one batch per level, each of them once.
        """
        found: list[LeafRef | None] = [None] * len(indices)
        order = sorted(range(len(indices)), key=indices.__getitem__)
        path = [indices[at] for at in order]
        # The slot that names a page, and which indices of ``path`` lead to the page.
        groups = [(root.slot, 0, len(path))] if path and root.slot is not None else []
        depth, refs = 0, list[Ref]()
        while groups:
            above, refs = refs, [child_ref(path[low], depth, slot) for slot, low, _ in groups]
            pages = self._read(refs, above)
            below = []
            for (_, low, high), page in zip(groups, pages, strict=True):
                for position, start, end in runs(path, low, high, depth):
                    slot = page.slots[position]
                    if slot is None:
                        continue
                    if len(slot) != LEAF_SIZE:
                        below.append((slot, start, end))
                        continue
                    for at in range(start, end):
                        if slot[:HASH_SIZE] == path[at]:
                            found[order[at]] = leaf_ref(slot)
            groups = below
            depth += 1
        return found

    def lookup(self, root: Root, index: bytes) -> LeafRef | None:
        """Return the leaf of one index at ``root``, or None if the map has none."""
        return self.lookup_many(root, [index])[0]

    def leaf_near(self, root: Root, index: bytes) -> LeafRef:
        """Return the leaf at the end of the path of ``index`` in a map that is not empty.

        At a slot that is empty the path goes on to the next one, so there is a leaf for each index.
        """
        slot, depth, refs = root.slot or b"", 0, list[Ref]()
        while len(slot) != LEAF_SIZE:
            above, refs = refs, [child_ref(index, depth, slot)]
            slots = self._read(refs, above)[0].slots
            first = nibble(index, depth)
            others = [(first + step) % SLOTS for step in range(SLOTS)]
            at, slot = next((at, found) for at in others if (found := slots[at]) is not None)
            index, depth = with_nibble(index, depth, at), depth + 1
        return leaf_ref(slot)

    def find_many(self, root: Root, indices: Sequence[bytes]) -> list[tuple[MapProof, LeafRef | None]]:
        """Return a proof and the leaf of each index at ``root``. The leaf is None if the proof shows absence.

        Pages are read in one batch per level.
        """
        paths = [Descent(index, root.slot) for index in indices]
        depth, refs = 0, list[Ref]()
        while pending := [(path, path.slot) for path in paths if path.slot is not None]:
            named = {slot: path.index for path, slot in pending}
            above, refs = refs, [child_ref(index, depth, slot) for slot, index in named.items()]
            pages = dict(zip(named, self._read(refs, above), strict=True))
            for path, slot in pending:
                path.descend(pages[slot], nibble(path.index, depth))
            depth += 1
        found = [path.leaf for path in paths]
        return [
            (path.proof(), None if leaf is None else leaf_ref(leaf))
            for path, leaf in zip(paths, found, strict=True)
        ]

    def find(self, root: Root, index: bytes) -> tuple[MapProof, LeafRef | None]:
        """Return a proof and the leaf of one index at ``root`` (see ``find_many``)."""
        return self.find_many(root, [index])[0]

    def prove(self, root: Root, index: bytes) -> MapProof:
        """Return a proof of inclusion or absence of one index at ``root``."""
        return self.find(root, index)[0]

    def pages_of(self, root: Root, keys: Sequence[bytes]) -> set[bytes]:
        """Return those of the page ``keys`` that belong to the map at ``root``."""
        found: set[bytes] = set()
        paths = [(key, key[1:].ljust(HASH_SIZE, b"\0"), root.slot) for key in keys]
        for depth in range(1 + max((key[0] for key in keys), default=0)):
            pending = [(key, index, slot) for key, index, slot in paths if slot is not None]
            found.update(key for key, index, slot in pending if child_ref(index, depth, slot)[0] == key)
            pending = [path for path in pending if path[0][0] > depth]
            pages = self._read([child_ref(index, depth, slot) for _, index, slot in pending])
            paths = [
                (key, index, child_slot(page.slots[nibble(index, depth)]))
                for (key, index, _), page in zip(pending, pages, strict=True)
            ]
        return found

    def warm(self, root: Root, levels: int) -> None:
        """Read the pages of the first ``levels`` levels at ``root`` into the cache, and verify them."""
        paths = [] if root.slot is None else [(bytes(HASH_SIZE), root.slot)]
        for depth in range(levels):
            pages = self._read([child_ref(index, depth, slot) for index, slot in paths])
            paths = [
                (with_nibble(index, depth, position), slot)
                for (index, _), page in zip(paths, pages, strict=True)
                for position, slot in enumerate(map(child_slot, page.slots))
                if slot is not None
            ]

    def lookup_again(self, root: Root, index: bytes) -> LeafRef | None:
        """Return what ``lookup`` returns, from more replicas at once, and replace the pages in the cache.

        For a leaf whose entry was not found: a leaf has the version of its entry, which no hash covers.
        """
        held, slot, depth = None, root.slot, 0
        while slot is not None:
            (page,) = read_pages(self._store, self._cache, [child_ref(index, depth, slot)], again=True)
            held = page.slots[nibble(index, depth)]
            slot, depth = child_slot(held), depth + 1
        return None if held is None or held[:HASH_SIZE] != index else leaf_ref(held)

    def _read(self, refs: list[Ref], above: Iterable[Ref] = ()) -> list[Page]:
        """Return the pages of ``refs``, which the pages ``above`` name.

        A page names the versions of those below it, and no hash covers them. So a page whose child is not
        found may be wrong in that, and is not kept.
        """
        try:
            return read_pages(self._store, self._cache, refs)
        except UnverifiedRowError:
            if self._cache is not None:
                for key, _ in above:
                    self._cache.drop(key)
            raise


def _stamp(root: Root, version: int) -> bytes:
    """Return the encoding of ``version``, which must be able to follow ``root``."""
    if not max(1, root.version) <= version <= MAX_VERSION:
        raise ValueError(f"version {version} cannot follow version {root.version} of the map")
    return version.to_bytes(VERSION_SIZE)


def leaf_ref(slot: bytes) -> LeafRef:
    """Decode a leaf slot of a page."""
    return LeafRef(slot[:HASH_SIZE], slot[HASH_SIZE:LEAF_HASHED], int.from_bytes(slot[LEAF_HASHED:]))
