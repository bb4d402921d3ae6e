"""A front end without its process and its socket: threads, pools and handlers, put together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import EquivocationError, KtError, RollbackError
from kt_es.eventstore.streams import EventLog, StreamNames
from kt_es.ledger.convicting import keep
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.openings import OpeningCache, Openings, OpeningTable
from kt_es.ledger.pages import CACHE_BYTES
from kt_es.process.clock import wall_clock
from kt_es.process.signals import Worker
from kt_es.server.answers import Indexer, OpeningReader
from kt_es.server.appender import Appender
from kt_es.server.asgi import ASGIApp
from kt_es.server.availability import MAX_BACKLOG, Backlog, LogConnections, LogWatch
from kt_es.server.batcher import Batcher
from kt_es.server.checks import Checks
from kt_es.server.clients import Clients
from kt_es.server.cosigned import CosignedHeads
from kt_es.server.cosigning import NOBODY, Cosigners, Cosigning
from kt_es.server.endpoints.common import Frontend
from kt_es.server.feed import EpochFeed
from kt_es.server.handlers import DirectoryReader
from kt_es.server.health import Health, Metrics
from kt_es.server.http import create_app
from kt_es.server.limits import DEFAULT_LIMITS, ClientLimits
from kt_es.server.pending import PendingMutations
from kt_es.server.privacy import PrivateStreams, Sweeper
from kt_es.server.registration.gate import Registration
from kt_es.server.registration.settings import ANYBODY, RegistrationSettings
from kt_es.server.slots import Slots
from kt_es.server.statuses import StatusReader
from kt_es.server.store_watch import StoreWatch
from kt_es.server.submission import Submissions
from kt_es.server.tiles import TileReader
from projections.conviction import Convictions
from projections.cosigned import CosignedFollower
from projections.followed import FollowedReplica
from projections.follower import OpeningsFollower
from projections.replica import Observer, Replica

READERS = 8
# Histories and ranges are long work in Python: they run apart from lookups, and few at a time.
LARGE_READERS = 1
WRITERS = 8
# Each waits for the mail server, and few mails are sent in an hour.
MAILERS = 2
GRACE = 5  # seconds

# These errors do not end the process: it answers 503 with the reason, until somebody has looked at the log.
_STAYS = (RollbackError, EquivocationError)

_LOG = structlog.get_logger("kt_es.server")


class FrontendService:
    """The threads and pools of a front end (docs/ARCHITECTURE.md), and the ASGI application over them.

    Args:
        failed: Called, from any thread, with the error that must end the front end.
        data: Directory below which evidence is saved; None saves nothing.
        openings_bytes: Memory for openings, if ``ledger`` is over a shared store. Otherwise the table of
            openings in the data directory has all of them.
        keyspace: Name of the shared store for people, if ``ledger`` is over one.
        registration: Who may register a label.
        mail_limits: Directory for the limits of registration mails, by default ``data``.
        exposed: Whether other machines can reach the front end.
        cosigners: The witnesses and monitors whose cosignatures are answered.
        now: Wall clock in ms.
        followed: The replica that another process keeps, if this one is a worker of several. Then nothing is
            written here.
        observers: Hear of records and commits of the replica here.
    """

    def __init__(  # noqa: PLR0915 - the composition stands in one place
        self,
        ledger: Ledger,
        names: StreamNames,
        vrf: VrfPrivateKey,
        connect_log: Callable[[], EventLog],
        failed: Callable[[KtError], None],
        *,
        data: Path | None = None,
        max_backlog: int = MAX_BACKLOG,
        limits: ClientLimits = DEFAULT_LIMITS,
        openings_bytes: int = CACHE_BYTES,
        keyspace: str = "",
        registration: RegistrationSettings = ANYBODY,
        mail_limits: Path | None = None,
        exposed: bool = False,
        cosigners: Cosigners = NOBODY,
        now: Callable[[], int] = wall_clock,
        followed: FollowedReplica | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._failed = failed
        self._failing = threading.Lock()  # held while one error is dealt with
        self._data = data
        self._connections = LogConnections(connect_log)
        connect_log = self._connections.connect
        log = self._connections.shared
        self.backlog = Backlog(log, names, max_backlog, lambda: ledger.committed.queue_next)
        self.watch = LogWatch(log, names.queue, self._look)
        self.store_watch = StoreWatch(ledger, keyspace)
        self._appender = Appender(log, self.watch)
        self._batcher = Batcher(self._appender, names.queue)
        self.replica: Replica | FollowedReplica
        followers: list[Replica | FollowedReplica | OpeningsFollower]
        if followed is None:
            ledger.keeps_decisions = True
            self.replica = Replica(
                connect_log,
                names,
                ledger,
                on_epoch=lambda _: self._on_epoch(),
                failed=self._fail,
                observers=observers,
            )
        else:
            followed.begin(self._on_epoch, self._fail)
            self.replica = followed
        followers = [self.replica]
        self.openings: Openings
        if ledger.store.is_shared:
            self.openings = OpeningCache(openings_bytes)
        else:
            self.openings = table = OpeningTable(ledger.store)
            if followed is None:
                self.follower = OpeningsFollower(connect_log, names, table, self._fail)
                followers.append(self.follower)
        self._reader = OpeningReader(self.openings, log, names, self.watch)
        self._indexer = Indexer(vrf)
        self.directory = DirectoryReader(names.directory, ledger, self._indexer, self._reader)
        # The VRF key of another directory is refused before anything listens.
        self.directory.check_key(ledger.committed)
        self.health = Health(
            self.directory,
            self.watch,
            self.store_watch,
            names.heads,
            log,
            now,
            denied=lambda: [part.denied for part in followers if part.denied],
            stuck=lambda: self.replica.problem,
            elsewhere=(lambda: ()) if followed is None else followed.troubles,
        )
        self.directory.why_no_epoch = self.health.why_no_epoch
        self.metrics = Metrics(now, self.backlog, self.health.has)
        self.metrics.committed(ledger.committed.epoch, ledger.committed.standing.timestamp)
        self._batches = Worker("batcher", lambda _: self._batcher.run(), self._fail)
        self._workers = [
            *(part.worker for part in followers),
            Worker("log watch", self.watch.run, self._fail),
            self._batches,
        ]
        if followed is None:
            sweeper = Sweeper(log, names, ledger, self.openings)
            self._workers.append(Worker("sweeper", sweeper.run, self._fail))
        else:
            self.directory.renew = followed.renew
            self.directory.why_no_verdicts = followed.why_no_verdicts
        heads = CosignedHeads(
            self.directory,
            ledger.committed.standing.origin,
            cosigners.keys,
            lambda log, key, time: self.metrics.cosigned[log].labels(cosigners.name_of(key)).set(time),
            self._fail,
        )
        self.cosigning = Cosigning(heads, cosigners, log, names.cosignatures)
        self._cosigned = CosignedFollower(connect_log, names.cosignatures, heads, self._fail)
        if cosigners.keys:
            self._workers.append(self._cosigned.worker)
        if ledger.store.is_shared:
            self._workers.append(Worker("store watch", self.store_watch.run, self._fail))
        self._reads = ThreadPoolExecutor(READERS, thread_name_prefix="reads")
        self._large = ThreadPoolExecutor(LARGE_READERS, thread_name_prefix="large")
        self._writes = ThreadPoolExecutor(WRITERS, thread_name_prefix="writes")
        self._mails = ThreadPoolExecutor(MAILERS, thread_name_prefix="mails")
        self._exposed = exposed
        self._convictions = Convictions(data, ledger, self._fail)
        self.registration = Registration(
            registration,
            mail_limits or data,
            lambda way, result: self.metrics.registrations.labels(way, result).inc(),
            lambda: now() / 1000,
        )
        self.clients = Clients(limits)
        self.feed = EpochFeed()
        self.frontend = self._frontend(names)
        self.app: ASGIApp = create_app(self.frontend)

    def _frontend(self, names: StreamNames) -> Frontend:
        submissions = Submissions(
            self.directory,
            names,
            self.replica.waiters,
            watch=self.watch,
            backlog=self.backlog,
            appender=self._appender,
            batcher=self._batcher,
            private=PrivateStreams(self._connections.shared),
            checks=Checks(self.directory),
            registration=self.registration,
        )
        return Frontend(
            self.directory,
            submissions,
            StatusReader(self.directory, PendingMutations(self._connections.shared, names.queue)),
            self.feed,
            TileReader(self.directory, self._connections.shared, names.mutations),
            self.cosigning,
            self.metrics,
            Slots(self.clients, self.metrics.refused),
            self._reads,
            self._large,
            self._writes,
            self._mails,
            self.registration,
            self._exposed,
            self.health.troubles,
            self._refusing,
            self._fail,
        )

    def start(self) -> None:
        """Start all threads. Raises ``ConfigError`` for evidence that cannot be read."""
        self._convictions.begin()
        for worker in self._workers:
            worker.start()

    def limit(self, max_backlog: int, limits: ClientLimits) -> None:
        """Use these limits from now on. Safe to call from any thread."""
        self.backlog.limit = max_backlog
        self.clients.limits = limits

    def release_waiting(self) -> None:
        """Answer everybody who waits for a verdict with a receipt, and end repeated appends."""
        self.replica.stop()
        self._appender.stop()

    def stop(self) -> None:
        """End all threads and connections, within a few seconds."""
        self.release_waiting()
        for worker in self._workers:
            worker.stop()
        self._batcher.close()
        self._reader.close()
        self._indexer.close()
        for pool in (self._reads, self._large, self._writes, self._mails):
            pool.shutdown(wait=False, cancel_futures=True)
        self._batches.join(GRACE)
        self._connections.close()
        # The longest is an epoch in the middle of its commit.
        late = [worker.name for worker in self._workers if not worker.join(GRACE)]
        if late:
            _LOG.warning("threads did not end in time", threads=late)

    def _on_epoch(self) -> None:
        committed = self.replica.ledger.committed
        self.directory.check_key(committed)
        self.metrics.committed(committed.epoch, committed.standing.timestamp)
        self.feed.announce()
        self._cosigned.committed()

    def _fail(self, error: KtError) -> None:
        with self._failing:
            self._failed_with(error)

    def _failed_with(self, error: KtError) -> None:
        if isinstance(error, _STAYS) and isinstance(self.directory.failure, _STAYS):
            # It answers nothing already, and the first proof is enough.
            return
        if isinstance(error, EquivocationError):
            keep(self._data, error)
        self.directory.failure = error
        self.feed.announce()
        if isinstance(error, _STAYS):
            saved = error.saved if isinstance(error, EquivocationError) else None
            _LOG.error("stopped serving", problem=str(error), evidence=None if saved is None else str(saved))
        else:
            self._failed(error)

    def _refusing(self) -> str | None:
        problems = self.directory.disk_problem, self.watch.denials.problem, self.backlog.problem
        return "; ".join(problem for problem in problems if problem) or None

    def _look(self, last: int) -> None:
        self._convictions.look()
        self.backlog.look(last)
        self.health.look()
