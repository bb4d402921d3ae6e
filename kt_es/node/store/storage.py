"""The disk under the log: a key-value store with an explicit promise of durability.

``Storage`` is the seam. ``RocksStorage`` is the implementation over RocksDB; tests put a faulty one
in its place. The promise: ``write`` applies a batch entirely or not at all and makes it visible to
``get``, ``get_many`` and ``scan``; it need not be on disk before ``sync`` has returned. Either may raise
``StorageError``, after which nothing may be concluded about the batch: it may or may not be there
after the next start. ``write`` alone may raise ``NoSpaceError``: the disk is full, the batch is not there and
never will be, reads go on, and every further write is refused so until ``recover`` has returned.

Keys (big-endian integers, so that their order is the order of iteration)::

    H name                     head of a stream                        (streams.Head)
    E number u64, revision u64 event                                   (records)
    P last position u64        one append: number, first revision, first position, all u64
    I number u64, event id 16  revision u64 of the event with this id
    G stream u16 len, name, group   settings of a persistent subscription, JSON
    C stream u16 len, name, group   its checkpoint, u64
    M name                     counters of the node, u64

A read that finds damage raises ``StorageError``: a part is never served as if it were the whole.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import structlog
from rocksdict import Checkpoint, Rdict, RdictIter, WriteBatch

from kt_es.errors import ConfigError, KtError, LockedError
from kt_es.node.store.acknowledged import Acknowledged
from kt_es.node.store.database import (
    FOLDER,
    NoSpaceError,
    StorageError,
    in_use,
    log_bytes,
    open_database,
    open_to_read,
    refused,
)
from kt_es.process.space import has_space, is_full

_LOG = structlog.get_logger("kt_es.node")
POSITION_KEY = b"Mposition"  # the last position, which every write of events moves
STREAMS_KEY = b"Mstreams"  # how many streams ever had an event
ROOM = 4 << 20  # bytes that have to be free before a full disk is written to again


class Storage(Protocol):
    """See the module's text for what is promised."""

    def get(self, key: bytes) -> bytes | None:
        """The value under ``key``."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values under ``keys``, in their order."""

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with ``start <= key < end``, ascending."""

    def scan_back(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs from the first key at or after ``start`` downwards, while ``key >= end``."""

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        """Apply all or nothing."""

    def sync(self) -> None:
        """Return once everything written before is on disk. Called from whatever thread ``commits`` chose."""

    def may_recover(self) -> bool:
        """After a ``NoSpaceError``: whether there seems to be space again. From any thread; may take long.

        Raises ``StorageError`` for whatever else is wrong with the disk.
        """

    def recover(self) -> None:
        """Take writes again. On the thread that reads and writes.

        Raises ``NoSpaceError`` if there is no space still, and everything is as it was; ``StorageError`` if
        what is there is not what was acknowledged.
        """

    def close(self) -> None:
        """Release the directory."""


class RocksStorage:
    """Storage in a directory, over RocksDB. One process at a time.

    Raises:
        LockedError: another process holds the directory.
        ConfigError: the directory may not be created or read, or holds something else.
        NoSpaceError: the disk is too full even to read. Where it is full and can be read, ``full`` is
            set, and ``write`` refuses until ``recover``.
        StorageError: the disk refused.
    """

    def __init__(self, path: Path, on_damage: Callable[[StorageError], None] | None = None) -> None:
        """``on_damage`` is told of every read that failed, before its ``StorageError`` is raised."""
        self.path = path
        self.full: NoSpaceError | None = None  # why nothing is written
        self._on_damage = on_damage
        self._in_use = threading.Lock()  # held by what another thread does at length
        self._closing = False
        self._is_late = False  # the disk was too full for the file of ``_acknowledged``
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
            self._db = open_to_read(self.path)
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
        """A cursor that is no longer valid has come to the end, or to a damaged block."""
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
            # Also for want of space: after a failed sync nobody knows what of the batch is on disk.
            raise StorageError(f"writing to {self.path} failed: {error}") from error
        self._durable = change
        try:
            self._acknowledged.write(change)
        except OSError as error:
            self._not_marked(error)
        else:
            self._is_late = False

    def _not_marked(self, error: OSError) -> None:
        """The batch is on disk; that it is, is not. The file is then old, which it may be."""
        reason = os.strerror(error.errno) if error.errno else str(error)
        if not is_full(error):
            raise StorageError(f"writing to {self._acknowledged.path} failed: {reason}") from error
        if not self._is_late:
            self._is_late = True
            _LOG.warning(
                "the mark of what is on disk is late", path=str(self._acknowledged.path), reason=reason
            )

    def may_recover(self) -> bool:
        # What RocksDB holds in memory goes into tables when it is opened, before its log is deleted.
        needed = log_bytes(self.path) + ROOM
        try:
            # First by the figures, so that trying does not take the last space from others.
            found = os.statvfs(self.path)
            return found.f_bavail * found.f_frsize >= needed and has_space(self.path, needed)
        except OSError as error:
            raise StorageError(f"writing to {self.path} failed: {error.strerror or error}") from error

    def recover(self) -> None:
        if not self._in_use.acquire(blocking=False):
            raise NoSpaceError  # a copy is being made: later
        try:
            self._reopen()
        finally:
            self._in_use.release()
        self.full = None

    def _reopen(self) -> None:
        """Open the database anew, as at a start: that takes off what a write left half done."""
        broken, self._db = self._db, self._checked(open_to_read(self.path))
        try:
            broken.close()
        except Exception as error:  # noqa: BLE001  rocksdict raises plain Exception
            _LOG.info("closed after the disk was full", reason=str(error))
        del broken
        try:
            writing = open_database(self.path)
        except LockedError:
            # By us: somebody still has a cursor of what was closed.
            raise NoSpaceError from None
        reading, self._db = self._db, self._checked(writing)
        reading.close()

    def _checked(self, database: Rdict) -> Rdict:
        """``database`` if it has what was acknowledged, and nothing else."""
        found = database.latest_sequence_number()
        if found != self._durable:
            database.close()
            raise StorageError(
                f"{self.path} has {found} records and not {self._durable}, after its disk was full"
            )
        return database

    def checkpoint(self, path: Path) -> None:
        """A second, complete copy at ``path`` (absent, same file system): links to the files that stay.

        Raises:
            NoSpaceError: it needs some space on the same disk.
            StorageError: it could not be made.
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
        """Give the space of what was deleted between two keys back. May take long; others go on.

        ``close`` ends it early.
        """
        with self._in_use:
            if not self._closing:
                self._db.compact_range(start, end)

    def size(self) -> int:
        """Bytes of all files."""
        return sum(_size(path) for path in (self.path / FOLDER).iterdir())

    def close(self) -> None:
        self._closing = True
        try:
            if self._in_use.locked():
                self._close_early()
            else:
                self._db.close()
        except Exception as error:  # noqa: BLE001  rocksdict raises plain Exception
            # What was acknowledged is in the write-ahead log; why it came to this was said before.
            _LOG.warning("the data were not closed cleanly", reason=str(error))
        self._acknowledged.close()

    def _close_early(self) -> None:
        """End what another thread does with the data, and then close them."""
        try:
            self._db.flush()
        finally:
            self._db.cancel_all_background(True)
            # It closes and complains that it can no longer flush, for which it is too late.
            with self._in_use, contextlib.suppress(Exception):
                self._db.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it was compacted away meanwhile
        return 0
