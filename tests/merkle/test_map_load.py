"""A map that is walked and loaded again is the same; a walk finds every page that is not what it must be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kt_es.crypto.hashes import sha256
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.pages import PageTable
from kt_es.merkle.map import EMPTY_ROOT, LeafRef, Map, Root
from kt_es.merkle.walk import walk

PAGES = PageTable.FAMILY

# Few first bytes, so that paths are shared far down.
INDICES = st.builds(
    lambda head, tail: (head + sha256(tail))[:32],
    st.sampled_from([b"", b"\x11\x11", b"\x11\x12"]),
    st.binary(),
)
EPOCHS = st.lists(
    st.dictionaries(INDICES, st.binary(max_size=2).map(sha256), max_size=12), min_size=1, max_size=5
)


def built(epochs: list[dict[bytes, bytes]]) -> tuple[MemoryStore, Root, dict[bytes, LeafRef]]:
    store, root, held = MemoryStore([PAGES, "meta"]), EMPTY_ROOT, dict[bytes, LeafRef]()
    tree = Map(PageTable(store))
    for version, updates in enumerate(epochs, 1):
        root, pages = tree.apply(root, version, updates.items())
        store.write(PageTable(store).put(version, pages))
        for index, entry_hash in updates.items():
            if index not in held or held[index].entry_hash != entry_hash:
                held[index] = LeafRef(index, entry_hash, version)
    return store, root, held


@given(EPOCHS, st.integers(1, 7))
def test_walked_and_loaded_in_slices_it_is_the_same(epochs: list[dict[bytes, bytes]], size: int) -> None:
    store, root, held = built(epochs)
    problems: list[str] = []
    leaves = list(walk(PageTable(store), root, problems.append))
    assert problems == []
    assert leaves == [held[index] for index in sorted(held)]
    again = MemoryStore([PAGES, "meta"])
    loaded, tree = EMPTY_ROOT, Map(PageTable(again))
    for start in range(0, len(leaves), size):
        loaded, pages = tree.load(loaded, root.version, leaves[start : start + size])
        again.write(PageTable(again).put(root.version, pages))
    assert loaded == root
    assert list(walk(PageTable(again), loaded, problems.append)) == leaves
    assert problems == []
    more = {leaf.index: sha256(leaf.index) for leaf in leaves[::2]}
    assert tree.apply(loaded, 9, more.items())[0] == Map(PageTable(store)).apply(root, 9, more.items())[0]


@given(EPOCHS, st.data())
def test_a_walk_reports_every_reachable_page_that_is_missing_or_another(
    epochs: list[dict[bytes, bytes]], data: st.DataObject
) -> None:
    store, root, held = built(epochs)
    keys = [key for key, _ in store.scan(PAGES)]
    if not keys:
        return
    key = data.draw(st.sampled_from(keys))
    value = store.get(PAGES, key)
    assert value is not None
    at = data.draw(st.integers(0, len(value) - 1))
    changed = data.draw(
        st.sampled_from([None, value[:at], value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]])
    )
    store.write([(PAGES, key, changed)])
    problems: list[str] = []
    leaves = list(walk(PageTable(store), root, problems.append))
    # A page of an older version may be unreachable by now.
    assert problems or leaves == [held[index] for index in sorted(held)]
    assert not problems or len(leaves) < len(held)
