"""The front end as a process: everything put together, served until it is told to stop.

It stops by itself where it must not go on: a divergence, a VRF key of another directory. ``serve`` then
raises that error, for one clear line and the exit code.

A log that was rolled back, or that holds another signed head, does not end it: it answers 503 and
``/readyz`` says why, until somebody has looked and restarts it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import KtError, UnavailableError
from kt_es.eventstore.connecting import Connector
from kt_es.eventstore.streams import StreamNames
from kt_es.formats.entries import PublicKey
from kt_es.ledger.anchor import check_commit
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.rocks import open_patiently
from kt_es.ledger.tables import FAMILIES
from kt_es.process.files import read_key
from kt_es.process.outage import Outage
from kt_es.process.signals import Reloaded, differing, reloading
from kt_es.process.tls import both_or_none
from kt_es.server.availability import MAX_BACKLOG
from kt_es.server.clients import HttpConnections
from kt_es.server.limits import DEFAULT_LIMITS, ClientLimits, room_for_connections
from kt_es.server.listening import Exchangeable, http_server, listening_at, url_of
from projections.service import FrontendService, wall_clock

_LOG = structlog.get_logger("kt_es.server")


@dataclass(frozen=True, slots=True)
class FrontendSettings:
    """What a front end is started with.

    ``signer_key`` is the pinned key, any signer key of the directory. ``log`` is a connection
    string (``esdb://...``), ``data`` the directory of the replica, ``vrf_key`` a file as ``keys`` has it.
    ``port`` 0 takes a free one. Submissions are refused while more than ``max_backlog`` items wait.
    ``tls_cert`` and ``tls_key`` are PEM files; with them, HTTPS is served.
    """

    origin: str
    directory: str
    signer_key: PublicKey
    log: str
    data: Path
    vrf_key: Path
    host: str = "127.0.0.1"
    port: int = 8080
    max_backlog: int = MAX_BACKLOG
    limits: ClientLimits = DEFAULT_LIMITS
    tls_cert: Path | None = None
    tls_key: Path | None = None


# What SIGHUP changes while a front end serves.
_LIMITS = ("max_backlog", "limits")
# Connections are counted by these two, so they hold until all have ended.
_COUNTED_BY = ("exempt", "proxies")
_TLS = ("tls_cert", "tls_key")


def serve(
    settings: FrontendSettings,
    stop: threading.Event,
    on_ready: Callable[[str], None] = lambda _: None,
    reread: Callable[[], FrontendSettings] | None = None,
    now: Callable[[], int] = wall_clock,
) -> None:
    """Serve until ``stop``; ``on_ready`` gets the URL.

    After each SIGHUP ``reread`` gives the settings anew: limits and certificate hold from then on.

    Raises ``ConfigError`` for unusable settings, ``LockedError`` for a data directory in use, and
    ``DivergenceError``, ``ConfigError`` or another ``KtError`` for what made it stop by itself. Where it
    stopped serving and stayed up, the reason is raised when it is told to stop.
    """
    errors: list[KtError] = []

    def failed(error: KtError) -> None:
        errors.append(error)
        stop.set()

    vrf = read_key(settings.vrf_key, "the VRF key", VrfPrivateKey.from_pem)
    files = both_or_none(settings.tls_cert, settings.tls_key)
    tls = None if files is None else Exchangeable(*files)
    connect_log = Connector(settings.log)
    _check_connection_string(connect_log)
    names = StreamNames(settings.directory)
    with ExitStack() as stack:
        store = open_patiently(settings.data, FAMILIES, stop, Outage("storage", _LOG))
        if store is None:
            return
        stack.callback(store.close)
        ledger = Ledger(store, settings.origin, settings.signer_key)
        # The replica checks as well, but only once the log can be reached.
        check_commit(ledger)
        service = FrontendService(
            ledger,
            names,
            vrf,
            connect_log,
            failed,
            data=settings.data,
            max_backlog=settings.max_backlog,
            limits=settings.limits,
            now=now,
        )
        connections = HttpConnections(
            service.clients,
            room_for_connections(settings.limits.connections),
            service.metrics.refused,
        )
        listener = stack.enter_context(listening_at(settings.host, settings.port))
        service.start()
        stack.callback(service.stop)
        if tls is not None:
            service.metrics.certificate(tls.until)
        again = reread or (lambda: settings)
        stack.enter_context(reloading(_Reloading(settings, again, service, connections, tls)))
        context = None if tls is None else tls.context
        with http_server(service.app, connections, listener, failed, context):
            url = url_of(settings.host, listener, "http" if tls is None else "https")
            _LOG.info("serving", url=url, directory=settings.directory, epoch=ledger.committed.epoch)
            on_ready(url)
            # Now and then, because a signal just before the wait begins would not end it.
            while not stop.wait(1.0):
                pass
            service.release_waiting()
    failure = errors[0] if errors else service.directory.failure
    if failure is not None:
        raise failure
    _LOG.info("stopped", directory=settings.directory)


class _Reloading:
    """Brings what is read again into force, as far as that is possible while connections are served."""

    def __init__(
        self,
        started: FrontendSettings,
        reread: Callable[[], FrontendSettings],
        service: FrontendService,
        connections: HttpConnections,
        tls: Exchangeable | None,
    ) -> None:
        self._started = self._now = started
        self._reread = reread
        self._service = service
        self._connections = connections
        self._tls = tls

    def __call__(self) -> Reloaded:
        """Raises ``ConfigError``, with everything as it was, for settings or files that cannot be used."""
        new = self._reread()
        files = both_or_none(new.tls_cert, new.tls_key)
        exchanged = self._tls is not None and files is not None and self._tls.exchange(*files)
        before = self._started.limits
        fixed = differing(self._started, new, but=(*_LIMITS, *_TLS))
        fixed += tuple(name for name in differing(before, new.limits) if name in _COUNTED_BY)
        limits = replace(new.limits, exempt=before.exempt, proxies=before.proxies)
        new = replace(new, limits=limits)
        self._service.limit(new.max_backlog, new.limits)
        self._connections.limit(room_for_connections(limits.connections))
        if (files is None) != (self._tls is None):
            fixed += ("tls_cert",)
        changed = tuple(name for name in differing(self._now, new) if name == "max_backlog")
        changed += differing(self._now.limits, limits)
        self._now = new
        return Reloaded((*changed, *(("certificate",) if exchanged else ())), fixed)


def _check_connection_string(connect_log: Connector) -> None:
    # The log itself may be away: lookups go on without it.
    with suppress(UnavailableError):
        connect_log().close()
