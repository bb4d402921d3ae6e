"""Every call of the clients has a contract; how clients connect; calls that take too long."""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from kt_es.eventstore.driver import (
    AppendDeadlineExceeded,
    AsyncEventStoreDBClient,
    EventStoreDBClient,
    FollowerNotFound,
    GrpcDeadlineExceeded,
    GrpcError,
    ReadOnlyReplicaNotFound,
    StreamState,
)
from tests.contracts.clients import Blocking, Loop, connected
from tests.contracts.nodes import append, event, events, numbers

NO_STREAM = StreamState.NO_STREAM

# What is no call of the server, or asks for something else than the log.
NO_CALLS = {"connection_target", "connect", "is_closed", "close", "reconnect"}
NO_CALLS |= {"gossip", "persistent_subscriptions", "projections", "streams"}  # the services behind the calls
OF_OTHERS = {"construct_call_credentials"}  # asked where users are
# Calls of newer servers that the successor of the library has; the product uses none of them.
NEWER = {
    "append_records",
    "connection_id",
    "multi_append_to_stream",
    "read_index",
    "subscribe_to_index",
    "v2streams",
}


def public(client: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(client) if not name.startswith("_")}


def test_every_call_of_the_clients_has_a_contract() -> None:
    calls = public(EventStoreDBClient) | public(AsyncEventStoreDBClient)
    calls = {name for name in calls if "projection" not in name} - NO_CALLS - OF_OTHERS - NEWER
    here = Path(__file__).parent
    asked = "".join(path.read_text() for path in here.glob("test_eventstore_*.py"))
    assert {name for name in calls if f"esdb.{name}" not in asked} == set()


def test_appends_have_three_names(esdb: EventStoreDBClient, name: str) -> None:
    esdb.append_events(name, current_version=NO_STREAM, events=events(2))
    esdb.append_to_stream(name, current_version=1, events=events(1, 2))
    if hasattr(esdb, "append_event"):  # not with asyncio
        esdb.append_event(name, current_version=2, event=event(3))
    assert numbers(esdb.get_stream(name, limit=3)) == [0, 1, 2]


@pytest.fixture
def sync(esdb_uri: str) -> Any:
    with EventStoreDBClient(esdb_uri) as client:
        yield client


def test_gossip_names_one_leader(sync: EventStoreDBClient) -> None:
    esdb = sync
    members = esdb.read_gossip()
    assert [member.state for member in members].count("NODE_STATE_LEADER") == 1
    assert all(member.address and member.port for member in members)


def twice(uri: str, query: str) -> str:
    """``uri`` with its hosts named twice: such a client asks for gossip before it connects."""
    scheme, _, rest = uri.partition("://")
    place, _, given = rest.partition("?")
    user, at, hosts = place.rstrip("/").rpartition("@")
    return f"{scheme}://{user}{at}{hosts},{hosts}?" + "&".join(filter(None, [given, query]))


@pytest.fixture(params=["sync", "asyncio"])
def connect(request: pytest.FixtureRequest, loop: Loop) -> Any:
    """A function from a connection string to a client, as a context manager."""
    if request.param == "sync":
        return EventStoreDBClient
    return lambda uri: Blocking(loop, loop.wait(connected(uri)))


@pytest.mark.parametrize("preference", ["leader", "random"])
def test_the_node_is_found_among_several_hosts(
    connect: Any, esdb_uri: str, name: str, preference: str
) -> None:
    with connect(twice(esdb_uri, f"NodePreference={preference}")) as client:
        append(client, name, 2)
        assert numbers(client.get_stream(name)) == [0, 1]


def test_one_node_is_no_follower(connect: Any, esdb_uri: str, sync: EventStoreDBClient) -> None:
    if len(sync.read_gossip()) > 1:
        pytest.skip("a cluster has followers")
    for preference, error in (("follower", FollowerNotFound), ("readonlyreplica", ReadOnlyReplicaNotFound)):
        with pytest.raises(error):
            connect(twice(esdb_uri, f"NodePreference={preference}&MaxDiscoverAttempts=1"))


def test_a_name_that_stands_for_the_node_is_enough(connect: Any, esdb_uri: str, name: str) -> None:
    if "," in esdb_uri:
        pytest.skip("several hosts are no such name")
    with connect(esdb_uri.replace("esdb://", "esdb+discover://")) as client:
        append(client, name, 1)
        assert client.get_current_version(name) == 0


def test_a_client_connects_again(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 1)
    esdb.reconnect()
    assert esdb.connection_target
    assert numbers(esdb.get_stream(name)) == [0]


def test_a_closed_client_is_closed(connect: Any, esdb_uri: str) -> None:
    with connect(esdb_uri) as client:
        assert not client.is_closed
    assert client.is_closed


# Said by the server, by the client's own clock, and by gRPC where the time is over while the call begins.
LATE = (AppendDeadlineExceeded, GrpcDeadlineExceeded, GrpcError)


def test_an_append_that_came_too_late_is_repeated(esdb: EventStoreDBClient, name: str) -> None:
    batch = events(3)
    with contextlib.suppress(*LATE):
        esdb.append_events(name, current_version=NO_STREAM, events=batch, timeout=0.000001)
    # Whether it was made or not: to repeat it is right.
    esdb.append_events(name, current_version=NO_STREAM, events=batch, timeout=60)
    assert numbers(esdb.get_stream(name)) == [0, 1, 2]
