"""The composition of a node: opens the data, serves the protocol, stops cleanly."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import grpc.aio
import structlog
import uvloop

from kt_es.errors import ConfigError, DiskFullError, KtError
from kt_es.node.access.logins import Logins, check_exposure, server_credentials
from kt_es.node.counts import Counts
from kt_es.node.groups.registry import Groups
from kt_es.node.limits import NodeLimits, possible
from kt_es.node.ops.control import Upkeep
from kt_es.node.protocol import gossip_pb2, persistent_pb2, streams_pb2
from kt_es.node.refusals import Quota, too_many_calls
from kt_es.node.rpc.gate import Access
from kt_es.node.rpc.persistent import PersistentSubscriptions
from kt_es.node.rpc.registration import Gossip, register, register_raw, supported_methods
from kt_es.node.rpc.streams import Streams
from kt_es.node.store.log import NodeLog
from kt_es.node.store.rocks import RocksStorage
from kt_es.node.store.storage import NoSpaceError, StorageError
from kt_es.process.clock import switch_threads_soon
from kt_es.process.outage import Outage, patiently
from kt_es.process.signals import Failure, Reload, Reloaded, differing, reloading
from kt_es.process.tls import both_or_none

_LOG = structlog.get_logger("kt_es.node")
_SERVICES = (
    streams_pb2.DESCRIPTOR.services_by_name["Streams"],
    persistent_pb2.DESCRIPTOR.services_by_name["PersistentSubscriptions"],
    gossip_pb2.DESCRIPTOR.services_by_name["Gossip"],
)
_WINDOW = 64 << 10  # bytes; the default of gRPC
_FEATURES = "event_store.client.server_features.ServerFeatures"


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How a node is run.

    Args:
        port: 0 takes a free port.
        tls_cert, tls_key: PEM files. With them, or once ``data`` has a file of users, only those who log in
            have rights.
        anonymous: Everybody else counts as a user without groups.
        http: Host and port for metrics and health.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 2113
    tls_cert: Path | None = None
    tls_key: Path | None = None
    anonymous: bool = False
    http: tuple[str, int] | None = None
    limits: NodeLimits = field(default_factory=NodeLimits)


# Limits that SIGHUP changes. The others belong to gRPC, which reads them at the start only.
_RELOADED = ("max_append", "max_calls", "max_groups")
_LIVE = ("limits", "tls_cert", "tls_key")
_TICK = 0.1  # seconds between two looks at the event that stops a node


def _channel_options(limits: NodeLimits) -> list[tuple[str, int]]:
    keepalive = int(limits.keepalive * 1000)
    return [
        ("grpc.keepalive_time_ms", keepalive),
        ("grpc.keepalive_timeout_ms", keepalive),
        # This ends a connection whose peer is frozen; the default is a minute.
        ("grpc.http2.ping_timeout_ms", keepalive),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 0),
        ("grpc.max_receive_message_length", limits.max_message),
        ("grpc.so_reuseport", 0),
        # A window for a whole append. Probing for the window costs both sides a ping for each message.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", max(limits.max_append, _WINDOW)),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.max_metadata_size", limits.max_metadata),
        ("grpc.absolute_max_metadata_size", limits.max_metadata),
    ]


class RunningNode:
    """One node on one event loop, from open to closed."""

    def __init__(self, config: NodeConfig, stop: threading.Event) -> None:
        self._started = config
        self.failure = Failure(stop)
        # Before the data are opened: faults of the configuration are reported without touching the data.
        self._tls = server_credentials(config.tls_cert, config.tls_key)
        logins = Logins(config.data, config.anonymous)
        check_exposure(config.host, self._tls is not None, logins.exist, config.anonymous)
        self._counts = Counts()
        self.log, storage = self._open(config.data)
        self.groups = Groups(self.log, config.limits.max_groups)
        self._server = grpc.aio.server(options=_channel_options(config.limits))
        self._calls = Quota(config.limits.max_calls, too_many_calls)
        self._access = access = Access(self.log, logins, self._tls is not None)
        self._streams = streams = Streams(self.log, config.limits.max_append, access)
        groups = PersistentSubscriptions(self.log, self.groups)
        self._register = partial(
            register, self._server, access=access, counts=self._counts, calls=self._calls
        )
        self._register(streams, _SERVICES[0])
        self._register(groups, _SERVICES[1])
        self._upkeep = Upkeep(storage, self.log, self.groups, self._counts)
        register_raw(self._server, _FEATURES, "GetSupportedMethods", supported_methods(_SERVICES))

    def _open(self, data: Path) -> tuple[NodeLog, RocksStorage]:
        # Damage is found on whatever thread reads.
        on_loop = asyncio.get_running_loop().call_soon_threadsafe
        storage = RocksStorage(data, lambda error: on_loop(self._damaged, error))
        try:
            log = NodeLog(storage, time.time, self.failure, self._counts.synced)
        except KtError:
            storage.close()
            raise
        if storage.full is not None:
            log.outage.begin(storage.full)
        return log, storage

    def _damaged(self, error: StorageError) -> None:
        if self.failure.error is None:
            _LOG.critical("data cannot be read; stopping", reason=str(error))
            self.failure(error)

    def reload(self, before: NodeConfig, new: NodeConfig) -> Reloaded:
        """Apply the certificate and the limits of ``new``, as far as a running node can. On any thread.

        Raises ``ConfigError`` if they cannot be used; everything is as it was.
        """
        limits, started = new.limits, self._started.limits
        if limits.max_append > started.max_message:
            raise ConfigError(
                f"max-append {limits.max_append} is more than the max-message {started.max_message} "
                f"that this node was started with: restart it"
            )
        files = both_or_none(new.tls_cert, new.tls_key)
        exchanged = self._tls is not None and files is not None and self._tls.exchange(*files)
        self._streams.limit(limits.max_append)
        self._calls.limit = limits.max_calls
        self.groups.limit = limits.max_groups
        changed = tuple(name for name in differing(before.limits, limits) if name in _RELOADED)
        fixed = differing(started, limits, but=_RELOADED)
        if (files is None) != (self._tls is None):
            fixed += ("tls_cert",)
        return Reloaded((*changed, *(("certificate",) if exchanged else ())), fixed)

    async def listen(self) -> str:
        """Start serving; returns "host:port". Raises ``ConfigError`` if the address cannot be listened on."""
        address = f"{self._started.host}:{self._started.port}"
        _check_address(self._started)
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._tls.server)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {address}: {error}") from None
        gossip = Gossip(self._started.host, port)
        self._register(gossip, _SERVICES[2])
        await self._upkeep.start(self._started.http)
        await self._server.start()
        _LOG.info(
            "serving",
            address=f"{self._started.host}:{port}",
            position=self.log.position,
            streams=self.log.streams,
            last_event=_when(self.log.last_created),
            groups=len(self.groups.all()),
            tls=self._tls is not None,
            open=self._access.open,
        )
        return f"{self._started.host}:{port}"

    async def close(self) -> None:
        """End open calls, commit what is queued, close the data."""
        await self._server.stop(0.2)
        await self._upkeep.close()
        await self.groups.close()
        await self.log.close()


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _check_address(config: NodeConfig) -> None:
    """Try to listen on the address first. If this fails, the error has the reason, which gRPC only logs."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        with socket.create_server((config.host.strip("[]"), config.port), family=family):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigError(f"cannot listen on {config.host}:{config.port}: {reason}") from None


def serve(
    config: NodeConfig,
    stop: threading.Event,
    reread: Callable[[], NodeConfig] | None = None,
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until ``stop``; while the disk is too full to open the data, wait for space.

    ``on_ready`` gets "host:port" once the node listens. After each SIGHUP ``reread`` returns the new config,
    and its limits and certificate are in force.

    Raises:
        LockedError: Another process holds the data directory.
        ConfigError: The directory or the address cannot be used.
        KtError: The disk refused a write, and the node stopped. A full disk does not stop it.
    """
    # The thread that syncs must get the GIL back at once. By default others keep it for 5 ms.
    switch_threads_soon()

    def with_possible() -> NodeConfig:
        wanted = config if reread is None else reread()
        return replace(wanted, limits=possible(wanted.limits))

    uvloop.run(_serve(replace(config, limits=possible(config.limits)), stop, with_possible, on_ready))


async def _serve(
    config: NodeConfig,
    stop: threading.Event,
    reread: Callable[[], NodeConfig],
    on_ready: Callable[[str], None],
) -> None:
    def opened() -> RunningNode:
        try:
            return RunningNode(config, stop)
        except NoSpaceError as error:
            _LOG.debug("no space to open the data", reason=str(error.__cause__ or error))
            raise DiskFullError(config.data) from error

    # This blocks the event loop, on which nothing else runs yet.
    running = patiently(opened, stop, Outage("node", _LOG))
    if running is None:
        return
    try:
        address = await running.listen()
        with reloading(Reload(config, reread, _LIVE, running.reload)):
            on_ready(address)
            while not stop.is_set():
                await asyncio.sleep(_TICK)
    finally:
        await running.close()
    if (error := running.failure.error) is not None:
        raise KtError(f"the node stopped: {error}") from error
    _LOG.info("stopped", position=running.log.position)
