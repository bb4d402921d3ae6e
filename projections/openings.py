"""Openings: the private side of the directory, from its own streams, apart from the public logs.

Each index has a stream of ``Opening`` and ``OpeningErased`` events. They are kept per (index, entry
hash); an erased one leaves a mark behind, so that it is not taken for one that is still to come and
cannot come back. Log lines name streams and revisions, which say nothing about a person.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from enum import Enum

import structlog

from kt_es.errors import AccessDeniedError, DivergenceError, KtError, MalformedError, UnavailableError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.profiles import OPENING, OPENING_ERASED, Opening, decode_erased
from kt_es.process.outage import Outage
from projections.follower import FIRST_DELAY, LAST_DELAY, stopped_by
from projections.ledger import META, OPENINGS
from projections.storage import Change, Storage
from projections.worker import Worker

_POSITION = b"openings position"
_ERASED = b""
_INDEX = re.compile(r"[0-9a-f]{64}")

_LOG = structlog.get_logger("projections.openings")


class Missing(Enum):
    """Why there is no opening: it was erased, or none is known."""

    ERASED = "erased"
    UNKNOWN = "unknown"


class Openings:
    """The openings of one directory in a store, kept up to date in a thread of their own.

    ``failed`` is told when that thread has ended for good. ``denied`` says which right to follow is
    missing, while it is; it is tried again like a log that is away.
    """

    def __init__(
        self,
        connect: Callable[[], EventLog],
        names: StreamNames,
        store: Storage,
        failed: Callable[[KtError], None],
    ) -> None:
        self._connect = connect
        self._prefix = names.openings_prefix
        self._store = store
        self._outage = Outage("openings", _LOG)
        self.denied: AccessDeniedError | None = None
        self.worker = Worker("openings", self._run, failed)

    def get(self, index: bytes, entry_hash: bytes) -> Opening | Missing:
        """What is known here about the opening of one entry. DivergenceError for a damaged store."""
        data = self._store.get(OPENINGS, index + entry_hash)
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
        self._store.write([(OPENINGS, index + entry_hash, _ERASED)], sync=False)

    def take(self, event: Event) -> None:
        """Store one event and the position to go on from, in one write.

        Both come from the streams again if the machine fails, so the write need not be synced.
        """
        changes: list[Change] = []
        if event.type:
            changes += self._changes(event)
        if event.position is not None:
            changes.append((META, _POSITION, event.position.to_bytes(8)))
        self._store.write(changes, sync=False)

    def _run(self, stop: threading.Event) -> None:
        delay = FIRST_DELAY
        while not stop.is_set():
            try:
                self._store.ensure_writable()
                log = self._connect()
                try:
                    if self._follow(log, stop):
                        delay = FIRST_DELAY
                finally:
                    log.close()
            except (UnavailableError, AccessDeniedError) as error:
                self.denied = error if isinstance(error, AccessDeniedError) else None
                if not stop.is_set():
                    self._outage.failed(error)
            stop.wait(delay)
            delay = min(2 * delay, LAST_DELAY)

    def _follow(self, log: EventLog, stop: threading.Event) -> bool:
        """Take events until the subscription ends; whether there were any."""
        position = self._store.get(META, _POSITION)
        after = None if position is None else int.from_bytes(position)
        subscription = log.subscribe_prefix(self._prefix, after)
        self._outage.over()
        self.denied = None
        came = False
        with stopped_by(stop, subscription):
            for event in subscription:
                self.take(event)
                came = True
        return came

    def _changes(self, event: Event) -> list[Change]:
        try:
            index = _index_of(event.stream, self._prefix)
            if event.type == OPENING_ERASED:
                return [(OPENINGS, index + decode_erased(event.data), _ERASED)]
            key = index + _opening_of(event).entry_hash
        except MalformedError as error:
            _LOG.warning(
                "skipped an event that is no opening",
                stream=event.stream[:200],
                revision=event.revision,
                problem=error.problem,
            )
            return []
        if self._store.get(OPENINGS, key) == _ERASED:
            return []
        return [(OPENINGS, key, event.data)]


def _index_of(stream: str, prefix: str) -> bytes:
    name = stream.removeprefix(prefix)
    if not stream.startswith(prefix) or not _INDEX.fullmatch(name):
        raise MalformedError("opening stream", "its name does not end in an index")
    return bytes.fromhex(name)


def _opening_of(event: Event) -> Opening:
    if event.type != OPENING:
        raise MalformedError("opening event", "has an unknown type")
    return Opening.decode(event.data)


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
