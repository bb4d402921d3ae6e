"""The map built anew from a dict each time, as docs/DESIGN.md, section 3, defines it: slow and obvious."""

from __future__ import annotations

import hashlib

from kt_es.merkle.verify import MapProof

EMPTY = bytes(32)


def bit(index: bytes, depth: int) -> int:
    return index[depth // 8] >> (7 - depth % 8) & 1


def root(entries: dict[bytes, bytes], depth: int = 0) -> bytes:
    if not entries:
        return EMPTY
    if len(entries) == 1:
        ((index, entry_hash),) = entries.items()
        return hashlib.sha256(b"\x00" + index + entry_hash).digest()
    left, right = halves(entries, depth)
    return hashlib.sha256(b"\x01" + root(left, depth + 1) + root(right, depth + 1)).digest()


def halves(entries: dict[bytes, bytes], depth: int) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    left = {index: value for index, value in entries.items() if bit(index, depth) == 0}
    right = {index: value for index, value in entries.items() if bit(index, depth) == 1}
    return left, right


def prove(entries: dict[bytes, bytes], index: bytes) -> MapProof:
    siblings: list[bytes | None] = []
    depth = 0
    while len(entries) > 1:
        pair = halves(entries, depth)
        side = bit(index, depth)
        beside = pair[1 - side]
        siblings.insert(0, root(beside, depth + 1) if beside else None)
        entries = pair[side]
        depth += 1
    leaf = next(iter(entries.items())) if entries else None
    return MapProof(tuple(siblings), leaf)
