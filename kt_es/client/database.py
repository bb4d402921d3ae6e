"""The memory of a client in one SQLite database: small values by kind and key.

A change is complete and on disk when the call returns: SQLite syncs its write-ahead log with each transaction
that asks for it. Threads and processes may share the file. A database on a read-only disk can be read.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

from kt_es.errors import ConfigError, DiskFullError
from kt_es.process.files import check_private, create_file
from kt_es.process.space import has_space, is_full

_PATIENCE = 10.0  # seconds that a process waits for another one that writes
_INDEX_BYTES = 32 << 10
_TABLE = (
    "CREATE TABLE memory (kind TEXT NOT NULL, key BLOB NOT NULL, data BLOB NOT NULL, "
    "PRIMARY KEY (kind, key)) WITHOUT ROWID"
)


class StateDatabase:
    """The database at ``path``. It is created with the first value. Safe for threads.

    ``StateStore`` describes ``recall``, ``remember`` and ``exchange``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        # Guarded by the lock. The finalizer closes the connection with its owner.
        self._connection: sqlite3.Connection | None = None
        self._writable = False

    def recall(self, kind: str, key: bytes) -> bytes | None:
        with self._opened(write=False) as connection:
            return None if connection is None else _value(connection, kind, key)

    def remember(self, kind: str, key: bytes, data: bytes) -> None:
        with self._opened(write=True) as connection:
            if connection is not None:
                _set(connection, kind, key, data)

    def exchange(
        self, kind: str, key: bytes, expected: bytes | None, data: bytes, *, synced: bool = True
    ) -> bool:
        with self._opened(write=True, synced=synced) as connection:
            if connection is None or _value(connection, kind, key) != expected:
                return False
            _set(connection, kind, key, data)
            return True

    @contextlib.contextmanager
    def _opened(self, *, write: bool, synced: bool = True) -> Iterator[sqlite3.Connection | None]:
        """The connection, for a write in a transaction. None if there is nothing to read yet."""
        with self._lock:
            try:
                connection = self._connect(write)
                if connection is None or not write:
                    yield connection
                    return
                connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    # SQLite has rolled back by itself if the disk was full.
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
            except (sqlite3.Error, OSError) as error:
                self._close()
                if self._is_full(error):
                    raise DiskFullError(self._path) from None
                verb = "written" if write else "read"
                raise ConfigError(f"the memory {self._path} cannot be {verb}: {error}") from None

    def _connect(self, write: bool) -> sqlite3.Connection | None:
        if self._connection is not None and (self._writable or not write):
            return self._connection
        self._close()
        if not self._is_there() and not write:
            return None
        self._writable = write or all(os.access(path, os.W_OK) for path in (self._path, self._path.parent))
        try:
            connection = self._open_to_write() if self._writable else self._open_to_read()
        except sqlite3.OperationalError:
            if write:
                raise
            # The disk is full. SQLite writes to the files beside the database even to read.
            connection, self._writable = self._open_to_read(), False
        self._connection = connection
        weakref.finalize(self, connection.close)
        return connection

    def _is_full(self, error: sqlite3.Error | OSError) -> bool:
        """Return whether the disk is full. SQLite reports it only for files written with system calls.

        The index of its write-ahead log is mapped into memory, where a full disk is an I/O error.
        """
        if is_full(error):
            return True
        if not isinstance(error, sqlite3.OperationalError):
            return False
        try:
            return not has_space(self._path.parent, _INDEX_BYTES)
        except OSError:
            return False

    def _is_there(self) -> bool:
        """Return whether the file exists. Raises ``ConfigError`` if it is empty, or if others may read it.

        The file is not opened: to close it would release the locks of another connection to it.
        """
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return False
        check_private(found, self._path, "the memory")
        if found.st_size == 0:
            # A new file is complete when it gets its name, so this is not a new one.
            problem = "has been emptied: put a copy in its place, or remove it to forget everything"
            raise ConfigError(f"the memory {self._path} {problem}")
        return True

    def _open_to_write(self) -> sqlite3.Connection:
        if not self._is_there():
            # SQLite gives its other files the mode of this one, which is the owner's alone.
            with (
                contextlib.suppress(FileExistsError),
                contextlib.closing(sqlite3.connect(":memory:")) as empty,
            ):
                empty.execute(_TABLE)
                create_file(self._path, empty.serialize())
        connection = self._open("rw")
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # The first read creates the index of the write-ahead log, for which there may be no space.
            connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _open_to_read(self) -> sqlite3.Connection:
        """Open a database on a read-only or full disk. Its write-ahead log should be empty."""
        waiting = self._path.with_name(self._path.name + "-wal")
        is_empty = not waiting.exists() or waiting.stat().st_size == 0
        return self._open("ro&immutable=1" if is_empty else "ro")

    def _open(self, mode: str) -> sqlite3.Connection:
        address = f"{self._path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(
            address, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _value(connection: sqlite3.Connection, kind: str, key: bytes) -> bytes | None:
    row = connection.execute("SELECT data FROM memory WHERE kind = ? AND key = ?", (kind, key)).fetchone()
    return None if row is None else bytes(row[0])


def _set(connection: sqlite3.Connection, kind: str, key: bytes, data: bytes) -> None:
    connection.execute(
        "INSERT INTO memory (kind, key, data) VALUES (?, ?, ?) "
        "ON CONFLICT (kind, key) DO UPDATE SET data = excluded.data",
        (kind, key, data),
    )
