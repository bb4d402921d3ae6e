"""The Merkle log by the recursive definitions of RFC 6962, section 2.1, over all its leaves."""

from __future__ import annotations

import hashlib


def split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def root(leaf_hashes: list[bytes]) -> bytes:
    if not leaf_hashes:
        return hashlib.sha256(b"").digest()
    if len(leaf_hashes) == 1:
        return leaf_hashes[0]
    k = split(len(leaf_hashes))
    return hashlib.sha256(b"\x01" + root(leaf_hashes[:k]) + root(leaf_hashes[k:])).digest()


def inclusion(index: int, leaf_hashes: list[bytes]) -> list[bytes]:
    if len(leaf_hashes) == 1:
        return []
    k = split(len(leaf_hashes))
    if index < k:
        return [*inclusion(index, leaf_hashes[:k]), root(leaf_hashes[k:])]
    return [*inclusion(index - k, leaf_hashes[k:]), root(leaf_hashes[:k])]


def consistency(size1: int, leaf_hashes: list[bytes], whole: bool = True) -> list[bytes]:
    if size1 == len(leaf_hashes):
        return [] if whole else [root(leaf_hashes)]
    k = split(len(leaf_hashes))
    if size1 <= k:
        return [*consistency(size1, leaf_hashes[:k], whole), root(leaf_hashes[k:])]
    return [*consistency(size1 - k, leaf_hashes[k:], False), root(leaf_hashes[:k])]


def range_proof(start: int, end: int, hashes: list[bytes]) -> list[bytes]:
    """The roots beside the leaves ``start`` up to ``end``, from left to right."""

    def beside(low: int, high: int) -> list[bytes]:
        if high <= start or low >= end:
            return [root(hashes[low:high])]
        if start <= low and high <= end:
            return []
        middle = low + split(high - low)
        return beside(low, middle) + beside(middle, high)

    return beside(0, len(hashes))
