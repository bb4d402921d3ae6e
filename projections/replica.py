"""A front end's own replica: the replay of both logs in a thread, and whoever waits for a verdict.

While the log is away it keeps serving the epochs that it has committed. A divergence ends it: a replica
in doubt must not go on answering, so ``failed`` is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from kt_es.errors import AccessDeniedError, KtError, UnavailableError
from kt_es.eventstore.streams import EventLog, StreamNames
from kt_es.formats.records import Record
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.replay import ReplayedEpoch
from kt_es.process.outage import Outage
from kt_es.process.worker import Worker
from kt_es.server.waiters import Waiters
from projections.follower import Listener, follow

_LOG = structlog.get_logger("projections.replica")


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
