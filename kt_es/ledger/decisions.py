"""The index of decisions: which records of the log of mutations are about a submitted mutation.

A mutation is asked for by its id, the entry hash. A record is found by the hash of the item as well, since
the same entry under other signatures is another item with its own verdict. An item that was submitted again
may have several records.

The key of a row has the hash of the leaf of the log that it is about. It counts if the log has that leaf, so
rows of unfinished epochs need not be deleted, and rows with equal keys have equal values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from struct import Struct
from typing import ClassVar, NamedTuple

from kt_es.crypto.hashes import sha256
from kt_es.formats.entries import Mutation
from kt_es.formats.queue import Record, Verdict
from kt_es.ledger.store import Change, Store

MAX_ROWS = 64
"""Rows of one mutation that are read. Front ends submit none again that was refused or is accepted."""
_PREFIX = 8
"""Bytes of the hash of an item, and of the hash of a leaf, in a key."""
_NUMBER = 8
_ACCEPTED, _OTHER = b"\x00", b"\x01"
_ROW = Struct(">QQQB")


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A row: where the record of a mutation stands, and what it says.

    ``leaf`` are the first bytes of the hash of the record as a leaf of the log.
    """

    sequence: int
    leaf: bytes
    epoch: int
    revision: int
    position: int
    verdict: Verdict

    def is_leaf(self, leaf: bytes | None) -> bool:
        """Return whether the row is about the record whose hash in the log is ``leaf``."""
        return leaf is not None and leaf.startswith(self.leaf)


class Kept(NamedTuple):
    """The index has all records from number ``since`` up to number ``until``, which is excluded."""

    since: int = 0
    until: int = 0

    def extended(self, first: int, end: int) -> Kept:
        """Return what is kept after the records from ``first`` to ``end`` were added."""
        return Kept(first if self.until < first else self.since, max(end, self.until))


@dataclass(frozen=True, slots=True)
class DecisionTable:
    """Rows of all mutations that could be decoded."""

    FAMILY: ClassVar = "meta"
    PREFIX: ClassVar = b"decided "
    KEPT: ClassVar = b"decided: kept"
    store: Store

    def put_all(self, epoch: int, decided: Iterable[tuple[object, Record, bytes]]) -> list[Change]:
        """Keep where the records of mutations stand, among the parsed items of one event of ``epoch``.

        ``decided`` has each item, its record, and the hash of the record in the log.
        """
        return [
            self.put(thing.entry_hash, record, leaf, epoch)
            for thing, record, leaf in decided
            if isinstance(thing, Mutation)
        ]

    def put(self, entry_hash: bytes, record: Record, leaf: bytes, epoch: int) -> Change:
        """Keep where ``record``, whose hash in the log is ``leaf``, stands. Its item is a mutation."""
        item = record.item
        data = item.content if isinstance(item.content, bytes) else b""
        kind = _OTHER if record.verdict else _ACCEPTED
        key = entry_hash + kind + sha256(data)[:_PREFIX] + record.sequence.to_bytes(_NUMBER) + leaf[:_PREFIX]
        value = _ROW.pack(epoch, item.revision, item.position, record.verdict)
        return self.FAMILY, self.PREFIX + key, value

    def find(self, entry_hash: bytes, item_hash: bytes | None = None) -> Iterator[StoredDecision]:
        """Yield the rows of a mutation, or of one item alone, those that count most first.

        The row of an accepted item comes first, then the newest of the others. At most ``MAX_ROWS`` of the
        others are read. Some rows may be of no committed epoch.
        """
        item = b"" if item_hash is None else item_hash[:_PREFIX]
        yield from self._scan(entry_hash + _ACCEPTED + item)
        others = islice(self._scan(entry_hash + _OTHER + item, reverse=True), MAX_ROWS)
        yield from sorted(others, key=lambda found: -found.sequence)

    def _scan(self, of: bytes, *, reverse: bool = False) -> Iterator[StoredDecision]:
        for key, value in self.store.scan(self.FAMILY, self.PREFIX + of, reverse=reverse):
            # Others may write to a shared store: a row with another form is none.
            if len(value) == _ROW.size and value[-1] in Verdict.__members__.values():
                epoch, revision, position, verdict = _ROW.unpack(value)
                sequence, leaf = int.from_bytes(key[-_PREFIX - _NUMBER : -_PREFIX]), key[-_PREFIX:]
                yield StoredDecision(sequence, leaf, epoch, revision, position, Verdict(verdict))

    def kept(self) -> Kept:
        """Return which records the index has. Those of data that an earlier version wrote may be missing."""
        data = self.store.get(self.FAMILY, self.KEPT) or bytes(2 * _NUMBER)
        return Kept(int.from_bytes(data[:_NUMBER]), int.from_bytes(data[_NUMBER:]))

    def put_kept(self, kept: Kept) -> list[Change]:
        return [(self.FAMILY, self.KEPT, kept.since.to_bytes(_NUMBER) + kept.until.to_bytes(_NUMBER))]


@dataclass(frozen=True, slots=True)
class SharedDecisionTable(DecisionTable):
    """The index in a shared store. Only a client, who has the mutation, can verify all of a row."""

    FAMILY: ClassVar = "decisions"
    PREFIX: ClassVar = b""
    ABOUT: ClassVar = "about"
    SINCE: ClassVar = b"decided since"
    UNTIL: ClassVar = b"decided until"

    def kept(self) -> Kept:
        # These rows change, so a single replica may have an old value. The larger value stays.
        since, until = self.store.get_many(self.ABOUT, [self.SINCE, self.UNTIL], again=True)
        return Kept(int.from_bytes(since or b""), int.from_bytes(until or b""))

    def put_kept(self, kept: Kept) -> list[Change]:
        rows = ((self.SINCE, kept.since), (self.UNTIL, kept.until))
        return [(self.ABOUT, key, number.to_bytes(_NUMBER)) for key, number in rows if number]
