"""The value of a map proof: what stands at the end of an index's path, and what stands beside it."""

from __future__ import annotations

from dataclasses import dataclass

Siblings = tuple[bytes | None, ...]
"""Hashes beside a path, from the deepest up to the root: 32 bytes each, None for an empty subtree."""

Leaf = tuple[bytes, bytes]
"""A leaf of the map: its index and its entry hash, 32 bytes each."""


@dataclass(frozen=True, slots=True)
class MapProof:
    """Proof of one index in the map at one epoch.

    ``leaf`` is what stands at the end of the path: the index's own leaf proves inclusion, another one
    or None (an empty subtree) proves absence. The depth of the path is ``len(siblings)``, at most 256.
    Shapes are checked by ``verify.map_root``, which is the only reader that must not trust them.
    """

    siblings: Siblings
    leaf: Leaf | None

    def entry_hash(self, index: bytes) -> bytes | None:
        """The entry hash that the proof claims for ``index``, or None if it claims absence."""
        if self.leaf is None or self.leaf[0] != index:
            return None
        return self.leaf[1]
