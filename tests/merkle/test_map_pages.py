"""Pages byte by byte: one encoding, strict reading, and every damage named by its page."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.crypto.hashes import map_leaf_hash, sha256
from kt_es.errors import DivergenceError, UnverifiedRowError
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.pages import PageTable, page_cache
from kt_es.merkle.map import EMPTY_ROOT, Map
from kt_es.merkle.pages import (
    CHILD_SIZE,
    EMPTY_PAGE,
    LEAF_SIZE,
    Slots,
    check_page,
    child_ref,
    decode_page,
    describe,
    encode_page,
    nibble,
    page_key,
    version_in,
)

slot = (
    st.none()
    | st.binary(min_size=LEAF_SIZE, max_size=LEAF_SIZE)
    | st.binary(min_size=CHILD_SIZE, max_size=CHILD_SIZE)
)
pages = st.lists(slot, min_size=16, max_size=16).filter(any)
KEY = page_key(bytes.fromhex("ab" * 32), 3, b"h" * 32 + (9).to_bytes(5))


def test_keys_have_path_version_and_hash() -> None:
    index = bytes.fromhex("abcdef" + "00" * 29)
    child = bytes(range(32)) + (258).to_bytes(5)
    assert page_key(index, 0, bytes(37)).hex() == "00" + "00" * 13
    assert page_key(index, 3, child).hex() == "03abc0" + "0000000102" + "0001020304050607"
    assert page_key(index, 4, child).hex() == "04abcd" + "0000000102" + "0001020304050607"
    assert version_in(page_key(index, 4, child)) == (258).to_bytes(5)
    assert [nibble(index, depth) for depth in range(7)] == [10, 11, 12, 13, 14, 15, 0]
    assert describe(page_key(index, 3, child)) == "map page abc of version 258"
    assert describe(page_key(index, 0, bytes(32) + (1).to_bytes(5))) == "map page root of version 1"


def test_a_page_matches_its_description() -> None:
    leaf, child = b"i" * 32 + b"e" * 32 + (4).to_bytes(5), b"h" * 32 + (5).to_bytes(5)
    slots: Slots = [None] * 16
    slots[1], slots[15] = child, leaf
    encoded = encode_page(KEY, slots)
    assert encoded[:-4] == bytes.fromhex("8000" + "0002") + child + leaf
    assert EMPTY_PAGE.with_slots([leaf, *[None] * 15]).hash == map_leaf_hash(b"i" * 32, b"e" * 32)


@settings(deadline=None)
@given(pages)
def test_pages_come_back_as_they_were(slots: Slots) -> None:
    encoded = encode_page(KEY, slots)
    assert decode_page(KEY, encoded) == slots
    page = EMPTY_PAGE.with_slots(slots)
    assert check_page((KEY, page.hash), encoded) == page
    with pytest.raises(DivergenceError, match=r"map page aba of version 9 hashes .* its parent says 0101"):
        check_page((KEY, b"\x01" * 32), encoded)


def test_every_changed_byte_and_a_wrong_place_is_damage() -> None:
    leaf, child = b"i" * 32 + b"e" * 32 + (4).to_bytes(5), b"h" * 32 + (5).to_bytes(5)
    encoded = encode_page(KEY, [leaf, None, child, *[None] * 13])
    damaged: list[tuple[bytes, bytes]] = [
        (KEY, encoded[:at] + bytes([encoded[at] ^ (1 << at % 8)]) + encoded[at + 1 :])
        for at in range(len(encoded))
    ]
    damaged += [
        (KEY, encoded[:-1]),
        (KEY, encoded + b"\x00"),
        (KEY, b""),
        (KEY, encode_page(KEY, [None] * 16)),
    ]
    damaged.append((page_key(bytes.fromhex("ab" * 32), 4, b"h" * 32 + (9).to_bytes(5)), encoded))
    for key, data in damaged:
        for read in (
            lambda key=key, data=data: decode_page(key, data),
            lambda key=key, data=data: check_page((key, bytes(32)), data),
        ):
            with pytest.raises(DivergenceError, match=r"map page ab.* of version 9 is damaged"):
                read()
    with pytest.raises(DivergenceError, match="map page aba of version 9 is missing"):
        decode_page(KEY, None)


def test_a_missing_damaged_or_foreign_page_is_named_by_every_operation() -> None:
    store = MemoryStore(["pages", "meta"])
    tree = Map(PageTable(store))
    indices = [bytes([0xAB, n]) + bytes(30) for n in range(3)]
    root, written = tree.apply(EMPTY_ROOT, 1, [(index, bytes(32)) for index in indices])
    _, other = tree.apply(EMPTY_ROOT, 1, [(index, bytes([1]) * 32) for index in indices])
    store.write([("pages", key, page) for key, page in written])
    operations = (
        lambda: tree.lookup(root, indices[0]),
        lambda: tree.prove(root, indices[0]),
        lambda: tree.apply(root, 2, [(indices[0], bytes([2]) * 32)]),
    )
    for key, page in written:
        assert page is not None
        for change, problem in ((None, "missing"), (page[:-1] + bytes([page[-1] ^ 1]), "damaged")):
            store.write([("pages", key, change)])
            for operation in operations:
                with pytest.raises(DivergenceError, match=f"{describe(key)} is {problem}"):
                    operation()
        ((at, forged),) = ((found, data) for found, data in other if found[:-8] == key[:-8])
        store.write([("pages", key, encode_page(key, decode_page(at, forged)))])
        for operation in operations:
            with pytest.raises(DivergenceError, match=f"{describe(key)} hashes to .*, its parent says"):
                operation()
        store.write([("pages", key, page)])
    assert tree.prove(root, indices[0]).entry_hash(indices[0]) == bytes(32)


def test_a_page_that_names_a_wrong_version_below_it_is_not_kept() -> None:
    """No hash covers the version, so the lie passes until the page below is missing."""
    store, cache = MemoryStore(["pages", "meta"]), page_cache()
    indices = [bytes([0xAB, n]) + bytes(30) for n in range(3)]
    root, written = Map(PageTable(store)).apply(EMPTY_ROOT, 1, [(index, bytes(32)) for index in indices])
    store.write([("pages", key, page) for key, page in written])
    tree = Map(PageTable(store), cache)
    above = child_ref(indices[0], 0, root.slot or b"")[0]
    true = store.get("pages", above)
    lie = [slot and slot[:-1] + b"\x07" for slot in decode_page(above, true)]
    for operation in (tree.lookup, tree.prove):
        store.write([("pages", above, encode_page(above, lie))])
        with pytest.raises(UnverifiedRowError, match="of version 7 is missing"):
            operation(root, indices[0])
        store.write([("pages", above, true)])
        assert operation(root, indices[0])
        cache.drop(above)


def test_an_update_evicts_nothing_that_lookups_brought() -> None:
    store = MemoryStore(["pages", "meta"])
    first = [sha256(number.to_bytes(4)) for number in range(3_000)]
    root, written = Map(PageTable(store)).apply(EMPTY_ROOT, 1, [(index, bytes(32)) for index in first])
    store.write([("pages", key, page) for key, page in written])
    cache = page_cache(200_000)
    tree = Map(PageTable(store), cache)
    asked = first[:20]
    tree.lookup_many(root, asked)
    root, written = tree.apply(root, 2, [(index, b"\x01" * 32) for index in sorted(first)])
    store.write([("pages", key, page) for key, page in written])
    read = 0
    get_many = store.get_many

    def counted(family: str, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        nonlocal read
        read += len(keys)
        return get_many(family, keys, again=again)

    store.get_many = counted  # type: ignore[method-assign]
    assert [found and found.entry_hash for found in tree.lookup_many(root, asked)] == [b"\x01" * 32] * 20
    assert read == 0
    assert cache.bytes <= 200_000
