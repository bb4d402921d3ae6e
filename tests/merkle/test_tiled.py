"""A log that is read by its tiles: everything that it answers is verified up to one root."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.errors import MalformedError, VerificationError
from kt_es.merkle.log import LogState, NodeId
from kt_es.merkle.tiled import TiledLog
from kt_es.merkle.tiles import Tile, tile_at
from tests.reference import naive_log

LARGE = 66_100


@cache
def leaves() -> list[bytes]:
    return [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(LARGE)]


@cache
def nodes_of(size: int) -> dict[NodeId, bytes]:
    return dict(LogState().append(leaves()[:size])[1])


def reader(
    size: int, change: Callable[[Tile, bytes], bytes] = lambda _, data: data
) -> Callable[[Tile], bytes]:
    nodes = nodes_of(size)
    return lambda tile: change(tile, b"".join(nodes[node] for node in tile.nodes))


def bundles(size: int) -> list[tuple[int, list[bytes]]]:
    return [(at // 256, leaves()[at : min(at + 256, size)]) for at in range(0, size, 256)]


@settings(deadline=None)
@given(st.integers(0, 700), st.data())
def test_leaves_and_earlier_states_are_verified(size: int, data: st.DataObject) -> None:
    log = TiledLog(size, naive_log.root(leaves()[:size]), reader(size))
    for index, hashes in bundles(size):
        log.check_leaves(index, hashes)
    before = data.draw(st.integers(0, size))
    assert log.state_at(before).root() == naive_log.root(leaves()[:before])


def test_tiles_of_three_levels_are_verified_and_read_once() -> None:
    read: list[Tile] = []

    def noted(tile: Tile, data: bytes) -> bytes:
        read.append(tile)
        return data

    log = TiledLog(LARGE, LogState().append(leaves())[0].root(), reader(LARGE, noted))
    for index, hashes in bundles(LARGE):
        log.check_leaves(index, hashes)
    assert log.state_at(65_800) == LogState().append(leaves()[:65_800])[0]
    # The right edge and the one whole tile of level 1 are enough to verify all leaves.
    wide = [tile for tile in read if tile.level > 0]
    assert sorted((tile.level, tile.index) for tile in wide) == [(1, 0), (1, 1), (2, 0)]
    assert len(read) == len({(tile.level, tile.index) for tile in read})


def test_every_wrong_hash_is_found() -> None:
    size = 66_000
    root = LogState().append(leaves()[:size])[0].root()
    reads: list[Tile] = []

    def noted(tile: Tile, data: bytes) -> bytes:
        reads.append(tile)
        return data

    def other(wrong: Tile, instead: Callable[[bytes], bytes]) -> Callable[[Tile, bytes], bytes]:
        return lambda tile, data: instead(data) if tile == wrong else data

    TiledLog(size, root, reader(size, noted)).state_at(65_700)
    for wrong in reads:
        changed = other(wrong, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(VerificationError, match="checkpoint"):
            TiledLog(size, root, reader(size, changed)).state_at(65_700)
        cuts: list[Callable[[bytes], bytes]] = [
            lambda data: data[:-32],
            lambda data: data + bytes(32),
            lambda _: b"",
        ]
        for cut in cuts:
            with pytest.raises((VerificationError, MalformedError)):
                TiledLog(size, root, reader(size, other(wrong, cut))).state_at(65_700)


def test_wrong_leaves_are_found_in_whole_and_partial_tiles() -> None:
    size = 600
    log = TiledLog(size, naive_log.root(leaves()[:size]), reader(size))
    for index, hashes in bundles(size):
        for other in ([*hashes[:-1], bytes(32)], hashes[:-1], [*hashes, bytes(32)], []):
            with pytest.raises(VerificationError, match=f"tile {index}"):
                log.check_leaves(index, other)


@settings(deadline=None)
@given(st.integers(1, 600), st.integers(1, 600), st.data())
def test_the_first_leaf_that_differs_is_found(size: int, theirs: int, data: st.DataObject) -> None:
    common = min(size, theirs)
    differs = data.draw(st.one_of(st.none(), st.integers(0, common - 1)))
    later = data.draw(st.booleans())
    other = list(leaves()[:theirs])
    if differs is not None:
        for at in range(differs, theirs if later else differs + 1):
            other[at] = bytes([at % 256]) * 32
    nodes = dict(LogState().append(other)[1])
    log = TiledLog(
        theirs,
        naive_log.root(other),
        lambda tile: b"".join(nodes[node] for node in tile.nodes),
    )
    ours = nodes_of(size)
    assert log.first_difference(common, lambda node: ours[node]) == differs


def test_a_log_has_no_tiles_beyond_its_end() -> None:
    log = TiledLog(256, naive_log.root(leaves()[:256]), reader(256))
    assert tile_at(0, 1, 256) is None
    with pytest.raises(ValueError, match="no tile 1 of level 0"):
        log.hashes(0, 1)
