"""The fold of one epoch over a ledger: items in, records out, and at its marker the commit.

The signer feeds it from the queue, everybody else from the log of mutations; both get the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kt_es import epochs
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.epochs import Current, Epoch
from kt_es.errors import DivergenceError
from kt_es.formats.entries import Mutation
from kt_es.formats.erasures import Erasure
from kt_es.formats.heads import HeadEvent, MapHead
from kt_es.formats.queue import Item, Marker
from kt_es.formats.records import Record, Verdict
from kt_es.ledger.configs import config_change
from kt_es.ledger.erasures import erasure_change
from kt_es.ledger.ledger import (
    COMMITTED,
    ENTRIES,
    HEADS,
    HEADS_LOG,
    META,
    MUTATIONS_LOG,
    NODES,
    PAGES,
    SEQUENCE_SIZE,
    SLICE_BYTES,
    Committed,
    Ledger,
    entry_key,
)
from kt_es.ledger.leftovers import ahead_change, forget_ahead
from kt_es.ledger.store import Change, Storage
from kt_es.merkle.log import NodeId, node_key


class EpochFold:
    """One epoch in the making: items in, records out, and on its marker the head and the commit.

    Memory is bounded however long the epoch is: what was staged is written in slices, under the number
    of the coming epoch. After a crash the same items write the same keys and values again; what an epoch
    left behind that was not finished is deleted first, as the items need not be the same (``leftovers``).
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._base = ledger.committed
        self._accepted = _Accepted(ledger.store, self._base.epoch + 1)
        self.epoch = Epoch.after(self._base.standing, self._accepted)
        self._root = self._base.root
        self._log = self._base.log
        self._queue_next = self._base.queue_next
        self._staged: list[tuple[bytes, bytes]] = []
        self._puts: list[Change] = []
        self._has_pages = False  # among the puts: they have to be written before more are made of them
        self._entry_bytes = 0
        self._first_versions = 0
        self._is_clear = False
        self._notes: list[Change] = []  # of what is written ahead: the commit deletes them

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

    def take(
        self, items: Sequence[Item], sealed: Sequence[Verdict] | None = None
    ) -> list[tuple[Record, bytes]]:
        """Decide the items of one queue event; their records, and the bytes of these.

        ``sealed`` are verdicts that one's own head seals, one for each item: see ``epochs.decide``.
        """
        if not self._is_clear:
            forget_ahead(self._ledger.store, self._base.epoch)
            self._is_clear = True
        parsed = [epochs.parse(item) for item in items]
        current = self._current(parsed, sealed)
        records: list[tuple[Record, bytes]] = []
        for at, (item, thing) in enumerate(zip(items, parsed, strict=True)):
            sequence = self.sequence + at
            held = None
            if isinstance(thing, Mutation):
                held = current.get(thing.entry.index)
            elif isinstance(thing, Erasure):
                held = current.get(thing.index)
            verdict = epochs.decide(self.epoch, thing, held, None if sealed is None else sealed[at])
            record = Record(sequence, item, verdict)
            if verdict is Verdict.ACCEPTED and isinstance(thing, Mutation):
                self._stage(thing, record)
            elif verdict is Verdict.CONFIG and isinstance(item.content, bytes):
                self._puts.append(config_change(self.epoch.number, sequence, item.content))
            encoded = record.encode()
            if verdict is Verdict.ERASED and isinstance(thing, Erasure):
                self._puts.append(erasure_change(thing, self.epoch.number, sequence, encoded))
                self._ledger.has_erasures = True
                self._ledger.last_erasure = self.epoch.number
            records.append((record, encoded))
        self._log_records([data for _, data in records])
        self._queue_next = items[-1].revision + 1
        if len(self._staged) >= self._ledger.slice_size:
            self._apply()
        self._flush_if_full()
        return records

    def _current(
        self, parsed: Sequence[epochs.Parsed], sealed: Sequence[Verdict] | None
    ) -> dict[bytes, Current | None]:
        """What the map held at the indices of mutations and erasures, and ``_accepted`` prepared for them.

        For a first version that a sealed verdict accepts it is not looked up: had there been an entry, in
        this epoch or before, the map would not grow by one, which ``close`` notices.
        """
        indices = [
            thing.entry.index
            for at, thing in enumerate(parsed)
            if isinstance(thing, Mutation)
            and (sealed is None or sealed[at] is not Verdict.ACCEPTED or thing.entry.version != 1)
        ]
        indices += [thing.index for thing in parsed if isinstance(thing, Erasure)]
        self._accepted.expect(indices)
        return dict(zip(indices, self._ledger.current(self._base, indices), strict=True))

    def _stage(self, mutation: Mutation, record: Record) -> None:
        index, content = mutation.entry.index, record.item.content
        self._staged.append((index, mutation.entry_hash))
        self._first_versions += mutation.entry.version == 1
        if isinstance(content, bytes):
            value = record.sequence.to_bytes(SEQUENCE_SIZE) + content
            self._puts.append((ENTRIES, entry_key(index, self.epoch.number), value))
            self._entry_bytes += len(value)

    def _log_records(self, records: Sequence[bytes]) -> None:
        self._log, created = self._log.append([log_leaf_hash(record) for record in records])
        self._put_nodes(MUTATIONS_LOG, created)

    def _put_nodes(self, log: bytes, nodes: Sequence[tuple[NodeId, bytes]]) -> None:
        self._puts += [(NODES, log + node_key(node), value) for node, value in nodes]

    def _apply(self) -> None:
        """Put what is staged into the map: the more at once, the fewer pages; in parts, for the memory."""
        for part in _parts(sorted(self._staged), max(1, self._ledger.slice_size // 4)):
            if self._has_pages:
                self._flush()
            self._root, pages = self._ledger.map.apply(self._root, self.epoch.number, part)
            self._puts += [(PAGES, key, page) for key, page in pages]
            self._has_pages = True
        self._staged = []

    def _flush_if_full(self) -> None:
        if len(self._puts) >= self._ledger.slice_size or self._entry_bytes >= SLICE_BYTES:
            self._flush()

    def _flush(self) -> None:
        note = ahead_change(len(self._notes), self._puts)
        self._puts.append(note)
        self._notes.append((META, note[1], None))
        self._ledger.store.write(self._puts, sync=False)
        self._puts = []
        self._has_pages = False
        self._entry_bytes = 0
        self._accepted.flushed()

    def close(self) -> tuple[MapHead, Committed]:
        """The head of the epoch and the state after it, which ``commit`` makes durable.

        The log of heads in that state does not yet have this head: its leaf is the signed one.

        Raises ``DivergenceError`` if a first version was accepted where there was an entry already.
        """
        self._apply()
        grown = self._root.size - self._base.root.size
        if grown != self._first_versions:
            raise DivergenceError(
                f"epoch {self.epoch.number}: {self._first_versions} first versions were accepted, but the "
                f"map has grown by {grown} entries"
            )
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
        self._puts += self._notes
        self._puts.append((META, COMMITTED, committed.encode()))
        self._ledger.store.write(self._puts, sync=True)
        self._puts = []
        self._ledger.committed = committed
        return committed


def _parts(staged: list[tuple[bytes, bytes]], size: int) -> Iterator[list[tuple[bytes, bytes]]]:
    """``staged``, sorted, in parts of ``size`` and a little more that share the map's topmost pages only."""
    start = 0
    for at in range(1, len(staged)):
        if at - start >= size and staged[at][0][0] != staged[at - 1][0][0]:
            yield staged[start:at]
            start = at
    if staged:
        yield staged[start:]


class _Accepted:
    """Index to entry hash of what the epoch has accepted: the last slice in memory, the rest in the store.

    Before anything of this run is flushed the store is not asked; then it has nothing of another run.
    """

    def __init__(self, storage: Storage, epoch: int) -> None:
        self._storage = storage
        self._epoch = epoch
        self._recent: dict[bytes, bytes] = {}
        self._stored: dict[bytes, bytes | None] = {}
        self._is_flushed = False

    def flushed(self) -> None:
        """Everything accepted so far is in the store now."""
        self._is_flushed = True
        self._recent = {}

    def expect(self, indices: Sequence[bytes]) -> None:
        """``get`` is going to be called for these: what the store has of them is read at once."""
        if self._is_flushed:
            keys = [entry_key(index, self._epoch) for index in indices]
            self._stored = dict(zip(indices, self._storage.get_many(ENTRIES, keys), strict=True))

    def get(self, index: bytes, /) -> bytes | None:
        recent = self._recent.get(index)
        if recent is not None:
            return recent
        stored = self._stored.get(index)
        return None if stored is None else Mutation.decode(stored[SEQUENCE_SIZE:]).entry_hash

    def __setitem__(self, index: bytes, entry_hash: bytes, /) -> None:
        self._recent[index] = entry_hash
