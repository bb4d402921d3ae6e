"""The replica of a front end: both logs of a directory, followed into its ledger by one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Event as Stop
from typing import Protocol

import structlog

from kt_es.errors import AccessDeniedError, KtError, UnavailableError, UnverifiedRowError
from kt_es.eventstore.streams import EventLog, StreamNames
from kt_es.formats.queue import Record
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.replay import ReplayedEpoch
from kt_es.process.outage import Lasting, Outage
from kt_es.process.signals import Worker
from kt_es.server.waiters import Waiters
from projections.follower import Listener, follow

_LOG = structlog.get_logger("projections.follower")


class Observer(Protocol):
    """Hears of the records of an epoch before it is committed, and of the commit, in the replica's thread."""

    def note(self, record: Record) -> None: ...

    def commit(self, epoch: int) -> None: ...

    def restart(self) -> None:
        """Forget the records since the last commit: they come again."""


class Replica:
    """Follows a directory into ``ledger``: the only writer of its tables.

    ``on_epoch`` is called after each commit. A ``KtError`` that it raises ends the replica.

    Attributes:
        problem: Set while rows that the next epoch needs are missing or wrong in a shared store. The epoch
            before is served.
    """

    def __init__(
        self,
        connect: Callable[[], EventLog],
        names: StreamNames,
        ledger: Ledger,
        *,
        on_epoch: Callable[[ReplayedEpoch], None],
        failed: Callable[[KtError], None],
        observers: Sequence[Observer] = (),
    ) -> None:
        self._connect = connect
        self._names = names
        self._on_epoch = on_epoch
        self._failed = failed
        self.worker = Worker("replica", self._run, self._fail)
        self.ledger = ledger
        self.waiters = Waiters()
        self._observers: Sequence[Observer] = (self.waiters, *observers)
        self.denied: AccessDeniedError | None = None
        self.problem: Lasting | None = None

    def stop(self) -> None:
        """Ask the thread to end, even within an epoch. A caller that waits for a verdict gets None."""
        self.worker.stop()
        self.waiters.close()

    def _run(self, stop: Stop) -> None:
        listener = Listener(
            self._committed, self._observe, self._lost, on_current=self._current, bears_denials=True
        )
        follow(self._connect, self._names, self.ledger, listener, stop, outage=Outage("replica", _LOG))

    def _committed(self, replayed: ReplayedEpoch) -> None:
        self.problem = None
        self._on_epoch(replayed)
        for observer in self._observers:
            observer.commit(replayed.head.epoch)

    def _current(self) -> None:
        self.denied = self.problem = None

    def _lost(self, error: KtError) -> None:
        self.denied = error if isinstance(error, AccessDeniedError) else None
        if isinstance(error, UnverifiedRowError):
            self.problem = Lasting(str(error), self.problem.since if self.problem else time.monotonic())
        # The epoch that was being replayed begins again.
        for observer in self._observers:
            observer.restart()

    def _observe(self, record: Record) -> None:
        if self.worker.stopping:
            raise UnavailableError("the replica is stopping")
        for observer in self._observers:
            observer.note(record)

    def _fail(self, error: KtError) -> None:
        self.waiters.close()
        self._failed(error)
