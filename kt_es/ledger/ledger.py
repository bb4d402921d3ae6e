"""The durable state of every follower of a directory: signer, front end and monitor alike.

``fold.EpochFold`` makes an epoch of its items, and the epoch becomes visible by one atomic write: map, logs,
positions and standing together (docs/DESIGN.md, section 4, "Committing").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kt_es.epochs import Current, Standing
from kt_es.errors import DivergenceError, MalformedError
from kt_es.formats.entries import Mutation
from kt_es.formats.keys import PublicKey
from kt_es.ledger.state import Committed
from kt_es.ledger.store import Store
from kt_es.ledger.tables import StoredEntry, Tables
from kt_es.merkle.map import LeafRef, Map

# Changes of an epoch that are kept in memory before they are written: some 20 MB.
SLICE = 20_000


class Ledger:
    """The committed state over a store, for one writer and any number of reading threads.

    ``committed`` is replaced after the write that made it durable. A reader takes it once, and sees one epoch
    entirely.
    """

    def __init__(self, store: Store, origin: str, pinned: PublicKey, slice_size: int = SLICE) -> None:
        """Open the ledger of the directory ``origin`` in ``store``.

        Args:
            pinned: The key that the reader knows the directory by: any signer key of its chain of configs
                (``configs.check_pinned``).
            slice_size: How many changes of an epoch are kept in memory before they are written.

        Raises:
            DivergenceError: The store is damaged, or another directory's.
        """
        self.store = store
        self.tables = Tables(store)
        self.pinned = pinned
        self.slice_size = slice_size
        self.map = Map(self.tables.pages)
        # Whether lookups have to ask for erasures at all. The fold sets both when it accepts an erasure.
        self.has_erasures = not self.tables.erasures.is_empty()
        # The latest epoch known to have an erasure, committed or not; 0 before a fold has accepted any.
        self.last_erasure = 0
        self.committed = Committed(Standing(origin, pinned))
        self._load()

    def resume(self) -> None:
        """Read the committed state from the store again. Only the writer may call it, before it writes.

        A commit that failed for want of space may be stored nevertheless. Raises ``DiskFullError`` while
        nothing can be written, and ``DivergenceError`` if what is stored is damaged.
        """
        self.store.ensure_writable()
        self._load()

    def _load(self) -> None:
        stored = self.tables.states.committed(self.committed.standing.origin, self.pinned)
        self.committed = stored or self.committed

    def begins_under(self, key: PublicKey) -> None:
        """Judge the directory's first config by ``key``. Only before the first epoch."""
        standing = replace(self.committed.standing, pinned=key)
        self.committed = replace(self.committed, standing=standing)

    def mutations_at(self, leaves: Sequence[LeafRef | None]) -> list[Mutation | None]:
        """Return the mutation behind each leaf of the map, None for None.

        Raises:
            DivergenceError: A mutation is missing, damaged, or not the one of its leaf.
        """
        keys = [(leaf.index, leaf.version) for leaf in leaves if leaf is not None]
        stored = iter(self.tables.entries.get_many(keys))
        return [None if leaf is None else _mutation_of(leaf, next(stored)) for leaf in leaves]

    def current(self, committed: Committed, indices: Sequence[bytes]) -> list[Current | None]:
        """Return what the map held at each index at the end of ``committed``'s epoch."""
        found = self.mutations_at(self.map.lookup_many(committed.root, indices))
        return [None if held is None else Current(held.entry, held.entry_hash) for held in found]

    def history(self, committed: Committed, index: bytes, after: int = 0) -> Iterator[tuple[int, Mutation]]:
        """Yield every ``(epoch, mutation)`` above version ``after`` that took effect at ``index``, in order.

        Versions only grow, so a binary search among the epochs finds the first one without reading those
        before it.
        """
        low, high = 1, committed.epoch + 1
        while after and low < high:
            middle = (low + high) // 2
            first = next(self._history_from(index, middle), None)
            if first is None or first[1].entry.version > after:
                high = middle
            else:
                low = first[0] + 1
        for epoch, mutation in self._history_from(index, low):
            if epoch <= committed.epoch:
                yield epoch, mutation

    def _history_from(self, index: bytes, epoch: int) -> Iterator[tuple[int, Mutation]]:
        """Yield what was accepted at ``index`` in ``epoch`` or later, committed or not."""
        for _, accepted, entry in self.tables.entries.scan(index, epoch):
            yield accepted, entry.mutation()


def _mutation_of(leaf: LeafRef, stored: StoredEntry | None) -> Mutation:
    if stored is None:
        raise DivergenceError(f"the entry at index {leaf.index.hex()} of epoch {leaf.version} is missing")
    try:
        mutation = stored.mutation()
    except MalformedError as error:
        raise DivergenceError(f"the entry at index {leaf.index.hex()} is damaged: {error}") from None
    if mutation.entry_hash != leaf.entry_hash:
        raise DivergenceError(f"the entry at index {leaf.index.hex()} is not the one in the map")
    return mutation
