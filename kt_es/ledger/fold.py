"""The fold of one epoch over a ledger: items in, records out, and at its marker the commit.

The signer feeds it from the queue, every other follower from the log of mutations. Both get the same epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace

from kt_es import epochs
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.epochs import Current, Epoch
from kt_es.errors import DivergenceError
from kt_es.formats.entries import Mutation
from kt_es.formats.erasures import Erasure
from kt_es.formats.heads import HeadEvent, MapHead
from kt_es.formats.queue import Item, Marker, Record, Verdict
from kt_es.ledger.accepted import AcceptedEntries
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.rows import Committed
from kt_es.ledger.store import Change
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG, StoredEntry, Tables
from kt_es.merkle.log import NodeId, Nodes
from kt_es.merkle.map import LeafRef

# Bytes of entries that are kept in memory before they are written, besides ``Ledger.slice_size`` changes.
SLICE_BYTES = 8 << 20
# How many entries are put into the map together, in slices: some 20 MB. The more there are, the more of them
# share a page, which is then read, hashed and written once.
STAGED_SLICES = 5


class EpochFold:
    """One epoch in the making: items in, records out, and on its marker the head and the commit.

    Memory is bounded whatever the length of the epoch: changes are written in slices, under the number of the
    coming epoch. After a crash the same items write the same rows again. The items need not be the same, so
    rows of an unfinished epoch are deleted first (``tables.AheadTable``).
    """

    def __init__(self, ledger: Ledger, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Call ``meanwhile`` some times a second while many entries are put into the map."""
        self._ledger = ledger
        self._meanwhile = meanwhile
        self._tables = ledger.tables
        self._base = ledger.committed
        # A shared store may have entries of an aborted epoch with the same number, so it is not asked.
        entries = None if ledger.store.is_shared else self._tables.entries
        self._accepted = AcceptedEntries(entries, self._base.epoch + 1)
        self.epoch = Epoch.after(self._base.standing, self._accepted)
        self._root = self._base.root
        self._log = self._base.log
        self._queue_next = self._base.queue_next
        self._staged: list[tuple[bytes, bytes]] = []  # index and entry hash, not yet in the map
        self._puts: list[Change] = []
        self._nodes: Nodes = []  # of records that are not appended yet
        self._replaced = bytearray()  # keys of pages, for ``PageTable.put_replaced``
        self._has_pages = False  # among the puts: they have to be written before more are made of them
        self._entry_bytes = 0
        self._first_versions = 0
        self._is_clear = False
        self._is_prepared = False
        self._slices = 0

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
        self,
        items: Sequence[Item],
        sealed: Sequence[Verdict] | None = None,
        verified: Container[bytes] = (),
        known: Sequence[tuple[Record, bytes]] | None = None,
        recorded: Sequence[Verdict] | None = None,
    ) -> list[tuple[Record, bytes]]:
        """Decide the items of one queue event, and return their records with the bytes of each.

        Args:
            sealed: Verdicts that the reader's own head seals, one for each item: see ``epochs.decide``.
            verified: Facts about signatures of the items: see ``epochs.decide``.
            known: Decoded records of the items, with the bytes of each. A record that comes out the same is
                not encoded again.
            recorded: Verdicts that the log has, one for each item, if first versions that are accepted there
                need not be looked up. If there were an entry, in this epoch or before, the map would not grow
                by one, and ``close`` notices.
        """
        if not self._is_clear:
            self._tables.ahead.undo(self._base.epoch)
            self._is_clear = True
        parsed = [epochs.parse(item) for item in items]
        current = self._current(parsed, recorded)
        records: list[tuple[Record, bytes]] = []
        for at, (item, thing) in enumerate(zip(items, parsed, strict=True)):
            sequence = self.sequence + at
            held = None
            if isinstance(thing, Mutation):
                held = current.get(thing.entry.index)
            elif isinstance(thing, Erasure):
                held = current.get(thing.index)
            verdict = epochs.decide(self.epoch, thing, held, None if sealed is None else sealed[at], verified)
            record, encoded = _record(sequence, item, verdict, None if known is None else known[at])
            if verdict is Verdict.ACCEPTED and isinstance(thing, Mutation):
                self._stage(thing, record)
            elif verdict is Verdict.CONFIG and isinstance(item.content, bytes):
                self._puts.append(self._tables.configs.put(self.epoch.number, sequence, item.content))
            if verdict is Verdict.ERASED and isinstance(thing, Erasure):
                self._puts.append(self._tables.erasures.put(thing, self.epoch.number, sequence, encoded))
                self._ledger.has_erasures = True
                self._ledger.last_erasure = self.epoch.number
            records.append((record, encoded))
        leaves = [log_leaf_hash(data) for _, data in records]
        if self._ledger.keeps_decisions:
            decided = zip(parsed, (record for record, _ in records), leaves, strict=True)
            self._puts += self._tables.decisions.put_all(self.epoch.number, decided)
        self._log, created = self._log.append(leaves)
        if self._ledger.store.is_shared:
            self._nodes += created
        else:
            # Nobody else reads them before the commit.
            self._puts += self._tables.nodes.put(MUTATIONS_LOG, created)
        self._queue_next = items[-1].revision + 1
        if len(self._staged) >= STAGED_SLICES * self._ledger.slice_size:
            self._apply()
        if len(self._puts) >= self._ledger.slice_size or self._entry_bytes >= SLICE_BYTES:
            self._flush()
        return records

    def _kept(self) -> list[Change]:
        """Return the rows that say which records the index of decisions has, with those of this epoch."""
        if not self._ledger.keeps_decisions:
            return []
        table = self._tables.decisions
        return table.put_kept(table.kept().extended(self._base.log.size, self._log.size))

    def appended(self, size: int) -> None:
        """Write the nodes of the first ``size`` records, which were appended to the log, to a shared store.

        A shared store must not get the node of a record that may never be appended.
        """
        ripe = [node for node in self._nodes if _end(node[0]) <= size]
        self._nodes = [node for node in self._nodes if _end(node[0]) > size]
        self._puts += self._tables.nodes.put(MUTATIONS_LOG, ripe)

    def _current(
        self, parsed: Sequence[epochs.Parsed], recorded: Sequence[Verdict] | None
    ) -> dict[bytes, Current | None]:
        """Return what the map held at the indices of mutations and erasures; prepare ``_accepted`` for them.

        ``recorded`` says which first versions are not looked up.
        """
        indices = [
            thing.entry.index
            for at, thing in enumerate(parsed)
            if isinstance(thing, Mutation)
            and (recorded is None or recorded[at] is not Verdict.ACCEPTED or thing.entry.version != 1)
        ]
        indices += [thing.index for thing in parsed if isinstance(thing, Erasure)]
        self._accepted.expect(indices)
        return dict(zip(indices, self._ledger.current(self._base, indices), strict=True))

    def _stage(self, mutation: Mutation, record: Record) -> None:
        index, content = mutation.entry.index, record.item.content
        self._staged.append((index, mutation.entry_hash))
        self._first_versions += mutation.entry.version == 1
        if isinstance(content, bytes):
            leaf = LeafRef(index, mutation.entry_hash, self.epoch.number)
            self._puts.append(self._tables.entries.put(leaf, StoredEntry(record.sequence, content)))
            self._entry_bytes += len(content)

    def _apply(self) -> None:
        """Put the staged entries into the map, in parts that bound the memory.

        The larger a part, the fewer pages are written.
        """
        for part in _parts(sorted(self._staged), max(1, self._ledger.slice_size // 4)):
            self._meanwhile()
            if self._has_pages:
                self._flush()
            self._root, pages = self._ledger.map.apply(self._root, self.epoch.number, part)
            self._puts += self._tables.pages.put(self.epoch.number, pages)
            self._replaced += self._tables.pages.replaced(pages)
            self._has_pages = True
        self._staged = []

    def _flush(self) -> None:
        self._puts += self._tables.ahead.put(self._slices, self._puts)
        self._slices += 1
        self._ledger.store.write(self._puts, sync=False)
        self._puts = []
        self._has_pages = False
        self._entry_bytes = 0
        self._accepted.flushed()

    def close(self) -> tuple[MapHead, Committed]:
        """Return the head of the epoch and the state after it, which ``commit`` makes durable.

        The log of heads in that state does not have this head yet, since its leaf is the signed head.

        Raises:
            DivergenceError: A first version was accepted where there was an entry already.
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

    def prepare(self, state: Committed, event: HeadEvent, records_next: int) -> None:
        """Write to a shared store everything that other processes need before ``event`` is published.

        All records of the epoch must be appended. A second call, or a store of one process, writes nothing.
        """
        if self._ledger.store.is_shared and not self._is_prepared:
            if state.epoch == 1 and self._tables.heads.get(1, again=True) not in (None, event.encode()):
                raise DivergenceError(
                    "the shared store has epoch 1 of another directory, or of this one before it began anew: "
                    "name another keyspace in kt.toml and run `kt store init`"
                )
            self.appended(self._log.size)
            changes = list(self._puts)
            changes += self._tables.pages.put_replaced(event, state.epoch, bytes(self._replaced))
            self._ledger.store.write(changes)
            # The state is written last, so a reader that finds it finds all rows that it refers to.
            published = self._tables.states.put_published(event, replace(state, records_next=records_next))
            self._ledger.store.write([*self._kept(), *published])
            self._puts, self._is_prepared = [], True

    def commit(self, state: Committed, event: HeadEvent, records_next: int) -> Committed:
        """Make the epoch durable and visible by one atomic write, and return the state."""
        self.prepare(state, event, records_next)
        committed, changes = with_head(self._tables, state, event, records_next)
        changes += [change for number in range(self._slices) for change in self._tables.ahead.delete(number)]
        if not self._ledger.store.is_shared:
            changes += self._kept()
        self._ledger.store.write([*self._puts, *changes], sync=True)
        self._puts = []
        self._ledger.committed = committed
        return committed


def _record(
    sequence: int, item: Item, verdict: Verdict, known: tuple[Record, bytes] | None
) -> tuple[Record, bytes]:
    if known is not None and known[0].verdict is verdict and known[0].sequence == sequence:
        return known
    record = Record(sequence, item, verdict)
    return record, record.encode()


def _end(node: NodeId) -> int:
    """Return the number of the first leaf behind a node."""
    return (node.offset + 1) << node.level


def with_head(
    tables: Tables, state: Committed, event: HeadEvent, records_next: int
) -> tuple[Committed, list[Change]]:
    """Return ``state`` with its own head in the log of heads, and the rows that a published head brings."""
    heads, created = state.heads.append([log_leaf_hash(event.smh_bytes)])
    committed = replace(state, heads=heads, records_next=records_next)
    return committed, [
        *tables.nodes.put(HEADS_LOG, created),
        *tables.heads.put(state.epoch, event),
        tables.states.put(committed),
    ]


def _parts(staged: list[tuple[bytes, bytes]], size: int) -> Iterator[list[tuple[bytes, bytes]]]:
    """Split the sorted ``staged`` into parts of at least ``size`` that share only the topmost pages."""
    start = 0
    for at in range(1, len(staged)):
        if at - start >= size and staged[at][0][0] != staged[at - 1][0][0]:
            yield staged[start:at]
            start = at
    if staged:
        yield staged[start:]
