"""A node that is stopped while its answers are on their way: whoever waits for one is told in time."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from esdbclient import EventStoreDBClient

from kt_es.errors import UnavailableError
from kt_es.eventstore import esdb
from kt_es.eventstore.esdb import connect
from tests.contracts.nodes import NodeProcess, append
from tests.torture.proxy import Mode, Network

JOINING = 8
DELAY = 0.4  # seconds by which each piece of an answer is late
WAITS = (1.2, 1.1, 1.3)  # seconds until the stop: where a call is by then decides what becomes of it
SOON = 6.0


def join_again_and_again(uri: str, stop: threading.Event) -> None:
    while not stop.is_set():
        log = connect(uri)
        try:
            group = log.join_group("s", "g")
            if group is not None:
                time.sleep(0.05)
                group.stop()
        except UnavailableError:
            time.sleep(0.02)
        finally:
            log.close()


@pytest.mark.timeout(120)
def test_joining_a_group_ends_one_way_or_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by being given up.
    monkeypatch.setattr(esdb, "OPENING_DEADLINE", 600.0)
    stop = threading.Event()
    with NodeProcess(tmp_path / "node") as node:
        with EventStoreDBClient(node.uri) as client:
            append(client, "s", 50)
            client.create_subscription_to_stream("g", "s", max_subscriber_count=0)
        network = Network(int(node.address.rpartition(":")[2]))
        try:
            uris = [network.add(f"client{number}") for number in range(JOINING)]
            joining = [
                threading.Thread(target=join_again_and_again, args=(uri, stop), daemon=True) for uri in uris
            ]
            for thread in joining:
                thread.start()
            for wait in WAITS:
                for number in range(JOINING):
                    network.set_mode(f"client{number}", Mode.DELAY, DELAY)
                time.sleep(wait)
                node.stop()
                node.start()
                time.sleep(0.3)
                network.heal()
            stop.set()
            ends = time.monotonic() + SOON
            for thread in joining:
                thread.join(max(0.0, ends - time.monotonic()))
            assert not [thread for thread in joining if thread.is_alive()]
        finally:
            network.close()
