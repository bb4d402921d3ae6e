"""A cache of the values that were used last, bounded by the memory that keys and values take."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# Bytes that the cache itself takes for each item: 71 to 110, since its table doubles when it is full. This
# and the sizes of what is kept (``row_size``, ``page_size``, ``opening_size``) were measured with tracemalloc
# on CPython 3.11.7. ``tests/ledger/test_bytecache.py`` measures them again.
_ITEM_BYTES = 95


class ByteCache(Generic[K, V]):
    """Values by key; those that were not used for the longest time go first. Safe for threads."""

    def __init__(self, limit: int, size: Callable[[K, V], int]) -> None:
        """Keep as many items as ``limit`` bytes allow.

        Args:
            size: Returns the bytes that a key and its value take in memory, the same number each time.
        """
        self._limit = limit
        self._size = size
        self._lock = threading.Lock()  # guards all that follows
        self._items: OrderedDict[K, V] = OrderedDict()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """The memory of all items by ``size`` and of the cache itself; never above the limit."""
        return self._bytes

    def get(self, key: K) -> V | None:
        with self._lock:
            value = self._items.get(key)
            if value is not None:
                self._items.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        """Keep ``value``, which is not None. One that is larger than the limit is not kept."""
        with self._lock:
            self._drop(key)
            size = self._size(key, value) + _ITEM_BYTES
            if size > self._limit:
                return
            self._items[key] = value
            self._bytes += size
            while self._bytes > self._limit:
                self._drop(next(iter(self._items)))

    def add(self, key: K, value: V) -> None:
        """Keep ``value``, which is not None, if there is room without losing others."""
        with self._lock:
            self._drop(key)
            room = self._limit - self._bytes - _ITEM_BYTES
            # Without the size of the value, which takes longer, if there is hardly any room.
            if room > self._limit >> 8 and (size := self._size(key, value)) <= room:
                self._items[key] = value
                self._bytes += size + _ITEM_BYTES

    def drop(self, key: K) -> bool:
        """Forget the value of ``key``. Return whether there was one."""
        with self._lock:
            return self._drop(key)

    def _drop(self, key: K) -> bool:
        value = self._items.pop(key, None)
        if value is None:
            return False
        self._bytes -= self._size(key, value) + _ITEM_BYTES
        return True
