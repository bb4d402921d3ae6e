"""Follows the streams of openings into the table of a front end.

Each index has a stream of ``Opening`` and ``OpeningErased`` events. Log lines name streams and revisions,
which reveal nothing about a person.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import structlog

from kt_es.errors import AccessDeniedError, KtError, MalformedError, UnavailableError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.ledger.openings import OpeningTable
from kt_es.process.backoff import Backoff
from kt_es.process.outage import Outage
from kt_es.process.worker import Worker
from projections.follower import stopped_by

_INDEX = re.compile(r"[0-9a-f]{64}")

_LOG = structlog.get_logger("projections.openings")


class OpeningsFollower:
    """Keeps ``openings`` up to date in a thread of its own.

    ``failed`` is called when that thread has ended for good. While a right to follow is missing, ``denied``
    is the error; the follower tries again, as after an outage of the log.
    """

    def __init__(
        self,
        connect: Callable[[], EventLog],
        names: StreamNames,
        openings: OpeningTable,
        failed: Callable[[KtError], None],
    ) -> None:
        self._connect = connect
        self._prefix = names.openings_prefix
        self._openings = openings
        self._outage = Outage("openings", _LOG)
        self.denied: AccessDeniedError | None = None
        self.worker = Worker("openings", self._run, failed)

    def add(self, event: Event) -> None:
        """Store one event in the table. An event that is no opening is skipped and logged."""
        try:
            self._openings.add(_index_of(event.stream, self._prefix) if event.type else None, event)
        except MalformedError as error:
            _LOG.warning(
                "skipped an event that is no opening",
                stream=event.stream[:200],
                revision=event.revision,
                problem=error.problem,
            )
            self._openings.add(None, event)

    def _run(self, stop: threading.Event) -> None:
        backoff = Backoff()
        while not stop.is_set():
            try:
                self._openings.store.ensure_writable()
                log = self._connect()
                try:
                    if self._follow(log, stop):
                        backoff.reset()
                finally:
                    log.close()
            except (UnavailableError, AccessDeniedError) as error:
                self.denied = error if isinstance(error, AccessDeniedError) else None
                if not stop.is_set():
                    self._outage.failed(error)
            stop.wait(backoff.pause())

    def _follow(self, log: EventLog, stop: threading.Event) -> bool:
        """Store events until the subscription ends, and return whether there were any."""
        subscription = log.subscribe_prefix(self._prefix, self._openings.position)
        self._outage.over()
        self.denied = None
        has_events = False
        with stopped_by(stop, subscription):
            for event in subscription:
                self.add(event)
                has_events = True
        return has_events


def _index_of(stream: str, prefix: str) -> bytes:
    name = stream.removeprefix(prefix)
    if not stream.startswith(prefix) or not _INDEX.fullmatch(name):
        raise MalformedError("opening stream", "its name does not end in an index")
    return bytes.fromhex(name)
