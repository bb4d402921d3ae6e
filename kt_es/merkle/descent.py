"""The way of one index down the map, with the hashes beside it: what a proof consists of."""

from __future__ import annotations

from kt_es.crypto.hashes import HASH_SIZE
from kt_es.merkle.pages import LEAF_HASHED, LEVELS, SLOTS, Page
from kt_es.merkle.verify import MapProof

# For each slot of a page: the nodes on the way down to it from the top, each with the node beside it.
_STEPS = tuple(
    tuple(
        (LEVELS[height] + (position >> height), LEVELS[height] + (position >> height) ^ 1)
        for height in range(len(LEVELS) - 2, -1, -1)
    )
    for position in range(SLOTS)
)


class Descent:
    """The path of one index down the tree, page by page."""

    def __init__(self, index: bytes, slot: bytes | None) -> None:
        """Begin at the root page, which ``slot`` names; None for the empty map."""
        self.index = index
        self.slot = slot
        """The slot that names the next page; None at the end of the path."""
        self._siblings: list[bytes | None] = []
        self._leaf: bytes | None = None

    def descend(self, page: Page, position: int) -> None:
        """Follow the path through one page to slot ``position``: a child page, a leaf or an empty subtree."""
        slots, hashes, leaves = page
        node = LEVELS[-1]
        for below, beside in _STEPS[position]:
            if hashes[node] is None or leaves[node] is not None:
                break
            node = below
            self._siblings.append(hashes[beside])
        self._leaf = leaves[node]
        is_end = hashes[node] is None or self._leaf is not None
        self.slot = None if is_end else slots[position]

    @property
    def leaf(self) -> bytes | None:
        """The leaf slot at the end of the path if it is the leaf of the index, otherwise None."""
        return self._leaf if self._leaf is not None and self._leaf[:HASH_SIZE] == self.index else None

    def proof(self) -> MapProof:
        leaf = self._leaf
        return MapProof(
            tuple(reversed(self._siblings)),
            None if leaf is None else (leaf[:HASH_SIZE], leaf[HASH_SIZE:LEAF_HASHED]),
        )
