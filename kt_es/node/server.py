"""The node as a server: opens the data, serves the protocol, stops cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import grpc.aio
import structlog
import uvloop

from kt_es.errors import ConfigError, KtError
from kt_es.eventstore.driver import gossip_pb2, persistent_pb2, streams_pb2
from kt_es.node.access.exposure import check_exposure, server_credentials
from kt_es.node.access.logins import Logins
from kt_es.node.counts import Counts
from kt_es.node.groups.registry import Groups
from kt_es.node.ops.files import possible
from kt_es.node.ops.limits import Limits
from kt_es.node.ops.metrics import CountingStorage
from kt_es.node.ops.upkeep import Upkeep
from kt_es.node.rpc.gate import Access
from kt_es.node.rpc.misc import Gossip, supported_methods
from kt_es.node.rpc.persistent import PersistentSubscriptions
from kt_es.node.rpc.registration import Calls, register, register_raw
from kt_es.node.rpc.streams import Streams
from kt_es.node.store.database import NoSpaceError, StorageError
from kt_es.node.store.log import EventLog
from kt_es.node.store.outage import PAUSE
from kt_es.node.store.storage import RocksStorage
from kt_es.process.hangups import Reloaded, differing, reloading
from kt_es.process.tls import both_or_none

_LOG = structlog.get_logger("kt_es.node")
_SERVICES = (
    streams_pb2.DESCRIPTOR.services_by_name["Streams"],
    persistent_pb2.DESCRIPTOR.services_by_name["PersistentSubscriptions"],
    gossip_pb2.DESCRIPTOR.services_by_name["Gossip"],
)
_WINDOW = 64 << 10  # gRPC's own
_FEATURES = "event_store.client.server_features.ServerFeatures"


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How a node is run.

    ``port`` 0 takes a free one.
    ``tls_cert`` and ``tls_key`` are PEM files. With them, or once ``data`` has a file of users, only
    those who log in have rights; ``anonymous`` counts everybody else as a user without groups.
    ``http``: host and port for metrics and health.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 2113
    tls_cert: Path | None = None
    tls_key: Path | None = None
    anonymous: bool = False
    http: tuple[str, int] | None = None
    limits: Limits = field(default_factory=Limits)


# Limits that SIGHUP changes; the others belong to gRPC, which takes them at the start only.
_RELOADED = ("max_append", "max_calls", "max_groups")


def _channel_options(limits: Limits) -> list[tuple[str, int]]:
    keepalive = int(limits.keepalive * 1000)
    return [
        ("grpc.keepalive_time_ms", keepalive),
        ("grpc.keepalive_timeout_ms", keepalive),
        # What really ends a connection whose peer is frozen; the default is a minute.
        ("grpc.http2.ping_timeout_ms", keepalive),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 0),
        ("grpc.max_receive_message_length", limits.max_message),
        ("grpc.so_reuseport", 0),
        # A window for a whole append at once; probing for one costs both sides a ping for each message.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", max(limits.max_append, _WINDOW)),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.max_metadata_size", limits.max_metadata),
        ("grpc.absolute_max_metadata_size", limits.max_metadata),
    ]


class _Running:
    """One node on one event loop, from open to closed."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = self._started = config
        self._max_message = config.limits.max_message
        self.failure: StorageError | None = None
        self._stop = asyncio.Event()
        # Before the data are opened: what is wrong here is told without touching them.
        self._tls = server_credentials(config.tls_cert, config.tls_key)
        logins = Logins(config.data, config.anonymous)
        check_exposure(config.host, self._tls is not None, logins.exist, config.anonymous)
        self._counts = Counts()
        self.log, storage = self._open(asyncio.get_running_loop())
        self.groups = Groups(self.log, config.limits.max_groups)
        self._server = grpc.aio.server(options=_channel_options(config.limits))
        self._calls = calls = Calls(config.limits.max_calls)
        self._access = access = Access(self.log, logins, self._tls is not None)
        self._streams = streams = Streams(self.log, config.limits.max_append, access)
        groups = PersistentSubscriptions(self.log, self.groups)
        register(self._server, streams, _SERVICES[0], access, counts=self._counts, calls=calls)
        register(self._server, groups, _SERVICES[1], access, counts=self._counts, calls=calls)
        self._upkeep = Upkeep(storage, self.log, self.groups, self._counts)
        register_raw(self._server, _FEATURES, "GetSupportedMethods", supported_methods(_SERVICES))

    def _open(self, loop: asyncio.AbstractEventLoop) -> tuple[EventLog, RocksStorage]:
        def damaged(error: StorageError) -> None:
            # From whatever thread reads.
            loop.call_soon_threadsafe(self._damaged, error)

        storage = RocksStorage(self.config.data, damaged)
        try:
            log = EventLog(CountingStorage(storage, self._counts), time.time, self._failed)
        except KtError:
            storage.close()
            raise
        if storage.full is not None:
            log.outage.begin(storage.full)
        return log, storage

    def _damaged(self, error: StorageError) -> None:
        if self.failure is None:
            _LOG.critical("data cannot be read; stopping", reason=str(error))
            self._failed(error)

    def _failed(self, error: StorageError) -> None:
        self.failure = self.failure or error
        self.stop()

    def stop(self) -> None:
        """Begin to stop."""
        self._stop.set()

    def reload(self, new: NodeConfig) -> Reloaded:
        """Serve the certificate and keep the limits of ``new``, as far as a running node can. Any thread.

        Raises:
            ConfigError: they cannot be used; everything is as it was.
        """
        limits, before = new.limits, self.config.limits
        if limits.max_append > self._max_message:
            raise ConfigError(
                f"max-append {limits.max_append} is more than the max-message {self._max_message} "
                f"that this node was started with: restart it"
            )
        files = both_or_none(new.tls_cert, new.tls_key)
        exchanged = self._tls is not None and files is not None and self._tls.exchange(*files)
        self._streams.limit(limits.max_append)
        self._calls.limit = limits.max_calls
        self.groups.limit = limits.max_groups
        changed = tuple(name for name in differing(before, limits) if name in _RELOADED)
        fixed = differing(self._started, new, but=("limits", "tls_cert", "tls_key"))
        fixed += differing(self._started.limits, limits, but=_RELOADED)
        if (files is None) != (self._tls is None):
            fixed += ("tls_cert",)
        self.config = new
        return Reloaded((*changed, *(("certificate",) if exchanged else ())), fixed)

    async def listen(self) -> str:
        """Start serving; returns "host:port".

        Raises:
            ConfigError: the address cannot be listened on.
        """
        address = f"{self.config.host}:{self.config.port}"
        _check_address(self.config)
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._tls.server)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {address}: {error}") from None
        gossip = Gossip(uuid4(), self.config.host, port)
        register(self._server, gossip, _SERVICES[2], self._access, counts=self._counts, calls=self._calls)
        await self._upkeep.start(self.config.http)
        await self._server.start()
        _LOG.info(
            "serving",
            address=f"{self.config.host}:{port}",
            position=self.log.position,
            streams=self.log.streams,
            last_event=_when(self.log.last_created),
            groups=len(self.groups.all()),
            tls=self._tls is not None,
            open=self._access.open,
        )
        return f"{self.config.host}:{port}"

    async def until_stopped(self) -> None:
        """Wait for ``stop`` or a failure."""
        await self._stop.wait()

    async def close(self) -> None:
        """End open calls, commit what is queued, close the data."""
        await self._server.stop(0.2)
        await self._upkeep.close()
        await self.groups.close()
        await self.log.close()


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _check_address(config: NodeConfig) -> None:
    """Ask the operating system first: gRPC says why it cannot listen in its own log only."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        with socket.create_server((config.host.strip("[]"), config.port), family=family):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigError(f"cannot listen on {config.host}:{config.port}: {reason}") from None


async def _opened(config: NodeConfig) -> _Running:
    """A node with its data open. Where the disk is too full even for that, it waits."""
    has_said = False
    while True:
        try:
            return _Running(config)
        except NoSpaceError as error:
            if not has_said:
                has_said = True
                reason = str(error.__cause__ or error)
                _LOG.error("the disk is full: the node waits for space to start", reason=reason)
        await asyncio.sleep(PAUSE)


async def _serve(config: NodeConfig, started: Callable[[str, _Running], None]) -> None:
    running = await _opened(config)
    try:
        address = await running.listen()
        started(address, running)
        await running.until_stopped()
    finally:
        await running.close()
    if running.failure is not None:
        raise KtError(f"the node stopped: {running.failure}") from running.failure
    _LOG.info("stopped", position=running.log.position)


def run(
    config: NodeConfig,
    on_ready: Callable[[str], None] | None = None,
    reread: Callable[[], NodeConfig] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; ``on_ready`` gets "host:port" once the node listens.

    After each SIGHUP ``reread`` gives the config anew, for the certificate and the limits.

    Raises:
        LockedError: another process holds the data directory.
        ConfigError: the directory or the address cannot be used.
        KtError: the disk refused a write, and the node stopped. A full disk does not stop it.
    """
    # The thread that syncs must get the GIL back at once; the default lets others keep it for 5 ms.
    sys.setswitchinterval(0.0005)

    again = reread or (lambda: config)
    reloads = contextlib.ExitStack()

    def started(address: str, running: _Running) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, running.stop)
        reloads.enter_context(reloading(lambda: running.reload(with_possible(again()))))
        if on_ready is not None:
            on_ready(address)

    def with_possible(wanted: NodeConfig) -> NodeConfig:
        return replace(wanted, limits=possible(wanted.limits))

    with reloads:
        uvloop.run(_serve(with_possible(config), started))


class Node:
    """A node in a thread of this process, as a context manager. ``address`` is "host:port"."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.address = ""
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="kt-node", daemon=True)

    def _run(self) -> None:
        try:
            uvloop.run(_serve(self.config, self._started))
        except BaseException as error:  # noqa: BLE001  handed to whoever starts or stops the node
            self._error = error
        finally:
            self._ready.set()

    def _started(self, address: str, running: _Running) -> None:
        self.address = address
        self._loop = asyncio.get_running_loop()
        self._stop = running.stop
        self._ready.set()

    def start(self) -> Node:
        """Returns once the node listens; raises what ``run`` would."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self

    def stop(self) -> None:
        """Returns once the data is closed; raises if the node had failed."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the node has stopped already
                self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Node:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def with_port(config: NodeConfig, address: str) -> NodeConfig:
    """``config`` with the host and port of "host:port".

    Raises:
        ConfigError: it is not of that form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{address!r} is not HOST:PORT")
    return replace(config, host=host, port=int(port))
