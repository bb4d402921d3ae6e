"""What counts as a full disk: the words and numbers of the system, of RocksDB and of SQLite."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from pathlib import Path

import pytest

from kt_es.errors import ConfigError, KtError
from kt_es.process.space import has_space, is_full, unwritable


def _full_database() -> sqlite3.Error:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (data BLOB)")
        connection.execute("PRAGMA max_page_count = 2")
        try:
            connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
        except sqlite3.Error as error:
            return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        _full_database(),
        Exception(
            "IO error: No space left on device: While appending to file: /data/4.log: No space left on device"
        ),
        Exception("IO error: While fsync: /data/4.log: No space left on device"),
        Exception("No space left on device (os error 28)"),
        Exception("IO error: Disk quota exceeded: While appending to file: /data/4.log: Disk quota exceeded"),
    ],
)
def test_a_full_disk_is_one(error: Exception) -> None:
    assert is_full(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EROFS, "Read-only file system"),
        sqlite3.OperationalError("disk I/O error"),
        Exception("Corruption: No space left on device: 4.log"),
        Exception("IO error: While appending to file: /No space left on device/4.log: Input/output error"),
        Exception("IO error: While fsync: /data/4.log: Input/output error"),
        KtError("IO error: No space left on device"),
    ],
)
def test_a_broken_disk_is_none(error: Exception) -> None:
    assert not is_full(error)


def test_a_path_that_cannot_be_written_says_what_to_do() -> None:
    error = unwritable(Path("/srv/tiles"), OSError(errno.EROFS, "Read-only file system"))
    assert isinstance(error, ConfigError)
    assert str(error) == (
        "/srv/tiles cannot be written: Read-only file system; make it writable, or name another path"
    )


def test_space_is_found_by_writing_and_nothing_is_left(tmp_path: Path) -> None:
    assert has_space(tmp_path, 100_000)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        has_space(tmp_path / "none", 1)
