"""The monitor as a process: it replays both logs as they grow until it is stopped, or finds a fault.

Threads: the caller's replays; ``clock`` watches for silence; ``head watch`` looks at the newest head
where metrics are served.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from kt_es.errors import (
    CannotTellError,
    DiskFullError,
    EquivocationError,
    KtError,
    MalformedError,
    UnavailableError,
)
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.entries import PublicKey
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.formats.queue import Record
from kt_es.ledger.anchor import WRONG_LOG
from kt_es.ledger.clock import interval_change
from kt_es.ledger.convicting import check_unconvicted, keep, keeping_evidence
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.replay import ReplayedEpoch
from kt_es.ledger.rocks import open_patiently
from kt_es.ledger.tables import FAMILIES
from kt_es.process.exposition import exposed
from kt_es.process.outage import Outage
from kt_es.process.signals import Worker
from projections.auditor import Notice, QueueCheck, Vigil
from projections.follower import Listener, follow
from projections.monitor_metrics import MonitorMetrics

# Seconds that metrics with the alarm are served before the process ends, so that some scrapes see it.
ALARM_SECONDS = 120.0
LOOK_SECONDS = 2.0
CLOCK_SECONDS = 0.5
GRACE = 5.0

_LOG = structlog.get_logger("monitor")


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """``pinned`` is any signer key of the directory; ``read_queue`` compares with the queue, too.

    With ``exit_on_silence`` the monitor ends when no head comes in time.
    """

    names: StreamNames
    origin: str
    pinned: PublicKey
    data: Path
    read_queue: bool = False
    metrics: tuple[str, int] | None = None  # host and port to serve metrics at
    exit_on_silence: bool = False


@dataclass(frozen=True, slots=True)
class Clocks:
    """``now`` is the wall clock in ms, ``monotonic`` in seconds."""

    now: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    monotonic: Callable[[], float] = time.monotonic


def monitor(
    settings: MonitorSettings,
    connect: Callable[[], EventLog],
    stop: threading.Event,
    clocks: Clocks = Clocks(),
) -> None:
    """Follow and verify until ``stop``; while the disk is full, wait for space and watch the clock.

    Raises:
        DivergenceError: the first difference. Where metrics are served, it is raised
            ``ALARM_SECONDS`` later.
        RollbackError, EquivocationError: the log does not hold the last head that was verified here; the
            evidence of two signed heads is saved in the data directory and convicts from then on. Raised
            like the above.
        CannotTellError: no head came in time, with ``exit_on_silence``.
        ConfigError, LockedError: the data directory cannot be used.
    """
    metrics = MonitorMetrics(clocks.now, clocks.monotonic)
    with ExitStack() as stack:
        if settings.metrics is not None:
            stack.enter_context(exposed(metrics.registry, *settings.metrics))
        outage = Outage("monitor", _LOG)
        store = open_patiently(settings.data, FAMILIES, stop, outage, metrics.disk_waits)
        if store is None:
            return
        stack.callback(store.close)
        metrics.disk_is_full = lambda: store.is_full
        stack.enter_context(keeping_evidence(settings.data))
        try:
            ledger = Ledger(store, settings.origin, settings.pinned)
            check_unconvicted(settings.data, ledger)
            metrics.resumed(ledger.committed)
            vigil = Vigil(clocks.now, clocks.monotonic, lambda notice: _report(notice, metrics))
            vigil.resumed(ledger.committed)
            if settings.metrics is not None:
                stack.enter_context(_looking(connect, settings.names.heads, metrics))
            check = _queue_check(settings.names.queue, connect, stack) if settings.read_queue else None
            listener = _listener(ledger, metrics, vigil, check)
            with _clock(vigil, stop, exit_on_silence=settings.exit_on_silence) as ending:
                follow(connect, settings.names, ledger, listener, ending, outage=outage)
        except WRONG_LOG as error:
            metrics.alarm()
            if isinstance(error, EquivocationError):
                # At once: this process may be ended before its alarm has had its time.
                keep(settings.data, error)
            if settings.metrics is not None:
                _LOG.error("alarm", problem=str(error), ends_in=ALARM_SECONDS)
                stop.wait(ALARM_SECONDS)
            raise


def _listener(ledger: Ledger, metrics: MonitorMetrics, vigil: Vigil, check: QueueCheck | None) -> Listener:
    before = [ledger.committed]

    def head(_: Event) -> None:
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

    def outage(error: KtError) -> None:
        metrics.outage(of_log=not isinstance(error, DiskFullError))
        vigil.waits()

    return Listener(epoch, record, outage, head, vigil.waits)


def _report(notice: Notice, metrics: MonitorMetrics) -> None:
    metrics.time_alarm(notice.alarm, raised=notice.raised)
    if notice.raised:
        _LOG.error("clock alarm", kind=notice.alarm.value, problem=notice.sentence)
    else:
        _LOG.warning("clock alarm ends", kind=notice.alarm.value, what=notice.sentence)


@contextmanager
def _clock(vigil: Vigil, stop: threading.Event, *, exit_on_silence: bool) -> Iterator[threading.Event]:
    """Look at the clock in a thread; an event that is set by ``stop``, by silence that ends the monitor, and
    by a failure of the thread.

    Raises ``CannotTellError`` on exit if silence ended it.
    """
    ending = threading.Event()
    failures: list[KtError] = []

    def run(stopped: threading.Event) -> None:
        while not stopped.is_set():
            silence = vigil.look()
            if silence and exit_on_silence:
                raise CannotTellError("clock", silence)
            if stop.wait(CLOCK_SECONDS):
                ending.set()
                return

    def failed(error: KtError) -> None:
        failures.append(error)
        ending.set()

    worker = Worker("clock", run, failed)
    worker.start()
    try:
        yield ending
    finally:
        worker.stop()
        worker.join(GRACE)
    if failures:
        raise failures[0]


def _queue_check(queue: str, connect: Callable[[], EventLog], stack: ExitStack) -> QueueCheck:
    """A check over a connection of its own, made when the first record wants to be compared."""
    opened: list[EventLog] = []

    def read(start: int) -> Iterator[Event]:
        if not opened:
            opened.append(connect())
            stack.callback(opened[0].close)
        return opened[0].read(queue, start)

    return QueueCheck(read)


@contextmanager
def _looking(connect: Callable[[], EventLog], heads: str, metrics: MonitorMetrics) -> Iterator[None]:
    """Look at the newest head now and then, beside the replay, which may be in the middle of a long epoch.

    It asks by clients of its own: a subscription that hangs looks like silence.
    """

    outage = Outage("heads watch", _LOG)

    def run(stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                log = connect()
                try:
                    while not stop.is_set():
                        look(log, heads, metrics)
                        outage.over()
                        stop.wait(LOOK_SECONDS)
                finally:
                    log.close()
            except UnavailableError as error:
                metrics.unreachable()
                if not stop.is_set():
                    outage.failed(str(error))
                stop.wait(LOOK_SECONDS)

    def failed(error: KtError) -> None:
        metrics.unreachable()
        _LOG.warning("the lag is not known any more", problem=str(error))

    worker = Worker("head watch", run, failed)
    worker.start()
    try:
        yield
    finally:
        worker.stop()
        worker.join(GRACE)


def look(log: EventLog, heads: str, metrics: MonitorMetrics) -> None:
    """Report the newest head to ``metrics``, unverified: nothing relies on it."""
    event = log.last_event(heads)
    records = timestamp = 0
    if event is not None:
        try:
            head = SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head
            records, timestamp = head.log_size, head.timestamp
        except MalformedError:
            # The replay will name it.
            pass
    metrics.published(0 if event is None else event.revision + 1, records, timestamp)
