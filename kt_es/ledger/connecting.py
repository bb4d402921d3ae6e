"""A shared store that is connected when somebody needs it: a process may start while the store is away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from kt_es.ledger.store import Change, Store


class ConnectingStore(Store):
    """Connects at the first call, and at each further one until that succeeds.

    Every call may raise what ``connect`` raises: ``UnavailableError`` while the store is away, and
    ``ConfigError`` once it answers and cannot be used. ``SharedStore`` remembers the last ``problem``.
    """

    def __init__(self, connect: Callable[[], Store]) -> None:
        self._connect = connect
        # Guards the fields below, also while a thread connects: the others wait for what it gets.
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._closed = False

    def connected(self) -> Store:
        """Return the store, which answers now or has answered before."""
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
