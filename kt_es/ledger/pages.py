"""The table of pages, and verified pages in memory, bounded in bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, NamedTuple

import structlog

from kt_es.crypto.hashes import HASH_SIZE
from kt_es.errors import ConfigError, DiskFullError, DivergenceError, KtError
from kt_es.formats.heads import HeadEvent
from kt_es.ledger.bytecache import ByteCache
from kt_es.ledger.store import Change, Store
from kt_es.merkle.pages import (
    CHILD_SIZE,
    EMPTY_PAGE,
    KEY_HASH_SIZE,
    LEAF_SIZE,
    SLOTS,
    VERSION_SIZE,
    Page,
    decode_page,
    encode_page,
    version_in,
)
from kt_es.merkle.update import Pages

CACHE_BYTES = 64 << 20

_PAGE_BYTES = 849  # an empty page and the object of its key, see bytecache
_BYTES = 33  # of an object of bytes beside its content

_BATCH = 1_000  # pages in one write of ``upgrade``

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

        A page that an epoch replaced is needed only by earlier epochs. If the process ends during the call,
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
        """Return the keys for ``put_replaced`` at the end of the epoch: none, because ``put`` lists them."""
        return b""

    def put_replaced(self, event: HeadEvent, epoch: int, keys: bytes) -> list[Change]:
        """List the pages ``keys`` that ``epoch``, whose head is ``event``, has replaced."""
        return []

    def upgrade(self, newest: int) -> None:
        """Give the pages of a data directory of an earlier version their new keys.

        The keys of earlier versions had no part of the hash, and replaced pages were not listed. Each page is
        read, hashed and written under its new key, and listed if it was replaced. Pages of an epoch that was
        not finished are deleted. The first page is converted last. If it still has its old key at the next
        start, the conversion was interrupted and continues.

        Args:
            newest: The epoch that wrote the root page of the committed map; 0 before the first one.

        Raises:
            ConfigError: The directory is open for reading only.
            DivergenceError: A page is damaged.
        """
        first, _ = next(self.store.scan(self.FAMILY), (b"", b""))
        if len(first) != 1 + VERSION_SIZE:
            return
        count, pages = 0, self._earlier(newest)
        try:
            while some := list(islice(pages, _BATCH)):
                self.store.write(self._converted(some), sync=False)
                count += len(some)
            self.store.write([], sync=True)
        except (DiskFullError, DivergenceError):
            raise
        except KtError as error:
            raise ConfigError(
                "the data directory is of an earlier version: start its process once, then try again "
                f"({error})"
            ) from None
        _LOG.info("a data directory of an earlier version was converted", pages=count)

    def _earlier(self, newest: int) -> Iterator[_EarlierPage]:
        """Yield the pages of an earlier version, from the bottom of the map to its root.

        The page that replaced a page has the same path and the next version, up to ``newest``.
        """
        above = b""
        for key, data in self.store.scan(self.FAMILY, reverse=True):
            path = 1 + (key[0] + 1) // 2
            end = path + VERSION_SIZE
            replaced = int.from_bytes(above[path:]) if above[:path] == key[:path] else None
            is_left_over = int.from_bytes(key[path:end]) > newest
            if len(key) == end:
                yield _EarlierPage(key, data, replaced, is_left_over)
            if not is_left_over:
                above = key[:end]

    def _converted(self, pages: Sequence[_EarlierPage]) -> list[Change]:
        changes: list[Change] = [(self.FAMILY, page.key, None) for page in pages]
        replaced = defaultdict[int, list[bytes]](list)
        for page in pages:
            if page.is_left_over:
                continue
            try:
                slots = decode_page(page.key, page.data)
            except DivergenceError:
                raise DivergenceError(
                    f"the data directory is of an earlier version, and its page {page.key.hex()} is damaged: "
                    "delete the directory, and it is built from the log"
                ) from None
            key = page.key + EMPTY_PAGE.with_slots(slots).hash[:KEY_HASH_SIZE]
            changes.append((self.FAMILY, key, encode_page(key, slots)))
            if page.replaced is not None:
                replaced[page.replaced].append(key)
        return changes + [(*self._list(epoch, keys[0]), b"".join(keys)) for epoch, keys in replaced.items()]


class _EarlierPage(NamedTuple):
    """A page of an earlier version, and the epoch that replaced it, if any."""

    key: bytes
    data: bytes
    replaced: int | None
    is_left_over: bool  # by an epoch that was not finished


def split_keys(keys: bytes) -> Iterator[bytes]:
    """Yield the keys of pages in ``keys``. The depth, which comes first, tells the length."""
    at = 0
    while at < len(keys):
        end = at + 1 + (keys[at] + 1) // 2 + VERSION_SIZE + KEY_HASH_SIZE
        yield keys[at:end]
        at = end


def page_cache(limit: int = CACHE_BYTES) -> ByteCache[bytes, Page]:
    """Return a cache of verified pages (``merkle.pages.PageCache``) that takes at most ``limit`` bytes."""
    return ByteCache(limit, page_size)


def page_size(key: bytes, page: Page) -> int:
    """Return the bytes that a page and its key take in memory."""
    used = SLOTS - page.slots.count(None)
    leaves = SLOTS - page.leaves[:SLOTS].count(None)
    # A node that is represented by one leaf has the hash of this leaf.
    nodes = leaves + page.leaves.count(None) - page.hashes.count(None)
    content = len(key) + leaves * LEAF_SIZE + (used - leaves) * CHILD_SIZE + nodes * HASH_SIZE
    return _PAGE_BYTES + content + (used + nodes) * _BYTES
