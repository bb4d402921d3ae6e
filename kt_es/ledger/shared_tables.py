"""The tables of a shared store: the same questions as ``tables``, safe against rows of aborted epochs.

| table    | family   | key                                            | value                  |
|----------|----------|------------------------------------------------|------------------------|
| pages    | pages    | path, version, hash                            | page                   |
| entries  | entries  | index, u64 epoch, entry hash                   | u64 sequence, mutation |
| nodes    | nodes    | u8 log, u8 level, u64 offset                   | hash                   |
| heads    | heads    | u64 epoch                                      | head event             |
| configs  | configs  | ``config ``, u64 epoch, u64 sequence           | signed config          |
| erasures | erasures | index, entry hash, u64 epoch, u64 sequence     | record                 |
| states   | states   | u64 epoch, SHA-256 of the SMH                  | ``Committed``          |
| replaced | replaced | u64 epoch, SHA-256 of the SMH and of the value | keys of pages          |
| decisions| decisions| entry hash (``decisions.SharedDecisionTable``) | where its record is    |
| about    | about    | ``oldest``, ``pruned``, ``decided ...``        | u64                    |

No write is atomic over several rows, and no row of an aborted epoch is deleted: a retry writes the same rows
again, and other rows of the aborted epoch are not used. A page is found through its hash, an entry through
its leaf in the map or through the next version, a config through the config in force, a state and a list
through the signed head. Nodes are written after the records that they hash were appended. An erasure counts
if the log has its record (``proofs.proven_erasure``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from kt_es.errors import MalformedError, UnverifiedRowError
from kt_es.formats.configs import SignedConfig
from kt_es.formats.entries import HASH_LENGTH, INDEX_LENGTH, Mutation
from kt_es.formats.erasures import Erasure
from kt_es.formats.heads import HeadEvent
from kt_es.formats.queue import Record, Verdict
from kt_es.ledger.decisions import SharedDecisionTable
from kt_es.ledger.rows import Committed, ErasureTable, StateTable, StoredErasure
from kt_es.ledger.shared_pages import SharedPageTable, at_head
from kt_es.ledger.store import Change, Store
from kt_es.ledger.tables import (
    AheadTable,
    ConfigTable,
    EntryTable,
    HeadTable,
    LogNodeTable,
    Tables,
    entry_in,
    mutation_of,
)
from kt_es.merkle.log import NodeId
from kt_es.merkle.map import LeafRef

BLOCK = 256
"""Rows in one read of many: the nodes of one partition."""


@dataclass(frozen=True, slots=True)
class SharedEntryTable(EntryTable):
    def key(self, leaf: LeafRef) -> bytes:
        return leaf.index + leaf.version.to_bytes(8) + leaf.entry_hash

    def history(self, leaf: LeafRef, after: int) -> Iterator[tuple[int, Mutation]]:
        """Yield every ``(epoch, mutation)`` above version ``after`` up to the one of ``leaf``, in order.

        Each entry names the hash of the previous entry, so entries of aborted epochs are passed over. Raises
        ``UnverifiedRowError`` if an entry is missing or damaged.
        """
        found: list[tuple[int, Mutation]] = []
        for epoch, mutation in self.back(leaf):
            if mutation.entry.version <= after:
                break
            found.append((epoch, mutation))
        return reversed(found)

    def back(self, leaf: LeafRef) -> Iterator[tuple[int, Mutation]]:
        """Yield ``(epoch, mutation)`` of ``leaf``, then of the version before, and so on to the first one.

        The entry of ``leaf`` may also be of an epoch before ``leaf.version``. Raises what ``history`` raises.
        """
        wanted: bytes | None = leaf.entry_hash
        for key, row in self.store.scan(self.FAMILY, leaf.index, start=self.key(leaf), reverse=True):
            if key[-HASH_LENGTH:] != wanted:
                continue
            epoch = int.from_bytes(key[INDEX_LENGTH:-HASH_LENGTH])
            mutation = mutation_of(LeafRef(leaf.index, wanted, epoch), entry_in(row))
            wanted = mutation.entry.previous
            yield epoch, mutation
            if wanted is None:
                return
        raise UnverifiedRowError(f"an earlier version of the entry at index {leaf.index.hex()} is missing")


@dataclass(frozen=True, slots=True)
class SharedLogNodeTable(LogNodeTable):
    def scan(self, log: bytes, level: int, end: int) -> Iterator[tuple[int, bytes]]:
        for first in range(0, end, BLOCK):
            nodes = [NodeId(level, offset) for offset in range(first, min(end, first + BLOCK))]
            for node, value in zip(nodes, self.get_many(log, nodes, again=True), strict=True):
                if value is not None:
                    yield node.offset, value


@dataclass(frozen=True, slots=True)
class SharedHeadTable(HeadTable):
    """Published heads. The last one that was committed here is the anchor, and this process keeps it, too."""

    @property
    def are_elsewhere(self) -> bool:
        return False

    def put(self, epoch: int, event: HeadEvent) -> list[Change]:
        return [*HeadTable.put(self, epoch, event), (*self.LAST, epoch.to_bytes(8) + event.encode())]

    def event(self, epoch: int, *, again: bool = False) -> HeadEvent:
        data = self.get(epoch, again=again)
        if data is None and not again:
            data = self.get(epoch, again=True)
        if data is None:
            raise UnverifiedRowError(
                f"the shared store has no head of epoch {epoch}: `kt store rebuild` fills it from the log"
            )
        try:
            return HeadEvent.decode(data)
        except MalformedError as error:
            raise UnverifiedRowError(
                f"the shared store has a damaged head of epoch {epoch} ({error}): `kt store rebuild` "
                "fills it from the log"
            ) from None

    def get(self, epoch: int, *, again: bool = False) -> bytes | None:
        last = self.store.get(*self.LAST) or b""
        return last[8:] if last[:8] == epoch.to_bytes(8) else HeadTable.get(self, epoch, again=again)

    def scan(self, newest: int) -> Iterator[tuple[int, bytes]]:
        for first in range(1, newest + 1, BLOCK):
            epochs = range(first, min(newest + 1, first + BLOCK))
            rows = self.store.get_many(self.FAMILY, [epoch.to_bytes(8) for epoch in epochs], again=True)
            for epoch, data in zip(epochs, rows, strict=True):
                if data is not None:
                    yield epoch, data


@dataclass(frozen=True, slots=True)
class SharedConfigTable(ConfigTable):
    FAMILY: ClassVar = "configs"

    def chain(self, committed: Committed) -> tuple[SignedConfig, ...]:
        """Return the chain of configs, found by ``previous`` from the config in force. Ignore other rows."""
        by_hash: dict[bytes, SignedConfig] = {}
        for data in self.up_to(committed.epoch):
            with suppress(MalformedError):
                signed = SignedConfig.decode(data)
                by_hash.setdefault(signed.config.hash, signed)
        chain: list[SignedConfig] = []
        signed_next = committed.standing.config
        while signed_next is not None:
            chain.append(signed_next)
            previous = signed_next.config.previous
            signed_next = None if previous is None else by_hash.pop(previous, None)
        return tuple(reversed(chain))


@dataclass(frozen=True, slots=True)
class SharedErasureTable(ErasureTable):
    FAMILY: ClassVar = "erasures"
    PREFIX: ClassVar = b""

    def up_to(self, epoch: int, index: bytes = b"", entry_hash: bytes = b"") -> Iterator[StoredErasure]:
        """Yield the erasures as ``ErasureTable`` does, except rows whose key differs from their record."""
        return filter(_is_of_its_key, ErasureTable.up_to(self, epoch, index, entry_hash))


def _is_of_its_key(found: StoredErasure) -> bool:
    try:
        record = Record.decode(found.record)
        content = record.item.content
        erasure = Erasure.decode(content if isinstance(content, bytes) else b"")
    except MalformedError:
        return False
    says = record.verdict, record.sequence, erasure.index, erasure.entry_hash
    return says == (Verdict.ERASED, found.sequence, found.index, found.entry_hash)


@dataclass(frozen=True, slots=True)
class SharedStateTable(StateTable):
    SHARED: ClassVar = "states"
    ABOUT: ClassVar = "about"
    PRUNED: ClassVar = b"pruned"

    def put_published(self, event: HeadEvent, state: Committed) -> list[Change]:
        """Return the row with the state after the epoch of ``event``, whose own head is not in it yet."""
        return [(self.SHARED, at_head(state.epoch, event.smh_bytes), state.encode())]

    def published(self, epoch: int, event: HeadEvent, *, again: bool = False) -> bytes | None:
        """Return the stored state after ``epoch``, whose head is ``event``, not decoded."""
        return self.published_many([(epoch, event)], again=again)[0]

    def published_many(
        self, heads: Sequence[tuple[int, HeadEvent]], *, again: bool = False
    ) -> list[bytes | None]:
        """Return what ``published`` returns for each epoch and its head."""
        keys = [at_head(epoch, event.smh_bytes) for epoch, event in heads]
        return self.store.get_many(self.SHARED, keys, again=again)

    def delete_published(self, epoch: int) -> list[Change]:
        return [(self.SHARED, key, None) for key, _ in self.store.scan(self.SHARED, epoch.to_bytes(8))]

    # If several processes write this row, the larger value stays.
    def put_oldest(self, epoch: int) -> Change:
        return self.ABOUT, self.OLDEST, epoch.to_bytes(8)

    def put_pruned(self, epoch: int) -> Change:
        """Note that all rows up to ``epoch`` that no kept epoch needs are deleted."""
        return self.ABOUT, self.PRUNED, epoch.to_bytes(8)

    def pruned(self) -> int:
        return int.from_bytes(self._about(self.PRUNED) or b"")

    def oldest(self) -> int:
        return int.from_bytes(self._about(self.OLDEST) or b"\x01")

    def _about(self, key: bytes) -> bytes | None:
        # These rows change, so a single replica may have an old value.
        return self.store.get_many(self.ABOUT, [key], again=True)[0]


@dataclass(frozen=True, slots=True)
class SharedAheadTable(AheadTable):
    """A table without notes: rows of an aborted epoch stay, and nothing uses them."""

    def put(self, number: int, changes: Sequence[Change]) -> list[Change]:
        return []

    def delete(self, number: int) -> list[Change]:
        return []

    def undo(self, epoch: int) -> None:
        """Do nothing: rows of an aborted epoch stay."""


class SharedTables(Tables):
    """All tables over a store that other processes share."""

    pages: SharedPageTable
    states: SharedStateTable

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.pages = SharedPageTable(store)
        self.entries = SharedEntryTable(store)
        self.nodes = SharedLogNodeTable(store)
        self.heads = SharedHeadTable(store)
        self.states = SharedStateTable(store)
        self.configs = SharedConfigTable(store)
        self.erasures = SharedErasureTable(store)
        self.ahead = SharedAheadTable(store)
        self.decisions = SharedDecisionTable(store)


def tables_of(store: Store) -> Tables:
    """Return the tables over ``store``, of the kind that fits the store."""
    return SharedTables(store) if store.is_shared else Tables(store)
