"""The reports of a signer: its metrics for Prometheus, and the progress of a rebuild in its log.

No label of a metric holds anything of an item. The merge delay is the time from the signer's first sight of
an event to the head that covers the event. It includes outages and new starts of the loop, but not the time
before the process started. The signer's thread makes all reports.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog

from kt_es.errors import MalformedError
from kt_es.eventstore.streams import EventLog
from kt_es.formats.configs import Config
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.queue import Record
from kt_es.process.exposition import Samples

PROGRESS_SECONDS = 1.0
# A replay has ten thousand records a second. The clock is read once for this many.
RECORDS_A_LOOK = 256
WAITS = ("log", "disk", "store")
"""The things that a signer may wait for: the event log, space on its own disk, the shared store."""
OUTAGES = (*WAITS, "silence")
"""The kinds of outages. An outage that the watchdog found counts as ``silence`` and as ``log``."""
_ITEMS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)

_LOG = structlog.get_logger("signer")


class SignerMetrics:
    """``now`` is the wall clock in ms, ``monotonic`` in seconds.

    The signer's thread writes, the threads that answer scrapes read. ``_lock`` guards ``_waiting``,
    ``_last_seen`` and ``_sealed``, which are read together; the other fields are assigned as a whole.
    """

    def __init__(self, now: Callable[[], int], monotonic: Callable[[], float]) -> None:
        samples = Samples()
        counter, gauge, histogram = samples.counter, samples.gauge, samples.histogram
        self.registry = samples.registry
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._waiting: tuple[int, float] | None = None  # the oldest unsealed revision; since when, monotonic
        self._last_seen = -1
        self._sealed = 0
        self._timestamp = 0
        self._promise: float | None = None
        self._epochs = counter("kt_signer_epochs", "Epochs published by this process")
        self._verdicts = counter("kt_signer_verdicts", "Items decided and sealed, by verdict", "verdict")
        self._outages = counter("kt_signer_outages", "Outages since the start, by what was away", "kind")
        for kind in OUTAGES:
            self._outages.labels(kind)
        self._broken = counter("kt_signer_merge_delay_broken", "Epochs over max_merge_delay")
        self._phases = histogram("kt_signer_phase_seconds", "Time in one epoch, by phase", "phase")
        self._items = histogram("kt_signer_epoch_items", "Items in an epoch", buckets=_ITEMS)
        self._delays = histogram("kt_signer_merge_delay_seconds", "Longest of each epoch with items")
        self._delay = gauge("kt_signer_last_merge_delay_seconds", "Longest of the last epoch with items")
        self.disk_full = gauge("kt_signer_disk_full", "1 while nothing can be written for want of space")
        self._waiting_for = gauge(
            "kt_signer_waiting", "1 while it waits for this and signs nothing", labels=["kind"]
        )
        self.waits()
        self._active = gauge("kt_signer_active", "1 with the place at the queue, 0 as a standby")
        self._epoch = gauge("kt_signer_epoch", "Latest epoch committed")
        self._head = gauge("kt_signer_head_timestamp_seconds", "Timestamp of the latest head of its own")
        self._staged = gauge("kt_signer_lag_items", "Items decided, but not yet under a head")
        self._promised = gauge("kt_signer_promised_merge_delay_seconds", "max_merge_delay of the config")
        self._interval = gauge("kt_signer_promised_interval_seconds", "max_interval of the config")
        gauge("kt_signer_lag_events", "Queue events known of and not yet under a head", self._lag_events)
        gauge("kt_signer_lag_seconds", "How long the oldest of them has been known of", self._lag_seconds)
        gauge("kt_signer_head_age_seconds", "Time since the timestamp of the latest head", self._age)

    def seen(self, last: int) -> None:
        """Report that the queue has an event of revision ``last``."""
        with self._lock:
            self._last_seen = max(self._last_seen, last)
            # An event at or before the last head is only delivered again.
            if self._waiting is None and self._last_seen >= self._sealed:
                self._waiting = (self._sealed, self._monotonic())

    def decided(self, revision: int, staged: int) -> None:
        """Report that an event was decided, perhaps again. The epoch has ``staged`` items now."""
        self.seen(revision)
        self._staged.set(staged)

    def sealed(self, queue_next: int) -> None:
        """Report that a head, of this signer or another one, covers the queue below ``queue_next``."""
        now = self._monotonic()
        with self._lock:
            waited = self._waiting
            self._sealed = queue_next
            self._staged.set(0)
            if waited is None or waited[0] >= queue_next:
                return
            self._waiting = None if self._last_seen < queue_next else (queue_next, now)
        seconds = now - waited[1]
        self._delays.observe(seconds)
        self._delay.set(seconds)
        if self._promise is not None and seconds > self._promise:
            self._broken.inc()
            _LOG.warning("merge delay not kept", seconds=round(seconds, 3), promised=self._promise)

    def finished(
        self, head: MapHead, items: int, verdicts: Mapping[str, int], phases: Mapping[str, float]
    ) -> None:
        """Report an epoch that is published, committed and acknowledged. ``phases`` has seconds by name."""
        self._epochs.inc()
        self._items.observe(items)
        for verdict, count in verdicts.items():
            self._verdicts.labels(verdict).inc(count)
        for phase, seconds in phases.items():
            self._phases.labels(phase).observe(seconds)
        self._epoch.set(head.epoch)
        self._timestamp = head.timestamp
        self._head.set(head.timestamp / 1000)

    def configured(self, config: Config) -> None:
        self._promise = config.max_merge_delay / 1000
        self._promised.set(self._promise)
        self._interval.set(config.max_interval / 1000)

    def role(self, *, active: bool) -> None:
        self._active.set(1 if active else 0)

    def outage(self, kind: str) -> None:
        """Report that an outage begins. ``kind`` is one of ``OUTAGES``."""
        self._outages.labels(kind).inc()

    def waits(self, kind: str | None = None) -> None:
        """Report that the signer waits for ``kind``, one of ``WAITS``, or for nothing."""
        for one in WAITS:
            self._waiting_for.labels(one).set(one == kind)

    def _lag_events(self) -> float:
        with self._lock:
            return max(0, self._last_seen + 1 - self._sealed)

    def _lag_seconds(self) -> float:
        with self._lock:
            return 0.0 if self._waiting is None else max(0.0, self._monotonic() - self._waiting[1])

    def _age(self) -> float:
        return max(0, self._now() - self._timestamp) / 1000 if self._timestamp else 0.0


class SignerProgress:
    """Logs ``recovering`` now and then, with the finished and the remaining work.

    ``records`` is the number of records that the ledger has already; ``goal`` is the last published head.
    """

    def __init__(self, monotonic: Callable[[], float], records: int, goal: MapHead | None) -> None:
        self._monotonic = monotonic
        self._goal = goal
        self._first = self._done = records
        self._began = self._logged_at = monotonic()
        self._epoch = 0

    def record(self, record: Record) -> None:
        self._done = record.sequence + 1
        if self._done % RECORDS_A_LOOK == 0:
            self._log_progress()

    def epoch(self, head: MapHead) -> None:
        self._epoch = head.epoch
        self._log_progress()

    def end(self) -> None:
        """Log ``recovered`` if there was anything to do."""
        if self._epoch:
            _LOG.info("recovered", epoch=self._epoch, **self._figures())

    def _log_progress(self) -> None:
        now = self._monotonic()
        if now - self._logged_at >= PROGRESS_SECONDS:
            self._logged_at = now
            _LOG.info("recovering", **self._figures())

    def _figures(self) -> dict[str, int]:
        rate = round((self._done - self._first) / max(self._monotonic() - self._began, 1e-6))
        goal = (
            {} if self._goal is None else {"of_records": self._goal.log_size, "of_epochs": self._goal.epoch}
        )
        return {"records": self._done, "records_per_second": rate, **goal}


def last_published(log: EventLog, stream: str) -> MapHead | None:
    """Return the last head in the log, unverified: it only shows how much there is to do."""
    event = log.last_event(stream)
    try:
        return None if event is None else SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head
    except MalformedError:
        # The replay reports the fault of the head.
        return None
