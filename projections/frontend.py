"""The front end as a process: everything put together, served until it is told to stop.

It stops by itself where it must not go on: a divergence, a VRF key of another directory. ``serve`` then
raises that error, for one clear line and the exit code.

A log that was rolled back, or that holds another signed head, does not end it: it answers 503 and
``/readyz`` says why, until somebody has looked and restarts it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from starlette.types import ASGIApp

from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import EquivocationError, KtError, RollbackError, UnavailableError
from kt_es.eventstore.esdb import Connector
from kt_es.eventstore.streams import EventLog, StreamNames
from kt_es.formats.keys import PublicKey
from kt_es.ledger.checks import check_commit
from kt_es.ledger.convicting import keep
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.openings import OpeningTable
from kt_es.ledger.replay import ReplayedEpoch
from kt_es.ledger.rocks import open_patiently
from kt_es.ledger.tables import FAMILIES
from kt_es.process.hangups import Reloaded, differing, reloading
from kt_es.process.outage import Outage
from kt_es.process.tls import both_or_none
from kt_es.process.worker import Worker
from kt_es.server.availability import Appender, LogWatch
from kt_es.server.backlog import MAX_BACKLOG, Backlog
from kt_es.server.batcher import Batcher
from kt_es.server.clients import Clients
from kt_es.server.connections import HttpConnections
from kt_es.server.handlers import DirectoryReader
from kt_es.server.health import Health
from kt_es.server.http import Frontend, create_app
from kt_es.server.indexer import Indexer, load_vrf_key
from kt_es.server.late import LateLog, LogConnections
from kt_es.server.limits import DEFAULT_LIMITS, ClientLimits, room_for_connections
from kt_es.server.listening import http_server, listening_at, url_of
from kt_es.server.metrics import Metrics
from kt_es.server.openings import OpeningReader
from kt_es.server.rights import PrivateStreams
from kt_es.server.submission import Submissions
from kt_es.server.sweeping import Sweeper
from kt_es.server.tls import Exchangeable
from projections.openings import OpeningsFollower
from projections.replica import Replica

READERS = 8
# Histories and ranges are long work in Python: apart from lookups, and little of it at a time.
LARGE_READERS = 1
WRITERS = 32
GRACE = 5

# The front end stays up and says why it answers nothing: the log has to be looked at, not this process.
_STAYS = (RollbackError, EquivocationError)

_LOG = structlog.get_logger("kt_es.server")


@dataclass(frozen=True, slots=True)
class FrontendSettings:
    """What a front end is started with.

    ``signer_key`` is the pinned key, any signer key of the directory. ``log`` is a connection
    string (``esdb://...``), ``data`` the directory of the replica, ``vrf_key`` a file as ``keys`` has it.
    ``port`` 0 takes a free one. Submissions are refused while more than ``max_backlog`` items wait.
    ``tls_cert`` and ``tls_key`` are PEM files; with them, HTTPS is served.
    """

    origin: str
    directory: str
    signer_key: PublicKey
    log: str
    data: Path
    vrf_key: Path
    host: str = "127.0.0.1"
    port: int = 8080
    max_backlog: int = MAX_BACKLOG
    limits: ClientLimits = DEFAULT_LIMITS
    tls_cert: Path | None = None
    tls_key: Path | None = None


# What SIGHUP changes while a front end serves.
_LIMITS = ("max_backlog", "limits")
# Connections are counted by these two, so they hold until all have ended.
_COUNTED_BY = ("exempt", "proxies")
_TLS = ("tls_cert", "tls_key")


def wall_clock() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Running:
    """The parts of a front end without a socket: threads, pools and the application over them.

    ``failed`` is told, from any thread, when the front end must not go on. ``data`` is the directory below
    which evidence is saved, if there is one. ``now`` is the wall clock in ms.
    """

    def __init__(
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
        now: Callable[[], int] = wall_clock,
    ) -> None:
        self._told = failed
        self._data = data
        self._connections = LogConnections(connect_log)
        connect_log = self._connections.connect
        self._log = LateLog(connect_log)
        self.backlog = Backlog(self._log, names, max_backlog, lambda: ledger.committed.queue_next)
        self.watch = LogWatch(self._log, names.queue, self._look)
        self._appender = Appender(self._log, self.watch)
        self._batcher = Batcher(self._appender, names.queue)
        self.replica = Replica(connect_log, names, ledger, on_epoch=self._on_epoch, failed=self._fail)
        self.openings = OpeningTable(ledger.store)
        self.follower = OpeningsFollower(connect_log, names, self.openings, self._fail)
        self._reader = OpeningReader(self.openings, self._log, names, self.watch)
        self.directory = DirectoryReader(names.directory, ledger, Indexer(vrf), self._reader)
        # A key of another directory is told before anything listens.
        self.directory.check_key(ledger.committed)
        self.health = Health(
            ledger,
            names.heads,
            self._log,
            now,
            failure=lambda: self.directory.failure,
            away=lambda: self.watch.problem,
            denied=lambda: [part.denied for part in (self.replica, self.follower) if part.denied],
            full=lambda: self.directory.disk_problem,
        )
        self.metrics = Metrics(
            now,
            lambda: self.watch.problem is None,
            self.backlog,
            self.health.has,
            lambda: ledger.store.is_full,
        )
        self.metrics.committed(ledger.committed.epoch, ledger.committed.standing.timestamp)
        self._batches = Worker("batcher", lambda _: self._batcher.run(), self._fail)
        self._sweeper = Sweeper(self._log, names, ledger, self.openings)
        self._workers = [
            self.replica.worker,
            self.follower.worker,
            Worker("sweeper", self._sweeper.run, self._fail),
            Worker("log watch", self.watch.run, self._fail),
            self._batches,
        ]
        self._reads = ThreadPoolExecutor(READERS, thread_name_prefix="reads")
        self._large = ThreadPoolExecutor(LARGE_READERS, thread_name_prefix="large")
        self._writes = ThreadPoolExecutor(WRITERS, thread_name_prefix="writes")
        self.clients = Clients(limits)
        self.app = self._app(names)

    def _app(self, names: StreamNames) -> ASGIApp:
        submissions = Submissions(
            self.directory,
            names,
            self.replica.waiters,
            watch=self.watch,
            backlog=self.backlog,
            appender=self._appender,
            batcher=self._batcher,
            private=PrivateStreams(self._log),
        )
        frontend = Frontend(
            self.directory,
            submissions,
            self.metrics,
            self.clients,
            self._reads,
            self._large,
            self._writes,
            self.health.troubles,
            self._refusing,
            self._fail,
        )
        return create_app(frontend)

    def start(self) -> None:
        for worker in self._workers:
            worker.start()

    def limit(self, settings: FrontendSettings) -> None:
        """Have the limits of ``settings`` from now on: those of ``_LIMITS``."""
        self.backlog.limit = settings.max_backlog
        self.clients.limits = settings.limits

    def release_waiting(self) -> None:
        """Answer everybody who waits for a verdict with a receipt, and end what is being repeated."""
        self.replica.stop()
        self._appender.stop()

    def stop(self) -> None:
        """End all threads, soon."""
        self.release_waiting()
        for worker in self._workers:
            worker.stop()
        self._batcher.close()
        self._reader.close()
        for pool in (self._reads, self._large, self._writes):
            pool.shutdown(wait=False, cancel_futures=True)
        self._batches.join(GRACE)
        self._connections.close()
        # The longest is an epoch in the middle of its commit.
        late = [worker.name for worker in self._workers if not worker.join(GRACE)]
        if late:
            _LOG.warning("threads did not end in time", threads=late)

    def _on_epoch(self, replayed: ReplayedEpoch) -> None:
        self.directory.check_key(self.replica.ledger.committed)
        self.metrics.committed(replayed.head.epoch, replayed.head.timestamp)

    def _fail(self, error: KtError) -> None:
        if isinstance(error, EquivocationError):
            keep(self._data, error)
        self.directory.fail(error)
        if isinstance(error, _STAYS):
            saved = error.saved if isinstance(error, EquivocationError) else None
            _LOG.error("stopped serving", problem=str(error), evidence=None if saved is None else str(saved))
        else:
            self._told(error)

    def _refusing(self) -> str | None:
        problems = self.directory.disk_problem, self.watch.denials.problem, self.backlog.problem
        reasons = [reason for reason in problems if reason]
        return "; ".join(reasons) or None

    def _look(self, last: int) -> None:
        self.backlog.look(last)
        self.health.look()


def serve(
    settings: FrontendSettings,
    stop: threading.Event,
    on_ready: Callable[[str], None] = lambda _: None,
    reread: Callable[[], FrontendSettings] | None = None,
    now: Callable[[], int] = wall_clock,
) -> None:
    """Serve until ``stop``; ``on_ready`` gets the URL.

    After each SIGHUP ``reread`` gives the settings anew: limits and certificate hold from then on.

    Raises ``ConfigError`` for unusable settings, ``LockedError`` for a data directory in use, and
    ``DivergenceError``, ``ConfigError`` or another ``KtError`` for what made it stop by itself. Where it
    stopped serving and stayed up, the reason is raised when it is told to stop.
    """
    errors: list[KtError] = []

    def failed(error: KtError) -> None:
        errors.append(error)
        stop.set()

    vrf = load_vrf_key(settings.vrf_key)
    files = both_or_none(settings.tls_cert, settings.tls_key)
    tls = None if files is None else Exchangeable(*files)
    connect_log = Connector(settings.log)
    _check_connection_string(connect_log)
    names = StreamNames(settings.directory)
    with ExitStack() as stack:
        store = open_patiently(settings.data, FAMILIES, stop, Outage("storage", _LOG))
        if store is None:
            return
        stack.callback(store.close)
        ledger = Ledger(store, settings.origin, settings.signer_key)
        # The replica checks as well, but only once the log can be reached.
        check_commit(ledger)
        running = Running(
            ledger,
            names,
            vrf,
            connect_log,
            failed,
            data=settings.data,
            max_backlog=settings.max_backlog,
            limits=settings.limits,
            now=now,
        )
        connections = HttpConnections(
            running.clients,
            room_for_connections(settings.limits.connections),
            running.metrics.refused,
        )
        listener = stack.enter_context(listening_at(settings.host, settings.port))
        running.start()
        stack.callback(running.stop)
        if tls is not None:
            running.metrics.certificate(tls.until)
        again = reread or (lambda: settings)
        stack.enter_context(reloading(_Reloading(settings, again, running, connections, tls)))
        context = None if tls is None else tls.context
        with http_server(running.app, connections, listener, failed, context):
            url = url_of(settings.host, listener, "http" if tls is None else "https")
            _LOG.info("serving", url=url, directory=settings.directory, epoch=ledger.committed.epoch)
            on_ready(url)
            # Now and then, because a signal just before the wait begins would not end it.
            while not stop.wait(1.0):
                pass
            running.release_waiting()
    failure = errors[0] if errors else running.directory.failure
    if failure is not None:
        raise failure
    _LOG.info("stopped", directory=settings.directory)


class _Reloading:
    """Brings what is read again into force, as far as that is possible while connections are served."""

    def __init__(
        self,
        started: FrontendSettings,
        reread: Callable[[], FrontendSettings],
        running: Running,
        connections: HttpConnections,
        tls: Exchangeable | None,
    ) -> None:
        self._started = self._now = started
        self._reread = reread
        self._running = running
        self._connections = connections
        self._tls = tls

    def __call__(self) -> Reloaded:
        """Raises ``ConfigError``, with everything as it was, for settings or files that cannot be used."""
        new = self._reread()
        files = both_or_none(new.tls_cert, new.tls_key)
        exchanged = self._tls is not None and files is not None and self._tls.exchange(*files)
        before = self._started.limits
        fixed = differing(self._started, new, but=(*_LIMITS, *_TLS))
        fixed += tuple(name for name in differing(before, new.limits) if name in _COUNTED_BY)
        limits = replace(new.limits, exempt=before.exempt, proxies=before.proxies)
        new = replace(new, limits=limits)
        self._running.limit(new)
        self._connections.limit(room_for_connections(limits.connections))
        if (files is None) != (self._tls is None):
            fixed += ("tls_cert",)
        changed = tuple(name for name in differing(self._now, new) if name == "max_backlog")
        changed += differing(self._now.limits, limits)
        self._now = new
        return Reloaded((*changed, *(("certificate",) if exchanged else ())), fixed)


def _check_connection_string(connect_log: Connector) -> None:
    # The log itself may be away: lookups go on without it.
    with suppress(UnavailableError):
        connect_log().close()
