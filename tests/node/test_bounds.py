"""What stays bounded, and is served, whatever clients do or do not do.

``KT_TEST_NODE_EVENTS`` and ``KT_TEST_NODE_STREAMS`` set how many events are appended behind a subscriber that
does not read, and how many streams there are at a start; a million of each is what is promised.
"""

from __future__ import annotations

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kt_es.eventstore.driver import EventStoreDBClient, EventStoreDBClientException, NewEvent, StreamState
from kt_es.node.rpc.persistent import MAX_IN_FLIGHT
from tests.contracts.nodes import NodeProcess, Reader, append, event, positions

EVENTS = int(os.environ.get("KT_TEST_NODE_EVENTS", "30000"))
STREAMS = int(os.environ.get("KT_TEST_NODE_STREAMS", "5000"))
ANY = StreamState.ANY
MEGABYTE = 1 << 20
BOUND = 100  # megabytes
CONNECTIONS = 1000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # and empty SETTINGS


def memory(node: NodeProcess) -> int:
    """What the node's process takes, in megabytes."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(resident.split()[1]) >> 10


def warm_up(node: NodeProcess) -> int:
    """The memory after one use of everything."""
    with EventStoreDBClient(node.uri) as client:
        append(client, "warm", 500)
        client.create_subscription_to_stream("warm", "warm")
        with Reader(client.read_subscription_to_stream("warm", "warm"), ack=True) as reader:
            reader.take(500)
        assert len(client.get_stream("warm")) == 500
    return memory(node)


def sized(count: int, size: int) -> list[NewEvent]:
    return [
        NewEvent(type="T", data=b"x" * size, content_type="application/octet-stream") for _ in range(count)
    ]


def write(node: NodeProcess, count: int) -> None:
    with EventStoreDBClient(node.uri) as client:
        for _ in range(0, count, 500):
            client.append_to_stream("s", current_version=ANY, events=sized(500, 100))


@pytest.mark.timeout(900)
def test_subscribers_that_stop_reading_cost_next_to_nothing(node: NodeProcess) -> None:
    before = warm_up(node)
    with EventStoreDBClient(node.uri) as client, EventStoreDBClient(node.uri) as stuck:
        append(client, "s", 1)
        client.create_subscription_to_stream("g", "s")
        client.create_subscription_to_all("g")
        subscriptions: list[Any] = [
            stuck.subscribe_to_all(),
            stuck.subscribe_to_stream("s"),
            stuck.read_subscription_to_stream("g", "s"),
            stuck.read_subscription_to_all("g", event_buffer_size=1_000_000),
        ]
        for subscription in subscriptions:
            next(subscription)
        # Nobody calls next() again.
        write(node, EVENTS)
        grown = memory(node) - before
        assert grown < BOUND
        with Reader(client.subscribe_to_stream("s")) as reader:
            assert positions(reader.take(1000)) == list(range(1000))
        for subscription in subscriptions:
            subscription.stop()


def test_large_messages_go_on_without_acknowledgements(node: NodeProcess) -> None:
    """More than a group holds at a time, to a consumer that answers only at the end."""
    with EventStoreDBClient(node.uri) as client:
        for _ in range(20):
            client.append_to_stream("s", current_version=ANY, events=sized(1, 900_000))
        client.create_subscription_to_stream("g", "s")
        with Reader(client.read_subscription_to_stream("g", "s")) as reader:
            assert positions(reader.take(20)) == list(range(20))


@pytest.mark.timeout(900)
def test_a_client_that_never_acknowledges_costs_a_bounded_amount(node: NodeProcess) -> None:
    before = warm_up(node)
    with EventStoreDBClient(node.uri) as client:
        append(client, "s", 1)
        client.create_subscription_to_stream("g", "s", message_timeout=3600)
        write(node, EVENTS)
        with Reader(client.read_subscription_to_stream("g", "s", event_buffer_size=1_000_000)) as reader:
            came = reader.take(MAX_IN_FLIGHT)
            assert positions(came) == list(range(MAX_IN_FLIGHT))
            grown = memory(node) - before
            assert grown < BOUND
            assert client.get_subscription_info("g", "s").total_in_flight_messages == MAX_IN_FLIGHT
            assert not reader.waiting


def test_a_thousand_idle_connections_are_borne(node: NodeProcess) -> None:
    before = warm_up(node)
    host, _, port = node.address.rpartition(":")
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            idle = stack.enter_context(socket.create_connection((host, int(port)), 20))
            idle.sendall(PREFACE)
        with EventStoreDBClient(node.uri) as client:
            append(client, "s", 10)
            assert len(client.get_stream("s")) == 10
        assert memory(node) - before < BOUND


def test_appends_of_the_largest_size_leave_nothing_behind(node: NodeProcess) -> None:
    before = warm_up(node)
    with EventStoreDBClient(node.uri) as client:
        for _ in range(100):
            client.append_to_stream("s", current_version=ANY, events=sized(1, MEGABYTE - 10))
        for _ in range(5):
            with pytest.raises(EventStoreDBClientException):
                client.append_to_stream("s", current_version=ANY, events=sized(3, MEGABYTE))
        assert memory(node) - before < BOUND + 50
        assert len(client.get_stream("s", limit=100)) == 100
        assert memory(node) - before < BOUND + 50


def make(client: EventStoreDBClient, number: int) -> None:
    client.append_to_stream(f"stream-{number}", current_version=ANY, events=event(number))


@pytest.mark.timeout(3000)
def test_many_streams_cost_nothing_at_the_start(node: NodeProcess) -> None:
    before = warm_up(node)
    with EventStoreDBClient(node.uri) as client, ThreadPoolExecutor(16) as pool:
        for start in range(0, STREAMS, 1000):
            list(pool.map(lambda number: make(client, number), range(start, min(start + 1000, STREAMS))))
    assert memory(node) - before < BOUND
    node.kill()
    node.start()
    assert memory(node) - before < BOUND
    assert json.loads(node.errors.read_text().splitlines()[-1])["streams"] == STREAMS + 1
    with EventStoreDBClient(node.uri) as client:
        last = f"stream-{STREAMS - 1}"
        assert [one.data for one in client.get_stream(last)] == [b"%d" % (STREAMS - 1)]
