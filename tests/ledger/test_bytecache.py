"""The cache that is bounded in bytes: what it keeps, and that its figures are those of the memory."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kt_es.formats.entries import Opening
from kt_es.ledger.bytecache import _ITEM_BYTES, ByteCache
from kt_es.ledger.openings import opening_size
from kt_es.ledger.pages import page_size
from kt_es.ledger.shared_store import row_size
from kt_es.merkle.pages import CHILD_SIZE, EMPTY_PAGE, LEAF_SIZE, Slots, decode_page, encode_page

SIZE = 100


def cache_of(items: int) -> ByteCache[int, str]:
    return ByteCache(items * (SIZE + _ITEM_BYTES), lambda _key, _value: SIZE)


def kept(cache: ByteCache[int, str]) -> list[int]:
    return [key for key in range(10) if cache.get(key) is not None]


def test_what_was_used_last_is_kept_within_the_limit() -> None:
    cache = cache_of(3)
    for key in range(3):
        cache.put(key, "value")
    assert cache.get(0) == "value"
    cache.put(3, "value")
    assert kept(cache) == [0, 2, 3]


def test_an_item_that_is_put_again_counts_once_and_is_the_new_one() -> None:
    cache = cache_of(3)
    for key in (0, 1, 2, 2, 2, 0):
        cache.put(key, f"value {key}")
    cache.put(2, "other")
    assert kept(cache) == [0, 1, 2]
    assert cache.get(2) == "other"
    cache.put(4, "value")
    assert 2 in kept(cache)


def test_an_item_that_was_dropped_leaves_room() -> None:
    cache = cache_of(3)
    for key in range(3):
        cache.put(key, "value")
    cache.drop(1)
    cache.drop(1)
    cache.put(3, "value")
    assert kept(cache) == [0, 2, 3]


def test_an_item_larger_than_the_limit_is_not_kept() -> None:
    cache = ByteCache[int, bytes](1_000, lambda _key, value: len(value))
    cache.put(1, bytes(100))
    before = cache.bytes
    cache.put(2, bytes(2_000))
    assert (cache.get(1), cache.get(2), cache.bytes) == (bytes(100), None, before)
    cache.put(1, bytes(2_000))
    assert (cache.get(1), cache.bytes) == (None, 0)


def test_what_is_added_takes_no_place_of_others() -> None:
    cache = cache_of(3)
    for key in range(4):
        cache.add(key, "value")
    assert kept(cache) == [0, 1, 2]
    assert cache.bytes == 3 * (SIZE + _ITEM_BYTES)
    cache.drop(1)
    cache.add(4, "value")
    assert kept(cache) == [0, 2, 4]
    cache.put(5, "value")
    assert kept(cache) == [2, 4, 5]


def test_an_item_larger_than_the_room_is_not_added() -> None:
    cache = ByteCache[int, bytes](1_000, lambda _key, value: len(value))
    cache.add(1, bytes(500))
    before = cache.bytes
    cache.add(2, bytes(400))
    assert (cache.get(2), cache.bytes) == (None, before)
    cache.add(3, bytes(1_000 - before - _ITEM_BYTES))
    assert cache.bytes == 1_000


def test_an_item_that_is_added_again_counts_once() -> None:
    cache = cache_of(3)
    for number in range(9):
        cache.add(number % 2, f"value {number}")
    assert cache.bytes == 2 * (SIZE + _ITEM_BYTES)
    assert (cache.get(0), cache.get(1)) == ("value 8", "value 7")


def test_threads_share_a_cache() -> None:
    cache = cache_of(5)

    def use(seed: int) -> None:
        chosen = random.Random(seed)
        for _ in range(2_000):
            key = chosen.randrange(10)
            if chosen.random() < 0.5:
                cache.put(key, "value")
            elif cache.get(key) is not None:
                cache.drop(key)
            assert cache.bytes <= 5 * (SIZE + _ITEM_BYTES)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    assert cache.bytes == len(kept(cache)) * (SIZE + _ITEM_BYTES)


def row(chosen: random.Random, key: int, value: int) -> tuple[tuple[str, bytes], bytes]:
    return ("nodes", chosen.randbytes(key)), chosen.randbytes(value)


def opening(chosen: random.Random, profile: int) -> tuple[bytes, Opening]:
    data = Opening(chosen.randbytes(32), chosen.randbytes(16), chosen.randbytes(profile)).encode()
    made = Opening.decode(data)
    return chosen.randbytes(32) + made.entry_hash, made


def page(chosen: random.Random, leaves: int, children: int) -> tuple[bytes, Any]:
    """A page as it is read from a store."""
    slots: Slots = [None] * 16
    for number, position in enumerate(chosen.sample(range(16), leaves + children)):
        slots[position] = chosen.randbytes(LEAF_SIZE if number < leaves else CHILD_SIZE)
    key = b"\x05" + chosen.randbytes(16)
    return key, EMPTY_PAGE.with_slots(decode_page(key, encode_page(key, slots)))


MIXED = ((8, 8), (14, 1), (3, 10), (0, 3))
KINDS: dict[str, tuple[Callable[[Any, Any], int], Callable[[random.Random], tuple[Any, Any]]]] = {
    "nodes": (row_size, lambda chosen: row(chosen, 10, 32)),
    "entries": (row_size, lambda chosen: row(chosen, 72, chosen.randrange(150, 600))),
    "small openings": (opening_size, lambda chosen: opening(chosen, chosen.randrange(50, 200))),
    "large openings": (opening_size, lambda chosen: opening(chosen, chosen.randrange(5_000))),
    "upper pages": (page_size, lambda chosen: page(chosen, 0, 16)),
    "lower pages": (page_size, lambda chosen: page(chosen, chosen.randrange(1, 6), 0)),
    "mixed pages": (page_size, lambda chosen: page(chosen, *chosen.choice(MIXED))),
}


@pytest.mark.parametrize("items", [1_370, 2_700])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_of_a_cache_are_those_of_the_memory(kind: str, items: int) -> None:
    """At both numbers of items the table of the cache is at one end: just doubled, and full."""
    size, make = KINDS[kind]
    chosen = random.Random(kind)
    cache = ByteCache[Any, Any](1 << 30, size)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(items):
            cache.put(*make(chosen))
        gc.collect()
        memory = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.85 < cache.bytes / memory < 1.15


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_stays_within_the_limit(kind: str) -> None:
    size, make = KINDS[kind]
    chosen, limit = random.Random(kind), 300_000
    cache = ByteCache[Any, Any](limit, size)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(2_000):
            cache.put(*make(chosen))
            assert cache.bytes <= limit
        gc.collect()
        memory = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.8 * limit < cache.bytes
    assert memory < 1.15 * limit
