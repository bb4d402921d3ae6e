"""A RocksDB database of a projection: opened to write, or as a view of what is there, and how it is set up.

Beside ``rocks``, nothing else but the node imports rocksdict.
"""

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


class OwnLockError(LockedError):
    """This process itself has the lock still: somebody reads from a database that was replaced."""


WRITE_BUFFERS_BYTES = 48 << 20
VIEW_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Database:
    """An open database and its families. Its lock on the directory ends with the last reference to any."""

    rocks: Rdict
    families: Mapping[str, Rdict]
    handles: Mapping[str, Any]  # of the families, as a batch of writes wants them
    is_view: bool

    @classmethod
    def of(cls, rocks: Rdict, names: Sequence[str], *, is_view: bool) -> Database:
        return cls(
            rocks,
            {name: rocks.get_column_family(name) for name in names},
            {name: rocks.get_column_family_handle(name) for name in names},
            is_view,
        )


def open_to_write(directory: Path, families: Sequence[str], cache_bytes: int) -> Database:
    """Open or create the database; errors as of ``Store.open``, and ``DiskFullError``."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if is_full(error):
            raise DiskFullError(directory) from None
        problem = error.strerror or "it cannot be created"
        raise ConfigError(f"{directory} cannot be used as a data directory: {problem}") from None
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"{directory} cannot be used as a data directory: no permission to write in it")
    cache = Cache(cache_bytes)
    try:
        rocks = Rdict(
            str(directory),
            _options(cache),
            column_families={name: _options(cache) for name in families},
        )
    except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
        raise _opening_error(directory, error) from None
    return Database.of(rocks, families, is_view=False)


def open_view(directory: Path, families: Sequence[str], cache_bytes: int) -> Database:
    """What is in ``directory`` now, to read only; errors as of ``Store.view``."""
    if not is_there(directory):
        raise ConfigError(f"{directory} is no data directory of kt-es")
    cache = Cache(cache_bytes)
    for _ in range(VIEW_ATTEMPTS):
        before = _files(directory)
        try:
            rocks = Rdict(
                str(directory),
                _options(cache),
                column_families={name: _options(cache) for name in families},
                access_type=AccessType.read_only(False),
            )
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            if _files(directory) == before:
                raise _opening_error(directory, error) from None
            continue
        # Between the list of tables and the journal, a table may have been written of the journal.
        if _files(directory) == before:
            return Database.of(rocks, families, is_view=True)
        rocks.close()
    raise LockedError(f"{directory} is being changed too fast to be read; stop the process that uses it")


def is_there(directory: Path) -> bool:
    """Whether ``directory`` has a database."""
    return (directory / "CURRENT").is_file()


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


def _opening_error(directory: Path, error: Exception) -> KtError:
    if is_full(error):
        return DiskFullError(directory)
    problem = str(error)
    if "While lock file" in problem or "lock hold by current process" in problem:
        locked = OwnLockError if "lock hold by current process" in problem else LockedError
        return locked(f"{directory} is in use by another process; stop it first or use another directory")
    if problem.startswith("Corruption") or "existing log file" in problem:
        return DivergenceError(f"the data in {directory} is damaged: {problem}")
    return ConfigError(f"{directory} cannot be used as a data directory: {problem}")
