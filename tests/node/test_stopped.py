"""The streams of a node that is stopped, read where they lie: whatever its users, rights and TLS are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kt_es.errors import ConfigError, KtError, LockedError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.streams import ANY, NO_STREAM, Event, content_event
from kt_es.node.access.users import add
from kt_es.node.server import NodeConfig
from kt_es.node.stopped import opened
from tests.contracts.certificates import certify
from tests.contracts.nodes import ServedNode


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """The data of a node with TLS, users and streams for its administrators alone; what ``s`` holds."""
    folder = tmp_path_factory.mktemp("node")
    made, data = certify(folder), folder / "data"
    add(data, "root", "pw", ["$admins"])
    with ServedNode(NodeConfig(data, port=0, tls_cert=made.certificate, tls_key=made.key)) as node:
        log = connect(f"esdb://root:pw@{node.address}?TlsCaFile={made.authority}")
        log.set_metadata("s", {"$acl": {"$r": "$admins", "$w": "$admins"}}, NO_STREAM)
        log.append("s", ANY, [content_event("s", "T", b"%d" % number) for number in range(300)])
        log.append("short", ANY, [content_event("short", "T", b"x") for _ in range(5)])
        log.truncate("short", 3)
        # What is read over the network can be acknowledged.
        events = [replace(event, ack_id=None) for event in log.read("s")]
        with pytest.raises(LockedError), opened(data):
            pass
        log.close()
    return data, events


def test_everything_is_read(stopped: tuple[Path, list[Event]]) -> None:
    data, events = stopped
    with opened(data) as log:
        assert list(log.read("s")) == events
        assert len(events) == 300
        assert list(log.read("s", 150, 140)) == events[150:290]
        assert list(log.read("s", 299)) == events[299:]
        assert list(log.read("s", 300)) == []
        assert list(log.read("s", 0, 0)) == []
        assert [event.revision for event in log.read("short")] == [3, 4]
        assert list(log.read("nothing")) == []


def test_it_is_left_as_it_was(stopped: tuple[Path, list[Event]]) -> None:
    data, events = stopped
    for _ in range(2):
        with opened(data) as log:
            assert next(iter(log.read("s"))) == events[0]


def test_a_stream_that_is_deleted_is_reported(tmp_path: Path) -> None:
    with ServedNode(NodeConfig(tmp_path, port=0, anonymous=True)) as node:
        log = connect(f"esdb://{node.address}?Tls=false")
        log.append("s", ANY, [content_event("s", "T", b"x")])
        log._client.tombstone_stream("s", current_version=0)
        log.close()
    with opened(tmp_path) as left, pytest.raises(KtError, match="read s: the stream is deleted"):
        list(left.read("s"))


def test_another_directory_is_none_of_a_node(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no data directory of a node"), opened(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
