"""The durable state of whoever follows a directory: signer, front end and monitor alike.

An epoch is folded from its items (``fold.EpochFold``) and becomes visible by one atomic write: map,
logs, positions and standing together (docs/DESIGN.md, section 4, "Committing"). Until then its pages and
entries are already stored under the coming epoch's number, where no reader of a committed epoch looks.

Keys: an entry stands under ``index || u64 epoch`` as ``u64 sequence || mutation bytes``, a node of a
log under ``u8 log || node key``, a head under ``u64 epoch``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kt_es import epochs
from kt_es.epochs import Current, Standing
from kt_es.errors import DivergenceError, MalformedError
from kt_es.formats.codec import decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.entries import HASH_LENGTH, Mutation
from kt_es.formats.heads import HeadEvent
from kt_es.formats.keys import PublicKey
from kt_es.ledger.store import Family, Storage
from kt_es.merkle.log import LogState
from kt_es.merkle.map import EMPTY_ROOT, LeafRef, Map, Root

PAGES = "pages"
ENTRIES = "entries"
NODES = "nodes"
HEADS = "heads"
OPENINGS = "openings"
META = "meta"
FAMILIES = (PAGES, ENTRIES, NODES, HEADS, OPENINGS, META)

HEADS_LOG = b"h"
MUTATIONS_LOG = b"m"

SEQUENCE_SIZE = 8

# Bound the memory of an epoch, whatever its size: some 20 MB. Changes, and the bytes of entries in them.
SLICE = 20_000
SLICE_BYTES = 8 << 20

EMPTY_LOG = LogState()

COMMITTED = b"committed"
ERASURE = b"erasure "  # see ``erasures``


@dataclass(frozen=True, slots=True)
class Committed:
    """Everything that holds after an epoch. The heads stream has one event per epoch.

    ``queue_next`` and ``records_next`` are the revisions to go on from in the queue and in the log of
    mutations' stream.
    """

    standing: Standing
    root: Root = EMPTY_ROOT
    log: LogState = EMPTY_LOG
    heads: LogState = EMPTY_LOG
    queue_next: int = 0
    records_next: int = 0

    @property
    def epoch(self) -> int:
        return self.standing.epoch

    def encode(self) -> bytes:
        return encode(
            [
                epochs.encode_standing(self.standing),
                [self.root.version, self.root.hash, self.root.size],
                [self.log.size, self.log.hashes],
                [self.heads.size, self.heads.hashes],
                self.queue_next,
                self.records_next,
            ]
        )

    @classmethod
    def decode(cls, data: bytes, origin: str, pinned: PublicKey) -> Committed:
        what = "committed state"
        standing, root, log, heads, queue_next, records_next = take_array(decode(data, what), what, 6)
        version, root_hash, size = take_array(root, what, 3)
        return cls(
            epochs.decode_standing(take_bytes(standing, what, 1, 1 << 20), origin, pinned),
            Root(take_uint(version, what), take_bytes(root_hash, what, HASH_LENGTH), take_uint(size, what)),
            _take_log(log, what),
            _take_log(heads, what),
            take_uint(queue_next, what),
            take_uint(records_next, what),
        )


def _take_log(value: object, what: str) -> LogState:
    size, hashes = take_array(value, what, 2)  # type: ignore[arg-type]
    taken = tuple(take_bytes(item, what, HASH_LENGTH) for item in take_array(hashes, what, 0, 64))
    return LogState(take_uint(size, what), taken)


class Ledger:
    """The committed state over a store, for one writer and any number of reading threads.

    ``committed`` is replaced after the write that made it durable, so whoever reads takes it once
    and sees one epoch entirely. ``pinned`` is the key that the reader knows the directory by: any signer
    key of its chain of configs (``configs.check_pinned``).
    """

    def __init__(self, store: Storage, origin: str, pinned: PublicKey, slice_size: int = SLICE) -> None:
        """Raises ``DivergenceError`` if the store is damaged or another directory's.

        ``slice_size`` is how many changes of an epoch are kept in memory before they are written.
        """
        self.store = store
        self.pinned = pinned
        self.slice_size = slice_size
        self.map = Map(Family(store, PAGES))
        # Whether lookups have to ask for erasures at all; true from the first one on that a fold accepts.
        self.has_erasures = next(store.scan(META, ERASURE), None) is not None
        # The latest epoch known to have one, be it committed or not; 0 before a fold has accepted any.
        self.last_erasure = 0
        self.committed = Committed(Standing(origin, pinned))
        self._load()

    def resume(self) -> None:
        """Go on from what is stored, before anything else is written: only the writer may call it.

        A commit that failed for want of space may be stored nevertheless. Raises ``DiskFullError`` while
        nothing can be written, and ``DivergenceError`` if what is stored is damaged.
        """
        self.store.ensure_writable()
        self._load()

    def _load(self) -> None:
        data = self.store.get(META, COMMITTED)
        if data is None:
            return
        try:
            self.committed = Committed.decode(data, self.committed.standing.origin, self.pinned)
        except MalformedError as error:
            raise DivergenceError(f"the data directory is damaged: {error}") from None

    def begins_under(self, key: PublicKey) -> None:
        """Judge the directory's first config by ``key``. Only before the first epoch."""
        standing = replace(self.committed.standing, pinned=key)
        self.committed = replace(self.committed, standing=standing)

    def mutations_at(self, leaves: Sequence[LeafRef | None]) -> list[Mutation | None]:
        """The mutation behind each leaf of the map, None for None."""
        keys = [entry_key(leaf.index, leaf.version) for leaf in leaves if leaf is not None]
        stored = iter(self.store.get_many(ENTRIES, keys))
        return [None if leaf is None else _stored_mutation(leaf, next(stored)) for leaf in leaves]

    def current(self, committed: Committed, indices: Sequence[bytes]) -> list[Current | None]:
        """What the map held at each index at the end of ``committed``'s epoch."""
        found = self.mutations_at(self.map.lookup_many(committed.root, indices))
        return [None if held is None else Current(held.entry, held.entry_hash) for held in found]

    def history(self, committed: Committed, index: bytes, after: int = 0) -> Iterator[tuple[int, Mutation]]:
        """Every ``(epoch, mutation)`` above version ``after`` that took effect at ``index``, in order.

        What lies before is not read: versions only grow, so a search among the epochs finds the first.
        """
        low, high = 1, committed.epoch + 1
        while after and low < high:
            middle = (low + high) // 2
            first = next(self._entries(index, middle), None)
            if first is None or first[1].entry.version > after:
                high = middle
            else:
                low = first[0] + 1
        for epoch, mutation in self._entries(index, low):
            if epoch <= committed.epoch:
                yield epoch, mutation

    def _entries(self, index: bytes, epoch: int) -> Iterator[tuple[int, Mutation]]:
        """What was accepted at ``index`` in ``epoch`` or later, be it committed or not."""
        for key, data in self.store.scan(ENTRIES, index, start=entry_key(index, epoch)):
            yield int.from_bytes(key[len(index) :]), Mutation.decode(data[SEQUENCE_SIZE:])

    def head_event(self, epoch: int) -> HeadEvent | None:
        data = self.store.get(HEADS, epoch.to_bytes(8))
        return None if data is None else HeadEvent.decode(data)

    def nodes(self, log: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Nodes of ``HEADS_LOG`` or ``MUTATIONS_LOG`` by their node keys."""
        return self.store.get_many(NODES, [log + key for key in keys])


def entry_key(index: bytes, epoch: int) -> bytes:
    """Where the entry stands that was accepted at ``index`` in ``epoch``."""
    return index + epoch.to_bytes(8)


def _stored_mutation(leaf: LeafRef, data: bytes | None) -> Mutation:
    if data is None:
        raise DivergenceError(f"the entry at index {leaf.index.hex()} of epoch {leaf.version} is missing")
    try:
        mutation = Mutation.decode(data[SEQUENCE_SIZE:])
    except MalformedError as error:
        raise DivergenceError(f"the entry at index {leaf.index.hex()} is damaged: {error}") from None
    if mutation.entry_hash != leaf.entry_hash:
        raise DivergenceError(f"the entry at index {leaf.index.hex()} is not the one in the map")
    return mutation
