"""The disk under the log: a key-value store with an explicit promise of durability.

``Storage`` is the seam. ``RocksStorage`` is the implementation over RocksDB; tests put a faulty one
in its place. The promise: ``write`` applies a batch entirely or not at all and makes it visible to
``get``, ``get_many`` and ``scan``; it need not be on disk before ``sync`` has returned. Either may raise
``StorageError``, after which nothing may be concluded about the batch: it may or may not be there
after the next start.

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
from rocksdict import Checkpoint, DBCompressionType, DBRecoveryMode, Options, Rdict, RdictIter, WriteBatch

from kt_es.errors import ConfigError, KtError, LockedError
from kt_es.node.store.acknowledged import Acknowledged

_LOG = structlog.get_logger("kt_es.node")
POSITION_KEY = b"Mposition"  # the last position, which every write of events moves
STREAMS_KEY = b"Mstreams"  # how many streams ever had an event


class StorageError(KtError):
    """The disk refused a read or a write; the node has to stop."""


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

    def close(self) -> None:
        """Release the directory."""


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    # Of the node's memory most is this: what is written and not yet in tables, at most three times 16 MiB.
    options.set_write_buffer_size(16 << 20)
    options.set_max_write_buffer_number(3)
    options.set_max_background_jobs(2)
    options.set_max_total_wal_size(256 << 20)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_keep_log_file_num(4)
    # A record cut off by a kill was never acknowledged; damage anywhere else must not be skipped.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    return options


class RocksStorage:
    """Storage in a directory, over RocksDB. One process at a time.

    Raises:
        LockedError: another process holds the directory.
        ConfigError: the directory cannot be created or read, or holds something else.
    """

    def __init__(self, path: Path, on_damage: Callable[[StorageError], None] | None = None) -> None:
        """``on_damage`` is told of every read that failed, before its ``StorageError`` is raised."""
        self.path = path
        self._on_damage = on_damage
        self._in_use = threading.Lock()  # held by what another thread does at length
        self._closing = False
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"data directory {path} cannot be used: {error.strerror or error}") from None
        try:
            self._db = Rdict(str(path / "log"), _options())
        except Exception as error:  # noqa: BLE001  rocksdict raises plain Exception with RocksDB's text
            text = str(error)
            if "lock" in text.lower() and "corruption" not in text.lower():
                raise LockedError(f"data directory {path} is in use by another node") from None
            raise ConfigError(f"data directory {path} cannot be opened: {text}") from None
        try:
            self._acknowledged = Acknowledged(path)
        except OSError as error:
            self._db.close()
            raise ConfigError(f"data directory {path} cannot be used: {error.strerror or error}") from None
        try:
            self._check_end()
        except KtError:
            self.close()
            raise

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
        batch = WriteBatch(raw_mode=True)
        put = batch.put
        for key, value in puts:
            put(key, value)
        for key in deletes:
            batch.delete(key)
        try:
            self._db.write(batch)
        except Exception as error:
            raise StorageError(f"writing to {self.path} failed: {error}") from error

    def sync(self) -> None:
        # flush_wal releases the GIL; a write with sync=True would hold it during the fsync.
        change = self._db.latest_sequence_number()
        try:
            self._db.flush_wal(True)
        except Exception as error:
            raise StorageError(f"writing to {self.path} failed: {error}") from error
        try:
            self._acknowledged.write(change)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise StorageError(f"writing to {self._acknowledged.path} failed: {reason}") from error

    def checkpoint(self, path: Path) -> None:
        """A second, complete copy at ``path`` (absent, same file system): links to the files that stay.

        Raises:
            StorageError: it could not be made.
        """
        with self._in_use:
            if self._closing:
                raise StorageError("the node is shutting down")
            try:
                # This flush releases the GIL; the one that the checkpoint would make holds it.
                self._db.flush()
                Checkpoint(self._db).create_checkpoint(str(path))
            except Exception as error:
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
        return sum(_size(path) for path in (self.path / "log").iterdir())

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
