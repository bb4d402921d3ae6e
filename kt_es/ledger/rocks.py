"""Storage on disk: RocksDB by way of rocksdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rocksdict import CompactOptions, DbClosedError, Rdict, WriteBatch

from kt_es.errors import ConfigError, DiskFullError, DivergenceError, KtError
from kt_es.ledger.rocks_database import Database, OwnLockError, is_there, open_to_write, open_view
from kt_es.ledger.store import Change, Family, after_prefix
from kt_es.process.space import has_space, is_full

CACHE_BYTES = 64 << 20
SCAN_ROWS = 512
SPACE_BYTES = 1 << 20
"""What must fit on a disk that was full before anything is tried there again."""
_LOCK_ATTEMPTS = 20
_LOCK_PAUSE = 0.05


class Store:
    """RocksDB under one directory; the interface and its promises are those of ``storage.Storage``.

    A write goes to the write-ahead log and is then synced by ``flush_wal``: rocksdict would keep the
    GIL during a write that syncs itself. Memory is bounded by ``cache_bytes`` for blocks, indexes and
    filters together, and by 48 MiB for the write buffers of all families.

    After a write has found the disk full, RocksDB takes no more writes; it would resume by itself only with
    16 MiB free. So the database is exchanged for a view of its files, which goes on answering, and is opened
    again when there is space: that recovers what was written, as after a crash.
    """

    def __init__(
        self,
        directory: Path,
        database: Database,
        families: Sequence[str],
        cache_bytes: int,
        *,
        is_full: bool = False,
    ) -> None:
        """Takes over an open database; use ``Store.open``."""
        self._directory = directory
        self._names = tuple(families)
        self._cache_bytes = cache_bytes
        # Readers take it without a lock: one that was replaced lives until the last of them is done.
        self._database: Database | None = database
        # One write at a time, so that none goes to a database that is being replaced.
        self._writing = threading.RLock()
        self._is_full = is_full

    @classmethod
    def open(cls, directory: Path, families: Sequence[str], cache_bytes: int = CACHE_BYTES) -> Store:
        """Open or create the storage; ``families`` are all that it has, new ones are added.

        What is there already can be read on a full disk, too. LockedError if another process uses it,
        ConfigError if the directory cannot be used, DivergenceError if what is in it is damaged,
        DiskFullError if it is to be created, or to get a family, on a full disk.
        """
        try:
            database = open_to_write(directory, families, cache_bytes)
        except DiskFullError:
            if not is_there(directory):
                raise
            with suppress(ConfigError):
                view = open_view(directory, families, cache_bytes)
                return cls(directory, view, families, cache_bytes, is_full=True)
            raise
        return cls(directory, database, families, cache_bytes)

    @classmethod
    def view(cls, directory: Path, families: Sequence[str], cache_bytes: int = CACHE_BYTES) -> Store:
        """What is in ``directory`` now, to read only: also while another process goes on writing there.

        ConfigError if there is no storage, DivergenceError if it is damaged.
        """
        return cls(directory, open_view(directory, families, cache_bytes), families, cache_bytes)

    @property
    def is_full(self) -> bool:
        return self._is_full

    def ensure_writable(self) -> None:
        if self._is_full:
            with self._writing:
                self._resume()

    def family(self, name: str) -> Family:
        """One family to read from."""
        self._family(name)
        return Family(self, name)

    def get(self, family: str, key: bytes) -> bytes | None:
        found = self._family(family)
        try:
            value: bytes | None = found.get(key)
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            raise self._failure(error) from None
        return value

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
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
        """Write everything to its final place on disk: after a bulk load, before a copy or a measurement."""
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
        # The lock is only released once every handle is gone, not by closing the database alone.
        for part in (*database.families.values(), database.rocks):
            try:
                part.close()
            except DbClosedError:
                continue
            except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
                # Closing writes tables of what the write-ahead log has already, and has for the next start.
                if not (self._is_full or is_full(error)):
                    raise self._failure(error) from None

    def _opened(self) -> Database:
        if self._database is None:
            raise ValueError(f"the storage in {self._directory} is closed")
        return self._database

    def _family(self, name: str) -> Rdict:
        try:
            return self._opened().families[name]
        except KeyError:
            raise ValueError(f"the storage in {self._directory} has no family {name!r}") from None

    def _resume(self) -> None:
        """Make writing possible again, if the disk was full; ``_writing`` is held.

        Raises ``DiskFullError`` while that is not possible.
        """
        if not self._is_full:
            return
        try:
            if not has_space(self._directory, SPACE_BYTES):
                raise DiskFullError(self._directory)
        except OSError as error:
            raise KtError(f"the storage in {self._directory} failed: {error}") from None
        if not self._opened().is_view:
            self._database = open_view(self._directory, self._names, self._cache_bytes)
        self._database = self._open_again()
        self._is_full = False

    def _open_again(self) -> Database:
        for _ in range(_LOCK_ATTEMPTS):
            try:
                return open_to_write(self._directory, self._names, self._cache_bytes)
            except OwnLockError:
                time.sleep(_LOCK_PAUSE)
            except ConfigError as error:
                raise KtError(f"the storage in {self._directory} failed: {error}") from None
        raise DiskFullError(self._directory)

    def _rows(self, name: str, start: bytes | None, reverse: bool) -> list[tuple[bytes, bytes]]:
        """The next rows from ``start``: in pieces, as an iterator left lying keeps the database locked.

        Not by ``items()`` of rocksdict, which takes damaged data for the end.
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
            return ValueError(f"the storage in {self._directory} is closed")
        if str(error).startswith("Corruption"):
            return DivergenceError(f"the data in {self._directory} is damaged: {error}")
        return KtError(f"the storage in {self._directory} failed: {error}")
