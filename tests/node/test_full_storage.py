"""What a full disk does to the node's storage, case by case: what is refused, and what is in doubt."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from kt_es.node.store.database import Acknowledged
from kt_es.node.store.rocks import RocksStorage
from kt_es.node.store.storage import NoSpaceError, StorageError

NO_SPACE = (
    "IO error: No space left on device: While appending to file: /x/000004.log: No space left on device"
)


class Failing:
    """A database of which the method ``name`` fails with ``text``."""

    def __init__(self, inner: Any, name: str, text: str) -> None:
        self._inner = inner
        self._name = name
        self._text = text

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            return self._fail
        return getattr(self._inner, name)

    def _fail(self, *_: object) -> None:
        raise Exception(self._text)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[RocksStorage]:
    storage = RocksStorage(tmp_path)
    storage.write([(b"a", b"1")], [])
    storage.sync()
    yield storage
    storage.close()


def failing(storage: RocksStorage, name: str, text: str) -> Any:
    inner = storage._db
    storage._db = Failing(inner, name, text)  # type: ignore[assignment]
    return inner


@pytest.mark.parametrize(
    "text", [NO_SPACE, NO_SPACE.replace("No space left on device", "Disk quota exceeded")]
)
def test_a_write_without_space_is_refused_until_the_storage_recovers(
    storage: RocksStorage, text: str
) -> None:
    inner = failing(storage, "write", text)
    with pytest.raises(NoSpaceError, match="the disk is full"):
        storage.write([(b"b", b"2")], [])
    # Not even tried: the database may have come round, with half a record in its log.
    storage._db = inner
    with pytest.raises(NoSpaceError):
        storage.write([(b"b", b"2")], [])
    assert (storage.get(b"a"), storage.get(b"b")) == (b"1", None)
    assert storage.may_recover()
    storage.recover()
    assert (storage.get(b"a"), storage.get(b"b")) == (b"1", None)
    storage.write([(b"b", b"2")], [])
    storage.sync()
    assert storage.get(b"b") == b"2"


@pytest.mark.parametrize(
    "text", ["IO error: Input/output error: x", "IO error: File too large: x", "Corruption: x"]
)
def test_another_failure_of_a_write_is_in_doubt(storage: RocksStorage, text: str) -> None:
    inner = failing(storage, "write", text)
    with pytest.raises(StorageError) as caught:
        storage.write([(b"b", b"2")], [])
    assert not isinstance(caught.value, NoSpaceError)
    storage._db = inner


def test_a_sync_that_fails_is_in_doubt_also_for_want_of_space(storage: RocksStorage) -> None:
    storage.write([(b"b", b"2")], [])
    inner = failing(storage, "flush_wal", NO_SPACE)
    with pytest.raises(StorageError) as caught:
        storage.sync()
    assert not isinstance(caught.value, NoSpaceError)
    storage._db = inner


def test_what_was_refused_and_is_there_nevertheless_is_in_doubt(storage: RocksStorage) -> None:
    inner = failing(storage, "write", NO_SPACE)
    with pytest.raises(NoSpaceError):
        storage.write([(b"b", b"2")], [])
    storage._db = inner
    inner[b"b"] = b"2"
    with pytest.raises(StorageError, match="has 2 records and not 1"):
        storage.recover()
    assert storage.full is not None


def test_the_mark_of_what_is_on_disk_may_be_late_for_want_of_space_only(
    storage: RocksStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = errno.ENOSPC

    def refuse(*_: object) -> None:
        raise OSError(number, "x")

    with monkeypatch.context() as patched, structlog.testing.capture_logs() as lines:
        patched.setattr(Acknowledged, "write", refuse)
        for key in (b"b", b"c"):
            storage.write([(key, b"2")], [])
            storage.sync()
        number = errno.EIO
        with pytest.raises(StorageError, match="Input/output error"):
            storage.sync()
    assert [line["event"] for line in lines] == ["the mark of what is on disk is late"]
    # What was acknowledged is there without its mark, and the next sync makes it.
    storage.sync()
    assert storage._acknowledged.read() == 3
