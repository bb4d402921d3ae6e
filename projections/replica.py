"""The copies that a front end serves: the replica of both logs, and the openings. Each has its own thread.

While the log is away, the committed epochs are served. A divergence ends a thread, and ``failed`` is called:
a front end must not answer from a copy in doubt. A missing right is an outage, which ``denied`` names.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import closing

import structlog

from kt_es.errors import AccessDeniedError, KtError, MalformedError, UnavailableError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.queue import Record
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.replay import ReplayedEpoch
from kt_es.ledger.rows import OpeningTable
from kt_es.process.outage import Backoff, Outage, keep_trying
from kt_es.process.signals import Worker
from kt_es.server.batcher import Waiters
from projections.follower import Listener, follow, stopped_by

_INDEX = re.compile(r"[0-9a-f]{64}")

_LOG = structlog.get_logger("projections.replica")


class OpeningsFollower:
    """Keeps ``openings`` up to date: the only writer of that table.

    Each index has a stream of ``Opening`` and ``OpeningErased`` events. Log lines name streams and revisions,
    which reveal nothing about a person.
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

        def attempt() -> None:
            self._openings.store.ensure_writable()
            with closing(self._connect()) as log:
                subscription = log.subscribe_prefix(self._prefix, self._openings.position)
                self._outage.over()
                self.denied = None
                with stopped_by(stop, subscription):
                    for event in subscription:
                        self.add(event)
                        backoff.reset()

        def failed(error: KtError) -> None:
            self.denied = error if isinstance(error, AccessDeniedError) else None

        passing = (UnavailableError, AccessDeniedError)
        keep_trying(attempt, stop, self._outage, backoff, on_failure=failed, passing=passing)


def _index_of(stream: str, prefix: str) -> bytes:
    name = stream.removeprefix(prefix)
    if not stream.startswith(prefix) or not _INDEX.fullmatch(name):
        raise MalformedError("opening stream", "its name does not end in an index")
    return bytes.fromhex(name)


class Replica:
    """Follows a directory into ``ledger``: the only writer of its tables.

    ``on_epoch`` is called after each commit. A ``KtError`` that it raises ends the replica.
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
        """Ask the thread to end, even within an epoch. A caller that waits for a verdict gets None."""
        self.worker.stop()
        self.waiters.close()

    def _run(self, stop: threading.Event) -> None:
        listener = Listener(
            self._committed, self._observe, self._lost, on_current=self._current, bears_denials=True
        )
        follow(self._connect, self._names, self.ledger, listener, stop, outage=Outage("replica", _LOG))

    def _committed(self, replayed: ReplayedEpoch) -> None:
        self._on_epoch(replayed)
        self.waiters.commit(replayed.head.epoch)

    def _current(self) -> None:
        self.denied = None

    def _lost(self, error: KtError) -> None:
        self.denied = error if isinstance(error, AccessDeniedError) else None
        # The epoch that was being replayed begins again.
        self.waiters.restart()

    def _observe(self, record: Record) -> None:
        if self.worker.stopping:
            raise UnavailableError("the replica is stopping")
        self.waiters.note(record)

    def _fail(self, error: KtError) -> None:
        self.waiters.close()
        self._failed(error)
