"""One proof of many indices, against single proofs and the naive map; and each fault that it can have."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.errors import MalformedError, VerificationError
from kt_es.merkle.map import EMPTY_ROOT as EMPTY
from kt_es.merkle.multiproof import Claim, MultiProof, combine, expand
from kt_es.merkle.verify import MapProof, map_root
from tests.merkle.test_map import Entries, Written, indices
from tests.reference import naive_map

entries = st.dictionaries(indices, st.integers(1, 5).map(lambda n: bytes([n]) * 32), max_size=24)


def claims_of(held: Entries, asked: list[bytes]) -> list[Claim]:
    return [(index, held.get(index)) for index in asked]


def naive_multiproof(held: Entries, asked: list[bytes], depth: int = 0) -> MultiProof:
    """The proof as its definition has it: one node after the other, from the root down."""
    if len(held) < 2:
        other = next(iter(held.items()), None)
        return MultiProof((), ((depth, None if other is None or other[0] in asked else other),))
    siblings: list[bytes | None] = []
    ends: list[tuple[int, tuple[bytes, bytes] | None]] = []
    beside: list[bytes | None] = []
    for side, part in enumerate(naive_map.halves(held, depth)):
        mine = [index for index in asked if naive_map.bit(index, depth) == side]
        if mine:
            below = naive_multiproof(part, mine, depth + 1)
            siblings += below.siblings
            ends += below.ends
        else:
            beside.append(naive_map.root(part, depth + 1) if part else None)
    return MultiProof((*siblings, *beside), tuple(ends))


@settings(deadline=None)
@given(entries, st.lists(indices, min_size=1, max_size=24, unique=True), st.randoms(use_true_random=False))
def test_it_is_the_naive_one_and_gives_every_single_proof_back(
    held: Entries, asked: list[bytes], random: object
) -> None:
    asked = list(dict.fromkeys([*asked, *list(held)[::2]]))
    random.shuffle(asked)  # type: ignore[attr-defined]
    single = [naive_map.prove(held, index) for index in asked]
    proof = combine(list(zip(asked, single, strict=True)))
    assert proof == naive_multiproof(held, asked)
    root, expanded = expand(claims_of(held, asked), proof)
    assert root == naive_map.root(held)
    assert expanded == single
    assert {map_root(index, one) for index, one in zip(asked, expanded, strict=True)} == {root}


def digest(number: int) -> bytes:
    return hashlib.sha256(b"multiproof %d" % number).digest()


HELD = {digest(number): digest(number)[::-1] for number in range(200)}
# A pair that differs in the last bit, so that a path goes down to depth 256.
HELD[digest(0)[:-1] + bytes([digest(0)[-1] ^ 1])] = bytes([9]) * 32


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 260), min_size=1, max_size=80))
def test_the_map_finds_what_the_naive_map_proves(numbers: set[int]) -> None:
    written = Written()
    root = written.apply(EMPTY, 1, list(HELD.items()))
    asked = [digest(number) for number in numbers]
    found = written.map.find_many(root, asked)
    proof = combine([(index, one) for index, (one, _) in zip(asked, found, strict=True)])
    assert proof == naive_multiproof(HELD, asked)
    assert expand(claims_of(HELD, asked), proof)[0] == root.hash


def test_what_is_shared_is_written_once() -> None:
    asked = list(HELD)[:100]
    single = [naive_map.prove(HELD, index) for index in asked]
    proof = combine(list(zip(asked, single, strict=True)))
    hashes = [sibling for sibling in proof.siblings if sibling is not None]
    assert len(hashes) == len(set(hashes)) < sum(len(one.siblings) for one in single) / 4
    leaves = {hashlib.sha256(b"\x00" + index + HELD[index]).digest() for index in asked}
    assert not leaves & set(hashes)


def test_all_indices_of_a_map_need_no_sibling_hash() -> None:
    asked = list(HELD)
    proof = combine([(index, naive_map.prove(HELD, index)) for index in asked])
    assert set(proof.siblings) <= {None}
    assert expand(claims_of(HELD, asked), proof)[0] == naive_map.root(HELD)


def test_the_proof_of_one_index_is_its_single_proof() -> None:
    for index in (digest(0), digest(7), digest(900)):
        single = naive_map.prove(HELD, index)
        other = None if single.leaf is None or single.leaf[0] == index else single.leaf
        assert combine([(index, single)]) == MultiProof(single.siblings, ((len(single.siblings), other),))


# Eight entries, four of them asked for, and absence both by another leaf and by an empty subtree.
FEW = {bytes([first]) + bytes(31): bytes([first + 1]) * 32 for first in (0, 16, 64, 80, 81, 130, 192, 200)}
PRESENT = [bytes([first]) + bytes(31) for first in (0, 64, 80, 192)]
BY_NOTHING, BY_A_LEAF, BESIDE_ITS_OWN = (bytes([first]) + bytes(31) for first in (32, 129, 193))
ASKED = [*PRESENT, BY_NOTHING, BY_A_LEAF, BESIDE_ITS_OWN]
CLAIMS = claims_of(FEW, ASKED)
PROOF = combine([(index, naive_map.prove(FEW, index)) for index in ASKED])
ROOT = naive_map.root(FEW)
LEAF_END = next(at for at, (_, leaf) in enumerate(PROOF.ends) if leaf is not None)
NONES = [at for at, sibling in enumerate(PROOF.siblings) if sibling is None]


def with_end(at: int, depth: int, leaf: tuple[bytes, bytes] | None) -> MultiProof:
    return replace(PROOF, ends=(*PROOF.ends[:at], (depth, leaf), *PROOF.ends[at + 1 :]))


def claimed(index: bytes, value: bytes | None) -> list[Claim]:
    return [(each, value if each == index else held) for each, held in CLAIMS]


def test_the_example_has_every_kind_of_end() -> None:
    root, single = expand(CLAIMS, PROOF)
    assert root == ROOT
    assert single == [naive_map.prove(FEW, index) for index in ASKED]
    assert [one.leaf is None for one in single].count(True) == 1
    assert {one.leaf[0] for one in single if one.leaf} >= {bytes([130]) + bytes(31)}
    assert len(PROOF.ends) == len(ASKED) - 1, "one path ends at the leaf of another label that was asked for"
    assert NONES


@pytest.mark.parametrize(
    ("claims", "proof", "problem"),
    [
        (CLAIMS, replace(PROOF, siblings=PROOF.siblings[:-1]), "fewer siblings"),
        (CLAIMS, replace(PROOF, siblings=(*PROOF.siblings, bytes([1]) * 32)), "more siblings"),
        (CLAIMS, replace(PROOF, siblings=(*PROOF.siblings, None)), "more siblings"),
        (CLAIMS, replace(PROOF, ends=PROOF.ends[:-1]), "fewer ends"),
        (CLAIMS, with_end(0, 0, None), "two entries"),
        (CLAIMS, with_end(1, 0, None), "above the paths"),
        (
            CLAIMS,
            with_end(0, PROOF.ends[0][0], (bytes([1]) + bytes(31), bytes(32))),
            "beside the entry's own",
        ),
        (
            CLAIMS,
            with_end(LEAF_END, PROOF.ends[LEAF_END][0], (bytes(32), bytes(32))),
            "not stand on the path",
        ),
        (CLAIMS, replace(with_end(0, 5, None), siblings=(None, *PROOF.siblings)), "shortest unique prefix"),
        (
            CLAIMS,
            replace(with_end(1, 4, None), siblings=(PROOF.siblings[0], None, *PROOF.siblings[1:])),
            "empty subtree",
        ),
        (claimed(BESIDE_ITS_OWN, bytes([7]) * 32), PROOF, "two entries"),
        (
            claimed(PRESENT[2], None),
            with_end(3, PROOF.ends[3][0], (PRESENT[2], FEW[PRESENT[2]])),
            "said to be absent",
        ),
    ],
)
def test_a_proof_with_one_fault_is_refused(claims: list[Claim], proof: MultiProof, problem: str) -> None:
    with pytest.raises(VerificationError, match=rf"^map: .*({problem})"):
        expand(claims, proof)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda: replace(PROOF, siblings=(*PROOF.siblings[:-1], bytes(31))), "32 bytes"),
        (lambda: replace(PROOF, siblings=(*PROOF.siblings[:-1], bytes(32))), "written as null"),
        (lambda: replace(PROOF, siblings=(None,) * (256 * len(ASKED) + 1)), "larger than any"),
        (lambda: replace(PROOF, ends=PROOF.ends + PROOF.ends), "larger than any"),
        (lambda: with_end(0, 257, None), "depth of 0 to 256"),
        (lambda: with_end(0, 3, (bytes(31), bytes(32))), "32 bytes"),
        (lambda: with_end(0, 3, (bytes(32), bytes(33))), "32 bytes"),
    ],
)
def test_wrong_sizes_are_malformed(change: Callable[[], MultiProof], problem: str) -> None:
    with pytest.raises(MalformedError, match=rf"^map proof: .*{problem}"):
        expand(CLAIMS, change())


def test_claims_that_no_proof_can_have_are_the_callers_mistake() -> None:
    for claims in ([], [*CLAIMS, CLAIMS[0]], [(bytes(31), None)]):
        with pytest.raises(ValueError, match="index"):
            expand(claims, MultiProof((), ((0, None),)))
    with pytest.raises(ValueError, match="index"):
        combine([])
    with pytest.raises(ValueError, match="once"):
        combine([(PRESENT[0], MapProof((), None))] * 2)


def changed() -> list[MultiProof]:
    """Every proof that differs from the example in one sibling or one end, by a bit or by its place."""
    found = []
    for at, sibling in enumerate(PROOF.siblings):
        before, after = PROOF.siblings[:at], PROOF.siblings[at + 1 :]
        others = [bytes([1]) * 32] if sibling is None else [bytes([sibling[0] ^ 1]) + sibling[1:], None]
        found += [replace(PROOF, siblings=(*before, other, *after)) for other in others]
        found.append(replace(PROOF, siblings=before + after))
        if after and after[0] != sibling:
            found.append(replace(PROOF, siblings=(*before, after[0], sibling, *after[1:])))
    for at, (depth, leaf) in enumerate(PROOF.ends):
        found += [with_end(at, other, leaf) for other in range(12) if other != depth]
        found.append(replace(PROOF, ends=PROOF.ends[:at] + PROOF.ends[at + 1 :]))
        if leaf is not None:
            found += [with_end(at, depth, None), with_end(at, depth, (leaf[0], bytes(32)))]
            found.append(with_end(at, depth, (bytes([leaf[0][0], 1]) + leaf[0][2:], leaf[1])))
    return found


@pytest.mark.parametrize("at", range(len(changed())))
def test_every_changed_proof_is_refused_or_leads_elsewhere(at: int) -> None:
    assert led_to(CLAIMS, changed()[at]) != ROOT


def test_no_other_claim_has_the_same_root() -> None:
    for index, held in CLAIMS:
        for other in {None, bytes([5]) * 32} - {held}:
            assert led_to(claimed(index, other), PROOF) != ROOT


def led_to(claims: list[Claim], proof: MultiProof) -> bytes | None:
    try:
        return expand(claims, proof)[0]
    except VerificationError:
        return None
