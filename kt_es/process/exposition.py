"""Serves metrics over HTTP for Prometheus, in separate threads, so that a busy process still answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_wsgi_server,
)

from kt_es.errors import ConfigError

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

_LOG = structlog.get_logger("kt_es.process.exposition")


class Samples:
    """The registry of a process, and the metrics in it.

    A new registry holds the standard metrics of the process (Linux only). The start time shows restarts.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

    def counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(name, help_, labels, registry=self.registry)

    def gauge(
        self, name: str, help_: str, value: Callable[[], float] | None = None, *, labels: Sequence[str] = ()
    ) -> Gauge:
        """Add a gauge. The threads that answer scrapes call ``value``; without it the caller sets values."""
        gauge = Gauge(name, help_, labels, registry=self.registry)
        if value is not None:
            gauge.set_function(value)
        return gauge

    def histogram(
        self, name: str, help_: str, *labels: str, buckets: tuple[float, ...] = SECONDS
    ) -> Histogram:
        return Histogram(name, help_, labels, buckets=buckets, registry=self.registry)


@contextmanager
def exposed(registry: CollectorRegistry, host: str, port: int) -> Iterator[int]:
    """Serve ``registry`` at ``host`` and ``port``, and yield the port. Port 0 takes a free port.

    Raises ``ConfigError``.
    """
    try:
        server, thread = start_wsgi_server(port, host, registry)
    except OSError as error:
        raise ConfigError(f"metrics: cannot listen on {host}:{port}: {error.strerror or error}") from None
    where = f"[{host}]" if ":" in host else host
    _LOG.info("metrics", url=f"http://{where}:{server.server_port}/metrics")
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
