"""The map over pages against the naive one, at every epoch, and its proofs against every small change."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.errors import MalformedError, VerificationError
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.pages import PageTable
from kt_es.merkle.map import EMPTY_ROOT, LeafRef, Map, Root
from kt_es.merkle.pages import MAX_VERSION
from kt_es.merkle.verify import (
    MapProof,
    map_root,
    map_root_from_absence,
    map_root_from_inclusion,
    require_root,
)
from tests.reference import naive_map

Entries = dict[bytes, bytes]
Update = tuple[bytes, bytes]

# Few distinct bytes at the start, the middle and the end: prefixes of every length are shared.
indices = st.tuples(
    st.integers(0, 3), st.integers(0, 29), st.sampled_from([0, 1, 15, 16, 128]), st.integers(0, 2)
).map(lambda t: bytes([t[0] * 85]) + bytes(t[1]) + bytes([t[2]]) + bytes(29 - t[1]) + bytes([t[3]]))
updates = st.lists(st.tuples(indices, st.integers(0, 5).map(lambda n: bytes([n]) * 32)), max_size=12)


class Written:
    """A map with its pages in memory, as a projection would keep it."""

    def __init__(self) -> None:
        self.store = MemoryStore(["pages", "meta"])
        self.map = Map(PageTable(self.store))

    def apply(self, root: Root, version: int, changes: list[Update]) -> Root:
        root, pages = self.map.apply(root, version, changes)
        assert len({key for key, _ in pages}) == len(pages)
        self.store.write(PageTable(self.store).put(version, pages))
        return root


def agree(written: Written, root: Root, entries: Entries, absent: list[bytes]) -> None:
    """Root, size, lookups and proofs at ``root`` are those of the naive map of ``entries``."""
    assert root.hash == naive_map.root(entries)
    assert root.size == len(entries)
    asked = [*entries, *absent]
    found = written.map.find_many(root, asked)
    assert [leaf for _, leaf in found] == written.map.lookup_many(root, asked)
    for index, (proof, leaf) in zip(asked, found, strict=True):
        assert proof == naive_map.prove(entries, index)
        assert map_root(index, proof) == root.hash
        assert proof.entry_hash(index) == entries.get(index)
        assert (None if leaf is None else (leaf.index, leaf.entry_hash)) == (
            (index, entries[index]) if index in entries else None
        )
        if entries:
            near = written.map.leaf_near(root, index)
            assert entries[near.index] == near.entry_hash
            assert index not in entries or near == leaf


@settings(deadline=None)
@given(st.lists(updates, min_size=1, max_size=5), st.lists(indices, max_size=5))
def test_every_epoch_stays_readable_and_right(epochs: list[list[Update]], absent: list[bytes]) -> None:
    written = Written()
    past = [(EMPTY_ROOT, Entries())]
    for version, changes in enumerate(epochs, start=1):
        root, entries = past[-1]
        past.append((written.apply(root, version, changes), entries | dict(changes)))
    for root, entries in past:
        agree(written, root, entries, [index for index in absent if index not in entries])


@settings(deadline=None)
@given(updates, updates, st.integers(1, 4))
def test_slices_and_repetition_give_what_one_application_gives(
    before: list[Update], changes: list[Update], width: int
) -> None:
    whole = Written()
    start = whole.apply(EMPTY_ROOT, 1, before)
    changes = list(dict(changes).items())
    expected = whole.apply(start, 2, changes)

    sliced = Written()
    assert sliced.apply(EMPTY_ROOT, 1, before) == start
    crashed = sliced.apply(start, 2, changes[:width])
    root = start
    for low in range(0, len(changes), width):
        root = sliced.apply(root, 2, changes[low : low + width])
    assert root == expected
    agree(sliced, root, dict(before) | dict(changes), [])
    agree(sliced, start, dict(before), [])
    assert crashed.version <= 2


@settings(deadline=None)
@given(updates, updates)
def test_a_leaf_keeps_the_version_of_its_last_change(first: list[Update], second: list[Update]) -> None:
    written = Written()
    entries, changes = dict(first), dict(second)
    root = written.apply(written.apply(EMPTY_ROOT, 3, first), 7, second)
    for index, entry_hash in (entries | changes).items():
        changed = index in changes and changes[index] != entries.get(index)
        assert written.map.lookup(root, index) == LeafRef(index, entry_hash, 7 if changed else 3)


@settings(deadline=None)
@given(updates)
def test_the_same_again_changes_nothing(changes: list[Update]) -> None:
    written = Written()
    root = written.apply(EMPTY_ROOT, 1, changes)
    assert written.map.apply(root, 2, dict(changes).items()) == (root, [])
    assert written.map.apply(root, 2, []) == (root, [])


def some_map() -> tuple[Written, Root, list[bytes]]:
    written = Written()
    held = [hashlib.sha256(bytes([n])).digest() for n in range(40)]
    held.append(held[0][:-1] + bytes([held[0][-1] ^ 1]))
    return written, written.apply(EMPTY_ROOT, 1, [(index, index[::-1]) for index in held]), held


def flips(value: bytes) -> list[bytes]:
    return [value[:at] + bytes([value[at] ^ (1 << at % 8)]) + value[at + 1 :] for at in range(len(value))]


def changed_proofs(proof: MapProof) -> list[MapProof]:
    found = []
    for at, sibling in enumerate(proof.siblings):
        others: list[bytes | None] = [bytes([1]) * 32] if sibling is None else [*flips(sibling), None]
        found += [
            MapProof((*proof.siblings[:at], other, *proof.siblings[at + 1 :]), proof.leaf) for other in others
        ]
        found.append(MapProof((*proof.siblings[:at], *proof.siblings[at + 1 :]), proof.leaf))
    found.append(MapProof((bytes([7]) * 32, *proof.siblings), proof.leaf))
    found.append(MapProof((*proof.siblings, None), proof.leaf))
    if proof.leaf is None:
        found.append(MapProof(proof.siblings, (bytes(32), bytes(32))))
    else:
        index, entry_hash = proof.leaf
        found += [MapProof(proof.siblings, (other, entry_hash)) for other in flips(index)]
        found += [MapProof(proof.siblings, (index, other)) for other in flips(entry_hash)]
        found.append(MapProof(proof.siblings, None))
    return found


@pytest.mark.parametrize("kind", ["inclusion", "deep inclusion", "absence by a leaf", "absence by nothing"])
def test_every_changed_byte_of_a_proof_is_refused(kind: str) -> None:
    written, root, held = some_map()
    absent = [hashlib.sha256(b"absent" + bytes([n])).digest() for n in range(40)]
    proofs = {index: written.map.prove(root, index) for index in absent}
    index = {
        "inclusion": held[1],
        "deep inclusion": held[0],
        "absence by a leaf": next(i for i in absent if proofs[i].leaf is not None),
        "absence by nothing": next(i for i in absent if proofs[i].leaf is None),
    }[kind]
    proof = written.map.prove(root, index)
    require_root("map", map_root(index, proof), root.hash)
    for changed in changed_proofs(proof):
        with pytest.raises((VerificationError, MalformedError), match="map"):
            require_root("map", map_root(index, changed), root.hash)


@pytest.mark.parametrize("at", range(32))
def test_a_proof_of_inclusion_is_none_for_another_index(at: int) -> None:
    written, root, held = some_map()
    proof = written.map.prove(root, held[0])
    for bit in range(8):
        other = bytearray(held[0])
        other[at] ^= 1 << bit
        if bytes(other) in held:
            continue
        with pytest.raises(VerificationError, match="map"):
            require_root(
                "map", map_root_from_inclusion(bytes(other), held[0][::-1], proof.siblings), root.hash
            )


def test_no_two_proofs_are_equivalent() -> None:
    zero, one = bytes(32), bytes([1]) * 32
    with pytest.raises(MalformedError, match="null"):
        map_root_from_inclusion(one, one, [zero])
    with pytest.raises(VerificationError, match="shortest"):
        map_root_from_inclusion(one, one, [None, one])
    with pytest.raises(VerificationError, match="empty"):
        map_root_from_absence(one, [None, one], None)
    with pytest.raises(VerificationError, match="own"):
        map_root_from_absence(one, [], (one, one))
    with pytest.raises(VerificationError, match="path"):
        map_root_from_absence(one, [one], (bytes([255]) * 32, one))


@pytest.mark.parametrize(
    ("index", "entry_hash", "siblings"),
    [
        (bytes(31), bytes(32), []),
        (bytes(32), bytes(33), []),
        (bytes(32), bytes(32), [bytes(31)]),
        (bytes(32), bytes(32), [bytes([1]) * 32] * 257),
    ],
)
def test_wrong_sizes_are_malformed(index: bytes, entry_hash: bytes, siblings: list[bytes | None]) -> None:
    with pytest.raises(MalformedError, match="map proof"):
        map_root_from_inclusion(index, entry_hash, siblings)


def test_versions_and_sizes_that_make_no_sense_are_the_callers_mistake() -> None:
    written, root, held = some_map()
    later = written.apply(root, 5, [(held[0], bytes(32))])
    for base, version in ((EMPTY_ROOT, 0), (later, 4), (later, MAX_VERSION + 1)):
        with pytest.raises(ValueError, match="version"):
            written.map.apply(base, version, [])
    for bad in ((bytes(31), bytes(33)), (bytes(32), b""), (b"", bytes(32))):
        with pytest.raises(ValueError, match="32 bytes"):
            written.map.apply(root, 6, [bad])
    for version, value, size in ((1, bytes(32), 0), (0, bytes([1]) * 32, 1), (1, b"", 1), (1, bytes(32), 1)):
        with pytest.raises(MalformedError, match="map root"):
            Root(version, value, size)


def test_twenty_thousand_inserts_have_one_digest() -> None:
    """Roots after each of 40 epochs, and 200 proofs of the last, pinned by one hash."""
    written = Written()
    digest = hashlib.sha256()
    roots = [EMPTY_ROOT]
    for version in range(1, 41):
        changes = [
            (hashlib.sha256(b"index %d" % n).digest(), hashlib.sha256(b"entry %d %d" % (n, version)).digest())
            for n in range(500 * (version - 1) - 50 * (version > 1), 500 * version)
        ]
        roots.append(written.apply(roots[-1], version, changes))
        digest.update(roots[-1].hash)
    assert roots[-1].size == 20_000
    asked = [hashlib.sha256(b"index %d" % n).digest() for n in range(0, 22_000, 110)]
    for index, (proof, _) in zip(asked, written.map.find_many(roots[-1], asked), strict=True):
        require_root("map", map_root(index, proof), roots[-1].hash)
        for sibling in proof.siblings:
            digest.update(sibling or b"empty")
    assert all(earlier.hash != later.hash for earlier, later in pairwise(roots))
    assert digest.hexdigest() == "1d7efafff924117996b738ed7592e25886e89c9bc4fe6b6a53e319f12413692c"
