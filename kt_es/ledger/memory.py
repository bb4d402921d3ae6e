"""A store in memory, for the private rows of a process without a disk, and for tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kt_es.ledger.store import Change, Store


class MemoryStore(Store):
    def __init__(self, families: Sequence[str]) -> None:
        self._families: dict[str, dict[bytes, bytes]] = {name: {} for name in families}

    def get(self, family: str, key: bytes) -> bytes | None:
        return self._rows(family).get(key)

    def get_many(self, family: str, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        rows = self._rows(family)
        return [rows.get(key) for key in keys]

    def scan(
        self, family: str, prefix: bytes = b"", *, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        rows = sorted(self._rows(family).items(), reverse=reverse)
        for key, value in rows:
            before = start is not None and (key > start if reverse else key < start)
            if key.startswith(prefix) and not before:
                yield key, value

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        changes = list(changes)
        for family, _, _ in changes:
            self._rows(family)
        for family, key, value in changes:
            if value is None:
                self._families[family].pop(key, None)
            else:
                self._families[family][key] = value

    def close(self) -> None:
        self._families.clear()

    def _rows(self, family: str) -> dict[bytes, bytes]:
        if family not in self._families:
            raise ValueError(f"no family {family!r}: not opened, or closed")
        return self._families[family]
