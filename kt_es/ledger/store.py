"""What a projection needs from its storage: families of sorted keys, and one atomic durable write.

``rocks.Store`` is the one on disk. Families are fixed when the storage is opened; keys and values
are bytes, and keys sort as unsigned bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

Change = tuple[str, bytes, bytes | None]
"""Family, key and new value; None deletes the key."""


class Storage(Protocol):
    """A small ordered key-value store with atomic writes across families.

    Calls may come from any thread. A family that was not opened, or any call after ``close``, is a
    ValueError. DivergenceError means that what is stored is damaged. DiskFullError means that nothing can be
    written for want of space: reading goes on, and the same write may be tried again.
    """

    @property
    def is_full(self) -> bool:
        """Whether the last write failed for want of space; true until one would succeed again."""
        ...

    def ensure_writable(self) -> None:
        """Raise ``DiskFullError`` while ``is_full`` and there still is no space; else ``is_full`` is over."""
        ...

    def get(self, family: str, key: bytes) -> bytes | None:
        """The value of a key, None where there is none."""
        ...

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of many keys, in their order."""
        ...

    def scan(
        self, family: str, prefix: bytes = b"", *, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """The keys that begin with ``prefix`` and their values, in order or in reverse.

        ``start``, itself included, is where to begin in that direction. What is written meanwhile may
        be seen or not; nothing is seen twice.
        """
        ...

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        """Make all changes or none; of several changes of one key the last counts.

        With ``sync`` they are on disk on return, and so is every write before. Without it they survive
        the end of the process but not of the machine. Readers see them before they are durable, so
        publish nothing that rests on them until the call has returned.
        """
        ...

    def close(self) -> None:
        """Release the storage for other processes. A second call does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """One family of a storage to read from: what ``Map`` takes as its store of pages."""

    storage: Storage
    name: str

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None where there is none."""
        return self.storage.get(self.name, key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of many keys, in their order."""
        return self.storage.get_many(self.name, keys)


def after_prefix(prefix: bytes) -> bytes | None:
    """The first key behind all that begin with ``prefix``, None if there can be none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None
