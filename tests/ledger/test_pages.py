"""The table of pages: data directories of earlier versions, and the pages that are kept in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kt_es.errors import ConfigError, DivergenceError
from kt_es.ledger import pages as module
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.pages import PageTable, page_cache, split_keys
from kt_es.ledger.retention import prune
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES
from kt_es.merkle.map import EMPTY_ROOT, LeafRef, Map
from kt_es.merkle.pages import (
    EMPTY_PAGE,
    KEY_HASH_SIZE,
    LEAF_SIZE,
    VERSION_SIZE,
    Page,
    decode_page,
    encode_page,
)
from tests.builders import ORIGIN, SIGNER_KEY
from tests.reference.published_epochs import published, stored

Rows = dict[bytes, bytes]


def pages_of(store: MemoryStore | RocksStore) -> Rows:
    return dict(store.scan(PageTable.FAMILY))


def earlier(store: MemoryStore | RocksStore) -> MemoryStore | RocksStore:
    """Rewrite the pages of ``store`` as earlier versions had them: no hash in the key, no lists."""
    store.write([("meta", row, None) for _, row, _ in PageTable(store).lists()])
    for key, data in pages_of(store).items():
        old = key[:-KEY_HASH_SIZE]
        slots = decode_page(key, data)
        store.write([(PageTable.FAMILY, key, None), (PageTable.FAMILY, old, encode_page(old, slots))])
    return store


def opened(store: MemoryStore | RocksStore) -> Ledger:
    return Ledger(store, ORIGIN, SIGNER_KEY)


def test_a_data_directory_of_an_earlier_version_is_converted_when_it_is_opened() -> None:
    store = earlier(stored())
    must = pages_of(stored())
    assert pages_of(store).keys().isdisjoint(must)
    with capture_logs() as said:
        opened(store)
    assert pages_of(store) == must
    assert [(line["event"], line["pages"]) for line in said] == [
        ("a data directory of an earlier version was converted", len(must))
    ]
    with capture_logs() as said:
        opened(store)
    assert said == []


def listed(store: MemoryStore | RocksStore) -> set[tuple[int, bytes]]:
    return {(epoch, key) for epoch, _, keys in PageTable(store).lists() for key in split_keys(keys)}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_converted_directory_is_pruned_like_any_other(monkeypatch: pytest.MonkeyPatch, keep: int) -> None:
    monkeypatch.setattr(module, "_BATCH", 4)
    store, other = earlier(stored()), stored()
    ledger = opened(store)
    assert listed(store) == listed(other)
    assert prune(ledger, keep) == prune(opened(other), keep)
    assert (pages_of(store), listed(store)) == (pages_of(other), listed(other))


def test_pages_of_an_unfinished_epoch_are_not_converted() -> None:
    store = earlier(stored())
    latest, later = (3).to_bytes(VERSION_SIZE), (4).to_bytes(VERSION_SIZE)
    old = {key[:-VERSION_SIZE] + later: data for key, data in pages_of(store).items() if key.endswith(latest)}
    assert old
    store.write([(PageTable.FAMILY, key, data) for key, data in old.items()])
    opened(store)
    assert pages_of(store) == pages_of(stored())
    assert listed(store) == listed(stored())
    # Nothing at all was committed.
    store.write([("meta", b"committed", None)])
    opened(earlier(store))
    assert pages_of(store) == {}


@pytest.mark.parametrize("writes", range(6))
def test_an_interrupted_conversion_goes_on(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    store = earlier(stored())
    assert isinstance(store, MemoryStore)
    monkeypatch.setattr(module, "_BATCH", 4)
    left, write = [writes], store.write

    def failing(*arguments: object, **options: object) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        opened(store)
    monkeypatch.undo()
    opened(store)
    assert pages_of(store) == pages_of(stored())
    assert listed(store) == listed(stored())


def test_a_damaged_page_of_an_earlier_version_is_refused() -> None:
    store = earlier(stored())
    key, data = next(iter(pages_of(store).items()))
    store.write([(PageTable.FAMILY, key, data[:-1] + bytes([data[-1] ^ 1]))])
    with pytest.raises(DivergenceError, match=f"its page {key.hex()} is damaged: delete the directory"):
        opened(store)


def test_a_view_names_who_converts(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "data", FAMILIES)
    store.write([(family, key, value) for family in FAMILIES for key, value in stored().scan(family)])
    earlier(store)
    store.close()
    view = RocksStore.view(tmp_path / "data", FAMILIES)
    try:
        with pytest.raises(ConfigError, match="of an earlier version: start its process once"):
            opened(view)
    finally:
        view.close()
    store = RocksStore.open(tmp_path / "data", FAMILIES)
    try:
        opened(store)
        assert pages_of(store) == published()[1][PageTable.FAMILY]
    finally:
        store.close()


def page(number: int) -> tuple[bytes, Page]:
    return bytes([number]), EMPTY_PAGE.with_slots([bytes([number]) * LEAF_SIZE, *[None] * 15])


def test_an_update_forgets_the_pages_that_it_replaces() -> None:
    cache = page_cache()
    tree = Map(PageTable(MemoryStore(FAMILIES)), cache)
    first, _ = tree.apply(EMPTY_ROOT, 1, [(bytes(32), bytes(32)), (b"\xff" * 32, bytes(32))])
    second, pages = tree.apply(first, 2, [(bytes(32), b"\x01" * 32)])
    replaced = [key for key, page in pages if page is None]
    assert [cache.get(key) for key in replaced] == [None]
    assert tree.lookup(second, bytes(32)) == LeafRef(bytes(32), b"\x01" * 32, 2)


def test_a_cached_page_with_another_hash_is_read_again() -> None:
    """The key has only a part of the hash, so a page of that key may be another one."""
    store, ledger = stored(), opened(stored())
    root = ledger.committed.root
    (key,) = (key for key in pages_of(store) if key[0] == 0 and key[1:6] == root.version.to_bytes(5))
    cache = ledger.map._cache
    assert cache is not None
    cache.put(key, page(7)[1])
    assert ledger.map.prove(root, bytes(32)) == opened(stored()).map.prove(root, bytes(32))
