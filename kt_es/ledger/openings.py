"""Openings: the private side of the directory, per (index, entry hash), apart from the public logs.

An erased one leaves a mark behind: it is not taken for one that is still to come, and it cannot come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from kt_es.errors import DivergenceError, MalformedError
from kt_es.eventstore.streams import Event
from kt_es.formats.profiles import OPENING, OPENING_ERASED, Opening, decode_erased
from kt_es.ledger.ledger import META, OPENINGS
from kt_es.ledger.store import Change, Storage

_POSITION = b"openings position"
_ERASED = b""


class Missing(Enum):
    """Why there is no opening: it was erased, or none is known."""

    ERASED = "erased"
    UNKNOWN = "unknown"


class Openings:
    """The table of openings in a store, with the position in the log that it has been filled up to."""

    def __init__(self, store: Storage) -> None:
        self.store = store

    @property
    def position(self) -> int | None:
        """The position of the last event that was taken, None before the first."""
        position = self.store.get(META, _POSITION)
        return None if position is None else int.from_bytes(position)

    def get(self, index: bytes, entry_hash: bytes) -> Opening | Missing:
        """What is known here about the opening of one entry. DivergenceError for a damaged store."""
        data = self.store.get(OPENINGS, index + entry_hash)
        if data is None:
            return Missing.UNKNOWN
        if data == _ERASED:
            return Missing.ERASED
        try:
            return Opening.decode(data)
        except MalformedError as error:
            raise DivergenceError(f"a stored opening is damaged: {error}") from None

    def erase(self, index: bytes, entry_hash: bytes) -> None:
        """Forget the opening of one entry here, and leave the mark that it was erased."""
        self.store.write([_erasure(index, entry_hash)], sync=False)

    def take(self, index: bytes | None, event: Event) -> None:
        """Store one event of the stream of ``index`` and the position to go on from, in one write.

        Both come from the streams again if the machine fails, so the write need not be synced. Without an
        index only the position is stored. Raises ``MalformedError`` for an event that is neither an opening
        nor an erasure.
        """
        changes: list[Change] = [] if index is None else self._changes(index, event)
        if event.position is not None:
            changes.append((META, _POSITION, event.position.to_bytes(8)))
        self.store.write(changes, sync=False)

    def _changes(self, index: bytes, event: Event) -> list[Change]:
        if event.type == OPENING_ERASED:
            return [_erasure(index, decode_erased(event.data))]
        if event.type != OPENING:
            raise MalformedError("opening event", "has an unknown type")
        key = index + Opening.decode(event.data).entry_hash
        if self.store.get(OPENINGS, key) == _ERASED:
            return []
        return [(OPENINGS, key, event.data)]


def _erasure(index: bytes, entry_hash: bytes) -> Change:
    return OPENINGS, index + entry_hash, _ERASED


def read_opening(
    events: Iterable[Event], entry_hash: bytes, opens: Callable[[Opening], bool]
) -> Opening | Missing:
    """The opening of one entry from its stream's events: for readers whose projection is behind.

    Of several that claim to be it, ``opens`` tells the true one.
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
            # The projection logs it when it comes to it.
            continue
    return found
