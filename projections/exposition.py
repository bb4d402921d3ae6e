"""Figures over HTTP for Prometheus, from threads of their own: a process that works still answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_wsgi_server

from kt_es.errors import ConfigError


@contextmanager
def exposed(registry: CollectorRegistry, host: str, port: int) -> Iterator[int]:
    """Serve ``registry`` at an address; the port, a free one for 0. ``ConfigError`` if it is in use."""
    try:
        server, thread = start_wsgi_server(port, host, registry)
    except OSError as error:
        raise ConfigError(f"metrics: cannot listen on {host}:{port}: {error.strerror or error}") from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
