"""The tables of a data directory: which rows it has, under which keys, and what is asked of them.

Only tables build keys and name families: those of this module, ``pages``, ``openings``, ``rows``,
``decisions``, ``shared_pages`` and ``shared_tables``. Integers in keys are big-endian, so that rows stand in
the order of their numbers.

| table    | family   | key                                                      | value                     |
|----------|----------|----------------------------------------------------------|---------------------------|
| pages    | pages    | path, version, hash (``merkle.pages.page_key``)          | page                      |
| entries  | entries  | index, u64 epoch                                         | u64 sequence, mutation    |
| nodes    | nodes    | u8 log, u8 level, u64 offset                             | hash                      |
| heads    | heads    | u64 epoch                                                | head event                |
|          | meta     | ``last head``, if the map is in a shared store           | u64 epoch, head event     |
| states   | meta     | ``committed``                                            | ``Committed``             |
|          | meta     | ``beginning``                                            | ``Beginning``             |
|          | meta     | ``oldest``                                               | u64 epoch                 |
| configs  | meta     | ``config ``, u64 epoch, u64 sequence                     | signed config             |
| erasures | meta     | ``erasure ``, index, entry hash, u64 epoch, u64 sequence | record                    |
| ahead    | meta     | ``ahead ``, u64 number of the slice                      | indices with entries      |
|          | meta     | ``replaced ``, u64 epoch, key of a page                  | keys of pages             |
| openings | openings | index, entry hash (``openings.OpeningTable``)            | opening, empty if erased  |
|          | meta     | ``openings position``                                    | u64 position in the log   |
| decisions| meta     | ``decided ``, entry hash (``decisions.DecisionTable``)   | where its record stands   |

A method that changes a table returns the change, and ``Store.write`` makes it: an epoch is one atomic write
over many tables. Rows of an epoch are written ahead of its commit, under its number, and count once it is
committed. Readers pass over rows of later epochs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import ClassVar, NamedTuple

from kt_es.errors import MalformedError, UnverifiedRowError
from kt_es.formats.configs import SignedConfig
from kt_es.formats.entries import INDEX_LENGTH, Mutation
from kt_es.formats.heads import HeadEvent
from kt_es.ledger.decisions import DecisionTable
from kt_es.ledger.openings import OpeningTable
from kt_es.ledger.pages import PageTable
from kt_es.ledger.rows import Committed, ErasureTable, StateTable
from kt_es.ledger.store import Change, Store
from kt_es.merkle.log import NodeId
from kt_es.merkle.map import LeafRef

FAMILIES = ("pages", "entries", "nodes", "heads", "openings", "meta")

HEADS_LOG = b"h"
MUTATIONS_LOG = b"m"


class StoredEntry(NamedTuple):
    """An accepted mutation: the sequence number of its record, and its bytes."""

    sequence: int
    data: bytes

    def mutation(self) -> Mutation:
        return Mutation.decode(self.data)


@dataclass(frozen=True, slots=True)
class EntryTable:
    """Accepted mutations, all versions of them."""

    FAMILY: ClassVar = "entries"
    store: Store

    def key(self, leaf: LeafRef) -> bytes:
        return leaf.index + leaf.version.to_bytes(8)

    def put(self, leaf: LeafRef, entry: StoredEntry) -> Change:
        return self.FAMILY, self.key(leaf), entry.sequence.to_bytes(8) + entry.data

    def delete(self, index: bytes, epoch: int) -> Change:
        return self.FAMILY, index + epoch.to_bytes(8), None

    def get_many(self, leaves: Sequence[LeafRef], *, again: bool = False) -> list[StoredEntry | None]:
        """Return the stored entry of each leaf of the map, None where there is none. No hash is compared."""
        rows = self.store.get_many(self.FAMILY, [self.key(leaf) for leaf in leaves], again=again)
        return [None if row is None else entry_in(row) for row in rows]

    def scan(self, index: bytes = b"", epoch: int = 0) -> Iterator[tuple[bytes, int, StoredEntry]]:
        """Yield ``(index, epoch, entry)`` in order: all, or those of one ``index`` from ``epoch`` on."""
        start = index + epoch.to_bytes(8) if epoch else None
        for key, row in self.store.scan(self.FAMILY, index, start=start):
            yield key[:-8], int.from_bytes(key[-8:]), entry_in(row)

    def history(self, leaf: LeafRef, after: int) -> Iterator[tuple[int, Mutation]]:
        """Yield every ``(epoch, mutation)`` above version ``after`` up to the one of ``leaf``, in order.

        Versions only grow, so a binary search among the epochs finds the first version without reading the
        earlier ones.
        """
        low, high = 1, leaf.version + 1
        while after and low < high:
            middle = (low + high) // 2
            first = next(self.scan(leaf.index, middle), None)
            if first is None or first[2].mutation().entry.version > after:
                high = middle
            else:
                low = first[1] + 1
        for _, epoch, stored in self.scan(leaf.index, low):
            if epoch <= leaf.version:
                yield epoch, stored.mutation()


def entry_in(row: bytes) -> StoredEntry:
    """Decode the value of a row of entries."""
    return StoredEntry(int.from_bytes(row[:8]), row[8:])


def mutation_of(leaf: LeafRef, stored: StoredEntry | None) -> Mutation:
    """Return the mutation of a leaf of the map; ``UnverifiedRowError`` if it is missing or another entry."""
    return entry_of(leaf, stored)[1]


def entry_of(leaf: LeafRef, stored: StoredEntry | None) -> tuple[StoredEntry, Mutation]:
    """Return the stored entry of a leaf, with its mutation. Raises what ``mutation_of`` raises."""
    if stored is None:
        raise UnverifiedRowError(f"the entry at index {leaf.index.hex()} of epoch {leaf.version} is missing")
    try:
        mutation = stored.mutation()
    except MalformedError as error:
        raise UnverifiedRowError(f"the entry at index {leaf.index.hex()} is damaged: {error}") from None
    if mutation.entry_hash != leaf.entry_hash:
        raise UnverifiedRowError(f"the entry at index {leaf.index.hex()} is not the one in the map")
    return stored, mutation


@dataclass(frozen=True, slots=True)
class LogNodeTable:
    """Nodes of the two logs, ``HEADS_LOG`` and ``MUTATIONS_LOG``: complete subtrees, which never change."""

    FAMILY: ClassVar = "nodes"
    KEY: ClassVar = Struct(">BQ")  # level, offset
    store: Store

    def put(self, log: bytes, nodes: Sequence[tuple[NodeId, bytes]]) -> list[Change]:
        return [(self.FAMILY, log + self.KEY.pack(*node), value) for node, value in nodes]

    def get_many(self, log: bytes, nodes: Sequence[NodeId], *, again: bool = False) -> list[bytes | None]:
        keys = [log + self.KEY.pack(*node) for node in nodes]
        return self.store.get_many(self.FAMILY, keys, again=again)

    def leaves(self, log: bytes, first: int, count: int, *, again: bool = False) -> list[bytes | None]:
        """Return the hashes of ``count`` leaves from number ``first`` on."""
        return self.get_many(log, [NodeId(0, offset) for offset in range(first, first + count)], again=again)

    def scan(self, log: bytes, level: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield ``(offset, hash)`` of one level in order: all up to offset ``end``, and maybe later ones."""
        for key, value in self.store.scan(self.FAMILY, log + level.to_bytes(1)):
            yield int.from_bytes(key[2:]), value


@dataclass(frozen=True, slots=True)
class HeadTable:
    """Head events, as they stand in the stream of heads."""

    FAMILY: ClassVar = "heads"
    LAST: ClassVar = ("meta", b"last head")
    store: Store

    @property
    def are_elsewhere(self) -> bool:
        """Whether the map of this process is in a shared store, and only its last head is here."""
        return self.store.get(*self.LAST) is not None

    def put(self, epoch: int, event: HeadEvent) -> list[Change]:
        return [(self.FAMILY, epoch.to_bytes(8), event.encode())]

    def get(self, epoch: int, *, again: bool = False) -> bytes | None:
        return self.store.get_many(self.FAMILY, [epoch.to_bytes(8)], again=again)[0]

    def event(self, epoch: int, *, again: bool = False) -> HeadEvent:
        """Return the head event of a committed epoch; ``UnverifiedRowError`` if it is missing or damaged."""
        data = self.get(epoch, again=again)
        if data is None:
            raise UnverifiedRowError(f"the data directory has epoch {epoch}, but no head of that epoch")
        try:
            return HeadEvent.decode(data, stored=True)
        except MalformedError as error:
            raise UnverifiedRowError(
                f"the head of epoch {epoch} in the data directory is damaged: {error}"
            ) from None

    def scan(self, newest: int) -> Iterator[tuple[int, bytes]]:
        """Yield ``(epoch, event)`` in order: all up to epoch ``newest``, and maybe later ones."""
        for key, data in self.store.scan(self.FAMILY):
            yield int.from_bytes(key), data


# Whoever compares a checkpoint reads the whole chain, which grows with every rotation.
_config = lru_cache(1_000)(SignedConfig.decode)


@dataclass(frozen=True, slots=True)
class ConfigTable:
    """Every signed config that was ever accepted."""

    FAMILY: ClassVar = "meta"
    PREFIX: ClassVar = b"config "
    store: Store

    def put(self, epoch: int, sequence: int, data: bytes) -> Change:
        """Keep the config ``data`` that record ``sequence`` of ``epoch`` accepted."""
        return self.FAMILY, self._key(epoch, sequence), data

    def get(self, epoch: int, sequence: int) -> bytes | None:
        """Return the config that record ``sequence`` of ``epoch`` accepted, None if it is not stored."""
        return self.store.get_many(self.FAMILY, [self._key(epoch, sequence)], again=True)[0]

    def _key(self, epoch: int, sequence: int) -> bytes:
        return self.PREFIX + epoch.to_bytes(8) + sequence.to_bytes(8)

    def chain(self, committed: Committed) -> tuple[SignedConfig, ...]:
        """Return every config up to the one in force after ``committed``, the first one first.

        Raises ``MalformedError`` if one is damaged. The links between them are not checked.
        """
        return tuple(_config(data) for data in self.up_to(committed.epoch))

    def up_to(self, epoch: int) -> list[bytes]:
        """Return the signed configs that were accepted up to ``epoch``, the first one first."""
        return [data for key, data in self.store.scan(self.FAMILY, self.PREFIX) if self._epoch(key) <= epoch]

    def delete_after(self, epoch: int) -> list[Change]:
        keys = [key for key, _ in self.store.scan(self.FAMILY, self.PREFIX) if self._epoch(key) > epoch]
        return [(self.FAMILY, key, None) for key in keys]

    def _epoch(self, key: bytes) -> int:
        return int.from_bytes(key[len(self.PREFIX) : len(self.PREFIX) + 8])


@dataclass(frozen=True, slots=True)
class AheadTable:
    """Notes of what was written ahead of a commit: the indices that have entries of the coming epoch.

    Pages and nodes of an unfinished epoch are harmless: readers find them through a root alone, and they are
    written again. Entries, configs and erasures are found by their keys. A row of an unfinished epoch would
    count in the next one: in a history, in the chain of configs, or as an erasure that nobody signed. The
    next epoch need not have the same items: a restored log may have lost its end, and a replay of forged
    records stops in the middle. So each slice of an epoch is written together with its note, and the commit
    deletes the notes. Every new epoch first deletes the rows that the notes name.
    """

    FAMILY: ClassVar = "meta"
    PREFIX: ClassVar = b"ahead "
    store: Store

    def put(self, number: int, changes: Sequence[Change]) -> list[Change]:
        """Note the entries among ``changes``, the slice ``number`` of its epoch."""
        indices = b"".join(key[:INDEX_LENGTH] for family, key, _ in changes if family == EntryTable.FAMILY)
        return [(self.FAMILY, self.PREFIX + number.to_bytes(8), indices)]

    def delete(self, number: int) -> list[Change]:
        return [(self.FAMILY, self.PREFIX + number.to_bytes(8), None)]

    def undo(self, epoch: int) -> None:
        """Delete the rows that were written ahead for the epoch after ``epoch``, the committed one.

        One write deletes a note together with the rows that it names; the write of the last note also deletes
        configs, erasures and lists of pages. If the process ends between two writes, the next call does the
        rest.
        """
        notes = list(self.store.scan(self.FAMILY, self.PREFIX))
        entries = EntryTable(self.store)
        for note, indices in notes:
            starts = range(0, len(indices), INDEX_LENGTH)
            changes = [entries.delete(indices[at : at + INDEX_LENGTH], epoch + 1) for at in starts]
            if note == notes[-1][0]:
                changes += ConfigTable(self.store).delete_after(epoch)
                changes += ErasureTable(self.store).delete_after(epoch)
                changes += PageTable(self.store).delete_lists_after(epoch)
            self.store.write([*changes, (self.FAMILY, note, None)], sync=False)


class Tables:
    """All tables over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.pages = PageTable(store)
        self.entries = EntryTable(store)
        self.nodes = LogNodeTable(store)
        self.heads = HeadTable(store)
        self.states = StateTable(store)
        self.configs = ConfigTable(store)
        self.erasures = ErasureTable(store)
        self.ahead = AheadTable(store)
        self.openings = OpeningTable(store)
        self.decisions = DecisionTable(store)

    def is_empty(self) -> bool:
        """Return whether nothing was committed, begun or written ahead yet."""
        return next(self._store.scan(StateTable.FAMILY), None) is None
