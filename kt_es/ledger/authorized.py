"""Entries for answers. The signatures and epochs of entries from a shared store are verified here.

A leaf of the map has the hash of an entry. The hash covers neither the signatures beside the entry nor the
epoch that accepted it, so whoever writes to a shared store can change both. Clients refuse such an answer. So
this module verifies signatures and epochs before an answer has them, once for each row:
``SharedStore.remember`` keeps the outcome. A store of one process needs no verification here, since its
replay has decided about every row.

Two changes are not found here. One of several valid signatures may be missing, if the remaining ones
authorize the entry. And no front end shows the sequence number of a row, so only a snapshot verifies it
(``record_check``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache

from kt_es.crypto.hashes import MAP_EMPTY, sha256
from kt_es.epochs import Current, is_authorized
from kt_es.errors import UnverifiedRowError
from kt_es.formats.entries import Mutation
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.proofs import head_at, map_root_at
from kt_es.ledger.rows import Committed
from kt_es.ledger.shared_store import SharedStore
from kt_es.ledger.shared_tables import SharedEntryTable
from kt_es.ledger.tables import StoredEntry, entry_of
from kt_es.merkle.map import LeafRef, Root

RowCheck = Callable[[LeafRef, StoredEntry], None]


def entry_at(ledger: Ledger, root: Root, leaf: LeafRef | None) -> Mutation | None:
    """Return the mutation behind a leaf of the map, None for None. Raises what ``entries_at`` raises."""
    return None if leaf is None else entries_at(ledger, root, [leaf])[0][2]


def entry_by_quorum(ledger: Ledger, root: Root, leaf: LeafRef) -> Mutation:
    """Return the mutation behind a leaf of the map, read from more replicas at once and from no cache.

    Raises what ``entries_at`` raises.
    """
    return _checked(ledger, *ledger.read_again(root, leaf))[2]


def entries_at(
    ledger: Ledger, root: Root, leaves: Sequence[LeafRef], check: RowCheck = lambda _leaf, _row: None
) -> list[tuple[LeafRef, StoredEntry, Mutation]]:
    """Return each leaf of the map at ``root`` with its stored entry and the mutation in it.

    A returned leaf has another version than the given one if a page had a wrong one, which was read again.

    Args:
        check: A further check of a row. It raises ``UnverifiedRowError`` if the caller cannot use the row.

    Raises:
        UnverifiedRowError: A row is missing, is damaged, has another hash than its leaf, or is not authorized
            by its signatures. A second read from more replicas gave no better row.
    """
    stored = ledger.tables.entries.get_many(leaves)
    return [_verified(ledger, root, leaf, row, check) for leaf, row in zip(leaves, stored, strict=True)]


def record_check(ledger: Ledger) -> RowCheck:
    """Return a check of the sequence numbers in rows of a shared store, which no answer shows.

    The leaf of a row names an epoch. By the signed heads, the number must be one of the records of this
    epoch.
    """
    if not ledger.store.is_shared:
        return lambda _leaf, _row: None

    @lru_cache(1 << 16)
    def size_at(epoch: int) -> int:
        return head_at(ledger, epoch)[1].log_size if epoch else 0

    def check(leaf: LeafRef, row: StoredEntry) -> None:
        epoch = leaf.version
        if epoch < 1 or not size_at(epoch - 1) <= row.sequence < size_at(epoch):
            raise UnverifiedRowError(
                f"the entry at index {leaf.index.hex()} names record {row.sequence}; by the map, epoch "
                f"{epoch} accepted the entry, and that record is not of this epoch"
            )

    return check


def _verified(
    ledger: Ledger, root: Root, leaf: LeafRef, row: StoredEntry | None, check: RowCheck
) -> tuple[LeafRef, StoredEntry, Mutation]:
    try:
        return _checked(ledger, leaf, row, check)
    except UnverifiedRowError:
        return _checked(ledger, *ledger.read_again(root, leaf), check)


def _checked(
    ledger: Ledger,
    leaf: LeafRef,
    row: StoredEntry | None,
    check: RowCheck = lambda _leaf, _row: None,
) -> tuple[LeafRef, StoredEntry, Mutation]:
    stored, mutation = entry_of(leaf, row)
    check(leaf, stored)
    store, entries, previous = _shared(ledger), ledger.tables.entries, mutation.entry.previous
    if store is None or not isinstance(entries, SharedEntryTable):
        return leaf, stored, mutation
    # No hash covers the version in a leaf, and a row before epoch 0 has no key.
    if leaf.version < 1:
        raise UnverifiedRowError(
            f"the map says that epoch {leaf.version} wrote the entry at index {leaf.index.hex()}"
        )
    fact = _fact(b"signed", leaf, stored.data)
    if not store.remembers(fact):
        before = None
        if previous is not None:
            _, before = next(entries.back(LeafRef(leaf.index, previous, leaf.version - 1)))
        _check_signatures(ledger, mutation, before)
        store.remember(fact)
    return leaf, stored, mutation


def _shared(ledger: Ledger) -> SharedStore | None:
    """Return the store of ``ledger`` if it is shared, None if its replay has verified what it holds."""
    store = ledger.store
    if not store.is_shared:
        return None
    if not isinstance(store, SharedStore):
        raise TypeError("entries of a shared store are verified through SharedStore alone")
    return store


def _check_signatures(ledger: Ledger, mutation: Mutation, before: Mutation | None) -> None:
    current = None if before is None else Current(before.entry, before.entry_hash)
    if not is_authorized(mutation, current, ledger.committed.standing.origin):
        raise UnverifiedRowError(
            f"the signatures of version {mutation.entry.version} of the entry at index "
            f"{mutation.entry.index.hex()} do not authorize it"
        )


def history(
    ledger: Ledger, committed: Committed, index: bytes, after: int = 0
) -> Iterator[tuple[int, Mutation]]:
    """Yield each ``(epoch, mutation)`` above version ``after`` that took effect at ``index``, in order.

    Raises ``UnverifiedRowError`` where the rows of a shared store are missing, damaged or wrong.
    """
    store = _shared(ledger)
    if store is None:
        yield from ledger.history(committed, index, after)
        return
    # The version before the first one tells who may sign it.
    versions = list(ledger.history(committed, index, max(0, after - 1)))
    order = {mutation.entry_hash: at for at, (_, mutation) in enumerate(versions)}
    claims = _Claims(ledger, store, committed, index, order)
    before: Mutation | None = None
    for epoch, mutation in versions:
        if mutation.entry.version > after:
            leaf = LeafRef(index, mutation.entry_hash, epoch)
            fact = _fact(b"signed", leaf, mutation.encode())
            if not store.remembers(fact):
                _check_signatures(ledger, mutation, before)
                store.remember(fact)
            claims.check(leaf, mutation.entry.previous)
            yield epoch, mutation
        before = mutation


def accepted_in(ledger: Ledger, committed: Committed, leaf: LeafRef, mutation: Mutation) -> int:
    """Return the epoch that accepted ``mutation``, the entry of ``leaf`` in the newest map.

    Raises ``UnverifiedRowError`` if a page of a shared store names another epoch.
    """
    store = _shared(ledger)
    if store is not None:
        claims = _Claims(ledger, store, committed, leaf.index, {leaf.entry_hash: 0})
        try:
            claims.check(leaf, mutation.entry.previous)
        except UnverifiedRowError:
            leaf, _ = ledger.read_again(committed.root, leaf)
            claims.check(leaf, mutation.entry.previous)
    return leaf.version


class _Claims:
    """Compares the epochs that rows of one index claim with the maps of these epochs, as clients do.

    ``order`` has the places of the versions by their entry hashes, the oldest first.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: SharedStore,
        committed: Committed,
        index: bytes,
        order: Mapping[bytes, int],
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._committed = committed
        self._index = index
        self._order = order
        self._oldest = min(ledger.oldest, committed.epoch)

    def check(self, leaf: LeafRef, previous: bytes | None) -> None:
        """Raise ``UnverifiedRowError`` unless the epoch ``leaf.version`` accepted the entry of ``leaf``.

        The maps of pruned epochs are deleted. If ``leaf.version`` is a pruned epoch, the oldest kept map must
        have the entry or a later one; nothing else can be compared.

        Args:
            previous: The hash of the previous version, None for a first version.
        """
        epoch = leaf.version
        fact = _fact(b"accepted", leaf, b"")
        if self._store.remembers(fact):
            return
        if not 1 <= epoch <= self._committed.epoch:
            raise self._wrong(epoch)
        if epoch < self._oldest:
            if self._order.get(self._at_oldest or b"", -1) < self._order[leaf.entry_hash]:
                raise self._wrong(epoch)
            return
        if self._held(self._root_of(epoch)) != leaf.entry_hash:
            raise self._wrong(epoch)
        if epoch == 1 or epoch > self._oldest:
            if (self._held_at(epoch - 1) if epoch > 1 else None) != previous:
                raise self._wrong(epoch)
            self._store.remember(fact)

    @cached_property
    def _at_oldest(self) -> bytes | None:
        return self._held_at(self._oldest)

    def _held_at(self, epoch: int) -> bytes | None:
        return self._held(map_root_at(self._ledger, self._committed, epoch))

    def _held(self, root: Root) -> bytes | None:
        leaf = self._ledger.map.lookup(root, self._index)
        return None if leaf is None else leaf.entry_hash

    def _root_of(self, epoch: int) -> Root:
        """Return the map of ``epoch``. Raise ``UnverifiedRowError`` if the epoch left the map unchanged.

        An epoch that changes the map writes the root page itself, so the root has the version ``epoch``.
        """
        _, head = head_at(self._ledger, epoch)
        before = head_at(self._ledger, epoch - 1)[1].map_root if epoch > 1 else MAP_EMPTY
        if head.map_root == before:
            raise self._wrong(epoch)
        return Root(epoch, head.map_root, head.map_size)

    def _wrong(self, epoch: int) -> UnverifiedRowError:
        return UnverifiedRowError(
            f"an entry at index {self._index.hex()} was not accepted in epoch {epoch}, as its row says"
        )


def _fact(what: bytes, leaf: LeafRef, data: bytes) -> bytes:
    return sha256(what + leaf.index + leaf.version.to_bytes(8) + leaf.entry_hash + data)
