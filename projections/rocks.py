"""Storage of projections on disk: RocksDB by way of rocksdict, which nothing else here imports."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    CompactOptions,
    DbClosedError,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    WriteBatch,
)

from kt_es.errors import ConfigError, DivergenceError, KtError, LockedError
from projections.storage import Change, Family, after_prefix

CACHE_BYTES = 64 << 20
WRITE_BUFFERS_BYTES = 48 << 20
SCAN_ROWS = 512
VIEW_ATTEMPTS = 20


class Store:
    """RocksDB under one directory; the interface and its promises are those of ``storage.Storage``.

    A write goes to the write-ahead log and is then synced by ``flush_wal``: rocksdict would keep the
    GIL during a write that syncs itself. Memory is bounded by ``cache_bytes`` for blocks, indexes and
    filters together, and by 48 MiB for the write buffers of all families.
    """

    def __init__(self, directory: Path, database: Rdict, families: Sequence[str]) -> None:
        """Takes over an open database; use ``Store.open``."""
        self._directory = directory
        self._database = database
        self._families = {name: database.get_column_family(name) for name in families}
        self._handles = {name: database.get_column_family_handle(name) for name in families}

    @classmethod
    def open(cls, directory: Path, families: Sequence[str], cache_bytes: int = CACHE_BYTES) -> Store:
        """Open or create the storage; ``families`` are all that it has, new ones are added.

        LockedError if another process uses it, ConfigError if the directory cannot be used,
        DivergenceError if what is in it is damaged.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            problem = error.strerror or "it cannot be created"
            raise ConfigError(f"{directory} cannot be used as a data directory: {problem}") from None
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise ConfigError(f"{directory} cannot be used as a data directory: no permission to write in it")
        cache = Cache(cache_bytes)
        try:
            database = Rdict(
                str(directory),
                _options(cache),
                column_families={name: _options(cache) for name in families},
            )
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            raise _opening_error(directory, str(error)) from None
        return cls(directory, database, families)

    @classmethod
    def view(cls, directory: Path, families: Sequence[str], cache_bytes: int = CACHE_BYTES) -> Store:
        """What is in ``directory`` now, to read only: also while another process goes on writing there.

        ConfigError if there is no storage, DivergenceError if it is damaged.
        """
        if not (directory / "CURRENT").is_file():
            raise ConfigError(f"{directory} is no data directory of kt-es")
        cache = Cache(cache_bytes)
        for _ in range(VIEW_ATTEMPTS):
            before = _files(directory)
            try:
                database = Rdict(
                    str(directory),
                    _options(cache),
                    column_families={name: _options(cache) for name in families},
                    access_type=AccessType.read_only(False),
                )
            except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
                if _files(directory) == before:
                    raise _opening_error(directory, str(error)) from None
                continue
            store = cls(directory, database, families)
            # Between the list of tables and the journal, a table may have been written of the journal.
            if _files(directory) == before:
                return store
            store.close()
        raise LockedError(f"{directory} is being changed too fast to be read; stop the process that uses it")

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
        batch = WriteBatch(raw_mode=True)
        current = None
        for family, key, value in changes:
            if family != current:
                self._family(family)
                batch.set_default_column_family(self._handles[family])
                current = family
            if value is None:
                del batch[key]
            else:
                batch[key] = value
        try:
            self._database.write(batch)
            if sync:
                self._database.flush_wal(True)
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            raise self._failure(error) from None

    def compact(self) -> None:
        """Write everything to its final place on disk: after a bulk load, before a copy or a measurement."""
        try:
            for family in self._families.values():
                family.flush()
                family.compact_range(None, None, CompactOptions())
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            raise self._failure(error) from None

    def close(self) -> None:
        # The lock is only released once every handle is gone, not by closing the database alone.
        for family in self._families.values():
            family.close()
        self._families.clear()
        self._handles.clear()
        with suppress(DbClosedError):
            self._database.close()

    def _family(self, name: str) -> Rdict:
        try:
            return self._families[name]
        except KeyError:
            problem = f"has no family {name!r}" if self._families else "is closed"
            raise ValueError(f"the storage in {self._directory} {problem}") from None

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
        if isinstance(error, DbClosedError):
            return ValueError(f"the storage in {self._directory} is closed")
        if str(error).startswith("Corruption"):
            return DivergenceError(f"the data in {self._directory} is damaged: {error}")
        return KtError(f"the storage in {self._directory} failed: {error}")


def _files(directory: Path) -> list[tuple[str, int]]:
    """Tables, journals and manifests; of these the size as well, which grows with each new table."""
    try:
        return sorted(
            (path.name, path.stat().st_size if path.name.startswith("MANIFEST") else 0)
            for path in directory.iterdir()
            if path.suffix in (".sst", ".log") or path.name.startswith(("MANIFEST", "CURRENT"))
        )
    except FileNotFoundError:
        return []


def _options(cache: Cache) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_bloom_filter(10, False)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_format_version(5)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_block_based_table_factory(table)
    # On every level: the pages of one path differ little, and all that a lookup reads is unpacked.
    options.set_compression_type(DBCompressionType.lz4())
    options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES)
    options.set_write_buffer_size(WRITE_BUFFERS_BYTES // 3)
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    # A torn end of the write-ahead log was never acknowledged; damage before it must not pass for one.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    return options


def _opening_error(directory: Path, problem: str) -> KtError:
    if "While lock file" in problem or "lock hold by current process" in problem:
        return LockedError(
            f"{directory} is in use by another process; stop it first or use another directory"
        )
    if problem.startswith("Corruption") or "existing log file" in problem:
        return DivergenceError(f"the data in {directory} is damaged: {problem}")
    return ConfigError(f"{directory} cannot be used as a data directory: {problem}")
