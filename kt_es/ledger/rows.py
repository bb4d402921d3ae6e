"""Rows beside the map: the state after an epoch, and accepted erasures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from kt_es import epochs
from kt_es.epochs import Standing
from kt_es.errors import DivergenceError, MalformedError
from kt_es.formats.codec import Value, decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.entries import HASH_LENGTH, INDEX_LENGTH, PublicKey
from kt_es.formats.erasures import Erasure
from kt_es.formats.heads import HeadEvent
from kt_es.ledger.store import Change, Store
from kt_es.merkle.log import LogState
from kt_es.merkle.map import EMPTY_ROOT, Root

T = TypeVar("T")

EMPTY_LOG = LogState()


@dataclass(frozen=True, slots=True)
class Committed:
    """Everything that holds after an epoch. The stream of heads has one event for each epoch.

    ``queue_next`` and ``records_next`` are the revisions at which the next epoch begins: in the queue and in
    the stream of the log of mutations.
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
        """Decode a state of the directory ``origin``, which the reader knows by ``pinned``.

        Raises ``DivergenceError`` if the state belongs to another directory.
        """
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


def _take_log(value: Value, what: str) -> LogState:
    size, hashes = take_array(value, what, 2)
    edge = tuple(take_bytes(item, what, HASH_LENGTH) for item in take_array(hashes, what, 0, 64))
    return LogState(take_uint(size, what), edge)


@dataclass(frozen=True, slots=True)
class Beginning:
    """The point at which a data directory began: the first record, or a snapshot of a later epoch.

    The directory has no heads of the epochs before ``epoch``, and none of the first ``records`` records of
    the log of mutations.
    """

    epoch: int = 0
    records: int = 0

    def encode(self) -> bytes:
        return encode([self.epoch, self.records])

    @classmethod
    def decode(cls, data: bytes) -> Beginning:
        epoch, records = take_array(decode(data, "beginning"), "beginning", 2)
        return cls(take_uint(epoch, "beginning"), take_uint(records, "beginning"))


@dataclass(frozen=True, slots=True)
class StateTable:
    """The committed state, where the data began, and the oldest epoch that has all pages."""

    FAMILY: ClassVar = "meta"
    COMMITTED: ClassVar = b"committed"
    BEGINNING: ClassVar = b"beginning"
    OLDEST: ClassVar = b"oldest"
    store: Store

    def put(self, committed: Committed) -> Change:
        return self.FAMILY, self.COMMITTED, committed.encode()

    def put_beginning(self, beginning: Beginning) -> Change:
        return self.FAMILY, self.BEGINNING, beginning.encode()

    def committed(self, origin: str, pinned: PublicKey) -> Committed | None:
        """Return the committed state, None before the first epoch; ``DivergenceError`` if it is damaged."""
        return self._get(self.COMMITTED, lambda data: Committed.decode(data, origin, pinned))

    def beginning(self) -> Beginning:
        """Return where the data began; ``DivergenceError`` if that is damaged."""
        return self._get(self.BEGINNING, Beginning.decode) or Beginning()

    def put_published(self, event: HeadEvent, state: Committed) -> list[Change]:
        """Return the rows for other processes, to be written before ``event`` is published: here none."""
        return []

    def put_oldest(self, epoch: int) -> Change:
        return self.FAMILY, self.OLDEST, epoch.to_bytes(8)

    def oldest(self) -> int:
        """Return the oldest epoch whose pages are all kept.

        It is the bound of the last ``prune``, the epoch of the snapshot that the data began with, or 1.
        """
        pruned = int.from_bytes(self.store.get(self.FAMILY, self.OLDEST) or b"")
        return max(1, pruned, self.beginning().epoch)

    def _get(self, key: bytes, decode: Callable[[bytes], T]) -> T | None:
        data = self.store.get(self.FAMILY, key)
        try:
            return None if data is None else decode(data)
        except MalformedError as error:
            raise DivergenceError(f"the data directory is damaged: {error}") from None


@dataclass(frozen=True, slots=True)
class StoredErasure:
    """An accepted erasure, and the record that accepted it."""

    index: bytes
    entry_hash: bytes
    epoch: int
    sequence: int
    record: bytes


@dataclass(frozen=True, slots=True)
class ErasureTable:
    """Accepted erasures of openings. The entry hash may be one that no entry has."""

    FAMILY: ClassVar = "meta"
    PREFIX: ClassVar = b"erasure "
    store: Store

    def put(self, erasure: Erasure, epoch: int, sequence: int, record: bytes) -> Change:
        """Keep the erasure that record ``sequence`` of ``epoch``, with the bytes ``record``, accepted."""
        return self.FAMILY, self._key(erasure, epoch, sequence), record

    def get(self, erasure: Erasure, epoch: int, sequence: int) -> bytes | None:
        """Return the record ``sequence`` of ``epoch``, which accepted ``erasure``; None if it is missing."""
        return self.store.get_many(self.FAMILY, [self._key(erasure, epoch, sequence)], again=True)[0]

    def _key(self, erasure: Erasure, epoch: int, sequence: int) -> bytes:
        return self.PREFIX + erasure.index + erasure.entry_hash + epoch.to_bytes(8) + sequence.to_bytes(8)

    def up_to(self, epoch: int, index: bytes = b"", entry_hash: bytes = b"") -> Iterator[StoredErasure]:
        """Yield the erasures that were accepted up to ``epoch``: all, of one index, or of one entry."""
        for found, _ in self._scan(index + entry_hash):
            if found.epoch <= epoch:
                yield found

    def entries(self, epoch: int, index: bytes = b"", *, after: int = 0) -> dict[bytes, set[bytes]]:
        """Return the hashes of entries that were erased after epoch ``after`` up to ``epoch``, by index."""
        hashes: dict[bytes, set[bytes]] = {}
        for erasure in self.up_to(epoch, index):
            if erasure.epoch > after:
                hashes.setdefault(erasure.index, set()).add(erasure.entry_hash)
        return hashes

    def delete_after(self, epoch: int) -> list[Change]:
        return [(self.FAMILY, key, None) for found, key in self._scan(b"") if found.epoch > epoch]

    def is_empty(self) -> bool:
        """Return whether there is no erasure of any epoch."""
        return next(self._scan(b""), None) is None

    def _scan(self, of: bytes) -> Iterator[tuple[StoredErasure, bytes]]:
        at = len(self.PREFIX) + INDEX_LENGTH
        end = at + HASH_LENGTH
        for key, record in self.store.scan(self.FAMILY, self.PREFIX + of):
            epoch, sequence = int.from_bytes(key[end : end + 8]), int.from_bytes(key[end + 8 :])
            yield StoredErasure(key[len(self.PREFIX) : at], key[at:end], epoch, sequence, record), key
