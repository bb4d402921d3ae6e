"""``/metrics`` and ``/healthz`` over plain HTTP, on a port and in threads of their own.

The node's event loop computes both answers, so that a node that hangs is noticed: after ``PATIENCE`` seconds
without an answer the status is 503.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from kt_es.node.counts import Counts
from kt_es.node.groups.registry import Groups
from kt_es.node.store.log import NodeLog
from kt_es.node.store.streams import ALL_NAME
from kt_es.process.exposition import MEDIA_TYPE, answering

_TEXT = "text/plain; charset=utf-8"
PATIENCE = 5.0
Value = TypeVar("Value")


class MetricsPage:
    """The content of ``/metrics``. ``size`` gives the bytes on disk."""

    def __init__(self, counts: Counts, log: NodeLog, groups: Groups, size: Callable[[], int]) -> None:
        self._counts = counts
        self._log = log
        self._groups = groups
        self._size = size

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics: see ``prometheus_client.registry.Collector``."""
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


class HttpOps:
    """Serves in the background from ``start`` to ``close``.

    ``render`` gives the page of metrics; ``problem`` gives why the node is unhealthy, or "". Both run on
    ``loop``.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, render: Callable[[], bytes], problem: Callable[[], str]
    ) -> None:
        self._loop = loop
        self._render = render
        self._problem = problem
        self._serving = ExitStack()

    def start(self, host: str, port: int) -> str:
        """Listen; returns "host:port". Raises ``ConfigError`` if the address cannot be listened on."""
        return f"{host}:{self._serving.enter_context(answering(self._answer, host, port))}"

    def close(self) -> None:
        self._serving.close()

    def _answer(self, request: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        status, kind, body = self._page(request["PATH_INFO"], request["REQUEST_METHOD"])
        respond(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [] if request["REQUEST_METHOD"] == "HEAD" else [body]

    def _page(self, path: str, method: str) -> tuple[str, str, bytes]:
        if path not in {"/metrics", "/healthz"}:
            return "404 Not Found", _TEXT, b"/metrics and /healthz are here\n"
        if method not in {"GET", "HEAD"}:
            return "405 Method Not Allowed", _TEXT, b"GET\n"
        try:
            if path == "/metrics":
                return "200 OK", MEDIA_TYPE, self._on_loop(self._render)
            problem = self._on_loop(self._problem)
        except (TimeoutError, RuntimeError):  # RuntimeError: the loop is closed
            problem = f"the node did not answer within {PATIENCE:.0f} s"
        if problem:
            return "503 Service Unavailable", _TEXT, f"{problem}\n".encode()
        return "200 OK", _TEXT, b"ok\n"

    def _on_loop(self, ask: Callable[[], Value]) -> Value:
        answer: Future[Value] = Future()

        def run() -> None:
            try:
                answer.set_result(ask())
            except Exception as error:  # noqa: BLE001  raised again in the thread that waits
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return answer.result(PATIENCE)
