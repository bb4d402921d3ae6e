"""The replica of another process, as a worker of the same front end sees it.

One process keeps the replica, and tells the workers of records and commits. A worker reads the replica's data
directory (``FollowedStore``) and follows it with each commit: the state and its rows come from one look. So
whoever gets a verdict from a worker finds its epoch in lookups of that worker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from kt_es.errors import AccessDeniedError, KtError
from kt_es.formats.queue import Record
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.rocks_followed import FollowedStore
from kt_es.process.outage import Lasting
from kt_es.process.signals import Worker
from kt_es.server.health import NotReadyReason, Trouble
from kt_es.server.waiters import Waiters

LOOK = 1.0
"""Seconds between two looks without a commit: openings arrive without one."""
_PAUSE = 0.005
MAX_RECORDS = 256  # in one message

_AWAY = "the process that keeps the replica of this front end does not run"


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """How the process that keeps the replica is.

    ``failure`` is the error after which nothing may be answered any more.
    """

    troubles: Sequence[Trouble] = ()
    is_full: bool = False
    failure: KtError | None = None


@dataclass(frozen=True, slots=True)
class Records:
    """Encoded records that the replica has verified, of the epoch that it commits next."""

    records: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Commit:
    """The replica has committed ``epoch``, durably."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Restart:
    """The records since the last commit come again."""


class Announcer:
    """Tells the workers of the records and commits of the replica. In the replica's thread."""

    def __init__(self, send: Callable[[object], None]) -> None:
        self._send = send
        self._records: list[bytes] = []

    def note(self, record: Record) -> None:
        self._records.append(record.encode())
        if len(self._records) >= MAX_RECORDS:
            self._flush()

    def commit(self, epoch: int) -> None:
        self._flush()
        self._send(Commit(epoch))

    def restart(self) -> None:
        self._records.clear()
        self._send(Restart())

    def _flush(self) -> None:
        if self._records:
            self._send(Records(tuple(self._records)))
            self._records.clear()


class FollowedReplica:
    """Follows the replica into ``ledger``, in one thread. Has the members of ``Replica`` that a service uses.

    Any thread may call ``tell``, ``renew``, ``troubles`` and ``why_no_verdicts``.
    """

    def __init__(self, ledger: Ledger, store: FollowedStore) -> None:
        self.ledger = ledger
        self.waiters = Waiters()
        self.worker = Worker("replica", self._run, self._fail)
        # The other process reports both, in ``troubles``.
        self.denied: AccessDeniedError | None = None
        self.problem: Lasting | None = None
        self.state: ReplicaState | None = ReplicaState()
        self._store = store
        self._told: SimpleQueue[Records | Commit | Restart] = SimpleQueue()
        self._looking = threading.Lock()  # one look at a time
        self._on_epoch: Callable[[], None] = lambda: None
        self._failed: Callable[[KtError], None] = lambda _: None

    def begin(self, on_epoch: Callable[[], None], failed: Callable[[KtError], None]) -> None:
        """Set what is called after each new epoch, and with the error that ends the thread."""
        self._on_epoch, self._failed = on_epoch, failed

    def tell(self, news: Records | Commit | Restart | ReplicaState | None) -> None:
        """Take a message of the process that keeps the replica; None if it does not run."""
        if news is None or isinstance(news, ReplicaState):
            had = self.state
            self.state = news
            if news is not None and news.failure is not None and (had is None or had.failure is None):
                self._failed(news.failure)
            if news is None:
                self._told.put(Restart())
        else:
            self._told.put(news)

    def stop(self) -> None:
        """Ask the thread to end. A caller that waits for a verdict gets None."""
        self.worker.stop()
        self.waiters.close()

    def troubles(self) -> Sequence[Trouble]:
        """Return what is wrong with the replica, for readiness."""
        state = self.state
        if state is not None:
            return state.troubles
        epoch = self.ledger.committed.epoch
        return [Trouble(NotReadyReason.REPLICA_AWAY, f"{_AWAY}: lookups are answered from epoch {epoch}")]

    def why_no_verdicts(self) -> str | None:
        return _AWAY if self.state is None else None

    def is_full(self) -> bool:
        """Return whether the disk of the replica is full."""
        return self.state is not None and self.state.is_full

    def renew(self) -> bool:
        """Take the newest state now; return True. See ``renewing``."""
        while not self._look():
            if self.worker.stopping:
                return False
            threading.Event().wait(_PAUSE)
        return True

    def _look(self) -> bool:
        """Take the newest state; return False if that is not possible yet."""
        with self._looking:
            if not self._store.read_on():
                return False
            before = self.ledger.committed.epoch
            self.ledger.reread()
            if self.ledger.committed.epoch != before:
                self._on_epoch()
            return True

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                news = self._told.get(timeout=LOOK)
            except Empty:
                self._look()
                continue
            match news:
                case Records():
                    for record in news.records:
                        self.waiters.note(Record.decode(record))
                case Restart():
                    self.waiters.restart()
                case Commit():
                    # What was written before the message is seen, so one look that succeeds is enough.
                    while not self._look() or self.ledger.committed.epoch < news.epoch:
                        if stop.wait(_PAUSE):
                            return
                    self.waiters.commit(news.epoch)

    def _fail(self, error: KtError) -> None:
        self.waiters.close()
        self._failed(error)
