"""Openings of entries, the private side of the directory: a table of all of them, or a cache of some."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Protocol

from kt_es.errors import DivergenceError, MalformedError
from kt_es.eventstore.streams import Event
from kt_es.formats.entries import OPENING, OPENING_ERASED, Opening, decode_erased
from kt_es.ledger.bytecache import ByteCache
from kt_es.ledger.store import Change, Store

_POSITION = "meta", b"openings position"  # family and key

_OPENING_BYTES = 300  # with its key and without its profile, see bytecache


class Missing(Enum):
    """Why there is no opening: it was erased, or none is known."""

    ERASED = "erased"
    UNKNOWN = "unknown"


class Openings(Protocol):
    """The openings that a process has itself. All others are only in their streams."""

    def get(self, index: bytes, entry_hash: bytes) -> Opening | Missing:
        """Return the opening of one entry. ``DivergenceError`` if it is damaged."""
        ...

    def get_many(self, entries: Sequence[tuple[bytes, bytes]]) -> list[Opening | Missing]:
        """Return what ``get`` returns for each pair of index and entry hash."""
        ...

    def erase(self, index: bytes, entry_hash: bytes) -> None:
        """Forget the opening of one entry, because it was erased."""
        ...

    def keep(self, index: bytes, opening: Opening) -> None:
        """Keep an opening that was read from its stream."""
        ...


class OpeningCache:
    """The openings that were used last, bounded in bytes. Safe for threads."""

    def __init__(self, limit: int) -> None:
        """Keep as many openings as ``limit`` bytes allow."""
        self._openings = ByteCache[bytes, Opening](limit, opening_size)

    def get(self, index: bytes, entry_hash: bytes) -> Opening | Missing:
        return self._openings.get(index + entry_hash) or Missing.UNKNOWN

    def get_many(self, entries: Sequence[tuple[bytes, bytes]]) -> list[Opening | Missing]:
        return [self.get(index, entry_hash) for index, entry_hash in entries]

    def erase(self, index: bytes, entry_hash: bytes) -> None:
        self._openings.drop(index + entry_hash)

    def keep(self, index: bytes, opening: Opening) -> None:
        self._openings.put(index + opening.entry_hash, opening)


def opening_size(_key: bytes, opening: Opening) -> int:
    """Return the bytes that an opening and its key take in memory."""
    return _OPENING_BYTES + len(opening.profile)


@dataclass(frozen=True, slots=True)
class OpeningTable:
    """Openings, the private side of the directory, and the position in the log up to which they are stored.

    An erased opening leaves an empty row. So the opening does not count as one that has not arrived yet, and
    it cannot come back.
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
        return _stored(self.store.get(self.FAMILY, index + entry_hash))

    def get_many(self, entries: Sequence[tuple[bytes, bytes]]) -> list[Opening | Missing]:
        """Return what ``get`` returns for each pair of index and entry hash, with one read of the store."""
        rows = self.store.get_many(self.FAMILY, [index + entry_hash for index, entry_hash in entries])
        return [_stored(row) for row in rows]

    def scan(self) -> Iterator[bytes]:
        """Yield every opening as it is stored, and nothing for an erased one."""
        return (data for _, data in self.store.scan(self.FAMILY))

    def erase(self, index: bytes, entry_hash: bytes) -> None:
        """Replace the opening of one entry by the mark that it was erased."""
        self.store.write([(self.FAMILY, index + entry_hash, b"")], sync=False)

    def keep(self, index: bytes, opening: Opening) -> None:
        """Do nothing: the follower of the streams stores the opening together with its position."""

    def add(self, index: bytes | None, event: Event) -> None:
        """Store an event of the stream of ``index`` and its position in one write.

        Without ``index``, only the position is stored. The write is not synced: after a crash of the machine
        both are read from the streams again. Raises ``MalformedError`` for an event that is neither an
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


def _stored(data: bytes | None) -> Opening | Missing:
    if data is None:
        return Missing.UNKNOWN
    try:
        return Opening.decode(data) if data else Missing.ERASED
    except MalformedError as error:
        raise DivergenceError(f"a stored opening is damaged: {error}") from None


def read_opening(
    events: Iterable[Event], entry_hash: bytes, opens: Callable[[Opening], bool]
) -> Opening | Missing:
    """Find the opening of one entry among the events of its stream, for readers whose table is behind.

    Several openings may claim to be of this entry; ``opens`` recognizes the true one.
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
            # The follower that fills the table logs this event.
            continue
    return found
