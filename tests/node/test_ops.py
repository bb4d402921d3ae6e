"""Operating a node, through ``kt node`` and real processes: backup, restore, scavenge, check, metrics."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

import httpx

from kt_es.eventstore.driver import EventStoreDBClient, NewEvent, StreamState
from kt_es.node.store.rocks import RocksStorage
from kt_es.node.store.storage import event_key
from tests.contracts.nodes import PATIENCE, NodeProcess, Reader, append, events, positions, raised

ANY = StreamState.ANY
KT = (sys.executable, "-m", "kt_es.cli.main")


def kt(*arguments: object, code: int = 0) -> Any:
    """The JSON that ``kt node`` prints; its words if it fails as expected."""
    command = [*KT, "--json", "node", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout and not code else done.stderr


class OperatedNode(NodeProcess):
    """A node whose second port is open as well."""

    ops = ""

    def start(self) -> Self:
        command = [
            *(sys.executable, "-m", "kt_es.node", "--data", str(self.data)),
            *("--listen", self.address or "127.0.0.1:0", "--http", "127.0.0.1:0"),
        ]
        self.data.mkdir(parents=True, exist_ok=True)
        words = self.data.parent / "words.txt"
        with words.open("wb") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        self._process = process
        assert process.stdout is not None
        self.address = process.stdout.readline().strip()
        said = [json.loads(line) for line in words.read_text().splitlines()]
        address = next(line["address"] for line in said if line["event"] == "serving metrics")
        self.ops = f"http://{address}"
        return self


def metric(node: OperatedNode, line: str) -> float:
    text = httpx.get(f"{node.ops}/metrics", timeout=PATIENCE).text
    (found,) = (one for one in text.splitlines() if one.startswith(f"{line} "))
    return float(found.split()[-1])


def test_metrics_and_health(tmp_path: Path) -> None:
    with OperatedNode(tmp_path / "node") as node, EventStoreDBClient(node.uri) as client:
        append(client, "s", 7)
        client.create_subscription_to_stream("g", "s")
        assert raised(client.create_subscription_to_stream, "g", "s") == "AlreadyExists"
        assert len(client.get_stream("s")) == 7
        group = '{group="g",stream="s"}'
        with (
            Reader(client.subscribe_to_stream("s")) as catching_up,
            Reader(client.read_subscription_to_stream("g", "s")) as consumer,
        ):
            catching_up.take(7)
            consumer.take(7)
            assert metric(node, 'kt_node_open_calls{call="Streams.Subscribe"}') == 1
            assert metric(node, f"kt_node_group_in_flight{group}") == 7
            assert metric(node, f"kt_node_group_lag{group}") == 7
            assert metric(node, f"kt_node_group_consumers{group}") == 1
        assert metric(node, "kt_node_appended_events_total") == 7
        assert metric(node, "kt_node_appends_total") == 1
        assert metric(node, "kt_node_position") == 7
        assert metric(node, "kt_node_sync_seconds_count") >= 1
        assert metric(node, "kt_node_storage_bytes") > 0
        assert metric(node, 'kt_node_sent_messages_total{call="Streams.Read"}') >= 7
        exists = 'kt_node_calls_total{call="PersistentSubscriptions.Create",status="ALREADY_EXISTS"}'
        assert metric(node, exists) == 1
        assert httpx.get(f"{node.ops}/healthz").text == "ok\n"
        assert httpx.get(f"{node.ops}/other").status_code == 404
        assert httpx.post(f"{node.ops}/metrics").status_code == 405
        assert node.stop() == 0


def test_a_backup_of_a_running_node_is_one_state_of_everything(node: NodeProcess, tmp_path: Path) -> None:
    stop = threading.Event()
    acknowledged = 0

    def write() -> None:
        nonlocal acknowledged
        with EventStoreDBClient(node.uri) as client:
            while not stop.is_set():
                client.append_to_stream("busy", current_version=ANY, events=events(3, acknowledged))
                acknowledged += 3

    with EventStoreDBClient(node.uri) as client:
        append(client, "s", 20)
        client.create_subscription_to_stream("g", "s", min_checkpoint_count=1, max_checkpoint_count=1)
        with Reader(client.read_subscription_to_stream("g", "s"), ack=True) as reader:
            reader.take(20)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        before = acknowledged
        made = kt("backup", tmp_path / "backup", "--data", node.data)
    finally:
        stop.set()
        writer.join()
    assert made["position"] >= 20 + before
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o700
    assert not list(node.data.glob("*.tmp"))
    kt("restore", tmp_path / "backup", "--data", tmp_path / "again")
    with NodeProcess(tmp_path / "again") as second, EventStoreDBClient(second.uri) as client:
        assert positions(client.get_stream("s")) == list(range(20))
        busy = client.get_stream("busy")
        assert [int(one.data) for one in busy] == list(range(len(busy)))
        assert before <= len(busy) <= acknowledged
        assert len(busy) % 3 == 0
        assert client.get_subscription_info("g", "s").group_name == "g"
        append(client, "s", 1, 19)


def test_a_stopped_node_is_backed_up_scavenged_and_checked(node: NodeProcess, tmp_path: Path) -> None:
    with EventStoreDBClient(node.uri) as client:
        append(client, "s", 50)
        client.set_stream_metadata("s", metadata={"$tb": 40})
    assert "in use" in kt("--check", "--data", node.data, code=1)
    node.stop()
    assert kt("scavenge", "--data", node.data)["events"] == 40
    assert kt("backup", tmp_path / "backup", "--data", node.data)["position"] == 51
    report = kt("--check", "--data", node.data)
    assert (report["sound"], report["events"], report["position"]) == (True, 11, 51)
    node.start()
    with EventStoreDBClient(node.uri) as client:
        assert positions(client.get_stream("s")) == list(range(40, 50))


def test_restore_overwrites_nothing_and_takes_complete_backups_only(
    node: NodeProcess, tmp_path: Path
) -> None:
    with EventStoreDBClient(node.uri) as client:
        append(client, "s", 2)
    kt("backup", tmp_path / "backup", "--data", node.data)
    assert "not empty" in kt("backup", tmp_path / "backup", "--data", node.data, code=2)
    assert "not empty" in kt("restore", tmp_path / "backup", "--data", node.data, code=2)
    assert "lies in" in kt("backup", node.data / "inside", "--data", node.data, code=2)
    assert "no complete backup" in kt("restore", node.data, "--data", tmp_path / "new", code=2)
    table = next((tmp_path / "backup" / "log").glob("*.sst"))
    table.write_bytes(bytes(table.stat().st_size))
    assert "Corruption" in kt("restore", tmp_path / "backup", "--data", tmp_path / "new", code=2)
    assert not (tmp_path / "new").exists()


def test_a_running_node_gives_space_back_and_its_groups_go_on(node: NodeProcess) -> None:
    with EventStoreDBClient(node.uri) as client:
        for number in range(20):
            noise = [
                NewEvent(type="T", data=os.urandom(50_000), content_type="application/octet-stream")
                for _ in range(10)
            ]
            client.append_to_stream(f"s{number % 2}", current_version=ANY, events=noise)
        append(client, "work", 30)
        client.create_subscription_to_stream("g", "work", min_checkpoint_count=1, max_checkpoint_count=1)
        with Reader(client.read_subscription_to_stream("g", "work")) as reader:
            for one in reader.take(10):
                reader.subscription.ack(one)
        client.delete_stream("s0", current_version=ANY)
        client.set_stream_metadata("work", metadata={"$tb": 5})
        kept = [one.id for one in client.get_stream("s1")]
        done = kt("scavenge", "--data", node.data)
        assert (done["events"], done["streams"]) == (105, 2)
        assert done["disk_after"] < done["disk_before"] * 0.7
        assert [one.id for one in client.get_stream("s1")] == kept
        append(client, "s0", 1, 99)
        assert positions(client.get_stream("s0")) == [100]
        with Reader(client.read_subscription_to_stream("g", "work"), ack=True) as reader:
            rest = reader.take(20)
        assert positions(rest)[-1] == 29
    node.kill()
    assert kt("--check", "--data", node.data)["sound"]
    node.start()


def test_the_control_socket_is_the_owners_alone_and_what_a_kill_leaves_does_no_harm(
    node: NodeProcess, tmp_path: Path
) -> None:
    control = node.data / "control"
    assert stat.S_ISSOCK(control.stat().st_mode)
    assert stat.S_IMODE(control.stat().st_mode) == 0o600
    node.kill()
    assert control.exists()
    kt("backup", tmp_path / "one", "--data", node.data)
    node.start()
    kt("backup", tmp_path / "two", "--data", node.data)
    node.stop()
    assert not control.exists()


def test_a_path_too_long_for_a_socket_is_no_obstacle(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / ("long" * 40) / "node") as node:
        assert kt("scavenge", "--data", node.data)["events"] == 0


def test_a_check_names_the_first_thing_that_is_wrong(node: NodeProcess, tmp_path: Path) -> None:
    with EventStoreDBClient(node.uri) as client:
        append(client, "s", 5)
    node.stop()
    storage = RocksStorage(node.data)
    storage.write([], [event_key(1, 2)])
    storage.sync()
    storage.close()
    assert "stream s, revision 3: revisions from 2 on are missing" in kt(
        "--check", "--data", node.data, code=4
    )
    kt("--check", "--data", tmp_path, code=2)
    # A backup of it is refused when it is to be restored.
    kt("backup", tmp_path / "backup", "--data", node.data)
    kt("restore", tmp_path / "backup", "--data", tmp_path / "new", code=4)
    assert not (tmp_path / "new").exists()
