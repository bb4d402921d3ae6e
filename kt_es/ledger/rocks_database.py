"""The RocksDB database of ``rocks.RocksStore``: its options, and how it is opened to write or to read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
)

from kt_es.errors import ConfigError, DiskFullError, DivergenceError, KtError, LockedError
from kt_es.process.space import is_full

CACHE_BYTES = 64 << 20
WRITE_BUFFERS_BYTES = 48 << 20
VIEW_ATTEMPTS = 20

BlockCache = Cache


class OwnLockError(LockedError):
    """This process still has the lock, because a reader still uses the database that was replaced."""


@dataclass(frozen=True, slots=True)
class RocksDatabase:
    """An open database and its families. The lock on the directory ends with the last reference to any."""

    rocks: Rdict
    families: Mapping[str, Rdict]
    handles: Mapping[str, Any]  # of the families, for a batch of writes
    is_view: bool
    files: Sequence[tuple[str, int]] = ()  # that were there when a database was opened to follow

    @classmethod
    def of(
        cls, rocks: Rdict, names: Sequence[str], *, is_view: bool, files: Sequence[tuple[str, int]] = ()
    ) -> RocksDatabase:
        return cls(
            rocks,
            {name: rocks.get_column_family(name) for name in names},
            {name: rocks.get_column_family_handle(name) for name in names},
            is_view,
            files,
        )


def open_to_write(directory: Path, families: Sequence[str]) -> RocksDatabase:
    """Open or create the database. Raises what ``RocksStore.open`` raises."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if is_full(error):
            raise DiskFullError(directory) from None
        problem = error.strerror or "it cannot be created"
        raise ConfigError(f"{directory} cannot be used as a data directory: {problem}") from None
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"{directory} cannot be used as a data directory: no permission to write in it")
    try:
        rocks = _open(directory, families, AccessType.read_write())
    except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
        raise _opening_error(directory, error) from None
    return RocksDatabase.of(rocks, families, is_view=False)


def open_view(directory: Path, families: Sequence[str]) -> RocksDatabase:
    """Open what is in ``directory`` now, to read only. Raises what ``RocksStore.view`` raises."""
    if not exists(directory):
        raise ConfigError(f"{directory} is no data directory of kt-es: name one that kt-es has used")
    for _ in range(VIEW_ATTEMPTS):
        before = _files(directory)
        try:
            rocks = _open(directory, families, AccessType.read_only(False))
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            if _files(directory) == before:
                raise _opening_error(directory, error) from None
            continue
        # RocksDB lists the tables first. It misses a table that is written from the journal after that.
        if _files(directory) == before:
            return RocksDatabase.of(rocks, families, is_view=True)
        rocks.close()
    raise LockedError(f"{directory} is being changed too fast to be read; stop the process that uses it")


def open_following(
    directory: Path, families: Sequence[str], scratch: Path, blocks: BlockCache
) -> RocksDatabase | None:
    """Open what is in ``directory`` now, to read only, so that ``catch_up`` can read on.

    Args:
        scratch: A directory for RocksDB's own log.
        blocks: The cache of blocks, which databases that are opened one after the other may share.

    Returns:
        None while the other process changes its files too fast: ask again.

    Raises ``ConfigError`` if there is no store, and ``DivergenceError`` if it is damaged.
    """
    if not exists(directory):
        raise ConfigError(f"{directory} is no data directory of kt-es: name one that kt-es has used")
    for _ in range(VIEW_ATTEMPTS):
        before = _files(directory)
        try:
            rocks = _open(directory, families, AccessType.secondary(str(scratch)), blocks)
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            if _files(directory) == before:
                raise _opening_error(directory, error) from None
            continue
        if _files(directory) == before:
            return RocksDatabase.of(rocks, families, is_view=True, files=before)
        rocks.close()
    return None


def catch_up(directory: Path, database: RocksDatabase) -> bool:
    """Read what the other process has written since. Return False if ``database`` must be opened anew.

    A secondary instance of RocksDB only reads on in journals correctly. Once the other process has written a
    table from its memory, the secondary may answer with the value that a key had before, although it has the
    table. So it is used only while no file was added, removed or switched.
    """
    try:
        database.rocks.try_catch_up_with_primary()
    except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
        if _files(directory) == database.files:
            raise _opening_error(directory, error) from None
        return False
    return _files(directory) == database.files


def block_cache() -> BlockCache:
    return Cache(CACHE_BYTES)


def _open(
    directory: Path, families: Sequence[str], access: AccessType, blocks: BlockCache | None = None
) -> Rdict:
    cache = block_cache() if blocks is None else blocks  # all families share it
    columns = {name: _options(cache) for name in families}
    options = _options(cache)
    if blocks is not None:
        # The log of a follower is in a small place.
        options.set_stats_dump_period_sec(0)
    return Rdict(str(directory), options, column_families=columns, access_type=access)


def damage(directory: Path, problem: object) -> str:
    """Return the message for damaged data in ``directory``."""
    return (
        f"the data in {directory} is damaged: {problem}; delete the directory, and it is built from the log"
    )


def exists(directory: Path) -> bool:
    """Return whether ``directory`` has a database."""
    return (directory / "CURRENT").is_file()


def _files(directory: Path) -> list[tuple[str, int]]:
    """List tables, journals and manifests, and the size of manifests, which grows with each new table."""
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
    # On every level: the pages of one path differ little. LZ4, since a lookup unpacks every block it reads.
    options.set_compression_type(DBCompressionType.lz4())
    options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES)
    options.set_write_buffer_size(WRITE_BUFFERS_BYTES // 3)
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    # An incomplete record at the end of the write-ahead log was never acknowledged, so it is dropped. Damage
    # before the end is an error.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    return options


def _opening_error(directory: Path, error: Exception) -> KtError:
    if is_full(error):
        return DiskFullError(directory)
    problem = str(error)
    if "While lock file" in problem or "lock hold by current process" in problem:
        locked = OwnLockError if "lock hold by current process" in problem else LockedError
        return locked(f"{directory} is in use by another process; stop it first or use another directory")
    if problem.startswith("Corruption") or "existing log file" in problem:
        return DivergenceError(damage(directory, problem))
    return ConfigError(f"{directory} cannot be used as a data directory: {problem}")
