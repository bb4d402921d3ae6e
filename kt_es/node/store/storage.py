"""The disk under the log: a key-value store with an explicit promise of durability.

``NodeStorage`` is the seam. ``rocks.RocksStorage`` implements it over RocksDB; tests put a faulty one in its
place. Its promise:

- ``write`` applies a batch entirely or not at all and makes it visible to ``get``, ``get_many``, ``scan``.
- A batch need not be on disk before ``sync`` has returned.
- ``write`` and ``sync`` may raise ``StorageError``. Nothing may be concluded about the batch then: it may or
  may not be there after the next start.
- ``write`` alone may raise ``NoSpaceError``: the disk is full, and the batch is not there and never will be.
  Reads go on, and every further write is refused until ``recover`` has returned.
- A read that finds damage raises ``StorageError``: a part is never served as if it were the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from kt_es.errors import KtError


class StorageError(KtError):
    """The disk refused a read or a write; the node has to stop."""


class NoSpaceError(StorageError):
    """The disk is full or a quota is used up: nothing was written, and nothing is in doubt.

    Clients get its text. The log of the node names the disk.
    """

    exit_code = 7

    def __init__(self) -> None:
        super().__init__("the disk is full: nothing can be written; try again later")


class DamageError(KtError):
    """The data are not what the node wrote."""

    exit_code = 4


class NodeStorage(Protocol):
    """The module's text has the promises."""

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
        """Return once everything written before is on disk. Called on the thread that ``commits`` chose."""

    def may_recover(self) -> bool:
        """Whether there seems to be space again after a ``NoSpaceError``. On any thread; may take long.

        Raises:
            StorageError: the disk has another fault.
        """

    def recover(self) -> None:
        """Accept writes again. On the thread that reads and writes.

        Raises:
            NoSpaceError: there is still no space; everything is as it was.
            StorageError: the data are not what was acknowledged.
        """

    def close(self) -> None:
        """Release the directory."""
