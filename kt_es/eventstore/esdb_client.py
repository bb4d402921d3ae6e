"""EventStoreDB's client, with keepalive, pages, a reliable close and another choice of the member added."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import grpc

from kt_es.eventstore import driver
from kt_es.eventstore.channels import Channels, Options
from kt_es.eventstore.discovery import Answers, confirms, find_leader
from kt_es.eventstore.driver import autoreconnect, retrygrpc
from kt_es.eventstore.gossip import ask_members, seeds_of
from kt_es.eventstore.streams import NO_STREAM
from kt_es.process.proxies import is_loopback

# A page has at most so many events, and is cut where it has so many bytes: 64 events may have 64 MiB, too
# many for memory and deadline.
PAGE = 64
PAGE_BYTES = 4 << 20
PAGE_DEADLINE = 10.0

# How long a leader is looked for, in seconds, and the pause between two rounds of questions.
DISCOVERY_DEADLINE = 5.0
DISCOVERY_PAUSE = 0.2
EXERCISE_DEADLINE = 3.0

# How gRPC says that certificates or names are not accepted, or that the other side speaks no TLS.
TLS_FAILURES = ("SSL_ERROR_SSL", "TSI_PROTOCOL_FAILURE", "peer certificate", "Hostname Verification")

# What may be another protocol; "translation" tells.
_OTHER_MISFITS = ("Failed parsing HTTP/2", "Socket closed")

_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # What really ends a connection whose peer is frozen; the default is a minute.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC repeats a call by itself that a stopping server did not begin; where it then cannot connect, the
    # call never ends, not even in a failure. Repeating is ours.
    ("grpc.enable_retries", 0),
    # After an outage the next attempt should not wait for the default two minutes.
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
)


def _unproxied(target: str) -> Options:
    """The option that keeps gRPC from asking a proxy for what is on this machine."""
    return (("grpc.enable_http_proxy", 0),) if is_loopback(target.rpartition(":")[0]) else ()


class EsdbClient(driver.EventStoreDBClient):
    """Used by ``esdb``; may be closed by any thread.

    ``left`` is told, in the thread of the call, of the member that is left because it refused a call.
    """

    _has_ended = False
    _misfit = ""
    left: Callable[[EsdbClient, str], None] | None = None

    def close(self) -> None:
        """Close for good, from any thread: what a call under way would open for its next attempt, too."""
        self._has_ended = True
        self._shut()

    def reconnect(self, grpc_target: str | None = None, **of_the_library: Any) -> None:
        if self.left is not None:
            self.left(self, self.connection_target)
        try:
            # The successor says for which connection; of several threads only the first reconnects then.
            super().reconnect(grpc_target, **of_the_library)
        finally:
            # It may have been closed in between, when this connection was not there to be closed.
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
        """What the successor asks after it has reconnected, without a deadline of its own."""
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
            # Another thread is making a subscription, which cannot be stopped before it is complete.
            connection._grpc_channel.close()
        self._is_closed = True

    def _construct_grpc_channel(self, grpc_target: str, grpc_options: Options = ()) -> grpc.Channel:
        if self._has_ended:
            raise driver.CancelledByClient("the client was closed")
        make = super()._construct_grpc_channel
        # The client passes its keepalive settings under a name that gRPC does not know.
        options = (*grpc_options, *_KEEPALIVE, *_unproxied(grpc_target))
        return Channels(lambda more: make(grpc_target, (*options, *more)), PAGE)

    def _discover_preferred_node(self) -> driver.Connection:
        """The library's choice of the member, replaced: it counts dead leaders (see ``discovery``)."""
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
        """Whether the member that this client is connected to may still lead; always true of a single server.

        False if the member says otherwise. True if it does not answer: then nobody knows.
        """
        if len(self.connection_spec.targets) == 1 and not self.connection_spec.scheme.endswith("+discover"):
            return True
        target = self.connection_target
        said = self._ask({target: None}).get(target, ())
        return len(said) < 2 or confirms(target, said)

    def _ask(self, targets: Mapping[str, str | None]) -> Answers:
        """``discovery.Ask`` over channels of their own, which are closed again."""
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
        """Up to ``count`` events, fewer where these have ``PAGE_BYTES``; repeated like ``get_stream``."""
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
    """The client without deadlines, pages and keepalive of ours: what ``kt bench node`` measures."""
    return _Plain(uri)


def plain_append(
    client: driver.EventStoreDBClient, stream: str, expected: int, count: int, size: int
) -> None:
    """Append ``count`` events of ``size`` bytes in one call; one alone is another call of the protocol."""
    new = [
        driver.NewEvent(type="T", data=bytes(size), content_type="application/octet-stream")
        for _ in range(count)
    ]
    version = driver.StreamState.NO_STREAM if expected == NO_STREAM else expected
    client.append_to_stream(stream, current_version=version, events=new[0] if count == 1 else new)
