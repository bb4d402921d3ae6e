"""The gRPC server of a front end, on the event loop of its HTTP server.

It is there that the accounts of clients live, so a client has one rate and one number of requests over both
interfaces, without locks. gRPC does its network and TLS in threads of its own.

HTTP/2 lets a client do much in one connection, so that is bounded here: streams, headers, messages, pings,
the time of a handshake, of silence and of a connection. gRPC itself gives up connections that reset streams
in masses. Compressed messages are refused: a small one may be a large one.
"""

from __future__ import annotations

from pathlib import Path

import grpc

from kt_es.errors import ConfigError
from kt_es.process.grpc_tls import Credentials
from kt_es.server.endpoints.common import Frontend
from kt_es.server.feed import EpochFeed
from kt_es.server.grpc.calls import MAX_MESSAGE, Calls, Method
from kt_es.server.grpc.methods import SERVICE, DirectoryMethods
from kt_es.server.grpc.standard import HEALTH, HealthMethods, ReflectionMethods
from kt_es.server.limits import MAX_HEAD, ClientLimits
from kt_es.server.listening import GRACE
from kt_es.server.reserving import check_free, host_and_port

MAX_STREAMS = 100
"""Calls of one connection at a time (RFC 9113 recommends not less)."""

AGE = 300.0
"""Seconds after which a connection takes no more calls, with ``AGE_GRACE`` seconds for those under way.

Only so do calls end whose clients do not read. gRPC has no other end for them.
"""
AGE_GRACE = 150.0
_KEEPALIVE = 60.0
_KEEPALIVE_ANSWER = 20.0
_LEAST_PING = 20.0
_ONLY_IDENTITY = 1  # the bit of no compression


class GrpcServer:
    """Serves ``frontend`` at ``host`` and ``port`` from ``start`` to ``close``; port 0 takes a free port.

    Args:
        feed: Tells of new epochs.
        room: Connections at a time.
        files: The certificate and its key in PEM, with which TLS is served.
        shared: Other processes of the front end listen on the port as well, and one has reserved it.

    Only the event loop's thread calls ``start`` and ``close``. Raises ``ConfigError`` for unusable files.
    """

    def __init__(
        self,
        frontend: Frontend,
        feed: EpochFeed,
        host: str,
        port: int,
        *,
        room: int,
        files: tuple[Path, Path] | None = None,
        shared: bool = False,
    ) -> None:
        self._frontend = frontend
        self._feed = feed
        self._host = host
        self._port = port
        self._room = room
        self._tls = None if files is None else Credentials(*files)
        self._shared = shared
        self._server: grpc.aio.Server | None = None

    @property
    def bound(self) -> str:
        """HOST:PORT where it listens, once it has started."""
        return host_and_port(self._host, self._port)

    def exchange(self, certificate: Path, key: Path) -> None:
        """Serve this certificate to new connections, if TLS is served. Any thread may call it.

        Raises ``ConfigError``; then the old one stays.
        """
        if self._tls is not None:
            self._tls.exchange(certificate, key)

    async def start(self) -> None:
        """Listen. Raises ``ConfigError`` if the address or the certificate cannot be used."""
        if not self._shared:
            # The error of this check has the reason, which gRPC only logs.
            check_free(self._host, self._port, "grpc_port")
        self._feed.begin()
        self._server = server = grpc.aio.server(
            options=_options(self._frontend.slots.clients.limits, self._room, self._shared)
        )
        services = (SERVICE.full_name, HEALTH)
        methods = [
            *DirectoryMethods(self._frontend, self._feed).methods(),
            *HealthMethods(self._frontend, self._feed, services).methods(),
            *ReflectionMethods(services).methods(),
        ]
        server.add_generic_rpc_handlers((_Methods(Calls(self._frontend), methods),))
        try:
            if self._tls is None:
                port = server.add_insecure_port(self.bound)
            else:
                port = server.add_secure_port(self.bound, self._tls.server)
        except RuntimeError as error:
            raise ConfigError(f"gRPC cannot listen on {self.bound}: {error}") from None
        self._port = port
        await server.start()

    async def close(self) -> None:
        """Take no more calls, end watches, and give the calls under way ``GRACE`` seconds."""
        self._feed.end()
        if self._server is not None:
            await self._server.stop(GRACE)


class _Methods(grpc.GenericRpcHandler):
    """Finds the handler of a method by its full name."""

    def __init__(self, calls: Calls, methods: list[Method]) -> None:
        self._handlers = {method.name: calls.handler(method) for method in methods}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handlers.get(handler_call_details.method)


def _options(limits: ClientLimits, room: int, shared: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.max_allowed_incoming_connections", room),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        ("grpc.max_metadata_size", MAX_HEAD // 2),
        ("grpc.absolute_max_metadata_size", MAX_HEAD),
        ("grpc.compression_enabled_algorithms_bitset", _ONLY_IDENTITY),
        ("grpc.server_handshake_timeout_ms", _ms(limits.head_seconds)),
        ("grpc.max_connection_idle_ms", _ms(limits.idle_seconds)),
        ("grpc.max_connection_age_ms", _ms(AGE)),
        ("grpc.max_connection_age_grace_ms", _ms(AGE_GRACE)),
        # This finds clients that are gone while they watch.
        ("grpc.keepalive_time_ms", _ms(_KEEPALIVE)),
        ("grpc.keepalive_timeout_ms", _ms(_KEEPALIVE_ANSWER)),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(_LEAST_PING)),
        # Probing for the window costs both sides a ping for each message.
        ("grpc.http2.bdp_probe", 0),
        # Two front ends at one port would share its connections, and nobody would notice (``reserving``).
        ("grpc.so_reuseport", int(shared)),
    ]


def _ms(seconds: float) -> int:
    return max(1, round(1000 * seconds))
