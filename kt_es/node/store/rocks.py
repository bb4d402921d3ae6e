"""The node's storage over RocksDB: a directory that one process has at a time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog
from rocksdict import Checkpoint, Rdict, RdictIter, WriteBatch

from kt_es.errors import ConfigError, KtError, LockedError
from kt_es.node.store.database import FOLDER, Acknowledged, files_size, in_use, open_database, refused
from kt_es.node.store.storage import POSITION_KEY, NoSpaceError, StorageError
from kt_es.process.space import has_space, is_full

_LOG = structlog.get_logger("kt_es.node")
ROOM = 4 << 20  # bytes that have to be free before a full disk is written to again


def open_existing(data: Path) -> RocksStorage:
    """Return the storage of a node that has run in ``data``.

    Raises as ``RocksStorage``, and ``ConfigError`` if no node has run there.
    """
    if not (data / FOLDER / "CURRENT").is_file():
        raise ConfigError(
            f"{data} is no data directory of a node, which has a file {FOLDER}/CURRENT: "
            f"name the one that kt node was started with"
        )
    return RocksStorage(data)


class RocksStorage:
    """``NodeStorage`` in a directory. One process at a time.

    Raises:
        LockedError: Another process holds the directory.
        ConfigError: The directory may not be created or read, or holds something else.
        NoSpaceError: The disk is too full even to read. If it is full and can be read, ``full`` is set,
            and ``write`` refuses until ``recover``.
        StorageError: The disk refused.
    """

    def __init__(self, path: Path, on_damage: Callable[[StorageError], object] | None = None) -> None:
        """``on_damage`` gets the error of every failed read before it is raised."""
        self.path = path
        self.full: NoSpaceError | None = None  # why nothing is written
        self._on_damage = on_damage
        self._in_use = threading.Lock()  # held by long work on another thread: a copy, a compaction
        self._closing = False
        self._is_late = False  # the disk was too full to write the file of ``_acknowledged``
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._acknowledged = Acknowledged(path)
        except BlockingIOError:
            raise in_use(path) from None
        except OSError as error:
            raise refused(path, error) from None
        try:
            self._open()
        except KtError:
            self._acknowledged.close()
            raise
        try:
            self._check_end()
        except KtError:
            self.close()
            raise
        self._durable = self._db.latest_sequence_number()

    def _open(self) -> None:
        try:
            self._db = open_database(self.path)
        except NoSpaceError as error:
            if not (self.path / FOLDER / "CURRENT").exists():
                raise  # there is nothing to read either
            self._db = open_database(self.path, to_read=True)
            self.full = error

    def _check_end(self) -> None:
        missing = self._acknowledged.read() - self._db.latest_sequence_number()
        if missing > 0:
            position = int.from_bytes(self.get(POSITION_KEY) or b"")
            raise ConfigError(
                f"data directory {self.path} has lost what was acknowledged: {missing} records after "
                f"position {position} are missing; restore a backup (if this is one, put in the place of "
                f"newer data, remove {self._acknowledged.path})"
            )

    def _damage(self, error: Exception) -> StorageError:
        failure = StorageError(f"reading {self.path} failed: {error}")
        if self._on_damage is not None:
            self._on_damage(failure)
        return failure

    def get(self, key: bytes) -> bytes | None:
        try:
            return self._db.get(key)
        except Exception as error:
            raise self._damage(error) from error

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            found: list[bytes | None] | None = self._db.get(list(keys))
        except Exception as error:
            raise self._damage(error) from error
        return found if found is not None else []

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._db.iter()
        cursor.seek(start)
        while cursor.valid():
            key = cursor.key()
            if key >= end:
                return
            yield key, cursor.value()
            cursor.next()
        self._check_cursor(cursor)

    def scan_back(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._db.iter()
        cursor.seek(start)
        if not cursor.valid():
            self._check_cursor(cursor)
            cursor.seek_to_last()
        while cursor.valid():
            key = cursor.key()
            if key < end:
                return
            yield key, cursor.value()
            cursor.prev()
        self._check_cursor(cursor)

    def _check_cursor(self, cursor: RdictIter) -> None:
        """Raise if the cursor stopped at a damaged block and not at the end."""
        try:
            cursor.status()
        except Exception as error:
            raise self._damage(error) from error

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        if self.full is not None:
            raise NoSpaceError from self.full.__cause__
        batch = WriteBatch(raw_mode=True)
        put = batch.put
        for key, value in puts:
            put(key, value)
        for key in deletes:
            batch.delete(key)
        try:
            self._db.write(batch)
        except Exception as error:
            if is_full(error):
                self.full = NoSpaceError()
                raise NoSpaceError from error
            raise StorageError(f"writing to {self.path} failed: {error}") from error

    def sync(self) -> None:
        # flush_wal releases the GIL; a write with sync=True would hold it during the fsync.
        change = self._db.latest_sequence_number()
        try:
            self._db.flush_wal(True)
        except Exception as error:
            # A full disk is no exception: after a failed sync it is unknown how much of the batch is on disk.
            raise StorageError(f"writing to {self.path} failed: {error}") from error
        self._durable = change
        try:
            self._acknowledged.write(change)
        except OSError as error:
            self._mark_failed(error)
        else:
            self._is_late = False

    def _mark_failed(self, error: OSError) -> None:
        """Handle that the mark of a batch on disk was not written. On a full disk the mark stays old.

        Any other fault raises ``StorageError``.
        """
        reason = os.strerror(error.errno) if error.errno else str(error)
        if not is_full(error):
            raise StorageError(f"writing to {self._acknowledged.path} failed: {reason}") from error
        if not self._is_late:
            self._is_late = True
            _LOG.warning(
                "the mark of what is on disk is late", path=str(self._acknowledged.path), reason=reason
            )

    def may_recover(self) -> bool:
        # When RocksDB is opened, it writes the content of its log into tables before it deletes the log.
        needed = files_size(self.path, "*.log") + ROOM
        try:
            # Ask the file system first, so that trying does not take the last space from others.
            found = os.statvfs(self.path)
            return found.f_bavail * found.f_frsize >= needed and has_space(self.path, needed)
        except OSError as error:
            raise StorageError(f"writing to {self.path} failed: {error.strerror or error}") from error

    def recover(self) -> None:
        if not self._in_use.acquire(blocking=False):
            raise NoSpaceError  # a copy is being made: try later
        try:
            self._reopen()
        finally:
            self._in_use.release()
        self.full = None

    def _reopen(self) -> None:
        """Open the database anew, as at a start, which drops a write that was left half done."""
        broken, self._db = self._db, self._checked(open_database(self.path, to_read=True))
        try:
            broken.close()
        except Exception as error:  # noqa: BLE001  rocksdict raises plain Exception
            _LOG.info("closed after the disk was full", reason=str(error))
        del broken
        try:
            writing = open_database(self.path)
        except LockedError:
            # By this process: somebody still has a cursor on the closed database.
            raise NoSpaceError from None
        reading, self._db = self._db, self._checked(writing)
        reading.close()

    def _checked(self, database: Rdict) -> Rdict:
        """Return ``database`` if it has exactly what was acknowledged; close it and raise otherwise."""
        found = database.latest_sequence_number()
        if found != self._durable:
            database.close()
            raise StorageError(
                f"{self.path} has {found} records and not {self._durable}, after its disk was full"
            )
        return database

    def checkpoint(self, path: Path) -> None:
        """Make a complete copy at ``path`` (absent, same file system) out of links to the data files.

        Raises ``NoSpaceError``: the copy needs some space on the same disk.
        """
        with self._in_use:
            if self._closing:
                raise StorageError("the node is shutting down")
            if self.full is not None:
                raise NoSpaceError
            try:
                # This flush releases the GIL; the one that the checkpoint would make holds it.
                self._db.flush()
                Checkpoint(self._db).create_checkpoint(str(path))
            except Exception as error:
                if is_full(error):
                    raise NoSpaceError from error
                raise StorageError(f"copying {self.path} failed: {error}") from error

    def compact(self, start: bytes, end: bytes) -> None:
        """Give back the space of deletions between two keys. May take long; ``close`` ends it early."""
        with self._in_use:
            if not self._closing:
                self._db.compact_range(start, end)

    def size(self) -> int:
        return files_size(self.path, "*")

    def close(self) -> None:
        self._closing = True
        try:
            if self._in_use.locked():
                self._close_early()
            else:
                self._db.close()
        except Exception as error:  # noqa: BLE001  rocksdict raises plain Exception
            # What was acknowledged is in the write-ahead log. The cause was logged before.
            _LOG.warning("the data were not closed cleanly", reason=str(error))
        self._acknowledged.close()

    def _close_early(self) -> None:
        """End the work of another thread on the data, then close them."""
        try:
            self._db.flush()
        finally:
            self._db.cancel_all_background(True)
            # RocksDB closes, and complains that it can no longer flush.
            with self._in_use, contextlib.suppress(Exception):
                self._db.close()
