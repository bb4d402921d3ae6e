"""The interface of a store: families of sorted keys.

``rocks.RocksStore`` is the store on disk, ``memory.MemoryStore`` the one in memory, and
``cassandra.CassandraStore`` the one that many processes share. All pass the same contract
(``tests/ledger/test_storage_contract.py``). What a store holds stands in ``tables``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

Change = tuple[str, bytes, bytes | None]
"""Family, key and new value; None deletes the key."""


class Store(Protocol):
    """An ordered key-value store. Its families are fixed when it is opened; keys and values are bytes.

    A subclass inherits ``is_shared`` and ``is_full`` as False.

    Every implementation makes these promises, with the exceptions for shared stores:

    * Atomicity: ``write`` makes all of its changes or none, across families. A shared store may make some of
      them before it raises; each change may be repeated.
    * Durability: after a synced ``write``, its changes and those of all writes before it survive a crash of
      the machine. After a ``write`` without ``sync`` they survive the end of the process. In a shared store a
      majority of the replicas have them after a synced ``write``; a ``write`` without ``sync`` may still be
      under way.
    * Order: keys sort as unsigned bytes, and ``scan`` returns each key at most once, in that order. A shared
      store keeps the order among keys of one partition (``cassandra.PARTITIONS``), and scans more than one
      partition in any order.
    * Reads: a read sees every write that returned before it. There is no snapshot over several reads: a
      reader takes ``Ledger.committed`` once, and the rows of a committed epoch never change.
    * Threads: calls may come from any thread.

    Every method may raise:
        ValueError: The family was not opened, or the store is closed.
        UnavailableError: A shared store cannot be reached, or too few of its replicas can.
        DivergenceError: What is stored is damaged.
        DiskFullError: The disk is full. Reads continue, and the write may be repeated.
    """

    @property
    def is_shared(self) -> bool:
        """Whether other processes, also on other machines, use the store at the same time."""
        return False

    @property
    def is_full(self) -> bool:
        """Whether the last write failed for want of space. Stays true until a write would succeed again."""
        return False

    def ensure_writable(self) -> None:
        """End ``is_full`` if there is space again; otherwise raise ``DiskFullError``."""
        return

    def get(self, family: str, key: bytes) -> bytes | None:
        """Return the value of ``key``, or None if the key does not exist."""
        ...

    def get_many(self, family: str, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        """Return the values of ``keys`` in their order, with None for each key that does not exist.

        Args:
            again: Ask a majority of the replicas and no cache, because the first read gave a missing or wrong
                row.
        """
        ...

    def scan(
        self, family: str, prefix: bytes = b"", *, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys that begin with ``prefix``, with their values, in order or in reverse order.

        A write during the scan may be seen or not.

        Args:
            start: The first key to consider, in the direction of the scan; it need not exist.
        """
        ...

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        """Make all ``changes`` or none; of several changes of one key the last one counts.

        Readers see changes before they are durable. Publish nothing that depends on the changes before the
        call returns.
        """
        ...

    def close(self) -> None:
        """Release the store for other processes. A second call does nothing."""
        ...


def after_prefix(prefix: bytes) -> bytes | None:
    """Return the first key after all keys that begin with ``prefix``, None if no such key is possible."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None
