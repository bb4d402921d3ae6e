"""The witness as a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from kt_es.process.exposition import Samples, exposed
from kt_es.process.signals import Failure, Reload, Reloaded, reloading
from kt_es.process.tls import both_or_none
from kt_es.server.clients import Clients, HttpConnections
from kt_es.server.limits import ClientLimits, room_for_connections
from kt_es.server.listening import Exchangeable, http_server, listening_at, url_of
from kt_es.server.slots import Slots
from kt_es.witness.app import create_witness_app
from kt_es.witness.judging import Logs
from kt_es.witness.state import opened
from kt_es.witness.witness import Witness

THREADS: Final = 4
LIMITS: Final = ClientLimits(connections=512, address_connections=16, network_connections=64)

_LOG = structlog.get_logger("witness")


@dataclass(frozen=True, slots=True)
class WitnessSettings:
    """``name`` may be None for a folder that has a witness. ``logs`` are those that it cosigns."""

    data: Path
    name: str | None
    logs: Logs
    host: str = "127.0.0.1"
    port: int = 7380
    limits: ClientLimits = LIMITS
    metrics: tuple[str, int] | None = None  # host and port to serve metrics at
    tls_cert: Path | None = None
    tls_key: Path | None = None
    ml_dsa: bool = False  # adds a key of ML-DSA-44


def serve(
    settings: WitnessSettings,
    stop: threading.Event,
    reread: Callable[[], WitnessSettings] | None = None,
    on_ready: Callable[[str], None] = lambda _: None,
    *,
    now: Callable[[], float] = time.time,
) -> None:
    """Answer until ``stop``. After each SIGHUP ``reread`` gives the logs and the certificate.

    Args:
        on_ready: Called with the URL once the witness listens.
        now: The wall clock in seconds.

    Raises:
        ConfigError, LockedError: A setting, a file or the folder cannot be used.
        DivergenceError: The memory of the witness is damaged.
    """
    samples, failure = Samples(), Failure(stop)
    results = samples.counter("kt_witness_answers", "Requests to the witness, by result", "result")
    seconds = samples.histogram("kt_request_seconds", "Time to answer", "route")
    refused = samples.counter("kt_refused", "Connections and requests refused or ended, by reason", "why")
    files = both_or_none(settings.tls_cert, settings.tls_key)
    tls = None if files is None else Exchangeable(*files)
    with ExitStack() as stack:
        identity = stack.enter_context(opened(settings.data, settings.name, ml_dsa=settings.ml_dsa))
        witness = Witness(identity, settings.logs, now)
        samples.gauge("kt_witness_logs", "Logs that the witness knows", lambda: len(witness.logs))
        if settings.metrics is not None:
            stack.enter_context(exposed(samples.registry, *settings.metrics))
        threads = stack.enter_context(ThreadPoolExecutor(THREADS, thread_name_prefix="witness"))
        clients = Clients(settings.limits)
        app = create_witness_app(witness, threads, Slots(clients, refused), results, seconds)
        connections = HttpConnections(clients, room_for_connections(settings.limits.connections), refused)
        listener = stack.enter_context(listening_at(settings.host, settings.port))
        url = url_of(settings.host, listener, "http" if tls is None else "https")

        def apply(before: WitnessSettings, new: WitnessSettings) -> Reloaded:
            files = both_or_none(new.tls_cert, new.tls_key)
            exchanged = tls is not None and files is not None and tls.exchange(*files)
            witness.logs = new.logs
            changed = ("logs",) if new.logs != before.logs else ()
            return Reloaded(changed + (("certificate",) if exchanged else ()))

        live = ("logs", "tls_cert", "tls_key")
        stack.enter_context(reloading(Reload(settings, reread, live, apply)))
        context = None if tls is None else tls.context
        stack.enter_context(http_server(app, connections, listener, failure, context))
        vkeys = [key.vkey for key in identity.keys]
        _LOG.info("serving", url=url, name=identity.name, vkeys=vkeys, logs=len(witness.logs))
        on_ready(url)
        while not stop.wait(1.0):
            pass
    if failure.error is not None:
        raise failure.error
    _LOG.info("stopped", name=identity.name)
