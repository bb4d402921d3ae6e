"""The rights of a front end in the event log: denied rights, and the rights that keep openings private.

A server may have other tenants, and new streams have its default rights. So each stream of openings gets its
ACL before its first opening. A deletion removes the ACL, and the append that restores the stream does not
restore the ACL. So a deleted stream is restored by an event that is not private.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping

import structlog

from kt_es.errors import AccessDeniedError, WrongRevisionError
from kt_es.eventstore.rights import DELETED, READ, READ_METADATA, WRITE, keeps_private, openings_acl
from kt_es.eventstore.streams import ANY, NO_STREAM, NewEvent
from kt_es.formats.entries import HASH_LENGTH
from kt_es.formats.profiles import OPENING_ERASED, encode_erased
from kt_es.server.late import RequestLog
from kt_es.server.problems import NotNowError, denial

RETRY_AFTER = 5.0
ROUNDS = 16
"""Attempts to set an ACL while others set the same one or delete the stream. More means a fault."""
KEPT = 8
"""Denied rights that are remembered. Each probe asks for all of them."""
# No stream has so many events. An append that expects this revision is always refused: because of the
# revision if the right is there, and because of the right if it is missing.
_IMPOSSIBLE = 2**62

_LOG = structlog.get_logger("kt_es.server")


class Denials:
    """The rights that this front end was denied and does not have yet.

    Lookups need none of them. Only the thread that probes the log calls ``probe``; any thread may call the
    rest. ``queue`` is the stream that every submission needs.
    """

    def __init__(self, log: RequestLog, queue: str) -> None:
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
        """Why submissions are refused, all or some of them, in words for clients; None if none is."""
        with self._lock:
            return "; ".join(dict.fromkeys(self._denied.values())) or None

    def check(self) -> None:
        """Raise ``UnavailableError`` if the queue is denied: then no submission can be taken."""
        with self._lock:
            problem = self._denied.get((self._queue, WRITE))
        if problem is not None:
            raise NotNowError(f"{problem}; lookups go on, submit again later", RETRY_AFTER)

    def probe(self) -> None:
        """Try every missing right again. Raises ``UnavailableError`` while the log is away."""
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
                self._log.last_revision(stream)
            elif right == READ_METADATA:
                self._log.metadata(stream)
            elif right == WRITE:
                self._log.append(stream, _IMPOSSIBLE, [NewEvent("Probe", b"", uuid.uuid4())])
            else:
                self._log.set_metadata(stream, {}, _IMPOSSIBLE)
        except WrongRevisionError:
            return


class PrivateStreams:
    """Makes streams of openings private, and checks it before anything private is appended.

    Results are not remembered, because a deletion may remove an ACL at any time.
    """

    def __init__(self, log: RequestLog) -> None:
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
            metadata = self._log.metadata(stream)
            values = metadata.values
            if values.get("$tb") == DELETED:
                self._bring_back(stream, previous)
                continue
            if keeps_private(values) or self._set(stream, values, metadata.revision):
                return
        raise NotNowError("the metadata of a stream are changed all the time; try again later")

    def _set(self, stream: str, values: Mapping[str, object], expected: int) -> bool:
        """Set the ACL beside ``values``; False if the metadata were changed meanwhile.

        An administrator, or a front end of a former version, may have set the ACL and denied this front end
        the right to set it again.
        """
        try:
            self._log.set_metadata(stream, {**values, "$acl": self._acl}, expected)
        except WrongRevisionError:
            return False
        except AccessDeniedError:
            if keeps_private(self._log.metadata(stream).values):
                return False
            raise
        return True

    def _bring_back(self, stream: str, previous: bytes | None) -> None:
        """Restore a deleted stream with the event that the previous opening is erased.

        The id is new each time: with the id of an event in the stream, nothing would be appended.
        """
        erased = encode_erased(bytes(HASH_LENGTH) if previous is None else previous)
        self._log.append(stream, ANY, [NewEvent(OPENING_ERASED, erased, uuid.uuid4())])
