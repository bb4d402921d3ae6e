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
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from rocksdict import Checkpoint, DBCompressionType, DBRecoveryMode, Options, Rdict, WriteBatch

from kt_es.errors import ConfigError, KtError, LockedError


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
        """Return once everything written before is on disk. Called from a thread of its own."""

    def close(self) -> None:
        """Release the directory."""


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(64 << 20)
    options.set_max_write_buffer_number(4)
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

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"data directory {path} cannot be used: {error.strerror or error}") from None
        try:
            self._db = Rdict(str(path / "log"), _options())
        except Exception as error:  # noqa: BLE001  rocksdict raises plain Exception with RocksDB's text
            text = str(error)
            if "lock" in text.lower():
                raise LockedError(f"data directory {path} is in use by another node") from None
            raise ConfigError(f"data directory {path} cannot be opened: {text}") from None

    def get(self, key: bytes) -> bytes | None:
        try:
            return self._db.get(key)
        except Exception as error:
            raise StorageError(f"reading {self.path} failed: {error}") from error

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            found: list[bytes | None] | None = self._db.get(list(keys))
        except Exception as error:
            raise StorageError(f"reading {self.path} failed: {error}") from error
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

    def scan_back(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._db.iter()
        cursor.seek(start)
        if not cursor.valid():
            cursor.seek_to_last()
        while cursor.valid():
            key = cursor.key()
            if key < end:
                return
            yield key, cursor.value()
            cursor.prev()

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
        try:
            self._db.flush_wal(True)
        except Exception as error:
            raise StorageError(f"writing to {self.path} failed: {error}") from error

    def close(self) -> None:
        self._db.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it was compacted away meanwhile
        return 0
