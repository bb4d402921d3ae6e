"""The store on disk: RocksDB, by way of rocksdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rocksdict import CompactOptions, DbClosedError, Rdict, WriteBatch

from kt_es.errors import ConfigError, DiskFullError, DivergenceError, KtError
from kt_es.ledger.rocks_database import OwnLockError, RocksDatabase, damage, exists, open_to_write, open_view
from kt_es.ledger.store import Change, Store, after_prefix
from kt_es.process.space import has_space, is_full

SCAN_ROWS = 512
SPACE_BYTES = 1 << 20
"""Free bytes that a disk which was full must have before a write is tried again."""
_LOCK_ATTEMPTS = 20
_LOCK_PAUSE = 0.05


class RocksStore(Store):
    """RocksDB in one directory, with the promises of ``store.Store``.

    A write goes to the write-ahead log, and ``flush_wal`` then syncs the log: rocksdict would keep the GIL
    during a write that syncs itself. Memory is bounded by ``CACHE_BYTES`` for blocks, indexes and filters
    together, and by ``WRITE_BUFFERS_BYTES`` for the write buffers of all families.

    After a write has found the disk full, RocksDB refuses all writes, and it would resume by itself only with
    16 MiB free. So the database is replaced by a view of its files, which answers reads. Once there is space,
    the database is opened again. As after a crash, this recovers what was written.
    """

    def __init__(
        self, directory: Path, database: RocksDatabase, families: Sequence[str], *, is_full: bool = False
    ) -> None:
        """Take over an open database. Use ``RocksStore.open``."""
        self._directory = directory
        self._names = tuple(families)
        # Readers take it without a lock: a database that was replaced lives until its last reader is done.
        self._database: RocksDatabase | None = database
        # One write at a time, so that no write goes to a database that is being replaced.
        self._writing = threading.RLock()
        self._is_full = is_full

    @classmethod
    def open(cls, directory: Path, families: Sequence[str]) -> RocksStore:
        """Open or create the store; an existing store opens on a full disk too.

        Args:
            families: All families of the store. Those that it does not have yet are added.

        Raises:
            LockedError: Another process uses the store.
            ConfigError: The directory cannot be used.
            DivergenceError: The store is damaged.
            DiskFullError: The disk is full, and the store is new or needs another family.
        """
        try:
            database = open_to_write(directory, families)
        except DiskFullError:
            if not exists(directory):
                raise
            with suppress(ConfigError):
                return cls(directory, open_view(directory, families), families, is_full=True)
            raise
        return cls(directory, database, families)

    @classmethod
    def view(cls, directory: Path, families: Sequence[str]) -> RocksStore:
        """Open the present state of ``directory`` for reading, even while another process writes there.

        Raises:
            ConfigError: There is no store.
            DivergenceError: The store is damaged.
        """
        return cls(directory, open_view(directory, families), families)

    @property
    def is_full(self) -> bool:
        return self._is_full

    def ensure_writable(self) -> None:
        if self._is_full:
            with self._writing:
                self._resume()

    def get(self, family: str, key: bytes) -> bytes | None:
        found = self._family(family)
        try:
            value: bytes | None = found.get(key)
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            raise self._failure(error) from None
        return value

    def get_many(self, family: str, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        found = self._family(family)
        try:
            values: list[bytes | None] | None = found.get(list(keys))
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            raise self._failure(error) from None
        return values or []

    def scan(
        self, family: str, prefix: bytes = b"", *, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        end = after_prefix(prefix)
        if start is None or (start < prefix and not reverse):
            start = end if reverse else prefix
        elif reverse and end is not None:
            start = min(start, end)
        seen: bytes | None = None
        while True:
            rows = self._rows(family, start, reverse)
            for key, value in rows:
                if key == seen or (reverse and key == end):
                    continue
                if not key.startswith(prefix):
                    return
                yield key, value
            if len(rows) < SCAN_ROWS:
                return
            start = seen = rows[-1][0]

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        with self._writing:
            self._resume()
            database = self._opened()
            batch = WriteBatch(raw_mode=True)
            current = None
            for family, key, value in changes:
                if family != current:
                    self._family(family)
                    batch.set_default_column_family(database.handles[family])
                    current = family
                if value is None:
                    del batch[key]
                else:
                    batch[key] = value
            try:
                database.rocks.write(batch)
                if sync:
                    database.rocks.flush_wal(True)
            except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
                raise self._failure(error) from None

    def compact(self) -> None:
        """Write all rows to their final place on disk: after a bulk load, before a copy or a measurement."""
        try:
            for family in self._opened().families.values():
                family.flush()
                family.compact_range(None, None, CompactOptions())
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            raise self._failure(error) from None

    def close(self) -> None:
        database, self._database = self._database, None
        if database is None:
            return
        # The lock is released once every handle is closed, not by closing the database alone.
        for part in (*database.families.values(), database.rocks):
            try:
                part.close()
            except DbClosedError:
                continue
            except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
                # Closing writes tables of rows that the write-ahead log keeps for the next start anyway.
                if not (self._is_full or is_full(error)):
                    raise self._failure(error) from None

    def _opened(self) -> RocksDatabase:
        if self._database is None:
            raise ValueError(f"the store in {self._directory} is closed")
        return self._database

    def _family(self, name: str) -> Rdict:
        try:
            return self._opened().families[name]
        except KeyError:
            raise ValueError(f"the store in {self._directory} has no family {name!r}") from None

    def _resume(self) -> None:
        """Make writing possible again if the disk was full. The caller holds ``_writing``.

        Raises ``DiskFullError`` while that is not possible.
        """
        if not self._is_full:
            return
        try:
            if not has_space(self._directory, SPACE_BYTES):
                raise DiskFullError(self._directory)
        except OSError as error:
            raise KtError(f"the store in {self._directory} failed: {error}") from None
        if not self._opened().is_view:
            self._database = open_view(self._directory, self._names)
        self._database = self._open_again()
        self._is_full = False

    def _open_again(self) -> RocksDatabase:
        for _ in range(_LOCK_ATTEMPTS):
            try:
                return open_to_write(self._directory, self._names)
            except OwnLockError:
                time.sleep(_LOCK_PAUSE)
            except ConfigError as error:
                raise KtError(f"the store in {self._directory} failed: {error}") from None
        raise DiskFullError(self._directory)

    def _rows(self, name: str, start: bytes | None, reverse: bool) -> list[tuple[bytes, bytes]]:
        """Return the next rows from ``start``. An iterator that is left unfinished keeps the database locked.

        ``items()`` of rocksdict takes damaged data for the end, so it is not used.
        """
        family = self._family(name)
        rows: list[tuple[bytes, bytes]] = []
        try:
            rows_from = family.iter()
            if start is None:
                (rows_from.seek_to_last if reverse else rows_from.seek_to_first)()
            else:
                (rows_from.seek_for_prev if reverse else rows_from.seek)(start)
            step = rows_from.prev if reverse else rows_from.next
            while rows_from.valid() and len(rows) < SCAN_ROWS:
                rows.append((rows_from.key(), rows_from.value()))
                step()
            rows_from.status()
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            raise self._failure(error) from None
        return rows

    def _failure(self, error: Exception) -> Exception:
        if is_full(error):
            self._is_full = True
            return DiskFullError(self._directory)
        if isinstance(error, DbClosedError):
            return ValueError(f"the store in {self._directory} is closed")
        if str(error).startswith("Corruption"):
            return DivergenceError(damage(self._directory, error))
        return KtError(f"the store in {self._directory} failed: {error}; look at the disk, then start again")
