"""A shared store that is connected at its first use: a process can start while the store is unreachable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from kt_es.ledger.store import Change, Store


class ConnectingStore(Store):
    """Connects at the first call, and tries again at each further call until one succeeds.

    Every call may raise what ``connect`` raises: ``UnavailableError`` while the store cannot be reached, and
    ``ConfigError`` once it answers and cannot be used.
    """

    def __init__(self, connect: Callable[[], Store]) -> None:
        self._connect = connect
        # Guards the fields below. A thread holds it while it connects. The others wait, and try themselves if
        # it failed.
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._closed = False

    def connected(self) -> Store:
        """Return the store. It has answered at least once."""
        with self._lock:
            if self._closed:
                raise ValueError("the shared store is closed")
            if self._store is None:
                self._store = self._connect()
            return self._store

    @property
    def is_shared(self) -> bool:
        return True

    def ensure_writable(self) -> None:
        self.connected().ensure_writable()

    def get(self, family: str, key: bytes) -> bytes | None:
        return self.connected().get(family, key)

    def get_many(self, family: str, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        return self.connected().get_many(family, keys, again=again)

    def scan(
        self, family: str, prefix: bytes = b"", *, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self.connected().scan(family, prefix, start=start, reverse=reverse)

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        self.connected().write(changes, sync)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._store is not None:
                self._store.close()
