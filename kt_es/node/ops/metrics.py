"""The node's page for Prometheus. It names no streams except those of persistent subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from kt_es.node.counts import Counts
from kt_es.node.groups.registry import Groups
from kt_es.node.store.log import NodeLog
from kt_es.node.store.streams import ALL_NAME

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsPage:
    """The content of ``/metrics``. ``size`` gives the bytes on disk."""

    def __init__(self, counts: Counts, log: NodeLog, groups: Groups, size: Callable[[], int]) -> None:
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
        full = float(self._log.outage.is_on)
        yield GaugeMetricFamily("kt_node_disk_full", "1: the disk is full, and writes are refused", full)
        yield CounterMetricFamily("kt_node_appends", "Appends written", counts.appends)
        yield CounterMetricFamily("kt_node_appended_events", "Events written", counts.events)
        yield CounterMetricFamily("kt_node_appended_bytes", "Bytes of events written", counts.bytes)
        yield from self._calls()
        yield from self._group_metrics()

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

    def _group_metrics(self) -> Iterator[Metric]:
        labels = ("stream", "group")
        consumers = GaugeMetricFamily("kt_node_group_consumers", "Consumers connected", labels=labels)
        lag = GaugeMetricFamily(
            "kt_node_group_lag", "Events (in $all: positions) behind the checkpoint", labels=labels
        )
        in_flight = GaugeMetricFamily("kt_node_group_in_flight", "Delivered, not acknowledged", labels=labels)
        parked = GaugeMetricFamily("kt_node_group_parked", "Messages parked", labels=labels)
        for runner in self._groups.all():
            named = (runner.stream, runner.name)
            of_all = runner.stream == ALL_NAME
            end = self._log.position if of_all else self._log.head(runner.stream).last
            consumers.add_metric(named, len(runner.group.consumers))
            lag.add_metric(named, max(0, end + 1 - runner.group.progress.checkpoint))
            in_flight.add_metric(named, runner.group.in_flight)
            parked.add_metric(named, runner.parked.count)
        yield from (consumers, lag, in_flight, parked)
