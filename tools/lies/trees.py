"""The map of a small directory. It is built from a dict each time, by its definition (FORMATS, "Map")."""

from __future__ import annotations

from collections.abc import Mapping

from kt_es.crypto.hashes import MAP_EMPTY, map_leaf_hash, map_node_hash
from kt_es.merkle.verify import MapProof

Entries = Mapping[bytes, bytes]
"""Entry hashes by index."""


def map_root(entries: Entries, depth: int = 0) -> bytes:
    if not entries:
        return MAP_EMPTY
    if len(entries) == 1:
        ((index, entry_hash),) = entries.items()
        return map_leaf_hash(index, entry_hash)
    left, right = _halves(entries, depth)
    return map_node_hash(map_root(left, depth + 1), map_root(right, depth + 1))


def prove(entries: Entries, index: bytes) -> MapProof:
    """Return the proof of the entry at ``index``, or of its absence."""
    siblings: list[bytes | None] = []
    depth = 0
    while len(entries) > 1:
        pair = _halves(entries, depth)
        side = _bit(index, depth)
        beside = pair[1 - side]
        siblings.insert(0, map_root(beside, depth + 1) if beside else None)
        entries = pair[side]
        depth += 1
    return MapProof(tuple(siblings), next(iter(entries.items())) if entries else None)


def _halves(entries: Entries, depth: int) -> tuple[Entries, Entries]:
    left = {index: value for index, value in entries.items() if _bit(index, depth) == 0}
    right = {index: value for index, value in entries.items() if _bit(index, depth) == 1}
    return left, right


def _bit(index: bytes, depth: int) -> int:
    return index[depth // 8] >> (7 - depth % 8) & 1
