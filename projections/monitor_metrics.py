"""The monitor's metrics for Prometheus. Of a record they have only the verdict."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from kt_es.formats.queue import Verdict
from kt_es.ledger.rows import Committed
from kt_es.process.exposition import Samples
from projections.auditor import Alarm
from projections.status.facts import Lag


class MonitorMetrics:
    """``now`` is the wall clock in ms, ``monotonic`` in seconds.

    The thread that replays reports what is verified, ``head watch`` what is published. The threads that
    answer scrapes read both.
    """

    def __init__(self, now: Callable[[], int], monotonic: Callable[[], float]) -> None:
        samples = Samples()
        counter, gauge, histogram = samples.counter, samples.gauge, samples.histogram
        self.registry = samples.registry
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()  # verdicts of the epoch that is being replayed
        self._begun = 0.0
        self._heads = self._records = self._timestamp = 0
        self._published = (0, 0, 0)  # heads, records, timestamp of the newest
        self._behind_since: float | None = None
        self._max_interval: int | None = None
        self._is_reachable: bool | None = None
        self._epochs = counter("kt_monitor_epochs", "Epochs replayed and verified by this process")
        self._verdicts = counter(
            "kt_monitor_verdicts", "Records replayed and verified, by verdict", "verdict"
        )
        self._late = counter(
            "kt_monitor_late_heads", "Verified heads that came more than max_interval after the one before"
        )
        self._outages = counter("kt_monitor_outages", "Times the log went away while following it")
        self._replays = histogram("kt_monitor_replay_seconds", "Time to replay and verify an epoch")
        self._epoch = gauge("kt_monitor_epoch", "Latest epoch verified")
        self._log_size = gauge("kt_monitor_log_size", "Records under its head")
        self._map_size = gauge("kt_monitor_map_size", "Entries under its head")
        self._head = gauge("kt_monitor_head_timestamp_seconds", "Timestamp of its head")
        self._interval = gauge("kt_monitor_promised_interval_seconds", "max_interval of the config in force")
        self._promised = gauge(
            "kt_monitor_promised_merge_delay_seconds", "max_merge_delay of the config in force"
        )
        self._reachable = gauge("kt_monitor_log_reachable", "1 while the event log can be reached")
        self._time_alarms = {
            Alarm.SILENCE: gauge(
                "kt_monitor_silence", "1 while no head was verified for max_interval and a minute"
            ),
            Alarm.FUTURE: gauge(
                "kt_monitor_future_head", "1 while the latest verified head is over a minute in the future"
            ),
            Alarm.GAP: gauge("kt_monitor_gap", "1 while the latest verified head is one that came too late"),
            Alarm.QUORUM: gauge("kt_monitor_no_quorum", "1 while no quorum vouches for what was verified"),
        }
        self._compared = gauge(
            "kt_monitor_compared_timestamp_seconds",
            "When the place was last found to show the log that was verified here",
            labels=("place",),
        )
        self._cosigned_at = gauge(
            "kt_monitor_cosigned_timestamp_seconds",
            "When this process has cosigned the log last",
            labels=("log",),
        )
        self._cosigned_size = gauge(
            "kt_monitor_cosigned_size", "Leaves of the checkpoint that was cosigned last", labels=("log",)
        )
        self._not_handed = counter(
            "kt_monitor_not_handed_over", "Cosignatures that the front end has not taken", "place"
        )
        self.disk_full = gauge("kt_monitor_disk_full", "1 while nothing can be written for want of space")
        self._alarm = gauge("kt_monitor_alarm", "1 once the logs were found to be wrong")
        gauge("kt_monitor_open_records", "Records replayed, not yet under a verified head", self._size)
        gauge("kt_monitor_lag_heads", "Published and not verified", lambda: self._lag(0, self._heads))
        gauge("kt_monitor_lag_records", "Published and not verified", lambda: self._lag(1, self._records))
        gauge("kt_monitor_lag_seconds", "Since when there are any", self._lag_seconds)
        gauge(
            "kt_monitor_head_age_seconds",
            "Time since the timestamp of the latest verified head",
            lambda: self._age(self._timestamp),
        )
        gauge(
            "kt_monitor_published_head_age_seconds",
            "Time since the timestamp of the newest published head, verified or not",
            lambda: self._age(max(self._timestamp, self._published[2])),
        )

    def cosigned(self, log: str, size: int, time: int) -> None:
        """Report that a checkpoint of ``size`` leaves was cosigned at ``time`` (ms)."""
        self._cosigned_at.labels(log).set(time / 1000)
        self._cosigned_size.labels(log).set(size)

    def not_handed_over(self, place: str, times: int = 1) -> None:
        """Report that the front end has not taken so many cosignatures."""
        self._not_handed.labels(place).inc(times)

    def begins(self) -> None:
        """Report that the replay of an epoch begins, perhaps again."""
        self._open = Counter()
        self._begun = self._monotonic()

    def record(self, verdict: Verdict) -> None:
        self._open[verdict.label] += 1

    def verified(self, state: Committed) -> None:
        """Report that the replayed epoch is correct, and that ``state`` is committed."""
        self._epochs.inc()
        self._replays.observe(self._monotonic() - self._begun)
        for verdict, count in self._open.items():
            self._verdicts.labels(verdict).inc(count)
        before, timestamp = self._timestamp, state.standing.timestamp
        # The interval of the config that was in force when the head was due.
        if before and self._max_interval is not None and timestamp - before > self._max_interval:
            self._late.inc()
        self.resumed(state)

    def resumed(self, state: Committed) -> None:
        """Report that ``state`` is verified: now, or before the process started."""
        self._open = Counter()
        self._heads, self._records = state.epoch, state.log.size
        self._timestamp = state.standing.timestamp
        self._epoch.set(state.epoch)
        self._log_size.set(state.log.size)
        self._map_size.set(state.root.size)
        self._head.set(self._timestamp / 1000)
        if state.standing.config is not None:
            config = state.standing.config.config
            self._max_interval = config.max_interval
            self._interval.set(config.max_interval / 1000)
            self._promised.set(config.max_merge_delay / 1000)
        self._note_lag()

    def begins_again(self) -> None:
        """Report that the replay of the epoch was given up: it begins again."""
        self._open = Counter()

    def outage(self, kind: str) -> None:
        """Report that an outage begins. Those of ``log`` are counted."""
        if kind == "log":
            self._outages.inc()

    def published(self, heads: int, records: int, timestamp: int) -> None:
        """Report the numbers of the newest head in the log, which can be reached."""
        self._reachable.set(1)
        self._is_reachable = True
        self._published = (heads, records, timestamp)
        self._note_lag()

    def unreachable(self) -> None:
        self._reachable.set(0)
        self._is_reachable = False

    def time_alarm(self, alarm: Alarm, *, raised: bool) -> None:
        self._time_alarms[alarm].set(raised)

    def compared(self, place: str, timestamp: int) -> None:
        """Report that ``place`` shows the same log, at ``timestamp`` in ms."""
        self._compared.labels(place).set(timestamp / 1000)

    def alarm(self) -> None:
        self._alarm.set(1)

    @property
    def lag(self) -> Lag:
        """What is published and not verified."""
        heads, records = self._lag(0, self._heads), self._lag(1, self._records)
        return Lag(int(heads), int(records), self._lag_seconds(), self._is_reachable)

    def _note_lag(self) -> None:
        with self._lock:
            if self._published[0] <= self._heads:
                self._behind_since = None
            elif self._behind_since is None:
                self._behind_since = self._monotonic()

    def _lag(self, what: int, verified: int) -> float:
        return max(0, self._published[what] - verified)

    def _lag_seconds(self) -> float:
        since = self._behind_since
        return 0.0 if since is None else max(0.0, self._monotonic() - since)

    def _size(self) -> float:
        return self._open.total()

    def _age(self, timestamp: int) -> float:
        return max(0, self._now() - timestamp) / 1000 if timestamp else 0.0
