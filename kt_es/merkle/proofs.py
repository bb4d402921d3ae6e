"""The value of a map proof: the leaf at the end of the path of an index, and the siblings of the path."""

from __future__ import annotations

from dataclasses import dataclass

Siblings = tuple[bytes | None, ...]
"""Sibling hashes of a path, from the deepest up to the root: 32 bytes, or None for an empty subtree."""

Leaf = tuple[bytes, bytes]
"""A leaf of the map: its index and its entry hash, 32 bytes each."""


@dataclass(frozen=True, slots=True)
class MapProof:
    """Proof of one index in the map at one epoch.

    ``leaf`` is the leaf at the end of the path. The leaf of the index itself proves inclusion; another leaf
    or None (an empty subtree) proves absence. The depth of the path is ``len(siblings)``, at most 256.
    ``verify.map_root`` checks lengths and depth. Constructing a proof does not check them.
    """

    siblings: Siblings
    leaf: Leaf | None

    def entry_hash(self, index: bytes) -> bytes | None:
        """Return the entry hash that the proof claims for ``index``, or None if the proof claims absence."""
        if self.leaf is None or self.leaf[0] != index:
            return None
        return self.leaf[1]
