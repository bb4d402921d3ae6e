"""Tiles of a log: its nodes by 256, so that anybody can fetch them as files that never change.

A tile ``(level, index)`` holds nodes of level ``8 * level`` of the log (``merkle.log``), from number
``256 * index`` on: 256 of them, or fewer at the right edge. The levels between follow from these. Source:
C2SP tlog-tiles, "Merkle Tree".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kt_es.crypto.hashes import HASH_SIZE, log_node_hash
from kt_es.errors import MalformedError
from kt_es.merkle.log import LogState, NodeId, ProofPlan, plan_range, plan_state

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT


@dataclass(frozen=True, slots=True)
class Tile:
    """Up to 256 hashes of one level. ``width`` is their number: 256, or fewer at the right edge of a log."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def nodes(self) -> list[NodeId]:
        """The nodes of the log whose hashes the tile has, in order."""
        first = self.index << TILE_HEIGHT
        return [NodeId(TILE_HEIGHT * self.level, first + at) for at in range(self.width)]


def tiles_between(before: int, after: int) -> Iterator[Tile]:
    """Yield the tiles that a log of ``after`` leaves has, and that of ``before`` had not, level by level.

    A tile that has grown comes again, wider. Raises ``ValueError``.
    """
    if not 0 <= before <= after:
        raise ValueError(f"a log of {before} does not grow to {after}")
    level = 0
    while after:
        if after != before:
            for index in range(before >> TILE_HEIGHT, -(-after // TILE_WIDTH)):
                yield Tile(level, index, min(TILE_WIDTH, after - (index << TILE_HEIGHT)))
        before, after, level = before >> TILE_HEIGHT, after >> TILE_HEIGHT, level + 1


def tile_at(level: int, index: int, size: int) -> Tile | None:
    """Return the widest tile at this place in a log of ``size``, None if it has none there."""
    width = min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - (index << TILE_HEIGHT))
    return Tile(level, index, width) if width > 0 else None


def plan_tile(tile: Tile, size: int) -> ProofPlan:
    """Plan the proof that a log of ``size`` has the hashes of ``tile``: the largest subtrees beside them.

    Raises ``ValueError`` if the log has no such tile.
    """
    height = TILE_HEIGHT * tile.level
    first = tile.index << TILE_HEIGHT
    return plan_range(first << height, (first + tile.width) << height, size)


def log_root_with(tile: Tile, hashes: Sequence[bytes], size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root that a log of ``size`` has if it has ``tile`` with ``hashes``, 32 bytes each.

    ``proof`` is as of ``plan_tile``. Raises ``ValueError`` if the numbers of hashes do not fit.
    """
    height = TILE_HEIGHT * tile.level
    first = tile.index << TILE_HEIGHT
    start, end = first << height, (first + tile.width) << height
    inside, beside = iter(hashes), iter(proof)

    def root(low: int, high: int) -> bytes:
        if high <= start or low >= end:
            return next(beside)
        if high - low == 1 << height:
            return next(inside)
        middle = low + (1 << ((high - low - 1).bit_length() - 1))
        return log_node_hash(root(low, middle), root(middle, high))

    planned = len(plan_tile(tile, size).runs)
    if len(hashes) != tile.width or len(proof) != planned:
        raise ValueError(f"{len(hashes)} hashes and a proof of {len(proof)} are not those of {tile}")
    return root(0, size)


def state_from_tiles(size: int, read: Callable[[Tile], bytes]) -> LogState:
    """Return the state of a log of ``size`` leaves, from its tiles.

    Args:
        size: The number of leaves, 0 or more.
        read: Returns the hashes of a tile one behind the other, ``32 * tile.width`` bytes.

    Raises:
        MalformedError: A tile has another size.
    """
    return LogState(size, tuple(root_below(node, size, read) for node in plan_state(size).nodes))


def root_below(node: NodeId, size: int, read: Callable[[Tile], bytes]) -> bytes:
    """Return the hash of a complete subtree from the one tile that has what is below it.

    Arguments and errors are those of ``state_from_tiles``; a log of ``size`` must have ``node``.
    """
    level, height = divmod(node.level, TILE_HEIGHT)
    first = node.offset << height
    tile = tile_at(level, first >> TILE_HEIGHT, size)
    if tile is None:
        raise ValueError(f"a log of {size} has no node {node}")
    data = read(tile)
    if len(data) != HASH_SIZE * tile.width:
        raise MalformedError(
            "tile", f"tile {tile.index} of level {level} has {len(data)} bytes, not {HASH_SIZE * tile.width}"
        )
    start = HASH_SIZE * (first % TILE_WIDTH)
    hashes = [data[at : at + HASH_SIZE] for at in range(start, start + (HASH_SIZE << height), HASH_SIZE)]
    return subtree_root(hashes)


def subtree_root(hashes: Sequence[bytes]) -> bytes:
    """Return the root over a power of two of hashes."""
    while len(hashes) > 1:
        hashes = [log_node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]
