"""Takes erased openings out of their streams, once an epoch has accepted their erasure.

An event log deletes events only from the start of a stream. So the sweeper appends again the openings that
stay and are before an erased one, and then truncates the stream after the erased one. The server frees the
space when it scavenges. Every step may be repeated, and several front ends may sweep at the same time: the
ids of copies depend on content and position alone.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping

import structlog

from kt_es.errors import AccessDeniedError, KtError, MalformedError, UnavailableError, WrongRevisionError
from kt_es.eventstore.rights import DELETED
from kt_es.eventstore.streams import ANY, Event, NewEvent, StreamNames, content_event
from kt_es.formats.profiles import OPENING, OPENING_ERASED, Opening, encode_erased
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.openings import OpeningTable
from kt_es.server.late import RequestLog

LOOK = 0.25
"""Seconds between two looks for new erasures. A look costs nothing while there are none."""
AWAY = 5.0
"""Seconds until the next attempt after the log was away."""
DENIED = 600.0
"""Seconds until the next attempt on a stream whose rights forbid truncating it."""
ROUNDS = 16

_LOG = structlog.get_logger("kt_es.server")


class Sweeper:
    """Sweeps the streams of openings of one directory; ``run`` is for a thread of its own.

    The disk holds no state of it: after a start, each erasure is checked again, with one read.
    """

    def __init__(
        self,
        log: RequestLog,
        names: StreamNames,
        ledger: Ledger,
        openings: OpeningTable,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._names = names
        self._ledger = ledger
        self._openings = openings
        self._clock = clock
        self._swept = -1  # the epoch up to which all erasures are done
        self._again_at: float | None = None
        self._denied: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Sweep until ``stop``."""
        while not stop.wait(LOOK):
            try:
                self.look(stop)
            except UnavailableError:
                # The probe of the log reports the outage.
                stop.wait(AWAY)

    def look(self, stop: threading.Event) -> None:
        """Sweep what was erased since the last look. After ``UnavailableError``, look again."""
        if self._again_at is not None and self._clock() >= self._again_at:
            self._swept, self._again_at = -1, None
        committed = self._ledger.committed
        if not self._ledger.has_erasures or not self._swept < self._ledger.last_erasure <= committed.epoch:
            return
        erasures = self._ledger.tables.erasures
        for index in erasures.entries(committed.epoch, after=self._swept):
            if stop.is_set():
                return
            self._sweep(index, erasures.entries(committed.epoch, index)[index])
        self._swept = committed.epoch

    def _sweep(self, index: bytes, erased: set[bytes]) -> None:
        for entry_hash in erased:
            self._openings.erase(index, entry_hash)
        stream = self._names.openings(index)
        try:
            sweep_stream(self._log, stream, erased)
        except UnavailableError:
            raise
        except KtError as error:
            if isinstance(error, AccessDeniedError):
                self._again_at = self._clock() + DENIED
            if stream not in self._denied:
                self._denied.add(stream)
                _LOG.error("an erased opening stands in its stream still", stream=stream, problem=str(error))


def sweep_stream(log: RequestLog, stream: str, erased: set[bytes]) -> None:
    """Take the openings of the entries ``erased`` out of ``stream``; all others stay.

    Raises what ``log`` raises. The next call does the remaining steps.
    """
    for _ in range(ROUNDS):
        gone = {found: event.revision for event in log.read(stream) if (found := _opened(event)) in erased}
        if not gone:
            return
        end = max(gone.values())
        there = {event.id for event in log.read(stream, end + 1)}
        wanted = set()
        for event in _kept(log, stream, end, gone):
            wanted.add(event.id)
            if event.id not in there:
                log.append(stream, ANY, [event])
        # The copies must be in the stream before anything is truncated.
        if wanted <= {event.id for event in log.read(stream, end + 1)} and _truncated(log, stream, end + 1):
            return
    raise UnavailableError(f"{stream} is changed all the time")


def _kept(log: RequestLog, stream: str, end: int, gone: Mapping[bytes, int]) -> Iterator[NewEvent]:
    """Copies of the openings up to revision ``end`` that stay, and a mark for each that is ``gone``."""
    for event in log.read(stream):
        if event.revision > end:
            break
        found = _opened(event)
        if found is not None and found not in gone:
            yield NewEvent(OPENING, event.data, _copy_id(event.id, end))
    for entry_hash in sorted(gone):
        mark = content_event(stream, OPENING_ERASED, encode_erased(entry_hash))
        yield NewEvent(mark.type, mark.data, _copy_id(mark.id, end))


def _opened(event: Event) -> bytes | None:
    """The entry hash of an opening; None for any other event."""
    if event.type != OPENING:
        return None
    try:
        return Opening.decode(event.data).entry_hash
    except MalformedError:
        return None


def _copy_id(of: uuid.UUID, end: int) -> uuid.UUID:
    """The id of a copy. With the id of the original, a server would append nothing."""
    return uuid.uuid5(of, f"behind {end}")


def _truncated(log: RequestLog, stream: str, before: int) -> bool:
    """Truncate the stream below ``before``; return False if its metadata were changed meanwhile."""
    metadata = log.metadata(stream)
    there = metadata.values.get("$tb", 0)
    if there == DELETED or (isinstance(there, int) and there >= before):
        return True
    try:
        log.set_metadata(stream, {**metadata.values, "$tb": before}, metadata.revision)
    except WrongRevisionError:
        return False
    return True
