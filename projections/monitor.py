"""The monitor as a process: it replays both logs as they grow until it is stopped, or finds a fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from kt_es.client.elsewhere import Place, place_at
from kt_es.client.vouching import NO_POLICIES, Policies
from kt_es.errors import (
    CannotTellError,
    EquivocationError,
    KtError,
)
from kt_es.eventstore.connecting import Connector
from kt_es.eventstore.streams import EventLog, StreamNames
from kt_es.formats.entries import PublicKey
from kt_es.formats.queue import Record
from kt_es.ledger.anchor import WRONG_LOG
from kt_es.ledger.clock import interval_change
from kt_es.ledger.convicting import check_unconvicted, keep, keeping_evidence
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.replay import ReplayedEpoch
from kt_es.ledger.stores import open_store
from kt_es.process.clock import wall_clock
from kt_es.process.exposition import exposed
from kt_es.process.outage import Backoff, Outage, keep_trying, patiently
from kt_es.process.signals import GRACE, Reload, Worker, reloading, working
from projections.auditor import Alarm, Notice, QueueCheck, Vigil
from projections.cosigning.monitoring import CosignerSettings, cosigning
from projections.follower import Listener
from projections.gossip import INTERVAL, Gossip, gossiping
from projections.monitor_metrics import MonitorMetrics
from projections.monitor_sources import LogSource, Source, TileAddress, TileSource
from projections.quorums import Quorums, watching_quorums
from projections.status.board import Board, Monitored
from projections.unproven import keeping_unproven, kept_unproven
from projections.webhooks import Webhooks

# Seconds that metrics with the alarm are served before the process ends, so that some scrapes see it.
ALARM_SECONDS = 120.0
LOOK_SECONDS = 2.0
CLOCK_SECONDS = 0.5

_LOG = structlog.get_logger("monitor")


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """``pinned`` is any signer key of the directory, ``log`` a connection string (``esdb://...``).

    With ``tiles`` the logs are read there, and ``log`` and ``names`` are not used. ``read_queue`` compares
    with the queue, too. With ``exit_on_silence`` the monitor ends when no head comes in time.
    """

    names: StreamNames
    origin: str
    pinned: PublicKey
    log: str
    data: Path
    read_queue: bool = False
    metrics: tuple[str, int] | None = None  # host and port to serve metrics at
    exit_on_silence: bool = False
    also: tuple[str, ...] = ()  # URLs of others who show checkpoints
    also_interval: float = INTERVAL  # seconds
    webhooks: tuple[str, ...] = ()  # URLs that evidence is posted to
    tiles: TileAddress | None = None
    cosigner: CosignerSettings | None = None  # None cosigns nothing
    policies: Policies = NO_POLICIES


def serve(
    settings: MonitorSettings,
    stop: threading.Event,
    reread: Callable[[], MonitorSettings] | None = None,
    *,
    connect: Callable[[], EventLog] | None = None,
    now: Callable[[], int] = wall_clock,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Follow and verify until ``stop``; while the disk is full, wait for space and watch the clock.

    After each SIGHUP ``reread`` returns the new settings, and the log says which of them wait for a restart:
    a monitor has no certificate and no limit. ``connect`` opens a client of the log; None does as
    ``settings`` say. ``now`` is the wall clock in ms, ``monotonic`` in seconds.

    Raises:
        ConfigError, LockedError: The data directory or the connection string cannot be used.
        DivergenceError: The first difference.
        RollbackError, EquivocationError: The log does not hold the last head that was verified here. The
            evidence of two signed heads is saved, and every later start raises it again.
        CannotTellError: No head came in time, with ``exit_on_silence``.

    Where metrics are served, the alarm is shown for ``ALARM_SECONDS`` before it is raised. Evidence is posted
    to the webhooks first, until each of them has accepted it.
    """
    webhooks = Webhooks(settings.webhooks, settings.data)
    metrics = MonitorMetrics(now, monotonic)
    source: Source
    if settings.tiles is None:
        source = LogSource(connect or Connector(settings.log), settings.names)
    else:
        source = TileSource(settings.tiles.open, settings.tiles.interval, monotonic)
    board = Board(_monitored(settings), metrics, now, monotonic)
    outage = Outage("monitor", _LOG, on_begin=metrics.outage, source=source.name)
    with ExitStack() as stack:
        stack.enter_context(reloading(Reload(settings, reread)))
        if settings.metrics is not None:
            stack.enter_context(exposed(metrics.registry, *settings.metrics, board.app()))
        # A monitor decides everything by itself, so it shares no store.
        opening = partial(open_store, settings.data, None)
        store = patiently(opening, stop, outage, lambda _: metrics.disk_full.set(1))
        if store is None:
            return
        stack.callback(store.close)
        metrics.disk_full.set_function(lambda: store.is_full)
        stack.enter_context(keeping_evidence(settings.data))
        elsewhere = [stack.enter_context(closing(place_at(url, settings.origin))) for url in settings.also]
        try:
            ledger = Ledger(store, settings.origin, settings.pinned)
            board.opened(ledger)
            stack.callback(board.closed)
            check_unconvicted(settings.data, ledger)
            metrics.resumed(ledger.committed)
            vigil = Vigil(now, monotonic, partial(_report, metrics=metrics, board=board))
            vigil.resumed(ledger.committed)
            if settings.metrics is not None:
                stack.enter_context(_running(_head_watch(source, metrics)))
            check = source.queue_check(stack) if settings.read_queue else None
            listener = _listener(ledger, metrics, vigil, check)
            gossip = _gossip(settings, elsewhere, ledger, metrics, stack, now=now)
            board.gossip = gossip
            quorums = _quorums(settings, elsewhere, ledger, metrics, board, gossip=gossip)
            with (
                _clock(vigil, stop, exit_on_silence=settings.exit_on_silence) as ending,
                gossiping(gossip, settings.also_interval, ending),
                watching_quorums(quorums, settings.also_interval, ending),
                cosigning(settings.cosigner, ledger, ending, board.show, metrics),
                keeping_unproven(settings.data),
            ):
                source.follow(ledger, listener, ending, outage)
        except WRONG_LOG as error:
            metrics.alarm()
            if isinstance(error, EquivocationError):
                # At once, because this process may be killed while it shows the alarm.
                keep(settings.data, error)
            board.fault(str(error))
            until = monotonic()
            if settings.metrics is not None:
                _LOG.error("alarm", problem=str(error), ends_in=ALARM_SECONDS)
                until += ALARM_SECONDS
            webhooks.run(stop)
            stop.wait(max(0.0, until - monotonic()))
            raise


def _listener(ledger: Ledger, metrics: MonitorMetrics, vigil: Vigil, check: QueueCheck | None) -> Listener:
    before = [ledger.committed]

    def head() -> None:
        metrics.begins()
        vigil.at_work()

    def record(replayed: Record) -> None:
        metrics.record(replayed.verdict)
        vigil.at_work()
        if check is not None:
            check.observe(replayed)

    def epoch(replayed: ReplayedEpoch) -> None:
        metrics.verified(ledger.committed)
        change, before[0] = interval_change(before[0], ledger.committed), ledger.committed
        head = replayed.head
        _LOG.info("verified", epoch=head.epoch, records=head.log_size, entries=head.map_size)
        if change is not None:
            _LOG.warning(
                "max_interval changes", epoch=change.epoch, before_ms=change.before, now_ms=change.now
            )
        vigil.verified(ledger.committed)

    def outage(_: KtError) -> None:
        metrics.begins_again()
        vigil.waits()

    return Listener(epoch, record, outage, head, vigil.waits)


def _monitored(settings: MonitorSettings) -> Monitored:
    source = "its event log" if settings.tiles is None else "its tiles"
    what = settings.origin, settings.pinned, source, settings.data
    return Monitored(*what, settings.read_queue, settings.also)


def _report(notice: Notice, metrics: MonitorMetrics, board: Board) -> None:
    metrics.time_alarm(notice.alarm, raised=notice.raised)
    board.notice(notice)
    if notice.raised:
        _LOG.error(f"{_kind(notice)} alarm", kind=notice.alarm.value, problem=notice.sentence)
    else:
        _LOG.warning(f"{_kind(notice)} alarm ends", kind=notice.alarm.value, what=notice.sentence)


def _gossip(
    settings: MonitorSettings,
    places: Sequence[Place],
    ledger: Ledger,
    metrics: MonitorMetrics,
    stack: ExitStack,
    *,
    now: Callable[[], int],
) -> Gossip:
    sources = [*kept_unproven(settings.data, settings.origin), *places]
    own = None if settings.tiles is None else settings.tiles.place(settings.origin)
    if own is not None:
        stack.callback(own.close)
    return Gossip(sources, ledger, now, agreed=metrics.compared, own=own, data=settings.data)


def _quorums(
    settings: MonitorSettings,
    places: Sequence[Place],
    ledger: Ledger,
    metrics: MonitorMetrics,
    board: Board,
    *,
    gossip: Gossip,
) -> Quorums:
    notify = partial(_report, metrics=metrics, board=board)
    return Quorums(settings.policies, places, ledger, notify, gossip.unproven)


def _kind(notice: Notice) -> str:
    return "quorum" if notice.alarm is Alarm.QUORUM else "clock"


@contextmanager
def _clock(vigil: Vigil, stop: threading.Event, *, exit_on_silence: bool) -> Iterator[threading.Event]:
    """Look at the clock in a thread; yield an event that ends the replay.

    ``stop`` sets the event, and so does an error of the thread, which is raised on exit. With
    ``exit_on_silence``, silence is such an error: ``CannotTellError``.
    """
    ending = threading.Event()

    def run(stopped: threading.Event) -> None:
        while not stopped.is_set():
            silence = vigil.look()
            if silence and exit_on_silence:
                raise CannotTellError("clock", silence)
            if stop.wait(CLOCK_SECONDS):
                ending.set()
                return

    with working("clock", run, ending):
        yield ending


@contextmanager
def _running(worker: Worker) -> Iterator[None]:
    worker.start()
    try:
        yield
    finally:
        worker.end(GRACE)


def _head_watch(source: Source, metrics: MonitorMetrics) -> Worker:
    """Return a thread that looks at the newest head now and then, also while a long epoch is replayed.

    The thread has a client of its own, because a subscription that hangs looks like silence.
    """
    outage = Outage("heads watch", _LOG, source=source.name)

    def run(stop: threading.Event) -> None:
        def attempt() -> None:
            with source.looking() as look:
                while not stop.is_set():
                    look(metrics)
                    outage.over()
                    stop.wait(LOOK_SECONDS)

        pauses = Backoff(LOOK_SECONDS, LOOK_SECONDS)
        keep_trying(attempt, stop, outage, pauses, on_failure=lambda _: metrics.unreachable())

    def failed(error: KtError) -> None:
        metrics.unreachable()
        _LOG.warning("the lag is not known any more", problem=str(error))

    return Worker("head watch", run, failed)
