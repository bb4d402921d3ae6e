"""The durable state of whoever follows a directory: signer, front end and monitor alike.

An epoch is folded from its items (``EpochFold``) and becomes visible by one atomic write: map, logs,
positions and standing together (design, "Committing"). Until then its pages and entries are already
stored under the coming epoch's number, where no reader of a committed epoch looks.

Keys: an entry stands under ``index || u64 epoch``, a node of a log under ``u8 log || node key``, a
head under ``u64 epoch``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kt_es import epochs
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.epochs import Current, Epoch, Standing
from kt_es.errors import DivergenceError, MalformedError
from kt_es.formats.codec import decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.entries import HASH_LENGTH, Mutation
from kt_es.formats.heads import HeadEvent, MapHead
from kt_es.formats.keys import PublicKey
from kt_es.formats.queue import Item, Marker
from kt_es.formats.records import Record, Verdict
from kt_es.merkle.log import LogState, NodeId, node_key
from kt_es.merkle.map import EMPTY_ROOT, LeafRef, Map, Root
from projections.storage import Change, Family, Storage

PAGES = "pages"
ENTRIES = "entries"
NODES = "nodes"
HEADS = "heads"
OPENINGS = "openings"
META = "meta"
FAMILIES = (PAGES, ENTRIES, NODES, HEADS, OPENINGS, META)

HEADS_LOG = b"h"
MUTATIONS_LOG = b"m"

# Updates that are put into the tree at once: bounds the memory of an epoch, whatever its size.
SLICE = 8192

EMPTY_LOG = LogState()

_COMMITTED = b"committed"


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
    and sees one epoch entirely.
    """

    def __init__(self, store: Storage, origin: str, pinned: PublicKey) -> None:
        """Raises ``DivergenceError`` if the store is damaged or another directory's."""
        self.store = store
        self.map = Map(Family(store, PAGES))
        data = store.get(META, _COMMITTED)
        try:
            self.committed = (
                Committed(Standing(origin, pinned))
                if data is None
                else Committed.decode(data, origin, pinned)
            )
        except MalformedError as error:
            raise DivergenceError(f"the data directory is damaged: {error}") from None

    def fold(self) -> EpochFold:
        """The epoch after the committed one, empty."""
        return EpochFold(self)

    def mutations_at(self, leaves: Sequence[LeafRef | None]) -> list[Mutation | None]:
        """The mutation behind each leaf of the map, None for None."""
        keys = [leaf.index + leaf.version.to_bytes(8) for leaf in leaves if leaf is not None]
        stored = iter(self.store.get_many(ENTRIES, keys))
        return [None if leaf is None else _stored_mutation(leaf, next(stored)) for leaf in leaves]

    def current(self, committed: Committed, indices: Sequence[bytes]) -> list[Current | None]:
        """What the map held at each index at the end of ``committed``'s epoch."""
        found = self.mutations_at(self.map.lookup_many(committed.root, indices))
        return [None if held is None else Current(held.entry, held.entry_hash) for held in found]

    def history(self, committed: Committed, index: bytes) -> Iterator[tuple[int, Mutation]]:
        """Every ``(epoch, mutation)`` that took effect at ``index``, the oldest first."""
        for key, data in self.store.scan(ENTRIES, index):
            epoch = int.from_bytes(key[len(index) :])
            if epoch <= committed.epoch:
                yield epoch, Mutation.decode(data)

    def head_event(self, epoch: int) -> HeadEvent | None:
        data = self.store.get(HEADS, epoch.to_bytes(8))
        return None if data is None else HeadEvent.decode(data)

    def nodes(self, log: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Nodes of ``HEADS_LOG`` or ``MUTATIONS_LOG`` by their node keys."""
        return self.store.get_many(NODES, [log + key for key in keys])


def _stored_mutation(leaf: LeafRef, data: bytes | None) -> Mutation:
    if data is None:
        raise DivergenceError(f"the entry at index {leaf.index.hex()} of epoch {leaf.version} is missing")
    try:
        mutation = Mutation.decode(data)
    except MalformedError as error:
        raise DivergenceError(f"the entry at index {leaf.index.hex()} is damaged: {error}") from None
    if mutation.entry_hash != leaf.entry_hash:
        raise DivergenceError(f"the entry at index {leaf.index.hex()} is not the one in the map")
    return mutation


class EpochFold:
    """One epoch in the making: items in, records out, and on its marker the head and the commit."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._base = ledger.committed
        self.epoch = Epoch.after(self._base.standing)
        self._root = self._base.root
        self._log = self._base.log
        self._queue_next = self._base.queue_next
        self._staged: list[tuple[bytes, bytes]] = []
        self._puts: list[Change] = []

    @property
    def size(self) -> int:
        """How many items this epoch has so far."""
        return self._log.size - self._base.log.size

    @property
    def sequence(self) -> int:
        """The sequence number of the next record."""
        return self._log.size

    @property
    def marker(self) -> Marker | None:
        """The marker that closed the epoch, once it has come."""
        return self.epoch.closed_by

    def take(self, items: Sequence[Item]) -> list[tuple[Record, bytes]]:
        """Decide the items of one queue event; their records, and the bytes of these."""
        parsed = [epochs.parse(item) for item in items]
        indices = [thing.entry.index for thing in parsed if isinstance(thing, Mutation)]
        current = iter(self._ledger.current(self._base, indices))
        records: list[tuple[Record, bytes]] = []
        for item, thing in zip(items, parsed, strict=True):
            held = next(current) if isinstance(thing, Mutation) else None
            verdict = epochs.decide(self.epoch, thing, held)
            if verdict is Verdict.ACCEPTED and isinstance(thing, Mutation):
                self._stage(thing, item)
            record = Record(self.sequence + len(records), item, verdict)
            records.append((record, record.encode()))
        self._log_records([data for _, data in records])
        self._queue_next = items[-1].revision + 1
        if len(self._staged) >= SLICE:
            self._flush()
        return records

    def _stage(self, mutation: Mutation, item: Item) -> None:
        index = mutation.entry.index
        self._staged.append((index, mutation.entry_hash))
        if isinstance(item.content, bytes):
            self._puts.append((ENTRIES, index + self.epoch.number.to_bytes(8), item.content))

    def _log_records(self, records: Sequence[bytes]) -> None:
        self._log, created = self._log.append([log_leaf_hash(record) for record in records])
        self._put_nodes(MUTATIONS_LOG, created)

    def _put_nodes(self, log: bytes, nodes: Sequence[tuple[NodeId, bytes]]) -> None:
        self._puts += [(NODES, log + node_key(node), value) for node, value in nodes]

    def _apply(self) -> None:
        self._root, pages = self._ledger.map.apply(self._root, self.epoch.number, self._staged)
        self._puts += [(PAGES, key, page) for key, page in pages]
        self._staged = []

    def _flush(self) -> None:
        self._apply()
        self._ledger.store.write(self._puts, sync=False)
        self._puts = []

    def close(self) -> tuple[MapHead, Committed]:
        """The head of the epoch and the state after it, which ``commit`` makes durable.

        The log of heads in that state does not yet have this head: its leaf is the signed one.
        """
        self._apply()
        head, standing = epochs.close(
            self.epoch,
            map_root=self._root.hash,
            map_size=self._root.size,
            log_size=self._log.size,
            log_root=self._log.root(),
            queue_next=self._queue_next,
        )
        return head, Committed(standing, self._root, self._log, self._base.heads, self._queue_next)

    def commit(self, state: Committed, event: HeadEvent, records_next: int) -> Committed:
        """Make the epoch durable and visible: one atomic write."""
        heads, created = state.heads.append([log_leaf_hash(event.smh_bytes)])
        self._put_nodes(HEADS_LOG, created)
        committed = Committed(state.standing, state.root, state.log, heads, state.queue_next, records_next)
        self._puts.append((HEADS, state.epoch.to_bytes(8), event.encode()))
        self._puts.append((META, _COMMITTED, committed.encode()))
        self._ledger.store.write(self._puts, sync=True)
        self._puts = []
        self._ledger.committed = committed
        return committed
