"""Private streams: the rights that keep openings private, and the sweeping of erased openings.

A server may have other tenants, and new streams have its default rights. So each stream of openings gets its
ACL before its first opening. A deletion removes the ACL, and the append that restores the stream does not
restore the ACL. So a deleted stream is restored by an event that is not private.

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
from dataclasses import dataclass, field

import structlog

from kt_es.errors import (
    AccessDeniedError,
    KtError,
    MalformedError,
    UnavailableError,
    UnverifiedRowError,
    WrongRevisionError,
)
from kt_es.eventstore.rights import DELETED, READ, READ_METADATA, WRITE, keeps_private, openings_acl
from kt_es.eventstore.streams import ANY, NO_STREAM, Event, EventLog, NewEvent, StreamNames, content_event
from kt_es.formats.entries import HASH_LENGTH, OPENING, OPENING_ERASED, Opening, encode_erased
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.openings import Openings
from kt_es.ledger.proofs import proven_erasure
from kt_es.ledger.rows import Committed
from kt_es.server.responses import NotNowError, denial

RETRY_AFTER = 5.0
ROUNDS = 16
"""Attempts on one stream while others set its ACL, write it or delete it. More means a fault."""
KEPT = 8
"""Denied rights that are remembered. Each probe asks for all of them."""
LOOK = 0.25
"""Seconds between two looks for new erasures. A look costs nothing while there are none."""
AWAY = 5.0
"""Seconds until the next attempt after the log could not be reached."""
DENIED = 600.0
"""Seconds until the next attempt on a stream that may not be truncated, or whose erasure is in doubt."""
# No stream has so many events. An append that expects this revision is always refused: because of the
# revision if the right is there, and because of the right if it is missing.
_IMPOSSIBLE = 2**62

_LOG = structlog.get_logger("kt_es.server")


class Denials:
    """The rights that this front end was denied and does not have yet.

    Lookups need none of them. Only the thread that probes the log calls ``probe``; any thread may call the
    rest. ``queue`` is the stream that every submission needs.
    """

    def __init__(self, log: Callable[[], EventLog], queue: str) -> None:
        self._log = log
        self._queue = queue
        self._lock = threading.Lock()
        self._denied: dict[tuple[str, str], str] = {}

    def denied(self, error: AccessDeniedError) -> None:
        """Remember the missing right, and log it once until it is granted."""
        key = (error.stream, error.right)
        with self._lock:
            is_new = key not in self._denied
            self._denied[key] = denial(error)
            if len(self._denied) > KEPT:
                del self._denied[next(iter(self._denied))]
        if is_new:
            _LOG.error("a right is missing", stream=error.stream, right=error.right, problem=str(error))

    @property
    def problem(self) -> str | None:
        """The reason why all or some submissions are refused, in words for clients; None without one."""
        with self._lock:
            return "; ".join(dict.fromkeys(self._denied.values())) or None

    def check(self) -> None:
        """Raise ``UnavailableError`` if the queue is denied: then no submission can be taken."""
        with self._lock:
            problem = self._denied.get((self._queue, WRITE))
        if problem is not None:
            raise NotNowError(f"{problem}; submit again later", RETRY_AFTER)

    def probe(self) -> None:
        """Try every missing right again. Raises ``UnavailableError`` while the log cannot be reached."""
        with self._lock:
            missing = list(self._denied)
        for stream, right in missing:
            try:
                self._ask(stream, right)
            except AccessDeniedError:
                continue
            with self._lock:
                self._denied.pop((stream, right), None)
            _LOG.info("a right is back", stream=stream, right=right)

    def _ask(self, stream: str, right: str) -> None:
        """Raise ``AccessDeniedError`` if ``right`` to ``stream`` is missing. Nothing is changed."""
        try:
            if right == READ:
                self._log().last_revision(stream)
            elif right == READ_METADATA:
                self._log().metadata(stream)
            elif right == WRITE:
                self._log().append(stream, _IMPOSSIBLE, [NewEvent("Probe", b"", uuid.uuid4())])
            else:
                self._log().set_metadata(stream, {}, _IMPOSSIBLE)
        except WrongRevisionError:
            return


class PrivateStreams:
    """Makes streams of openings private, and checks it before anything private is appended.

    Results are not remembered, because a deletion may remove an ACL at any time.
    """

    def __init__(self, log: Callable[[], EventLog]) -> None:
        self._log = log
        self._acl = openings_acl()

    def protect(self, stream: str, previous: bytes | None) -> None:
        """Return when ``stream`` has the ACL of openings and is not deleted.

        ``previous`` is the hash of the entry before the one whose opening comes next, None for the first one.
        Before the first opening the stream usually does not exist, and one append is enough. Otherwise one
        read is enough.

        Raises ``UnavailableError`` and ``AccessDeniedError``: nothing private may be appended then.
        """
        if previous is None and self._set(stream, {}, NO_STREAM):
            return
        for _ in range(ROUNDS):
            metadata = self._log().metadata(stream)
            values = metadata.values
            if values.get("$tb") == DELETED:
                self._bring_back(stream, previous)
                continue
            if keeps_private(values) or self._set(stream, values, metadata.revision):
                return
        raise NotNowError("the metadata of a stream were changed during each attempt; try again later")

    def _set(self, stream: str, values: Mapping[str, object], expected: int) -> bool:
        """Set the ACL beside ``values``; False if the metadata were changed meanwhile.

        An administrator, or a front end of a former version, may have set the ACL and denied this front end
        the right to set it again.
        """
        try:
            self._log().set_metadata(stream, {**values, "$acl": self._acl}, expected)
        except WrongRevisionError:
            return False
        except AccessDeniedError:
            if keeps_private(self._log().metadata(stream).values):
                return False
            raise
        return True

    def _bring_back(self, stream: str, previous: bytes | None) -> None:
        """Restore a deleted stream with the event that the previous opening is erased.

        The id is new each time: with the id of an event in the stream, nothing would be appended.
        """
        erased = encode_erased(bytes(HASH_LENGTH) if previous is None else previous)
        self._log().append(stream, ANY, [NewEvent(OPENING_ERASED, erased, uuid.uuid4())])


@dataclass(slots=True)
class Sweeper:
    """Sweeps the streams of openings of one directory; ``run`` is for a thread of its own.

    The sweeper keeps nothing on disk: after a start, each erasure is checked again, with one read. ``swept``
    is the epoch up to which all erasures are done.
    """

    log: Callable[[], EventLog]
    names: StreamNames
    ledger: Ledger
    openings: Openings
    clock: Callable[[], float] = time.monotonic
    swept: int = -1
    again_at: float | None = None
    denied: set[str] = field(default_factory=set)

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
        if self.again_at is not None and self.clock() >= self.again_at:
            self.swept, self.again_at = -1, None
        committed = self.ledger.committed
        if not self.ledger.has_erasures or not self.swept < self.ledger.last_erasure <= committed.epoch:
            return
        for index in self.ledger.tables.erasures.entries(committed.epoch, after=self.swept):
            if stop.is_set():
                return
            self._sweep(committed, index)
        self.swept = committed.epoch

    def _sweep(self, committed: Committed, index: bytes) -> None:
        stream = self.names.openings(index)
        try:
            entries = self.ledger.tables.erasures.entries(committed.epoch, index).get(index, set())
            # A swept opening cannot come back, so a row of a shared store is not enough: the erasure is
            # proven.
            erased = {one for one in entries if proven_erasure(self.ledger, committed, index, one)}
            for entry_hash in erased:
                self.openings.erase(index, entry_hash)
            sweep_stream(self.log(), stream, erased)
        except UnavailableError:
            raise
        except KtError as error:
            if isinstance(error, AccessDeniedError | UnverifiedRowError):
                self.again_at = self.clock() + DENIED
            if stream not in self.denied:
                self.denied.add(stream)
                _LOG.error("an erased opening stands in its stream still", stream=stream, problem=str(error))


def sweep_stream(log: EventLog, stream: str, erased: set[bytes]) -> None:
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
    raise UnavailableError(f"{stream} was changed during each of {ROUNDS} attempts; trying again later")


def _kept(log: EventLog, stream: str, end: int, gone: Mapping[bytes, int]) -> Iterator[NewEvent]:
    """Yield copies of the openings up to revision ``end`` that stay, and a mark for each that is ``gone``."""
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
    """Return the entry hash of an opening; None for any other event."""
    if event.type != OPENING:
        return None
    try:
        return Opening.decode(event.data).entry_hash
    except MalformedError:
        return None


def _copy_id(of: uuid.UUID, end: int) -> uuid.UUID:
    """Return the id of a copy. With the id of the original, a server would append nothing."""
    return uuid.uuid5(of, f"behind {end}")


def _truncated(log: EventLog, stream: str, before: int) -> bool:
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
