"""The log against the recursive definitions of RFC 6962, and its proofs against every small change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.merkle.log import (
    LogState,
    NodeId,
    ProofPlan,
    plan_consistency,
    plan_inclusion,
    plan_state,
)
from kt_es.merkle.verify import log_root_from_consistency, log_root_from_inclusion, require_root
from tests.reference import naive_log

LEAVES = [log_leaf_hash(bytes([n])) for n in range(130)]
Stored = dict[NodeId, bytes]


def grow(*steps: int) -> tuple[LogState, Stored]:
    state, stored = LogState(), {}
    for step in steps:
        state, created = state.append(LEAVES[state.size : state.size + step])
        for node, value in created:
            assert node not in stored
            stored[node] = value
    return state, stored


def prove(plan: ProofPlan, stored: Stored) -> list[bytes]:
    return plan.proof([stored.get(node) for node in plan.nodes])


@settings(deadline=None)
@given(st.lists(st.integers(0, 33), max_size=6).filter(lambda steps: sum(steps) <= len(LEAVES)))
def test_any_steps_give_the_root_and_the_nodes_of_one(steps: list[int]) -> None:
    state, stored = grow(*steps)
    assert state.root() == naive_log.root(LEAVES[: sum(steps)])
    assert (state, stored) == grow(sum(steps))


@settings(deadline=None)
@given(st.data())
def test_inclusion_at_every_past_size(data: st.DataObject) -> None:
    _, stored = grow(len(LEAVES))
    size = data.draw(st.integers(1, len(LEAVES)))
    index = data.draw(st.integers(0, size - 1))
    proof = prove(plan_inclusion(index, size), stored)
    assert proof == naive_log.inclusion(index, LEAVES[:size])
    assert log_root_from_inclusion(index, size, LEAVES[index], proof) == naive_log.root(LEAVES[:size])


@settings(deadline=None)
@given(st.data())
def test_consistency_between_any_past_sizes(data: st.DataObject) -> None:
    _, stored = grow(len(LEAVES))
    size2 = data.draw(st.integers(1, len(LEAVES)))
    size1 = data.draw(st.integers(1, size2))
    proof = prove(plan_consistency(size1, size2), stored)
    assert proof == naive_log.consistency(size1, LEAVES[:size2])
    root1, root2 = naive_log.root(LEAVES[:size1]), naive_log.root(LEAVES[:size2])
    assert log_root_from_consistency(size1, size2, root1, proof) == root2


@settings(deadline=None)
@given(st.integers(1, len(LEAVES)))
def test_past_states_come_from_stored_nodes(size: int) -> None:
    _, stored = grow(len(LEAVES))
    state = LogState(size, tuple(prove(plan_state(size), stored)))
    assert state == grow(size)[0]


@pytest.mark.parametrize(("index", "size"), [(0, 1), (3, 7), (6, 7), (5, 8), (64, 65)])
def test_every_changed_bit_of_an_inclusion_proof_is_refused(index: int, size: int) -> None:
    _, stored = grow(size)
    root = naive_log.root(LEAVES[:size])
    parts = [LEAVES[index], *prove(plan_inclusion(index, size), stored)]
    for changed in changes(parts):
        with pytest.raises(VerificationError, match="inclusion"):
            require_root("inclusion", log_root_from_inclusion(index, size, changed[0], changed[1:]), root)
    for shorter in (parts[:-1], [*parts, parts[0]]):
        if shorter:
            with pytest.raises(VerificationError, match="inclusion"):
                log_root_from_inclusion(index, size, shorter[0], shorter[1:])


@pytest.mark.parametrize(("size1", "size2"), [(1, 2), (3, 7), (4, 8), (6, 8), (64, 100)])
def test_every_changed_bit_of_a_consistency_proof_is_refused(size1: int, size2: int) -> None:
    _, stored = grow(size2)
    root2 = naive_log.root(LEAVES[:size2])
    parts = [naive_log.root(LEAVES[:size1]), *prove(plan_consistency(size1, size2), stored)]
    for changed in changes(parts):
        with pytest.raises(VerificationError, match="consistency"):
            require_root(
                "consistency", log_root_from_consistency(size1, size2, changed[0], changed[1:]), root2
            )


def changes(parts: list[bytes]) -> list[list[bytes]]:
    found = []
    for at, part in enumerate(parts):
        for byte in range(len(part)):
            changed = bytearray(part)
            changed[byte] ^= 1 << byte % 8
            found.append([*parts[:at], bytes(changed), *parts[at + 1 :]])
    return found


def test_a_missing_node_is_divergence() -> None:
    _, stored = grow(8)
    del stored[NodeId(1, 1)]
    with pytest.raises(DivergenceError, match="level 1, offset 1"):
        prove(plan_inclusion(0, 8), stored)


def test_a_state_that_cannot_be_is_malformed() -> None:
    state, _ = grow(7)
    for size, hashes in ((6, state.hashes), (7, state.hashes[1:]), (7, (b"", *state.hashes[1:])), (-1, ())):
        with pytest.raises(MalformedError, match="log state"):
            LogState(size, hashes)


def test_impossible_places_are_the_callers_mistake() -> None:
    plans: tuple[Callable[[], ProofPlan], ...] = (
        lambda: plan_inclusion(3, 3),
        lambda: plan_inclusion(-1, 3),
        lambda: plan_consistency(0, 3),
        lambda: plan_consistency(4, 3),
    )
    for plan in plans:
        with pytest.raises(ValueError, match=r"log|proof"):
            plan()
