"""What a client has received and not yet read is bounded by bytes, whatever the server would send."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kt_es.eventstore.connecting import connect
from kt_es.eventstore.driver import RecordedEvent
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.esdb_client import PAGE, PAGE_BYTES, EsdbClient
from kt_es.eventstore.streams import ANY, NewEvent, Subscription
from tests.contracts.nodes import NodeProcess
from tools.torture.proxy import Mode, Network

EVENTS = 48
EVENT_BYTES = 900 * 1024
READ = 8
# The message that is waited for, the next one's beginning, and what the two kernels hold.
MOST_BYTES = 6 << 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with NodeProcess(tmp_path / "node") as node:
        yield node.uri


@contextmanager
def far_away(server: str) -> Iterator[tuple[EsdbLog, Network]]:
    """A client whose bytes take their time, so that much would be under way."""
    network = Network(urlsplit(server).port or 0)
    uri = network.add("client")
    network.set_mode("client", Mode.DELAY, 0.005)
    log = connect(uri)
    try:
        yield log, network
    finally:
        log.close()
        network.close()


@pytest.mark.parametrize(
    "subscribe",
    [
        lambda log, stream: log.subscribe(stream),
        lambda log, stream: log.subscribe_prefix(stream),
        lambda log, stream: log.join_group(stream, "reader"),
    ],
    ids=["catch-up", "prefix", "group"],
)
def test_a_reader_that_pauses_is_not_sent_everything(
    server: str, subscribe: Callable[[EsdbLog, str], Subscription]
) -> None:
    stream = f"large.{uuid.uuid4().hex}"
    near = connect(server)
    for _ in range(EVENTS):
        near.append(stream, ANY, [NewEvent("Large", bytes(EVENT_BYTES), uuid.uuid4())])
    near.close()
    with far_away(server) as (log, network):
        subscription = subscribe(log, stream)
        events = iter(subscription)
        for revision in range(READ):
            assert next(events).revision == revision
        assert settled(network) - READ * EVENT_BYTES < MOST_BYTES
        assert [next(events).revision for _ in range(READ, EVENTS)] == list(range(READ, EVENTS))
        subscription.stop()


def test_pages_ask_for_about_as_many_bytes_as_they_take(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for is sent, even where the reader stops after some megabytes."""
    log = connect(server)
    small, large = (f"{kind}.{uuid.uuid4().hex}" for kind in ("small", "large"))
    for _ in range(24):
        log.append(large, ANY, [NewEvent("Large", bytes(EVENT_BYTES), uuid.uuid4())])
    log.append(small, ANY, [NewEvent("Small", b"", uuid.uuid4()) for _ in range(400)])
    asked: list[int] = []
    get_page = EsdbClient.get_page

    def counted(client: EsdbClient, stream: str, start: int, count: int) -> list[RecordedEvent]:
        asked.append(count)
        return get_page(client, stream, start, count)

    monkeypatch.setattr(EsdbClient, "get_page", counted)
    assert [event.revision for event in log.read(small)] == list(range(400))
    assert asked[0] * EVENT_BYTES <= 2 * PAGE_BYTES
    assert max(asked) == PAGE
    asked.clear()
    assert [event.revision for event in log.read(large)] == list(range(24))
    # The first page finds out; after it no page asks for more than its bytes and one event.
    assert max(asked[1:]) * EVENT_BYTES <= PAGE_BYTES + EVENT_BYTES
    log.close()


def settled(network: Network) -> int:
    """The bytes that were delivered once no more come."""
    pause = threading.Event()
    before = -1
    while before != (now := network.delivered):
        before = now
        pause.wait(0.5)
    return now
