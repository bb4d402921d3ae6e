"""What the epoch in the making has accepted, for the decision about later items of the same epoch."""

from __future__ import annotations

from collections.abc import Sequence

from kt_es.ledger.tables import EntryTable, StoredEntry
from kt_es.merkle.map import LeafRef


class AcceptedEntries:
    """What the epoch has accepted, index to entry hash: the last slice in memory, the rest in the store.

    The store has no entry of the epoch before this run has written a slice, so it is not read until then.
    Without a table all hashes stay in memory, about 200 bytes for each entry.
    """

    def __init__(self, entries: EntryTable | None, epoch: int) -> None:
        self._entries = entries
        self._epoch = epoch
        self._recent: dict[bytes, bytes] = {}
        self._stored: dict[bytes, StoredEntry | None] = {}
        self._is_flushed = False

    def flushed(self) -> None:
        """Note that the store has everything that was accepted so far."""
        if self._entries is not None:
            self._is_flushed = True
            self._recent = {}

    def expect(self, indices: Sequence[bytes]) -> None:
        """Read the hashes at ``indices`` from the store in one call, for later calls of ``get``."""
        if self._is_flushed and self._entries is not None:
            stored = self._entries.get_many([LeafRef(index, b"", self._epoch) for index in indices])
            self._stored = dict(zip(indices, stored, strict=True))

    def get(self, index: bytes, /) -> bytes | None:
        recent = self._recent.get(index)
        if recent is not None:
            return recent
        stored = self._stored.get(index)
        return None if stored is None else stored.mutation().entry_hash

    def __setitem__(self, index: bytes, entry_hash: bytes, /) -> None:
        self._recent[index] = entry_hash
