"""The storage of projections on a disk that is really full: it answers, takes nothing, and resumes."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kt_es.errors import DiskFullError, LockedError
from kt_es.ledger.rocks import RocksStore
from tests.faults.full_disk import FullDisk, full_disk

FAMILIES = ("pages", "meta")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FullDisk]:
    with full_disk(tmp_path, 24) as made:
        yield made


def write_until_full(store: RocksStore, disk: FullDisk) -> list[bytes]:
    """The keys that were written until the disk was full; the one after them was refused."""
    disk.fill()
    written: list[bytes] = []
    for number in itertools.count():
        key = b"%d" % number
        try:
            store.write([("meta", key, key * 50), ("pages", key, key)], sync=number % 2 == 0)
        except DiskFullError:
            return written
        written.append(key)
    raise AssertionError


def is_full(store: RocksStore) -> bool:
    """A call, as what it says changes between two questions."""
    return store.is_full


def has_all(store: RocksStore, keys: list[bytes]) -> bool:
    return store.get_many("meta", keys) == [key * 50 for key in keys] and len(
        list(store.scan("meta"))
    ) >= len(keys)


def test_it_answers_while_full_and_resumes_with_little_space(disk: FullDisk) -> None:
    """With less space than RocksDB itself would wait for, which is a buffer of writes of 16 MiB."""
    store = RocksStore.open(disk.path / "data", FAMILIES)
    store.write([("meta", b"before", b"before" * 50)])
    keys = [*write_until_full(store, disk), b"before"]
    refused = b"%d" % (len(keys) - 1)
    assert is_full(store)
    with pytest.raises(DiskFullError, match="make room there"):
        store.ensure_writable()
    with pytest.raises(DiskFullError):
        store.write([("meta", b"still", b"")])
    assert has_all(store, keys)
    assert store.get("meta", refused) is None
    disk.free()
    disk.fill(leave=4 << 20)
    store.write([("meta", refused, refused * 50)])
    assert not is_full(store)
    assert has_all(store, [*keys, refused])
    store.close()
    again = RocksStore.open(disk.path / "data", FAMILIES)
    assert has_all(again, [*keys, refused])
    assert again.get("meta", b"still") is None
    again.close()


def test_a_start_on_a_full_disk_reads_and_later_writes(disk: FullDisk) -> None:
    store = RocksStore.open(disk.path / "data", FAMILIES)
    keys = write_until_full(store, disk)
    store.close()
    started = RocksStore.open(disk.path / "data", FAMILIES)
    assert is_full(started)
    assert has_all(started, keys)
    with pytest.raises(DiskFullError):
        started.write([("meta", b"new", b"")])
    disk.free()
    started.ensure_writable()
    assert not is_full(started)
    started.write([("meta", b"new", b"1")])
    assert has_all(started, keys)
    started.close()


@pytest.mark.parametrize("left", [0, 8192, 20480, 65536])
def test_a_new_one_waits_for_space(disk: FullDisk, left: int) -> None:
    """However far it came: what an attempt left behind keeps none of the next ones from succeeding."""
    disk.fill(leave=left)
    for _ in range(2):
        with pytest.raises(DiskFullError):  # noqa: PT012 - either finds the disk full
            store = RocksStore.open(disk.path / "data", FAMILIES)
            try:
                for _ in range(100):
                    store.write([("meta", b"k", bytes(1000))])
            finally:
                store.close()
    disk.free()
    store = RocksStore.open(disk.path / "data", FAMILIES)
    store.write([("meta", b"k", b"2")])
    store.close()


def test_a_process_that_took_the_directory_meanwhile_is_reported(disk: FullDisk) -> None:
    """A database that is open to read only has no lock; that is no reason to wait for space for ever."""
    store = RocksStore.open(disk.path / "data", FAMILIES)
    write_until_full(store, disk)
    with pytest.raises(DiskFullError):
        store.ensure_writable()
    store.close()
    waiting = RocksStore.open(disk.path / "data", FAMILIES)
    assert waiting.is_full
    disk.free()
    program = (
        "import sys; from pathlib import Path; from kt_es.ledger.rocks import RocksStore;"
        f"store = RocksStore.open(Path({str(disk.path / 'data')!r}), {FAMILIES!r});"
        "print('open', flush=True);"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(LockedError, match="in use by another process"):
            waiting.ensure_writable()
        assert other.stdin is not None
        other.stdin.close()
    waiting.ensure_writable()
    waiting.close()


def test_readers_notice_nothing_of_the_exchange(disk: FullDisk) -> None:
    store = RocksStore.open(disk.path / "data", FAMILIES)
    store.write([("meta", b"k", b"1")])
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            try:
                found = (store.get("meta", b"k"), dict(store.scan("meta", b"k"))[b"k"])
            except Exception as error:
                wrong.append(error)
                return
            if found != (b"1", b"1"):
                wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        write_until_full(store, disk)
        with pytest.raises(DiskFullError):
            store.ensure_writable()
        disk.free()
        store.ensure_writable()
        store.write([("meta", b"other", b"")])
    finally:
        stop.set()
        for reader in readers:
            reader.join()
        store.close()
    assert not wrong
