"""A log that is read by its tiles, each verified up to the root of one checkpoint.

The tiles at the right edge make up the root. A whole tile makes up one hash of the tile above it. So each
tile is verified by tiles that were verified before, and nothing has to be read that is not asked for. Source:
C2SP tlog-tiles, "Merkle Tree".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kt_es.crypto.hashes import HASH_SIZE
from kt_es.errors import VerificationError
from kt_es.merkle.log import LogState, NodeId, plan_state
from kt_es.merkle.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    root_below,
    state_from_tiles,
    subtree_root,
    tile_at,
)

_STEP = "tiles"


class TiledLog:
    """The log of ``size`` leaves with ``root``, whoever serves its tiles. Not safe for threads.

    Memory holds the tiles of the right edge, and one whole tile of each level.

    Attributes:
        state: The state of the log.
    """

    def __init__(self, size: int, root: bytes, read: Callable[[Tile], bytes]) -> None:
        """Verify the right edge.

        Args:
            read: Returns the hashes of a tile, ``32 * tile.width`` bytes; what it raises is passed on.

        Raises:
            MalformedError: A tile has another size.
            VerificationError: Step "tiles"; the tiles lead to another root.
        """
        self._size = size
        self._read = read
        self._edge: dict[int, bytes] = {}  # by level
        self._whole: dict[int, tuple[int, bytes]] = {}  # index and hashes, by level
        self.state = state_from_tiles(size, self._read_edge)
        if self.state.root() != root:
            raise VerificationError(
                _STEP, f"they lead to another root of {size} leaves than the checkpoint has"
            )

    def _read_edge(self, tile: Tile) -> bytes:
        if tile.level not in self._edge:
            self._edge[tile.level] = self._read(tile)
        return self._edge[tile.level]

    def hashes(self, level: int, index: int) -> bytes:
        """Return the verified hashes of the widest tile at this place. Raises as the constructor does."""
        tile = tile_at(level, index, self._size)
        if tile is None:
            raise ValueError(f"a log of {self._size} has no tile {index} of level {level}")
        if tile.width < TILE_WIDTH:
            return self._edge[level]
        known = self._whole.get(level)
        if known is None or known[0] != index:
            data = self._read(tile)
            self._compare(level, index, [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)])
            known = self._whole[level] = index, data
        return known[1]

    def check_leaves(self, index: int, leaf_hashes: Sequence[bytes]) -> None:
        """Raise ``VerificationError`` unless these are the hashes of all leaves of tile ``index``."""
        if len(leaf_hashes) == TILE_WIDTH:
            self._compare(0, index, leaf_hashes)
        elif b"".join(leaf_hashes) != self.hashes(0, index):
            raise VerificationError(_STEP, f"leaves of tile {index} are not those of the checkpoint")

    def _compare(self, level: int, index: int, hashes: Sequence[bytes]) -> None:
        """Compare a whole tile with the hash above it."""
        at = HASH_SIZE * (index % TILE_WIDTH)
        above = self.hashes(level + 1, index >> TILE_HEIGHT)[at : at + HASH_SIZE]
        if len(hashes) != TILE_WIDTH or subtree_root(hashes) != above:
            raise VerificationError(_STEP, f"tile {index} of level {level} is not the one of the checkpoint")

    def state_at(self, size: int) -> LogState:
        """Return the state that this log had with ``size`` leaves, at most as many as it has now."""

        def read(tile: Tile) -> bytes:
            return self.hashes(tile.level, tile.index)[: HASH_SIZE * tile.width]

        return state_from_tiles(size, read)

    def node(self, node: NodeId) -> bytes:
        """Return the hash of a complete subtree of this log."""
        return root_below(node, self._size, lambda tile: self.hashes(tile.level, tile.index))

    def first_difference(self, size: int, other: Callable[[NodeId], bytes]) -> int | None:
        """Return the number of the first leaf that differs from a log with the nodes of ``other``.

        Only the first ``size`` leaves are compared, which both logs have. None if they do not differ.
        """
        for (node,) in plan_state(size).runs:
            if self.node(node) != other(node):
                return self._descend(node, other)
        return None

    def _descend(self, node: NodeId, other: Callable[[NodeId], bytes]) -> int:
        while node.level:
            left = NodeId(node.level - 1, 2 * node.offset)
            node = left if self.node(left) != other(left) else NodeId(left.level, left.offset + 1)
        return node.offset
