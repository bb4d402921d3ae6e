"""The node killed at any moment and started again: what was acknowledged is there, groups go on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from kt_es.eventstore.driver import EventStoreDBClient, EventStoreDBClientException, NewEvent, StreamState
from tests.contracts.nodes import (
    NodeProcess,
    Reader,
    append,
    event,
    events,
    numbers,
    positions,
    reached,
    until,
)

ANY = StreamState.ANY


class Writer:
    """Appends to a stream of its own until told to stop, and repeats what was not answered."""

    def __init__(self, uri: str, stream: str) -> None:
        self.stream = stream
        self.acknowledged: list[NewEvent] = []
        self._uri = uri
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with EventStoreDBClient(self._uri) as client:
            number = 0
            while not self._enough.is_set():
                batch = events(1 + number % 3, number)
                what: Any = batch[0] if len(batch) == 1 else batch
                if self._until_answered(client, what):
                    self.acknowledged += batch
                    number += len(batch)

    def _until_answered(self, client: EventStoreDBClient, what: Any) -> bool:
        while True:
            try:
                client.append_to_stream(self.stream, current_version=ANY, events=what, timeout=5)
                return True
            except EventStoreDBClientException:
                if self._enough.wait(0.05):
                    return False

    def stop(self) -> list[NewEvent]:
        self._enough.set()
        self._thread.join()
        return self.acknowledged


def test_nothing_acknowledged_is_lost_or_doubled_over_kills(node: NodeProcess) -> None:
    writers = [Writer(node.uri, f"stream-{number}") for number in range(4)]
    for _ in range(3):
        for writer in writers:
            goal = len(writer.acknowledged) + 20
            until(lambda writer=writer, goal=goal: len(writer.acknowledged) > goal)
        node.kill()
        node.start()
    written = {writer.stream: [one.id for one in writer.stop()] for writer in writers}
    with EventStoreDBClient(node.uri) as client:
        reached(client)
        everything = [one for one in client.read_all() if one.stream_name in written]
        for stream, ids in written.items():
            got = client.get_stream(stream)
            assert positions(got) == list(range(len(got)))
            # The last one may have been written without its answer having arrived.
            assert [one.id for one in got][: len(ids)] == ids
            assert len(got) <= len(ids) + 3
            assert [one.id for one in everything if one.stream_name == stream] == [one.id for one in got]
    commits = [one.commit_position or 0 for one in everything]
    assert commits == sorted(set(commits))


def test_heads_metadata_and_deletions_survive(node: NodeProcess) -> None:
    with EventStoreDBClient(node.uri) as client:
        append(client, "truncated", 6)
        client.set_stream_metadata("truncated", metadata={"$tb": 4})
        append(client, "deleted", 3)
        client.delete_stream("deleted", current_version=2)
        append(client, "tombstoned", 3)
        client.tombstone_stream("tombstoned", current_version=2)
        batch = events(2)
        position = client.append_to_stream("repeated", current_version=ANY, events=batch)
    node.kill()
    node.start()
    with EventStoreDBClient(node.uri) as client:
        reached(client)
        assert positions(client.get_stream("truncated")) == [4, 5]
        append(client, "truncated", 1, 5)
        assert client.get_current_version("deleted") is StreamState.NO_STREAM
        append(client, "deleted", 1, 2)
        assert positions(client.get_stream("deleted")) == [3]
        with pytest.raises(EventStoreDBClientException, match="is deleted"):
            client.append_to_stream("tombstoned", current_version=ANY, events=events(2))
        assert client.append_to_stream("repeated", current_version=ANY, events=batch) == position
        assert client.append_to_stream("new", current_version=ANY, events=event()) > position


def test_a_group_goes_on_at_its_checkpoint(node: NodeProcess) -> None:
    with EventStoreDBClient(node.uri) as client:
        append(client, "s", 10)
        client.create_subscription_to_stream("g", "s", min_checkpoint_count=1, max_checkpoint_count=1)
        reader = Reader(client.read_subscription_to_stream("g", "s"))
        came = reader.take(10)
        for one in [*came[:4], came[6]]:
            reader.subscription.ack(one)
        until(lambda: client.get_subscription_info("g", "s").last_checkpointed_event_position == "3")
        node.kill()
        assert reader.ends() == "ServiceUnavailable"
    node.start()
    with EventStoreDBClient(node.uri) as client:
        reached(client)
        assert client.get_subscription_info("g", "s").max_checkpoint_count == 1
        with Reader(client.read_subscription_to_stream("g", "s"), ack=True) as second:
            again = second.take(6)
    assert positions(again) == [4, 5, 6, 7, 8, 9]
    assert {one.retry_count for one in again} == {0}


def test_parked_messages_and_filters_of_groups_survive(node: NodeProcess) -> None:
    with EventStoreDBClient(node.uri) as client:
        append(client, "s", 3)
        client.create_subscription_to_stream("g", "s")
        client.create_subscription_to_all("all", filter_include=("wanted",), filter_by_stream_name=True)
        with Reader(client.read_subscription_to_stream("g", "s")) as reader:
            for one in reader.take(3):
                reader.subscription.nack(one, "park")
            until(lambda: client.get_subscription_info("g", "s").parked_message_count == 3)
    node.kill()
    node.start()
    with EventStoreDBClient(node.uri) as client:
        reached(client)
        append(client, "wanted", 1)
        with Reader(client.read_subscription_to_all("all"), ack=True) as reader:
            assert reader.one().stream_name == "wanted"
        assert client.get_subscription_info("g", "s").parked_message_count == 3
        with Reader(client.read_subscription_to_stream("g", "s"), ack=True) as reader:
            # Whether the group had been checkpointed behind them or not, all come again.
            client.replay_parked_events("g", "s")
            came = reader.take(3)
            assert set(positions(came)) <= {0, 1, 2}


def test_a_stop_is_clean_and_ends_subscriptions(node: NodeProcess) -> None:
    with EventStoreDBClient(node.uri) as client:
        append(client, "s", 2)
        client.create_subscription_to_stream("g", "s")
        following = Reader(client.subscribe_to_stream("s"))
        consuming = Reader(client.read_subscription_to_stream("g", "s"), ack=True)
        following.take(2)
        consuming.take(2)
        until(lambda: not client.get_subscription_info("g", "s").total_in_flight_messages)
        assert node.stop() == 0
        assert following.ends() == consuming.ends() == "ServiceUnavailable"
    node.start()
    with EventStoreDBClient(node.uri) as client:
        reached(client)
        assert numbers(client.get_stream("s")) == [0, 1]
        # A clean stop writes no checkpoint either, and by default none is due before ten events.
        append(client, "s", 1, 1)
        with Reader(client.read_subscription_to_stream("g", "s"), ack=True) as reader:
            assert positions(reader.take(3)) == [0, 1, 2]


def run_node(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kt_es.node", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_second_node_on_the_same_data_is_refused(node: NodeProcess) -> None:
    second = run_node("--data", str(node.data), "--listen", "127.0.0.1:0")
    assert second.returncode == 1
    assert json.loads(second.stderr)["event"].startswith("data directory")
    assert "in use by another node" in second.stderr


def test_what_cannot_be_used_is_named_in_one_line(node: NodeProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong = [
        (str(tmp_path / "file" / "data"), "127.0.0.1:0", "Not a directory"),
        (str(tmp_path / "other"), node.address, "Address already in use"),
        (str(tmp_path / "other"), "nowhere", "not HOST:PORT"),
    ]
    for data, listen, problem in wrong:
        ended = run_node("--data", data, "--listen", listen)
        assert ended.returncode == 2
        assert problem in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_a_killed_consumer_frees_its_place(node: NodeProcess) -> None:
    with EventStoreDBClient(node.uri) as client:
        append(client, "s", 2)
        client.create_subscription_to_stream("g", "s", max_subscriber_count=1)
        script = (
            "import sys; from kt_es.eventstore.driver import EventStoreDBClient as C; c = C(sys.argv[1])\n"
            "for e in c.read_subscription_to_stream('g', 's'): print(e.stream_position, flush=True)"
        )
        command = [sys.executable, "-c", script, node.uri]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as consumer:
            assert consumer.stdout is not None
            assert [consumer.stdout.readline().strip() for _ in range(2)] == ["0", "1"]
            consumer.kill()
        with Reader(read_when_free(client), ack=True) as reader:
            again = reader.take(2)
    assert positions(again) == [0, 1]
    assert [one.retry_count for one in again] == [1, 1]


def read_when_free(client: EventStoreDBClient) -> Any:
    admitted: list[Any] = []

    def admit() -> bool:
        try:
            admitted.append(client.read_subscription_to_stream("g", "s"))
        except EventStoreDBClientException:
            return False
        return True

    until(admit)
    return admitted[0]
