"""The monitor as a process: it replays both logs as they grow until it is stopped, or finds a fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from kt_es.errors import DivergenceError, KtError, MalformedError, UnavailableError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.formats.keys import PublicKey
from kt_es.formats.records import Record
from projections.auditor import QueueCheck
from projections.exposition import exposed
from projections.follower import Listener, follow
from projections.ledger import FAMILIES, Ledger
from projections.monitor_metrics import MonitorMetrics
from projections.replay import ReplayedEpoch
from projections.rocks import Store
from projections.worker import Worker

# How long figures with the alarm are served before the process ends: some scrapes have to come by.
ALARM_SECONDS = 120.0
LOOK_SECONDS = 2.0
GRACE = 5.0

_LOG = structlog.get_logger("monitor")


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """``pinned`` is the key that signed the first config; ``read_queue`` compares with the queue, too."""

    names: StreamNames
    origin: str
    pinned: PublicKey
    data: Path
    read_queue: bool = False
    metrics: tuple[str, int] | None = None  # host and port, where figures are wanted


def monitor(settings: MonitorSettings, connect: Callable[[], EventLog], stop: threading.Event) -> None:
    """Follow and verify until ``stop``.

    Raises ``DivergenceError`` at the first difference: at once, or, where figures are served, when the
    alarm in them has had its time. ``ConfigError`` and ``LockedError`` are of the data directory.
    """
    metrics = MonitorMetrics(lambda: time.time_ns() // 1_000_000, time.monotonic)
    with ExitStack() as stack:
        store = Store.open(settings.data, FAMILIES)
        stack.callback(store.close)
        if settings.metrics is not None:
            stack.enter_context(exposed(metrics.registry, *settings.metrics))
        try:
            ledger = Ledger(store, settings.origin, settings.pinned)
            metrics.resumed(ledger.committed)
            if settings.metrics is not None:
                stack.enter_context(_looking(connect, settings.names.heads, metrics))
            check = _queue_check(settings.names.queue, connect, stack) if settings.read_queue else None
            follow(connect, settings.names, ledger, _listener(ledger, metrics, check), stop)
        except DivergenceError as error:
            metrics.alarm()
            if settings.metrics is not None:
                _LOG.error("alarm", problem=str(error), ends_in=ALARM_SECONDS)
                stop.wait(ALARM_SECONDS)
            raise


def _listener(ledger: Ledger, metrics: MonitorMetrics, check: QueueCheck | None) -> Listener:
    def record(told: Record) -> None:
        metrics.record(told.verdict)
        if check is not None:
            check.observe(told)

    def epoch(replayed: ReplayedEpoch) -> None:
        metrics.verified(ledger.committed)
        head = replayed.head
        _LOG.info("verified", epoch=head.epoch, records=head.log_size, entries=head.map_size)

    def outage(error: UnavailableError) -> None:
        metrics.outage()
        _LOG.warning("log unavailable", problem=str(error))

    return Listener(epoch, record, outage, lambda _: metrics.begins())


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

    def run(stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                log = connect()
                try:
                    while not stop.is_set():
                        look(log, heads, metrics)
                        stop.wait(LOOK_SECONDS)
                finally:
                    log.close()
            except UnavailableError:
                metrics.unreachable()
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
    """Tell ``metrics`` what the newest head says. Nothing of it is verified, nor relied on."""
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
