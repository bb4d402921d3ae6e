"""Follows the streams of openings into the table of a front end.

Each index has a stream of ``Opening`` and ``OpeningErased`` events. Log lines name streams and revisions,
which say nothing about a person.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import structlog

from kt_es.errors import AccessDeniedError, KtError, MalformedError, UnavailableError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.ledger.openings import Openings
from kt_es.process.backoff import Backoff
from kt_es.process.outage import Outage
from kt_es.process.worker import Worker
from projections.follower import stopped_by

_INDEX = re.compile(r"[0-9a-f]{64}")

_LOG = structlog.get_logger("projections.openings")


class OpeningsFollower:
    """Keeps ``openings`` up to date in a thread of its own.

    ``failed`` is told when that thread has ended for good. ``denied`` says which right to follow is
    missing, while it is; it is tried again like a log that is away.
    """

    def __init__(
        self,
        connect: Callable[[], EventLog],
        names: StreamNames,
        openings: Openings,
        failed: Callable[[KtError], None],
    ) -> None:
        self._connect = connect
        self._prefix = names.openings_prefix
        self._openings = openings
        self._outage = Outage("openings", _LOG)
        self.denied: AccessDeniedError | None = None
        self.worker = Worker("openings", self._run, failed)

    def take(self, event: Event) -> None:
        """Take one event into the table; one that is no opening is passed over, and the log says so."""
        try:
            self._openings.take(_index_of(event.stream, self._prefix) if event.type else None, event)
        except MalformedError as error:
            _LOG.warning(
                "skipped an event that is no opening",
                stream=event.stream[:200],
                revision=event.revision,
                problem=error.problem,
            )
            self._openings.take(None, event)

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
        """Take events until the subscription ends; whether there were any."""
        subscription = log.subscribe_prefix(self._prefix, self._openings.position)
        self._outage.over()
        self.denied = None
        came = False
        with stopped_by(stop, subscription):
            for event in subscription:
                self.take(event)
                came = True
        return came


def _index_of(stream: str, prefix: str) -> bytes:
    name = stream.removeprefix(prefix)
    if not stream.startswith(prefix) or not _INDEX.fullmatch(name):
        raise MalformedError("opening stream", "its name does not end in an index")
    return bytes.fromhex(name)
