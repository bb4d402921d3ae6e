"""The copies of a front end: the replica of both logs, and the openings.

Each index has a stream of ``Opening`` and ``OpeningErased`` events. Log lines name streams and revisions,
which reveal nothing about a person.

While the log is away it keeps serving the epochs that it has committed. A divergence ends it: a replica
in doubt must not go on answering, so ``failed`` is called.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import structlog

from kt_es.errors import AccessDeniedError, KtError, MalformedError, UnavailableError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.queue import Record
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.replay import ReplayedEpoch
from kt_es.ledger.rows import OpeningTable
from kt_es.process.outage import Backoff, Outage
from kt_es.process.signals import Worker
from kt_es.server.batcher import Waiters
from projections.follower import Listener, follow, stopped_by

_INDEX = re.compile(r"[0-9a-f]{64}")

_LOG = structlog.get_logger("projections.replica")


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


class Replica:
    """Follows a directory into ``ledger`` in a thread of its own, which alone writes to it.

    ``on_epoch`` is called there after each commit; a ``KtError`` that it raises ends the replica.
    ``failed`` is called, once, when the thread has ended for good.
    ``denied`` says which right to follow is missing, while it is; it is tried again like a log that is away.
    """

    def __init__(
        self,
        connect: Callable[[], EventLog],
        names: StreamNames,
        ledger: Ledger,
        *,
        on_epoch: Callable[[ReplayedEpoch], None],
        failed: Callable[[KtError], None],
    ) -> None:
        self._connect = connect
        self._names = names
        self._on_epoch = on_epoch
        self._failed = failed
        self.worker = Worker("replica", self._run, self._fail)
        self.ledger = ledger
        self.waiters = Waiters()
        self.denied: AccessDeniedError | None = None

    def stop(self) -> None:
        """Ask the thread to end, even within an epoch. Whoever waits for a verdict gets None."""
        self.worker.stop()
        self.waiters.close()

    def _run(self, stop: threading.Event) -> None:
        listener = Listener(
            self._committed, self._observe, self._outage, on_current=self._current, bears_denials=True
        )
        outage = Outage("replica", _LOG)
        follow(self._connect, self._names, self.ledger, listener, stop, outage=outage)

    def _committed(self, replayed: ReplayedEpoch) -> None:
        self._on_epoch(replayed)
        self.waiters.commit(replayed.head.epoch)

    def _current(self) -> None:
        self.denied = None

    def _outage(self, error: UnavailableError | AccessDeniedError) -> None:
        self.denied = error if isinstance(error, AccessDeniedError) else None
        # The epoch that was being read begins anew.
        self.waiters.restart()

    def _observe(self, record: Record) -> None:
        if self.worker.stopping:
            raise UnavailableError("the replica is stopping")
        self.waiters.note(record)

    def _fail(self, error: KtError) -> None:
        self.waiters.close()
        self._failed(error)
