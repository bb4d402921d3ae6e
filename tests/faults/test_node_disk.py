"""Disks that fill up or cannot be written: the node says so and stops; afterwards everything is there."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kt_es.errors import ConfigError, KtError
from kt_es.eventstore.driver import EventStoreDBClient, EventStoreDBClientException, NewEvent, StreamState
from kt_es.node.ops.checking import check
from kt_es.node.store.storage import RocksStorage
from tests.contracts.nodes import NodeProcess, append, events

CHUNK = 60_000


class SmallDisk:
    """A file system of its own."""

    def __init__(self, path: Path, size: str) -> None:
        self.path = path
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "kt-es-test", str(path)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"mounting is not permitted here: {mounted.stderr.strip()}")

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("mounting a file system needs root")
    path = tmp_path / "disk"
    path.mkdir()
    disk = SmallDisk(path, "8m")
    yield disk
    disk.unmount()


def fill(uri: str) -> list[NewEvent]:
    """Append until it fails; what was acknowledged."""
    acknowledged: list[NewEvent] = []
    with EventStoreDBClient(uri) as client:
        while len(acknowledged) < 2000:
            one = NewEvent(type="T", data=os.urandom(CHUNK), content_type="application/octet-stream")
            try:
                client.append_to_stream("s", current_version=StreamState.ANY, events=one, timeout=10)
            except EventStoreDBClientException:
                return acknowledged
            acknowledged.append(one)
    raise AssertionError("the disk does not fill up")


def there(uri: str, acknowledged: list[NewEvent]) -> None:
    """Everything acknowledged is there, at most the one in doubt besides, and it goes on."""
    with EventStoreDBClient(uri) as client:
        got = client.get_stream("s")
        assert [one.id for one in got[: len(acknowledged)]] == [one.id for one in acknowledged]
        assert [one.data for one in got[: len(acknowledged)]] == [one.data for one in acknowledged]
        assert len(got) <= len(acknowledged) + 1
        append(client, "afterwards", 2)


def stopped(node: NodeProcess) -> str:
    """Its last words."""
    last = last_words(node.errors.read_text())
    assert last.startswith("the node stopped: writing to "), last
    return last


def last_words(log: str) -> str:
    return str(json.loads(log.splitlines()[-1])["event"])


def said(command: list[str]) -> tuple[int, str]:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stderr


def start_command(data: Path) -> list[str]:
    return [sys.executable, "-m", "kt_es.node", "--data", str(data), "--listen", "127.0.0.1:0"]


def test_a_full_disk_stops_the_node_and_loses_nothing(disk: SmallDisk, tmp_path: Path) -> None:
    data = disk.path / "node"
    node = NodeProcess(data)
    # Not on that disk: the last words must have room.
    node.errors = tmp_path / "stderr.txt"
    with node:
        acknowledged = fill(node.uri)
        assert node.ended() == 1
    assert len(acknowledged) > 20
    assert "No space left on device" in stopped(node)
    # Nothing was given back: to start it would have to write.
    code, errors = said(start_command(data))
    assert code in (1, 2)
    assert "No space left on device" in last_words(errors)
    disk.remount("size=64m")
    with node:
        there(node.uri, acknowledged)
        assert node.stop() == 0
    assert check(data).sound


def test_a_file_that_may_not_grow_stops_the_node_and_loses_nothing(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "node")
    with node:
        # What a quota does, without any privilege.
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (4 << 20, resource.RLIM_INFINITY))
        acknowledged = fill(node.uri)
        assert node.ended() == 1
    assert "File too large" in stopped(node)
    with node:
        there(node.uri, acknowledged)
        assert node.stop() == 0
    assert check(node.data).sound


def test_a_disk_that_cannot_be_written_is_named_at_the_start(disk: SmallDisk) -> None:
    data = disk.path / "node"
    with NodeProcess(data) as node:
        with EventStoreDBClient(node.uri) as client:
            client.append_to_stream("s", current_version=StreamState.ANY, events=events(3))
        assert node.stop() == 0
    disk.remount("ro")
    code, errors = said(start_command(data))
    assert code == 2
    assert last_words(errors).startswith(f"data directory {data} cannot be opened: ")
    assert "Read-only file system" in errors
    assert len(errors.splitlines()) == 1
    with pytest.raises(ConfigError, match="Read-only file system"):
        RocksStorage(data)
    with pytest.raises(KtError, match="cannot be used"):
        RocksStorage(disk.path / "new")
    disk.remount("rw")
    with NodeProcess(data) as node, EventStoreDBClient(node.uri) as client:
        assert len(client.get_stream("s")) == 3
