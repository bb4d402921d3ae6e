"""Limits that are configured: what exceeds each is refused in the protocol's words, and others are served."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from kt_es.eventstore.driver import (
    EventStoreDBClient,
    EventStoreDBClientException,
    GrpcError,
    MaximumAppendSizeExceededError,
    NewEvent,
    StreamState,
)
from kt_es.node.groups.settings import groups_range
from kt_es.node.limits import BOUNDS, NodeLimits
from kt_es.node.server import NodeConfig
from kt_es.node.store.rocks import RocksStorage
from tests.contracts.nodes import Reader, ServedNode, append
from tests.node.test_bounds import PREFACE, sized

ANY = StreamState.ANY
KILOBYTE = 1 << 10


@contextmanager
def served(config: NodeConfig) -> Iterator[EventStoreDBClient]:
    with ServedNode(config) as node, EventStoreDBClient(f"esdb://{node.address}?Tls=false") as client:
        yield client


def test_calls_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    with served(NodeConfig(data=tmp_path, port=0, limits=NodeLimits(max_calls=2))) as client:
        append(client, "s", 1)
        held = [Reader(client.subscribe_to_stream("s")) for _ in range(2)]
        for reader in held:
            reader.one()
        with pytest.raises(GrpcError, match="Concurrent RPC limit exceeded"):
            client.subscribe_to_stream("s")
        for reader in held:
            reader.stop()


def test_groups_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    with served(NodeConfig(data=tmp_path, port=0, limits=NodeLimits(max_groups=2))) as client:
        for name in ("a", "b"):
            client.create_subscription_to_stream(name, "s")
        with pytest.raises(GrpcError, match="Maximum of 2 persistent subscriptions"):
            client.create_subscription_to_stream("c", "s")
        client.delete_subscription("a", "s")
        client.create_subscription_to_stream("c", "s")


def test_connections_beyond_the_limit_are_refused_and_others_go_on(tmp_path: Path) -> None:
    with ServedNode(NodeConfig(data=tmp_path, port=0, limits=NodeLimits(max_connections=3))) as node:
        host, _, port = node.address.rpartition(":")
        with EventStoreDBClient(f"esdb://{node.address}?Tls=false") as client, ExitStack() as stack:
            append(client, "s", 1)
            answers: list[bytes] = []
            for _ in range(6):
                idle = stack.enter_context(socket.create_connection((host, int(port)), 20))
                idle.sendall(PREFACE)
                try:
                    answers.append(idle.recv(100))
                except ConnectionError:
                    answers.append(b"")
            assert answers.count(b"") >= 3
            append(client, "s", 1, 0)


def test_appends_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    limits = NodeLimits(max_append=4 * KILOBYTE, max_message=16 * KILOBYTE)
    with served(NodeConfig(data=tmp_path, port=0, limits=limits)) as client:
        client.append_to_stream("s", current_version=ANY, events=sized(4, 1000))
        for events in (sized(5, 1000), sized(1, 5000)):
            with pytest.raises(MaximumAppendSizeExceededError, match="4096"):
                client.append_to_stream("s", current_version=ANY, events=events)
        assert len(client.get_stream("s")) == 4


def test_an_append_may_be_as_large_as_any_limit_allows(tmp_path: Path) -> None:
    largest = int(BOUNDS["max_append"].high)
    with served(NodeConfig(data=tmp_path, port=0, limits=NodeLimits(max_append=largest))) as client:
        client.append_to_stream("s", current_version=ANY, events=sized(1, largest - len("T")))
        client.create_subscription_to_stream("g", "s")
        with Reader(client.read_subscription_to_stream("g", "s")) as reader:
            assert len(reader.one().data) == len(client.get_stream("s")[0].data) == largest - len("T")


def test_requests_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    limits = NodeLimits(max_append=4 * KILOBYTE, max_message=16 * KILOBYTE)
    with served(NodeConfig(data=tmp_path, port=0, limits=limits)) as client:
        with pytest.raises(EventStoreDBClientException, match="larger than max") as caught:
            client.append_to_stream("s", current_version=ANY, events=sized(1, 17 * KILOBYTE))
        assert "RESOURCE_EXHAUSTED" in str(caught.value)
        append(client, "s", 1)


def test_headers_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    limits = NodeLimits(max_metadata=4 * KILOBYTE)
    with served(NodeConfig(data=tmp_path, port=0, limits=limits)) as client:
        append(client, "s", 1)
        plain = client._call_metadata
        client._call_metadata = (("x-padding", "x" * 5 * KILOBYTE),)
        with pytest.raises(EventStoreDBClientException) as caught:
            client.get_stream("s")
        assert "RESOURCE_EXHAUSTED" in str(caught.value)
        client._call_metadata = plain
        assert len(client.get_stream("s")) == 1


def test_a_peer_that_gives_no_sign_of_life_is_disconnected(tmp_path: Path) -> None:
    with ServedNode(NodeConfig(data=tmp_path, port=0, limits=NodeLimits(keepalive=0.2))) as node:
        host, _, port = node.address.rpartition(":")
        # Less than the default of `keepalive`: a node that ignores its configuration is silent for longer.
        with socket.create_connection((host, int(port)), NodeLimits().keepalive - 1) as silent:
            silent.sendall(PREFACE)
            while silent.recv(1000):
                pass


def test_a_filter_that_takes_for_ever_ends_its_own_call_only(tmp_path: Path) -> None:
    unlucky = NewEvent(type="a" * 2000 + "!", data=b"{}")
    expression = ("(a+)+b",)
    with served(NodeConfig(data=tmp_path, port=0)) as client:
        client.append_to_stream("s", current_version=ANY, events=unlucky)
        for ask in (client.read_all, client.subscribe_to_all):
            with pytest.raises(GrpcError, match="regular expression takes too long"):
                list(ask(filter_include=expression))
        client.create_subscription_to_all("g", filter_include=expression)
        with pytest.raises(EventStoreDBClientException):
            list(client.read_subscription_to_all("g"))
        append(client, "t", 1)
        assert len(client.get_stream("t")) == 1
        assert client.get_subscription_info("g").group_name == "g"


def test_a_stored_filter_that_cannot_be_used_stops_its_group_and_not_the_node(tmp_path: Path) -> None:
    with served(NodeConfig(data=tmp_path, port=0)) as client:
        client.create_subscription_to_all("g", filter_include=("x",))
        append(client, "s", 1)
    storage = RocksStorage(tmp_path)
    ((key, settings),) = storage.scan(*groups_range())
    storage.write([(key, settings.replace(b'"^x$"', b'"^(x$"'))], [])
    assert storage.get(key) != settings
    storage.close()
    with served(NodeConfig(data=tmp_path, port=0)) as client:
        with pytest.raises(EventStoreDBClientException):
            list(client.read_subscription_to_all("g"))
        assert len(client.get_stream("s")) == 1
