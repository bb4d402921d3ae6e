"""Serves metrics over HTTP for Prometheus, in separate threads, so that a busy process still answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    make_wsgi_app,
)

from kt_es.errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
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


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds without a request

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's name
        """Requests are not logged."""


@contextmanager
def answering(app: WSGIApplication, host: str, port: int) -> Iterator[int]:
    """Serve ``app`` at ``host`` and ``port`` in separate threads, and yield the port. 0 takes a free one.

    Raises ``ConfigError`` if the address cannot be listened on.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        server = make_server(host, port, app, _Server6 if family is socket.AF_INET6 else _Server, _Handler)
    except OSError as error:
        raise ConfigError(f"metrics: cannot listen on {host}:{port}: {error.strerror or error}") from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def exposed(
    registry: CollectorRegistry, host: str, port: int, app: WSGIApplication | None = None
) -> Iterator[int]:
    """Serve ``registry`` as ``answering`` does, and log where. ``app`` serves it among other pages."""
    with answering(app or make_wsgi_app(registry), host, port) as taken:
        where = f"[{host}]" if ":" in host else host
        _LOG.info("metrics", url=f"http://{where}:{taken}/metrics")
        yield taken
