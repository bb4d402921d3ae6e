"""Range proofs of the log against a naive reference, and answers about ranges against damage."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.ranges import RangeAnswer
from kt_es.merkle.log import LogState, plan_range
from kt_es.merkle.verify import log_root_from_range
from tests.builders import index
from tests.example_directory import ALICE, BOB, LONGER_STORY, ROTATED, example_range
from tests.reference import naive_log

LEAVES = [log_leaf_hash(bytes([number])) for number in range(70)]
NODES = dict(LogState().append(LEAVES)[1])


def root_or_none(start: int, size: int, leaves: list[bytes], proof: list[bytes]) -> bytes | None:
    try:
        return log_root_from_range(start, size, leaves, proof)
    except (MalformedError, VerificationError):
        return None


def test_every_range_of_every_small_log() -> None:
    for size in range(1, 18):
        nodes = dict(LogState().append(LEAVES[:size])[1])
        for start in range(size):
            for end in range(start + 1, size + 1):
                plan = plan_range(start, end, size)
                proof = plan.proof([nodes[node] for node in plan.nodes])
                assert proof == naive_log.range_proof(start, end, LEAVES[:size])
                assert len(proof) <= 128
                made = log_root_from_range(start, size, LEAVES[start:end], proof)
                assert made == naive_log.root(LEAVES[:size])


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int, int]:
    size = draw(st.integers(1, len(LEAVES)))
    start = draw(st.integers(0, size - 1))
    return start, draw(st.integers(start + 1, size)), size


@given(ranges(), st.data())
def test_what_is_changed_leads_to_another_root(chosen: tuple[int, int, int], data: st.DataObject) -> None:
    start, end, size = chosen
    plan = plan_range(start, end, size)
    proof = plan.proof([NODES[node] for node in plan.nodes])
    leaves, root = LEAVES[start:end], naive_log.root(LEAVES[:size])
    assert log_root_from_range(start, size, leaves, proof) == root
    assert root_or_none(start, size, leaves, [*proof, bytes(32)]) is None
    at = data.draw(st.integers(0, len(leaves) - 1))
    assert root_or_none(start, size, [*leaves[:at], bytes(32), *leaves[at + 1 :]], proof) != root
    if len(leaves) > 1:
        assert root_or_none(start, size, leaves[:-1], proof) != root
        assert root_or_none(start, size, leaves[::-1], proof) != root
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        assert root_or_none(start, size, leaves, [*proof[:at], *proof[at + 1 :]]) is None
        assert root_or_none(start, size, leaves, [*proof[:at], bytes(32), *proof[at + 1 :]]) != root
        assert root_or_none(start, size, leaves, [*proof[:at], b"", *proof[at + 1 :]]) is None
    for beside in (start - 1, start + 1):
        assert root_or_none(beside, size, leaves, proof) != root


@given(ranges())
def test_no_range_is_empty_or_beyond_the_log(chosen: tuple[int, int, int]) -> None:
    start, end, size = chosen
    assert root_or_none(start, size, [], []) is None
    assert root_or_none(start, end - 1, LEAVES[start:end], []) is None
    for bad in ((start, start, size), (start, size + 1, size), (-1, end, size), (end, start, size)):
        try:
            plan_range(*bad)
        except ValueError:
            continue
        raise AssertionError(bad)


def test_ranges_of_accounts_have_one_encoding() -> None:
    """Entries that come, stay, change and never were, in every range of three epochs."""
    alice, bob = index("alice"), index("bob")
    held = [{alice: ALICE, bob: BOB}, {alice: ROTATED, bob: BOB}, {alice: ROTATED, bob: BOB}]
    for user in ("alice", "bob", "carol"):
        for first in (1, 2, 3):
            for last in range(first, 4):
                answer = LONGER_STORY.range_of(user, first, held[first - 1 : last])
                assert RangeAnswer.decode(answer.encode()) == answer
                heads = [log_leaf_hash(epoch.smh_bytes) for epoch in answer.epochs]
                root = log_root_from_range(first - 1, 3, heads, answer.heads_proof)
                assert root == naive_log.root([log_leaf_hash(smh) for smh in LONGER_STORY.smhs])


def test_the_example_is_that_of_the_document() -> None:
    answer = example_range()
    assert (answer.first, [epoch.mutation for epoch in answer.epochs]) == (1, [0, 1])
    assert answer.mutations == (ALICE, ROTATED)
