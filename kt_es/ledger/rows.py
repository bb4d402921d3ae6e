"""What the tables store: the state after an epoch, and the openings of entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, TypeVar

from kt_es import epochs
from kt_es.epochs import Standing
from kt_es.errors import DivergenceError, MalformedError
from kt_es.eventstore.streams import Event
from kt_es.formats.codec import Value, decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.entries import HASH_LENGTH, OPENING, OPENING_ERASED, Opening, PublicKey, decode_erased
from kt_es.ledger.store import Change, Store
from kt_es.merkle.log import LogState
from kt_es.merkle.map import EMPTY_ROOT, Root

T = TypeVar("T")

EMPTY_LOG = LogState()

_POSITION = "meta", b"openings position"  # family and key


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

    def put_oldest(self, epoch: int) -> Change:
        return self.FAMILY, self.OLDEST, epoch.to_bytes(8)

    def oldest(self) -> int:
        """Return the oldest epoch whose pages are all kept.

        That is the bound of the last ``prune``, the epoch of the snapshot that the data began with, or 1.
        """
        pruned = int.from_bytes(self.store.get(self.FAMILY, self.OLDEST) or b"")
        return max(1, pruned, self.beginning().epoch)

    def _get(self, key: bytes, decode: Callable[[bytes], T]) -> T | None:
        data = self.store.get(self.FAMILY, key)
        try:
            return None if data is None else decode(data)
        except MalformedError as error:
            raise DivergenceError(f"the data directory is damaged: {error}") from None


class Missing(Enum):
    """Why there is no opening: it was erased, or none is known."""

    ERASED = "erased"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class OpeningTable:
    """Openings, the private side of the directory, and the position in the log up to which they are stored.

    An erased opening leaves an empty row. So it does not count as one that is still to come, and it cannot
    come back.
    """

    FAMILY: ClassVar = "openings"
    store: Store

    @property
    def position(self) -> int | None:
        """The position of the last event that was stored, None before the first."""
        position = self.store.get(*_POSITION)
        return None if position is None else int.from_bytes(position)

    def get(self, index: bytes, entry_hash: bytes) -> Opening | Missing:
        """Return the opening of one entry. ``DivergenceError`` if it is damaged."""
        data = self.store.get(self.FAMILY, index + entry_hash)
        if data is None:
            return Missing.UNKNOWN
        try:
            return Opening.decode(data) if data else Missing.ERASED
        except MalformedError as error:
            raise DivergenceError(f"a stored opening is damaged: {error}") from None

    def scan(self) -> Iterator[bytes]:
        """Yield every opening as it is stored, and nothing for an erased one."""
        return (data for _, data in self.store.scan(self.FAMILY))

    def erase(self, index: bytes, entry_hash: bytes) -> None:
        """Replace the opening of one entry by the mark that it was erased."""
        self.store.write([(self.FAMILY, index + entry_hash, b"")], sync=False)

    def add(self, index: bytes | None, event: Event) -> None:
        """Store an event of the stream of ``index`` and its position in one write.

        Without ``index``, only the position is stored. The write is not synced: after a failure of the
        machine both come from the streams again. Raises ``MalformedError`` for an event that is neither an
        opening nor an erasure.
        """
        changes = [] if index is None else self._changes(index, event)
        if event.position is not None:
            changes.append((*_POSITION, event.position.to_bytes(8)))
        self.store.write(changes, sync=False)

    def _changes(self, index: bytes, event: Event) -> list[Change]:
        if event.type == OPENING_ERASED:
            return [(self.FAMILY, index + decode_erased(event.data), b"")]
        if event.type != OPENING:
            raise MalformedError("opening event", "has an unknown type")
        key = index + Opening.decode(event.data).entry_hash
        return [] if self.store.get(self.FAMILY, key) == b"" else [(self.FAMILY, key, event.data)]


def read_opening(
    events: Iterable[Event], entry_hash: bytes, opens: Callable[[Opening], bool]
) -> Opening | Missing:
    """Find the opening of one entry among the events of its stream, for readers whose table is behind.

    Of several openings that claim to be of this entry, ``opens`` recognizes the true one.
    """
    found: Opening | Missing = Missing.UNKNOWN
    for event in events:
        try:
            if event.type == OPENING_ERASED and decode_erased(event.data) == entry_hash:
                return Missing.ERASED
            if event.type == OPENING and found is Missing.UNKNOWN:
                opening = Opening.decode(event.data)
                if opening.entry_hash == entry_hash and opens(opening):
                    found = opening
        except MalformedError:
            # The follower that fills the table logs it.
            continue
    return found
