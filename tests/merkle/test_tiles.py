"""Tiles hold the nodes of a log, and give its state back."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.errors import MalformedError
from kt_es.merkle.log import LogState, NodeId
from kt_es.merkle.tiles import (
    Tile,
    log_root_with,
    plan_tile,
    state_from_tiles,
    tile_at,
    tiles_between,
)
from tests.reference import naive_log

LEAVES = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(700)]


def nodes_of(size: int) -> dict[NodeId, bytes]:
    return dict(LogState().append(LEAVES[:size])[1])


def data_of(tile: Tile, nodes: dict[NodeId, bytes]) -> bytes:
    return b"".join(nodes[node] for node in tile.nodes)


@given(st.integers(0, 700))
def test_the_state_of_a_log_follows_from_its_tiles(size: int) -> None:
    nodes = nodes_of(size)
    state = state_from_tiles(size, lambda tile: data_of(tile, nodes))
    assert state == LogState().append(LEAVES[:size])[0]
    assert state.root() == naive_log.root(LEAVES[:size])


@given(st.integers(0, 200_000), st.integers(0, 70_000))
def test_a_log_that_grows_has_exactly_the_tiles_that_are_wider_or_new(before: int, more: int) -> None:
    def tiles(size: int) -> dict[tuple[int, int], int]:
        found: dict[tuple[int, int], int] = {}
        level = 0
        while count := size >> (8 * level):
            found |= {(level, at // 256): min(256, count - at) for at in range(0, count, 256)}
            level += 1
        return found

    old, new = tiles(before), tiles(before + more)
    expected = {place: width for place, width in new.items() if old.get(place) != width}
    got = list(tiles_between(before, before + more))
    assert {(tile.level, tile.index): tile.width for tile in got} == expected
    assert len(got) == len(expected)
    for tile in got:
        assert tile_at(tile.level, tile.index, before + more) == tile


def test_there_is_no_tile_beyond_the_edge() -> None:
    assert tile_at(0, 0, 0) is None
    assert tile_at(0, 1, 256) is None
    assert tile_at(1, 0, 255) is None
    assert tile_at(1, 0, 256) == Tile(1, 0, 1)
    with pytest.raises(ValueError, match="does not grow"):
        list(tiles_between(2, 1))


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_a_tile_of_another_size_is_refused(change: object) -> None:
    nodes = nodes_of(300)
    with pytest.raises(MalformedError, match="tile 0 of level 1 has"):
        state_from_tiles(300, lambda tile: change(data_of(tile, nodes)))  # type: ignore[operator]


@given(st.integers(1, 700), st.data())
def test_a_tile_leads_to_the_root_and_no_other_hashes_do(size: int, data: st.DataObject) -> None:
    nodes = nodes_of(size)
    tile = data.draw(st.sampled_from(list(tiles_between(0, size))))
    tile = Tile(tile.level, tile.index, data.draw(st.integers(1, tile.width)))
    plan = plan_tile(tile, size)
    proof = plan.proof([nodes[node] for node in plan.nodes])
    hashes = [nodes[node] for node in tile.nodes]
    root = naive_log.root(LEAVES[:size])
    assert log_root_with(tile, hashes, size, proof) == root
    at = data.draw(st.integers(0, len(hashes) + len(proof) - 1))
    wrong = [*hashes, *proof]
    wrong[at] = bytes(32)
    assert log_root_with(tile, wrong[: len(hashes)], size, wrong[len(hashes) :]) != root
    for less in ((hashes[1:], proof), (hashes, [*proof, bytes(32)])):
        with pytest.raises(ValueError, match="are not those of"):
            log_root_with(tile, less[0], size, less[1])


def test_a_large_log_has_the_same_root_by_its_tiles() -> None:
    leaves = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(70_001)]
    state, created = LogState().append(leaves)
    nodes = dict(created)
    for tile in (Tile(0, 0), Tile(0, 273, 113), Tile(1, 0), Tile(1, 1, 17), Tile(1, 0, 9), Tile(2, 0, 1)):
        plan = plan_tile(tile, len(leaves))
        proof = plan.proof([nodes[node] for node in plan.nodes])
        hashes = [nodes[node] for node in tile.nodes]
        assert log_root_with(tile, hashes, len(leaves), proof) == state.root()
    assert state_from_tiles(len(leaves), lambda tile: data_of(tile, nodes)) == state
