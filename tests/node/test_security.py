"""The embedded node alone: users that come and go, anonymous access, links, refusals to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kt_es.errors import ConfigError
from kt_es.eventstore.driver import EventStoreDBClient, EventStoreDBClientException, NewEvent, StreamState
from kt_es.node.access.users import add, remove
from kt_es.node.server import NodeConfig
from tests.contracts.certificates import certify
from tests.contracts.nodes import ServedNode, events
from tests.contracts.secure import ANYONE, Secure, answer, secure_node

ANY, NO_STREAM = StreamState.ANY, StreamState.NO_STREAM
DENIED, UNKNOWN = "PERMISSION_DENIED", "UNAUTHENTICATED"


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Secure]:
    with secure_node(tmp_path) as secure:
        yield secure


def test_users_come_change_and_go_while_it_runs(users: Secure, tmp_path: Path, name: str) -> None:
    users["alice"].append_to_stream(name, current_version=NO_STREAM, events=events(1))
    acl = {"$acl": {"$r": ["readers"]}}
    users["alice"].set_stream_metadata(name, metadata=acl, current_version=NO_STREAM)
    carol = users.client("carol", "pw")
    assert answer(carol.get_stream, name) == UNKNOWN
    add(tmp_path / "data", "carol", "pw")
    assert answer(carol.get_stream, name) == DENIED
    add(tmp_path / "data", "carol", "pw", ["readers"])
    assert answer(carol.get_stream, name) == ""
    add(tmp_path / "data", "carol", "other", ["readers"])
    assert answer(carol.get_stream, name) == UNKNOWN
    assert answer(users.client("carol", "other").get_stream, name) == ""
    remove(tmp_path / "data", "carol")
    assert answer(users.client("carol", "other").get_stream, name) == UNKNOWN


def test_a_link_shows_nothing_that_may_not_be_read(users: Secure, name: str) -> None:
    acl = {"$acl": {"$r": ["alice"], "$w": ["alice"]}}
    users["alice"].set_stream_metadata(name, metadata=acl, current_version=NO_STREAM)
    users["alice"].append_to_stream(name, current_version=NO_STREAM, events=events(1))
    links = f"{name}-links"
    link = NewEvent("$>", f"0@{name}".encode(), content_type="application/octet-stream")
    users["bob"].append_to_stream(links, current_version=NO_STREAM, events=link)
    (shown,) = users["alice"].get_stream(links, resolve_links=True)
    assert (shown.stream_name, shown.data) == (name, b"0")
    assert users["bob"].get_stream(links, resolve_links=True) == ()


def test_an_open_node_with_its_first_user_is_open_no_more(tmp_path: Path, name: str) -> None:
    config = NodeConfig(tmp_path, port=0)
    with ServedNode(config) as node, EventStoreDBClient(f"esdb://{node.address}?Tls=false") as client:
        client.append_to_stream(name, current_version=NO_STREAM, events=events(1))
        client.create_subscription_to_stream("g", name)
        add(tmp_path, "alice", "pw")
        assert answer(client.get_stream, name) == DENIED
        remove(tmp_path, "alice")
        assert answer(client.get_stream, name) == DENIED


def test_with_tls_and_no_users_nobody_has_rights(tmp_path: Path, name: str) -> None:
    made = certify(tmp_path)
    config = NodeConfig(tmp_path / "data", port=0, tls_cert=made.certificate, tls_key=made.key)
    with ServedNode(config) as node:
        uri = f"esdb://alice:pw@{node.address}?Tls=true&TlsCaFile={made.authority}"
        with EventStoreDBClient(uri) as client:
            assert answer(client.get_stream, name) == UNKNOWN
            client._call_credentials = None
            assert answer(client.get_stream, name) == DENIED


def test_started_so_the_anonymous_have_what_acls_give_all(tmp_path: Path, name: str) -> None:
    with secure_node(tmp_path, anonymous=True) as users:
        nobody = users[ANYONE]
        nobody.append_to_stream(name, current_version=NO_STREAM, events=events(1))
        assert answer(nobody.get_stream, name) == ""
        assert answer(nobody.read_all) == DENIED
        assert answer(nobody.create_subscription_to_stream, "g", name) == DENIED
        acl = {"$acl": {"$r": ["writers"]}}
        users["alice"].set_stream_metadata(name, metadata=acl, current_version=NO_STREAM)
        assert answer(nobody.get_stream, name) == DENIED


def test_rights_outlive_a_restart(tmp_path: Path, name: str) -> None:
    made = certify(tmp_path)
    config = NodeConfig(tmp_path / "data", port=0, tls_cert=made.certificate, tls_key=made.key)
    for user in ("alice", "bob"):
        add(config.data, user, "pw")

    def client(address: str, user: str) -> EventStoreDBClient:
        return EventStoreDBClient(f"esdb://{user}:pw@{address}?Tls=true&TlsCaFile={made.authority}")

    with ServedNode(config) as node, client(node.address, "alice") as alice:
        acl = {"$acl": {"$w": ["alice"]}}
        alice.set_stream_metadata(name, metadata=acl, current_version=NO_STREAM)
    with ServedNode(config) as node, client(node.address, "bob") as bob:
        assert answer(bob.append_to_stream, name, current_version=ANY, events=events(1)[0]) == DENIED


def test_a_client_without_the_authority_does_not_connect(users: Secure, tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    other = certify(tmp_path / "other")
    uri = f"esdb://alice:pw-alice@{users.target}?Tls=true&TlsCaFile={other.authority}"
    with EventStoreDBClient(uri) as client, pytest.raises(EventStoreDBClientException):
        client.get_stream(name, timeout=5)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_what_others_reach_is_not_started_without_tls(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="not loopback"):
        ServedNode(NodeConfig(tmp_path, host=host, port=0)).start()
    assert not list(tmp_path.iterdir())
