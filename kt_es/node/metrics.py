"""What the node counts, and its page for Prometheus.

Counting happens on the event loop's thread in plain integers, since reads and appends pass here; only what
is measured once per group commit is a histogram of the library's. Streams appear in the names of persistent
subscriptions only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from kt_es.node.group_registry import Groups
from kt_es.node.log import EventLog
from kt_es.node.storage import Storage
from kt_es.node.streams import ALL_NAME
from kt_es.node.transaction import RANGE

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SUBSCRIBE = "Streams.Subscribe"
_EVENT, _APPEND = b"E"[0], RANGE[0]
_BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


@dataclass(slots=True)
class Traffic:
    """One kind of call: how many are open, what was sent in answer, how they ended."""

    open: int = 0
    messages: int = 0
    bytes: int = 0
    ended: dict[str, int] = field(default_factory=dict)

    def end(self, status: str) -> None:
        """A call ended with ``status``, a name of gRPC's."""
        self.open -= 1
        self.ended[status] = self.ended.get(status, 0) + 1


class Counts:
    """All that is counted. ``calls`` are by method, reads without end apart as ``SUBSCRIBE``."""

    def __init__(self) -> None:
        self.calls: dict[str, Traffic] = {}
        self.appends = 0
        self.events = 0
        self.bytes = 0
        self.registry = CollectorRegistry()
        self.batches = Histogram(
            "kt_node_commit_appends", "Appends that shared one sync", buckets=_BATCHES, registry=self.registry
        )
        self.syncs = Histogram(
            "kt_node_sync_seconds", "Time of one sync", buckets=_SECONDS, registry=self.registry
        )

    def traffic(self, kind: str) -> Traffic:
        """The counts of one kind of call: a method's name, or ``SUBSCRIBE``."""
        return self.calls.setdefault(kind, Traffic())


class CountingStorage:
    """``storage`` with its writes counted and its syncs timed."""

    def __init__(self, storage: Storage, counts: Counts) -> None:
        self._storage = storage
        self._counts = counts
        self.get = storage.get
        self.get_many = storage.get_many
        self.scan: Callable[[bytes, bytes], Iterator[tuple[bytes, bytes]]] = storage.scan
        self.scan_back = storage.scan_back
        self.close = storage.close

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        """See ``storage.Storage``."""
        self._storage.write(puts, deletes)
        sizes = [len(value) for key, value in puts if key[0] == _EVENT]
        counts = self._counts
        counts.events += len(sizes)
        counts.bytes += sum(sizes)
        if sizes:
            appends = sum(key[0] == _APPEND for key, _ in puts)
            counts.appends += appends
            counts.batches.observe(appends)

    def sync(self) -> None:
        """See ``storage.Storage``."""
        began = time.perf_counter()
        self._storage.sync()
        self._counts.syncs.observe(time.perf_counter() - began)


class Page:
    """What ``/metrics`` shows. ``size`` gives the bytes on disk."""

    def __init__(self, counts: Counts, log: EventLog, groups: Groups, size: Callable[[], int]) -> None:
        self._counts = counts
        self._log = log
        self._groups = groups
        self._size = size
        ProcessCollector(registry=counts.registry)
        counts.registry.register(self)

    def render(self) -> bytes:
        """The page, ``MEDIA_TYPE``. On the event loop's thread."""
        return generate_latest(self._counts.registry)

    def collect(self) -> Iterable[Metric]:
        """See ``prometheus_client.registry.Collector``."""
        counts = self._counts
        yield GaugeMetricFamily("kt_node_position", "Last durable position", self._log.position)
        yield GaugeMetricFamily("kt_node_storage_bytes", "Bytes on disk", self._size())
        yield CounterMetricFamily("kt_node_appends", "Appends written", counts.appends)
        yield CounterMetricFamily("kt_node_appended_events", "Events written", counts.events)
        yield CounterMetricFamily("kt_node_appended_bytes", "Bytes of events written", counts.bytes)
        yield from self._calls()
        yield from self._group_figures()

    def _calls(self) -> Iterator[Metric]:
        opened = GaugeMetricFamily(
            "kt_node_open_calls",
            "Calls under way; Streams.Subscribe: catch-up subscriptions",
            labels=("call",),
        )
        sent = CounterMetricFamily("kt_node_sent_messages", "Answers sent, by call", labels=("call",))
        size = CounterMetricFamily("kt_node_sent_bytes", "Bytes of answers sent, by call", labels=("call",))
        ended = CounterMetricFamily("kt_node_calls", "Calls that ended, by status", labels=("call", "status"))
        for kind, traffic in self._counts.calls.items():
            opened.add_metric((kind,), traffic.open)
            sent.add_metric((kind,), traffic.messages)
            size.add_metric((kind,), traffic.bytes)
            for status, count in traffic.ended.items():
                ended.add_metric((kind, status), count)
        yield from (opened, sent, size, ended)

    def _group_figures(self) -> Iterator[Metric]:
        labels = ("stream", "group")
        consumers = GaugeMetricFamily("kt_node_group_consumers", "Consumers connected", labels=labels)
        lag = GaugeMetricFamily(
            "kt_node_group_lag", "Events (in $all: positions) behind the checkpoint", labels=labels
        )
        flying = GaugeMetricFamily("kt_node_group_in_flight", "Delivered, not acknowledged", labels=labels)
        parked = GaugeMetricFamily("kt_node_group_parked", "Messages parked", labels=labels)
        for runner in self._groups.all():
            named = (runner.stream, runner.name)
            of_all = runner.stream == ALL_NAME
            end = self._log.position if of_all else self._log.head(runner.stream).last
            consumers.add_metric(named, len(runner.group.consumers))
            lag.add_metric(named, max(0, end + 1 - runner.group.progress.checkpoint))
            flying.add_metric(named, runner.group.in_flight)
            parked.add_metric(named, runner.parked_count)
        yield from (consumers, lag, flying, parked)
