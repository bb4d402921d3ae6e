"""The client library's client with keepalive, paging, a reliable close and its own choice of the member.

gRPC lets a server send data ahead, in a window whose size it estimates from the bandwidth and delay of the
connection. On a busy machine this estimate reached hundreds of megabytes for a subscription whose reader had
stopped. Without the estimate, the window has 64 KiB plus the message that is being read. This is enough for a
subscription, but too little for pages from a distant server. Pages are bounded in size, so their connection
keeps the estimate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import grpc

from kt_es.eventstore import driver
from kt_es.eventstore.discovery import Answers, ask_members, confirms, find_leader, seeds_of
from kt_es.eventstore.driver import autoreconnect, retrygrpc
from kt_es.eventstore.streams import NO_STREAM
from kt_es.process.network import is_loopback

# A page has at most PAGE events, and it is cut when it has PAGE_BYTES. Without the second limit, 64 events
# could have 64 MiB, which is too much for memory and for the deadline.
PAGE = 64
PAGE_BYTES = 4 << 20
PAGE_DEADLINE = 10.0

# The time limit of a search for the leader and the pause between two rounds, in seconds.
DISCOVERY_DEADLINE = 5.0
DISCOVERY_PAUSE = 0.2
EXERCISE_DEADLINE = 3.0

# Words in gRPC's messages if a certificate or a name is not accepted, or if the server does not speak TLS.
TLS_FAILURES = ("SSL_ERROR_SSL", "TSI_PROTOCOL_FAILURE", "peer certificate", "Hostname Verification")

# Words in gRPC's messages if the server may speak another protocol. ``subscriptions.translated`` finds out.
_OTHER_MISFITS = ("Failed parsing HTTP/2", "Socket closed")

_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # This option ends a connection whose peer is frozen. Its default is a minute.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC repeats a call that a stopping server did not process. If it then cannot connect, the call never
    # returns. So gRPC must not repeat calls; the client does.
    ("grpc.enable_retries", 0),
    # After an outage the next attempt should not wait for the default two minutes.
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
)
_BOUNDED = (("grpc.http2.bdp_probe", 0),)
_READ = "/event_store.client.streams.Streams/Read"

Options = tuple[tuple[str, str | int], ...]


class Channels(grpc.Channel):
    """A channel that selects one of two connections for each call.

    Reads of at most ``most`` events and calls with one response use the connection with the estimated window.
    All other calls use the connection with the fixed window.
    """

    def __init__(self, make: Callable[[Options], grpc.Channel], most: int) -> None:
        self._plain = make(())
        self._bounded = make(_BOUNDED)
        self._most = most

    def unary_unary(self, *of_the_call: Any, **options: Any) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        return self._plain.unary_unary(*of_the_call, **options)

    def stream_unary(self, *of_the_call: Any, **options: Any) -> grpc.StreamUnaryMultiCallable[Any, Any]:
        return self._plain.stream_unary(*of_the_call, **options)

    def stream_stream(self, *of_the_call: Any, **options: Any) -> grpc.StreamStreamMultiCallable[Any, Any]:
        """Use the fixed window, for persistent subscriptions. Batch appends have only short responses."""
        return self._bounded.stream_stream(*of_the_call, **options)

    def unary_stream(
        self, method: str, *of_the_call: Any, **options: Any
    ) -> grpc.UnaryStreamMultiCallable[Any, Any]:
        bounded = self._bounded.unary_stream(method, *of_the_call, **options)
        if method != _READ:
            return bounded
        plain = self._plain.unary_stream(method, *of_the_call, **options)

        def call(request: Any, *of_the_request: Any, **more: Any) -> Any:
            is_page = 0 < request.options.count <= self._most
            return (plain if is_page else bounded)(request, *of_the_request, **more)

        return call  # type: ignore[return-value]

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False
    ) -> None:
        self._plain.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._plain.unsubscribe(callback)

    def close(self) -> None:
        self._plain.close()
        self._bounded.close()

    def __enter__(self) -> Channels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unproxied(target: str) -> Options:
    """Return the option that disables the proxy of gRPC if ``target`` is on this machine."""
    return (("grpc.enable_http_proxy", 0),) if is_loopback(target.rpartition(":")[0]) else ()


class EsdbClient(driver.EventStoreDBClient):
    """The client that ``esdb`` uses. Any thread may close it.

    ``left`` is called with the client and the target of a member when the client leaves the member because it
    refused a call. It runs in the thread of that call.
    """

    _has_ended = False
    _misfit = ""
    left: Callable[[EsdbClient, str], None] | None = None

    def close(self) -> None:
        """Close the client permanently, from any thread.

        A running call cannot open another connection for its next attempt.
        """
        self._has_ended = True
        self._shut()

    def reconnect(self, grpc_target: str | None = None, **of_the_library: Any) -> None:
        if self.left is not None:
            self.left(self, self.connection_target)
        try:
            # kurrentdbclient passes the target that failed, so that only the first of several threads
            # reconnects.
            super().reconnect(grpc_target, **of_the_library)
        finally:
            # Another thread may have called close() before the new connection existed.
            if self._has_ended:
                self._shut()

    def construct_call_credentials(
        self, username: str | None, password: str | None
    ) -> grpc.CallCredentials | None:
        """Undo percent-encoding (RFC 3986, 3.2.1), which neither library does."""
        return super().construct_call_credentials(
            None if username is None else unquote(username), None if password is None else unquote(password)
        )

    def _get_commit_position(self, *, timeout: float | None = None, **options: Any) -> int:
        """Add a deadline to the call that kurrentdbclient makes without one after it has reconnected."""
        if self._has_ended:
            raise driver.CancelledByClient("the client was closed")
        inherited: Any = super()
        return int(inherited._get_commit_position(timeout=timeout or EXERCISE_DEADLINE, **options))

    def _shut(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is None:
            return
        try:
            connection.close()
        except AttributeError:
            # Another thread is creating a subscription, which cannot be stopped before it is complete.
            connection._grpc_channel.close()
        self._is_closed = True

    def _construct_grpc_channel(self, grpc_target: str, grpc_options: Options = ()) -> grpc.Channel:
        if self._has_ended:
            raise driver.CancelledByClient("the client was closed")
        make = super()._construct_grpc_channel
        # The library passes its keepalive settings under names that gRPC does not know.
        options = (*grpc_options, *_KEEPALIVE, *_unproxied(grpc_target))
        return Channels(lambda more: make(grpc_target, (*options, *more)), PAGE)

    def _discover_preferred_node(self) -> driver.Connection:
        """Choose the member with ``discovery``. The library's own choice can return a leader that is dead."""
        if driver.node_preference(self.connection_spec) != "leader":
            return super()._discover_preferred_node()
        begun = time.monotonic()
        while True:
            self._misfit = ""
            leader = find_leader(seeds_of(self.connection_spec), self._ask)
            if leader is not None:
                return self._construct_esdb_connection(leader)
            if self._has_ended:
                raise driver.CancelledByClient("the client was closed")
            if time.monotonic() - begun >= DISCOVERY_DEADLINE:
                seeds = ", ".join(self.connection_spec.targets)
                why = f": {self._misfit}" if self._misfit else ""
                raise driver.LeaderNotFound(f"no member of the cluster at {seeds} says that it leads{why}")
            time.sleep(DISCOVERY_PAUSE)

    def may_lead(self) -> bool:
        """Return whether the member that this client is connected to may still lead.

        The result is False only if the member answers and does not list itself as leader. For a single server
        the result is always True.
        """
        if len(self.connection_spec.targets) == 1 and not self.connection_spec.scheme.endswith("+discover"):
            return True
        target = self.connection_target
        said = self._ask({target: None}).get(target, ())
        return len(said) < 2 or confirms(target, said)

    def _ask(self, targets: Mapping[str, str | None]) -> Answers:
        """Ask ``targets`` over temporary channels. Implements ``discovery.Ask``."""
        channels = [
            self._construct_grpc_channel(
                target, () if name is None else (("grpc.ssl_target_name_override", name),)
            )
            for target, name in targets.items()
        ]
        try:
            return ask_members(
                dict(zip(targets, channels, strict=True)),
                self._call_metadata,
                self._call_credentials,
                self._note_failure,
            )
        finally:
            for channel in channels:
                channel.close()

    def _note_failure(self, details: str) -> None:
        if any(word in details for word in (*TLS_FAILURES, *_OTHER_MISFITS)):
            self._misfit = details

    @retrygrpc
    @autoreconnect
    def get_page(self, stream: str, start: int, count: int) -> list[driver.RecordedEvent]:
        """Return up to ``count`` events, fewer if these reach ``PAGE_BYTES``.

        The decorators repeat a failed call as the library does for ``get_stream``.
        """
        page: list[driver.RecordedEvent] = []
        size = 0
        with self.read_stream(stream, stream_position=start, limit=count, timeout=PAGE_DEADLINE) as events:
            for event in events:
                page.append(event)
                size += len(event.data)
                if size >= PAGE_BYTES:
                    break
        return page


class _Plain(driver.EventStoreDBClient):
    def _construct_grpc_channel(self, grpc_target: str, grpc_options: Options = ()) -> grpc.Channel:
        return super()._construct_grpc_channel(grpc_target, (*grpc_options, *_unproxied(grpc_target)))


def plain_client(uri: str) -> driver.EventStoreDBClient:
    """Return a client without the deadlines, pages and keepalive of ``EsdbClient``, for ``kt bench node``."""
    return _Plain(uri)


def plain_append(
    client: driver.EventStoreDBClient, stream: str, expected: int, count: int, size: int
) -> None:
    """Append ``count`` events of ``size`` bytes in one call. For one event, the protocol has another call."""
    new = [
        driver.NewEvent(type="T", data=bytes(size), content_type="application/octet-stream")
        for _ in range(count)
    ]
    version = driver.StreamState.NO_STREAM if expected == NO_STREAM else expected
    client.append_to_stream(stream, current_version=version, events=new[0] if count == 1 else new)
