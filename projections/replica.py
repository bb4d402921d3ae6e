"""A front end's own replica: the replay of both logs in a thread, and whoever waits for a verdict.

While the log is away it keeps serving the epochs that it has committed. A divergence ends it: a replica
in doubt must not go on answering, so ``failed`` is told and stays set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import structlog

from kt_es.crypto.hashes import sha256
from kt_es.errors import AccessDeniedError, KtError, UnavailableError
from kt_es.eventstore.streams import EventLog, StreamNames
from kt_es.formats.queue import ItemKind
from kt_es.formats.records import Record, Verdict
from kt_es.process.outage import Outage
from projections.follower import Listener, follow
from projections.ledger import Ledger
from projections.replay import ReplayedEpoch
from projections.worker import Worker

MAX_WAITERS = 10_000

_LOG = structlog.get_logger("projections.replica")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a queue item: its verdict, its record and the epoch that has it."""

    verdict: Verdict
    sequence: int
    queue_revision: int
    position: int
    epoch: int


class Waiters:
    """Futures of outcomes by the hash of the item's bytes, which is what one submission put into the queue.

    Not by the entry hash: the same entry under other signatures is another item with its own verdict.
    Memory is bounded by those who wait: no other item is remembered.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[bytes, list[Future[Outcome | None]]] = {}
        self._count = 0
        self._closed = False
        # Of the epoch that is being replayed: first record of each item. Only the replica's thread.
        self._noted: dict[bytes, Record] = {}

    def register(self, item: bytes) -> Future[Outcome | None] | None:
        """A future of what becomes of ``item`` from now on; None if too many wait already.

        Its result is None if the replica stops first. Give it back by ``discard``, always.
        """
        future: Future[Outcome | None] = Future()
        # A future that runs cannot be cancelled under the thread that sets it.
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed or self._count >= MAX_WAITERS:
                return None
            self._waiting.setdefault(sha256(item), []).append(future)
            self._count += 1
        return future

    def discard(self, item: bytes, future: Future[Outcome | None]) -> None:
        """Wait no longer."""
        key = sha256(item)
        with self._lock:
            waiting = self._waiting.get(key, [])
            if future in waiting:
                waiting.remove(future)
                self._count -= 1
                if not waiting:
                    del self._waiting[key]

    def restart(self) -> None:
        """The epoch is read anew from its beginning: what was noted of it so far does not count."""
        self._noted = {}

    def note(self, record: Record) -> None:
        content = record.item.content
        if not self._waiting or record.item.kind != ItemKind.MUTATION or not isinstance(content, bytes):
            return
        key = sha256(content)
        if key in self._waiting:
            self._noted.setdefault(key, record)

    def commit(self, epoch: int) -> None:
        """The epoch is committed: tell those who wait for its items."""
        told = []
        with self._lock:
            for key, record in self._noted.items():
                futures = self._waiting.pop(key, [])
                self._count -= len(futures)
                told += [(future, record) for future in futures]
        self._noted = {}
        for future, record in told:
            item = record.item
            future.set_result(Outcome(record.verdict, record.sequence, item.revision, item.position, epoch))

    def close(self) -> None:
        with self._lock:
            futures = [future for waiting in self._waiting.values() for future in waiting]
            self._waiting, self._count, self._closed = {}, 0, True
        for future in futures:
            future.set_result(None)


class Replica:
    """Follows a directory into ``ledger`` in a thread of its own, which alone writes to it.

    ``on_epoch`` is called there after each commit; a ``KtError`` that it raises ends the replica.
    ``failed`` is told, once, when the thread has ended for good; ``failure`` then says why.
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
        self.failure: KtError | None = None
        self.denied: AccessDeniedError | None = None

    def stop(self) -> None:
        """Ask the thread to end, even within an epoch. Whoever waits for a verdict is told None."""
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
        self.failure = error
        self.waiters.close()
        self._failed(error)
