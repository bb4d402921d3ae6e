"""Counters and gauges of a front end, in a registry of their own. Labels of users are never labels here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import Gauge, generate_latest

from kt_es.process.exposition import Samples
from kt_es.server.backlog import Backlog
from kt_es.server.health import NotReadyReason

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """``clock`` gives the time in ms since 1970, for the age of the latest head."""

    def __init__(
        self,
        clock: Callable[[], int],
        log_is_reachable: Callable[[], bool],
        backlog: Backlog,
        keeps_from_ready: Callable[[NotReadyReason], bool],
        disk_is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        samples = Samples()
        self._clock = clock
        self._samples = samples
        self._registry = samples.registry
        self._timestamp = 0
        self.lookups = samples.counter("kt_lookups", "Lookups answered, by result", "result")
        self.submissions = samples.counter("kt_submissions", "Submissions answered, by verdict", "verdict")
        self.requests = samples.histogram("kt_request_seconds", "Time to answer", "route", buckets=_BUCKETS)
        self.refused = samples.counter(
            "kt_refused", "Connections and requests refused or ended, by reason", "why"
        )
        self._epoch = samples.gauge("kt_epoch", "Latest epoch committed by the replica")
        self._lag = samples.gauge("kt_replica_lag_seconds", "From a head's timestamp to its commit here")
        samples.gauge(
            "kt_head_age_seconds",
            "Time since the timestamp of the latest head; below 0 if that is in the future",
            self._age,
        )
        not_ready = Gauge(
            "kt_not_ready",
            "1 while a reason keeps the front end from being ready",
            ["reason"],
            registry=self._registry,
        )
        for reason in NotReadyReason:
            not_ready.labels(reason).set_function(partial(keeps_from_ready, reason))
        samples.gauge(
            "kt_log_reachable",
            "1 while the event log can be reached",
            lambda: 1.0 if log_is_reachable() else 0.0,
        )
        samples.gauge(
            "kt_disk_full",
            "1 while nothing can be written for want of space",
            lambda: 1.0 if disk_is_full() else 0.0,
        )
        samples.gauge(
            "kt_backlog_items", "Items in the queue behind the last head, estimated", lambda: backlog.items
        )
        samples.gauge(
            "kt_backlog_limit_items", "Above so many, submissions are refused", lambda: backlog.limit
        )

    def certificate(self, until: Callable[[], float]) -> None:
        """Export the end of the TLS certificate, which ``until`` gives in seconds since 1970."""
        self._samples.gauge(
            "kt_tls_certificate_end_seconds", "When the certificate that is served ends, Unix time", until
        )

    def committed(self, epoch: int, timestamp: int) -> None:
        """Note that the replica has committed ``epoch``, whose head has ``timestamp`` in ms since 1970."""
        self._timestamp = timestamp
        self._epoch.set(epoch)
        self._lag.set(max(0.0, self._age()))

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def _age(self) -> float:
        return (self._clock() - self._timestamp) / 1000 if self._timestamp else 0.0
