"""What a projection needs from its storage: columns of sorted keys, and one atomic durable write.

``rocks.Store`` is the one on disk. Columns are fixed when the storage is opened; keys and values
are bytes, keys sort as unsigned bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(slots=True)
class Batch:
    """Changes that are written together or not at all; the last change of a key counts.

    ``columns`` maps each column to its keys and their new values, None for a deleted key.
    """

    columns: dict[str, dict[bytes, bytes | None]] = field(default_factory=dict)

    def put(self, column: str, key: bytes, value: bytes) -> None:
        """Set one key."""
        self.columns.setdefault(column, {})[key] = value

    def put_many(self, column: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Set many keys, as the pages that ``Map.apply`` returns."""
        self.columns.setdefault(column, {}).update(rows)

    def delete(self, column: str, key: bytes) -> None:
        """Remove one key, whether it is there or not."""
        self.columns.setdefault(column, {})[key] = None

    def __len__(self) -> int:
        return sum(len(changes) for changes in self.columns.values())


class Storage(Protocol):
    """A small ordered key-value store with atomic batches across columns.

    Calls may come from any thread. A stored value that cannot be read back raises DivergenceError.
    """

    def get(self, column: str, key: bytes) -> bytes | None:
        """The value of a key, None where there is none."""
        ...

    def get_many(self, column: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of many keys, in their order."""
        ...

    def items(
        self, column: str, prefix: bytes = b"", *, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """The keys that begin with ``prefix`` and their values, in order.

        It begins at ``start``, itself included, in the direction asked for. What is written meanwhile
        may be seen or not.
        """
        ...

    def write(self, batch: Batch, sync: bool = True) -> None:
        """Write the whole batch or nothing; with ``sync`` it is on disk on return, as is all before it.

        Without ``sync`` it survives the end of the process but not of the machine. Readers see a batch
        before it is durable, so publish nothing of it before the call has returned.
        """
        ...

    def close(self) -> None:
        """Release the storage for other processes; further calls raise ValueError."""
        ...


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a storage to read from: what ``Map`` takes as its store of pages."""

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
