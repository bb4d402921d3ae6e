"""Disks that are full: writes are refused, reads go on, and writes go on when there is space.

Disks that cannot be written to for another reason: the node says so and stops; then everything is there.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import pytest

from kt_es.errors import KtError
from kt_es.eventstore.driver import EventStoreDBClient, EventStoreDBClientException, NewEvent, StreamState
from kt_es.node.ops.checking import check
from kt_es.node.store.rocks import RocksStorage
from tests.contracts.nodes import PATIENCE, NodeProcess, append, error_parts, events, raised, until
from tests.faults.full_disk import FullDisk, full_disk

CHUNK = 60_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FullDisk]:
    with full_disk(tmp_path, 16) as disk:
        yield disk


@pytest.fixture
def node(disk: FullDisk, tmp_path: Path) -> NodeProcess:
    node = NodeProcess(disk.path / "node")
    # Not on that disk: what the node says must have room.
    node.errors = tmp_path / "stderr.txt"
    return node


def one() -> NewEvent:
    return NewEvent(type="T", data=os.urandom(CHUNK), content_type="application/octet-stream")


def add(client: EventStoreDBClient, event: NewEvent, stream: str = "s") -> None:
    client.append_to_stream(stream, current_version=StreamState.ANY, events=event, timeout=PATIENCE)


def fill(uri: str) -> list[NewEvent]:
    """Append until it is refused; what was acknowledged."""
    acknowledged: list[NewEvent] = []
    with EventStoreDBClient(uri) as client:
        while len(acknowledged) < 2000:
            event = one()
            try:
                add(client, event)
            except EventStoreDBClientException:
                return acknowledged
            acknowledged.append(event)
    raise AssertionError("the disk does not fill up")


def refusal(uri: str, stream: str = "s") -> tuple[grpc.StatusCode, str]:
    with EventStoreDBClient(uri) as client:
        status, text, _ = error_parts(add, client, one(), stream)
    return status, text


def is_taken(client: EventStoreDBClient, event: NewEvent) -> bool:
    try:
        add(client, event)
    except EventStoreDBClientException:
        return False
    return True


def contents(uri: str, stream: str = "s") -> list[tuple[Any, bytes]]:
    with EventStoreDBClient(uri) as client:
        return [(event.id, event.data) for event in client.get_stream(stream)]


def of(acknowledged: list[NewEvent]) -> list[tuple[Any, bytes]]:
    return [(event.id, event.data) for event in acknowledged]


def there(uri: str, acknowledged: list[NewEvent]) -> None:
    """Everything acknowledged is there, at most the one in doubt besides, and it goes on."""
    got = contents(uri)
    assert got[: len(acknowledged)] == of(acknowledged)
    assert len(got) <= len(acknowledged) + 1
    with EventStoreDBClient(uri) as client:
        append(client, "afterwards", 2)


def lines_with(node: NodeProcess, words: str) -> int:
    """How many lines of its log have these words."""
    return sum(words in line for line in node.errors.read_text().splitlines())


def test_a_full_disk_refuses_writes_serves_reads_and_is_written_again_by_itself(
    disk: FullDisk, node: NodeProcess
) -> None:
    with node, EventStoreDBClient(node.uri) as client, EventStoreDBClient(node.uri) as writer:
        first = one()
        add(client, first)
        with client.subscribe_to_stream("s") as live:
            assert next(live).id == first.id
            disk.fill()
            acknowledged = [first, *fill(node.uri)]
            for _ in range(20):
                status, text = refusal(node.uri)
                assert (status, text.split(":")[0]) == (grpc.StatusCode.UNAVAILABLE, "the disk is full")
            assert str(disk.path) not in text
            # Reads go on, and the subscription does: it gets what was acknowledged, and no more.
            assert contents(node.uri) == of(acknowledged)
            for event in acknowledged[1:]:
                assert next(live).id == event.id
            disk.free()
            # Nobody does anything: it is the same process, and the same subscription.
            last = one()
            until(lambda: is_taken(writer, last))
            assert next(live).id == last.id
        assert contents(node.uri) == of([*acknowledged, last])
        assert lines_with(node, "the disk is full: writes are refused") == 1
        assert lines_with(node, "there is space again: writes go on") == 1
        assert node.stop() == 0
    assert check(node.data).sound


def test_a_full_disk_again_and_again(disk: FullDisk, node: NodeProcess) -> None:
    acknowledged: list[NewEvent] = []
    with node, EventStoreDBClient(node.uri) as client:
        for at in range(4):
            event = one()
            until(lambda event=event: is_taken(client, event))
            acknowledged.append(event)
            # Space for some more, in another place of the write-ahead log each time.
            disk.fill(leave=at * 5 * CHUNK)
            acknowledged += fill(node.uri)
            assert contents(node.uri) == of(acknowledged)
            disk.free()
        until(lambda: is_taken(client, event))
        assert contents(node.uri) == of(acknowledged)
        assert node.stop() == 0
    assert check(node.data).sound


def test_killed_while_full_it_starts_to_read_and_is_written_again_by_itself(
    disk: FullDisk, node: NodeProcess
) -> None:
    with node:
        disk.fill(leave=10 * CHUNK)
        acknowledged = fill(node.uri)
        assert len(acknowledged) > 2
        node.kill()
        for _ in range(3):
            node.start()
            assert contents(node.uri) == of(acknowledged)
            assert refusal(node.uri)[0] is grpc.StatusCode.UNAVAILABLE
            # Nothing of what was refused shows, and a second node is kept out although nothing is written.
            code, errors = ended(start_command(node.data))
            assert code == 1
            assert "is in use by another node" in errors
            node.kill()
        node.start()
        disk.free()
        with EventStoreDBClient(node.uri) as client:
            last = one()
            until(lambda: is_taken(client, last))
        there(node.uri, [*acknowledged, last])
        assert len(contents(node.uri)) == len(acknowledged) + 1
        assert node.stop() == 0
    assert check(node.data).sound


def worked_off(worker: EventStoreDBClient, count: int, park: int = -1) -> list[int]:
    """The next ``count`` events of the group "g", settled."""
    got: list[int] = []
    with worker.read_subscription_to_stream("g", "work") as subscription:
        while len(got) < count:
            event = next(subscription)
            got.append(int(event.data))
            if got[-1] == park:
                subscription.nack(event, "park")
            else:
                subscription.ack(event)
    return got


def is_parked(client: EventStoreDBClient) -> bool:
    return raised(client.get_stream, "$persistentsubscription-work::g-parked") == ""


def test_a_full_disk_loses_no_place_of_a_group(disk: FullDisk, node: NodeProcess) -> None:
    with node, EventStoreDBClient(node.uri) as client, EventStoreDBClient(node.uri) as worker:
        append(client, "work", 6)
        client.create_subscription_to_stream("g", "work", min_checkpoint_count=1, max_checkpoint_count=1)
        disk.fill()
        fill(node.uri)
        assert worked_off(worker, 6, park=1) == [0, 1, 2, 3, 4, 5]
        assert not is_parked(client)
        disk.free()
        until(lambda: is_parked(client))
        append(client, "work", 1, 5)
        assert worked_off(worker, 1) == [6]
        assert node.stop() == 0
    assert check(node.data).sound
    # What was settled while the disk was full is on disk by now: nothing of it comes again.
    with node, EventStoreDBClient(node.uri) as client, EventStoreDBClient(node.uri) as worker:
        append(client, "work", 1, 6)
        got = worked_off(worker, 1)
        assert got in ([6], [7])


def test_a_group_that_cannot_be_changed_while_the_disk_is_full_stays(
    disk: FullDisk, node: NodeProcess
) -> None:
    with node, EventStoreDBClient(node.uri) as client, EventStoreDBClient(node.uri) as worker:
        append(client, "work", 4)
        client.create_subscription_to_stream("g", "work")
        disk.fill()
        fill(node.uri)
        for call, arguments in (
            (client.create_subscription_to_stream, {"group_name": "h"}),
            (client.update_subscription_to_stream, {"group_name": "g", "max_retry_count": 3}),
            (client.delete_subscription, {"group_name": "g"}),
        ):
            status, text, _ = error_parts(call, stream_name="work", **arguments)
            assert status is grpc.StatusCode.UNAVAILABLE, text
        assert [group.group_name for group in client.list_subscriptions()] == ["g"]
        assert worked_off(worker, 4) == [0, 1, 2, 3]
        disk.free()
        until(lambda: is_taken(client, one()))
        client.delete_subscription("g", "work")
        assert not client.list_subscriptions()
        assert node.stop() == 0
    assert check(node.data).sound


def test_stopped_while_full_it_ends_cleanly(disk: FullDisk, node: NodeProcess) -> None:
    with node:
        disk.fill(leave=10 * CHUNK)
        acknowledged = fill(node.uri)
        assert node.stop() == 0
    # Also when it was full from the start.
    with node:
        assert contents(node.uri) == of(acknowledged)
        assert node.stop() == 0
    disk.free()
    with node:
        there(node.uri, acknowledged)
        assert node.stop() == 0


def test_a_disk_too_full_to_begin_is_waited_for(disk: FullDisk, node: NodeProcess) -> None:
    node.data.mkdir()
    disk.fill()
    starting = threading.Thread(target=node.start)
    starting.start()
    until(lambda: node.errors.exists() and lines_with(node, "the disk is full; waiting for space") == 1)
    disk.free()
    starting.join(PATIENCE)
    assert not starting.is_alive()
    with EventStoreDBClient(node.uri) as client:
        append(client, "s", 2)
    assert lines_with(node, "the disk is full; waiting for space") == 1
    assert node.stop() == 0


def test_metrics_and_health_show_a_full_disk(disk: FullDisk, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    kt = [sys.executable, "-m", "kt_es.cli.main", "-q", "--logs", "json"]
    command = [
        *kt,
        "node",
        "--data",
        str(disk.path / "node"),
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ]
    with log.open("wb") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        try:
            until(lambda: "serving" in events_of(log))
            uri = f"esdb://{events_of(log)['serving']['address']}?Tls=false"
            url = f"http://{events_of(log)['serving metrics']['address']}"
            assert health(url) == (200, "ok\n")
            assert b"kt_node_disk_full 0.0" in urlopen(f"{url}/metrics").read()
            disk.fill()
            fill(uri)
            assert health(url) == (503, "the disk is full: writes are refused, reads go on\n")
            assert b"kt_node_disk_full 1.0" in urlopen(f"{url}/metrics").read()
            disk.free()
            until(lambda: health(url) == (200, "ok\n"))
            assert b"kt_node_disk_full 0.0" in urlopen(f"{url}/metrics").read()
            full = events_of(log)["the disk is full: writes are refused, reads go on"]
            assert full["level"] == "error"
            assert "No space left on device" in full["reason"]
            assert "seconds" in events_of(log)["there is space again: writes go on"]
        finally:
            process.terminate()


def test_a_log_on_the_full_disk_ends_nobody(disk: FullDisk) -> None:
    log = disk.path / "log.json"
    kt = [sys.executable, "-m", "kt_es.cli.main", "-q", "--logs", "json"]
    command = [*kt, "node", "--data", str(disk.path / "node"), "--listen", "127.0.0.1:0"]
    with log.open("wb") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        try:
            until(lambda: "serving" in events_of(log))
            uri = f"esdb://{events_of(log)['serving']['address']}?Tls=false"
            # To the last byte of its last block.
            stderr.write(b" " * (-log.stat().st_size % 4096 - 1) + b"\n")
            stderr.flush()
            disk.fill()
            acknowledged = fill(uri)
            assert refusal(uri)[0] is grpc.StatusCode.UNAVAILABLE
            assert contents(uri) == of(acknowledged) if acknowledged else True
            disk.free()
            with EventStoreDBClient(uri) as client:
                until(lambda: is_taken(client, one()))
            until(lambda: "there is space again: writes go on" in events_of(log))
            until(lambda: "log lines could not be written" in events_of(log))
            assert events_of(log)["log lines could not be written"]["lines"] == 1
        finally:
            process.terminate()
    assert process.returncode == 0


def events_of(log: Path) -> dict[str, Any]:
    lines = log.read_text().splitlines(keepends=True)
    error_parts = [json.loads(line) for line in lines if line.endswith("\n") and line.strip()]
    return {line["event"]: line for line in error_parts}


def health(url: str) -> tuple[int, str]:
    try:
        with urlopen(f"{url}/healthz", timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def ended(command: list[str]) -> tuple[int, str]:
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return process.returncode, process.stderr


def start_command(data: Path) -> list[str]:
    return [sys.executable, "-m", "kt_es.node", "--data", str(data), "--listen", "127.0.0.1:0"]


def test_a_file_that_may_not_grow_stops_the_node_and_loses_nothing(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "node")
    with node:
        # No space is missing, and none that comes would help.
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (4 << 20, resource.RLIM_INFINITY))
        acknowledged = fill(node.uri)
        assert node.ended() == 1
    last = json.loads(node.errors.read_text().splitlines()[-1])["event"]
    assert last.startswith("the node stopped: writing to ")
    assert "File too large" in last
    with node:
        there(node.uri, acknowledged)
        assert node.stop() == 0
    assert check(node.data).sound


def test_a_disk_that_cannot_be_written_is_named_at_the_start(disk: FullDisk, node: NodeProcess) -> None:
    if disk.path.parts[1] == "proc":
        pytest.skip("mounting anew needs root")
    with node:
        with EventStoreDBClient(node.uri) as client:
            client.append_to_stream("s", current_version=StreamState.ANY, events=events(3))
        assert node.stop() == 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk.path)], check=True)
    code, errors = ended(start_command(node.data))
    # A system makes a disk with a fault read only: somebody mends it, and then a start helps.
    assert code == 1
    (line,) = map(json.loads, errors.splitlines())
    assert line["event"].startswith(f"data directory {node.data} cannot be opened: ")
    assert "Read-only file system" in line["event"]
    for data in (node.data, disk.path / "new"):
        with pytest.raises(KtError, match=r"cannot be opened: .*Read-only file system"):
            RocksStorage(data)
    subprocess.run(["mount", "-o", "remount,rw", str(disk.path)], check=True)
    with node, EventStoreDBClient(node.uri) as client:
        assert len(client.get_stream("s")) == 3
