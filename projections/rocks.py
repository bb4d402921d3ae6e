"""Storage of projections on disk: RocksDB by way of rocksdict, which nothing else here imports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from rocksdict import (
    BlockBasedOptions,
    Cache,
    ColumnFamily,
    CompactOptions,
    DBCompressionType,
    DBRecoveryMode,
    DbClosedError,
    Options,
    Rdict,
    WriteBatch,
)

from kt_es.errors import ConfigError, DivergenceError, KtError, LockedError
from projections.storage import Batch, after_prefix

CACHE_BYTES = 64 << 20
WRITE_BUFFER_BYTES = 32 << 20
ITERATION_ROWS = 512


class Store:
    """RocksDB under ``directory``; the interface and its promises are those of ``storage.Storage``.

    Each committed batch goes to the write-ahead log first and is synced by ``flush_wal``: rocksdict
    would keep the GIL during a write that syncs itself. Memory is bounded by ``cache_bytes`` for
    blocks, indexes and filters together, and by 32 MiB of write buffers over all columns.
    """

    def __init__(self, directory: Path, database: Rdict, columns: Sequence[str]) -> None:
        """Use ``Store.open``."""
        self._directory = directory
        self._database: Rdict | None = database
        self._columns = {name: database.get_column_family(name) for name in columns}
        self._handles: dict[str, ColumnFamily] = {
            name: database.get_column_family_handle(name) for name in columns
        }

    @classmethod
    def open(cls, directory: Path, columns: Sequence[str], cache_bytes: int = CACHE_BYTES) -> Store:
        """Open or create the storage; ``columns`` are all the columns that it has, new ones are added.

        LockedError if another process uses it, ConfigError if the directory cannot be used,
        DivergenceError if what is in it is damaged.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{directory} cannot be used as a data directory: {error.strerror}") from None
        cache = Cache(cache_bytes)
        families = {name: _options(cache) for name in columns}
        try:
            database = Rdict(str(directory), _options(cache), column_families=families)
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing more specific
            raise _open_error(directory, str(error)) from None
        return cls(directory, database, columns)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def get(self, column: str, key: bytes) -> bytes | None:
        family = self._family(column)
        try:
            value: bytes | None = family.get(key)
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing more specific
            raise self._error("read", error) from None
        return value

    def get_many(self, column: str, keys: Sequence[bytes]) -> list[bytes | None]:
        family = self._family(column)
        try:
            values: list[bytes | None] = family.get(list(keys)) or []
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing more specific
            raise self._error("read", error) from None
        return values

    def items(
        self, column: str, prefix: bytes = b"", *, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        # In steps, because an iterator that somebody forgot would keep the database open after close.
        position = start
        if position is None:
            position = after_prefix(prefix) if reverse else prefix
        while True:
            rows = self._rows(column, position, reverse)
            for key, value in rows:
                if key.startswith(prefix):
                    yield key, value
                elif reverse and key > prefix:
                    continue
                elif not reverse and key < prefix:
                    continue
                else:
                    return
            if len(rows) < ITERATION_ROWS:
                return
            position = rows[-1][0]

    def _rows(self, column: str, position: bytes | None, reverse: bool) -> list[tuple[bytes, bytes]]:
        family = self._family(column)
        rows: list[tuple[bytes, bytes]] = []
        try:
            for row in family.items(backwards=reverse, from_key=position):
                rows.append(row)
                if len(rows) == ITERATION_ROWS:
                    break
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing more specific
            raise self._error("read", error) from None
        return rows
