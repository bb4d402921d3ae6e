"""The store on disk of another process, which this process follows: reads only, and never a mixed state.

The other process keeps writing. Nothing of that is seen until ``read_on``. What is seen then includes every
write that returned before the call, in all families.

RocksDB's secondary instances give less: they answer from memory with values that were overwritten since, once
the other process has moved them from its memory to a table. So a secondary instance only reads on in the
journals. When the set of tables and journals has changed, another instance is opened, and takes the place of
the one before (``rocks_database.catch_up``). This happens once in tens of megabytes of writes, and takes some
10 ms. Readers that still use the instance before end with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from kt_es.errors import DiskFullError, KtError
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.rocks_database import RocksDatabase, block_cache, catch_up, open_following
from kt_es.ledger.store import Change, Store


class FollowedStore(Store):
    """The store in ``directory``, which another process writes. Safe for threads."""

    def __init__(
        self, directory: Path, families: Sequence[str], scratch: Path, is_full: Callable[[], bool]
    ) -> None:
        """Open the present state.

        Args:
            directory: The data directory of the other process.
            families: All families of the store.
            scratch: An empty directory of this process alone, for RocksDB's own log.
            is_full: Returns whether the disk of the other process is full.

        Raises:
            ConfigError: There is no store.
            DivergenceError: The store is damaged.
        """
        self._directory = directory
        self._names = tuple(families)
        self._scratch = scratch
        self._is_full = is_full
        self._blocks = block_cache()
        self._reading_on = threading.Lock()  # guards what follows against other calls of ``read_on``
        self._opened = 0
        self._database: RocksDatabase | None = None
        self._open()
        self._view = self._viewed()

    @property
    def is_full(self) -> bool:
        return self._is_full()

    @property
    def opened(self) -> int:
        """How often an instance was opened."""
        return self._opened

    def read_on(self) -> bool:
        """See what was written up to now. Return False if that is not possible yet: ask again soon.

        A reader of an earlier state may then miss rows that the other process has deleted.
        """
        with self._reading_on:
            if self._database is not None and catch_up(self._directory, self._database):
                return True
            if self._open():
                self._view = self._viewed()
                return True
            return False

    def _open(self) -> bool:
        # Each instance has a directory of its own, since the one before may still be in use.
        scratch = self._scratch / str(self._opened % 2)
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._database = open_following(self._directory, self._names, scratch, self._blocks)
        self._opened += 1
        return self._database is not None

    def _viewed(self) -> RocksStore:
        if self._database is None:
            raise KtError(f"{self._directory} is being changed too fast to be read; start again")
        return RocksStore(self._directory, self._database, self._names)

    def get(self, family: str, key: bytes) -> bytes | None:
        return self._view.get(family, key)

    def get_many(self, family: str, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        return self._view.get_many(family, keys)

    def scan(
        self, family: str, prefix: bytes = b"", *, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._view.scan(family, prefix, start=start, reverse=reverse)

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        """Refuse: only the other process writes."""
        if self.is_full:
            raise DiskFullError(self._directory)
        raise KtError(f"the store in {self._directory} belongs to another process, which alone writes to it")

    def close(self) -> None:
        self._view.close()
