"""The front end as a process: its data directory, its keys, its service and the HTTP server over it.

A divergence or a VRF key of another directory stops it: ``serve`` raises the error. A log that was rolled
back, or that holds another signed head, does not: the front end answers 503 and ``/readyz`` says why, until
somebody has looked at the log and restarts the process.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import structlog

from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import KtError, UnavailableError
from kt_es.eventstore.connecting import Connector
from kt_es.eventstore.streams import StreamNames
from kt_es.extras import require
from kt_es.formats.entries import PublicKey
from kt_es.ledger.anchor import check_commit
from kt_es.ledger.convicting import warn_if_unsavable
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.pages import CACHE_BYTES
from kt_es.ledger.stores import Sharing, opened_ledger
from kt_es.process.clock import wall_clock
from kt_es.process.files import read_key
from kt_es.process.outage import Outage
from kt_es.process.signals import Failure, Reload, Reloaded, differing, reloading
from kt_es.process.tls import both_or_none
from kt_es.server.availability import MAX_BACKLOG
from kt_es.server.clients import HttpConnections
from kt_es.server.cosigning import NOBODY, Cosigners
from kt_es.server.limits import DEFAULT_LIMITS, ClientLimits, room_for_connections
from kt_es.server.listening import Exchangeable, http_server, listening_at, url_of
from kt_es.server.registration.gate import OPEN_WARNING, exposed
from kt_es.server.registration.settings import ANYBODY, RegistrationSettings
from projections.followed import FollowedReplica
from projections.service import FrontendService

if TYPE_CHECKING:
    from kt_es.server.grpc.listening import GrpcServer

_LOG = structlog.get_logger("kt_es.server")
GRPC = "gRPC (--grpc-port, grpc_port in kt.toml)"
LIVE = ("max_backlog", "limits", "tls_cert", "tls_key", "registration")


@dataclass(frozen=True, slots=True)
class FrontendSettings:
    """``signer_key`` is any signer key of the directory, ``log`` a connection string (``esdb://...``).

    ``data`` is the directory of the replica. With ``sharing`` there is no replica, and ``data`` gets only
    evidence. ``vrf_key`` is a PEM file. Port 0 takes a free port. Submissions are refused while more than
    ``max_backlog`` items wait. With the PEM files ``tls_cert`` and ``tls_key``, HTTPS is served. For more
    than one of ``workers``, use ``workers.serve_by_workers``.
    With ``grpc_port``, gRPC is served as well, on the same host and with the same certificate.
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
    grpc_port: int | None = None
    sharing: Sharing | None = None
    workers: int = 1
    registration: RegistrationSettings = ANYBODY
    cosigners: Cosigners = NOBODY


def serve(
    settings: FrontendSettings,
    stop: threading.Event,
    reread: Callable[[], FrontendSettings] | None = None,
    on_ready: Callable[[str], None] = lambda _: None,
    *,
    now: Callable[[], int] = wall_clock,
) -> None:
    """Serve until ``stop``; while the disk is full, wait for space.

    The front end also starts while its shared store cannot be used: ``/readyz`` says so, and lookups get 503.

    Args:
        settings: The settings at the start.
        stop: Ends the call.
        on_ready: Called with the URL once the front end listens.
        reread: Returns the new settings after each SIGHUP. Their limits and certificate are then in force.
        now: The wall clock in ms.

    Raises:
        ConfigError, LockedError: A setting, a file or the data directory cannot be used.
        DivergenceError: The log or the data directory differs from what the signed heads say.
        KtError: A thread failed. If the front end answered 503 instead of stopping, the reason is raised once
            ``stop`` is set.
    """
    failure = Failure(stop)
    vrf, tls, connect_log = inputs_of(settings)
    sharing = settings.sharing
    data = settings.data if sharing is None else None
    if sharing is not None:
        warn_if_unsavable(settings.data)
    where = data, sharing, settings.origin, settings.signer_key
    with ExitStack() as stack:
        opening = opened_ledger(*where, stop=stop, outage=Outage("storage", _LOG), answers=True)
        ledger = stack.enter_context(opening)
        if ledger is None:
            return
        # The replica checks as well, but only once the log can be reached.
        check_commit(ledger)
        service = answering(settings, ledger, vrf, connect_log, failure, data=settings.data, now=now)
        listener = stack.enter_context(listening_at(settings.host, settings.port))
        url = url_of(settings.host, listener, "http" if tls is None else "https")
        also = grpc_server(settings, service)
        stack.enter_context(
            serving(
                settings, service, tls, failure, listener, reload=Reload(settings, reread, LIVE), also=also
            )
        )
        grpc = {} if also is None else {"grpc": also.bound}
        _LOG.info("serving", url=url, **grpc, directory=settings.directory, epoch=ledger.committed.epoch)
        warn_if_open(settings.host, service.registration.is_open)
        on_ready(url)
        # Now and then, because a signal just before the wait begins would not end it.
        while not stop.wait(1.0):
            pass
        service.release_waiting()
    if (error := failure.error or service.directory.failure) is not None:
        raise error
    _LOG.info("stopped", directory=settings.directory)


def answering(
    settings: FrontendSettings,
    ledger: Ledger,
    vrf: VrfPrivateKey,
    connect_log: Connector,
    failed: Callable[[KtError], None],
    *,
    data: Path | None,
    now: Callable[[], int] = wall_clock,
    followed: FollowedReplica | None = None,
) -> FrontendService:
    """Compose the service of a process that answers clients. ``data`` is as in ``FrontendService``."""
    sharing = settings.sharing
    return FrontendService(
        ledger,
        StreamNames(settings.directory),
        vrf,
        connect_log,
        failed,
        data=data,
        max_backlog=settings.max_backlog,
        limits=settings.limits,
        openings_bytes=(CACHE_BYTES if sharing is None else sharing.cache) // 4,
        keyspace="" if sharing is None else sharing.cassandra.keyspace,
        registration=settings.registration,
        mail_limits=settings.data,
        exposed=exposed(settings.host),
        cosigners=settings.cosigners,
        now=now,
        followed=followed,
    )


def warn_if_open(host: str, is_open: bool) -> None:
    """Say so if anybody may register labels from other machines."""
    if is_open and exposed(host):
        _LOG.warning(OPEN_WARNING, listen=host)


def inputs_of(settings: FrontendSettings) -> tuple[VrfPrivateKey, Exchangeable | None, Connector]:
    """Read the key files and check the connection string. The log is not called: lookups do not need it."""
    vrf = read_key(settings.vrf_key, "the VRF key", VrfPrivateKey.from_pem)
    files = both_or_none(settings.tls_cert, settings.tls_key)
    tls = None if files is None else Exchangeable(*files)
    connect_log = Connector(settings.log)
    with suppress(UnavailableError):
        connect_log().close()
    return vrf, tls, connect_log


@contextmanager
def serving(
    settings: FrontendSettings,
    service: FrontendService,
    tls: Exchangeable | None,
    failed: Callable[[KtError], None],
    listener: socket.socket,
    *,
    reload: Reload[FrontendSettings],
    hangups: SimpleQueue[bool] | None = None,
    beside: Callable[[asyncio.AbstractEventLoop, HttpConnections], None] = lambda *_: None,
    also: GrpcServer | None = None,
) -> Iterator[None]:
    """Run ``service`` and the HTTP server over it.

    Args:
        settings: The settings at the start. ``connections`` are those that this process may have.
        service: The service, which has not started.
        tls: The certificate; None serves HTTP.
        failed: Called with the error that ends the server.
        listener: A socket that listens, or a door (``handing``).
        reload: Reads the settings again; how they come into force is set here.
        hangups: Asks for a reload, by default each SIGHUP.
        beside: Called when the event loop of the server begins, in its thread.
        also: Serves gRPC on the same event loop.
    """
    room = _room(settings)
    connections = HttpConnections(service.clients, room, service.metrics.refused)
    if tls is not None:
        service.metrics.certificate(tls.until)
    reload.apply = partial(_applied, service, connections, (tls, also))
    with ExitStack() as stack:
        service.start()
        stack.callback(service.stop)
        stack.enter_context(reloading(reload) if hangups is None else reloading(reload, hangups))
        context = None if tls is None else tls.context
        serving = http_server(
            service.app,
            connections,
            listener,
            failed,
            context,
            beside=lambda loop: beside(loop, connections),
            also=also,
        )
        stack.enter_context(serving)
        yield


def grpc_server(settings: FrontendSettings, service: FrontendService) -> GrpcServer | None:
    """Return a gRPC server for ``service``, None if no port is set. Raises ``ConfigError`` without the extra.

    With more than one of ``workers`` the port is one that ``reserved_port`` keeps for all of them.
    """
    if settings.grpc_port is None:
        return None
    require("grpc", GRPC)
    from kt_es.server.grpc.listening import GrpcServer

    files = both_or_none(settings.tls_cert, settings.tls_key)
    where = settings.host, settings.grpc_port
    room, shared = _room(settings), settings.workers > 1
    return GrpcServer(service.frontend, service.feed, *where, room=room, files=files, shared=shared)


def _room(settings: FrontendSettings) -> int:
    """Return the number of connections that there may be at a time, to each server."""
    servers = 1 if settings.grpc_port is None else 2
    return room_for_connections(servers * settings.limits.connections) // servers


def _applied(
    service: FrontendService,
    connections: HttpConnections,
    serving: tuple[Exchangeable | None, GrpcServer | None],
    before: FrontendSettings,
    new: FrontendSettings,
) -> Reloaded:
    """Bring new limits and a new certificate into force, as far as connections that are open allow it.

    Raises ``ConfigError`` for files that cannot be used; then nothing has changed.
    """
    tls, beside = serving
    files = both_or_none(new.tls_cert, new.tls_key)
    exchanged = tls is not None and files is not None and tls.exchange(*files)
    if beside is not None and files is not None:
        beside.exchange(*files)
    # Open connections are counted by these two, so they hold until all connections have ended.
    counted = service.clients.limits
    limits = replace(new.limits, exempt=counted.exempt, proxies=counted.proxies)
    service.registration.renew(new.registration)
    service.limit(new.max_backlog, limits)
    connections.limit(_room(replace(before, limits=limits)))
    changed: tuple[str, ...] = ("max_backlog",) if new.max_backlog != before.max_backlog else ()
    changed += differing(before.limits, new.limits, but=("exempt", "proxies"))
    changed += ("certificate",) if exchanged else ()
    changed += ("registration",) if new.registration != before.registration else ()
    warn_if_open(new.host, service.registration.is_open)
    fixed = differing(limits, new.limits)
    fixed += ("tls_cert",) if (files is None) != (tls is None) else ()
    return Reloaded(changed, fixed)
