"""A node that is stopped in the middle of something: whoever waits for an answer is told in time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kt_es.errors import KtError, UnavailableError
from kt_es.eventstore import esdb
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.driver import EventStoreDBClient, NewEvent, StreamState
from kt_es.node.ops.control import scavenge_of
from tests.contracts.nodes import NodeProcess, append, until
from tools.torture.proxy import Mode, Network

JOINING = 8
DELAY = 0.4  # seconds by which each piece of an answer is late
SOON = 6.0
# Pieces of answers that arrive late before the node is stopped: where a call is by then decides its fate.
PIECES = (JOINING, 2 * JOINING, 3 * JOINING)


class Joining:
    """Threads that join a group again and again, each through a proxy of its own."""

    def __init__(self, network: Network) -> None:
        uris = [network.add(f"client{number}") for number in range(JOINING)]
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=self._join_again_and_again, args=(uri,), daemon=True) for uri in uris
        ]
        for thread in self.threads:
            thread.start()

    def _join_again_and_again(self, uri: str) -> None:
        while not self.stop.is_set():
            log = connect(uri)
            try:
                group = log.join_group("s", "g")
                if group is not None:
                    group.stop()
            except UnavailableError:
                pass  # the next attempt is a new connection
            finally:
                log.close()


def delivers(network: Network, pieces: int) -> Callable[[], bool]:
    """Whether ``pieces`` more deliveries than now came from the node."""
    now = network.deliveries
    return lambda: network.deliveries >= now + pieces


@pytest.mark.timeout(120)
def test_joining_a_group_ends_one_way_or_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by being given up.
    monkeypatch.setattr(esdb, "OPENING_DEADLINE", 600.0)
    with NodeProcess(tmp_path / "node") as node:
        with EventStoreDBClient(node.uri) as client:
            append(client, "s", 50)
            client.create_subscription_to_stream("g", "s", max_subscriber_count=0)
        network = Network(int(node.address.rpartition(":")[2]))
        joining = Joining(network)
        try:
            for pieces in PIECES:
                for number in range(JOINING):
                    network.set_mode(f"client{number}", Mode.DELAY, DELAY)
                until(delivers(network, pieces))
                node.stop()
                node.start()
                until(delivers(network, 1))
                network.heal()
            joining.stop.set()
            ends = time.monotonic() + SOON
            for thread in joining.threads:
                thread.join(max(0.0, ends - time.monotonic()))
            assert not [thread for thread in joining.threads if thread.is_alive()]
        finally:
            joining.stop.set()
            network.close()


def test_a_compaction_is_given_up_and_the_data_are_closed(tmp_path: Path) -> None:
    data = tmp_path / "node"
    told: list[str] = []

    def scavenging() -> None:
        try:
            scavenge_of(data)
        except KtError as error:
            told.append(str(error))

    with NodeProcess(data) as node:
        with EventStoreDBClient(node.uri) as client:
            for _ in range(100):
                noise = [NewEvent(type="T", data=os.urandom(1000)) for _ in range(1000)]
                client.append_to_stream("s", current_version=StreamState.ANY, events=noise)
            client.set_stream_metadata("s", metadata={"$tb": 1000})
        thread = threading.Thread(target=scavenging)
        thread.start()
        # RocksDB says so in its own log when the compaction begins, with a flush.
        until(lambda: "Manual Compaction" in (data / "log/LOG").read_text())
        assert node.stop() == 0
        thread.join()
        assert told == [f"the node on {data} ended meanwhile: start it, and repeat the command"]
        assert "the data were not closed cleanly" not in node.errors.read_text()
        node.start()
        with EventStoreDBClient(node.uri) as client:
            assert client.get_stream("s", backwards=True, limit=1)[0].stream_position == 99_999
            assert client.get_stream("s", limit=1)[0].stream_position == 1000
