"""Proofs of both Merkle structures, and the roots that they compute. It needs no storage.

Each function computes the root to which a proof leads. The caller compares this root with a signed one. A
value of the wrong length raises ``MalformedError``. A proof that does not fit the sizes or the index raises
``VerificationError`` with the step "inclusion", "consistency" or "map".

Logs follow RFC 9162, sections 2.1.3.2 and 2.1.4.2 (the trees of RFC 6962). The map follows docs/DESIGN.md,
section 3: the path of a leaf is the shortest prefix of its index that no other leaf has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.crypto.hashes import HASH_SIZE, MAP_EMPTY, log_node_hash, map_leaf_hash, map_node_hash
from kt_es.errors import MalformedError, VerificationError

MAX_DEPTH = 8 * HASH_SIZE

Leaf = tuple[bytes, bytes]
"""A leaf of the map: its index and its entry hash, 32 bytes each."""


@dataclass(frozen=True, slots=True)
class MapProof:
    """Proof of one index in the map at one epoch.

    ``siblings`` are the hashes beside the path, from the deepest up to the root: 32 bytes, or None for an
    empty subtree. There are at most 256. ``leaf`` is the leaf at the end of the path. The leaf of the index
    itself proves inclusion; another leaf or None (an empty subtree) proves absence. ``map_root`` checks
    lengths and depth. Constructing a proof does not check them.
    """

    siblings: tuple[bytes | None, ...]
    leaf: Leaf | None

    def entry_hash(self, index: bytes) -> bytes | None:
        """Return the entry hash that the proof claims for ``index``, or None if the proof claims absence."""
        if self.leaf is None or self.leaf[0] != index:
            return None
        return self.leaf[1]


def log_root_from_inclusion(leaf_index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes]) -> bytes:
    """Return the root of the log of ``size`` leaves that has ``leaf_hash`` at ``leaf_index``.

    ``proof`` has the siblings from the leaf up to the root, 32 bytes each (RFC 9162, 2.1.3.2).
    """
    _check_hashes("inclusion proof", leaf_hash, *proof)
    if not 0 <= leaf_index < size:
        raise VerificationError("inclusion", f"leaf {leaf_index} is not in a log of {size}")
    fn, sn = leaf_index, size - 1
    root = leaf_hash
    for sibling in proof:
        if sn == 0:
            raise VerificationError("inclusion", "the proof is too long")
        if fn & 1 or fn == sn:
            root = log_node_hash(sibling, root)
            fn, sn = _skip_right_edge(fn, sn)
        else:
            root = log_node_hash(root, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise VerificationError("inclusion", "the proof is too short")
    return root


def log_root_from_range(start: int, size: int, leaf_hashes: Sequence[bytes], proof: Sequence[bytes]) -> bytes:
    """Return the root of the log of ``size`` that has ``leaf_hashes`` from the leaf ``start`` on.

    ``proof`` has the roots of the largest subtrees of RFC 6962 that contain none of these leaves, from left
    to right (``log.plan_range``). At least one leaf is needed.
    """
    _check_hashes("range proof", *leaf_hashes, *proof)
    end = start + len(leaf_hashes)
    if not 0 <= start < end <= size:
        raise VerificationError("inclusion", f"leaves {start} to {end} are not in a log of {size}")
    beside = iter(proof)

    def root_of(low: int, high: int) -> bytes:
        if high <= start or low >= end:
            value = next(beside, None)
            if value is None:
                raise VerificationError("inclusion", "the proof is too short")
            return value
        if high - low == 1:
            return leaf_hashes[low - start]
        middle = low + (1 << ((high - low - 1).bit_length() - 1))
        return log_node_hash(root_of(low, middle), root_of(middle, high))

    root = root_of(0, size)
    if next(beside, None) is not None:
        raise VerificationError("inclusion", "the proof is too long")
    return root


def log_root_from_consistency(size1: int, size2: int, root1: bytes, proof: Sequence[bytes]) -> bytes:
    """Return the root at ``size2`` of the log that has ``root1`` at ``size1`` (RFC 9162, 2.1.4.2).

    The sizes must satisfy ``1 <= size1 <= size2``. Size 0 is refused: every log is consistent with the empty
    log, so a proof would show nothing. For equal sizes the proof must be empty, and the result is ``root1``,
    whose length is not checked.
    """
    _check_hashes("consistency proof", *proof)
    if not 1 <= size1 <= size2:
        raise VerificationError("consistency", f"no proof leads from size {size1} to {size2}")
    if size1 == size2:
        if proof:
            raise VerificationError("consistency", "the sizes are equal, but the proof is not empty")
        return root1
    path = list(proof)
    if size1 & (size1 - 1) == 0:
        path.insert(0, root1)
    if not path:
        raise VerificationError("consistency", "the proof is empty")
    fn, sn = size1 - 1, size2 - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if sn == 0:
            raise VerificationError("consistency", "the proof is too long")
        if fn & 1 or fn == sn:
            first = log_node_hash(sibling, first)
            second = log_node_hash(sibling, second)
            fn, sn = _skip_right_edge(fn, sn)
        else:
            second = log_node_hash(second, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise VerificationError("consistency", "the proof is too short")
    if first != root1:
        raise VerificationError("consistency", f"the proof does not start at the root of size {size1}")
    return second


def _skip_right_edge(fn: int, sn: int) -> tuple[int, int]:
    """Skip the levels at which a node of the right edge has no sibling (the inner loop of RFC 9162)."""
    while not fn & 1 and fn:
        fn, sn = fn >> 1, sn >> 1
    return fn, sn


def map_root_from_inclusion(index: bytes, entry_hash: bytes, siblings: Sequence[bytes | None]) -> bytes:
    """Return the root of the map that has ``entry_hash`` at ``index`` (32 bytes each).

    ``siblings`` are ordered from the leaf up to the root. None is an empty subtree.
    """
    _check_hashes("map proof", index, entry_hash)
    _check_siblings(siblings)
    if siblings and siblings[0] is None:
        raise VerificationError("map", "the leaf does not stand at its shortest unique prefix")
    return _climb(index, map_leaf_hash(index, entry_hash), siblings)


def map_root_from_absence(index: bytes, siblings: Sequence[bytes | None], other: Leaf | None) -> bytes:
    """Return the root of the map that has no entry at ``index``.

    The path ends at an empty subtree (``other`` is None), or at the leaf ``other`` of another index that
    begins with the same ``len(siblings)`` bits.
    """
    _check_hashes("map proof", index)
    _check_siblings(siblings)
    if other is None:
        if siblings and siblings[0] is None:
            raise VerificationError("map", "an empty subtree stands beside another one")
        return _climb(index, MAP_EMPTY, siblings)
    _check_hashes("map proof", other[0])
    if other[0] == index:
        raise VerificationError("map", "the leaf said to be another is the index's own")
    shift = MAX_DEPTH - len(siblings)
    if int.from_bytes(other[0]) >> shift != int.from_bytes(index) >> shift:
        raise VerificationError("map", "the other leaf does not stand on the path of the index")
    return map_root_from_inclusion(other[0], other[1], siblings)


def map_root(index: bytes, proof: MapProof) -> bytes:
    """Return the root to which ``proof`` leads for ``index``. The proof may show inclusion or absence."""
    if proof.leaf is not None and proof.leaf[0] == index:
        return map_root_from_inclusion(index, proof.leaf[1], proof.siblings)
    return map_root_from_absence(index, proof.siblings, proof.leaf)


def require_root(step: str, computed: bytes, trusted: bytes) -> None:
    """Raise ``VerificationError`` with ``step`` unless the computed root is the signed one."""
    if computed != trusted:
        raise VerificationError(step, "the proof leads to another root than the signed one")


def _climb(index: bytes, root: bytes, siblings: Sequence[bytes | None]) -> bytes:
    path = int.from_bytes(index) >> (MAX_DEPTH - len(siblings))
    for sibling in siblings:
        beside = MAP_EMPTY if sibling is None else sibling
        root = map_node_hash(beside, root) if path & 1 else map_node_hash(root, beside)
        path >>= 1
    return root


def _check_hashes(what: str, *hashes: bytes) -> None:
    for value in hashes:
        if len(value) != HASH_SIZE:
            raise MalformedError(what, f"a hash must have {HASH_SIZE} bytes, has {len(value)}")


def _check_siblings(siblings: Sequence[bytes | None]) -> None:
    if len(siblings) > MAX_DEPTH:
        raise MalformedError("map proof", f"must have at most {MAX_DEPTH} siblings, has {len(siblings)}")
    for sibling in siblings:
        if sibling is None:
            continue
        _check_hashes("map proof", sibling)
        if sibling == MAP_EMPTY:
            raise MalformedError("map proof", "an empty subtree is written as null, not as zero bytes")
