"""The table of pages, and verified pages in memory, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import structlog

from kt_es.errors import ConfigError, DiskFullError, DivergenceError, KtError
from kt_es.formats.heads import HeadEvent
from kt_es.ledger.store import Change, Store
from kt_es.merkle.map import Root
from kt_es.merkle.pages import (
    EMPTY_PAGE,
    KEY_HASH_SIZE,
    VERSION_SIZE,
    Page,
    child_ref,
    decode_page,
    encode_page,
    version_in,
)
from kt_es.merkle.update import Pages

CACHE_BYTES = 32 << 20

# Memory of a page by itself and of each used slot, measured with tracemalloc on CPython 3.11.
_PAGE_BYTES = 1_150
_SLOT_BYTES = 310

_BATCH = 2_000  # changes in one write of ``rekey``

_LOG = structlog.get_logger("kt_es.ledger")


@dataclass(frozen=True, slots=True)
class PageTable:
    """Pages of the map: the ``NodeStore`` that ``Map`` reads from."""

    FAMILY: ClassVar = "pages"
    LISTS: ClassVar = b"replaced "
    store: Store

    def put(self, epoch: int, pages: Pages) -> list[Change]:
        """Write what ``epoch`` makes of the map.

        A page that an earlier slice of ``epoch`` wrote is deleted when it is replaced. A page of an earlier
        epoch is listed, for ``prune``.
        """
        version = epoch.to_bytes(VERSION_SIZE)
        gone = {key for key, page in pages if page is None}
        ours = {key for key in gone if version_in(key) == version}
        changes: list[Change] = [(self.FAMILY, key, page) for key, page in pages if page or key in ours]
        if replaced := sorted(gone - ours):
            changes.append((*self._list(epoch, replaced[0]), b"".join(replaced)))
        return changes

    def _list(self, epoch: int, first: bytes) -> tuple[str, bytes]:
        return "meta", self.LISTS + epoch.to_bytes(8) + first

    def lists(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield the lists of replaced pages in order: the epoch that replaced them, row key, page keys."""
        for key, keys in self.store.scan("meta", self.LISTS):
            yield int.from_bytes(key[len(self.LISTS) : len(self.LISTS) + 8]), key, keys

    def delete_lists_after(self, epoch: int) -> list[Change]:
        return [("meta", key, None) for number, key, _ in self.lists() if number > epoch]

    def prune(self, oldest: int) -> int:
        """Delete the pages that no epoch from ``oldest`` on needs, and return how many.

        A page that an epoch replaced is needed by the epochs before it alone. If the process ends in between,
        the next call does the rest.
        """
        count = 0
        for epoch, row, keys in self.lists():
            if epoch > oldest:
                break
            pages = list(split_keys(keys))
            self.store.write([*((self.FAMILY, key, None) for key in pages), ("meta", row, None)], sync=False)
            count += len(pages)
        self.store.write([], sync=True)
        return count

    def get_many(self, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        return self.store.get_many(self.FAMILY, keys, again=again)

    def replaced(self, pages: Pages) -> bytes:
        """Return the keys that ``put_replaced`` gets when the epoch ends: none here, ``put`` listed them."""
        return b""

    def put_replaced(self, event: HeadEvent, epoch: int, keys: bytes) -> list[Change]:
        """List the pages ``keys`` that ``epoch``, whose head is ``event``, has replaced."""
        return []

    def upgrade(self, root: Root) -> None:
        """Give the pages of a data directory of an earlier version, whose map is at ``root``, their new keys.

        The keys of earlier versions had no part of the hash. Each page is read, hashed and written under its
        new key. The root pages come last, so the next start does the rest if this one is interrupted.

        Raises:
            ConfigError: the directory is open to be read alone.
            DivergenceError: a page is damaged.
        """
        if root.slot is None:
            return
        key, _ = child_ref(b"", 0, root.slot)
        if self.get_many([key])[0] is not None or self.get_many([key[:-KEY_HASH_SIZE]])[0] is None:
            return
        count, changes = 0, list[Change]()
        try:
            for change in self._rekeyed():
                changes.append(change)
                if len(changes) == _BATCH:
                    self.store.write(changes, sync=False)
                    count, changes = count + len(changes) // 2, []
            self.store.write(changes)
        except (DiskFullError, DivergenceError):
            raise
        except KtError as error:
            raise ConfigError(
                "the data directory is of an earlier version: start its process once, then try again "
                f"({error})"
            ) from None
        _LOG.info("a data directory of an earlier version was converted", pages=count + len(changes) // 2)

    def _rekeyed(self) -> Iterator[Change]:
        for key, data in self.store.scan(self.FAMILY, reverse=True):
            path = 1 + (key[0] + 1) // 2
            if len(key) != path + VERSION_SIZE:
                continue
            try:
                slots = decode_page(key, data)
            except DivergenceError:
                raise DivergenceError(
                    f"the data directory is of an earlier version, and its page {key.hex()} is damaged: "
                    "delete the directory, and it is built from the log"
                ) from None
            renamed = key + EMPTY_PAGE.with_slots(slots).hash[:KEY_HASH_SIZE]
            yield self.FAMILY, renamed, encode_page(renamed, slots)
            yield self.FAMILY, key, None


def split_keys(keys: bytes) -> Iterator[bytes]:
    """Yield the keys of pages in ``keys``. The depth, which comes first, tells the length."""
    at = 0
    while at < len(keys):
        end = at + 1 + (keys[at] + 1) // 2 + VERSION_SIZE + KEY_HASH_SIZE
        yield keys[at:end]
        at = end


class PageCache:
    """The pages that were used last, by key (``merkle.pages.PageCache``). Safe for threads."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        """Keep pages of about ``limit`` bytes together."""
        self._limit = limit
        self._lock = threading.Lock()
        self._pages: OrderedDict[bytes, Page] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes) -> Page | None:
        with self._lock:
            page = self._pages.get(key)
            if page is not None:
                self._pages.move_to_end(key)
            return page

    def put(self, key: bytes, page: Page) -> None:
        with self._lock:
            replaced = self._pages.pop(key, None)
            self._bytes += _size(page) - (0 if replaced is None else _size(replaced))
            self._pages[key] = page
            while self._bytes > self._limit:
                _, oldest = self._pages.popitem(last=False)
                self._bytes -= _size(oldest)


def _size(page: Page) -> int:
    return _PAGE_BYTES + _SLOT_BYTES * (len(page.slots) - page.slots.count(None))
